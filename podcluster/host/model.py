"""One host through time: `HostModel.advance(until_ns, commands) -> HostReport` is the only way in.

What        The host's clock and the commands of the cluster. Domains come and go in `lifecycle.py`, have targets in
            `targets.py`, are reported by `recorder.py` and audited by `host_audit.py`; pages are the machine's, and
            what guests do theirs (`guest.py`, `balloon.py`).
Units       Pages of 4 KiB; integer ns of simulated time.
Order       What happens on a host is ordered by (time, priority, sequence): at one instant first commands, in the order
            given, then a sample, then guests in the order of their domids, and within a guest its streams by rank.
Invariants  [HM-1] what `advance` reports does not depend on how a span of time is cut into calls, nor on `coalesce`.
            [HM-2] to [HM-5] of `host_audit.py`, `agenda.py` and `lifecycle.py`.
Coalescing  Why it is exact. Every populate is served from the domain's own cache, and every frame that a sweep or a
            steal gains goes into it: while a guest only touches memory, neither the host's heap nor another domain is
            read or changed. Touches of different guests therefore commute, and a guest may be run ahead of the others,
            up to the next command or sample, or to the next thing of its own that may touch the heap: a balloon batch
            that its debt does not cover (P12.7, A3.8; while D >= n a batch of n only moves pages between table, cache
            and nothing), a deflation, its death. Those are done in the order of time over all domains: the queue holds,
            for each, the instant of its next act, the earliest is taken out, and a guest taken out runs on only through
            acts of its own. So whatever touches the heap does so in the same order as if every act of every guest were
            carried out singly in order of time, which is what `coalesce=False` does. One exception [BA-5]: batches that
            only give to the heap may come before another guest's earlier ones as long as nobody takes from it, or looks
            at it, before they are all done: which frames are free is all there is to it, in whatever order they came;
            what was owned and free meanwhile is added up by their instants. Deflations of several balloons, with
            nothing of anybody else in between, are one call that keeps their order, and page cache that grows by what
            they bring follows (turns.py). Within a guest, batches of one stream that no other stream's instant parts
            are one range operation, which leaves the state that the page-by-page loop leaves. Commands do touch the
            heap, so they are barriers, but that a guest that touches nothing of the host goes past the start of another
            domain, which looks at nothing of any guest; so are samples, which must see every guest at one instant.
Departs     A balloon hypercall takes no time but what `host.costs` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from podcluster.config import ControllerConfig, GuestConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.host.agenda import Agenda
from podcluster.host.attention import Attention, Shown
from podcluster.host.control import Control, Hands, kept_free_pages
from podcluster.host.eras import RFC2009
from podcluster.host.guest import End
from podcluster.host.host_audit import HostAudit
from podcluster.host.lifecycle import Lifecycle
from podcluster.host.mechanism import Mechanism
from podcluster.host.migration import Migrations
from podcluster.host.operator import HostLook
from podcluster.host.overview import overview
from podcluster.host.own import OwnMemory, Starts
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Resident, Residents
from podcluster.host.streams import NEVER
from podcluster.host.targets import Targets
from podcluster.records.commands import (
    AttachDevice,
    Close,
    Command,
    EndWarmup,
    FailHost,
    SetMaxMem,
    StartDomain,
    StopDomain,
)
from podcluster.records.hosts import HostSpec, HostView
from podcluster.records.migration import DropRoom, KeepRoom, MigrateGo, MigrateIn, MigrateOut, MigrateStay
from podcluster.records.reports import HostReport
from podcluster.units import PAGES_PER_GIB, PAGES_PER_MIB

if TYPE_CHECKING:
    from podcluster.host.machine import Machine

MakeMachine = Callable[[HostConfig, int], Mechanism]

HOST_BYTES: Final = 256 * 1024  # what a host's own objects take, ...
GUEST_BYTES: Final = 128 * 1024  # ... and those of each guest


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
        machine_samples: bool = False,
        controller: ControllerConfig | None = None,
        machine: MakeMachine = make_machine,
        coalesce: bool | None = None,
        unasked_ns: int = 0,
        stride_ns: int = 0,
    ) -> None:
        """`coalesce=None`: True, unless every step is to be audited. `guests` by `os_class`; no controller: static.
        `machine_samples`: samples are of each machine as well. `unasked_ns`: before then the cluster asks nothing of a
        domain but to start, and to stop when it departs; `stride_ns`: how far past the end of a call guests may go in
        what no look at the host has to wait for [GS-4], where that is so.
        """
        self._spec = spec
        self._cfg = host
        self._coalesce = host.check != "step" if coalesce is None else coalesce
        self._unasked_ns, self._stride_ns = unasked_ns, stride_ns
        self._takes_by_turns = host.era != RFC2009 and host.scrub_on_free
        self._now_ns = 0
        self._until_ns = 0  # the end of the call of `advance`
        self._unminded_ns = 0  # before then all that the cluster asks for in this call is to start domains
        self._view: HostView | None = None
        self._machine = machine(host, spec.ram_pages)
        self._own = OwnMemory(self._machine, spec, host, host.dom0_floor_mib(controller))
        self._residents = Residents()
        running = self._residents.running
        self._agenda = Agenda(running, f"host {spec.host_id}, seed {seed}")
        self._recorder = Recorder(
            spec, self._machine, running, self._agenda, telemetry_ns, machines=machine_samples and telemetry_ns > 0
        )
        self._audit = HostAudit(
            spec, host, seed, self._machine, self._own, self._residents, self._recorder, self._agenda
        )
        self._control: Control | None = None
        if controller is not None and controller.name != "static":
            dom0 = self._own.dom0 if controller.manages_dom0 else None
            self._control = Control(controller, self._machine, spec.usable_pages, dom0)
        self._attention = Attention(
            self._control,
            self._residents,
            agenda=self._agenda,
            recorder=self._recorder,
            own=self._own,
            every_beat=not self._coalesce,
        )
        starts: Starts | None = None
        if host.autoballoons:
            starts = Starts(
                self._own,
                free_pages=lambda: self._machine.free_pages,
                later=self._agenda.later,
                freed=self._recorder.free_changed,
            )
        self._lifecycle = Lifecycle(
            spec,
            host,
            guests,
            seed,
            self._machine,
            self._residents,
            agenda=self._agenda,
            recorder=self._recorder,
            audit=self._audit,
            attention=self._attention,
            control=self._control,
            starts=starts,
            kept_free_pages=kept_free_pages(host, controller),
            # A controller that listens to guests looks when one of them acts: then nothing is quiet.
            ahead=self._coalesce and (self._control is None or self._control.wakes == "memory"),
        )
        self._targets = Targets(
            host.era,
            self._machine,
            self._residents,
            agenda=self._agenda,
            recorder=self._recorder,
            audit=self._audit,
            attention=self._attention,
            control=self._control,
            starts=starts,
            set_range=self._lifecycle.set_range,
        )
        self._migrations = Migrations(
            self._residents,
            agenda=self._agenda,
            recorder=self._recorder,
            audit=self._audit,
            attention=self._attention,
            lifecycle=self._lifecycle,
            targets=self._targets,
        )
        if self._control is not None:
            self._control.hands = Hands(
                self._catch_up,
                self._lifecycle.build,
                self._lifecycle.turn_away,
                self._targets.written,
                self._targets.mark_uncooperative,
            )
        # A guest that nobody sees acts later than it says [AG-2].
        self._lags = self._coalesce and self._control is not None and self._control.wakes == "memory"

    # -- the only way in ---------------------------------------------------------------------------------------------

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Carry out commands at their times in (now, until], and simulate up to and including `until_ns`."""
        start_ns = self._now_ns
        if until_ns < start_ns or any(not start_ns < command.at_ns <= until_ns for command in commands):
            raise InvariantError(
                f"[HM-4] now < at <= until violated: host {self._spec.host_id}, {start_ns}..{until_ns} ns"
            )
        # A stable sort keeps the order given among commands of one instant.
        ordered = sorted(commands, key=lambda one: one.at_ns)
        self._until_ns = until_ns
        others = iter([command.at_ns for command in ordered if not isinstance(command, StartDomain)])
        self._unminded_ns = next(others, until_ns + 1)
        for command in ordered:
            self._run_to(command.at_ns)
            self._carry_out(command)
            if not isinstance(command, StartDomain):
                self._unminded_ns = next(others, until_ns + 1)
        self._run_to(until_ns + 1)
        self._now_ns = until_ns
        self._audit.end_epoch()
        quiet_until_ns = min(self._migrations.due_ns, self._attention.next_ns, self._agenda.next_ns)
        report = self._recorder.report(until_ns, self._viewed(), quiet_until_ns)
        news = {**self._migrations.take(), **self._lifecycle.take()}
        return replace(report, **news) if news else report

    @property
    def resident_bytes(self) -> int:
        """About how much memory of this computer the host takes."""
        standing = self._residents.standing
        books = sum(resident.memory.books_bytes for resident in standing)
        return self._machine.resident_bytes + HOST_BYTES + GUEST_BYTES * len(standing) + books

    def let_go(self) -> None:
        """Give that back at once: the host is of no use from here on."""
        for resident in self._residents.standing:
            vars(resident.memory).clear()  # runs of pages
            resident.guest.let_go()
        self._machine.let_go()

    def look(self) -> HostLook:
        """What its operator sees of the host now."""
        xen_pages = self._cfg.xen_mib_of(self._spec.ram_pages // PAGES_PER_GIB) * PAGES_PER_MIB
        dom0_pages = max(0, self._own.pages - xen_pages)
        return overview(self._machine, self._spec, self._residents.standing, dom0_pages, self._now_ns)

    def _viewed(self) -> HostView:
        if self._view is None or self._view.at_ns != self._now_ns:
            self._view = HostView(
                self._spec.host_id,
                self._spec.usable_pages,
                self._lifecycle.committed_pages,
                self._recorder.promised.now,
                self._machine.free_pages,
                len(self._residents.running),
                self._now_ns,
                self._lifecycle.overhead_pages,
            )
        return self._view

    # -- the clock ---------------------------------------------------------------------------------------------------

    def _run_to(self, before_ns: int) -> None:
        """Everything before `before_ns`, steps of migrations included: at an instant they come before all else."""
        while (step_ns := self._migrations.due_ns) < before_ns:
            self._run_up_to(step_ns)
            self._migrations.act(step_ns)
        self._run_up_to(before_ns)

    def _run_up_to(self, before_ns: int) -> None:
        """Everything before `before_ns`, samples and a controller's looks that are due there included: those at an
        instant come before its guests, in this order.
        """
        while (control_ns := self._attention.next_ns) < before_ns:
            self._run_looks(control_ns, control_ns)
            self._drain(control_ns)
            self._attention.look(control_ns)
        self._run_looks(before_ns - 1, before_ns)
        self._drain(before_ns)
        self._agenda.reached_ns = max(self._agenda.reached_ns, before_ns - 1)

    def _run_looks(self, last_ns: int, past_ns: int) -> None:
        """All samples up to `last_ns`; until before `past_ns` guests may go past them [GS-4]."""
        if self._coalesce and self._recorder.next_look_ns <= last_ns and self._agenda.next_ns < past_ns:
            self._go_past(past_ns)
        while (look_ns := self._recorder.next_look_ns) <= last_ns:
            if self._agenda.next_ns < look_ns:
                self._drain(look_ns, past_ns)
            self._recorder.look_until(min(self._agenda.next_ns, last_ns))

    def _drain(self, before_ns: int, past_ns: int = 0) -> None:
        """All acts of guests before `before_ns`, and before `past_ns` those that no sample has to wait for [GS-4]."""
        self._agenda.lags_ns = self._may_lag_until()
        while (act := self._agenda.take_guest(before_ns)) is not None:
            at_ns, resident = act
            if resident.due_ns < at_ns:
                unseen_ns = max(at_ns, min(resident.unseen_ns, before_ns))
                self._run_by_itself(resident.due_ns, resident, unseen_ns, past_ns)
                continue
            guest = resident.guest
            if guest.end is not None:
                self._lifecycle.end_by_itself(resident)
                continue
            runs = self._coalesce and not resident.memory.short_of_tables
            if runs and self._takes_by_turns and guest.takes and self._take_in_turns(before_ns, past_ns):
                continue
            calm_ns = self._calm_until(resident, before_ns, past_ns) if runs and self._cfg.era != RFC2009 else 0
            touches_heap = guest.touches_heap_within(calm_ns)
            balloons = resident.memory.short_of_tables and guest.balloons_next
            shown = self._attention.shown(resident)
            if runs and not touches_heap:
                self._run(resident, before_ns, past_ns, calm_ns)
            else:
                guest.step(plainly=not runs)
            if resident.memory.short_of_tables:
                self._check_tables(resident, at_ns, balloons=balloons)
            freed, resident.memory.freed = resident.memory.freed, []
            if touches_heap:
                self._recorder.heap_changed(at_ns, resident)
            elif calm_ns >= at_ns:
                touches_heap = bool(freed)
                self._agenda.reach(at_ns)
                self._recorder.freed(resident, freed)
            if touches_heap:
                self._targets.check_limit(at_ns, resident)
            self._acted(at_ns, resident, shown, heap=touches_heap)

    def _may_lag_until(self) -> int:
        """Up to when what nobody sees may wait [AG-2]: to the next sample, to what the cluster asks for, to the end.

        Where a controller looks at what domains own, and at no more, most looks of it need not wait for most guests.
        """
        if not self._lags or self._migrations.due_ns < NEVER:
            return 0
        return min(self._recorder.next_look_ns - 1, self._unminded_ns - 1, self._until_ns)

    def _catch_up(self, at_ns: int, resident: Resident) -> None:
        """All that a guest does before `at_ns`, of which somebody is about to change something."""
        if resident.due_ns < at_ns:
            self._run_by_itself(resident.due_ns, resident, at_ns, 0)

    def _go_past(self, past_ns: int) -> None:
        """Let all guests whose next acts no sample has to wait for do them, so that samples are taken together; and
        those of whom nothing is asked what they do after that, in the same turn.
        """
        look_ns, furthest_ns = self._recorder.next_look_ns, self._until_ns + self._stride_ns
        for at_ns, resident in self._agenda.guests_before(past_ns):
            if resident.guest.goes_past and not resident.memory.short_of_tables:
                far_ns = min(self._unasked_until(resident), furthest_ns) if self._asks_nothing else 0
                self._run_by_itself(at_ns, resident, look_ns, max(past_ns, far_ns))

    def _acted(self, at_ns: int, resident: Resident, shown: Shown | None, *, heap: bool) -> None:
        """A guest has acted; it is entered in the queue anew."""
        self._attention.acted(at_ns, resident, shown, heap=heap)
        self._recorder.acted(resident)
        self._audit.acted(resident.domain.domid)
        self._agenda.put_guest(resident)

    def _run(self, resident: Resident, before_ns: int, past_ns: int, calm_ns: int = 0) -> None:
        """Run a guest ahead up to `before_ns`, as long as it leaves the heap alone: past starts and departures of other
        domains, too, which look at nothing but the heap, and past the end of this call of `advance`; but not past what
        the host itself is going to do, which may be to tell it a target.
        """
        if self._agenda.has_own:
            own_ns = self._agenda.next_own_ns
            before_ns, past_ns = min(before_ns, own_ns), min(past_ns, own_ns)
        last_ns = before_ns - 1
        if self._asks_nothing:
            alone_ns = max(self._unminded_ns, self._unasked_until(resident))
            last_ns = max(last_ns, min(alone_ns, self._recorder.next_look_ns) - 1)
        resident.guest.run(last_ns, past_ns=past_ns - 1, grid_ns=self._recorder.grid_ns, calm_ns=calm_ns)

    @property
    def _asks_nothing(self) -> bool:
        """The host itself is not going to ask anything of its guests."""
        return self._control is None and not self._agenda.has_own and self._migrations.due_ns == NEVER

    def _unasked_until(self, resident: Resident) -> int:
        """Before when the cluster asks nothing of a guest, in whatever call of `advance`."""
        departs_ns = resident.request.departure_ns
        return self._unasked_ns if departs_ns is None else min(self._unasked_ns, departs_ns)

    def _run_by_itself(self, at_ns: int, resident: Resident, before_ns: int, past_ns: int) -> None:
        """The same out of turn, of a guest whose next act, at `at_ns`, leaves the heap alone; that may be long ago of
        one that nobody saw, and then it has shown nothing before it says that it does [AG-2].
        """
        shown, shows_ns = self._attention.shown(resident), max(at_ns, resident.unseen_ns)
        self._run(resident, before_ns, past_ns)
        self._acted(shows_ns, resident, shown, heap=False)

    def _clear_way(self, resident: Resident, before_ns: int, past_ns: int) -> None:
        """Run a guest ahead that is in the way of others' turns at the heap though its next act leaves that alone."""
        guest = resident.guest
        at_ns = guest.next_ns
        if at_ns < before_ns and not resident.memory.short_of_tables and not guest.next_touches_heap:
            self._run_by_itself(at_ns, resident, before_ns, past_ns)

    def _calm_until(self, resident: Resident, before_ns: int, past_ns: int) -> int:
        """The last instant before `before_ns` up to which nobody but this guest takes from the heap, or looks at it;
        0 where its balloon does not give to the heap anyway.
        """
        balloon = resident.balloon
        memory = resident.memory
        if balloon is None or not balloon.inflates or memory.debt > 0 or memory.debt_paid_ns is None:
            return 0
        calm_ns = min(before_ns, self._agenda.next_own_ns)
        for one in self._residents.running.values():
            if one is not resident and one.takes_ns < calm_ns:
                self._clear_way(one, before_ns, past_ns)
                calm_ns = min(calm_ns, one.takes_ns)
        return calm_ns - 1

    def _take_in_turns(self, before_ns: int, past_ns: int) -> bool:
        """Let all balloons whose next act takes from the heap go on doing so, in order of time, up to the first act of
        anybody else that may touch it, or look at it, before `before_ns`; whether the first did.
        """
        last_ns = min(before_ns, self._agenda.next_own_ns) - 1
        able = []
        for one in self._residents.running.values():
            takes = one.guest.takes
            if not takes and one.unseen_ns <= last_ns:
                self._clear_way(one, before_ns, past_ns)
                takes = one.guest.takes
            if takes and not one.memory.short_of_tables:
                able.append(one)
            else:
                last_ns = min(last_ns, one.unseen_ns - 1)
        owned_of = self._recorder.owned_of
        able = [one for one in able if one.guest.next_ns <= last_ns]
        if not able:
            return False
        takers = [one.guest.take_part(last_ns, one.domain.limit_pages - owned_of[one.domain.domid]) for one in able]
        doms = [one.domain.domid for one in able]
        taken = self._machine.take_in_turns(doms, takers, self._recorder.alarm_pages + 1)
        if not taken.batches:
            return False
        self._recorder.took(taken, [(one, taker.pages) for one, taker in zip(able, takers, strict=True)])
        for one, taker in zip(able, takers, strict=True):
            if taker.pages:
                shown = self._attention.shown(one)
                one.guest.took(taker)
                self._targets.check_limit(taker.last_ns, one)
                self._run(one, before_ns, past_ns)  # as most then say that they are done
                self._acted(taker.first_ns, one, shown, heap=True)
            else:
                self._agenda.put_guest(one)
        return True

    def _check_tables(self, resident: Resident, at_ns: int, *, balloons: bool) -> None:
        """End a guest whose table wants more pages than its paging pool has (A3.9, A6.3, E9).

        A balloon's hypercall comes back short, which its driver does not survive; any other access is a violation.
        """
        domain, guest = resident.domain, resident.guest
        if guest.end is None and self._machine.table_pages(domain.domid) > domain.numbers.paging_pages:
            guest.end = End(at_ns, "guest_panic" if balloons else "ept_violation", "paging_pool")

    # -- commands ----------------------------------------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        self._attention.wake(command.at_ns - 1)  # the controller comes after the commands of this instant
        if isinstance(command, StartDomain):
            self._lifecycle.start(command.at_ns, command.request)
        elif isinstance(command, Close):
            self._close(command.at_ns)
        elif isinstance(command, StopDomain):
            self._lifecycle.stop(command.at_ns, command.domain_id)
        elif isinstance(command, MigrateOut):
            self._migrations.leave(command)
        elif isinstance(command, MigrateIn):
            self._lifecycle.land(command.at_ns, command.state)
        elif isinstance(command, MigrateGo):
            self._migrations.go(command)
        elif isinstance(command, MigrateStay):
            self._migrations.stay(command)
        elif isinstance(command, KeepRoom):
            self._lifecycle.keep_room(command.at_ns, command.request, command.pages)
        elif isinstance(command, DropRoom):
            self._lifecycle.drop_room(command.at_ns, command.domain_id)
        elif isinstance(command, FailHost):
            self._lifecycle.fail(command.at_ns)
        elif isinstance(command, EndWarmup):
            self._recorder.begin_anew(command.at_ns, self._control)
        elif command.domain_id in self._residents.domid_of:  # else it ended by itself before the cluster could know
            resident = self._residents.running[self._residents.domid_of[command.domain_id]]
            if isinstance(command, SetMaxMem):
                self._targets.set_max(resident, command)
            elif isinstance(command, AttachDevice):
                self._targets.attach(resident, command)
            else:
                self._targets.set_target(resident, command)

    def _close(self, at_ns: int) -> None:
        """The run ends: a last look, a row for each domain that still runs, one for the host."""
        self._drain(at_ns)
        self._recorder.look(at_ns)
        self._drain(at_ns + 1)
        self._audit.everything()
        self._lifecycle.close(at_ns)
        self._recorder.close(at_ns, self._control)
