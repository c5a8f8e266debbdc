"""One host through time: `HostModel.advance(until_ns, commands) -> HostReport` is the only way in.

What        The host's clock, its domains and their guests, the commands of the cluster, the rows that report on them.
            Pages are the machine's, domains the toolstack's (`domain.py`), what guests do theirs (`guest.py`,
            `balloon.py`).
Units       Pages of 4 KiB; integer ns of simulated time.
Order       What happens on a host is ordered by (time, priority, sequence): at one instant first commands, in the order
            given, then a sample, then guests in the order of their domids, and within a guest its streams by rank.
Invariants  [HM-1] what `advance` reports does not depend on how a span of time is cut into calls, nor on `coalesce`.
            [HM-2] sum of tot_pages + paging pools + what Xen and dom0 have + free = RAM, checked at each audit.
            [HM-3] debt >= 0 from the end of the build of every domain.
            [HM-4] time never runs backwards: nothing is carried out before what was.
            [HM-5] a domain that is built again after a crash is a new domain with the next attempt: a build like any
                   other, at its own instant, with its full debt (G14).
Coalescing  Why it is exact. Every populate is served from the domain's own cache, and every frame that a sweep or a
            steal gains goes into it: while a guest only touches memory, neither the host's heap nor another domain is
            read or changed. Touches of different guests therefore commute, and a guest may be run ahead of the others,
            up to the next command or sample, or to the next thing of its own that may touch the heap: a balloon batch
            that its debt does not cover (P12.7, A3.8; while D >= n a batch of n only moves pages between table, cache
            and nothing), a deflation, its death. Those are done in the order of time over all domains: the queue holds,
            for each, the instant of its next act, the earliest is taken out, and a guest taken out runs on only through
            acts of its own. So whatever touches the heap does so in the same order as if every act of every guest were
            carried out singly in order of time, which is what `coalesce=False` does. Within a guest, batches of one
            stream that no other stream's instant parts are one range operation, which leaves the state that the
            page-by-page loop leaves. Commands do touch the heap, so they are barriers; so are samples, which must see
            every guest at one instant.
Departs     A build, a balloon hypercall, a destruction take no simulated time. `populated` and `demanded` are observed
            on a grid (telemetry, or 300 s where that is off): their means are over that grid and their peaks are the
            largest seen on it; all else is exact.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from podcluster.config import ControllerConfig, GuestConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.host import domain as toolstack
from podcluster.host.control import Control, Hands, kept_free_pages
from podcluster.host.controllers.view import after
from podcluster.host.drivers import make_balloon, reserve_of
from podcluster.host.eras import RFC2009
from podcluster.host.failures import LOW_MEMORY, OVER_ALLOCATION, death
from podcluster.host.fault import Fault
from podcluster.host.guest import End, Guest
from podcluster.host.guest_boot import Boot
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import NO_SWAP
from podcluster.host.lock import Lock
from podcluster.host.mechanism import Counted, Mechanism
from podcluster.host.observed import DemandGrid, Level
from podcluster.host.operator import DomainLook, HostLook
from podcluster.host.own import LowMemory, OwnMemory, Starts, Turn, Visits
from podcluster.host.resident import Resident
from podcluster.host.streams import NEVER
from podcluster.host.xl import NOT_FREED
from podcluster.records import (
    NO_DOMAIN,
    Cause,
    Close,
    Command,
    DomainRow,
    EventKind,
    EventRow,
    Fate,
    HostReport,
    HostRow,
    HostSpec,
    HostView,
    Int64Array,
    MachineRequest,
    SampleRow,
    SetMaxMem,
    SetTarget,
    StartDomain,
    StopDomain,
)
from podcluster.rng import key, stream
from podcluster.units import (
    NS_PER_S,
    PAGES_PER_GIB,
    PAGES_PER_MIB,
    SUPERPAGE_PAGES,
    kib_to_pages,
    pages_to_mib,
    s_to_ns,
)

if TYPE_CHECKING:
    from podcluster.host.machine import Machine

RECLAIM_FOR_DEBT: Final = ("today", "xen2012")  # eras in which nothing is reclaimed of a guest that owes nothing
OBSERVE_NS: Final = 300 * NS_PER_S  # how often the host is looked at where telemetry is off
TOOLSTACK: Final = 0  # in the queue, in place of a domid: an act of the host's own, before those of guests

MakeMachine = Callable[[HostConfig, int], Mechanism]


def make_machine(host: HostConfig, ram_pages: int, kind: type[Machine] | None = None) -> Mechanism:
    """The real machine, or one of another `kind`; imported here so that what needs no pages compiles nothing."""
    from podcluster.host.machine import Machine

    return (kind or Machine)(
        ram_pages,
        scrub_on_free=host.scrub_on_free,
        era=host.era,
        ring_slots=host.ring_slots,
        sweep_wraps=host.sweep_wraps,
        costs=vars(host.costs),
    )


class HostModel:
    """One Xen host, simulated to the page."""

    def __init__(
        self,
        spec: HostSpec,
        host: HostConfig,
        guests: Mapping[str, GuestConfig],
        seed: int,
        telemetry_ns: int = 0,
        *,
        controller: ControllerConfig | None = None,
        machine: MakeMachine = make_machine,
        coalesce: bool | None = None,
    ) -> None:
        """`coalesce=None`: True, unless every step is to be audited. `guests` by `os_class`; no controller: static."""
        self._spec = spec
        self._cfg = host
        self._guests = guests
        self._seed = seed
        self._telemetry_ns = telemetry_ns
        self._grid_ns = telemetry_ns or OBSERVE_NS
        self._coalesce = host.check != "step" if coalesce is None else coalesce
        self._machine = machine(host, spec.ram_pages)
        self._own = OwnMemory(self._machine, spec, host)
        self._starts: Starts | None = None
        if host.autoballoons:
            self._starts = Starts(
                self._own,
                free_pages=lambda: self._machine.free_pages,
                later=self._later,
                freed=self._free_changed,
            )
        self._low_memory = LowMemory(self._machine.free_pages)
        self._over_limit: dict[int, int] = {}  # domid -> limit that its balloon has run into
        self._now_ns = 0
        self._reached_ns = 0  # instant of the latest thing that touched the heap, or of the clock [HM-4]
        self._next_look_ns = self._grid_ns
        self._wants = DemandGrid(self._grid_ns)  # of guests that are up
        self._booting: dict[int, Resident] = {}
        self._promises: dict[int, tuple[int, int]] = {}  # (C, E) by domid, as of its latest act
        self._cached = self._promised_pages = 0  # their sums
        self._next_domid = 1
        self._residents: dict[int, Resident] = {}  # by domid
        self._domid_of: dict[int, int] = {}  # domain_id -> domid
        self._queue: list[tuple[int, int, int]] = []  # (instant, domid, stamp)
        self._stamp = 0
        self._acts: dict[int, Callable[[int], None]] = {}  # the host's own, by stamp
        self._restarts: dict[int, int] = {}  # domain_id -> stamp of the build that is to follow its crash
        self._preserved: dict[int, Resident] = {}  # by domain_id: crashed, and kept with all that they own
        self._changed: dict[int, None] = {}  # domids to audit, in order
        self._committed_pages = self._overhead_pages = kept_free_pages(host, controller)
        self._rows: list[DomainRow] = []
        self._events: list[tuple[int, int, int, EventRow]] = []
        self._samples: list[SampleRow] = []
        self._host_row: HostRow | None = None
        self._started = self._not_built = self._died = self._domains_peak = self._target_changes = 0
        self._promised, self._target, self._owned = Level(), Level(), Level()
        self._populated, self._demanded, self._free = Level(), Level(), Level()
        self._owned_of: dict[int, int] = {}
        self._free.at(0, self._machine.free_pages)
        self._view: HostView | None = None
        self._moved_pages = 0
        self._unquiet: set[int] = set()  # domids of guests that may by themselves do what wakes a controller
        self._control: Control | None = None
        if controller is not None and controller.name != "static":
            hands = Hands(self._build, self._turn_away, self._target_written, self._mark_uncooperative)
            self._control = Control(controller, hands, self._machine, spec.usable_pages)
            if not self._coalesce:
                self._control.wake(self._control.period_ns)

    # -- the only way in ---------------------------------------------------------------------------------------------

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Carry out commands at their times in (now, until], and simulate up to and including `until_ns`."""
        start_ns = self._now_ns
        if until_ns < start_ns or any(not start_ns < command.at_ns <= until_ns for command in commands):
            raise InvariantError(
                f"[HM-4] now < at <= until violated: host {self._spec.host_id}, {start_ns}..{until_ns} ns"
            )
        # A stable sort keeps the order given among commands of one instant.
        for command in sorted(commands, key=lambda one: one.at_ns):
            self._run_to(command.at_ns)
            self._carry_out(command)
        self._run_to(until_ns + 1)
        self._now_ns = until_ns
        if self._cfg.check == "epoch":
            self._audit_changed()
        report = HostReport(
            self._spec.host_id,
            until_ns,
            self._viewed(),
            tuple(self._rows),
            tuple(row for _, _, _, row in sorted(self._events, key=lambda event: event[:3])),
            tuple(self._samples),
            self._host_row,
        )
        if self._rows or self._events or self._samples:
            self._rows, self._events, self._samples = [], [], []
        self._host_row = None
        return report

    def _viewed(self) -> HostView:
        if self._view is None or self._view.at_ns != self._now_ns:
            self._view = HostView(
                self._spec.host_id,
                self._spec.usable_pages,
                self._committed_pages,
                self._promised.now,
                self._machine.free_pages,
                len(self._residents),
                self._now_ns,
                self._overhead_pages,
            )
        return self._view

    # -- the clock ---------------------------------------------------------------------------------------------------

    def _run_to(self, before_ns: int) -> None:
        """Everything before `before_ns`, samples and a controller's looks that are due there included: those at an
        instant come before its guests, in this order.
        """
        while (control_ns := self._next_control_ns()) < before_ns:
            self._run_looks(control_ns + 1)
            self._drain(control_ns)
            self._let_control(control_ns)
        self._run_looks(before_ns)
        self._drain(before_ns)
        self._reached_ns = max(self._reached_ns, before_ns - 1)

    def _run_looks(self, before_ns: int) -> None:
        """All samples before `before_ns`."""
        while self._next_look_ns < before_ns:
            quiet_ns = min(self._next_act_ns(), before_ns - 1)
            if quiet_ns < self._next_look_ns:
                self._drain(self._next_look_ns)
                quiet_ns = self._next_look_ns
            self._look_until(quiet_ns)

    def _next_control_ns(self) -> int:
        """How far guests may be run before the controller may have to look: to the look that is due, or to the first
        that something happening before it may call for. Nothing that wakes it happens before the next act of all.
        """
        control = self._control
        if control is None:
            return NEVER
        if control.wakes == "guests" or self._acts:
            return min(control.due_ns, after(self._next_act_ns(), control.period_ns))
        if control.wakes == "memory":
            next_ns = self._next_act_ns() if self._unquiet else NEVER
        else:
            next_ns = min(
                (
                    one.guest.next_ns if domid in self._unquiet else one.guest.next_use_ns
                    for domid, one in self._residents.items()
                ),
                default=NEVER,
            )
        return min(control.due_ns, after(next_ns, control.period_ns))

    def _let_control(self, at_ns: int) -> None:
        """Let the controller look, if it is to, all that came before being done."""
        control = self._control
        assert control is not None
        if control.due_ns > at_ns:
            return
        self._reach(at_ns)
        control.look(at_ns, self._residents, self._owned_of)
        if not self._coalesce and not control.dead(at_ns):  # and at every beat of its period, so as to show that the
            control.wake(after(at_ns, control.period_ns))  # looks that are else left out do nothing [CT-1]

    def _reach(self, at_ns: int) -> None:
        if at_ns < self._reached_ns:
            raise InvariantError(
                f"[HM-4] time runs forward violated: {at_ns} ns after {self._reached_ns} ns "
                f"(host {self._spec.host_id}, seed {self._seed})"
            )
        self._reached_ns = at_ns

    def _drain(self, before_ns: int) -> None:
        """All acts of guests before `before_ns`."""
        queue = self._queue
        while queue and queue[0][0] < before_ns:
            at_ns, domid, stamp = heapq.heappop(queue)
            if domid == TOOLSTACK:
                if stamp in self._acts:
                    self._acts.pop(stamp)(at_ns)
                continue
            resident = self._residents.get(domid)
            if resident is None or resident.queued != stamp:
                continue
            guest = resident.guest
            if guest.end is not None:
                self._end_by_itself(resident)
                continue
            touches_heap = guest.next_touches_heap
            balloons = resident.domain.short_of_tables and guest.balloons_next
            said = resident.can_balloon, guest.boot_done_ns is not None, guest.held.held
            if self._coalesce and not touches_heap and not resident.domain.short_of_tables:
                guest.run(before_ns - 1)
            else:
                guest.step()
            if resident.domain.short_of_tables:
                self._check_tables(resident, at_ns, balloons=balloons)
            if touches_heap:
                self._heap_changed(at_ns, resident)
                self._check_limit(at_ns, resident)
            if self._control is not None:
                now = resident.can_balloon, guest.boot_done_ns is not None, guest.held.held
                self._tell_control(at_ns, resident, heap=touches_heap, boot=now[:2] != said[:2], use=now[2] != said[2])
            self._acted(domid)
            self._enqueue(resident)

    def _tell_control(self, at_ns: int, resident: Resident, *, heap: bool, boot: bool, use: bool) -> None:
        """A guest has acted: it owns other than before, has shown its driver or come up, or holds other than before."""
        control, domid = self._control, resident.domain.domid
        assert control is not None
        if control.wakes == "guests" or boot or (use if control.wakes == "use" else heap):
            control.wake(after(at_ns, control.period_ns))
        if domid in self._unquiet and resident.quiet:
            self._unquiet.discard(domid)

    def _next_act_ns(self) -> int:
        """When a guest, or the host itself, acts next."""
        queue = self._queue
        while queue:
            at_ns, domid, stamp = queue[0]
            resident = self._residents.get(domid)
            if stamp in self._acts if resident is None else resident.queued == stamp:
                return at_ns
            heapq.heappop(queue)
        return NEVER

    def _enqueue(self, resident: Resident) -> None:
        self._stamp += 1
        resident.queued = self._stamp
        at_ns = resident.guest.next_ns
        if at_ns < NEVER:
            heapq.heappush(self._queue, (at_ns, resident.domain.domid, self._stamp))

    def _later(self, at_ns: int, act: Callable[[int], None]) -> int:
        """Let the host itself do something at `at_ns`; the stamp takes it back (`self._acts.pop`).

        It is one more act of the queue, so what it takes from the heap or gives to it comes in order of time [HM-1].
        """
        self._stamp += 1
        self._acts[self._stamp] = act
        heapq.heappush(self._queue, (at_ns, TOOLSTACK, self._stamp))
        return self._stamp

    # -- commands ----------------------------------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        if self._control is not None:  # it comes after the commands of this instant
            self._control.wake(after(command.at_ns - 1, self._control.period_ns))
        if isinstance(command, StartDomain):
            self._start(command.at_ns, command.request)
        elif isinstance(command, Close):
            self._close(command.at_ns)
        elif isinstance(command, StopDomain) and command.domain_id in self._restarts:
            self._acts.pop(self._restarts.pop(command.domain_id))
        elif isinstance(command, StopDomain) and self._withdraw(command):
            pass
        elif isinstance(command, StopDomain) and self._control and command.domain_id in self._control.waiting:
            asked = self._control.withdraw(command.at_ns, command.domain_id)
            self._turn_away(command.at_ns, asked, "still_waiting", "left at its time, while it waited for memory")
        elif isinstance(command, StopDomain) and command.domain_id in self._preserved:
            self._destroy(self._preserved.pop(command.domain_id), command.at_ns)
        elif command.domain_id in self._domid_of:  # else it ended by itself before the cluster could know
            resident = self._residents[self._domid_of[command.domain_id]]
            if isinstance(command, SetMaxMem):
                self._set_max(resident, command)
            elif isinstance(command, StopDomain):
                self._event(command.at_ns, resident.request, resident.domain.domid, "shut_down", "left at its time")
                self._retire(resident, command.at_ns, "shut_down", "")
            else:
                self._set_target(resident, command)

    def _start(self, at_ns: int, request: MachineRequest, *, at_once: bool = True) -> None:
        """Start a guest, or let it take its turn where dom0 may have to make room first; placement counts it from here
        at its memory.
        """
        if request.domain_id in self._domid_of:
            raise InvariantError(f"[HM-4] domain {request.domain_id} runs already (host {self._spec.host_id})")
        need_pages = self._need_pages(request)
        available_pages = self._spec.usable_pages - self._committed_pages
        refused = toolstack.not_admitted(request, available_pages, self._cfg, self._guests[request.os_class])
        self._commit(request, need_pages)
        if refused is not None:
            self._turn_away(at_ns, request, refused.cause, refused.text)
        elif self._starts is not None:
            self._starts.ask(at_ns, Turn(request.domain_id, request, need_pages, partial(self._decided, request)))
        else:
            self._let_in(at_ns, request, at_once=at_once)

    def _let_in(self, at_ns: int, request: MachineRequest, *, at_once: bool) -> None:
        """Build a guest, or ask the controller what it gets."""
        if self._control is None:
            self._build(at_ns, request, request.memory_pages)
        else:
            overhead_pages = self._need_pages(request) - request.memory_pages
            self._control.ask(at_ns, request, overhead_pages, at_once=at_once)

    def _decided(self, request: MachineRequest, at_ns: int, fits: bool) -> None:
        """What came of a start that had to wait for dom0."""
        if fits:
            self._let_in(at_ns, request, at_once=False)
        else:
            self._turn_away(at_ns, request, "dom0_short", NOT_FREED)

    def _need_pages(self, request: MachineRequest) -> int:
        return toolstack.need_memory_pages(request, self._cfg, self._guests[request.os_class])

    def _withdraw(self, command: StopDomain) -> bool:
        """Stop a machine whose start still waits for its turn; whether there is one."""
        request = self._starts.withdraw(command.domain_id) if self._starts is not None else None
        if request is None:
            return False
        self._commit(request, -self._need_pages(request))
        self._event(command.at_ns, request, TOOLSTACK, "shut_down", "left before its start had its turn")
        self._rows.append(self._row(request, None, command.at_ns, "shut_down", "", None, None))
        return True

    def _build(self, at_ns: int, request: MachineRequest, memory_pages: int) -> Resident | None:
        """Build and boot a guest with this target."""
        cfg = self._guests[request.os_class]
        domid, self._next_domid = self._next_domid, self._next_domid + 1
        built = toolstack.build(self._machine, domid, replace(request, memory_pages=memory_pages), self._cfg, cfg)
        if isinstance(built, toolstack.BuildFailed):
            self._turn_away(at_ns, request, built.cause, built.text, domid=domid)
            return None
        self._started += 1
        resident = self._boot(at_ns, request, cfg, built)
        self._residents[domid] = self._booting[domid] = resident
        self._domid_of[request.domain_id] = domid
        self._unquiet.add(domid)
        self._promised.at(at_ns, self._promised.now + request.maxmem_pages)
        self._target.at(at_ns, self._target.now + built.target_pages)
        self._domains_peak = max(self._domains_peak, len(self._residents))
        self._heap_changed(at_ns, resident)
        text = f"Dom{domid} {pages_to_mib(memory_pages)} of {pages_to_mib(request.maxmem_pages)} MiB"
        self._event(at_ns, request, domid, "build_done", text)
        self._acted(domid)
        self._enqueue(resident)
        return resident

    def _turn_away(self, at_ns: int, request: MachineRequest, cause: Cause, text: str, *, domid: int = 0) -> None:
        """A start came to nothing."""
        self._started += 1
        self._not_built += 1
        self._commit(request, -self._need_pages(request))
        self._event(at_ns, request, domid, "build_failed", text)
        self._rows.append(self._row(request, at_ns, at_ns, "build_failed", cause, None, None))

    def _commit(self, request: MachineRequest, need_pages: int) -> None:
        """Charge the host with what a domain needs, or give it back (below 0)."""
        memory_pages = request.memory_pages if need_pages > 0 else -request.memory_pages
        self._committed_pages += need_pages
        self._overhead_pages += need_pages - memory_pages

    def _lock(self, cfg: GuestConfig, domid: int) -> Lock:
        """What holds a guest up, if anything does."""
        host = self._cfg
        timed = host.costs.any or cfg.irq_per_s > 0
        served_page_ns = host.costs.served_page_ns if host.era in RECLAIM_FOR_DEBT else None
        return Lock(self._machine if timed else None, domid, served_page_ns=served_page_ns)

    def _boot(self, at_ns: int, request: MachineRequest, cfg: GuestConfig, built: toolstack.Domain) -> Resident:
        domid, domain_id, attempt = built.domid, request.domain_id, request.attempt
        boot = Boot.draw(cfg, self._seed, domain_id, attempt)
        arrivals = key(self._seed, "domain", domain_id, attempt, "pending")
        known_pattern = self._cfg.scrubbed_pod and cfg.scrubber == "pattern"
        if known_pattern:
            self._machine.set_scrub_pattern(domid, True)
        self._machine.set_pending_work(domid, arrivals, self._cfg.softirq_per_s, cfg.irq_per_s)
        order = stream(self._seed, "domain", domain_id, attempt, "allocator") if cfg.alloc_order == "random" else None
        memory = GuestMemory(
            self._machine,
            domid,
            built.layout,
            image_pages=boot.kernel_pages,
            descriptor_pages=-(-request.maxmem_pages // cfg.descriptor_share),
            block_pages=cfg.alloc_block_pages,
            rng=order,
            # On a host that does not scrub, frames carry their contents to the next owner: what is written matters.
            may_skip=self._cfg.scrub_on_free,
            zero_on_free=cfg.zero_on_free,
            lock=self._lock(cfg, domid),
        )
        memory.pattern_is_zero = known_pattern

        def event(t_ns: int, kind: EventKind, text: str) -> None:
            self._event(t_ns, request, domid, kind, text)

        fault = Fault.draw(cfg.fault, self._seed, domain_id)
        guest = Guest(
            memory,
            boot,
            cfg,
            request.demand,
            hold_ns=request.hold_ns,
            start_ns=at_ns,
            vcpus=request.vcpus,
            on_event=event,
            fault=fault,
            spare_pages=reserve_of(cfg, memory.ram_pages) if cfg.balloon.driver == "windows" else 0,
            # A controller that listens to guests looks when one of them acts: then nothing is quiet.
            ahead=self._coalesce and (self._control is None or self._control.wakes == "memory"),
        )
        if self._cfg.dom0_touch_per_s:
            rng = stream(self._seed, "domain", domain_id, attempt, "visits")
            guest.add_stream(Visits(memory, rng, self._cfg.dom0_touch_per_s, at_ns, guest.die_by_other))
        linux = cfg.balloon.driver == "linux"
        return Resident(request, built, memory, guest, make_balloon(cfg, built, guest, fault), linux)

    def _set_target(self, resident: Resident, command: SetTarget) -> None:
        raised_pages = command.target_pages - resident.domain.target_pages
        if self._cfg.era == RFC2009 and self._starts is not None and raised_pages > 0:
            # The toolstack of that time called balloon.free() before it told Xen; xl does not.
            then = partial(self._set_if_free, resident, command.target_pages)
            self._starts.ask(command.at_ns, Turn(command.domain_id, None, raised_pages, then))
        else:
            self._mem_set(command.at_ns, resident, command.target_pages)

    def _set_if_free(self, resident: Resident, target_pages: int, at_ns: int, free: bool) -> None:
        """What came of a raise that waited for dom0; its domain may be gone by now."""
        if resident.domain.domid not in self._residents:
            return
        if free:
            self._mem_set(at_ns, resident, target_pages)
        else:
            self._event(at_ns, resident.request, resident.domain.domid, "set_target", NOT_FREED)

    def _mem_set(self, at_ns: int, resident: Resident, target_pages: int) -> None:
        domain, before = resident.domain, resident.domain.target_pages
        failure = toolstack.set_target(self._machine, domain, target_pages)
        text = failure or f"{pages_to_mib(before)} to {pages_to_mib(target_pages)} MiB"
        self._event(at_ns, resident.request, domain.domid, "set_target", text)
        self._target_written(at_ns, resident, before, heap=True, told=not failure)
        if self._control is not None:
            self._control.told(resident)

    def _target_written(self, at_ns: int, resident: Resident, before_pages: int, *, heap: bool, told: bool) -> None:
        """A domain's target was `before_pages`; `heap`: it may own other than before; `told`: its guest knows."""
        domain = resident.domain
        self._target_changes += 1
        self._target.at(at_ns, self._target.now + domain.target_pages - before_pages)
        if heap:
            resident.memory.refresh()
            resident.memory.see_debt(at_ns)
            self._heap_changed(at_ns, resident)
        self._acted(domain.domid)
        if told and resident.balloon is not None:
            resident.balloon.target_changed(at_ns)
            self._unquiet.add(domain.domid)
            self._enqueue(resident)

    def _mark_uncooperative(self, at_ns: int, resident: Resident, *, flagged: bool) -> None:
        text = "memory/uncooperative" if flagged else "memory/uncooperative removed"
        self._event(at_ns, resident.request, resident.domain.domid, "uncooperative", text)

    def _set_max(self, resident: Resident, command: SetMaxMem) -> None:
        text = toolstack.mem_max(self._machine, resident.domain, command.maxmem_pages)
        text = text or f"{pages_to_mib(command.maxmem_pages)} MiB"
        self._event(command.at_ns, resident.request, resident.domain.domid, "set_max", text)
        self._acted(resident.domain.domid)

    def _check_limit(self, at_ns: int, resident: Resident) -> None:
        """Say once for each limit that a balloon cannot deflate beyond it (A5, E8)."""
        domain, balloon = resident.domain, resident.balloon
        owned = self._owned_of[domain.domid]
        if balloon is None or balloon.need >= 0 or owned < domain.limit_pages:
            return
        if self._over_limit.get(domain.domid) != domain.limit_pages:
            self._over_limit[domain.domid] = domain.limit_pages
            text = OVER_ALLOCATION.format(domain.domid, owned + 1, domain.limit_pages)
            self._event(at_ns, resident.request, domain.domid, "over_allocation", text)

    def _check_tables(self, resident: Resident, at_ns: int, *, balloons: bool) -> None:
        """End a guest whose table wants more pages than its paging pool has (A3.9, A6.3, E9).

        A balloon's hypercall comes back short, which its driver does not survive; any other access is a violation.
        """
        domain, guest = resident.domain, resident.guest
        if guest.end is None and self._machine.table_pages(domain.domid) > domain.numbers.paging_pages:
            guest.end = End(at_ns, "guest_panic" if balloons else "ept_violation", "paging_pool")

    # -- ends --------------------------------------------------------------------------------------------------------

    def _end_by_itself(self, resident: Resident) -> None:
        """Xen, or its own kernel, has ended a guest; what becomes of one that crashed is for `host.on_crash` to say."""
        end = resident.guest.end
        assert end is not None
        if end.fate == "shut_down":
            self._event(end.at_ns, resident.request, resident.domain.domid, "shut_down", "by itself")
            self._retire(resident, end.at_ns, end.fate, end.cause)
            return
        oom = resident.memory.oom
        line = self._machine.oom_line(oom) if oom else ""
        domain = resident.domain
        kind, text = death(end.fate, end.cause, domain.domid, line, domain.numbers.paging_pages)
        self._event(end.at_ns, resident.request, domain.domid, kind, text)
        self._died += 1
        preserve = self._cfg.on_crash == "preserve"
        self._retire(resident, end.at_ns, end.fate, end.cause, preserve=preserve)
        most = self._cfg.max_restarts
        if self._cfg.on_crash == "restart" and (most is None or resident.request.attempt <= most):
            self._restart(resident.request, end.at_ns + s_to_ns(self._cfg.restart_delay_s))

    def _restart(self, request: MachineRequest, at_ns: int) -> None:
        """Build a crashed domain again at `at_ns`: its whole target must be free again, and its debt is whole again
        (G14).
        """
        again = replace(request, attempt=request.attempt + 1, arrival_ns=at_ns)

        def build(now_ns: int) -> None:
            del self._restarts[request.domain_id]
            text = f"attempt {again.attempt}, {self._cfg.restart_delay_s:g} s after its crash"
            self._event(now_ns, again, TOOLSTACK, "restart", text)
            self._start(now_ns, again, at_once=False)

        self._restarts[request.domain_id] = self._later(at_ns, build)

    def _retire(self, resident: Resident, at_ns: int, fate: Fate, cause: str, *, preserve: bool = False) -> None:
        """Write a domain's row, and give back all that it had unless it is to be preserved."""
        domid, request = resident.domain.domid, resident.request
        self._rows.append(
            self._row(
                request, resident.guest.boot_start_ns, at_ns, fate, cause, resident, self._machine.counters(domid)
            )
        )
        del self._residents[domid]
        del self._domid_of[request.domain_id]
        self._unquiet.discard(domid)
        if self._control is not None:
            self._control.gone(domid)
            self._control.wake(after(at_ns, self._control.period_ns))
        self._booting.pop(domid, None)
        self._wants.remove(domid, self._next_look_ns // self._grid_ns)
        self._changed.pop(domid, None)
        if preserve:
            self._preserved[request.domain_id] = resident
        else:
            self._destroy(resident, at_ns)

    def _destroy(self, resident: Resident, at_ns: int) -> None:
        """Give back all that a domain had."""
        domid, request = resident.domain.domid, resident.request
        self._reach(at_ns)
        toolstack.destroy(self._machine, resident.domain)
        cached, promised = self._promises.pop(domid)
        self._cached -= cached
        self._promised_pages -= promised
        self._commit(request, -self._need_pages(request))
        self._promised.at(at_ns, self._promised.now - request.maxmem_pages)
        self._target.at(at_ns, self._target.now - resident.domain.target_pages)
        self._owned.at(at_ns, self._owned.now - self._owned_of.pop(domid))
        self._free_changed(at_ns)
        self._event(at_ns, request, domid, "destroy", f"{self._machine.free_pages} pages free")
        if self._cfg.check == "step":
            self._audit_all()

    def _close(self, at_ns: int) -> None:
        """The run ends: a last look, a row for each domain that still runs, one for the host."""
        self._look(at_ns)
        self._drain(at_ns + 1)
        control = self._control
        if control is not None:
            for domain_id in list(control.waiting):
                asked = control.withdraw(at_ns, domain_id)
                self._turn_away(at_ns, asked, "still_waiting", "the run ended while it waited for memory")
        self._audit_all()
        superpages = self._superpage_share()
        for request in self._starts.waiting if self._starts is not None else ():
            self._rows.append(self._row(request, None, at_ns, "running", "", None, None))
        for domid, resident in self._residents.items():
            counters = self._machine.counters(domid)
            start_ns = resident.guest.boot_start_ns
            self._rows.append(self._row(resident.request, start_ns, at_ns, "running", "", resident, counters))
        self._host_row = HostRow(
            host_id=self._spec.host_id,
            ram_pages=self._spec.ram_pages,
            usable_pages=self._spec.usable_pages,
            domains_started=self._started,
            domains_died=self._died + self._not_built,
            domains_peak=self._domains_peak,
            promised_pages_peak=self._promised.peak,
            promised_pages_mean=self._promised.mean(at_ns),
            target_pages_peak=self._target.peak,
            target_pages_mean=self._target.mean(at_ns),
            owned_pages_peak=self._owned.peak,
            owned_pages_mean=self._owned.mean(at_ns),
            populated_pages_peak=self._populated.peak,
            populated_pages_mean=self._populated.mean(at_ns),
            demanded_pages_peak=self._demanded.peak,
            demanded_pages_mean=self._demanded.mean(at_ns),
            free_pages_min=self._free.least,
            free_pages_mean=self._free.mean(at_ns),
            superpage_share=superpages,
            controller_actions=control.actions if control is not None else 0,
            target_changes=self._target_changes,
            moved_pages=self._moved_pages,
            uncooperative=control.uncooperative if control is not None else 0,
            starts_waited_ns=control.waited_ns if control is not None else 0,
        )

    def look(self) -> HostLook:
        """What its operator sees of the host now."""
        standing = (*self._residents.values(), *self._preserved.values())
        xen_pages = self._cfg.xen_mib_of(self._spec.ram_pages // PAGES_PER_GIB) * PAGES_PER_MIB
        return HostLook(
            host_id=self._spec.host_id,
            at_ns=self._now_ns,
            ram_pages=self._spec.ram_pages,
            free_pages=self._machine.free_pages,
            claim_pages=0,  # none outlives its build, and builds take no time
            dom0_pages=max(0, self._own.pages - xen_pages),
            domains=tuple(self._look_at(one) for one in sorted(standing, key=lambda one: one.domain.domid)),
        )

    def _look_at(self, resident: Resident) -> DomainLook:
        domain, machine = resident.domain, self._machine
        entry_count = machine.entry_count(domain.domid)
        return DomainLook(
            domid=domain.domid,
            name=resident.request.name,
            vcpus=resident.request.vcpus,
            crashed=resident.guest.end is not None,
            tot_pages=machine.tot_pages(domain.domid),
            claim_pages=0,
            max_pages=domain.limit_pages,
            entry_count=entry_count,
            cache_count=entry_count - machine.debt_pages(domain.domid),
            target_pages=domain.target_pages,
            static_max_pages=kib_to_pages(domain.static_max_kib),
        )

    def _superpage_share(self) -> float | None:
        large = populated = 0
        for domid in self._residents:
            ram4k, ram2m, ram1g, *_ = self._machine.entry_map(domid)
            large += ram2m * SUPERPAGE_PAGES + ram1g * PAGES_PER_GIB
            populated += ram4k + ram2m * SUPERPAGE_PAGES + ram1g * PAGES_PER_GIB
        return large / populated if populated else None

    # -- rows --------------------------------------------------------------------------------------------------------

    def _event(self, at_ns: int, request: MachineRequest, domid: int, kind: EventKind, text: str) -> None:
        row = EventRow(at_ns, self._spec.host_id, request.domain_id, request.attempt, kind, text)
        self._events.append((at_ns, domid, len(self._events), row))

    def _row(
        self,
        request: MachineRequest,
        start_ns: int | None,
        end_ns: int,
        fate: Fate,
        cause: str,
        resident: Resident | None,
        counters: Counted | None,
    ) -> DomainRow:
        """The row of a boot attempt; without a resident, of one that was never built."""
        memory = resident.memory if resident else None
        guest = resident.guest if resident else None
        balloon = resident.balloon if resident else None
        swap = guest.held.totals(end_ns) if guest else NO_SWAP
        lived_ns = end_ns - start_ns if start_ns is not None else 0
        oom_line = self._machine.oom_line(memory.oom) if memory and memory.oom else ""
        return DomainRow(
            domain_id=request.domain_id,
            attempt=request.attempt,
            name=request.name,
            host_id=self._spec.host_id,
            os_class=request.os_class,
            vcpus=request.vcpus,
            maxmem_pages=request.maxmem_pages,
            memory_pages=request.memory_pages,
            start_pages=resident.domain.numbers.memory_pages if resident else 0,
            arrival_ns=request.arrival_ns,
            boot_start_ns=start_ns,
            boot_done_ns=guest.boot_done_ns if guest else None,
            boot_delay_ns=guest.boot_delay_ns if guest and guest.boot_done_ns is not None else None,
            end_ns=end_ns,
            fate=fate,
            cause=cause,
            oom_line=oom_line,
            tot_pages=counters.tot_pages if counters else 0,
            entry_count=counters.entry_count if counters else 0,
            cache_count=counters.cache_count if counters else 0,
            nonzero_pages_peak=memory.nonzero_peak if memory else 0,
            margin_pages=memory.margin if memory else 0,
            working_pages_peak=guest.wanted_peak(end_ns) if guest else 0,
            ballooned_pages=memory.ballooned_pages if memory else 0,
            balloon_gave_up=balloon.gave_up if balloon else 0,
            populated_4k=counters.populated_4k if counters else 0,
            populated_2m=counters.populated_2m if counters else 0,
            reclaimed_4k=counters.reclaimed_4k if counters else 0,
            reclaimed_2m=counters.reclaimed_2m if counters else 0,
            splintered_2m=counters.splintered_2m if counters else 0,
            sweeps=counters.sweeps if counters else 0,
            hypervisor_ns=memory.lock.held_ns if memory else 0,
            debt_ns=_debt_ns(memory, lived_ns, end_ns) if memory else 0,
            swap_ns=swap.ns,
            swap_in_pages=swap.in_pages,
            swap_out_pages=swap.out_pages,
            swapped_pages_peak=guest.held.swapped_peak if guest else 0,
            oom_kills=guest.held.kills if guest else 0,
            slowdown=lived_ns / (lived_ns - swap.ns) if swap.ns < lived_ns else 1.0,
        )

    def _heap_changed(self, at_ns: int, resident: Resident) -> None:
        """What a domain owns, and what is free, may be other than before; always in order of time [HM-4]."""
        self._reach(at_ns)
        domid = resident.domain.domid
        owned = self._machine.tot_pages(domid)
        if resident.moved:
            self._moved_pages += abs(owned - self._owned_of[domid])
        self._owned.at(at_ns, self._owned.now + owned - self._owned_of.get(domid, 0))
        self._owned_of[domid] = owned
        self._free_changed(at_ns)

    def _free_changed(self, at_ns: int) -> None:
        """Free memory may be other than before; no claim is outstanding between two acts."""
        free_pages = self._machine.free_pages
        self._free.at(at_ns, free_pages)
        for threshold in self._low_memory.crossed(free_pages):
            text = LOW_MEMORY.format(free_pages, threshold)
            row = EventRow(at_ns, self._spec.host_id, NO_DOMAIN, 0, "low_memory", text)
            self._events.append((at_ns, TOOLSTACK, len(self._events), row))

    def _look_until(self, last_ns: int) -> None:
        """Look at the whole host at each instant of the grid up to `last_ns`, before which no guest acts.

        An instant comes before what guests do then.
        """
        grid_ns, first_ns = self._grid_ns, self._next_look_ns
        while first_ns <= last_ns:
            demanded = self._wants.sums(first_ns // grid_ns, (last_ns - first_ns) // grid_ns + 1)
            self._observe(first_ns, demanded + self._demanded_by_booting())
            first_ns += len(demanded) * grid_ns
        self._next_look_ns = first_ns

    def _look(self, at_ns: int) -> None:
        """Look at the whole host at one instant, which need not be of the grid, before what guests do then."""
        self._drain(at_ns)
        demanded = sum(resident.guest.wanted_pages(at_ns) for resident in self._residents.values())
        self._observe(at_ns, np.array([demanded], dtype=np.int64))
        self._next_look_ns = (at_ns // self._grid_ns + 1) * self._grid_ns

    def _demanded_by_booting(self) -> int:
        return sum(resident.guest.wanted_pages(0) for resident in self._booting.values())

    def _observe(self, first_ns: int, demanded: Int64Array) -> None:
        """Take down what is seen at instants of the grid between which nothing but demand changes."""
        grid_ns = self._grid_ns
        self._reach(first_ns + (len(demanded) - 1) * grid_ns)
        populated = self._owned.now - self._cached
        self._populated.at(first_ns, populated)
        self._demanded.at_each(first_ns, grid_ns, demanded)
        if not self._telemetry_ns:
            return
        for i, wanted in enumerate(demanded.tolist()):
            self._samples.append(
                SampleRow(
                    t_ns=first_ns + i * grid_ns,
                    host_id=self._spec.host_id,
                    promised_pages=self._promised.now,
                    target_pages=self._target.now,
                    owned_pages=self._owned.now,
                    populated_pages=populated,
                    demanded_pages=wanted,
                    cache_pages=self._cached,
                    entry_pages=self._promised_pages,
                    free_pages=self._machine.free_pages,
                    domains_running=len(self._residents),
                    deaths=self._died,
                )
            )

    # -- audits ------------------------------------------------------------------------------------------------------

    def _acted(self, domid: int) -> None:
        """Something has happened to a domain: see what changed, audit it now or in its turn."""
        resident = self._residents[domid]
        memory = resident.memory
        cached, promised = self._promises.get(domid, (0, 0))
        now = (memory.entry_count - memory.debt, memory.entry_count)
        self._promises[domid] = now
        self._cached += now[0] - cached
        self._promised_pages += now[1] - promised
        if domid in self._booting and resident.guest.boot_done_ns is not None:
            del self._booting[domid]
            self._wants.add(domid, resident.request.demand, resident.guest.boot_done_ns)
        if self._cfg.check == "step":
            self._audit(domid)
        else:
            self._changed[domid] = None

    def _audit(self, domid: int) -> None:
        """Recount one domain's pages (P15)."""
        self._checked(domid, lambda: self._machine.audit(domid))

    def _audit_changed(self) -> None:
        """At an epoch's end: the equations of all domains, and a recount of one that changed, in turn: a recount walks
        every page.
        """
        self._audit_sums()
        for domid in self._changed:
            del self._changed[domid]
            self._audit(domid)
            break

    def _audit_all(self) -> None:
        """Everything, and the whole host's frames."""
        if self._cfg.check != "off":
            self._audit_sums()
            self._checked(0, self._machine.audit)

    def _audit_sums(self) -> None:
        aside = self._own.pages
        standing = (*self._residents.values(), *self._preserved.values())
        pools = sum(resident.domain.numbers.aside_pages for resident in standing)
        total = self._owned.now + pools + aside + self._machine.free_pages
        if total != self._spec.ram_pages:
            raise InvariantError(
                f"[HM-2] owned {self._owned.now} + pools {pools} + set aside {aside} + free {self._machine.free_pages} "
                f"== RAM {self._spec.ram_pages} violated {self._place(0)}"
            )
        for domid, resident in self._residents.items():
            if resident.memory.debt < 0:
                raise InvariantError(f"[HM-3] debt >= 0 violated: {resident.memory.debt} {self._place(domid)}")

    def _checked(self, domid: int, audit: Callable[[], None]) -> None:
        try:
            audit()
        except InvariantError as error:
            raise InvariantError(f"{error} {self._place(domid)}") from error

    def _place(self, domid: int) -> str:
        who = f"Dom{domid}, " if domid else ""
        return f"({who}host {self._spec.host_id}, t={self._reached_ns / NS_PER_S:.6f} s, seed {self._seed})"


def _debt_ns(memory: GuestMemory, lived_ns: int, end_ns: int) -> int:
    """How long a guest that lived for `lived_ns` could ask for more than its cache had, from its build on [ns]."""
    paid_ns = end_ns if memory.debt_paid_ns is None else min(memory.debt_paid_ns, end_ns)
    return max(0, lived_ns - (end_ns - paid_ns))
