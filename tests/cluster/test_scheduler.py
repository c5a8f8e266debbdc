"""What a scheduler sees, and who gets the memory: fresh views, old views and lost races, groups, samples, forecasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.asks import LATEST_NS, Forecasts
from podcluster.cluster.ledger import rejection
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import HostPlan, InlinePool
from podcluster.cluster.scheduler import Scheduler
from podcluster.config import COMPARES_ROOMS, POLICIES, PlacementConfig
from podcluster.placement.batch import Batch
from podcluster.placement.policy import make_policy
from podcluster.records.demand import Demand
from podcluster.records.hosts import HostSpec, HostView, Rejected
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S, PAGES_PER_MIB
from tests.cluster.fake import FakeHost
from tests.cluster.story import HOUR_S, USABLE, ListSink, machine, machines, physics, play, small_plan


class Immortal(FakeHost):
    """A host on which guests end only when they are told to."""

    def start(self, request: MachineRequest) -> None:
        """Without the death that was drawn."""
        super().start(request)
        self.deaths.clear()


def immortal(spec: HostSpec, plan: HostPlan) -> FakeHost:
    """For a pool."""
    return Immortal(spec, plan.seed, plan.telemetry_ns)


def placed_by(workload: Workload, hosts: int, policy: str, **keys: Any) -> tuple[Plan, ListSink, int]:
    """Run it on hosts without deaths; the lost races beside the rows."""
    plan = replace(small_plan(workload, hosts=hosts), placement=PlacementConfig(policy=policy, **keys))
    plan = replace(plan, specs=tuple(replace(spec, cpus=8) for spec in plan.specs))
    outcome, sink = play(plan, workload, InlinePool(plan.specs, plan.hosts, immortal))
    return plan, sink, outcome.row.lost_races


def where(sink: ListSink) -> dict[int, tuple[int, str]]:
    """Host and cause of each domain."""
    return {row.domain_id: (row.host_id, row.cause) for row in sink.tables["domains"]}


# -- a scenario that is worked out twice -------------------------------------------------------------------------------


def worked_out(requests: Sequence[MachineRequest], hosts: int, policy: str) -> dict[int, int]:
    """The same by a short program of its own: RAM alone, epochs of 10 s, who has left is known at the next epoch."""
    free, last = [USABLE] * hosts, 0
    here: list[tuple[int, int, int]] = []
    answer: dict[int, int] = {}
    for r in sorted(requests, key=lambda r: (r.arrival_ns, r.domain_id)):
        epoch = (max(r.arrival_ns, 1) - 1) // 10**10 * 10**10
        for gone in [x for x in here if x[0] <= epoch]:
            free[gone[1]] += gone[2]
            here.remove(gone)
        fits = [h for h in range(hosts) if free[h] >= r.memory_pages and r.maxmem_pages <= USABLE]
        if not fits:
            answer[r.domain_id] = -1
            continue
        if policy == "first_fit":
            h = fits[0]
        elif policy == "next_fit":
            h = min(fits, key=lambda h: (h - last) % hosts)
        else:
            h = sorted(fits, key=lambda h: free[h] if policy == "best_fit" else -free[h])[0]
        free[h] -= r.memory_pages
        last, answer[r.domain_id] = h, h
        if r.departure_ns is not None and r.departure_ns <= HOUR_S * 10**9:
            here.append((max(r.departure_ns, max(r.arrival_ns, 1) + 1), h, r.memory_pages))
    return answer


@pytest.mark.parametrize("policy", ["first_fit", "next_fit", "best_fit", "worst_fit"])
@pytest.mark.parametrize("hosts", [3, 17])
def test_a_run_places_as_a_program_of_its_own_works_out(policy: str, hosts: int) -> None:
    """250 machines that come and go within an hour, on hosts that fill: every host and every rejection."""
    workload = machines(250, seed=8)
    _, sink, _ = placed_by(workload, hosts, policy)
    expected = worked_out(workload.requests, hosts, policy)
    assert {domain_id: host_id for domain_id, (host_id, _) in where(sink).items()} == expected
    assert len(set(expected.values())) == hosts + 1  # all hosts, and some rejections


# -- old views ---------------------------------------------------------------------------------------------------------


def test_the_host_decides_and_the_loser_is_placed_again() -> None:
    """Three of 6,000 pages in one epoch on two hosts of 10,000, views 60 s old: all see host 0 empty, then host 1."""
    workload = Workload(tuple(machine(i, 200.0 + i, pages=5000 + 1000 * (i < 3)) for i in range(3)))
    workload = Workload(tuple(replace(r, maxmem_pages=r.memory_pages) for r in workload.requests))
    _, sink, lost = placed_by(workload, 2, "first_fit", view_age_s=60)
    assert where(sink) == {0: (0, ""), 1: (1, ""), 2: (-1, "no_host")}
    assert lost == 3
    races = [(event.domain_id, event.host_id) for event in sink.tables["events"] if event.kind == "lost_race"]
    assert races == [(1, 0), (2, 0), (2, 1)]
    # Fresh views lose no race, and do not change who finds room.
    _, sink, lost = placed_by(workload, 2, "first_fit")
    assert (where(sink), lost) == ({0: (0, ""), 1: (1, ""), 2: (-1, "no_host")}, 0)


def test_retries_are_limited() -> None:
    """Without one the second is rejected for the race it lost, though host 1 is empty."""
    workload = Workload(tuple(replace(machine(i, 200.0, pages=6000), maxmem_pages=6000) for i in range(2)))
    _, sink, lost = placed_by(workload, 2, "first_fit", view_age_s=60, retries=0)
    assert where(sink) == {0: (0, ""), 1: (-1, "lost_race")}
    assert lost == 1


def test_a_report_is_seen_when_it_is_as_old_as_views_are() -> None:
    """Full from 200 s to 305 s. Arrivals at 255 s still see it empty, at 275 s full; at 355 s they see it full, though
    it is empty since 310 s, and at 375 s they find it.
    """
    for arrival_s, host_id, lost in ((255.0, -1, 1), (275.0, -1, 0), (355.0, -1, 0), (375.0, 0, 0)):
        first = replace(machine(0, 200.0, 305.0, pages=8000), maxmem_pages=8000)
        second = replace(machine(1, arrival_s, pages=8000), maxmem_pages=8000)
        _, sink, races = placed_by(Workload((first, second)), 1, "first_fit", view_age_s=60)
        assert (where(sink)[1][0], races) == (host_id, lost), arrival_s


@pytest.mark.parametrize("keys", [{"view_age_s": 35}, {"view_age_s": 600}, {"by": "demand"}, {"by": "target"}])
def test_merging_empty_epochs_changes_no_row(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """[EP-1], [EP-6] the story with each epoch on its own and with long merges, views of an age, and sampled ones."""
    workload = machines(60)
    plan = replace(small_plan(workload), placement=PlacementConfig(policy="best_fit", **keys))
    tables, steps = [], []
    for most_ns in (0, 10**18):
        monkeypatch.setattr(run_module, "MOST_MERGED_NS", most_ns)
        monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
        outcome, sink = play(plan, workload)
        tables.append(physics(sink))
        steps.append(outcome.steps)
    assert tables[0] == tables[1]
    assert steps[0] == 360 and steps[1] < 250


def test_what_a_host_could_not_build_is_free_again() -> None:
    """A placement after which the host reports just what it reported before: its memory is there for the next."""
    first, second = (replace(machine(i, 1.0, pages=8000), maxmem_pages=8000) for i in range(2))
    plan = small_plan(Workload((first, second)), hosts=1)
    scheduler = Scheduler(plan, make_policy("first_fit"))
    assert scheduler.place([first], 0)[0].answer == 0
    assert isinstance(scheduler.place([second], 0)[0].answer, Rejected)
    empty = HostView(0, USABLE, 0, 0, USABLE, 0, 10**10)
    failed = replace(rejection(first, 5, "no_memory"), host_id=0, fate="build_failed")
    scheduler.report(10**10, [HostReport(0, 10**10, empty, (failed,))])
    assert scheduler.place([second], 10**10)[0].answer == 0


@pytest.mark.parametrize("restarts", [False, True])
def test_a_crashed_domain_keeps_its_vcpus_only_if_it_is_built_again(restarts: bool) -> None:
    """Two vCPUs of two: after the crash the next fits, unless the crashed one comes back; when that leaves, it does."""
    first, second = machine(0, 1.0, 100.0), machine(1, 50.0)
    placement = PlacementConfig(policy="first_fit", vcpu_ratio=1)
    plan = replace(small_plan(Workload((first, second)), hosts=1), placement=placement, restarts=restarts)
    plan = replace(plan, specs=tuple(replace(spec, cpus=2) for spec in plan.specs))
    scheduler = Scheduler(plan, make_policy(placement))
    assert scheduler.place([first], 0)[0].answer == 0
    empty = HostView(0, USABLE, 0, 0, USABLE, 0, 10**10)
    crashed = replace(rejection(first, 5, "debt"), host_id=0, fate="pod_oom")
    scheduler.report(10**10, [HostReport(0, 10**10, empty, (crashed,))])
    answer = scheduler.place([second], 10**10)[0].answer
    assert isinstance(answer, Rejected) == restarts
    scheduler.leaves(0, 10**11)
    scheduler.report(10**11, [HostReport(0, 10**11, empty)])
    assert not restarts or scheduler.place([second], 10**11)[0].answer == 0


def test_a_death_in_a_quiet_hour_is_seen_in_time() -> None:
    """[EP-6] one that fills its host dies within 200 s, and nothing is due until 1,000 s: what arrives then and sees
    reports 500 s old finds the room, though without views of an age the quiet time would be one step; reports
    980 s old are of 10 s, when it lived.
    """
    full = [replace(machine(i, 1.0, pages=8000), maxmem_pages=8000) for i in range(30)]
    alone = [play(small_plan(Workload((one,)), hosts=1), Workload((one,)))[1] for one in full]
    rows = [sink.tables["domains"][0] for sink in alone]
    dies = next(full[i] for i, row in enumerate(rows) if row.fate == "pod_oom" and row.end_ns > 10 * NS_PER_S)
    late = replace(machine(99, 1000.0, pages=8000), maxmem_pages=8000)
    plan = small_plan(Workload((dies, late)), hosts=1)
    for view_age_s, host_id in ((500, 0), (980, -1)):
        placement = PlacementConfig(policy="first_fit", view_age_s=view_age_s)
        outcome, sink = play(replace(plan, placement=placement), Workload((dies, late)))
        assert where(sink)[99][0] == host_id
        assert outcome.row.lost_races == 0
        assert outcome.steps < 12


# -- what else placement looks at --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_every_host_within_its_memory(policy: str) -> None:
    """[EP-2] deaths and departures, by every measure: targets within U at every sample, everybody has a row."""
    workload = machines(120)
    for by in ("dynamic_min", "target", "maxmem", "blend", "demand"):
        keys: dict[str, Any] = {"vcpu_ratio": 10} if policy == "dot_product" else {}
        keys |= {} if policy in COMPARES_ROOMS else {"memory_ratio": 2}
        plan = replace(small_plan(workload), placement=PlacementConfig(policy=policy, by=by, **keys))
        plan = replace(plan, specs=tuple(replace(spec, cpus=8) for spec in plan.specs))
        _, sink = play(plan, workload)
        assert max(s.target_pages for s in sink.tables["samples"] if s.host_id >= 0) <= USABLE
        assert len(sink.tables["domains"]) == len(workload.requests)
        assert {row.host_id for row in sink.tables["domains"]} > {0, 1}


def test_members_of_a_group_are_spread_and_kept_together() -> None:
    """Six named db apart and six named web together on three hosts, in one epoch and over time."""
    requests = [replace(machine(i, 10.0 * i + 1, pages=500), name=f"{'db' if i % 2 else 'web'}{i}") for i in range(12)]
    _, sink, _ = placed_by(Workload(tuple(requests)), 3, "first_fit", anti_affinity=["db*"], affinity=["web*"])
    assert Counter(h for d, (h, _) in where(sink).items() if d % 2 == 0) == {0: 6}
    assert Counter(h for d, (h, _) in where(sink).items() if d % 2 == 1) == {0: 2, 1: 2, 2: 2}
    _, sink, _ = placed_by(Workload(tuple(requests)), 3, "first_fit", anti_affinity=["db*"], strict_groups=True)
    assert Counter(h for d, (h, _) in where(sink).items() if d % 2) == {0: 1, 1: 1, 2: 1, -1: 3}


def test_machines_go_to_the_host_that_they_prefer() -> None:
    """D6.1: six of twelve have XAPI's affinity with host 2, and are there whatever is drawn for the others."""
    requests = [replace(machine(i, 10.0 * i + 1, pages=500), name=f"{'db' if i % 2 else 'web'}{i}") for i in range(12)]
    _, sink, _ = placed_by(Workload(tuple(requests)), 3, "xapi", affinity=["db*@2", "db*@1"])
    assert {h for d, (h, _) in where(sink).items() if d % 2} == {2}
    assert {h for d, (h, _) in where(sink).items() if d % 2 == 0} > {0}


