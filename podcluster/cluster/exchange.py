"""Messages to shards of hosts that live elsewhere, of which any may die at any moment: who is asked what, who has
answered, and who is to be made again.

What        `ShardServer` is what runs where a shard lives; `Exchange` is this side of it. Neither knows what carries
            the messages: a `Transport` does (`ray_pool.py`; tests bring one that loses, delays and repeats).
Units       Simulated time in ns; time-outs in seconds of wall time.
Invariants  [CL-2] a shard that dies is made again of its specs, of its hosts as they were last packed, and of the log
                   of what it was sent since, and the run goes on to the same bytes.
            [CL-3] every message carries (run, shard, epoch, attempt) and its reply repeats it. A shard has one message
                   to answer at a time; a reply to any other is late, or there twice, and is ignored. What it may do
                   ahead it is told, and does not answer; whether it heard of it, and did it, changes nothing.
Rules       A shard is given up, and with it the run, once it has died MOST_DEATHS times in one epoch: what kills it
            will go on to. No answer in time is a death: who cannot be reached cannot be told from who is dead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from os import getpid
from typing import Any, Final, NamedTuple, Protocol

from podcluster.cluster.ahead import Ahead
from podcluster.cluster.pool import (
    NOTHING_PACKED,
    CommandsByHost,
    HostPlan,
    HostShard,
    MakeHost,
    Packed,
    Packing,
    Step,
)
from podcluster.errors import InvariantError, PodclusterError
from podcluster.fingerprint import fingerprint
from podcluster.records.hosts import HostSpec
from podcluster.records.reports import HostReport

logger = getLogger(__name__)

MOST_DEATHS: Final = 8  # of one shard in one epoch
MOST_SILENCES: Final = 3  # of these; what takes too long once is likely to do so again
PACKED_AT_ONCE: Final = 16  # hosts in a message: of a few MB at most, whatever a shard holds
START_S: Final = 120.0  # most that a new server may take to answer at all; loading and compiling comes after that
LOOK_S: Final = 0.25  # longest wait before deaths are looked at, while others have not answered


class Tag(NamedTuple):
    """Which message this is [CL-3]: `attempt` counts what the shard has been sent in this epoch."""

    run: str
    shard: int
    epoch: int
    attempt: int


class Message(NamedTuple):
    """What a shard is asked: a method of `ShardServer`, and how long it may take [s]."""

    method: str
    arguments: tuple[Any, ...]
    timeout_s: float


class Death(NamedTuple):
    """In place of a reply: whoever was to give it is no more."""

    why: str


class Failure(NamedTuple):
    """In place of a reply: what was raised there."""

    error: Exception


class Transport(Protocol):
    """Carries messages; promises nothing but that a reply is a reply to a message."""

    def send(self, tag: Tag, message: Message) -> None:
        """Let the server of `tag.shard` work on `message` after all that it was sent before."""

    def tell(self, tag: Tag, message: Message) -> None:
        """As `send`, but nobody waits for an answer."""

    def receive(self, timeout_s: float) -> list[tuple[Tag, Any]]:
        """Wait until something has arrived, `timeout_s` at most; what is there: replies, Deaths and Failures, in any
        order.
        """

    def renew(self, shard: int) -> None:
        """Put a new server in the place of the shard's, which is ended if it is there."""


