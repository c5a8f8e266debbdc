"""One run: the epochs in which hosts and scheduler meet, from the first arrival to the end.

What        `run` turns a workload into rows. Each epoch: what is due is done (machines arrive and are placed on the
            hosts' last views, others leave, hosts fail and come back, what they took is started again, and it is looked
            whether that could be done after further failures), the commands go out by host, the pool advances, the
            reports are folded.
Units       Pages of 4 KiB; simulated time in ns.
Symbols     epoch k is the time (k epoch_ns, (k + 1) epoch_ns]
Invariants  [EP-1] epochs in which nothing is due are merged, which changes no row: a host is a function of its
                   commands, a scheduler looks at views only in an epoch with something due, whose beginning is never
                   merged away, what hosts report of a failure is known at the end of its epoch, which is not either,
                   and while a domain is on its way to another host no epochs are merged.
            [EP-3] every request has a `domains` row for each of its attempts, which count from 1 without gaps; a next
                   one has only who crashed, with `host.on_crash=restart`, rebooted, with `host.on_reboot=restart`, or
                   lost its host.
Departs     Time begins just after 0: what arrives at 0 is started at 1 ns.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from podcluster.cluster.agenda import (
    Agenda,
    Answered,
    Arrival,
    Asking,
    CalledOff,
    Departure,
    Enabling,
    Evacuation,
    Failure,
    Item,
    Landing,
    Migration,
    Operation,
    Rebalancing,
    Recovery,
    Rescue,
    Warmed,
)
from podcluster.cluster.ahead import Ahead, of_next
from podcluster.cluster.failover import Failover
from podcluster.cluster.failures import priority_of
from podcluster.cluster.ledger import Ledger, check_attempts, rejection, run_row
from podcluster.cluster.moves import Moves
from podcluster.cluster.outbox import Outbox
from podcluster.cluster.plan import Plan, count_steps
from podcluster.cluster.pool import CommandsByHost, Pool
from podcluster.cluster.progress import Progress
from podcluster.cluster.ratios import SamplePeaks, add_hosts
from podcluster.cluster.rescue import Lost, restart_order
from podcluster.cluster.scheduler import Outcome, Scheduler
from podcluster.cluster.whereabouts import Whereabouts
from podcluster.errors import InvariantError
from podcluster.placement.policy import Policy
from podcluster.records.commands import Close, EndWarmup, FailHost, StartDomain, StopDomain
from podcluster.records.fates import EventKind
from podcluster.records.hosts import Rejected
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.migration import DropRoom, GuestState, MigrateIn
from podcluster.records.reports import HostReport
from podcluster.records.rows import NO_HOST, DomainRow
from podcluster.records.samples import MachineSampleBlock, SampleBlock
from podcluster.records.summaries import RunRow
from podcluster.records.tables import Sink
from podcluster.units import NS_PER_S, pages_to_mib, s_to_ns

# So that progress moves and no message takes long, no more than an hour is merged; in long runs, a part of the run
# (`count_steps`).
MOST_MERGED_NS = 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run leaves besides its tables."""

    row: RunRow
    steps: int


def run(plan: Plan, workload: Workload, policy: Policy, pool: Pool, sink: Sink, progress: Progress) -> RunOutcome:
    """Simulate one run and write its tables, `runs` included."""
    started_s = time.monotonic()
    end_ns = plan.duration_ns
    late = [request.domain_id for request in workload.requests if request.arrival_ns > end_ns]
    if late:
        raise InvariantError(f"[EP-3] arrivals within the run violated: domains {late[:5]} arrive after {end_ns} ns")
    driver = Driver(plan, workload, policy, sink)
    now_ns, steps = 0, 0
    while now_ns < end_ns:
        until_ns = driver.step_end(now_ns)
        commands = driver.commands(now_ns, until_ns)
        driver.take(pool.advance(until_ns, commands, driver.ahead(until_ns)), until_ns)
        now_ns = until_ns
        steps += 1
        progress.update(now_ns, driver.ledger.running, driver.ledger.fates)
    driver.audit()
    check_attempts(workload.requests, driver.ledger.rows)
    row = run_row(plan, workload, driver.ledger, driver.peaks, pool, time.monotonic() - started_s)
    sink.write("runs", [row])
    return RunOutcome(row, steps)


