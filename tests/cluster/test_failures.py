"""Hosts that fail: what is lost with them, what is started again where and when, and what comes back."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.agenda import Agenda, Arrival, Departure, Failure, Item, Recovery, Rescue
from podcluster.cluster.failures import YEAR_NS, Priority, draw_failures, priority_of
from podcluster.cluster.orders import Order
from podcluster.cluster.plan import Plan
from podcluster.cluster.rescue import Lost, restart_order
from podcluster.config import FailureConfig, PlacementConfig
from podcluster.records.hosts import Ask, HostSpec, HostView
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.rows import DomainRow, EventRow
from podcluster.units import NS_PER_S
from tests.cluster.story import HOUR_S, USABLE, ListSink, machine, machines, physics, play, small_plan

FAIL_S, DELAY_S = 1000.0, 120


def plan_with(workload: Workload, *orders: Order, hosts: int = 3, failure: FailureConfig | None = None) -> Plan:
    """The small plan, in which these things happen to hosts."""
    return replace(small_plan(workload, hosts=hosts), orders=orders, failure=failure or FailureConfig())


def at(seconds: float, item: Item) -> Order:
    """One of them."""
    return Order(int(seconds * NS_PER_S), item)


def immortal(count: int, pages: int = 1000, departure_s: float | None = None) -> Workload:
    """Machines of which the fake host lets none die by itself: three times as many are looked through."""
    found: list[MachineRequest] = []
    domain_id = 0
    while len(found) < count:
        one = Workload((machine(domain_id, 0.0),))
        if play(small_plan(one, hosts=1), one)[1].tables["domains"][0].fate == "running":
            found.append(machine(domain_id, 0.0, departure_s, pages))
        domain_id += 1
    return Workload(tuple(found))


def named(name: str, requests: Sequence[MachineRequest]) -> tuple[MachineRequest, ...]:
    """Members of one group."""
    return tuple(replace(one, name=f"{name}{one.domain_id}") for one in requests)


def apart(plan: Plan, small: int | None = None) -> Plan:
    """Those named db strictly apart, by first fit; the host `small` has half of what the others have."""
    placement = PlacementConfig(policy="first_fit", anti_affinity=["db*"], strict_groups=True)
    specs = (replace(spec, usable_pages=USABLE // 2) if spec.host_id == small else spec for spec in plan.specs)
    return replace(plan, specs=tuple(specs), placement=placement)


def rows_of(sink: ListSink) -> dict[tuple[int, int], DomainRow]:
    """Rows by domain and attempt."""
    return {(row.domain_id, row.attempt): row for row in sink.tables["domains"]}


def kinds(sink: ListSink) -> Counter[str]:
    """How many events of each kind."""
    events: list[EventRow] = sink.tables["events"]
    return Counter(event.kind for event in events)


def test_what_a_host_took_is_started_again_elsewhere() -> None:
    """Ten on host 0, which dies at 1,000 s: ten rows host_failed there, ten on others after 120 s."""
    workload = immortal(12)
    outcome, sink = play(plan_with(workload, at(FAIL_S, Failure(0))), workload)
    rows = rows_of(sink)
    failed = [row for row in rows.values() if row.fate == "host_failed"]
    assert len(failed) == 10
    for row in failed:
        assert (row.host_id, row.end_ns, row.origin) == (0, int(FAIL_S * NS_PER_S), "boot")
        again = rows[row.domain_id, 2]
        assert (again.fate, again.origin, again.host_id > 0) == ("running", "ha", True)
        assert again.boot_start_ns == again.arrival_ns == int((FAIL_S + DELAY_S) * NS_PER_S)
    assert kinds(sink)["host_failed"] == 1 and kinds(sink)["ha_restart"] == 10
    run = outcome.row
    assert (run.host_failures, run.ha_restarts, run.restarts, run.fate_host_failed) == (1, 10, 0, 10)
    assert run.boots_started == 22 and run.fate_running == 12


def test_what_is_known_of_a_failure_only_after_the_epoch() -> None:
    """Without any delay the restart comes just after the epoch of the failure: 1 ns past its end."""
    workload = immortal(1)
    failure = FailureConfig(restart_delay_s=0)
    _, sink = play(plan_with(workload, at(1003.0, Failure(0)), failure=failure), workload)
    assert rows_of(sink)[workload.requests[0].domain_id, 2].arrival_ns == 1010 * NS_PER_S + 1


def test_a_host_comes_back_empty_and_is_used_again() -> None:
    """Down from 1,000 to 1,600 s: what arrives meanwhile goes elsewhere, what arrives after it goes there again."""
    first = immortal(1).requests[0]
    arrivals = [replace(first, domain_id=first.domain_id + 1000 * k, arrival_ns=s * NS_PER_S)
                for k, s in enumerate((500, 1001, 1599, 1601, 1700))]  # fmt: skip
    workload = Workload(tuple(arrivals))
    failure = FailureConfig(repair_s=600, ha=False)
    _, sink = play(plan_with(workload, at(FAIL_S, Failure(0)), failure=failure), workload)
    hosts = [row.host_id for row in sorted(rows_of(sink).values(), key=lambda row: row.arrival_ns)]
    assert hosts == [0, 1, 1, 0, 0]
    assert kinds(sink)["host_recovered"] == 1


def test_an_operator_brings_a_host_back_sooner() -> None:
    """A second failure while it is down does nothing; the repair of the first failure does not end the second one."""
    workload = immortal(1)
    orders = (
        at(1000, Failure(0)), at(1100, Failure(0)), at(1200, Recovery(0)), at(1300, Recovery(0)), at(1400, Failure(0)),
    )  # fmt: skip
    _, sink = play(plan_with(workload, *orders, failure=FailureConfig(repair_s=600, ha=False)), workload)
    events = [(event.kind, event.t_ns // NS_PER_S) for event in sink.tables["events"] if event.kind.startswith("host_")]
    assert events == [
        ("host_failed", 1000), ("host_recovered", 1200), ("host_failed", 1400), ("host_recovered", 2000)
    ]  # fmt: skip


def test_without_room_they_wait_and_start_when_the_host_is_back() -> None:
    """Two hosts full to the page; one dies: nobody fits until it is back after 900 s; tried every 20 s."""
    workload = immortal(20)
    failure = FailureConfig(repair_s=900)
    outcome, sink = play(plan_with(workload, at(FAIL_S, Failure(1)), hosts=2, failure=failure), workload)
    again = [row for row in rows_of(sink).values() if row.attempt == 2]
    assert len(again) == 10 and {row.host_id for row in again} == {1}
    assert {row.arrival_ns for row in again} == {int((FAIL_S + DELAY_S) * NS_PER_S)}
    assert {row.boot_start_ns for row in again} == {int((FAIL_S + 900) * NS_PER_S)}
    assert kinds(sink)["ha_waits"] == 10 and outcome.row.ha_restarts == 10


@pytest.mark.parametrize(
    ("departure_s", "retry_s", "ended_s"), [(None, 20, HOUR_S), (2000.0, 20, 2000), (None, None, 1120)]
)
def test_who_never_finds_room_is_rejected_in_the_end(
    departure_s: float | None, retry_s: float | None, ended_s: int
) -> None:
    """At the end of the run, when it was to leave, or at once where nobody tries again: a row with the next attempt."""
    workload = immortal(20, departure_s=departure_s)
    failure = FailureConfig(repair_s=None, retry_s=retry_s)
    _, sink = play(plan_with(workload, at(FAIL_S, Failure(1)), hosts=2, failure=failure), workload)
    again = [row for row in rows_of(sink).values() if row.attempt == 2]
    assert len(again) == 10
    assert {(row.fate, row.cause, row.origin, row.host_id) for row in again} == {("rejected", "no_host", "ha", -1)}
    assert {row.end_ns for row in again} == {ended_s * NS_PER_S}


def test_who_was_about_to_leave_is_not_started_again() -> None:
    """Leaving 60 s after the failure, within the delay: host_failed is their last row."""
    workload = immortal(3, departure_s=FAIL_S + 60)
    _, sink = play(plan_with(workload, at(FAIL_S, Failure(0))), workload)
    assert {(row.attempt, row.fate) for row in rows_of(sink).values()} == {(1, "host_failed")}


def test_with_no_host_up_nothing_is_placed() -> None:
    """The only host is down: a machine that arrives is rejected, in so many words."""
    later = replace(immortal(1).requests[0], arrival_ns=1500 * NS_PER_S)
    workload = Workload((later,))
    _, sink = play(plan_with(workload, at(FAIL_S, Failure(0)), hosts=1), workload)
    (row,) = sink.tables["domains"]
    assert (row.fate, row.cause) == ("rejected", "no_host")
    assert [event.text for event in sink.tables["events"] if event.kind == "reject"] == ["no host is up"]


def test_priorities_have_their_shares_and_their_order() -> None:
    """Of 3,000 domains a fifth unprotected and three tenths best effort, 4 standard errors; a draw is the domain's."""
    failure = FailureConfig(unprotected_share=0.2, best_effort_share=0.3)
    found = Counter(priority_of(failure, 1, domain_id) for domain_id in range(3000))
    shares: dict[Priority, float] = {"unprotected": 0.2, "best_effort": 0.3, "restart": 0.5}
    for priority, share in shares.items():
        assert abs(found[priority] / 3000 - share) < 4 * (share * (1 - share) / 3000) ** 0.5
    more = FailureConfig(unprotected_share=0.2, best_effort_share=0.5)
    for domain_id in range(100):
        if priority_of(failure, 1, domain_id) == "unprotected":
            assert priority_of(more, 1, domain_id) == "unprotected"


