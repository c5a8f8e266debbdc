"""One run: the epochs in which hosts and scheduler meet, from the first arrival to the end.

What        `run` turns a workload into rows. Each epoch: what arrives is placed on the hosts' last views, the commands
            go out by host, the pool advances, the reports are folded.
Units       Pages of 4 KiB; simulated time in ns.
Symbols     U usable_pages of all hosts   epoch k is the time (k epoch_ns, (k + 1) epoch_ns]
Invariants  [EP-1] epochs without arrival or departure are merged, which changes no row: a host is a function of its
                   commands, and a scheduler looks at views only in an epoch with arrivals, whose beginning is never
                   merged away.
            [EP-2] a placement keeps committed + need_memory <= U and maxmem <= U of its host, counting what the same
                   epoch placed before (`scheduler.py`).
            [EP-3] every request has a `domains` row for each of its attempts, which count from 1 without gaps; only a
                   crash with `host.on_crash=restart` and a reboot with `host.on_reboot=restart` have a next one.
            [EP-4] commit_ratio <= 1.
Departs     A scheduler counts its own placements of the running epoch at once, though no host has reported them: real
            ones do too. Time begins just after 0: what arrives at 0 is started at 1 ns.
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from podcluster.cluster.packing import packing
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import Pool
from podcluster.cluster.progress import Progress
from podcluster.cluster.ratios import SamplePeaks, add_hosts, by_instant, peak_of, placed_peak, put_before
from podcluster.cluster.scheduler import Outcome, Scheduler
from podcluster.errors import InvariantError
from podcluster.placement.policy import Policy
from podcluster.records import (
    FATES,
    NO_HOST,
    Close,
    Command,
    DomainRow,
    EventRow,
    HostReport,
    HostRow,
    MachineRequest,
    Rejected,
    RunRow,
    Sink,
    StartDomain,
    StopDomain,
    Workload,
)
from podcluster.units import NS_PER_S, pages_to_mib

MOST_MERGED_NS = 3600 * NS_PER_S  # so that progress moves and no message takes long; in long runs,
MERGED_SHARE = 100  # a hundredth of the run


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run leaves besides its tables."""

    row: RunRow
    steps: int


class Ledger:
    """Everything the driver remembers of a run: what runs where, and what has ended how."""

    def __init__(self) -> None:
        self.host_of: dict[int, int] = {}  # domain_id -> host_id of those that a host took
        self.running = 0  # domains alive at the end of the last step
        self.rows: list[DomainRow] = []
        self.hosts: list[HostRow] = []
        self.fates: Counter[str] = Counter()
        self.lost_races = 0
        self.departures: list[tuple[int, int]] = []  # heap of (departure_ns, domain_id)

    def end(self, rows: Iterable[DomainRow]) -> None:
        """Take the rows of domains that ended."""
        for row in rows:
            self.fates[row.fate] += 1
            self.rows.append(row)


