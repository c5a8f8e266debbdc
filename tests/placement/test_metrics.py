"""What is said of a packing: by hand on views, compaction against the counts that are possible."""

from __future__ import annotations

import pytest

from podcluster.placement.bounds import bounds
from podcluster.placement.metrics import compaction, density, empty_share, fewest_hosts, smallest_of, stranded_pages
from podcluster.placement.policy import make_policy
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView


def view(host_id: int, committed: int, vcpus: int = 0) -> HostView:
    """Of 100 pages and 4 CPUs."""
    return HostView(host_id, 100, committed, 0, 0, 0, 0, cpus=4, vcpus=vcpus)


def test_density_is_over_hosts_in_use() -> None:
    """Of 90 pages beside a reserve of 10: 45 and 90 on two hosts, two are empty."""
    views = [view(0, 55), view(1, 10), view(2, 100), view(3, 10)]
    assert density(views, 10) == pytest.approx((45 + 90) / 180)
    assert density(views[1:2], 10) is None
    assert empty_share(views, 10) == 0.5
    assert density([view(0, 55)]) == 0.55


def test_memory_is_stranded_where_vcpus_are_gone() -> None:
    """The smallest machine has 2 vCPUs; at 2 per CPU a host has 8."""
    machines = [Ask(30, 30, vcpus=1), Ask(20, 20, vcpus=4), Ask(20, 20, vcpus=2)]
    smallest = smallest_of(machines)
    assert smallest == machines[2]
    views = [view(0, 40, vcpus=6), view(1, 40, vcpus=7), view(2, 100, vcpus=8)]
    assert stranded_pages(views, smallest, Rules(vcpu_ratio=2)) == 60  # type: ignore[arg-type]
    assert stranded_pages(views, smallest, Rules()) == 0


def test_compaction_is_a_distribution_over_orders() -> None:
    """Twelve of 30 and twelve of 70 fit twelve hosts in pairs; no order needs fewer, some need more by first fit."""
    machines = [Ask(size, size, domain_id=i) for i, size in enumerate([30, 70] * 12)]
    counts = compaction(machines, 100, make_policy("first_fit"), orders=20, seed=1)
    assert counts == compaction(machines, 100, make_policy("first_fit"), orders=20, seed=1)
    least = bounds([(ask.need_pages,) for ask in machines], [100]).hosts
    assert least == 12
    assert min(count or 0 for count in counts) >= least
    assert len(set(counts)) > 1
    assert fewest_hosts(sorted(machines, key=lambda ask: -ask.need_pages), 100, make_policy("first_fit")) == 12
    assert fewest_hosts([Ask(101, 101)], 100, make_policy("first_fit")) is None
