"""`podcluster compact`: how few hosts are enough, by hand and in words."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from podcluster.cli import compose, main
from podcluster.compact import compact

ALIKE = ("workload=alike", "workload.machines=40", "workload.maxmem_mib=3000", "overcommit=1.2")


def test_machines_that_are_alike_take_what_their_number_says() -> None:
    """Every order is the same: ceil(40 / floor(U / need)), which the bound reaches, as L2 sees sizes above a half."""
    config = compose([*ALIKE, "cluster.host_mem_gib=6"])
    found = compact(config, orders=3)
    assert config.usable_pages // 2 < 2500 * 256 < config.usable_pages
    assert found == (40, Counter({40: 3}), 40)


def test_orders_differ_and_none_is_below_the_bound() -> None:
    """Machines of many sizes by first fit, on hosts that hold few: a distribution, the same for the same seed."""
    config = compose(["workload=churn", "workload.arrivals_per_day=300", "overcommit=1.5", "cluster.host_mem_gib=64"])
    found = compact(config, orders=12)
    assert sum(found.hosts.values()) == 12 and min(hosts or 0 for hosts in found.hosts) >= found.bound > 1
    assert compact(config, orders=12) == found


def test_strict_groups_take_a_host_for_each_machine() -> None:
    """Two fit one host; all of one group that is kept apart, each takes a host of its own where that is strict."""
    apart = [*ALIKE, "cluster.host_mem_gib=8", "placement.anti_affinity=['*']"]
    assert compact(compose(apart), orders=2).hosts == {20: 2}
    assert compact(compose([*apart, "placement.strict_groups=true"]), orders=2).hosts == {40: 2}


def test_machines_that_fit_no_host_have_a_bound_all_the_same() -> None:
    """All that a host has, with overheads on top: by either bound each is counted as a host of its own, and no number
    of hosts is enough.
    """
    small = [*ALIKE, "cluster.host_mem_gib=4", "overcommit=1"]
    all_mib = compose(small).usable_pages // 256
    for bound in ("l2", "lp"):
        config = compose([*small, f"workload.maxmem_mib={all_mib}", f"placement.bound={bound}"])
        assert compact(config, orders=2) == (40, Counter({None: 2}), 40)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The number of machines, a line a count of hosts, the bound."""
    assert main(["compact", *ALIKE, "cluster.host_mem_gib=6", "--orders", "2"]) == 0
    machines, hosts, bound = capsys.readouterr().out.splitlines()
    assert machines == "40 machines by first_fit, in 2 orders"
    assert re.fullmatch(r" +40 hosts in 2, 1\.000 of it", hosts)
    assert bound == "no packing needs fewer than 40 hosts (placement.bound=l2)"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--orders", "0"], "--orders must be at least 1, got 0: try --orders 20"),
        (["cluster.host_mem_gib=[2x8,16]"], "cluster.host_mem_gib must be one size for podcluster compact, got 3"),
        (["cluster.host_cpus=[2x8]"], "cluster.host_cpus must be one size for podcluster compact, got 2"),
        (["--order", "3"], "podcluster compact --help lists what there is"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and what to do instead."""
    assert main(["compact", *ALIKE, *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