class ShardServer:
    """What runs where a shard lives: each method takes its message's tag and returns it with the answer."""

    def __init__(self) -> None:
        self._shard: HostShard | None = None
        self._epoch = 0  # the latest step
        self._reports: list[HostReport] = []  # of it
        self._error: Exception | None = None  # that came up while nobody waited

    def pid(self) -> int:
        """Process id of the server."""
        return getpid()

    def greet(self, tag: Tag, source: str) -> tuple[Tag, None]:
        """See that both sides are of one version, before anything is said that only one of them may understand."""
        if source != fingerprint():
            raise PodclusterError(
                f"podcluster must be the same on every node, got sources {source} at the driver and {fingerprint()} on "
                "a node: install the same version of it, of Python, numpy and numba everywhere"
            )
        return tag, None

    def begin(self, tag: Tag, plan: HostPlan, make: MakeHost, packing: Packing) -> tuple[Tag, None]:
        """Begin a shard, and forget the one before."""
        if self._shard is not None:
            self._shard.clear()
        self._shard, self._error = HostShard(plan, make, packing), None
        return tag, None

    def add(self, tag: Tag, specs: Sequence[HostSpec], packed: Packed) -> tuple[Tag, None]:
        """Take hosts into the shard."""
        self._begun(tag).add(specs, packed)
        return tag, None

    def replay(self, tag: Tag, log: Sequence[Step], epoch: int) -> tuple[Tag, None]:
        """Bring the shard to the end of `log`, which is the end of `epoch`; what it reports on the way is known."""
        shard = self._begun(tag)
        for step in log:
            shard.advance(*step)
        self._epoch, self._reports = epoch, []
        return tag, None

    def advance(self, tag: Tag, until_ns: int, commands: CommandsByHost) -> tuple[Tag, list[HostReport]]:
        """Step the shard one epoch; asked twice, it steps once."""
        shard = self._begun(tag)
        if self._epoch not in (tag.epoch - 1, tag.epoch):
            raise InvariantError(f"[CL-3] a shard steps from epoch to epoch violated: {tag} after {self._epoch}")
        if self._epoch < tag.epoch:
            self._reports = shard.advance(until_ns, commands)
            self._epoch = tag.epoch
        return tag, self._reports

    def go_ahead(self, tag: Tag, ahead: Ahead) -> None:
        """After a step, take the next one where that can be done already [EP-7]. Who does not hear of it loses nothing
        but time, and what goes wrong is said when the step is asked for.
        """
        shard = self._begun(tag)
        if self._epoch != tag.epoch:
            return
        try:
            shard.go_ahead(ahead.until_ns, [one.host_id for one in self._reports if ahead.frees(one.view)])
        except Exception as error:
            self._error = error

    def pack(self, tag: Tag, host_ids: Sequence[int]) -> tuple[Tag, dict[int, bytes]]:
        """These hosts as bytes."""
        return tag, self._begun(tag).pack(host_ids)

    def _begun(self, tag: Tag) -> HostShard:
        if self._shard is None:
            raise InvariantError(f"[CL-3] a shard is begun before it is asked anything violated: {tag}")
        if self._error is not None:
            raise self._error
        return self._shard


@dataclass(slots=True)
class _Shard:
    """One shard as seen from here: what it takes to make it again [CL-2], and what it has been asked."""

    index: int
    specs: list[HostSpec]
    log: list[Step] = field(default_factory=list)  # since its hosts were packed
    tag: Tag | None = None  # of the message that is to be answered; None: none is
    attempt: int = 0
    deaths: int = 0  # in this epoch
    silences: int = 0  # of these
    todo: deque[Message] = field(default_factory=deque)  # what is to be answered, and what comes after it
    request: Message | None = None  # what all of this is for, beside making the shard
    deadline_s: float = 0.0


