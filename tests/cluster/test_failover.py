"""HA planning in a run (D7): what a pool bears, when it is overcommitted, and what is refused so that it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.agenda import Enabling, Evacuation, Failure, Migration
from podcluster.cluster.failover import WOULD_BREAK
from podcluster.cluster.failures import Priority, draw_failures, priority_of
from podcluster.cluster.orders import Order
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import Packed
from podcluster.cluster.resume import KeptPool
from podcluster.cluster.scheduler import Scheduler
from podcluster.config import Cell, Config, FailureConfig, PlacementConfig
from podcluster.io.digest import digest
from podcluster.io.load import load_results
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.rows import EventRow
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S
from tests.cluster.fake import make_fake
from tests.cluster.story import HOUR_S, ListSink, machines, physics, play, small_plan
from tests.cluster.test_failures import FAIL_S, at, immortal, kinds, plan_with, rows_of
from tests.cluster.test_resume import PACKING, CutError, MortalPool, Shelf, Ticks

MakeConfig = Callable[..., Config]

ONE = FailureConfig(tolerate=1)
OVER = FailureConfig(tolerate=1, allow_overcommit=True)


def told(sink: ListSink) -> list[tuple[str, float, int]]:
    """What was said of the plan: kind, second, host failures that there is a plan for."""
    events: list[EventRow] = sink.tables.get("events", [])
    return [
        (event.kind, event.t_ns // NS_PER_S, int(event.text.split(": ")[1].split(";")[0]))
        for event in events
        if event.kind in ("ha_overcommitted", "ha_planned")
    ]


@pytest.mark.parametrize(("count", "tolerated"), [(0, 3), (1, 2), (5, 2), (6, 1), (10, 1)])
def test_how_many_failures_a_pool_bears(count: int, tolerated: int) -> None:
    """D7.1, D7.5: guests of 2,000 pages at static maximum, all on the first of three hosts of 10,000. Ten fit on the
    other two; of five, three go to one and two to the other, which is then left for all; six would need more than that.
    """
    workload = immortal(count)
    outcome, sink = play(plan_with(workload, failure=ONE), workload)
    assert (outcome.row.failures_tolerated_min, outcome.row.overcommitted_ns) == (tolerated, 0)
    assert outcome.row.fate_running == count and told(sink) == []


def test_a_cluster_that_votes_bears_fewer_than_half() -> None:
    """D7.5: five of three hosts' guests would bear two failures."""
    workload = immortal(5)
    outcome, _ = play(plan_with(workload, failure=replace(ONE, cluster_stack=True)), workload)
    assert outcome.row.failures_tolerated_min == 1


def test_without_a_number_nobody_plans() -> None:
    """The columns are null, nothing is refused and nothing said."""
    workload = immortal(12)
    outcome, sink = play(plan_with(workload), workload)
    assert (outcome.row.failures_tolerated_min, outcome.row.overcommitted_ns) == (None, None)
    assert outcome.row.fate_running == 12 and told(sink) == []


def test_a_start_that_breaks_the_plan_is_refused() -> None:
    """D7.7: with an eleventh guest, on host 1, the ten of host 0 would find room for nine."""
    workload = immortal(12)
    outcome, sink = play(plan_with(workload, failure=ONE), workload)
    rows = rows_of(sink)
    refused = {one.domain_id for one in workload.requests[10:]}
    for (domain_id, _), row in rows.items():
        expected = ("rejected", "ha_plan", -1) if domain_id in refused else ("running", "", 0)
        assert (row.fate, row.cause, row.host_id) == expected
    texts = [event.text for event in sink.tables["events"] if event.kind == "reject"]
    assert len(texts) == 2 and all(text.startswith(f"{WOULD_BREAK}: started on host 1 ") for text in texts)
    assert (outcome.row.failures_tolerated_min, told(sink)) == (1, [])


