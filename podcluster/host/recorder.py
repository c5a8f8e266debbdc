"""What is taken down of a host as it goes: rows of its domains, events, samples, and its own row at the end.

What        `Recorder`: quantities of the whole host over time (promised, targets, owned, populated, demanded, free),
            which it is told of as they change, and the rows that a report carries.
Units       Pages of 4 KiB; ns of simulated time.
Order       Whatever changes what a domain owns or what is free is told in order of time [HM-4]. Events of one instant
            come by domid, those of the host itself first.
Departs     `populated` and `demanded` are observed on a grid (telemetry, or 300 s where that is off): their means are
            over that grid and their peaks are the largest seen on it; all else is exact.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from podcluster.host.agenda import TOOLSTACK, Agenda
from podcluster.host.control import Control
from podcluster.host.failures import LOW_MEMORY
from podcluster.host.machine_looks import MachineLooks
from podcluster.host.mechanism import Mechanism
from podcluster.host.observed import DemandGrid, Level
from podcluster.host.outcome import outcome
from podcluster.host.own import LowMemory
from podcluster.host.resident import Resident
from podcluster.host.streams import NEVER
from podcluster.host.takers import Turns
from podcluster.records.fates import EventKind, Fate
from podcluster.records.hosts import HostSpec, HostView
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import HostReport
from podcluster.records.rows import NO_DOMAIN, DomainRow, EventRow, HostRow
from podcluster.records.samples import NO_MACHINE_SAMPLES, NO_SAMPLES, SampleBlock, Stretch
from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S, PAGES_PER_GIB, SUPERPAGE_PAGES

OBSERVE_NS: Final = 300 * NS_PER_S  # how often the host is looked at where telemetry is off


class Recorder:
    """One host's books."""

    def __init__(
        self,
        spec: HostSpec,
        machine: Mechanism,
        running: Mapping[int, Resident],
        agenda: Agenda,
        telemetry_ns: int,
        *,
        machines: bool = False,
    ) -> None:
        """`telemetry_ns=0`: no samples; `machines`: also of each machine."""
        self._spec = spec
        self._machine = machine
        self._running = running
        self._agenda = agenda
        self._samples_wanted = telemetry_ns > 0
        self.grid_ns = telemetry_ns or OBSERVE_NS
        self.next_look_ns = self.grid_ns
        self._wants = DemandGrid(self.grid_ns)  # of guests that are up
        self._machines = MachineLooks(spec.host_id, self.grid_ns) if machines else None
        self._booting: dict[int, Resident] = {}
        self._promises: dict[int, tuple[int, int]] = {}  # (C, E) by domid, as of its latest act
        self._cached = self._entries = 0  # their sums, but for what is to come
        self._to_come: list[tuple[int, int]] = []  # a heap: from which look on, how many fewer of both
        self._low_memory = LowMemory(machine.free_pages)
        self._domains: list[DomainRow] = []
        self._events: list[tuple[int, int, int, EventRow]] = []  # when, domid, number
        self._told = 0  # events so far
        self.tells_ns = NEVER  # the earliest of those that are still to be reported
        self._stretches: list[Stretch] = []
        self._host: HostRow | None = None
        self._started = self._not_built = self._died = self._domains_peak = self._target_changes = 0
        self._moved_pages = 0
        self._before: Counter[str] = Counter()  # counts at the end of the warm-up
        self.promised, self._target, self.owned = Level(), Level(), Level()
        self._populated, self._demanded, self._free = Level(), Level(), Level()
        self.owned_of: dict[int, int] = {}  # by domid
        self._free.at(0, machine.free_pages)

    def report(self, at_ns: int, view: HostView, quiet_until_ns: int) -> HostReport:
        """All that was taken down since the last report; nothing happens by itself before `quiet_until_ns`."""
        events = self._events_until(at_ns) if self.tells_ns <= at_ns else ()
        domains, samples, host = tuple(self._domains), self._samples(), self._host
        if domains or samples:
            self._domains, self._stretches = [], []
        self._host = None
        machines = self._machines.block() if self._machines is not None else NO_MACHINE_SAMPLES
        return HostReport(
            self._spec.host_id, at_ns, view, domains, events, samples, host, machine_samples=machines,
            quiet_until_ns=min(quiet_until_ns, self.next_look_ns, self.tells_ns),
        )  # fmt: skip

    def _events_until(self, at_ns: int) -> tuple[EventRow, ...]:
        """What happened by then, in order; guests may have come further."""
        told = [event for event in self._events if event[0] <= at_ns]
        self._events = [event for event in self._events if event[0] > at_ns]
        self.tells_ns = min((event[0] for event in self._events), default=NEVER)
        return tuple(row for _, _, _, row in sorted(told, key=lambda event: event[:3]))

    # -- what happens ------------------------------------------------------------------------------------------------

    def _tell(self, at_ns: int, domid: int, row: EventRow) -> None:
        self._told += 1
        self._events.append((at_ns, domid, self._told, row))
        self.tells_ns = min(self.tells_ns, at_ns)

    def event(self, at_ns: int, request: MachineRequest, domid: int, kind: EventKind, text: str) -> None:
        """Something happened to a machine; domid 0 if it has no domain."""
        row = EventRow(at_ns, self._spec.host_id, request.domain_id, request.attempt, kind, text)
        self._tell(at_ns, domid, row)

    def built(self, at_ns: int, resident: Resident) -> None:
        """A domain is there."""
        domid = resident.domain.domid
        self._started += 1
        self._booting[domid] = resident
        self.promised.at(at_ns, self.promised.now + resident.request.maxmem_pages)
        self._target.at(at_ns, self._target.now + resident.domain.target_pages)
        self._domains_peak = max(self._domains_peak, len(self._running))
        self._machines_change()

    def _machines_change(self) -> None:
        if self._machines is not None:
            self._machines.change()

    def not_built(self, at_ns: int, request: MachineRequest, domid: int, cause: str, text: str) -> None:
        """A start came to nothing."""
        self._started += 1
        self._not_built += 1
        self.event(at_ns, request, domid, "build_failed", text)
        self.ended(at_ns, request, None, at_ns, "build_failed", cause)

    def target_changed(self, at_ns: int, resident: Resident, before_pages: int) -> None:
        """A domain's target was `before_pages`."""
        self._target_changes += 1
        self._machines_change()
        self._target.at(at_ns, self._target.now + resident.domain.target_pages - before_pages)

    def acted(self, resident: Resident) -> None:
        """Something happened to a domain: what it is promised may be other than before, and it may be up. Where it has
        gone past looks, what they find of it is told [GS-4]; what it owns is as before, and so is its debt.
        """
        domid, memory = resident.domain.domid, resident.memory
        cached, entries = self._promises.get(domid, (0, 0))
        if memory.entries_seen:
            seen, memory.entries_seen = memory.entries_seen, []
            for look_ns, left in seen:
                heapq.heappush(self._to_come, (look_ns, entries - left))
                cached -= entries - left
                entries = left
        now = (memory.entry_count - memory.debt, memory.entry_count)
        self._promises[domid] = now
        self._cached += now[0] - cached
        self._entries += now[1] - entries
        if domid in self._booting and resident.guest.boot_done_ns is not None:
            del self._booting[domid]
            self._machines_change()
            self._wants.add(domid, resident.request.demand, resident.guest.boot_done_ns)

    def _count_moved(self, resident: Resident, pages: int) -> None:
        """A domain got or gave so many pages: for its controller, if that has ever set its target."""
        if resident.moved:
            resident.moved_pages += pages
            self._moved_pages += pages

    def heap_changed(self, at_ns: int, resident: Resident) -> None:
        """What a domain owns, and what is free, may be other than before."""
        self._agenda.reach(at_ns)
        domid = resident.domain.domid
        owned, before = self._machine.tot_pages(domid), self.owned_of.get(domid, 0)
        self._count_moved(resident, abs(owned - before))
        self.owned.at(at_ns, self.owned.now + owned - before)
        self.owned_of[domid] = owned
        self._machines_change()
        self.free_changed(at_ns)

    def freed(self, resident: Resident, freed: Iterable[tuple[int, int, int]]) -> None:
        """A balloon has given pages to the host, as `GuestMemory.freed`. Others may have given some of theirs before
        though they are told of later, between which nobody takes any [BA-5]: what is owned only falls there, what is
        free rises.
        """
        domid = resident.domain.domid
        pages = 0
        for last_ns, some, moment in freed:
            self._moved(last_ns, some, moment)
            pages += some
        self.owned_of[domid] -= pages
        self._machines_change()
        self._count_moved(resident, pages)
        self._low_memory.crossed(self._machine.free_pages)  # none, where there is more than before

    def _moved(self, last_ns: int, pages: int, moment: int) -> None:
        """Pages have gone to the host, or, below 0, from it: the last then, and each times when, added up."""
        self._free.shift(last_ns, pages, moment)
        self.owned.shift(last_ns, -pages, -moment)

    @property
    def alarm_pages(self) -> int:
        """With so much free memory or less there is something to tell."""
        return self._low_memory.threshold

    def took(self, taken: Turns, got: Iterable[tuple[Resident, int]]) -> None:
        """Balloons have taken pages from the host, above its alarm: all of them, and how many each got."""
        self._agenda.reach(taken.first_ns)
        self._moved(taken.last_ns, -taken.pages, -taken.moment)
        self._agenda.reach(taken.last_ns)
        for resident, pages in got:
            self.owned_of[resident.domain.domid] += pages
            self._count_moved(resident, pages)
        self._machines_change()

    def free_changed(self, at_ns: int) -> None:
        """Free memory may be other than before; no claim is outstanding between two acts."""
        free_pages = self._machine.free_pages
        self._free.at(at_ns, free_pages)
        for threshold in self._low_memory.crossed(free_pages):
            text = LOW_MEMORY.format(free_pages, threshold)
            row = EventRow(at_ns, self._spec.host_id, NO_DOMAIN, 0, "low_memory", text)
            self._tell(at_ns, TOOLSTACK, row)

    def room_changed(self, at_ns: int) -> None:
        """Memory was set aside for who is to come, or is free again."""
        self._agenda.reach(at_ns)
        self.free_changed(at_ns)

    def died(self) -> None:
        """A guest has crashed."""
        self._died += 1

    def ended(
        self,
        end_ns: int,
        request: MachineRequest,
        resident: Resident | None,
        start_ns: int | None,
        fate: Fate,
        cause: str,
    ) -> None:
        """A boot attempt is over, or the run; without a resident, one that was never built."""
        row = outcome(self._machine, self._spec.host_id, request, resident, start_ns, end_ns, fate, cause)
        self._domains.append(row)

    def retired(self, domid: int) -> None:
        """A guest runs no more."""
        self._booting.pop(domid, None)
        if self._machines is not None:
            self._machines.retired(domid)
        self._wants.remove(domid, self.next_look_ns // self.grid_ns)

    def destroyed(self, at_ns: int, resident: Resident) -> None:
        """A domain is no more; what it had is free."""
        domid, request = resident.domain.domid, resident.request
        cached, entries = self._promises.pop(domid)
        self._cached -= cached
        self._entries -= entries
        self.promised.at(at_ns, self.promised.now - request.maxmem_pages)
        self._target.at(at_ns, self._target.now - resident.domain.target_pages)
        self.owned.at(at_ns, self.owned.now - self.owned_of.pop(domid))
        self.free_changed(at_ns)
        self.event(at_ns, request, domid, "destroy", f"{self._machine.free_pages} pages free")

    # -- looks at the whole host -------------------------------------------------------------------------------------

    def look_until(self, last_ns: int) -> None:
        """Look at the whole host at each instant of the grid up to `last_ns`, before which no guest acts.

        An instant comes before what guests do then.
        """
        grid_ns, first_ns = self.grid_ns, self.next_look_ns
        while first_ns <= last_ns:
            demanded = self._wants.sums(first_ns // grid_ns, (last_ns - first_ns) // grid_ns + 1)
            booting = sum(resident.guest.wanted_pages(0) for resident in self._booting.values())
            self._observe(first_ns, demanded + booting)
            first_ns += len(demanded) * grid_ns
        self.next_look_ns = first_ns

    def look(self, at_ns: int) -> None:
        """Look at the whole host at one instant, which need not be of the grid, before what guests do then."""
        demanded = sum(resident.guest.wanted_pages(at_ns) for resident in self._running.values())
        self._observe(at_ns, np.array([demanded], dtype=np.int64))
        self.next_look_ns = (at_ns // self.grid_ns + 1) * self.grid_ns

    def _observe(self, first_ns: int, demanded: Int64Array) -> None:
        """Take down what is seen at instants of the grid between which nothing changes but demand and what guests have
        gone past looks with.
        """
        grid_ns, count = self.grid_ns, len(demanded)
        self._agenda.reach(first_ns + (count - 1) * grid_ns)
        self._come(first_ns + grid_ns)
        populated = self.owned.now - self._cached
        row = (
            first_ns, self._spec.host_id, self.promised.now, self._target.now, self.owned.now, populated, 0,
            self._cached, self._entries, self._machine.free_pages, len(self._running), self._died,
        )  # fmt: skip
        self._demanded.at_each(first_ns, grid_ns, demanded)
        self._populated.at(first_ns, populated)
        fewer: Int64Array | None = None
        while self._to_come and (look_ns := self._to_come[0][0]) < first_ns + count * grid_ns:
            fewer = np.zeros(count, dtype=np.int64) if fewer is None else fewer
            fewer[(look_ns - first_ns) // grid_ns :] += self._come(look_ns + 1)
            self._populated.at(look_ns, self.owned.now - self._cached)
        if self._samples_wanted:
            self._stretches.append(Stretch(row, demanded, fewer))
        if self._machines is not None:
            self._machines.take(first_ns, count, self._running.values(), self.owned_of)

    def _come(self, before_ns: int) -> int:
        """What was to come before an instant is there: how many fewer entries are left."""
        fewer = 0
        while self._to_come and self._to_come[0][0] < before_ns:
            fewer += heapq.heappop(self._to_come)[1]
        self._cached -= fewer
        self._entries -= fewer
        return fewer

    def _samples(self) -> SampleBlock:
        """What was seen since the last report."""
        return SampleBlock.seen(self.grid_ns, self._stretches) if self._stretches else NO_SAMPLES

    # -- the end -----------------------------------------------------------------------------------------------------

    def close(self, at_ns: int, control: Control | None) -> None:
        """The run ends: a row for each domain that still runs, one for the host."""
        superpages = self._superpage_share()
        for resident in self._running.values():
            self.ended(at_ns, resident.request, resident, resident.guest.boot_start_ns, "running", "")
        counts = self._counts(control)
        counts.subtract(self._before)
        self._host = HostRow(
            host_id=self._spec.host_id,
            ram_pages=self._spec.ram_pages,
            usable_pages=self._spec.usable_pages,
            domains_peak=self._domains_peak,
            promised_pages_peak=self.promised.peak,
            promised_pages_mean=self.promised.mean(at_ns),
            target_pages_peak=self._target.peak,
            target_pages_mean=self._target.mean(at_ns),
            owned_pages_peak=self.owned.peak,
            owned_pages_mean=self.owned.mean(at_ns),
            populated_pages_peak=self._populated.peak,
            populated_pages_mean=self._populated.mean(at_ns),
            demanded_pages_peak=self._demanded.peak,
            demanded_pages_mean=self._demanded.mean(at_ns),
            free_pages_min=self._free.least,
            free_pages_mean=self._free.mean(at_ns),
            superpage_share=superpages,
            **counts,
        )

    def _counts(self, control: Control | None) -> Counter[str]:
        """What has happened so often since the run began, by column of the host's row."""
        return Counter(
            domains_started=self._started,
            domains_died=self._died + self._not_built,
            controller_actions=control.actions if control is not None else 0,
            target_changes=self._target_changes,
            moved_pages=self._moved_pages,
            uncooperative=control.uncooperative if control is not None else 0,
            starts_waited_ns=control.waited_ns if control is not None else 0,
        )

    def begin_anew(self, at_ns: int, control: Control | None) -> None:
        """The warm-up is over: the host's row is of what comes from here on."""
        self._before = self._counts(control)
        self._domains_peak = len(self._running)
        for level in (self.promised, self._target, self.owned, self._populated, self._demanded, self._free):
            level.begin(at_ns)

    def _superpage_share(self) -> float | None:
        large = populated = 0
        for domid in self._running:
            ram4k, ram2m, ram1g, *_ = self._machine.entry_map(domid)
            large += ram2m * SUPERPAGE_PAGES + ram1g * PAGES_PER_GIB
            populated += ram4k + ram2m * SUPERPAGE_PAGES + ram1g * PAGES_PER_GIB
        return large / populated if populated else None
