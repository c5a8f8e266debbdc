"""What the driver remembers of a run, and the `runs` row that it makes of it at the end.

What        `Ledger` takes rows as domains end, and hosts at the end of the run; `run_row` sums them up after the
            warm-up; `rejection` is the row of a request that no host took.
Units       Pages of 4 KiB; simulated time in ns.
Symbols     U usable_pages of all hosts
Invariants  [EP-3] every request has a `domains` row for each of its attempts, which count from 1 without gaps.
            [EP-4] commit_ratio <= 1.
            [EP-5] a boot is counted where it was asked for after the warm-up, with all that became of it on any host;
                   time, and deaths per time, where they fall after the warm-up, whoever they are of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from podcluster.cluster.packing import packing
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import Pool
from podcluster.cluster.ratios import SamplePeaks, peak_of, placed_peak
from podcluster.errors import InvariantError
from podcluster.records.fates import FATES
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.rows import NO_HOST, DomainRow, HostRow
from podcluster.records.summaries import RunRow
from podcluster.units import NS_PER_S


class Ledger:
    """Everything that has ended, and how."""

    def __init__(self) -> None:
        self.running = 0  # domains alive at the end of the last step
        self.rows: list[DomainRow] = []
        self.hosts: list[HostRow] = []
        self.fates: Counter[str] = Counter()
        self.attempts: dict[int, int] = {}  # domain_id -> latest attempt of which there is a row
        self.host_failures = 0
        self.lost_races = 0
        self.failures_tolerated_min: int | None = None
        self.overcommitted_ns: int | None = None

    def end(self, rows: Iterable[DomainRow]) -> None:
        """Take the rows of domains that ended."""
        for row in rows:
            self.fates[row.fate] += 1
            self.rows.append(row)
            self.attempts[row.domain_id] = max(row.attempt, self.attempts.get(row.domain_id, 0))


def check_attempts(arrivals: Sequence[MachineRequest], rows: Sequence[DomainRow]) -> None:
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


def rejection(request: MachineRequest, at_ns: int, cause: str) -> DomainRow:
    """The row of a request that no host took: it never had a page."""
    return DomainRow(
        domain_id=request.domain_id, attempt=request.attempt, origin=request.origin, name=request.name, host_id=NO_HOST,
        os_class=request.os_class, vcpus=request.vcpus, maxmem_pages=request.maxmem_pages,
        memory_pages=request.memory_pages, start_pages=0, arrival_ns=request.arrival_ns, boot_start_ns=None,
        boot_done_ns=None, boot_delay_ns=None, end_ns=at_ns, fate="rejected", cause=cause, oom_line="", tot_pages=0,
        entry_count=0, cache_count=0, nonzero_pages_peak=0, margin_pages=0, working_pages_peak=0, ballooned_pages=0,
        balloon_gave_up=0, moved_pages=0, populated_4k=0, populated_2m=0, reclaimed_4k=0, reclaimed_2m=0,
        splintered_2m=0, sweeps=0, sweep_looks=0, hypervisor_ns=0, debt_ns=0, swap_ns=0, swap_in_pages=0,
        swap_out_pages=0, swapped_pages_peak=0, oom_kills=0, slowdown=1.0,
    )  # fmt: skip


def counted_rows(rows: Sequence[DomainRow], warmup_ns: int) -> list[DomainRow]:
    """The rows of boots that were asked for after the warm-up, and of the same domains on other hosts [EP-5]."""
    if not warmup_ns:
        return list(rows)
    counted: dict[tuple[int, int], bool] = {}
    for row in sorted(rows, key=lambda row: (row.domain_id, row.attempt)):
        before = counted.get((row.domain_id, row.attempt - 1), False)
        counted[row.domain_id, row.attempt] = before if row.origin == "migration" else row.arrival_ns >= warmup_ns
    return [row for row in rows if counted[row.domain_id, row.attempt]]


def run_row(plan: Plan, workload: Workload, ledger: Ledger, peaks: SamplePeaks, pool: Pool, wall_s: float) -> RunRow:
    """The `runs` row: ratios from the hosts' means and the samples' peaks, counts from the domains."""
    usable_pages = sum(spec.usable_pages for spec in plan.specs)
    warmup_ns = plan.warmup_ns
    counted = counted_rows(ledger.rows, warmup_ns)
    booted = [row for row in counted if row.boot_start_ns is not None]
    lived = [row for row in ledger.rows if row.boot_start_ns is not None and row.end_ns >= warmup_ns]
    first = [row for row in lived if row.attempt == 1]
    origins = Counter(row.origin for row in counted)
    departures_ns = {request.domain_id: request.departure_ns for request in workload.requests}
    delays = [row.boot_delay_ns for row in booted if row.boot_delay_ns is not None]
    domain_ns = sum(row.end_ns - row.boot_start_ns for row in booted if row.boot_start_ns is not None)
    swap_ns = sum(row.swap_ns for row in booted)
    packed = packing(lived, plan)
    ends = Counter(row.fate for row in counted)
    fates: Mapping[str, int] = {f"fate_{fate}": ends[fate] for fate in FATES}
    after_ns = sum(row.end_ns - max(row.boot_start_ns or 0, warmup_ns) for row in lived)

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
        warmup_ns=warmup_ns,
        resample=workload.resample,
        conditional_on=workload.conditional_on,
        machines_left_out=sum(workload.left_out.values()),
        requests=sum(request.arrival_ns >= warmup_ns for request in workload.requests),
        restarts=origins["restart"],
        host_failures=ledger.host_failures,
        ha_restarts=origins["ha"],
        failures_tolerated_min=ledger.failures_tolerated_min,
        overcommitted_ns=ledger.overcommitted_ns,
        migrations=origins["migration"],
        boots_started=sum(row.origin != "migration" for row in booted),
        boots_done=sum(row.boot_done_ns is not None and row.origin != "migration" for row in booted),
        static_ratio_mean=mean_ratio("promised_pages_mean"),
        static_ratio_max=peak_of(lived, "maxmem_pages", warmup_ns) / usable_pages,
        placed_ratio=placed_peak(first, departures_ns, plan.duration_ns, warmup_ns) / usable_pages,
        target_ratio_mean=mean_ratio("target_pages_mean"),
        target_ratio_max=max(peak_of(lived, "memory_pages", warmup_ns), peaks.target_pages) / usable_pages,
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
        after_warmup_s=after_ns / NS_PER_S,
        crashes=sum(row.fate == "pod_oom" for row in lived),
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
