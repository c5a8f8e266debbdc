"""Hosts that are emptied, and domains that move: where to, when, whether there is room, and who has to stay."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.agenda import Enabling, Evacuation, Failure, Migration
from podcluster.cluster.orders import Order
from podcluster.config import PlacementConfig
from podcluster.records.machines import Workload
from podcluster.records.rows import EventRow
from podcluster.units import NS_PER_S
from tests.cluster.story import USABLE, machine, machines, physics, play, small_plan
from tests.cluster.test_failures import apart, at, immortal, kinds, named, plan_with, rows_of


def test_a_host_is_emptied() -> None:
    """Ten on host 0, which is emptied at 1,000 s: receivers are asked in the next epoch, they are copied in the one
    after it, and run elsewhere just after its end.
    """
    workload = immortal(12)
    outcome, sink = play(plan_with(workload, at(1000, Evacuation(0))), workload)
    rows = rows_of(sink)
    moved = [row for row in rows.values() if row.fate == "migrated"]
    assert len(moved) == 10 and {row.host_id for row in moved} == {0}
    for row in moved:
        again = rows[row.domain_id, 2]
        assert (again.fate, again.origin, again.host_id > 0) == ("running", "migration", True)
        assert row.end_ns == 1010 * NS_PER_S + 1
        assert again.boot_start_ns == 1020 * NS_PER_S + 1
    run = outcome.row
    assert (run.migrations, run.fate_migrated, run.boots_started, run.restarts) == (10, 10, 12, 0)


def test_it_gets_no_more_domains_until_it_is_enabled() -> None:
    """Arrivals go past it from the order on, and to it again after host-enable."""
    first = immortal(1).requests[0]
    arrivals = [machine(first.domain_id + k, s) for k, s in enumerate((900.0, 1100.0, 2100.0))]
    workload = Workload(tuple(arrivals))
    orders = at(1000, Evacuation(0)), at(2000, Enabling(0))
    _, sink = play(plan_with(workload, *orders), workload)
    placed: list[EventRow] = [event for event in sink.tables["events"] if event.kind == "place"]
    assert [event.host_id for event in placed] == [0, 1, 0]
    assert (kinds(sink)["evacuate"], kinds(sink)["enabled"]) == (1, 1)


def test_who_has_no_room_elsewhere_stays() -> None:
    """D7.2, D7.8: two hosts with ten and eight of 1,000 pages: two go, eight stay, and are told so."""
    workload = immortal(18)
    _, sink = play(plan_with(workload, at(1000, Evacuation(0)), hosts=2), workload)
    fates = Counter(row.fate for row in sink.tables["domains"])
    assert fates == {"migrated": 2, "running": 18}
    assert kinds(sink)["migrate_refused"] == 8


@pytest.mark.parametrize("restarts", [False, True])
def test_who_died_with_a_host_is_nobody_to_move(restarts: bool) -> None:
    """Ten on each of two hosts, of which nobody is started again: host 0 dies, is back after 600 s, and is emptied of
    nobody, whether or not what crashes is built again.
    """
    workload = immortal(20)
    plan = plan_with(workload, at(1000, Failure(0)), at(2000, Evacuation(0)), hosts=2)
    failure = replace(plan.failure, ha=False, repair_s=600)
    _, sink = play(replace(plan, failure=failure, restarts=restarts), workload)
    assert (kinds(sink)["evacuate"], kinds(sink)["migrate_refused"]) == (1, 0)


def test_strict_groups_hold_for_who_leaves() -> None:
    """[PLACE-8] three that are to be apart on hosts 0 to 2, of which 0 is emptied: the roomiest have a member each, so
    it goes to a small fourth host, or, without one, stays. An order to send it to a member is refused, one to send it
    to the small host is not.
    """
    workload = Workload(named("db", immortal(3).requests))
    first = workload.requests[0].domain_id
    for hosts, order, went_to, why in (
        (4, Evacuation(0), 3, None),
        (3, Evacuation(0), None, "no other host that its group allows has room for it"),
        (4, Migration(first, 3), 3, None),
        (4, Migration(first, 1), None, "its group keeps it off host 1"),
    ):
        _, sink = play(apart(plan_with(workload, at(1000, order), hosts=hosts), small=3), workload)
        moved = [(row.domain_id, row.host_id) for row in sink.tables["domains"] if row.origin == "migration"]
        assert moved == ([] if went_to is None else [(first, went_to)])
        assert [event.text for event in sink.tables["events"] if event.kind == "migrate_refused"] == [why] * (
            why is not None
        )


def test_who_is_strictly_kept_together_moves_alone_or_not_at_all() -> None:
    """[PLACE-8] two on host 0, which is emptied: neither may leave the other. Alone one goes, and takes nobody in while
    it is on its way: not at 1,005 s, when it may still stay, but at 1,100 s on its new host.
    """
    placement = PlacementConfig(policy="first_fit", affinity=["web*"], strict_groups=True)
    two = Workload(named("web", immortal(2).requests))
    _, sink = play(replace(plan_with(two, at(1000, Evacuation(0))), placement=placement), two)
    assert Counter(row.fate for row in sink.tables["domains"]) == {"running": 2}
    assert kinds(sink)["migrate_refused"] == 2
    first, early, late = named("web", immortal(3).requests)
    early, late = replace(early, arrival_ns=1005 * NS_PER_S), replace(late, arrival_ns=1100 * NS_PER_S)
    workload = Workload((first, early, late))
    _, sink = play(replace(plan_with(workload, at(1001, Migration(first.domain_id, 2))), placement=placement), workload)
    rows = rows_of(sink)
    assert (rows[first.domain_id, 2].host_id, rows[late.domain_id, 1].host_id) == (2, 2)
    assert rows[early.domain_id, 1].fate == "rejected"


def test_one_domain_is_sent_to_a_host() -> None:
    """To one with room it goes; to a full one, or where it is, it does not."""
    workload = immortal(11)
    ids = [one.domain_id for one in workload.requests]
    orders = (
        Order(1000 * NS_PER_S, Migration(ids[0], 2)), Order(1000 * NS_PER_S, Migration(ids[10], 1)),
        Order(1000 * NS_PER_S, Migration(ids[10], 1)),
    )  # fmt: skip
    _, sink = play(plan_with(workload, *orders), workload)
    assert rows_of(sink)[ids[0], 2].host_id == 2
    assert Counter(row.fate for row in sink.tables["domains"])["migrated"] == 1
    full = immortal(20)
    last = full.requests[19].domain_id
    _, sink = play(plan_with(full, Order(1000 * NS_PER_S, Migration(last, 0)), hosts=2), full)
    assert kinds(sink)["migrate_refused"] == 1 and kinds(sink)["migrate"] == 0


def test_a_target_that_dies_meanwhile_is_replaced() -> None:
    """Sent to host 1 at 1,001 s, copied from 1,020, host 1 dies at 1,025: it lands where a start would; with no host
    left it is rejected.
    """
    workload = immortal(1)
    domain_id = workload.requests[0].domain_id
    for hosts, fate, host_id in ((3, "running", 0), (2, "rejected", -1)):
        orders = [Order(1001 * NS_PER_S, Migration(domain_id, 1)), at(1025, Failure(1))]
        if hosts == 2:
            orders.append(at(1025.5, Failure(0)))
        _, sink = play(plan_with(workload, *orders, hosts=hosts), workload)
        row = rows_of(sink)[domain_id, 2]
        assert (row.fate, row.origin, row.host_id) == (fate, "migration", host_id)


def test_who_leaves_while_it_moves_leaves_when_it_has_landed() -> None:
    """To leave at 1,024 s, on its way from 1,020 to 1,030: it is shut down 1 ns after it landed, on the other host."""
    workload = immortal(1, departure_s=1024.0)
    domain_id = workload.requests[0].domain_id
    _, sink = play(plan_with(workload, Order(1001 * NS_PER_S, Migration(domain_id, 1))), workload)
    rows = rows_of(sink)
    assert rows[domain_id, 1].fate == "migrated"
    there = rows[domain_id, 2]
    assert (there.host_id, there.fate, there.end_ns) == (1, "shut_down", 1030 * NS_PER_S + 2)


@pytest.mark.parametrize("dies_s", [1005.0, 1015.0])
def test_a_receiver_that_dies_before_anything_is_copied_is_no_loss(dies_s: float) -> None:
    """Sent to host 1 at 1,001 s, which is asked for room at 1,010: dead before or after, the domain stays where it is,
    is told why, and can be sent to another host later.
    """
    workload = immortal(1)
    domain_id = workload.requests[0].domain_id
    orders = Order(1001 * NS_PER_S, Migration(domain_id, 1)), at(dies_s, Failure(1))
    _, sink = play(plan_with(workload, *orders), workload)
    assert [(row.fate, row.attempt, row.host_id) for row in sink.tables["domains"]] == [("running", 1, 0)]
    (event,) = [event for event in sink.tables["events"] if event.kind == "migrate_refused"]
    why = "it takes no domains any more" if dies_s < 1010 else "it has failed"
    assert (event.host_id, event.text) == (0, f"host 1 has no room for it: {why}")
    _, sink = play(plan_with(workload, *orders, Order(1100 * NS_PER_S, Migration(domain_id, 2))), workload)
    assert rows_of(sink)[domain_id, 2].host_id == 2


@pytest.mark.parametrize("leaves_s", [1004.0, 1014.0])
def test_who_leaves_before_it_is_copied_leaves_its_host(leaves_s: float) -> None:
    """No room is kept for it then: ten more of its size fit on the host that it was to go to."""
    first, rest = immortal(1, departure_s=leaves_s).requests[0], immortal(21).requests[1:]
    late = tuple(replace(one, arrival_ns=1100 * NS_PER_S) for one in rest)
    workload = Workload((first, *late))
    order = Order(1001 * NS_PER_S, Migration(first.domain_id, 1))
    _, sink = play(plan_with(workload, order, hosts=2), workload)
    assert rows_of(sink)[first.domain_id, 1].fate == "shut_down"
    assert Counter(row.host_id for row in sink.tables["domains"]) == {0: 11, 1: 10}


def test_merging_changes_nothing_while_domains_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """[EP-1] the story of 41 machines with every host emptied in turn: each epoch on its own gives the same rows."""
    workload = machines()
    orders = tuple(
        Order(int(s * NS_PER_S), item)
        for host_id in range(3)
        for s, item in ((700 + 600 * host_id, Evacuation(host_id)), (1000 + 600 * host_id, Enabling(host_id)))
    )
    plan = plan_with(workload, *orders)
    outcome, merged = play(plan, workload)
    assert outcome.row.migrations > 5
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    single, apart = play(plan, workload)
    assert single.steps > outcome.steps
    assert physics(apart) == physics(merged)
    samples = merged.tables["samples"]
    assert max(sample.owned_pages for sample in samples if sample.host_id >= 0) <= USABLE


def test_small_plans_have_orders_of_their_own() -> None:
    """A plan without orders moves nobody."""
    workload = machines()
    assert play(small_plan(workload), workload)[0].row.migrations == 0
