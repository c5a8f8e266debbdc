"""What must hold of a host as a whole, and when it is checked.

What        `HostAudit`: after every step, at the ends of epochs, or at the end only.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  [HM-2] sum of tot_pages + paging pools + what Xen and dom0 have + room kept for who is to come + free = RAM.
            [HM-3] debt >= 0 from the end of the build of every domain, but for those that Xen's first version may leave
                   a surplus in the cache of (R10).
            Those of each domain's pages are the machine's (`audit.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from podcluster.config import HostConfig
from podcluster.errors import InvariantError
from podcluster.host.agenda import Agenda
from podcluster.host.eras import RFC2009
from podcluster.host.mechanism import Mechanism
from podcluster.host.own import OwnMemory
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Residents
from podcluster.records.hosts import HostSpec
from podcluster.units import NS_PER_S


class HostAudit:
    """The auditor of one host."""

    def __init__(
        self,
        spec: HostSpec,
        host: HostConfig,
        seed: int,
        machine: Mechanism,
        own: OwnMemory,
        residents: Residents,
        recorder: Recorder,
        agenda: Agenda,
    ) -> None:
        """`host.check` says when to look."""
        self._spec = spec
        self._check = host.check
        self._leaves_surplus = host.era == RFC2009
        self._seed = seed
        self._machine = machine
        self._own = own
        self._residents = residents
        self._recorder = recorder
        self._agenda = agenda
        self._changed: dict[int, None] = {}  # domids to audit, in order

    def acted(self, domid: int) -> None:
        """Something happened to a domain: recount its pages (P15), now or in its turn."""
        if self._check == "step":
            self._recount(domid)
        else:
            self._changed[domid] = None

    def retired(self, domid: int) -> None:
        """A domain's turn is not to come."""
        self._changed.pop(domid, None)

    def destroyed(self) -> None:
        """A domain is no more."""
        if self._check == "step":
            self.everything()

    def end_epoch(self) -> None:
        """The equations of all domains, and a recount of one that changed, in turn: a recount walks every page."""
        if self._check != "epoch":
            return
        self._sums()
        for domid in self._changed:
            del self._changed[domid]
            self._recount(domid)
            break

    def everything(self) -> None:
        """All of it, and the whole host's frames."""
        if self._check != "off":
            self._sums()
            self._checked(0, self._machine.audit)

    def _recount(self, domid: int) -> None:
        self._checked(domid, lambda: self._machine.audit(domid))

    def _sums(self) -> None:
        kept = sum(room.pages for room in self._residents.rooms.values())
        aside, owned, free = self._own.pages + kept, self._recorder.owned.now, self._machine.free_pages
        pools = sum(resident.domain.numbers.aside_pages for resident in self._residents.standing)
        if owned + pools + aside + free != self._spec.ram_pages:
            raise InvariantError(
                f"[HM-2] owned {owned} + pools {pools} + set aside {aside} + free {free} "
                f"== RAM {self._spec.ram_pages} violated {self._place(0)}"
            )
        if self._leaves_surplus:
            return
        for domid, resident in self._residents.running.items():
            if resident.memory.debt < 0:
                raise InvariantError(f"[HM-3] debt >= 0 violated: {resident.memory.debt} {self._place(domid)}")

    def _checked(self, domid: int, audit: Callable[[], None]) -> None:
        try:
            audit()
        except InvariantError as error:
            raise InvariantError(f"{error} {self._place(domid)}") from error

    def _place(self, domid: int) -> str:
        who = f"Dom{domid}, " if domid else ""
        t_s = self._agenda.reached_ns / NS_PER_S
        return f"({who}host {self._spec.host_id}, t={t_s:.6f} s, seed {self._seed})"