def run(plan: Plan, workload: Workload, policy: Policy, pool: Pool, sink: Sink, progress: Progress) -> RunOutcome:
    """Simulate one run and write its tables, `runs` included."""
    started_s = time.monotonic()
    end_ns = plan.duration_ns
    arrivals = sorted(workload.requests, key=lambda request: (request.arrival_ns, request.domain_id))
    late = [request.domain_id for request in arrivals if request.arrival_ns > end_ns]
    if late:
        raise InvariantError(f"[EP-3] arrivals within the run violated: domains {late[:5]} arrive after {end_ns} ns")
    ledger = Ledger()
    peaks = SamplePeaks()
    scheduler = Scheduler(plan, policy)
    looks = scheduler.looks(arrivals, plan.epoch_ns)
    orders = [order for order in plan.orders if order.at_ns <= end_ns]
    now_ns, next_arrival, next_order, steps = 0, 0, 0, 0
    while now_ns < end_ns:
        due_ns = _due(arrivals, next_arrival, ledger, end_ns)
        if next_order < len(orders):
            due_ns = min(due_ns, orders[next_order].at_ns)
        until_ns = _until(now_ns, due_ns, plan.epoch_ns, end_ns)
        look = bisect_right(looks, now_ns)
        if look < len(looks):
            until_ns = min(until_ns, looks[look])  # [EP-6]
        commands: dict[int, list[Command]] = {}
        first = next_arrival
        while next_arrival < len(arrivals) and max(1, arrivals[next_arrival].arrival_ns) <= until_ns:
            next_arrival += 1
        requests = arrivals[first:next_arrival]
        for request, outcome in zip(requests, scheduler.place(requests, now_ns), strict=True):
            _start(request, outcome, plan, ledger, commands, sink)
        while ledger.departures and ledger.departures[0][0] <= until_ns:
            at_ns, domain_id = heapq.heappop(ledger.departures)
            # Also to a domain that has crashed: it may have been, or be about to be, built again.
            commands.setdefault(ledger.host_of[domain_id], []).append(StopDomain(at_ns, domain_id))
            scheduler.leaves(domain_id, at_ns)
        while next_order < len(orders) and orders[next_order].at_ns <= until_ns:
            order = orders[next_order]
            if order.domain_id in ledger.host_of:  # else no host took it
                commands.setdefault(ledger.host_of[order.domain_id], []).append(order)
            next_order += 1
        if until_ns == end_ns:
            for spec in plan.specs:
                commands.setdefault(spec.host_id, []).append(Close(end_ns))
        ordered = {host_id: sorted(commands[host_id], key=_command_order) for host_id in sorted(commands)}
        reports = pool.advance(until_ns, ordered)
        scheduler.report(until_ns, reports)
        _take(reports, plan, ledger, peaks, sink)
        now_ns = until_ns
        steps += 1
        progress.update(now_ns, ledger.running, ledger.fates)
    scheduler.audit()
    _check_attempts(arrivals, ledger.rows)
    row = run_row(plan, workload, ledger, peaks, pool, time.monotonic() - started_s)
    sink.write("runs", [row])
    return RunOutcome(row, steps)


def _check_attempts(arrivals: Sequence[MachineRequest], rows: Sequence[DomainRow]) -> None:
    """Every request has come to its end, and every attempt is accounted for [EP-3]."""
    last = Counter[int]()
    for domain_id, attempt in sorted((row.domain_id, row.attempt) for row in rows):
        last[domain_id] += 1
        if attempt != last[domain_id]:
            raise InvariantError(f"[EP-3] attempts without gaps violated: domain {domain_id}, attempt {attempt}")
    missing = [request.domain_id for request in arrivals if request.domain_id not in last]
    if missing or len(last) != len(arrivals):
        raise InvariantError(
            f"[EP-3] a row for every request violated: {len(arrivals)} requests, {len(last)} domains in rows, none of "
            f"{missing[:5]}"
        )


def _due(arrivals: Sequence[MachineRequest], next_arrival: int, ledger: Ledger, end_ns: int) -> int:
    """When something must be done next: an arrival, a departure, the end."""
    due_ns = end_ns
    if next_arrival < len(arrivals):
        due_ns = min(due_ns, max(1, arrivals[next_arrival].arrival_ns))
    if ledger.departures:
        due_ns = min(due_ns, ledger.departures[0][0])
    return due_ns