def test_a_member_that_left_leaves_its_host_to_another() -> None:
    """One host, strictly apart: the second is rejected while the first is there, the third is not."""
    times = [(1.0, 95.0), (50.0, None), (121.0, None)]
    requests = [replace(machine(i, at_s, until_s), name="db") for i, (at_s, until_s) in enumerate(times)]
    _, sink, _ = placed_by(Workload(tuple(requests)), 1, "first_fit", anti_affinity=["db"], strict_groups=True)
    assert where(sink) == {0: (0, ""), 1: (-1, "no_host"), 2: (0, "")}


def test_vcpus_are_given_back() -> None:
    """One host of 8 CPUs at a ratio of 0.5, machines of 2 vCPUs: two fit, a third only when one has left."""
    requests = [machine(0, 1.0, 55.0), machine(1, 2.0), machine(2, 3.0), machine(3, 71.0)]
    _, sink, _ = placed_by(Workload(tuple(requests)), 1, "first_fit", vcpu_ratio=0.5)
    assert where(sink) == {0: (0, ""), 1: (0, ""), 2: (-1, "no_host"), 3: (0, "")}


def test_demand_is_seen_at_samples_and_forecast_until_then() -> None:
    """Worst fit by demand on two hosts: a machine that wants 100 of its 2,000 pages draws others to its host by
    forecast; once sampled (FakeHost reports what is owned, 1,000) no more.
    """
    quiet = replace(machine(0, 1.0), demand=Demand.flat(100))
    busy = replace(machine(1, 2.0), demand=Demand.flat(700))
    third, late = machine(2, 3.0), machine(3, 200.0, pages=400)
    _, sink, _ = placed_by(Workload((quiet, busy, third, late)), 2, "worst_fit", by="demand")
    # Forecast: 100 on host 0, 700 on host 1, so the third joins host 0; sampled 2,000 and 1,000, so the late goes to 1.
    assert [where(sink)[i][0] for i in range(4)] == [0, 1, 0, 1]