def _until(now_ns: int, due_ns: int, epoch_ns: int, end_ns: int, steps: int) -> int:
    """The end of the next step: of the epoch that holds `due_ns` if that is the present one, else of the empty ones
    before it [EP-1], no longer than one of so many equal parts of the run.
    """
    boundary_ns = (due_ns - 1) // epoch_ns * epoch_ns
    if boundary_ns <= now_ns:
        return min(now_ns // epoch_ns * epoch_ns + epoch_ns, end_ns)
    most_ns = max(max(MOST_MERGED_NS, end_ns // steps) // epoch_ns * epoch_ns, epoch_ns)
    return min(boundary_ns, now_ns + most_ns)


class Driver:
    """The cluster's side of a run: it does what is due, and takes what hosts report."""

    def __init__(self, plan: Plan, workload: Workload, policy: Policy, sink: Sink) -> None:
        self.agenda = Agenda()
        self.ledger = Ledger()
        self.peaks = SamplePeaks(plan.warmup_ns)
        self._plan = plan
        self._steps = count_steps(plan, workload)
        self._sink = sink
        self._scheduler = Scheduler(plan, policy)
        self._looks = self._scheduler.looks(workload.requests, plan.epoch_ns)
        self._troubled = (
            bool(plan.failures)
            or plan.migration.rebalance_s is not None
            or any(not isinstance(order.item, Operation) for order in plan.orders)
        )
        self._begin_ns = 0  # of the step at hand
        self._waiting: list[MachineRequest] = []  # have arrived in it, and are to be placed together
        self._leaving: list[tuple[int, int]] = []  # (at, domain_id), after these
        self._stopped: list[int] = []  # domain_ids of those that are told to end in it, whatever they do just then
        self._where = Whereabouts({request.domain_id: request for request in workload.requests})
        self._out = Outbox(plan, sink)
        self._failover = Failover(plan, self._scheduler, self._where, self._out)
        self._moves = Moves(plan, self._scheduler, self.agenda, self._where, self._out, self._failover)
        self._rescues: set[int] = set()  # instants at which they are due
        for request in sorted(workload.requests, key=lambda request: (request.arrival_ns, request.domain_id)):
            self.agenda.add(max(1, request.arrival_ns), Arrival(request))
        for order in (*plan.failures, *plan.orders):
            if order.at_ns <= plan.duration_ns:
                self.agenda.add(order.at_ns, order.item)
        if plan.warmup_ns:
            self.agenda.add(plan.warmup_ns, Warmed())

    def step_end(self, now_ns: int) -> int:
        """The end of the step that begins at `now_ns`.

        Where something may come of the next epoch that nobody knows yet, it is a step of its own [EP-1]: a host may
        report of a domain on its way; and where views have an age, starts after a failure look at reports of instants
        that are not known beforehand [EP-6].
        """
        awaits = self._scheduler.expects or (self._troubled and self._plan.view_age_ns > 0)
        end_ns = self._plan.duration_ns
        due_ns = now_ns + 1 if awaits else min(self.agenda.due_ns, end_ns)
        until_ns = _until(now_ns, due_ns, self._plan.epoch_ns, end_ns, self._steps)
        at = bisect_right(self._looks, now_ns)  # the next instant of which reports will be wanted [EP-6]
        return min(until_ns, self._looks[at]) if at < len(self._looks) else until_ns

    def ahead(self, now_ns: int) -> Ahead | None:
        """What is known of the step that begins at `now_ns`, of which all that is due up to then is done [EP-7].

        Only where hosts fail and domains move do reports bring anything up that is due; and at the end all are told.
        """
        if self._troubled or now_ns == self._plan.duration_ns:
            return None
        until_ns = self.step_end(now_ns)
        if until_ns == self._plan.duration_ns:
            return None
        return of_next(self.agenda.peek(until_ns), until_ns, self._where.host_of, self._plan.need_pages)

    def audit(self) -> None:
        """Check what is known of the hosts, at the end."""
        self._scheduler.audit()

    def commands(self, begin_ns: int, until_ns: int) -> CommandsByHost:
        """Do all that is due after `begin_ns` and up to `until_ns`; what hosts are to do, each in order of time."""
        self._begin_ns = begin_ns
        while self.agenda.due_ns <= until_ns:
            for at_ns, item in self.agenda.until(until_ns):
                self._do(at_ns, item)
            self._settle()  # which may find that somebody leaves again by then
        self._scheduler.place((), begin_ns)
        if until_ns == self._plan.duration_ns:
            self._failover.end(until_ns)
            self.ledger.failures_tolerated_min = self._failover.tolerated_min
            self.ledger.overcommitted_ns = self._failover.overcommitted_ns
            for lost in self._where.lost.values():
                self._give_up(lost, until_ns)
            self._out.command_all(Close(until_ns))
        return self._out.take()

    def take(self, reports: Sequence[HostReport], until_ns: int) -> None:
        """Fold one step's reports, which come in host_id order [CL-1]."""
        self.ledger.running = sum(report.view.domains for report in reports)
        for domain_id in self._stopped:
            self._scheduler.ends(domain_id)
        self._where.ended.update(self._stopped)
        self._stopped.clear()
        self._scheduler.report(until_ns, reports)
        for report in reports:
            self.ledger.end(report.domains)
            for table, rows in (("domains", report.domains), ("events", report.events)):
                if rows:
                    self._sink.write(table, rows)
            for one in report.installed:
                self._where.reboots(one)
            for row in report.domains:
                if row.fate == "host_failed":
                    self._mourn(row, until_ns)
                if not self._plan.is_built_again(row):
                    self._where.ended.add(row.domain_id)
                if row.fate not in ("running", "migrated"):
                    self._moves.stays(row.domain_id, until_ns)
            for domain_id in report.stayed:
                self._moves.had_to_stay(domain_id, until_ns)
            for wanted in report.wanted:
                self.agenda.add(until_ns + 1, Asking(wanted), wanted.request.domain_id)
            for answer in report.answers:
                self.agenda.add(until_ns + 1, Answered(answer), answer.domain_id)
            for state in report.departed:
                domain_id, departure_ns = state.request.domain_id, state.request.departure_ns
                self._where.landings[domain_id] = until_ns + 1
                self.agenda.add(until_ns + 1, Landing(state), domain_id)
                if departure_ns is not None and departure_ns <= until_ns:  # its host was told, but it had gone
                    self.agenda.add(until_ns + 2, Departure(domain_id), domain_id)
            if report.host is not None:
                self.ledger.hosts.append(report.host)
                self._sink.write("hosts", [report.host])
        machines = [report.machine_samples for report in reports if report.machine_samples]
        if machines:
            self._sink.write("machine_samples", MachineSampleBlock.by_instant(machines))
        blocks = [report.samples for report in reports if report.samples]
        if blocks:
            cluster = add_hosts(blocks)
            self.peaks.take(cluster)
            if self._plan.write_samples:
                self._sink.write("samples", SampleBlock.by_instant([cluster, *blocks]))

    # -- what is due -------------------------------------------------------------------------------------------------

    def _do(self, at_ns: int, item: Item) -> None:
        if isinstance(item, Arrival):
            self._waiting.append(item.request)
        elif isinstance(item, Departure):
            self._leaving.append((at_ns, item.domain_id))
        elif isinstance(item, Operation):
            host_id = self._where.host_of.get(item.order.domain_id)
            if host_id is not None:  # else no host took it
                self._out.command(host_id, item.order)
                if isinstance(item.order, StopDomain) and self._where.is_on(item.order.domain_id, host_id):
                    self._stopped.append(item.order.domain_id)
        else:
            self._settle()  # before it changes where domains may go
            self._change(at_ns, item)
            self._failover.look(at_ns)

    def _change(self, at_ns: int, item: Item) -> None:
        if isinstance(item, Failure):
            self._fail(at_ns, item.host_id)
        elif isinstance(item, Recovery):
            self._recover(at_ns, item)
        elif isinstance(item, Rescue):
            self._rescue(at_ns)
        elif isinstance(item, CalledOff):
            self._out.command(item.host_id, DropRoom(at_ns, item.domain_id))
        elif isinstance(item, Answered):
            self._moves.answered(at_ns, item.answer)
        elif isinstance(item, Asking):
            self._moves.ask_room(at_ns, item.wanted)
        elif isinstance(item, Landing):
            self._land(at_ns, item.state)
        elif isinstance(item, Evacuation):
            self._moves.evacuate(at_ns, item.host_id)
        elif isinstance(item, Migration):
            self._moves.migrate(at_ns, item)
        elif isinstance(item, Enabling):
            self._moves.enable(at_ns, item.host_id)
        elif isinstance(item, Rebalancing):
            self._moves.rebalance(at_ns)
        elif isinstance(item, Warmed):
            self._out.command_all(EndWarmup(at_ns))

    def _settle(self) -> None:
        """Place what has arrived, all together, and let those leave that are to."""
        arrived, self._waiting = self._waiting, []
        if arrived:
            outcomes = self._scheduler.place(arrived, self._begin_ns, self._failover.guard())
            for request, outcome in zip(arrived, outcomes, strict=True):
                self._arrive(request, outcome)
            self._failover.look(max(1, arrived[-1].arrival_ns))
        leaving, self._leaving = self._leaving, []
        for at_ns, domain_id in leaving:
            self._depart(at_ns, domain_id)
        if leaving:
            self._failover.look(leaving[-1][0])

    def _arrive(self, request: MachineRequest, outcome: Outcome) -> None:
        """Start a request where it was placed, or write its rejection; and which hosts refused it."""
        at_ns = max(1, request.arrival_ns)
        if not self._accept(at_ns, request, outcome, "place"):
            return
        if request.departure_ns is not None and request.departure_ns <= self._plan.duration_ns:
            self.agenda.add(max(request.departure_ns, at_ns + 1), Departure(request.domain_id), request.domain_id)

    def _accept(self, at_ns: int, request: MachineRequest, outcome: Outcome, kind: EventKind) -> bool:
        """Whether a host took it."""
        answer, refused = outcome
        self._count_races(at_ns, request, refused)
        if isinstance(answer, Rejected):
            self._reject(at_ns, request, answer)
            return False
        self._start(at_ns, request, answer, kind)
        return True

    def _count_races(self, at_ns: int, request: MachineRequest, refused: Sequence[int]) -> None:
        self.ledger.lost_races += len(refused)
        for host_id in refused:
            self._out.event(at_ns, host_id, request, "lost_race", "it had less than was known of it")

    def _start(self, at_ns: int, request: MachineRequest, host_id: int, kind: EventKind) -> None:
        self._where.host_of[request.domain_id] = host_id
        self._where.ended.discard(request.domain_id)
        self._out.command(host_id, StartDomain(at_ns, request))
        text = f"{request.name}: {pages_to_mib(request.memory_pages)} of {pages_to_mib(request.maxmem_pages)} MiB"
        self._out.event(at_ns, host_id, request, kind, text)

    def _reject(self, at_ns: int, request: MachineRequest, answer: Rejected) -> None:
        self.ledger.end([rejection(request, at_ns, answer.cause)])
        self._sink.write("domains", self.ledger.rows[-1:])
        self._out.event(at_ns, NO_HOST, request, "reject", answer.reason)

    def _depart(self, at_ns: int, domain_id: int) -> None:
        lost = self._where.lost.pop(domain_id, None)
        if lost is not None:
            self._give_up(lost, at_ns)
            return
        if domain_id in self._where.landings:  # it is between two hosts, and leaves when it has landed
            self.agenda.add(self._where.landings[domain_id] + 1, Departure(domain_id), domain_id)
            return
        # Also to a domain that has crashed: it may have been, or be about to be, built again.
        if domain_id in self._where.host_of:
            self._out.command(self._where.host_of[domain_id], StopDomain(at_ns, domain_id))
            self._stopped.append(domain_id)
        self._scheduler.leaves(domain_id, at_ns)

    # -- hosts that fail, and what becomes of their domains ----------------------------------------------------------

    def _fail(self, at_ns: int, host_id: int) -> None:
        if host_id in self._where.down:
            return
        self._where.down[host_id] = at_ns
        self.ledger.host_failures += at_ns >= self._plan.warmup_ns
        self._scheduler.close(host_id)
        self._out.command(host_id, FailHost(at_ns))
        self._moves.receiver_failed(at_ns, host_id)
        self._out.host_event(at_ns, host_id, "host_failed", "the host is down")
        repair_s = self._plan.failure.repair_s
        if repair_s is not None:
            self.agenda.add(at_ns + s_to_ns(repair_s), Recovery(host_id, at_ns))

    def _recover(self, at_ns: int, item: Recovery) -> None:
        failed_ns = self._where.down.get(item.host_id)
        if failed_ns is None or item.failed_ns not in (None, failed_ns):
            return
        del self._where.down[item.host_id]
        self._moves.recovered(item.host_id)
        self._scheduler.open(item.host_id)
        text = f"back after {(at_ns - failed_ns) / NS_PER_S:,.0f} s, empty"
        self._out.host_event(at_ns, item.host_id, "host_recovered", text)

    def _mourn(self, row: DomainRow, until_ns: int) -> None:
        """A domain was lost with its host: unless it was about to leave, or nobody wants it back, it is to be started
        again, not before this epoch is over: until then nobody knows.
        """
        failure, seed = self._plan.failure, self._plan.hosts.seed
        request = self._where.requests[row.domain_id]
        priority = priority_of(failure, seed, row.domain_id)
        due_ns = max(row.end_ns + s_to_ns(failure.restart_delay_s), until_ns + 1)
        gone = request.departure_ns is not None and request.departure_ns <= due_ns
        if not failure.ha or priority == "unprotected" or gone:
            return
        again = replace(request, attempt=row.attempt + 1, origin="ha", arrival_ns=due_ns)
        self._where.lost[row.domain_id] = Lost(again, self._scheduler.ask(again), priority, due_ns)
        self._rescue_at(due_ns)

    def _rescue(self, at_ns: int) -> None:
        """Start again whoever is due and has a place; the others are tried again, or given up."""
        self._rescues.discard(at_ns)
        due = [lost for lost in self._where.lost.values() if lost.due_ns <= at_ns]
        for lost, planned in restart_order(due, self._scheduler.open_views()):
            request = lost.request
            if planned is not None and self._scheduler.place_on(planned, request):
                outcome = Outcome(planned)
            else:
                # Whom the plan is for, no plan keeps from starting.
                guard = None if lost.priority == "restart" else self._failover.guard()
                (outcome,) = self._scheduler.place([request], self._begin_ns, guard)
            if isinstance(outcome.answer, Rejected):
                self._wait(at_ns, lost, outcome)
            else:
                del self._where.lost[request.domain_id]
                self._accept(at_ns, request, outcome, "ha_restart")

    def _rescue_at(self, at_ns: int) -> None:
        if at_ns not in self._rescues:
            self._rescues.add(at_ns)
            self.agenda.add(at_ns, Rescue())

    def _wait(self, at_ns: int, lost: Lost, outcome: Outcome) -> None:
        retry_s, answer = self._plan.failure.retry_s, outcome.answer
        assert isinstance(answer, Rejected)
        if retry_s is None:
            del self._where.lost[lost.request.domain_id]
            self._accept(at_ns, lost.request, outcome, "ha_restart")
            return
        self._count_races(at_ns, lost.request, outcome.refused)
        if not lost.tried:
            self._out.event(at_ns, NO_HOST, lost.request, "ha_waits", answer.reason)
        lost.tried = True
        lost.due_ns = at_ns + s_to_ns(retry_s)
        self._rescue_at(lost.due_ns)

    def _give_up(self, lost: Lost, at_ns: int) -> None:
        """Nobody waits for it any more; an attempt that had no try yet has no row."""
        if lost.tried:
            self._reject(at_ns, lost.request, Rejected("there was no room for it while it was wanted"))

    # -- migration ---------------------------------------------------------------------------------------------------

    def _land(self, at_ns: int, state: GuestState) -> None:
        """Let a domain go on where there is room kept for it; if that host has failed meanwhile, on any other."""
        domain_id = state.request.domain_id
        del self._where.landings[domain_id]
        room_on = self._moves.room_of(domain_id)
        host_id = self._scheduler.expected_on(domain_id)
        assert host_id is not None
        here = replace(state.request, attempt=state.request.attempt + 1, origin="migration", arrival_ns=at_ns)
        if self._scheduler.is_open(host_id):
            self._scheduler.land(here)
        else:
            self._scheduler.give_up(domain_id)
            self._out.command(room_on, DropRoom(at_ns, domain_id))
            (outcome,) = self._scheduler.place([here], self._begin_ns)
            self._count_races(at_ns, here, outcome.refused)
            if isinstance(outcome.answer, Rejected):
                self._reject(at_ns, here, outcome.answer)
                return
            host_id = outcome.answer
        self._where.host_of[domain_id] = host_id
        self._where.ended.discard(domain_id)
        self._out.command(host_id, MigrateIn(at_ns, state))

    # -- what goes out -----------------------------------------------------------------------------------------------
