"""Does a host that takes a step before the others report what it would have, and is it never sent anything in it?"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from podcluster.cluster.agenda import Agenda, Arrival, Departure, Evacuation, Failure, Item, Operation, Warmed
from podcluster.cluster.ahead import Ahead, of_next
from podcluster.cluster.exchange import ShardServer, Tag
from podcluster.cluster.orders import Order
from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import CommandsByHost, HostPlan, HostShard, Packing
from podcluster.config import POLICIES, PlacementConfig
from podcluster.errors import InvariantError
from podcluster.records.commands import Command, SetTarget, StartDomain, StopDomain
from podcluster.records.hosts import HostSpec, HostView
from podcluster.records.machines import Workload
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S
from tests.cluster.fake import FakeHost, make_fake
from tests.cluster.story import USABLE, ListSink, inline, machine, machines, play, small_plan

PACKING = Packing(pickle.dumps, pickle.loads)
STEP_NS = 10 * NS_PER_S


class EagerPool:
    """One shard in which whoever may goes ahead at once. Every so often it is packed, and made again of the bytes."""

    kind = "inline"
    actors = 0

    def __init__(self, plan: Plan, pack_every: int) -> None:
        self._plan, self._pack_every = plan, pack_every
        self._shard = self._begin({})
        self.steps = 0
        self.early: list[tuple[int, int, int]] = []  # host_id, when it went, least that arrived in that step

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step; then go ahead, and be packed."""
        reports = self._shard.advance(until_ns, commands)
        if ahead is not None:
            free = [report.host_id for report in reports if ahead.frees(report.view)]
            self._shard.go_ahead(ahead.until_ns, free)
            self.early += [(host_id, until_ns, ahead.least_pages) for host_id in free]
        self.steps += 1
        if self.steps % self._pack_every == 0:
            self._shard = self._begin(self._shard.pack(self._shard.host_ids))
        return reports

    def close(self) -> None:
        """Nothing is kept."""

    def _begin(self, packed: dict[int, bytes]) -> HostShard:
        shard = HostShard(self._plan.hosts, make_fake, PACKING)
        shard.add(self._plan.specs, packed)
        return shard


def rows(sink: ListSink) -> dict[str, list[Any]]:
    """All that is written but for `runs`, in the order in which it is."""
    return {table: list(map(str, found)) for table, found in sink.tables.items() if table != "runs"}


def both(plan: Plan, workload: Workload, pack_every: int = 7) -> EagerPool:
    """A run on hosts that go ahead, once it has written what one on hosts that do not writes."""
    pool = EagerPool(plan, pack_every)
    eager, plain = play(plan, workload, pool), play(plan, workload, inline(plan))
    assert rows(eager[1]) == rows(plain[1])
    assert eager[0].steps == plain[0].steps
    return pool


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("view_age_s", [0, 25])
def test_going_ahead_changes_no_row_and_not_their_order(policy: str, view_age_s: int) -> None:
    """[EP-7] hosts that fill up, guests that die and leave: whoever is full goes ahead while others take arrivals."""
    workload = machines(160)
    plan = small_plan(workload, hosts=4)
    plan = replace(
        plan,
        specs=tuple(replace(spec, cpus=400) for spec in plan.specs),
        placement=PlacementConfig(
            policy=policy, view_age_s=view_age_s, vcpu_ratio=4 if policy == "dot_product" else None
        ),
    )
    pool = both(plan, workload)
    assert sum(least_pages < USABLE for _, _, least_pages in pool.early) > 20, "nobody went ahead of an arrival"


def full(departure_s: float | None = None) -> list[Any]:
    """Host 0 full of one machine, and host 1 with an arrival in each epoch."""
    return [
        machine(0, 1.0, departure_s, pages=5000),
        machine(1, 1.0, departure_s, pages=5000),
        *(machine(domain_id, 10.0 * domain_id + 5, pages=500) for domain_id in range(2, 12)),
    ]