# -- forecasts ---------------------------------------------------------------------------------------------------------


def ask(request: MachineRequest, end_s: int = 1000, seed: int = 1, **keys: Any) -> Any:
    """The ask of one machine."""
    policy = keys.pop("policy", "chance_constrained")
    cfg = PlacementConfig(policy=policy, **keys)
    return Forecasts(cfg, {request.domain_id: request.memory_pages + 7}, end_s * NS_PER_S, seed).ask(request)


def test_demand_is_forecast_from_the_machine_or_from_shares() -> None:
    """Half its stay at 0 and half at 512 pages (2 MiB): mean 1 MiB, variance 1; shares of maxmem know nothing of it."""
    times_ns = np.array([0, 499 * NS_PER_S, 499 * NS_PER_S + 1], dtype=np.int64)  # the 144th look is at 496 s
    steps = Demand(times_ns, np.array([0, 0, 512], dtype=np.int64))
    request = replace(machine(0, 0.0, pages=2560), demand=steps)
    found = ask(request)
    assert (found.mean_pages, found.var_mib2) == (256, 1)
    assert found.overhead_pages == 7 and found.need_pages == 2567 and found.vcpus == 2
    found = ask(request, forecast="shares", mean_share=0.25, sd_share=0.1)
    assert (found.mean_pages, found.var_mib2) == (1280, round((5120 * 0.1 / PAGES_PER_MIB) ** 2))
    assert ask(request, policy="first_fit").mean_pages == 0
    assert ask(request, policy="first_fit", by="demand", memory_ratio=1).mean_pages == 256