def test_unprotected_domains_stay_down() -> None:
    """All of one priority: restart brings back ten of ten, unprotected none."""
    workload = immortal(10)
    for share, restarts in ((0.0, 10), (1.0, 0)):
        failure = FailureConfig(unprotected_share=share)
        outcome, _ = play(plan_with(workload, at(FAIL_S, Failure(0)), failure=failure), workload)
        assert outcome.row.ha_restarts == restarts


def test_strict_groups_hold_for_who_is_started_again() -> None:
    """[PLACE-8] three that are to be apart on hosts 0 to 2, of which 0 dies: the plan's place, the roomiest, has a
    member, so it is started on a small fourth host, or, without one, when host 0 is back. Two that are to be together
    are started together, though the plan spreads them.
    """
    failure = FailureConfig(repair_s=900)
    for hosts, host_id, at_s in ((4, 3, FAIL_S + DELAY_S), (3, 0, FAIL_S + 900)):
        workload = Workload(named("db", immortal(3).requests))
        plan = apart(plan_with(workload, at(FAIL_S, Failure(0)), hosts=hosts, failure=failure), small=3)
        _, sink = play(plan, workload)
        again = rows_of(sink)[workload.requests[0].domain_id, 2]
        assert (again.host_id, again.boot_start_ns) == (host_id, int(at_s * NS_PER_S))
    workload = Workload(named("web", immortal(2).requests))
    for strict, hosts in ((False, 2), (True, 1)):
        together = PlacementConfig(policy="first_fit", affinity=["web*"], strict_groups=strict)
        _, sink = play(replace(plan_with(workload, at(FAIL_S, Failure(0))), placement=together), workload)
        assert len({row.host_id for row in sink.tables["domains"] if row.attempt == 2}) == hosts