def fateful(requests: list[Any], *orders: Order) -> tuple[Plan, Workload]:
    """A plan of two hosts on which neither of the first two machines dies by itself."""
    workload = Workload(tuple(requests))
    plan = small_plan(workload, hosts=2, duration_s=300)
    for seed in range(1000):
        found = replace(plan, hosts=replace(plan.hosts, seed=seed), orders=orders)
        ended = {row.domain_id: row.fate for row in play(found, workload)[1].tables["domains"]}
        if ended[0] != "pod_oom" and ended[1] != "pod_oom":
            return found, workload
    raise AssertionError


def test_a_full_host_goes_ahead_until_something_is_due_of_what_it_has() -> None:
    """A departure at 57 s: the step to 60 s is not taken early, the others until the host has room again are."""
    plan, workload = fateful(full(57.0))
    pool = both(plan, workload, pack_every=10**9)
    early = {at_ns // NS_PER_S for host_id, at_ns, _ in pool.early if host_id == 0}
    assert {20, 30, 40} <= early and not {0, 50, 60, 70} & early


def test_what_an_operator_is_about_to_say_keeps_a_host_from_going_ahead() -> None:
    """The same of an order; one about hosts keeps everybody."""
    order = Order(57 * NS_PER_S, Operation(SetTarget(57 * NS_PER_S, 0, 4000)))
    plan, workload = fateful(full(), order)
    early = {at_ns // NS_PER_S for host_id, at_ns, _ in both(plan, workload).early if host_id == 0}
    assert {30, 40, 60, 70} <= early and 50 not in early
    for item in (Failure(1), Evacuation(1)):
        assert both(replace(plan, orders=(Order(250 * NS_PER_S, item),)), workload).early == []


def test_a_host_that_has_room_by_a_death_waits() -> None:
    """A guest of a full host dies: in the step after the report of it, somebody takes its place."""
    workload = Workload(tuple(machine(domain_id, 10.0 * domain_id + 5, pages=4500) for domain_id in range(20)))
    died = 0
    for seed in range(20):
        plan = small_plan(workload, hosts=2, duration_s=300)
        plan = replace(plan, hosts=replace(plan.hosts, seed=seed))
        pool = both(plan, workload)
        died += any(least_pages == 4500 for _, _, least_pages in pool.early)
    assert died > 10


# -- what is known of a step -------------------------------------------------------------------------------------------


def test_of_what_is_due_the_least_need_and_whose_hosts() -> None:
    """Need is not memory; who is on no host yet is on none that is free; what may be of any host is of all."""
    small, large = machine(1, 0.0, pages=100), machine(2, 0.0, pages=300)
    due: list[Item] = [Arrival(large), Arrival(small), Departure(5), Operation(StopDomain(7, 6)), Departure(9)]
    found = of_next(due, 70, {5: 50, 6: 60}, {1: 450, 2: 320})
    assert found == Ahead(70, 320, frozenset({50, 60}))
    assert of_next([*due, Warmed()], 70, {}, {1: 450, 2: 320}) is None


@pytest.mark.parametrize(("committed", "least", "free"), [(600, 401, True), (600, 400, False), (1000, 0, False)])
def test_a_host_that_fits_to_the_page_is_not_free(committed: int, least: int, free: bool) -> None:
    """Placement takes what fills a host, and what needs nothing fits into a full one."""
    view = HostView(3, 1000, committed, 0, 0, 0, 0)
    assert Ahead(70, least, frozenset()).frees(view) is free
    assert not Ahead(70, least, frozenset({3})).frees(view)


def test_the_agenda_is_looked_into_without_taking_anything_out() -> None:
    """Against all that is in it, at every instant."""
    agenda, instants = Agenda(), [7, 3, 9, 3, 1, 8, 5, 2, 9, 4]
    for domain_id, at_ns in enumerate(instants):
        agenda.add(at_ns, Departure(domain_id))
    for last_ns in range(11):
        due = [Departure(domain_id) for domain_id, at_ns in enumerate(instants) if at_ns <= last_ns]
        assert sorted(map(repr, agenda.peek(last_ns))) == sorted(map(repr, due))
    assert len(list(agenda.until(10))) == len(instants)


# -- shards ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plan() -> Plan:
    """Three hosts."""
    return small_plan(machines())


def begun(plan: Plan, make: Any = make_fake) -> ShardServer:
    """All hosts of a plan with a server."""
    server = ShardServer()
    server.begin(Tag("run", 0, 0, 0), plan.hosts, make, PACKING)
    server.add(Tag("run", 0, 0, 1), plan.specs, {})
    server.replay(Tag("run", 0, 0, 2), [], 0)
    return server


def test_a_step_that_was_taken_early_must_be_as_it_was_said_to_be(plan: Plan) -> None:
    """[EP-7] a command, or another end, is our mistake."""
    wrong: Iterator[tuple[int, dict[int, Sequence[Command]]]] = iter(
        [(2 * STEP_NS, {1: [StartDomain(STEP_NS + 1, machine(1, 10.0))]}), (3 * STEP_NS, {})]
    )
    for until_ns, commands in wrong:
        shard = HostShard(plan.hosts, make_fake, PACKING)
        shard.add(plan.specs)
        shard.advance(STEP_NS, {})
        shard.go_ahead(2 * STEP_NS, [1])
        with pytest.raises(InvariantError, match=r"\[EP-7\].*host 1 went to 20000000000 ns"):
            shard.advance(until_ns, commands)


def test_a_server_goes_ahead_once_and_from_its_last_step_only(plan: Plan) -> None:
    """Told twice, or too late, it does nothing; what it reports is what one does that never heard of it."""
    told, deaf = begun(plan), begun(plan)
    ahead = Ahead(2 * STEP_NS, USABLE + 1, frozenset({2}))
    for server in (told, deaf):
        server.advance(Tag("run", 0, 1, 0), STEP_NS, {})
    first = told.pack(Tag("run", 0, 1, 1), [0, 1, 2])[1]
    told.go_ahead(Tag("run", 0, 0, 0), ahead)
    assert told.pack(Tag("run", 0, 1, 2), [0, 1, 2])[1] == first
    for _ in range(2):
        told.go_ahead(Tag("run", 0, 1, 0), ahead)
    packed = told.pack(Tag("run", 0, 1, 3), [0, 1, 2])[1]
    assert [host_id for host_id in packed if packed[host_id] != first[host_id]] == [0, 1]
    for epoch in (2, 3):
        tag = Tag("run", 0, epoch, 0)
        assert told.advance(tag, epoch * STEP_NS, {}) == deaf.advance(tag, epoch * STEP_NS, {})


class Fatal(FakeHost):
    """A host that cannot pass 15 s."""

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """To its end."""
        if until_ns > 15 * NS_PER_S:
            raise InvariantError("[X] nobody passes 15 s violated")
        return super().advance(until_ns, commands)


def make_fatal(spec: HostSpec, plan: HostPlan) -> FakeHost:
    """For a server."""
    return Fatal(spec, plan.seed, plan.telemetry_ns)


def test_what_goes_wrong_ahead_is_said_when_the_step_is_asked_for(plan: Plan) -> None:
    """Nobody waits when it happens; whatever is asked next fails, and a next run begins anew."""
    server = begun(plan, make_fatal)
    server.advance(Tag("run", 0, 1, 0), STEP_NS, {})
    server.go_ahead(Tag("run", 0, 1, 0), Ahead(2 * STEP_NS, USABLE + 1, frozenset()))
    for ask in (
        lambda: server.advance(Tag("run", 0, 2, 0), 2 * STEP_NS, {}),
        lambda: server.pack(Tag("run", 0, 1, 1), [0]),
    ):
        with pytest.raises(InvariantError, match="nobody passes 15 s"):
            ask()
    server.begin(Tag("next", 0, 0, 0), plan.hosts, make_fake, PACKING)
    server.add(Tag("next", 0, 0, 1), plan.specs, {})