def test_departures_are_forecast_with_an_error_or_from_those_that_left() -> None:
    """Known: its own, the end of the run for who stays, off by a drawn factor. Observed: the mean of its class."""
    stays, leaves = machine(0, 10.0), machine(1, 10.0, 110.0)
    assert ask(stays, policy="lifetime_aware").leaves_ns == 1000 * NS_PER_S
    assert ask(leaves, policy="lifetime_aware").leaves_ns == 110 * NS_PER_S
    assert ask(leaves, policy="first_fit").leaves_ns == 0
    wrong = ask(leaves, policy="lifetime_aware", lifetime_error=1.0).leaves_ns
    assert wrong not in (0, 110 * NS_PER_S)
    assert wrong == ask(leaves, policy="lifetime_aware", lifetime_error=1.0).leaves_ns
    assert wrong != ask(leaves, policy="lifetime_aware", lifetime_error=1.0, seed=2).leaves_ns
    far = [ask(leaves, policy="lifetime_aware", lifetime_error=10.0, seed=seed) for seed in range(100)]
    assert max(Batch.of(far).leaves_ns) == LATEST_NS
    cfg = PlacementConfig(policy="lifetime_aware", lifetimes="observed")
    forecasts = Forecasts(cfg, {0: 1000, 1: 1000}, 1000 * NS_PER_S, 1)
    assert forecasts.ask(leaves).leaves_ns == 1000 * NS_PER_S
    forecasts.left(leaves, 50 * NS_PER_S)
    forecasts.left(stays, 30 * NS_PER_S)
    assert forecasts.ask(leaves).leaves_ns == (10 + 30) * NS_PER_S
    assert forecasts.ask(replace(leaves, os_class="windows")).leaves_ns == 1000 * NS_PER_S