def _until(now_ns: int, due_ns: int, epoch_ns: int, end_ns: int) -> int:
    """The end of the next step: of the epoch that holds `due_ns` if that is the present one, else of the empty ones
    before it [EP-1].
    """
    boundary_ns = (due_ns - 1) // epoch_ns * epoch_ns
    if boundary_ns <= now_ns:
        return min(now_ns // epoch_ns * epoch_ns + epoch_ns, end_ns)
    most_ns = max(max(MOST_MERGED_NS, end_ns // MERGED_SHARE) // epoch_ns * epoch_ns, epoch_ns)
    return min(boundary_ns, now_ns + most_ns)


def _command_order(command: Command) -> tuple[int, int]:
    """Time, then stops before starts and Close last; the sort is stable, so arrival order breaks the rest."""
    rank = {StopDomain: 0, StartDomain: 1, Close: 3}.get(type(command), 2)
    return command.at_ns, rank


def _start(
    request: MachineRequest,
    outcome: Outcome,
    plan: Plan,
    ledger: Ledger,
    commands: dict[int, list[Command]],
    sink: Sink,
) -> None:
    """Command the start of one request, or write its rejection; and which hosts refused it."""
    at_ns = max(1, request.arrival_ns)
    answer, refused = outcome
    ledger.lost_races += len(refused)
    who = request.domain_id, request.attempt
    if refused:
        text = "it had less than was known of it"
        sink.write("events", [EventRow(at_ns, host_id, *who, "lost_race", text) for host_id in refused])
    if isinstance(answer, Rejected):
        ledger.end([rejection(request, at_ns, answer.cause)])
        sink.write("domains", ledger.rows[-1:])
        sink.write("events", [EventRow(at_ns, NO_HOST, *who, "reject", answer.reason)])
        return
    ledger.host_of[request.domain_id] = answer
    commands.setdefault(answer, []).append(StartDomain(at_ns, request))
    if request.departure_ns is not None and request.departure_ns <= plan.duration_ns:
        heapq.heappush(ledger.departures, (max(request.departure_ns, at_ns + 1), request.domain_id))
    text = f"{request.name}: {pages_to_mib(request.memory_pages)} of {pages_to_mib(request.maxmem_pages)} MiB"
    sink.write("events", [EventRow(at_ns, answer, *who, "place", text)])


def rejection(request: MachineRequest, at_ns: int, cause: str) -> DomainRow:
    """The row of a request that no host took: it never had a page."""
    return DomainRow(
        domain_id=request.domain_id, attempt=request.attempt, name=request.name, host_id=NO_HOST,
        os_class=request.os_class, vcpus=request.vcpus, maxmem_pages=request.maxmem_pages,
        memory_pages=request.memory_pages, start_pages=0, arrival_ns=request.arrival_ns, boot_start_ns=None,
        boot_done_ns=None, boot_delay_ns=None, end_ns=at_ns, fate="rejected", cause=cause, oom_line="", tot_pages=0,
        entry_count=0,
        cache_count=0, nonzero_pages_peak=0, margin_pages=0, working_pages_peak=0, ballooned_pages=0, balloon_gave_up=0,
        populated_4k=0, populated_2m=0, reclaimed_4k=0, reclaimed_2m=0, splintered_2m=0, sweeps=0, sweep_looks=0,
        hypervisor_ns=0, debt_ns=0, swap_ns=0, swap_in_pages=0, swap_out_pages=0, swapped_pages_peak=0, oom_kills=0,
        slowdown=1.0,
    )  # fmt: skip


def _take(reports: Sequence[HostReport], plan: Plan, ledger: Ledger, peaks: SamplePeaks, sink: Sink) -> None:
    """Fold one step's reports, which come in host_id order [CL-1]."""
    ledger.running = sum(report.view.domains for report in reports)
    for report in reports:
        ledger.end(report.domains)
        for table, rows in (("domains", report.domains), ("events", report.events)):
            if rows:
                sink.write(table, rows)
        if report.host is not None:
            ledger.hosts.append(report.host)
            sink.write("hosts", [report.host])
    blocks = [report.samples for report in reports if report.samples]
    if blocks:
        samples = by_instant(blocks)
        cluster = add_hosts(samples)
        peaks.take(cluster)
        if plan.write_samples:
            sink.write("samples", put_before(cluster, samples))


def run_row(plan: Plan, workload: Workload, ledger: Ledger, peaks: SamplePeaks, pool: Pool, wall_s: float) -> RunRow:
    """The `runs` row: ratios from the hosts' means and the samples' peaks, counts from the domains."""
    usable_pages = sum(spec.usable_pages for spec in plan.specs)
    booted = [row for row in ledger.rows if row.boot_start_ns is not None]
    first = [row for row in booted if row.attempt == 1]
    departures_ns = {request.domain_id: request.departure_ns for request in workload.requests}
    delays = [row.boot_delay_ns for row in booted if row.boot_delay_ns is not None]
    domain_ns = sum(row.end_ns - row.boot_start_ns for row in booted if row.boot_start_ns is not None)
    swap_ns = sum(row.swap_ns for row in booted)
    packed = packing(booted, plan)
    fates: Mapping[str, int] = {f"fate_{fate}": ledger.fates[fate] for fate in FATES}

    def mean_ratio(name: str) -> float:
        return float(sum(getattr(host, name) for host in ledger.hosts)) / usable_pages

    def peak_ratio(name: str, sampled_pages: int) -> float:
        # One host knows its own peak; of several, the sum is known on the grid, and no peak is below its mean.
        if len(ledger.hosts) == 1:
            return float(getattr(ledger.hosts[0], f"{name}_peak")) / usable_pages
        return max(sampled_pages / usable_pages, mean_ratio(f"{name}_mean"))

    owned_peak = peaks.owned_pages
    if owned_peak > usable_pages:
        raise InvariantError(
            f"[EP-4] commit_ratio <= 1 violated: {owned_peak} pages owned, U {usable_pages} (seed {plan.hosts.seed})"
        )
    return RunRow(
        hosts=len(plan.specs),
        ram_pages=sum(spec.ram_pages for spec in plan.specs),
        usable_pages=usable_pages,
        duration_ns=plan.duration_ns,
        resample=workload.resample,
        conditional_on=workload.conditional_on,
        machines_left_out=sum(workload.left_out.values()),
        requests=len(workload.requests),
        restarts=sum(row.attempt > 1 for row in ledger.rows),
        boots_started=len(booted),
        boots_done=sum(row.boot_done_ns is not None for row in booted),
        static_ratio_mean=mean_ratio("promised_pages_mean"),
        static_ratio_max=peak_of(booted, "maxmem_pages") / usable_pages,
        placed_ratio=placed_peak(first, departures_ns, plan.duration_ns) / usable_pages,
        target_ratio_mean=mean_ratio("target_pages_mean"),
        target_ratio_max=max(peak_of(booted, "memory_pages"), peaks.target_pages) / usable_pages,
        commit_ratio_mean=mean_ratio("owned_pages_mean"),
        commit_ratio_max=peak_ratio("owned_pages", owned_peak),
        demand_ratio_mean=mean_ratio("demanded_pages_mean"),
        demand_ratio_max=peak_ratio("demanded_pages", peaks.demanded_pages),
        hosts_used_max=packed.hosts_used_max,
        hosts_bound=packed.hosts_bound,
        packing_density_mean=packed.density_mean,
        empty_hosts_mean=packed.empty_mean,
        stranded_mean=packed.stranded_mean,
        lost_races=ledger.lost_races,
        domain_s=domain_ns / NS_PER_S,
        debt_s=sum(row.debt_ns for row in booted) / NS_PER_S,
        boot_delay_ns_mean=sum(delays) / len(delays) if delays else None,
        swap_ns=swap_ns,
        swap_share=swap_ns / domain_ns if domain_ns else 0.0,
        swapped_domains=sum(row.swap_ns > 0 for row in booted),
        oom_kills=sum(row.oom_kills for row in booted),
        balloon_gave_up=sum(row.balloon_gave_up for row in booted),
        target_changes=sum(host.target_changes for host in ledger.hosts),
        moved_pages=sum(host.moved_pages for host in ledger.hosts),
        uncooperative=sum(host.uncooperative for host in ledger.hosts),
        starts_waited_ns=sum(host.starts_waited_ns for host in ledger.hosts),
        sweeps=sum(row.sweeps for row in booted),
        margin_pages_min=min((row.margin_pages for row in booted if row.fate != "build_failed"), default=None),
        wall_s=wall_s,
        engine_kind=pool.kind,
        engine_actors=pool.actors,
        **fates,
    )
