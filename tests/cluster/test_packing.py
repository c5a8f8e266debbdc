"""How a run's packing over time is summed up: by hand, and against sums over instants."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from podcluster.cluster.ledger import rejection
from podcluster.cluster.packing import packing
from podcluster.cluster.plan import Plan
from podcluster.config import PlacementConfig
from podcluster.placement.metrics import density, empty_share, stranded_pages
from podcluster.placement.policy import rules_of
from podcluster.records.hosts import Ask, HostView
from podcluster.records.machines import Workload
from podcluster.records.rows import DomainRow
from tests.cluster.story import USABLE, machine, machines, play, small_plan


def row(domain_id: int, host_id: int, start_ns: int, end_ns: int, fate: str = "shut_down", vcpus: int = 2) -> DomainRow:
    """A domain that was there from `start_ns` to `end_ns`."""
    blank = rejection(machine(domain_id, 0.0), end_ns, "")
    return replace(blank, host_id=host_id, boot_start_ns=start_ns, fate=fate, vcpus=vcpus)


def plan_of(needs: list[int], hosts: int, duration_ns: int, **keys: object) -> Plan:
    """Hosts of 10,000 pages and 4 CPUs; domains of these needs."""
    plan = replace(small_plan(Workload(()), hosts=hosts), duration_ns=duration_ns, need_pages=dict(enumerate(needs)))
    specs = tuple(replace(spec, cpus=4) for spec in plan.specs)
    placement = PlacementConfig(policy="first_fit", **keys)  # type: ignore[arg-type]
    return replace(plan, specs=specs, placement=placement)


def test_means_over_time_by_hand() -> None:
    """Two of three hosts in use: 4,000 pages for 100 of 100 ns on one, 6,000 for 50 on another."""
    rows = [row(0, 0, 0, 100, "running"), row(1, 2, 25, 75)]
    found = packing(rows, plan_of([4000, 6000], 3, 100))
    assert found.hosts_used_max == 2
    assert found.density_mean == (4000 * 100 + 6000 * 50) / (USABLE * 150)
    assert found.empty_mean == pytest.approx(1 - 150 / 300)
    assert found.hosts_bound == 1  # both would fit one host
    assert packing(rows, plan_of([4000, 6001], 3, 100)).hosts_bound == 2
    assert found.stranded_mean == 0


def test_one_that_ends_where_another_starts_never_stood_beside_it() -> None:
    """One host is in use all the time, and one is enough."""
    found = packing([row(0, 0, 0, 50), row(1, 0, 50, 100, "running")], plan_of([9000, 9000], 2, 100))
    assert (found.hosts_used_max, found.hosts_bound, found.density_mean) == (1, 1, 0.9)


def test_nothing_was_placed() -> None:
    """All hosts are empty, and have no density."""
    found = packing([], plan_of([], 2, 100))
    assert found == (0, 0, None, 1.0, 0.0)


def test_stranded_memory_is_that_beside_too_few_vcpus() -> None:
    """At 1 vCPU per CPU a host has four: with three in use for half the time a machine of two finds none."""
    rows = [row(0, 0, 0, 50, vcpus=3), row(1, 1, 0, 100, "running")]
    found = packing(rows, plan_of([4000, 1000], 2, 100, vcpu_ratio=1))
    assert found.stranded_mean == (USABLE - 4000) * 50 / (2 * USABLE * 100)
    assert packing(rows, plan_of([4000, 1000], 2, 100)).stranded_mean == 0


@pytest.mark.parametrize("bound", ["l2", "lp"])
def test_a_run_says_how_well_it_was_packed(bound: str) -> None:
    """The story: means equal the sums over every interval between changes of what metrics say of the views; the bound
    is no more than the hosts that were used.
    """
    workload = machines(60)
    placement = PlacementConfig(policy="worst_fit", bound=bound, vcpu_ratio=1)
    plan = replace(small_plan(workload, hosts=5), placement=placement)
    plan = replace(plan, specs=tuple(replace(spec, cpus=8) for spec in plan.specs))
    outcome, sink = play(plan, workload)
    row = outcome.row
    built = [one for one in sink.tables["domains"] if one.boot_start_ns is not None]
    times = sorted({0, plan.duration_ns, *(r.boot_start_ns for r in built), *(r.end_ns for r in built)})
    sums = {"empty": 0.0, "stranded": 0.0}
    used_max, dense, weight = 0, 0.0, 0.0
    smallest = Ask(0, 0, vcpus=2)
    for start_ns, end_ns in pairwise(times):
        views = []
        for spec in plan.specs:
            here = [r for r in built if r.host_id == spec.host_id and r.boot_start_ns <= start_ns < r.end_ns]
            committed = sum(plan.need_pages[r.domain_id] for r in here)
            vcpus = sum(r.vcpus for r in here)
            views.append(HostView(spec.host_id, USABLE, committed, 0, 0, 0, 0, cpus=8, vcpus=vcpus))
        span = end_ns - start_ns
        used = sum(view.committed_pages > 0 for view in views)
        used_max = max(used_max, used)
        sums["empty"] += empty_share(views) * span
        sums["stranded"] += stranded_pages(views, smallest, rules_of(placement)) * span
        dense += (density(views) or 0) * used * span
        weight += used * span
    assert row.hosts_used_max == used_max
    assert row.packing_density_mean == pytest.approx(dense / weight)
    assert row.empty_hosts_mean == pytest.approx(sums["empty"] / plan.duration_ns)
    assert row.stranded_mean == pytest.approx(sums["stranded"] / plan.duration_ns / (5 * USABLE))
    assert row.stranded_mean > 0
    assert 1 < row.hosts_bound <= row.hosts_used_max