def test_what_leaves_together_is_kept_together() -> None:
    """A short and a long life on two hosts, then another long one: best fit puts it to the first of equals, beside the
    short one; lifetime-aware to the long one, and host 0 is empty from 305 s on.
    """
    asked = (machine(0, 1.0, 305.0, pages=6000), machine(1, 2.0, pages=6000), machine(2, 3.0, pages=3000))
    requests = tuple(replace(request, maxmem_pages=request.memory_pages) for request in asked)
    empty = {}
    for policy, host_id in (("best_fit", 0), ("lifetime_aware", 1)):
        plan = replace(small_plan(Workload(requests), hosts=2), placement=PlacementConfig(policy=policy))
        outcome, sink = play(plan, Workload(requests), InlinePool(plan.specs, plan.hosts, immortal))
        assert [where(sink)[i][0] for i in range(3)] == [0, 1, host_id]
        empty[policy] = outcome.row.empty_hosts_mean
    # One host of two from 305 s to the end beside the first seconds of both.
    assert empty["best_fit"] == pytest.approx((1 + 2) / 2 / HOUR_S)
    assert empty["lifetime_aware"] == pytest.approx((1 + 2 + HOUR_S - 305) / 2 / HOUR_S)


def test_a_crashed_domain_that_is_built_again_takes_the_room_of_one_on_its_way() -> None:
    """Room is kept for two; then the host has 8,000 of its 10,000 pages taken again, so that it has none for the larger
    until it has less: nothing is booked beyond U [EP-2], and whoever comes or does not, nothing of it is left booked.
    """
    workload = Workload((machine(1, 0.0, pages=3000), machine(2, 0.0, pages=1500)))
    plan = small_plan(workload, hosts=2)
    scheduler = Scheduler(plan, make_policy(plan.placement, 7))

    def booked(taken_pages: int, at_s: int) -> int:
        """What is booked on host 1 once it has reported this much."""
        views = [HostView(host_id, USABLE, taken_pages * host_id, 0, USABLE, 0, at_s * NS_PER_S) for host_id in (0, 1)]
        scheduler.report(at_s * NS_PER_S, [HostReport(view.host_id, view.at_ns, view) for view in views])
        return scheduler.open_views()[1].committed_pages

    assert booked(4000, 10) == 4000
    for request in workload.requests:
        assert scheduler.expect(1, request)
    assert booked(4000, 20) == 8500
    assert booked(8000, 30) == 9500
    assert [scheduler.expected_on(domain_id) for domain_id in (1, 2)] == [1, 1]
    assert booked(4000, 40) == 8500
    assert booked(8000, 50) == 9500
    scheduler.give_up(1)
    assert booked(8000, 60) == 9500
    scheduler.give_up(2)
    assert booked(8000, 70) == 8000
    assert scheduler.open_views()[1].vcpus == 0
    scheduler.audit()
