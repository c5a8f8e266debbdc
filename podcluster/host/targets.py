"""How much a domain is to have: its target and its quota, whoever sets them.

What        `Targets`: `xl mem-set` and `xl mem-max`, or the same with XAPI; what follows a target that a controller
            wrote; the limit that a balloon runs into; a device that has to wait until the debt is paid.
Units       Pages of 4 KiB; ns of simulated time.
Rules       With XAPI an operator's target is a dynamic range of that one size, which must be in order with the static
            one (D1.1, E15), and may be more than before only as far as the host bears all its domains at dynamic_min
            (D1.6, E13); the static range is that of the start (D1.4).
Departs     A device that was attached is forgotten when its domain ends: one built again has none. A domain that is
            started again elsewhere, its host having failed, has the range that it was first asked for with, or that it
            rebooted with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from podcluster.host import domain as toolstack
from podcluster.host.agenda import Agenda
from podcluster.host.attention import Attention
from podcluster.host.control import Control
from podcluster.host.eras import RFC2009
from podcluster.host.failures import OVER_ALLOCATION
from podcluster.host.host_audit import HostAudit
from podcluster.host.mechanism import Mechanism
from podcluster.host.own import Starts, Turn
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Resident, Residents
from podcluster.host.xl import NOT_FREED
from podcluster.records.commands import AttachDevice, SetMaxMem, SetTarget
from podcluster.units import pages_to_mib


class Targets:
    """The targets of one host's domains."""

    def __init__(
        self,
        era: str,
        machine: Mechanism,
        residents: Residents,
        *,
        agenda: Agenda,
        recorder: Recorder,
        audit: HostAudit,
        attention: Attention,
        control: Control | None,
        starts: Starts | None,
        set_range: Callable[[Resident, int], str],
    ) -> None:
        """`starts`: where the first toolstack asks dom0 before it raises a target. `set_range` lets a domain have this
        much and no more, where its toolstack has ranges: why it does not, or nothing.
        """
        self._machine = machine
        self._residents = residents
        self._agenda = agenda
        self._recorder = recorder
        self._audit = audit
        self._attention = attention
        self._control = control
        self._set_range = set_range
        # The toolstack of that time called balloon.free() before it told Xen; xl does not.
        self._starts = starts if era == RFC2009 else None
        self._over_limit: dict[int, int] = {}  # domid -> limit that its balloon has run into

    def set_target(self, resident: Resident, command: SetTarget) -> None:
        """An operator sets a target."""
        refused = self._set_range(resident, command.target_pages)
        if refused:
            self._recorder.event(command.at_ns, resident.request, resident.domain.domid, "set_target", refused)
            return
        raised_pages = command.target_pages - resident.domain.target_pages
        if self._starts is not None and raised_pages > 0:
            then = partial(self._set_if_free, resident, command.target_pages)
            self._starts.ask(command.at_ns, Turn(command.domain_id, None, raised_pages, then))
        else:
            self.mem_set(command.at_ns, resident, command.target_pages)

    def _set_if_free(self, resident: Resident, target_pages: int, at_ns: int, free: bool) -> None:
        """What came of a raise that waited for dom0; its domain may be gone by now."""
        if resident.domain.domid not in self._residents.running:
            return
        if free:
            self.mem_set(at_ns, resident, target_pages)
        else:
            self._recorder.event(at_ns, resident.request, resident.domain.domid, "set_target", NOT_FREED)

    def mem_set(self, at_ns: int, resident: Resident, target_pages: int) -> None:
        """A toolstack sets a target."""
        domain, before = resident.domain, resident.domain.target_pages
        failure = toolstack.set_target(self._machine, domain, target_pages)
        text = failure or f"{pages_to_mib(before)} to {pages_to_mib(target_pages)} MiB"
        self._recorder.event(at_ns, resident.request, domain.domid, "set_target", text)
        self.written(at_ns, resident, before, heap=True, told=not failure)
        if self._control is not None:
            self._control.told(resident)

    def written(self, at_ns: int, resident: Resident, before_pages: int, *, heap: bool, told: bool) -> None:
        """A domain's target was `before_pages`; `heap`: it may own other than before; `told`: its guest knows."""
        domid = resident.domain.domid
        self._recorder.target_changed(at_ns, resident, before_pages)
        if heap:
            resident.memory.set_by_toolstack(at_ns)
            self._recorder.heap_changed(at_ns, resident)
            self._attention.unsettle(domid)  # it may owe again
        self._recorder.acted(resident)
        self._audit.acted(domid)
        if told and resident.balloon is not None:
            resident.balloon.target_changed(at_ns)
            self._attention.unsettle(domid)
        self._agenda.put_guest(resident)

    def set_max(self, resident: Resident, command: SetMaxMem) -> None:
        """An operator sets a quota."""
        text = toolstack.set_max(self._machine, resident.domain, command.maxmem_pages)
        text = text or f"{pages_to_mib(command.maxmem_pages)} MiB"
        self._recorder.event(command.at_ns, resident.request, resident.domain.domid, "set_max", text)
        self._recorder.acted(resident)
        self._audit.acted(resident.domain.domid)

    def attach(self, resident: Resident, command: AttachDevice) -> None:
        """An operator passes a device through."""
        text = toolstack.attach_device(self._machine, resident.domain) or "device assigned"
        self._recorder.event(command.at_ns, resident.request, resident.domain.domid, "attach", text)

    def mark_uncooperative(self, at_ns: int, resident: Resident, *, flagged: bool) -> None:
        """A controller has set or removed its mark."""
        text = "memory/uncooperative" if flagged else "memory/uncooperative removed"
        self._recorder.event(at_ns, resident.request, resident.domain.domid, "uncooperative", text)

    def check_limit(self, at_ns: int, resident: Resident) -> None:
        """Say once for each limit that a balloon cannot deflate beyond it (A5, E8)."""
        domain, balloon = resident.domain, resident.balloon
        owned = self._recorder.owned_of[domain.domid]
        if balloon is None or balloon.need >= 0 or owned < domain.limit_pages:
            return
        if self._over_limit.get(domain.domid) != domain.limit_pages:
            self._over_limit[domain.domid] = domain.limit_pages
            text = OVER_ALLOCATION.format(domain.domid, owned + 1, domain.limit_pages)
            self._recorder.event(at_ns, resident.request, domain.domid, "over_allocation", text)
