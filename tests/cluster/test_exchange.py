"""Does a run give the same rows over a carrier of messages that loses, delays and repeats, to servers that die?"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest

from podcluster import rng
from podcluster.cluster import exchange as exchange_module
from podcluster.cluster.ahead import Ahead
from podcluster.cluster.exchange import MOST_DEATHS, Death, Exchange, Failure, Message, ShardServer, Tag
from podcluster.cluster.pool import CommandsByHost, InlinePool, MakeHost, Packing, deal
from podcluster.cluster.ray_pool import RayPool
from podcluster.errors import InvariantError, PodclusterError
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S
from tests.cluster.any_order import AnyOrder
from tests.cluster.fake import make_fake
from tests.cluster.story import inline, machines, physics, play, small_plan

WORKLOAD = machines()
PLAN = small_plan(WORKLOAD, hosts=5)
PACKING = Packing(pickle.dumps, pickle.loads)
TIMEOUT_S = 10


@dataclass
class Trouble:
    """How often what goes wrong, of messages."""

    dies_before: float = 0.0
    dies_after: float = 0.0  # the message was worked on, the reply is lost
    silent: float = 0.0  # nothing ever arrives
    late: float = 0.0  # the reply arrives after the time-out
    twice: float = 0.0  # the reply arrives, and again later


@dataclass
class Carrier:
    """A transport in one process, with a clock of its own, that brings trouble from a stream of its own."""

    trouble: Trouble
    draw: np.random.Generator
    now_s: float = 0.0
    servers: dict[int, ShardServer | None] = field(default_factory=dict)  # None: dead
    coming: list[tuple[float, int, Tag, Any]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    entries: Iterator[int] = field(default_factory=count)
    sent: list[Message] = field(default_factory=list)
    arrived: Counter[Tag] = field(default_factory=Counter)

    def clock(self) -> float:
        """Its own time."""
        return self.now_s

    def send(self, tag: Tag, message: Message) -> None:
        """Let the server work at once, and the reply arrive in its time, if it does."""
        server = self.servers.setdefault(tag.shard, ShardServer())
        kind = self._draw()
        self.sent.append(message)
        self.seen[kind] += 1
        if server is None or kind == "dies_before":
            self._die(tag)
            return
        if kind == "silent":
            return
        try:
            # As over a wire: nothing is shared between the two sides.
            answer: Any = pickle.loads(pickle.dumps(getattr(server, message.method)(tag, *message.arguments)))
        except PodclusterError as error:
            self._arrive(0.1, tag, Failure(error))
            return
        if kind == "dies_after":
            self._die(tag)
            return
        assert answer[0] == tag
        self._arrive(float(self.draw.uniform(0.1, 2.0)) + (1000 if kind == "late" else 0), *answer)
        if kind == "twice":
            self._arrive(float(self.draw.uniform(2.0, 50.0)), *answer)

    def tell(self, tag: Tag, message: Message) -> None:
        """Let the server work at once, if it hears of it, and lives."""
        server, kind = self.servers[tag.shard], self._draw()
        if server is None or kind == "silent":
            return
        if kind in ("dies_before", "dies_after"):
            self.servers[tag.shard] = None
        if kind != "dies_before":
            getattr(server, message.method)(tag, *pickle.loads(pickle.dumps(message.arguments)))
            self.seen["told"] += 1

    def receive(self, timeout_s: float) -> list[tuple[Tag, Any]]:
        """What arrives next, if it does in time."""
        until_s = self.now_s + timeout_s
        first = min(self.coming, key=lambda one: one[:2], default=None)
        if first is None or first[0] > until_s:
            self.now_s = until_s
            return []
        self.coming.remove(first)
        self.now_s = max(self.now_s, first[0])
        self.arrived[first[2]] += 1
        return [first[2:]]

    def renew(self, shard: int) -> None:
        """A new server; what the old one said may still be on its way."""
        self.servers[shard] = ShardServer()
        self.seen["renewed"] += 1

    def _die(self, tag: Tag) -> None:
        self.servers[tag.shard] = None
        self._arrive(0.1, tag, Death("killed"))

    def _arrive(self, delay_s: float, tag: Tag, answer: Any) -> None:
        self.coming.append((self.now_s + delay_s, next(self.entries), tag, answer))

    def _draw(self) -> str:
        at = float(self.draw.random())
        for kind, share in vars(self.trouble).items():
            at -= share
            if at < 0:
                return kind
        return "well"


class KeepingPool(RayPool):
    """Has its hosts packed after every seventh step, and relies on that."""

    def __init__(self, exchange: Exchange, hosts: int) -> None:
        super().__init__(exchange, hosts)
        self.steps = 0

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step, and keep."""
        reports = super().advance(until_ns, commands, ahead)
        self.steps += 1
        if self.steps % 7 == 0:
            packed = dict(self.pack())
            assert set(packed) == set(range(self._hosts))
            self.rely_on(packed)
        return reports


