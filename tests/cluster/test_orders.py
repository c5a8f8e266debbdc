"""What an operator orders while guests run: read, checked, and carried out where the domain is."""

from __future__ import annotations

import pytest

from podcluster.cli import compose
from podcluster.cluster.agenda import Enabling, Evacuation, Failure, Migration, Operation, Recovery
from podcluster.cluster.orders import Order, parse
from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import InlinePool
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.errors import ConfigError
from podcluster.placement.policy import make_policy
from podcluster.records.commands import AttachDevice, SetMaxMem, SetTarget, StopDomain
from podcluster.records.rows import EventRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB
from podcluster.workloads import requests
from tests.cluster.story import ListSink

MIB = PAGES_PER_MIB
ONE = ["workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512", "cluster.host_mem_gib=4"]


def test_orders_are_sorted_by_time() -> None:
    """Four verbs, seconds and MiB with fractions; equal times keep their order."""
    lines = ["90.5 destroy 1", "60 mem-set 0 512", "60 mem-max 0 600.5", "60 pci-attach 1"]
    assert [order.item for order in parse(lines, {0, 1}, 1, 100 * NS_PER_S)] == [
        Operation(SetTarget(60 * NS_PER_S, 0, 512 * MIB)),
        Operation(SetMaxMem(60 * NS_PER_S, 0, 153_728)),
        Operation(AttachDevice(60 * NS_PER_S, 1)),
        Operation(StopDomain(90_500_000_000, 1)),
    ]
    assert parse([], {0}, 1, 1) == ()


def test_orders_about_hosts() -> None:
    """A host fails and is brought back, another is emptied and enabled; a domain is sent to a host."""
    lines = ["30 host-recover 2", "10.5 host-fail 2", "40 host-evacuate 1", "50 host-enable 1", "45 migrate 0 2"]
    assert parse(lines, {0}, 3, 100 * NS_PER_S) == (
        Order(10_500_000_000, Failure(2)),
        Order(30 * NS_PER_S, Recovery(2)),
        Order(40 * NS_PER_S, Evacuation(1)),
        Order(45 * NS_PER_S, Migration(0, 2)),
        Order(50 * NS_PER_S, Enabling(1)),
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("60 mem-set 0", "'SECONDS"),
        ("60 mem-set 0 1 2", "'SECONDS"),
        ("soon mem-set 0 1", "'SECONDS"),
        ("inf mem-set 0 1", "'SECONDS"),
        ("60 pause 0", "'SECONDS"),
        ("60 mem-set 0 -3", "of 1 to 67108864 MiB"),
        ("60 mem-set 0 0", "of 1 to 67108864 MiB"),
        ("60 mem-set 0 nan", "of 1 to 67108864 MiB"),
        ("60 mem-set 0 99999999999999999999999", "of 1 to 67108864 MiB"),
        ("60 mem-max 0 99999999999", "of 1 to 67108864 MiB"),
        ("60 pci-attach 0 1", "'SECONDS"),
        ("", "'SECONDS"),
        ("60 host-fail", "'SECONDS"),
        ("60 host-fail 1 2", "'SECONDS"),
        ("60 migrate 0", "'SECONDS"),
        ("60 migrate 7 1", "about a domain of the workload, which has no 7"),
        ("60 migrate 0 3", "about one of the hosts 0 to 2"),
        ("60 host-fail 3", "about one of the hosts 0 to 2"),
        ("60 host-recover -1", "about one of the hosts 0 to 2"),
        ("60 mem-set 7 512", "about a domain of the workload, which has no 7"),
        ("0 mem-set 0 512", "at a time within the run"),
        ("100 mem-set 0 512", "at a time within the run"),
    ],
)
def test_orders_that_make_no_sense(line: str, rule: str) -> None:
    """One line with key, rule, value and remedy."""
    with pytest.raises(ConfigError, match=r"^workload\.orders must be .*, got '.*': try '.*'$") as caught:
        parse([line], {0}, 3, 100 * NS_PER_S)
    assert str(caught.value).startswith(f"workload.orders must be {rule}")


def test_orders_reach_the_domain_in_a_run() -> None:
    """E7, E8's commands and a shutdown, from the command line: each an event at its time."""
    orders = "workload.orders=[120 mem-set 0 300, 130 mem-max 0 400, 140.25 mem-max 0 100, 150 destroy 0]"
    config = compose([*ONE, orders, "study.duration_s=200"])
    workload = requests(config.workload, config.guest, 1.5, None, 1, 200, usable_pages=config.usable_pages)
    plan = make_plan(config, workload, 1)
    sink = ListSink()
    run(plan, workload, make_policy("first_fit"), InlinePool(plan.specs, plan.hosts), sink, Silent())
    events: list[EventRow] = [
        event for event in sink.tables["events"] if event.kind in ("set_target", "set_max", "shut_down")
    ]
    assert [(event.t_ns / NS_PER_S, event.kind) for event in events] == [
        (120, "set_target"),
        (130, "set_max"),
        (140.25, "set_max"),
        (150, "shut_down"),
    ]
    assert [event.text for event in events[:2]] == ["256 to 300 MiB", "400 MiB"]
    assert events[2].text.startswith("memory_static_max must be greater")
    (row,) = sink.tables["domains"]
    assert (row.fate, row.end_ns) == ("shut_down", 150 * NS_PER_S)