class Exchange:
    """One run's shards, wherever they are."""

    def __init__(
        self,
        transport: Transport,
        hands: Sequence[list[HostSpec]],
        plan: HostPlan,
        run: str,
        *,
        timeout_s: float,
        make: MakeHost,
        packing: Packing,
        packed: Packed = NOTHING_PACKED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a shard of each of `hands`; `run` is a name that no other run has. A message may take `timeout_s`, and
        one that replays a log as much for each step of it.
        """
        self._transport = transport
        self._plan, self._run, self._make, self._packing = plan, run, make, packing
        self._timeout_s = timeout_s
        self._packed = packed
        self._clock = clock
        self._epoch = 0  # that has begun
        self._whole = 0  # that every shard has answered
        self._ahead: Ahead | None = None  # what is known of the step after the one that is asked for
        self._shards = [_Shard(index, hand) for index, hand in enumerate(hands)]
        self._ask({shard.index: None for shard in self._shards})

    @property
    def shards(self) -> int:
        """How many there are."""
        return len(self._shards)

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step every shard: one message and one reply each. Reports in no order. Who has replied goes ahead."""
        steps = [
            Step(until_ns, {spec.host_id: commands[spec.host_id] for spec in shard.specs if spec.host_id in commands})
            for shard in self._shards
        ]
        self._epoch += 1
        for shard in self._shards:
            shard.attempt = shard.deaths = shard.silences = 0
        self._ahead = ahead
        replies = self._ask({index: Message("advance", step, self._timeout_s) for index, step in enumerate(steps)})
        self._ahead = None
        for shard, step in zip(self._shards, steps, strict=True):
            shard.log.append(step)
        self._whole = self._epoch
        return [report for reports in replies.values() for report in reports]

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """Every host as bytes, a few of each shard at a time, so that no message is large."""
        longest = max((len(shard.specs) for shard in self._shards), default=0)
        for first in range(0, longest, PACKED_AT_ONCE):
            chunks = {shard.index: shard.specs[first : first + PACKED_AT_ONCE] for shard in self._shards}
            asked: dict[int, Message | None] = {
                # Twice the time: it may be going ahead.
                index: Message("pack", ([spec.host_id for spec in chunk],), 2 * self._timeout_s)
                for index, chunk in chunks.items()
                if chunk
            }
            for packed in self._ask(asked).values():
                yield from packed.items()

    def rely_on(self, packed: Packed) -> None:
        """Make shards of these hosts from now on, which are as they are after the last step."""
        self._packed = packed
        for shard in self._shards:
            shard.log.clear()

    # -- one question to each shard, and its answer ------------------------------------------------------------------

    def _ask(self, asked: dict[int, Message | None]) -> dict[int, Any]:
        """Ask shards, each its message (None: to be made); the answers by shard. Who dies meanwhile is made again."""
        replies: dict[int, Any] = {}
        waiting = [self._shards[index] for index in asked]
        for shard in waiting:
            shard.request = asked[shard.index]
            shard.todo.clear()
            shard.todo.extend(self._making(shard) if shard.request is None else [shard.request])
            self._send(shard)
        while waiting:
            soonest_s = min(shard.deadline_s for shard in waiting) - self._clock()
            for tag, answer in self._transport.receive(min(LOOK_S, max(0.0, soonest_s))):
                shard = self._shards[tag.shard]
                if tag != shard.tag:
                    continue  # [CL-3]
                if isinstance(answer, Failure):
                    raise answer.error
                if isinstance(answer, Death):
                    self._make_again(shard, answer.why)
                    continue
                shard.todo.popleft()
                if shard.todo:
                    self._send(shard)
                else:
                    shard.tag = None
                    replies[shard.index] = answer
            waiting = [shard for shard in waiting if shard.tag is not None]
            for shard in waiting:
                if self._clock() >= shard.deadline_s:
                    self._give_up_on(shard)
        return replies

    def _send(self, shard: _Shard) -> None:
        message = shard.todo[0]
        shard.tag = Tag(self._run, shard.index, self._epoch, shard.attempt)
        shard.attempt += 1
        shard.deadline_s = self._clock() + message.timeout_s
        self._transport.send(shard.tag, message)
        if self._ahead is not None and message is shard.request:
            self._transport.tell(shard.tag, Message("go_ahead", (self._ahead,), self._timeout_s))

    def _making(self, shard: _Shard) -> list[Message]:
        """What makes a shard, up to its last whole step [CL-2]."""
        messages = [
            Message("greet", (fingerprint(),), min(self._timeout_s, START_S)),
            Message("begin", (self._plan, self._make, self._packing), self._timeout_s),
        ]
        for first in range(0, len(shard.specs), PACKED_AT_ONCE):
            specs = shard.specs[first : first + PACKED_AT_ONCE]
            packed = {spec.host_id: self._packed[spec.host_id] for spec in specs if spec.host_id in self._packed}
            messages.append(Message("add", (specs, packed), self._timeout_s))
        log = list(shard.log)
        messages.append(Message("replay", (log, self._whole), self._timeout_s * (1 + len(log))))
        return messages

    def _give_up_on(self, shard: _Shard) -> None:
        timeout_s = shard.todo[0].timeout_s
        shard.silences += 1
        if shard.silences >= MOST_SILENCES:
            raise PodclusterError(
                f"engine.timeout_s must be longer than a message takes, got {self._timeout_s:g}: the actor of "
                f"{_hosts(shard)} did not answer in {timeout_s:g} s at step {self._epoch}, {shard.silences} times; "
                "raise it, or use engine=inline"
            )
        self._make_again(shard, f"no answer in {timeout_s:g} s")

    def _make_again(self, shard: _Shard, why: str) -> None:
        """Put a new server in the place of one that is lost, and ask it what the other was asked."""
        shard.deaths += 1
        if shard.deaths >= MOST_DEATHS:
            raise PodclusterError(
                f"the actor of {_hosts(shard)} died {shard.deaths} times at step {self._epoch} ({why}): if memory ran "
                "out, lower engine.actors or use engine=inline"
            )
        logger.warning("an actor was lost at step %d (%s): making its %s again", self._epoch, why, _hosts(shard))
        self._transport.renew(shard.index)
        shard.todo.clear()
        shard.todo.extend(self._making(shard))
        if shard.request is not None:
            shard.todo.append(shard.request)
        self._send(shard)


def _hosts(shard: _Shard) -> str:
    ids = [spec.host_id for spec in shard.specs]
    return f"host {ids[0]}" if len(ids) == 1 else f"hosts {ids[0]}..{ids[-1]}"
