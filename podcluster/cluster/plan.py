"""What a run needs settled before it starts: how many hosts, what each machine costs, and where it is computed.

What        `make_plan` answers `cluster.hosts`; `choose_engine` answers `engine=auto`.
Units       Pages of 4 KiB, ns; estimates in seconds of one core.
Symbols     U usable_pages of one host   need need_memory (B3.1)   M maxmem
Invariants  [EP-2] no request is promised more than its host has: what needs more than U is rejected, never squeezed in.
Departs     The estimates steer; no result depends on them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final, NamedTuple

from podcluster.cluster.asks import Forecasts
from podcluster.cluster.failures import draw_failures
from podcluster.cluster.orders import Order, parse
from podcluster.cluster.pool import HostPlan
from podcluster.config import Config, EngineConfig, FailureConfig, MigrationConfig, PlacementConfig
from podcluster.errors import ConfigError
from podcluster.placement.hosts import Stay, auto_host_count
from podcluster.placement.policy import make_policy
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import Workload
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_GIB, gib_to_pages, pages_to_mib, s_to_ns

CRASHES: Final = frozenset({"pod_oom", "pod_oom_by_other", "guest_panic", "ept_violation"})
"""Fates after which `host.on_crash=restart` builds again."""

RATIO_SAMPLES_S: Final = 300  # the grid on which ratios find their peaks where no telemetry is written

# Wall time on one core of a 2020s server, measured with the default guest and a day of 300 machines: a boot touches
# most of a guest's memory, following a demand is little, controllers that look at guests every few seconds take most.
# (squeezed, which looks where something happens, by a month of 1,000.)
# Below INLINE_S a run is over before Ray and its actors, which load the kernels anew, would pay (some 5 s).
S_PER_GIB_BOOTED: Final = 0.001
S_PER_INSTANT: Final = 5e-8  # of a demand
S_PER_MACHINE_HOUR: Final = {
    "static": 0.0,
    "squeezed": 0.000002,
    "proxmox": 0.0004,
    "mom": 0.0007,
    "hyperv": 0.0008,
    "selfballoon": 0.004,
    "qmemman": 0.006,
    "esx": 0.009,
}
INLINE_S: Final = 10.0

# So that progress moves and no message takes long:
STEP_S: Final = 2.0  # of one core, about, for each step in which nothing is due, ...
MOST_STEPS: Final = 100  # ... but no more parts of a run than that,
STEP_ROWS: Final = 1 << 20  # and no more samples in one of them: they are all in memory before they are written


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, settled: `need_pages` by domain_id; `reserve_pages` of each host are never committed (D3.2); `restarts`,
    `reboots`: what crashes, or reboots, is built again.
    """

    specs: tuple[HostSpec, ...]
    hosts: HostPlan
    need_pages: Mapping[int, int]
    duration_ns: int
    epoch_ns: int
    write_samples: bool
    notes: tuple[str, ...]
    reserve_pages: int = 0
    orders: tuple[Order, ...] = ()  # the operator's, in order of time
    placement: PlacementConfig = field(default_factory=lambda: PlacementConfig(policy="first_fit"))
    restarts: bool = False
    reboots: bool = False
    failures: tuple[Order, ...] = ()  # of hosts, by themselves
    failure: FailureConfig = field(default_factory=FailureConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
    warmup_ns: int = 0

    @property
    def view_age_ns(self) -> int:
        """How old the reports are that a scheduler sees."""
        return s_to_ns(self.placement.view_age_s)

    def is_built_again(self, row: DomainRow) -> bool:
        """Whether a domain that ended so is built again by its host, as far as is known."""
        return (self.restarts and row.fate in CRASHES) or (self.reboots and row.cause == "rebooted")


def make_plan(config: Config, workload: Workload, seed: int) -> Plan:
    """Count the hosts and what each machine needs; `seed` is the replication's."""
    from podcluster.host.control import kept_free_pages
    from podcluster.host.domain import need_memory_pages

    need = {
        request.domain_id: need_memory_pages(request, config.host, config.guests[request.os_class])
        for request in workload.requests
    }
    reserve_pages = kept_free_pages(config.host, config.controller)
    notes: list[str] = []
    hosts = config.cluster.host_count
    if hosts is None:
        if reserve_pages >= config.usable_pages:
            raise ConfigError(
                f"cluster.host_mem_gib must leave room beside the reserve of {pages_to_mib(reserve_pages)} MiB with "
                f"cluster.hosts=auto, got {config.cluster.host_mem_gib} ({pages_to_mib(config.usable_pages)} MiB for "
                f"domains): raise it, or lower host.dom0_mib"
            )
        forecasts = Forecasts(config.placement, need, s_to_ns(config.study.duration_s), seed)
        count = auto_host_count(
            [Stay(forecasts.ask(one), one.arrival_ns, one.departure_ns) for one in workload.requests],
            config.usable_pages,
            make_policy(config.placement, seed),
            reserve_pages,
            cpus=config.cluster.host_cpus,
            strict=config.placement.strict_groups,
        )
        hosts = count.hosts
        noun, leave = ("host", "leaves") if hosts == 1 else ("hosts", "leave")
        why = f", which {leave} {count.unplaced} over" if count.unplaced else ""
        notes.append(f"cluster.hosts=auto took {hosts} {noun} of {config.cluster.host_mem_gib} GiB{why}")
    sizes = zip(config.cluster.mem_gib_of(hosts), config.cluster.cpus_of(hosts), strict=True)
    specs = tuple(
        HostSpec(host_id, gib_to_pages(gib), config.usable_pages_of(gib), cpus)
        for host_id, (gib, cpus) in enumerate(sizes)
    )
    telemetry_s = config.study.telemetry_s
    # A run shorter than the grid is looked at once, at its end: ratios need a peak.
    grid_s = min(telemetry_s or RATIO_SAMPLES_S, config.study.duration_s)
    duration_ns, warmup_ns = s_to_ns(config.study.duration_s), s_to_ns(config.study.warmup_s)
    orders = parse(config.workload.orders, need, hosts, duration_ns)
    failures = tuple(draw_failures(config.failure, specs, seed, duration_ns))
    asked = [duration_ns, *(order.at_ns for order in (*orders, *failures))]
    if warmup_ns:
        asked.append(warmup_ns)
    if config.migration.rebalance_s is not None:
        asked.append(0)
    plan = Plan(
        specs=specs,
        hosts=HostPlan(
            config.host,
            config.guests,
            seed,
            s_to_ns(grid_s),
            config.controller,
            config.study.machine_samples,
            unasked_ns=min(asked),
        ),
        need_pages=need,
        reserve_pages=reserve_pages,
        orders=orders,
        failures=failures,
        failure=config.failure,
        migration=config.migration,
        warmup_ns=warmup_ns,
        duration_ns=duration_ns,
        epoch_ns=s_to_ns(config.cluster.epoch_s),
        write_samples=telemetry_s > 0,
        notes=tuple(notes),
        placement=config.placement,
        restarts=config.host.on_crash == "restart",
        reboots=config.host.on_reboot == "restart",
    )
    # A guest of whom nothing is asked goes no further past the end of a step than makes a step's work.
    return replace(plan, hosts=replace(plan.hosts, stride_ns=duration_ns // _count_by_work(plan, workload)))


class Choice(NamedTuple):
    """Where a run is computed, on how many actors (0 in this process), and why, in words."""

    kind: str
    actors: int
    why: str


class Work(NamedTuple):
    """Roughly how long one core simulates a run [s]."""

    boots_s: float  # by the maxmem of each machine
    life_s: float  # by the instants of its demand, and the time that it is there

    @property
    def all_s(self) -> float:
        """All of it."""
        return self.boots_s + self.life_s


def estimate(plan: Plan, workload: Workload) -> Work:
    """What a run takes."""
    controller = plan.hosts.controller
    s_per_hour = S_PER_MACHINE_HOUR["static" if controller is None else controller.name]
    boots_s = life_s = 0.0
    for request in workload.requests:
        departure_ns = plan.duration_ns if request.departure_ns is None else min(request.departure_ns, plan.duration_ns)
        present_s = max(0, departure_ns - request.arrival_ns) / NS_PER_S
        boots_s += request.maxmem_pages / PAGES_PER_GIB * S_PER_GIB_BOOTED
        life_s += len(request.demand.t_ns) * S_PER_INSTANT + present_s / 3600 * s_per_hour
    return Work(boots_s, life_s)


def count_steps(plan: Plan, workload: Workload) -> int:
    """Into how many steps a run in which nothing is due is cut."""
    rows = 0
    if plan.write_samples:
        a_look = 1 + len(plan.specs) + (len(workload.requests) if plan.hosts.machine_samples else 0)
        rows = plan.duration_ns // plan.hosts.telemetry_ns * a_look
    return max(_count_by_work(plan, workload), ceil(rows / STEP_ROWS))


def _count_by_work(plan: Plan, workload: Workload) -> int:
    """Into how many, were it not for samples."""
    return max(1, min(ceil(estimate(plan, workload).life_s / STEP_S), MOST_STEPS))


def choose_engine(config: Config, plan: Plan, workload: Workload, cpus: int | None = None) -> Choice:
    """Answer `engine=auto`: this process for small work, Ray otherwise. `cpus` None: those of this machine."""
    engine, hosts = config.engine, len(plan.specs)
    cpus = cores() if cpus is None else cpus
    actors = actor_count(engine, hosts, cpus)
    if engine.kind == "inline":
        return Choice("inline", 0, "as asked")
    if engine.kind == "ray":
        return Choice("ray", actors, "as asked")
    if engine.actors is not None or engine.hosts_per_actor is not None or engine.address != "local":
        return Choice("ray", actors, "auto: engine.actors, engine.hosts_per_actor or engine.address is given")
    if hosts == 1:
        return Choice("inline", 0, "auto: one host")
    if cpus == 1:
        return Choice("inline", 0, "auto: one CPU")
    all_s = estimate(plan, workload).all_s
    if all_s < INLINE_S:
        return Choice("inline", 0, f"auto: small work, about {all_s:.0f} s on one core")
    return Choice("ray", actors, f"auto: about {all_s:,.0f} s on one core, {actors} actors on {cpus} CPUs")


def cores() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def actor_count(engine: EngineConfig, hosts: int, cpus: int) -> int:
    """Actors for `hosts` hosts: as configured, else the CPUs there are; never more than hosts."""
    if engine.hosts_per_actor is not None:
        return -(-hosts // engine.hosts_per_actor)
    return min(engine.actors or cpus, hosts)