def test_starts_that_are_placed_together_cost_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool is looked at when the run begins, once for twelve starts, two of which are refused, and after them."""
    looks: list[None] = []
    booked = Scheduler.booked

    def counted(scheduler: Scheduler) -> Any:
        looks.append(None)
        return booked(scheduler)

    monkeypatch.setattr(Scheduler, "booked", counted)
    workload = immortal(12)
    looks.clear()
    outcome, _ = play(plan_with(workload, failure=ONE), workload)
    assert (outcome.row.fate_rejected, len(looks)) == (2, 3)


def test_a_pool_that_may_be_overcommitted_says_when_it_is() -> None:
    """The same starts go on; from there until all leave at 2,000 s there is no plan."""
    workload = immortal(12, departure_s=2000.0)
    outcome, sink = play(plan_with(workload, failure=OVER), workload)
    assert told(sink) == [("ha_overcommitted", 0, 0), ("ha_planned", 2000, 3)]
    assert outcome.row.fate_shut_down == 12
    assert (outcome.row.failures_tolerated_min, outcome.row.overcommitted_ns) == (0, 2000 * NS_PER_S - 1)


def test_only_time_after_the_warm_up_counts() -> None:
    """The twelve leave within it, or 500 s after it."""
    for departure_s, tolerated, overcommitted_s in ((1000.0, 3, 0), (2000.0, 0, 500)):
        workload = immortal(12, departure_s=departure_s)
        plan = replace(plan_with(workload, failure=OVER), warmup_ns=1500 * NS_PER_S)
        outcome, _ = play(plan, workload)
        assert outcome.row.failures_tolerated_min == tolerated
        assert outcome.row.overcommitted_ns == overcommitted_s * NS_PER_S


def test_a_failure_uses_up_the_plan_and_a_repair_mends_it() -> None:
    """D7.4: ten on host 0 of three, which dies for 600 s: they find room, five on each, and would not once more. Nobody
    who is protected is kept from starting again.
    """
    workload = immortal(10)
    failure = replace(ONE, repair_s=600)
    outcome, sink = play(plan_with(workload, at(FAIL_S, Failure(0)), failure=failure), workload)
    assert told(sink) == [("ha_overcommitted", 1000, 0), ("ha_planned", 1600, 1)]
    assert (outcome.row.ha_restarts, outcome.row.failures_tolerated_min) == (10, 0)
    assert outcome.row.overcommitted_ns == 600 * NS_PER_S


def test_who_has_lost_a_host_and_finds_none_is_in_no_plan() -> None:
    """Twenty on two hosts in which nobody plans for any failure: ten wait from 1,000 s to the end."""
    workload = immortal(20)
    failure = FailureConfig(tolerate=0, repair_s=None)
    outcome, sink = play(plan_with(workload, at(FAIL_S, Failure(1)), hosts=2, failure=failure), workload)
    assert told(sink) == [("ha_overcommitted", 1000, 0)]
    assert outcome.row.overcommitted_ns == (HOUR_S - 1000) * NS_PER_S


def test_a_guest_with_a_device_is_in_no_plan(make_config: MakeConfig) -> None:
    """D7.6: not agile, so that no failure is tolerated, and the first of them is refused."""
    workload = immortal(2)
    plan = plan_with(workload, failure=ONE)
    guest = make_config("guest.passthrough=true").guest
    plan = replace(plan, hosts=replace(plan.hosts, guests={"linux": guest}))
    outcome, _ = play(plan, workload)
    assert (outcome.row.fate_rejected, outcome.row.failures_tolerated_min) == (2, 3)


SHARES = replace(ONE, best_effort_share=0.5, repair_s=600)


def mixed(large: Priority) -> tuple[Workload, MachineRequest]:
    """Five protected guests without dynamic memory, of 1,200 pages, which the first host takes, and one that has all of
    the second at its static maximum: with the third host left, one failure is planned for. The last of these by itself.
    """
    ones = immortal(40).requests
    of: dict[Priority, list[MachineRequest]] = {"restart": [], "best_effort": []}
    for one in ones:
        of[priority_of(SHARES, 7, one.domain_id)].append(one)
    small = [replace(one, memory_pages=1200, maxmem_pages=1200) for one in of["restart"][:5]]
    last = replace(of[large][-1], memory_pages=5000, maxmem_pages=10_000, arrival_ns=10 * NS_PER_S)
    return Workload((*small, last)), last


def refusals(sink: ListSink, kind: str) -> list[str]:
    """What events of this kind say."""
    return [event.text for event in sink.tables["events"] if event.kind == kind]


def test_best_effort_waits_where_it_would_break_the_plan() -> None:
    """Its host dies at 1,000 s. Only host 2 has room for it, and is what protects host 0: it waits for its own."""
    workload, last = mixed("best_effort")
    outcome, sink = play(plan_with(workload, at(FAIL_S, Failure(1)), failure=SHARES), workload)
    again = rows_of(sink)[last.domain_id, 2]
    assert (again.fate, again.host_id, again.boot_start_ns) == ("running", 1, 1600 * NS_PER_S)
    (text,) = refusals(sink, "ha_waits")
    assert text.startswith(f"{WOULD_BREAK}: started on host 2 ")
    assert (told(sink), outcome.row.failures_tolerated_min) == ([], 1)


def test_the_protected_start_again_whatever_becomes_of_the_plan() -> None:
    """The same guest, protected: host 2 is its place in the plan, and there is none any more for those of host 0."""
    workload, last = mixed("restart")
    _, sink = play(plan_with(workload, at(FAIL_S, Failure(1)), failure=SHARES), workload)
    again = rows_of(sink)[last.domain_id, 2]
    assert (again.fate, again.host_id, again.boot_start_ns) == ("running", 2, 1120 * NS_PER_S)
    assert told(sink) == [("ha_overcommitted", 1000, 0), ("ha_planned", 1600, 1)]


def test_the_protected_start_again_also_where_the_plan_did_not_see_them() -> None:
    """A host a guest, by vCPUs. Host 1 dies. In the plan its guest of 4,000 pages goes to host 2 (7,000 left, as on 3)
    and one more failure may come; but host 2 has no vCPU for it. On host 3 (3,000 left), that of host 2 (5,000) would
    have no place: host 0 has 4,000.
    """
    sizes, usable, cpus = (6000, 4000, 5000, 1000), (10_000, 10_000, 12_000, 8000), (2, 2, 2, 100)
    guests = [replace(one, memory_pages=pages, maxmem_pages=pages, arrival_ns=1 + k * 10 * NS_PER_S)
              for k, (one, pages) in enumerate(zip(immortal(4).requests, sizes, strict=True))]  # fmt: skip
    workload = Workload(tuple(guests))
    plan = replace(
        plan_with(workload, at(FAIL_S, Failure(1)), hosts=4, failure=replace(ONE, repair_s=None)),
        specs=tuple(HostSpec(k, usable[k] + 500, usable[k], cpus[k]) for k in range(4)),
        placement=PlacementConfig(policy="first_fit", vcpu_ratio=1),
    )
    _, sink = play(plan, workload)
    rows = rows_of(sink)
    assert [rows[one.domain_id, 1].host_id for one in guests] == [0, 1, 2, 3]
    again = rows[guests[1].domain_id, 2]
    assert (again.fate, again.host_id, again.boot_start_ns) == ("running", 3, 1120 * NS_PER_S)
    assert told(sink) == [("ha_overcommitted", 1120, 0)]


@pytest.mark.parametrize(("count", "refused"), [(5, 0), (6, 1)])
def test_a_host_is_emptied_within_the_plan(count: int, refused: int) -> None:
    """D7.8: of five on host 0, three and two go to the others, on which any five still fit; six would not."""
    workload = immortal(count)
    outcome, sink = play(plan_with(workload, at(1000, Evacuation(0)), failure=ONE), workload)
    assert kinds(sink)["evacuate_refused"] == refused and kinds(sink)["migrate_refused"] == 0
    assert outcome.row.fate_migrated == (0 if refused else count)
    assert (outcome.row.failures_tolerated_min, told(sink)) == (1, [])


def test_who_is_on_the_way_is_in_the_plan() -> None:
    """Ten on host 0, and an eleventh that is one too many: also while it is on no host, between 1 and 2, when something
    else is due just before it lands.
    """
    workload = immortal(11)
    one = workload.requests[10]
    orders = at(1000, Migration(one.domain_id, 2)), Order(1020 * NS_PER_S + 1, Enabling(0))
    _, sink = play(plan_with(workload, *orders, failure=OVER), workload)
    assert rows_of(sink)[one.domain_id, 2].boot_start_ns == 1020 * NS_PER_S + 1
    assert told(sink) == [("ha_overcommitted", 0, 0)]


def test_room_that_is_kept_is_nobody_elses() -> None:
    """Five of 1,800 pages on host 0, and one of 4,000 that nobody protects on its way from host 1 to host 2, which has
    been told and has nothing of it yet: three of the five fit on either. Another of 4,000 would take the place of two.
    """
    ones = immortal(40).requests
    protected = [one for one in ones if priority_of(SHARES, 7, one.domain_id) == "restart"][:5]
    others = [one for one in ones if priority_of(SHARES, 7, one.domain_id) == "best_effort"][:2]
    small = [replace(one, memory_pages=1800, maxmem_pages=1800) for one in protected]
    goes, comes = (replace(one, memory_pages=4000, maxmem_pages=4000, arrival_ns=s * NS_PER_S)
                   for one, s in zip(others, (20, 1015), strict=True))  # fmt: skip
    for order, fate in ((at(1000, Migration(goes.domain_id, 2)), "rejected"), (at(1000, Enabling(2)), "running")):
        workload = Workload((*small, goes, comes))
        _, sink = play(plan_with(workload, order, failure=SHARES), workload)
        rows = rows_of(sink)
        assert {rows[one.domain_id, 1].host_id for one in small} == {0} and rows[goes.domain_id, 1].host_id == 1
        assert rows[comes.domain_id, 1].fate == fate


def test_a_plan_that_gets_worse_is_said_again() -> None:
    """Four hosts with six guests on the first bear two failures and are to bear three; then the last dies, and the next
    to last.
    """
    workload = immortal(6)
    failure = replace(OVER, tolerate=3, repair_s=None)
    plan = plan_with(workload, at(1000, Failure(3)), at(1500, Failure(2)), hosts=4, failure=failure)
    _, sink = play(plan, workload)
    assert told(sink) == [("ha_overcommitted", 0, 2), ("ha_overcommitted", 1000, 1), ("ha_overcommitted", 1500, 0)]


def test_where_there_is_no_plan_nothing_is_refused() -> None:
    """D7.7: what asks for a start at 1,300 s, host 0 of three being down and the others full by static maxima."""
    ones = immortal(11).requests
    later = replace(ones[10], arrival_ns=1300 * NS_PER_S)
    workload = Workload((*ones[:10], later))
    for down in (True, False):
        orders = [at(FAIL_S, Failure(0))] if down else []
        _, sink = play(plan_with(workload, *orders, failure=replace(ONE, repair_s=None)), workload)
        row = rows_of(sink)[later.domain_id, 1]
        assert (row.fate, row.cause) == (("running", "") if down else ("rejected", "ha_plan"))


def test_an_operator_may_not_break_the_plan_either() -> None:
    """D7.7: neither by sending the large guest to host 2, nor by emptying host 2; of host 1, which may be emptied, it
    stays. Where overcommit is allowed it goes.
    """
    workload, last = mixed("best_effort")
    orders = at(1000, Migration(last.domain_id, 2)), at(1100, Evacuation(2)), at(1200, Evacuation(1))
    _, sink = play(plan_with(workload, *orders, failure=SHARES), workload)
    assert refusals(sink, "migrate_refused") == [WOULD_BREAK, WOULD_BREAK]
    assert refusals(sink, "evacuate_refused") == [WOULD_BREAK]
    assert kinds(sink)["evacuate"] == 1
    assert rows_of(sink)[last.domain_id, 1].fate == "running" and told(sink) == []
    allowed = replace(SHARES, allow_overcommit=True)
    _, sink = play(plan_with(workload, *orders[:1], failure=allowed), workload)
    assert rows_of(sink)[last.domain_id, 2].host_id == 2
    # Until it has landed it takes room on both hosts, and then there is host 1.
    assert [one[0] for one in told(sink)] == ["ha_overcommitted", "ha_planned"]


def planned(workload: Workload, *, allow_overcommit: bool) -> Plan:
    """An hour of five hosts that fail thrice each, soon repaired, and of which one is to be emptied."""
    failure = FailureConfig(
        rate_per_host_year=3 * 24 * 365, repair_s=200, restart_delay_s=33, best_effort_share=0.3, tolerate=1,
        allow_overcommit=allow_overcommit,
    )  # fmt: skip
    plan = small_plan(workload, hosts=5)
    failures = tuple(draw_failures(failure, plan.specs, 7, plan.duration_ns))
    orders = at(200, Evacuation(0)), at(900, Enabling(0))
    return replace(plan, failure=failure, failures=failures, orders=orders)


@pytest.mark.parametrize("allow_overcommit", [False, True])
def test_merging_epochs_changes_no_row_of_a_plan(monkeypatch: pytest.MonkeyPatch, allow_overcommit: bool) -> None:
    """[EP-1] what is said of a plan, and what is refused for it, is the same with each epoch of 10 s on its own."""
    workload = machines()
    outcome, merged = play(planned(workload, allow_overcommit=allow_overcommit), workload)
    causes = {row.cause for row in merged.tables["domains"]}
    assert ("ha_plan" in causes) is not allow_overcommit
    assert {"ha_overcommitted", "ha_planned"} <= set(kinds(merged))
    assert outcome.row.overcommitted_ns is not None and 0 < outcome.row.overcommitted_ns < HOUR_S * NS_PER_S
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    single, apart = play(planned(workload, allow_overcommit=allow_overcommit), workload)
    assert single.steps > outcome.steps
    assert physics(apart) == physics(merged)


def test_a_run_that_is_cut_goes_on_with_its_plan() -> None:
    """[CK-1] the same hour, killed after 30 steps and again after 90 further ones: the same rows."""
    workload = machines()
    plan = planned(workload, allow_overcommit=False)
    shelf = Shelf()

    def kept(left: int) -> KeptPool:
        def open_pool(packed: Packed) -> MortalPool:
            pool = MortalPool(plan.specs, plan.hosts, make_fake, PACKING, packed)
            pool.left = left
            return pool

        return KeptPool(open_pool, [spec.host_id for spec in plan.specs], "inline", shelf, 0, Ticks())

    for left in (30, 90):
        with pytest.raises(CutError):
            play(plan, workload, kept(left))
        assert shelf.steps > 0
    assert physics(play(plan, workload, kept(10**9))[1]) == physics(play(plan, workload)[1])


# Four guests of 4 GiB fill a host of 20 GiB at their static maximum; two hosts, one of which dies.
REAL = (
    "workload=alike",
    "workload.machines=6",
    "workload.maxmem_mib=4096",
    "workload.boot_spread_s=30",
    "workload.orders=[300 host-fail 0]",
    "cluster.hosts=2",
    "cluster.host_mem_gib=20",
    "host.toolstack=xapi",
    "placement=xapi",
    "failure.tolerate=1",
    "failure.repair_s=200",
    "failure.restart_delay_s=20",
    "study.duration_s=700",
    "study.telemetry_s=0",
    "study.figure=false",
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of real hosts, computed in this process."""
    from podcluster.cli import compose

    folder = tmp_path_factory.mktemp("planned")
    run_study([Cell(config=compose([*REAL, "engine=inline"]))], out_dir=folder)
    return folder


