"""Rows that sum up: a replication, a cell over its replications, and a cell against its baseline.

What        `RunRow`, `CellRow`, `PairRow`; the Parquet schemas and `docs/columns.md` are generated from the `unit` and
            `doc` of each column.
Units       Those of each column.
Symbols     U usable_pages (RAM less Xen and dom0)
Invariants  Every field has a non-blank unit and doc. Columns whose names begin with `wall_` or `engine_` describe the
            run of the program; all others are a function of configuration and seed.
"""

from __future__ import annotations

from dataclasses import dataclass

from podcluster.records.values import column


@dataclass(frozen=True, slots=True)
class RunRow:
    """One replication of one cell."""

    hosts: int = column("1", "Hosts in the cluster.")
    ram_pages: int = column("pages", "Memory of all hosts.")
    usable_pages: int = column("pages", "U: usable memory of all hosts.")
    duration_ns: int = column("ns", "Simulated time.")
    warmup_ns: int = column(
        "ns",
        "Warm-up: boot attempts of before are not counted here, and means and peaks are of the time after it.",
    )
    resample: str = column("-", "How machines were drawn: none, machines, machines_days.", label=True)
    conditional_on: str = column("-", "Data that every number here is conditional on; empty when drawn.", label=True)
    machines_left_out: int = column("1", "Machines of the source that took no part.")
    requests: int = column("1", "Machines asked for.")
    restarts: int = column(
        "1", "Starts beyond these: after a crash by host.on_crash=restart, after a reboot by host.on_reboot."
    )
    host_failures: int = column("1", "Hosts that failed.")
    ha_restarts: int = column("1", "Starts beyond these: of domains whose host had failed.")
    failures_tolerated_min: int | None = column(
        "1", "Least over time of the host failures that the pool had a plan for (D7); null without failure.tolerate."
    )
    overcommitted_ns: int | None = column(
        "ns", "Time for which there was no plan for failure.tolerate host failures; null without it."
    )
    migrations: int = column("1", "Domains that came from another host with what they had.")
    boots_started: int = column("1", "Builds begun.")
    boots_done: int = column("1", "Guests that came up.")
    static_ratio_mean: float = column("1", "Mean over time of sum of maxmem / U: what was promised.")
    static_ratio_max: float = column("1", "Maximum over time of sum of maxmem / U.")
    placed_ratio: float = column(
        "1", "Maximum over time of sum of maxmem / U, machines that died counted until they were to leave."
    )
    target_ratio_mean: float = column("1", "Mean over time of sum of targets / U.")
    target_ratio_max: float = column("1", "Maximum over time of sum of targets / U.")
    commit_ratio_mean: float = column("1", "Mean over time of owned / U; never above 1.")
    commit_ratio_max: float = column("1", "Maximum over time of owned / U; never above 1.")
    demand_ratio_mean: float = column("1", "Mean over time of what guests want / U.")
    demand_ratio_max: float = column("1", "Maximum over time of what guests want / U.")
    hosts_used_max: int = column("1", "Maximum over time of hosts that were not empty.")
    hosts_bound: int = column(
        "1", "Hosts that no packing of the domains there at the fullest instant could do without (L1, L2; LP if asked)."
    )
    packing_density_mean: float | None = column("1", "Committed memory of hosts that were not empty, over their U.")
    empty_hosts_mean: float = column("1", "Mean over time of the share of hosts that were empty.")
    stranded_mean: float = column(
        "1", "Mean over time of uncommitted memory on hosts without vCPUs left for the smallest machine, over U."
    )
    lost_races: int = column("1", "Placements that a host refused, having less than an old view of it said.")
    fate_running: int = column("1", "Boot attempts still running at the end.")
    fate_shut_down: int = column("1", "Boot attempts that left at their time, or by themselves.")
    fate_pod_oom: int = column("1", "Boot attempts that Xen killed for want of populate-on-demand memory.")
    fate_pod_oom_by_other: int = column("1", "The same, killed on another domain's access.")
    fate_guest_panic: int = column("1", "Boot attempts whose own kernel gave up.")
    fate_ept_violation: int = column("1", "Boot attempts that ran out of page-table memory.")
    fate_build_failed: int = column("1", "Boot attempts whose build the toolstack gave up.")
    fate_rejected: int = column("1", "Requests no host took.")
    fate_host_failed: int = column("1", "Boot attempts lost with their host.")
    fate_migrated: int = column("1", "Boot attempts that moved to another host.")
    domain_s: float = column("s", "Sum over boot attempts of the time from build to end.")
    after_warmup_s: float = column("s", "Time after the warm-up of all domains, those of before it included.")
    crashes: int = column("1", "Domains that Xen killed after the warm-up for want of populate-on-demand memory.")
    debt_s: float = column("s", "Sum over boot attempts of the time until their entries were no more than their cache.")
    boot_delay_ns_mean: float | None = column("ns", "Mean boot delay of the guests that came up.")
    swap_ns: int = column("ns", "Sum over boot attempts of the time spent swapping.")
    swap_share: float = column("1", "Time spent swapping over all domain time.")
    swapped_domains: int = column("1", "Boot attempts that swapped at all.")
    oom_kills: int = column("1", "Applications killed inside guests.")
    balloon_gave_up: int = column("1", "Times a balloon driver stopped short.")
    target_changes: int = column("1", "Targets written, by controllers or by commands.")
    moved_pages: int = column("pages", "Sum of the changes of tot_pages, up or down, that controllers asked for.")
    uncooperative: int = column("1", "Times that a controller marked a domain as not co-operating.")
    starts_waited_ns: int = column("ns", "Time that starts waited for memory, those in vain included.")
    sweeps: int = column("1", "Emergency sweeps for zero pages.")
    margin_pages_min: int | None = column("pages", "Least margin of a boot attempt that had a guest.")
    wall_s: float = column("s", "Wall time of the simulation.")
    engine_kind: str = column("-", "Where the hosts lived: inline or ray.", label=True)
    engine_actors: int = column("1", "Actors that held them; 0 in this process.")


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell of a sweep over its replications.

    Of each rate: `_numerator` and `_denominator` summed over replications and their ratio; a confidence interval
    `_low`, `_high` over replications (null with fewer than two); `_upper` the exact one-sided upper bound;
    `_low_pooled`, `_high_pooled` an interval that takes every trial for independent (Wilson for a proportion, exact
    Poisson for a rate over time); `_design_effect` the variance over replications over what that independence gives.
    """

    replications: int = column("1", "Replications the cell has.")
    confidence: float = column("1", "Confidence level of every interval and bound of this row.")
    resample: str = column("-", "How machines were drawn: none, machines, machines_days.", label=True)
    conditional_on: str = column("-", "Data that every number here is conditional on; empty when drawn.", label=True)
    hosts_mean: float = column("1", "Mean number of hosts.")
    usable_pages_mean: float = column("pages", "Mean usable memory of all hosts.")
    hosts_used: float = column("1", "Most hosts in use at once (runs.hosts_used_max): mean over replications.")
    hosts_used_low: float | None = column(
        "1", "Lower end of its interval over replications; null where they all agree."
    )
    hosts_used_high: float | None = column(
        "1", "Upper end of its interval over replications; null where they all agree."
    )
    hosts_bound: float = column(
        "1", "Hosts that no packing of the fullest instant could do without: mean over replications."
    )
    hosts_gap: float | None = column(
        "1", "Hosts used beyond hosts_bound, over hosts_bound, all replications: 0 is as few as could be."
    )
    hosts_gap_low: float | None = column("1", "Lower end of its interval over replications; null where they all agree.")
    hosts_gap_high: float | None = column(
        "1", "Upper end of its interval over replications; null where they all agree."
    )
    packing_density: float | None = column(
        "1", "Committed memory of hosts that were not empty, over their U: mean over time, then over replications."
    )
    packing_density_low: float | None = column(
        "1", "Lower end of its interval over replications; null where they all agree."
    )
    packing_density_high: float | None = column(
        "1", "Upper end of its interval over replications; null where they all agree."
    )
    empty_hosts: float = column("1", "Share of hosts that were empty: mean over time, then over replications.")
    empty_hosts_low: float | None = column(
        "1", "Lower end of its interval over replications; null where they all agree."
    )
    empty_hosts_high: float | None = column(
        "1", "Upper end of its interval over replications; null where they all agree."
    )
    stranded: float = column(
        "1",
        "Uncommitted memory on hosts without vCPUs for the smallest machine, over U: mean over time and replications.",
    )
    stranded_low: float | None = column("1", "Lower end of its interval over replications; null where they all agree.")
    stranded_high: float | None = column("1", "Upper end of its interval over replications; null where they all agree.")
    failures_tolerated_min: int | None = column(
        "1", "Least runs.failures_tolerated_min of all replications; null without failure.tolerate."
    )
    overcommitted_share: float | None = column(
        "1",
        "Share of time without a plan for failure.tolerate host failures (runs.overcommitted_ns): mean over "
        "replications; null without it.",
    )
    overcommitted_share_low: float | None = column(
        "1", "Lower end of its interval over replications; null where they all agree."
    )
    overcommitted_share_high: float | None = column(
        "1", "Upper end of its interval over replications; null where they all agree."
    )
    requests: int = column("1", "Machines asked for, all replications.")
    boots_started: int = column("1", "Builds begun, all replications.")
    domain_days: float = column("day", "Domain time after the warm-up, all replications.")
    static_ratio: float = column(
        "1",
        "Realised sum of maxmem / U of the machines placed, dead or alive (placed_ratio): mean over replications.",
    )
    static_ratio_low: float | None = column("1", "Lower end of its interval over replications.")
    static_ratio_high: float | None = column("1", "Upper end of its interval over replications.")
    target_ratio: float = column("1", "Sum of targets / U: mean over time, then over replications.")
    commit_ratio: float = column("1", "Owned / U: mean over time, then over replications.")
    demand_ratio: float = column("1", "What guests want / U: mean over time, then over replications.")
    demand_ratio_max: float = column("1", "Maximum over time and replications of what guests want / U.")
    crash_per_boot: float | None = column("1", "pod_oom / boots started, all replications.")
    crash_per_boot_numerator: int = column("1", "Boot attempts that ended in pod_oom.")
    crash_per_boot_denominator: int = column("1", "Boots started.")
    crash_per_boot_low: float | None = column("1", "Lower end of the interval over replications.")
    crash_per_boot_high: float | None = column("1", "Upper end of the interval over replications.")
    crash_per_boot_upper: float | None = column("1", "Exact one-sided upper bound (Clopper-Pearson).")
    crash_per_boot_low_pooled: float | None = column("1", "Lower end of the pooled Wilson interval.")
    crash_per_boot_high_pooled: float | None = column("1", "Upper end of the pooled Wilson interval.")
    crash_per_boot_design_effect: float | None = column("1", "Variance over replications over the binomial variance.")
    crash_per_domain_day: float | None = column("1/day", "pod_oom per domain-day, all replications.")
    crash_per_domain_day_numerator: int = column("1", "Boot attempts that ended in pod_oom after the warm-up.")
    crash_per_domain_day_denominator: float = column("day", "Domain-days after the warm-up.")
    crash_per_domain_day_low: float | None = column("1/day", "Lower end of the interval over replications.")
    crash_per_domain_day_high: float | None = column("1/day", "Upper end of the interval over replications.")
    crash_per_domain_day_upper: float | None = column("1/day", "Exact one-sided upper bound (Poisson).")
    crash_per_domain_day_low_pooled: float | None = column("1/day", "Lower end of the pooled Poisson interval.")
    crash_per_domain_day_high_pooled: float | None = column("1/day", "Upper end of the pooled Poisson interval.")
    crash_per_domain_day_design_effect: float | None = column("1", "Variance over replications over Poisson's.")
    start_refused: float | None = column("1", "(rejected + build_failed) / starts asked for, all replications.")
    start_refused_numerator: int = column("1", "Boot attempts rejected or not built.")
    start_refused_denominator: int = column(
        "1", "Starts asked for: machines, and restarts after a crash, a reboot or a host's failure."
    )
    start_refused_low: float | None = column("1", "Lower end of the interval over replications.")
    start_refused_high: float | None = column("1", "Upper end of the interval over replications.")
    start_refused_upper: float | None = column("1", "Exact one-sided upper bound (Clopper-Pearson).")
    start_refused_low_pooled: float | None = column("1", "Lower end of the pooled Wilson interval.")
    start_refused_high_pooled: float | None = column("1", "Upper end of the pooled Wilson interval.")
    start_refused_design_effect: float | None = column("1", "Variance over replications over the binomial variance.")
    swap_share: float = column("1", "Time spent swapping over domain time: mean over replications.")
    swap_share_low: float | None = column("1", "Lower end of the interval over replications.")
    swap_share_high: float | None = column("1", "Upper end of the interval over replications.")
    swapped_domains: int = column("1", "Boot attempts that swapped at all, all replications.")
    oom_kills: int = column("1", "Applications killed inside guests, all replications.")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One measure of one cell of a sweep against the same of its baseline: the cell that differs in one axis alone.

    Both cells met the same machines with the same draws. A measure is a mean over the machines that have it in both;
    `low`, `high` and `sign_p` take the replication for the unit, what ends in `_pooled` takes every machine for one.
    """

    baseline_cell: str = column("-", "Name of the cell it is compared with.", label=True)
    measure: str = column("-", "What is compared, of a machine: one of study.pairs.MEASURES.", label=True)
    unit: str = column("-", "Unit of the values and of their difference.", label=True)
    replications: int = column("1", "Replications in which some machine has the measure in both cells.")
    machines: int = column("1", "Machines that have it in both cells, all replications.")
    confidence: float = column("1", "Confidence level of the intervals of this row.")
    baseline_value: float = column("as unit", "Mean over these machines in the baseline.")
    value: float = column("as unit", "Mean over the same machines here.")
    difference: float = column("as unit", "Value less baseline_value.")
    low: float | None = column("as unit", "Lower end of its interval over replications; null where they all agree.")
    high: float | None = column("as unit", "Upper end of its interval over replications; null where they all agree.")
    sign_p: float = column("1", "Exact two-sided sign test over the replications that differ; 1 where none does.")
    machines_higher: int = column("1", "Machines whose value is higher here.")
    machines_lower: int = column("1", "Machines whose value is lower here.")
    low_pooled: float | None = column("as unit", "Lower end of the pooled interval (Bonett-Price); events only.")
    high_pooled: float | None = column("as unit", "Upper end of the pooled interval (Bonett-Price); events only.")
    sign_p_pooled: float = column("1", "The sign test over machines; of an event this is McNemar's exact test.")
