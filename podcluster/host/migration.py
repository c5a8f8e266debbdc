"""Domains that leave for another host while they run: down to their minimum, copied, gone.

What        `Migrations`: what `MigrateOut` sets off on the sending host, step by step, and what it does once the
            receiver has answered (`MigrateGo`, `MigrateStay`).
Units       Pages of 4 KiB; ns of simulated time.
Order       The steps of an instant come after its commands and before its samples and guests, like commands: they are
            barriers [HM-1].
Rules       docs/model.md A6.4, D4.7. The target is set to the dynamic minimum, and a controller sees no range above;
            once the driver is at rest, or after the wait, room is asked for what the guest then has, and it runs on
            until there is an answer. It stays if there is no room, or if it has more by then. Copying maps every page,
            which populates what was promised: a guest in debt may die of it here, by dom0's access, and one that lives
            does not go: the receiver has no promises, and its quota does not allow so many pages.
Departs     The receiver is asked for room for what the domain has, where XAPI asks for the sender's limit (D4.7), and
            its controller makes it as for a start: of that much at least, where squeezed would be asked for exactly
            that (D4.1). The wait is for any driver to be at rest. XAPI looks at `control/balloon-active` (D4.7), which
            Linux' driver never writes (C2.6): it would let such a guest go at once with what it has, which is what
            `migration.wait_s=0` does here. Copies of one host go one after another over one link; pages that are
            written meanwhile are not sent again. What dom0 has mapped may be reclaimed at once, where Xen cannot take a
            page as long as it is mapped: fewer die of a copy here. Only a guest that is up moves; others stay.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from podcluster.host.agenda import Agenda
from podcluster.host.attention import Attention
from podcluster.host.host_audit import HostAudit
from podcluster.host.lifecycle import Lifecycle
from podcluster.host.own import DOM0
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Resident, Residents
from podcluster.host.streams import NEVER
from podcluster.host.targets import Targets
from podcluster.records.migration import GuestState, MigrateGo, MigrateOut, MigrateStay, RoomWanted
from podcluster.units import NS_PER_S, pages_to_mib

POLL_NS: Final = NS_PER_S  # how often a toolstack looks whether a driver is at rest

Step = Callable[["Leaving", int], None]


@dataclass(slots=True)
class Leaving:
    """One domain on its way out."""

    resident: Resident
    command: MigrateOut
    step: Step


class Migrations:
    """Those of one host."""

    def __init__(
        self,
        residents: Residents,
        *,
        agenda: Agenda,
        recorder: Recorder,
        audit: HostAudit,
        attention: Attention,
        lifecycle: Lifecycle,
        targets: Targets,
    ) -> None:
        self._residents = residents
        self._agenda = agenda
        self._recorder = recorder
        self._audit = audit
        self._attention = attention
        self._lifecycle = lifecycle
        self._targets = targets
        self._queue: list[tuple[int, int, Leaving]] = []  # (instant, domid, what)
        self._leaving: set[int] = set()  # domids
        self._link_free_ns = 0
        self._asking: dict[int, Leaving] = {}  # by domain_id: they wait for an answer
        self._wanted: list[RoomWanted] = []
        self._departed: list[GuestState] = []
        self._stayed: list[int] = []

    @property
    def due_ns(self) -> int:
        """When the next step is."""
        return self._queue[0][0] if self._queue else NEVER

    def take(self) -> dict[str, Any]:
        """Who has gone, who has stayed and who wants room since this was last asked: fields of a report."""
        found: dict[str, list[Any]] = {"departed": self._departed, "stayed": self._stayed, "wanted": self._wanted}
        self._departed, self._stayed, self._wanted = [], [], []
        return {name: tuple(those) for name, those in found.items() if those}

    def leave(self, command: MigrateOut) -> None:
        """A domain is to go."""
        domid = self._residents.domid_of.get(command.domain_id)
        if domid is None:
            self._stayed.append(command.domain_id)
            return
        if domid in self._leaving:
            return
        at_ns, resident = command.at_ns, self._residents.running[domid]
        if not resident.guest.may_move:
            self._event(at_ns, resident, "it is not up yet, or about to leave")
            self._stayed.append(command.domain_id)
            return
        self._leaving.add(domid)
        resident.leaving = True
        most_pages = resident.dynamic.dynamic_max
        if resident.domain.target_pages > most_pages:
            self._targets.mem_set(at_ns, resident, most_pages)
        self._later(at_ns, Leaving(resident, command, self._wait))

    def go(self, command: MigrateGo) -> None:
        """There is room for a domain, as much as it asked for."""
        leaving = self._asking.pop(command.domain_id, None)
        if leaving is None:  # its host has died meanwhile, and it may have been started elsewhere
            self._stayed.append(command.domain_id)
        else:
            leaving.step = self._copy
            self._later(command.at_ns, leaving)

    def stay(self, command: MigrateStay) -> None:
        """There is no room for a domain, which whoever says so knows."""
        leaving = self._asking.pop(command.domain_id, None)
        if leaving is not None:
            self._let_be(leaving)

    def act(self, at_ns: int) -> None:
        """Take the steps that are due at `at_ns`, everything before it being done."""
        while self._queue and self._queue[0][0] <= at_ns:
            _, domid, leaving = heapq.heappop(self._queue)
            if self._residents.running.get(domid) is leaving.resident and leaving.resident.guest.end is None:
                self._attention.wake(at_ns - 1)
                leaving.step(leaving, at_ns)
            else:
                self._stay(leaving)

    def _stay(self, leaving: Leaving) -> None:
        """It does not go after all."""
        self._let_be(leaving)
        self._stayed.append(leaving.command.domain_id)

    def _let_be(self, leaving: Leaving) -> None:
        leaving.resident.leaving = False
        self._leaving.discard(leaving.resident.domain.domid)

    def _later(self, at_ns: int, leaving: Leaving) -> None:
        heapq.heappush(self._queue, (at_ns, leaving.resident.domain.domid, leaving))

    def _wait(self, leaving: Leaving, at_ns: int) -> None:
        """Look whether the driver is at rest."""
        balloon, command = leaving.resident.balloon, leaving.command
        if balloon is not None and not balloon.idle and at_ns < command.at_ns + command.wait_ns:
            self._later(min(at_ns + POLL_NS, command.at_ns + command.wait_ns), leaving)
        elif not self._too_large(leaving, at_ns):
            owned = leaving.resident.memory.owned
            leaving.command = replace(command, most_pages=owned)
            self._asking[command.domain_id] = leaving
            self._wanted.append(RoomWanted(leaving.resident.request, owned))

    def _too_large(self, leaving: Leaving, at_ns: int) -> bool:
        """Whether it stays because it has more than it can have there."""
        owned, most_pages = leaving.resident.memory.owned, leaving.command.most_pages
        if owned <= most_pages:
            return False
        text = f"it has {owned} pages, and the receiver no more than {most_pages} for it"
        self._event(at_ns, leaving.resident, text)
        self._stay(leaving)
        return True

    def _copy(self, leaving: Leaving, at_ns: int) -> None:
        """Map all there is, and send it."""
        if self._too_large(leaving, at_ns):
            return
        resident, guest, memory = leaving.resident, leaving.resident.guest, leaving.resident.memory
        began_ns = memory.lock.enter(at_ns, interrupts=False)
        guest.settle(at_ns)
        memory.map_all(DOM0)
        memory.lock.leave()
        if memory.crashed:
            guest.die_by_other(began_ns)
            self._stay(leaving)
        elif memory.debt > 0:
            # All that it was promised would have to be real there, beyond its quota.
            self._event(at_ns, resident, f"it owes {memory.debt} pages, and keeps its promises here")
            self._stay(leaving)
        else:
            first_ns = max(at_ns, self._link_free_ns)
            self._link_free_ns = first_ns + memory.owned * NS_PER_S // leaving.command.pages_per_s
            leaving.step = self._go
            self._later(max(self._link_free_ns, at_ns + 1), leaving)
        self._recorder.acted(resident)
        self._audit.acted(resident.domain.domid)
        self._agenda.put_guest(resident)

    def _go(self, leaving: Leaving, at_ns: int) -> None:
        """It is copied."""
        resident = leaving.resident
        after_s = (at_ns - leaving.command.at_ns) / NS_PER_S
        text = f"{pages_to_mib(resident.memory.owned)} MiB, {after_s:.1f} s after the order"
        self._recorder.event(at_ns, resident.request, resident.domain.domid, "migrate", text)
        self._leaving.discard(resident.domain.domid)
        self._departed.append(self._lifecycle.let_go(at_ns, resident))

    def _event(self, at_ns: int, resident: Resident, text: str) -> None:
        self._recorder.event(at_ns, resident.request, resident.domain.domid, "migrate_refused", text)