def pool_over(carrier: Carrier, shards: int = 3, kind: type[RayPool] = RayPool, make: MakeHost = make_fake) -> RayPool:
    """The story's hosts, at the other end of a carrier."""
    hands = deal(PLAN.specs, shards)
    exchange = Exchange(
        carrier, hands, PLAN.hosts, "run", timeout_s=TIMEOUT_S, make=make, packing=PACKING, clock=carrier.clock
    )
    return kind(exchange, len(PLAN.specs))


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Any]]:
    """The rows of this process."""
    return physics(play(PLAN, WORKLOAD, inline(PLAN))[1])


@pytest.mark.parametrize("kind", [RayPool, KeepingPool])
@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(),
        Trouble(dies_before=0.03),
        Trouble(dies_after=0.03),
        Trouble(silent=0.01),
        Trouble(late=0.01),
        Trouble(twice=0.3),
        Trouble(dies_before=0.01, dies_after=0.01, silent=0.003, late=0.003, twice=0.1),
    ],
    ids=lambda trouble: "+".join(name for name, share in vars(trouble).items() if share) or "none",
)
def test_trouble_changes_no_row(
    expected: dict[str, list[Any]], trouble: Trouble, shards: int, kind: type[RayPool]
) -> None:
    """[CL-2] [CL-3] each trouble and all of them, with hosts packed now and then or replayed from the beginning."""
    carrier = Carrier(trouble, rng.stream(3, "test", "carrier", shards))
    _, sink = play(PLAN, WORKLOAD, pool_over(carrier, shards, kind))
    assert physics(sink) == expected
    wanted = {name for name, share in vars(trouble).items() if share}
    assert not wanted or any(carrier.seen[name] for name in wanted), "nothing ever went wrong"
    assert carrier.seen["told"] > 20, "nobody ever went ahead"
    if trouble.twice:
        assert max(carrier.arrived.values()) == 2


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_a_step_is_one_message_to_each_shard(expected: dict[str, list[Any]], shards: int) -> None:
    """A whole run, with all messages counted: four make a shard; then each is sent one a step, with all that its hosts
    are to do, and is told once at most what is known of the next (ADR 0010), which nobody answers.
    """
    carrier = Carrier(Trouble(), rng.stream(3, "test", "carrier", shards))
    counted = AnyOrder(carrier)
    hands = deal(PLAN.specs, shards)
    exchange = Exchange(
        counted, hands, PLAN.hosts, "run", timeout_s=TIMEOUT_S, make=make_fake, packing=PACKING, clock=carrier.clock
    )
    outcome, sink = play(PLAN, WORKLOAD, RayPool(exchange, len(PLAN.specs)))
    assert physics(sink) == expected
    making = [(method, shard, 0) for method in ("greet", "begin", "add", "replay") for shard in range(shards)]
    steps = [("advance", shard, step) for shard in range(shards) for step in range(1, outcome.steps + 1)]
    assert counted.sent == Counter([*making, *steps])
    assert sum(carrier.arrived.values()) == counted.sent.total()
    assert {method for method, _, _ in counted.told} == {"go_ahead"}
    assert set(counted.told.values()) == {1} and counted.told.total() > 20