def test_real_hosts_are_planned_for(real: Path) -> None:
    """Four of six guests are started, for no more would fit on one host; while the other is down there is no plan."""
    tables = load_results(real)
    domains, events = tables["domains"], tables["events"]
    first = domains["attempt"] == 1
    assert sorted(domains["cause"][first]) == ["", "", "", "", "ha_plan", "ha_plan"]
    plan = [(kind, t_ns // NS_PER_S) for kind, t_ns in zip(events["kind"], events["t_ns"], strict=True)
            if kind in ("ha_overcommitted", "ha_planned")]  # fmt: skip
    assert plan == [("ha_overcommitted", 300), ("ha_planned", 500)]
    runs = tables["runs"]
    assert (runs["failures_tolerated_min"].tolist(), runs["overcommitted_ns"].tolist()) == ([0], [200 * NS_PER_S])


def test_the_dead_that_are_preserved_take_room(make_config: MakeConfig, tmp_path: Path) -> None:
    """Eight guests die on the first host and stay there, with twice what it has at their static maximum: it is no place
    for whoever would be started on the second.
    """
    dying = (
        "guest=linux_no_driver", "overcommit=2", "host.on_crash=preserve", "workload.orders=[]", "workload.machines=14",
        "workload.boot_spread_s=1200", "study.duration_s=1300", "placement=first_fit", "engine=inline",
    )  # fmt: skip
    run_study([Cell(config=make_config(*REAL, *dying))], out_dir=tmp_path)
    domains = load_results(tmp_path)["domains"]
    ends = sorted(zip(domains["arrival_ns"], domains["host_id"], domains["cause"], strict=True))
    assert [(int(host_id), cause) for _, host_id, cause in ends] == [(0, "debt")] * 8 + [(-1, "ha_plan")] * 6


@pytest.mark.ray
def test_ray_gives_the_digest_of_this_process_with_a_plan(
    make_config: MakeConfig, ray_cluster: None, real: Path, tmp_path: Path
) -> None:
    """Every table, byte for byte."""
    run_study([Cell(config=make_config(*REAL, "engine=ray", "engine.actors=2"))], out_dir=tmp_path)
    assert digest(tmp_path) == digest(real)