def lost(domain_id: int, maxmem: int, priority: Priority = "restart") -> Lost:
    """A domain of half of its maxmem, without a host."""
    request = machine(domain_id, 0.0, pages=maxmem // 2)
    return Lost(request, Ask(maxmem // 2, maxmem, 0, domain_id), priority, 0)


def test_the_plan_comes_first_then_the_rest_largest_first() -> None:
    """D7.2 with static maxima: 60 and 30 go to the roomiest host as it is then, 50 has none; best effort is last."""
    views = [HostView(0, 100, 30, 60, 0, 2, 0), HostView(1, 100, 10, 5, 0, 1, 0)]
    ones = [lost(1, 30), lost(2, 60), lost(3, 50), lost(4, 200, "best_effort"), lost(5, 30)]
    found = [(one.request.domain_id, place) for one, place in restart_order(ones, views)]
    assert found == [(2, 1), (1, 0), (5, 1), (3, None), (4, None)]


def test_hosts_fail_as_a_poisson_process() -> None:
    """400 host-years at 12 a year: count and first failures against theory, 4 standard errors; none while down."""
    specs = [HostSpec(host_id, 1, 1) for host_id in range(400)]
    failure = FailureConfig(rate_per_host_year=12, repair_s=3600)
    orders = draw_failures(failure, specs, 5, YEAR_NS)
    down = 12 * 3600 * NS_PER_S / YEAR_NS
    expected = 400 * 12 / (1 + down)
    assert abs(len(orders) - expected) < 4 * expected**0.5
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for order in orders:
        assert isinstance(order.item, Failure)
        host_id = order.item.host_id
        assert order.at_ns - last.get(host_id, -YEAR_NS) > 3600 * NS_PER_S
        first.setdefault(host_id, order.at_ns)
        last[host_id] = order.at_ns
    # The first failure is exponential: within a mean it comes with 1 - 1/e.
    within, share = sum(at_ns < YEAR_NS / 12 for at_ns in first.values()), 1 - math.exp(-1)
    assert abs(within / 400 - share) < 4 * (share * (1 - share) / 400) ** 0.5
    assert draw_failures(failure, specs[:3], 5, YEAR_NS) == [
        order for order in orders if isinstance(order.item, Failure) and order.item.host_id < 3
    ]


def test_hosts_that_are_not_repaired_fail_once() -> None:
    """repair_s null: at most one failure a host."""
    specs = [HostSpec(host_id, 1, 1) for host_id in range(50)]
    orders = draw_failures(FailureConfig(rate_per_host_year=12, repair_s=None), specs, 5, YEAR_NS)
    assert max(Counter(order.item for order in orders).values()) == 1
    assert draw_failures(FailureConfig(), specs, 5, YEAR_NS) == []


def stormy(workload: Workload) -> Plan:
    """The story of 41 machines with hosts failing 4 times an hour each, soon repaired."""
    failure = FailureConfig(rate_per_host_year=4 * 24 * 365, repair_s=200, restart_delay_s=33, best_effort_share=0.3)
    plan = small_plan(workload)
    failures = tuple(draw_failures(failure, plan.specs, 7, plan.duration_ns))
    return replace(plan, failure=failure, failures=failures)


def test_merging_epochs_changes_no_row_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """[EP-1] [EP-3] with failures, repairs, restarts and waits in it: each epoch of 10 s on its own gives the same."""
    workload = machines()
    outcome, merged = play(stormy(workload), workload)
    assert outcome.row.host_failures > 3 and outcome.row.ha_restarts > 10 and kinds(merged)["ha_waits"] > 0
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    single, apart = play(stormy(workload), workload)
    assert single.steps > outcome.steps
    assert physics(apart) == physics(merged)


def test_no_host_is_promised_more_than_it_has_through_failures() -> None:
    """[EP-2] at every sample of the stormy hour."""
    workload = machines()
    _, sink = play(stormy(workload), workload)
    assert max(sample.owned_pages for sample in sink.tables["samples"] if sample.host_id >= 0) <= USABLE


def test_the_agenda_is_in_order_of_time_and_rank() -> None:
    """[AG-1] what is put in while items come out is among them; equal times by rank, then key, then entry."""
    agenda = Agenda()
    request = machine(0, 0.0)
    mixed = ((Rescue(), 0), (Arrival(request), 0), (Departure(7), 7), (Departure(3), 3), (Failure(1), 0))
    for one, key in mixed:
        agenda.add(10, one, key)
    agenda.add(20, Failure(2))
    found = []
    for at_ns, item in agenda.until(15):
        found.append((at_ns, type(item).__name__, getattr(item, "domain_id", None)))
        if isinstance(item, Arrival):
            agenda.add(12, Departure(9), 9)
    assert found == [
        (10, "Failure", None), (10, "Departure", 3), (10, "Departure", 7), (10, "Arrival", None), (10, "Rescue", None),
        (12, "Departure", 9),
    ]  # fmt: skip
    assert agenda.due_ns == 20