def test_a_replay_is_as_long_as_what_came_after_the_hosts_were_packed() -> None:
    """Kill a server after 20 steps of which the first 18 are packed: it is sent its hosts, and two steps."""
    carrier = Carrier(Trouble(), rng.stream(1, "test", "carrier"))
    pool, here = pool_over(carrier, 2), inline(PLAN)
    sent = carrier.sent
    sent.clear()
    for step in range(1, 22):
        if step == 21:
            carrier.servers[1] = None
        assert pool.advance(step * NS_PER_S, {}) == here.advance(step * NS_PER_S, {})
        if step == 18:
            pool.rely_on(dict(pool.pack()))
    (replay,) = [message for message in sent if message.method == "replay"]
    (added,) = [message for message in sent if message.method == "add"]
    assert [step.until_ns for step in replay.arguments[0]] == [19 * NS_PER_S, 20 * NS_PER_S]
    assert sorted(added.arguments[1]) == [1, 3]
    assert replay.timeout_s == 3 * TIMEOUT_S


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (
            Trouble(dies_before=1.0),
            f"the actor of hosts 0..4 died {MOST_DEATHS} times at step 0 .killed.*engine=inline",
        ),
        (
            Trouble(silent=1.0),
            "engine.timeout_s must be longer.*got 10.*hosts 0..4 did not answer in 10 s at step 0, 3 ",
        ),
    ],
)
def test_what_goes_wrong_every_time_ends_the_run_in_one_line(trouble: Trouble, text: str) -> None:
    """Nobody waits for ever."""
    with pytest.raises(PodclusterError, match=text) as raised:
        pool_over(Carrier(trouble, rng.stream(1, "test", "carrier")), 1)
    assert "\n" not in str(raised.value)


def test_hosts_are_packed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in a message: five hosts in two shards are two messages to the first and one to the other."""
    monkeypatch.setattr(exchange_module, "PACKED_AT_ONCE", 2)
    carrier = Carrier(Trouble(), rng.stream(1, "test", "carrier"))
    pool = pool_over(carrier, 2)
    before = sum(carrier.seen.values())
    packed = dict(pool.pack())
    assert sorted(packed) == [0, 1, 2, 3, 4] and sum(carrier.seen.values()) - before == 3
    again = InlinePool(PLAN.specs, PLAN.hosts, make_fake, PACKING, packed)
    assert again.advance(NS_PER_S, {}) == pool.advance(NS_PER_S, {})


def test_a_server_steps_once_however_often_it_is_asked() -> None:
    """The same epoch twice gives the reports again; one that was left out, or before there are hosts, is refused."""
    server = ShardServer()
    with pytest.raises(InvariantError, match=r"\[CL-3\] a shard is begun"):
        server.advance(Tag("run", 0, 1, 0), NS_PER_S, {})
    server.begin(Tag("run", 0, 0, 0), PLAN.hosts, make_fake, PACKING)
    server.add(Tag("run", 0, 0, 1), PLAN.specs, {})
    server.replay(Tag("run", 0, 0, 2), [], 0)
    tag, reports = server.advance(Tag("run", 0, 1, 0), NS_PER_S, {})
    again, same = server.advance(Tag("run", 0, 1, 1), NS_PER_S, {})
    assert (tag.attempt, again.attempt) == (0, 1) and same == reports
    with pytest.raises(InvariantError, match=r"\[CL-3\] a shard steps from epoch to epoch"):
        server.advance(Tag("run", 0, 3, 0), 2 * NS_PER_S, {})


def test_nodes_of_another_version_are_refused() -> None:
    """Other sources at the other end are one line that says what to do."""
    with pytest.raises(PodclusterError, match=r"podcluster must be the same on every node.*install"):
        ShardServer().greet(Tag("run", 0, 0, 0), "another")
