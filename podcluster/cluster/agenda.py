"""What the cluster has to do, and when.

What        `Agenda`, a queue of items by (instant, rank, key, order of entry). At one instant hosts come back, then
            hosts fail, then domains go or stay whose receivers have answered, then those land that were on their
            way, then machines leave, then they arrive, then receivers are asked for room, then hosts are emptied, then
            what hosts took with them is started again, then domains move so that hosts are filled alike.
Units       Simulated time in ns.
Invariants  [AG-1] items come out in order of time, rank, key and entry, those that are put in meanwhile included.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final, TypeAlias

from podcluster.records.commands import AttachDevice, SetMaxMem, SetTarget, StopDomain
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import GuestState, RoomAnswer, RoomWanted

NEVER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Warmed:
    """The warm-up is over."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A host that failed at `failed_ns` is back; None: whenever it failed."""

    host_id: int
    failed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A host fails."""

    host_id: int


@dataclass(frozen=True, slots=True)
class Departure:
    """A machine leaves."""

    domain_id: int


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A machine is asked for."""

    request: MachineRequest


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator's order about a domain, wherever it is."""

    order: SetTarget | SetMaxMem | AttachDevice | StopDomain


@dataclass(frozen=True, slots=True)
class Evacuation:
    """A host is to be emptied, and given no more domains."""

    host_id: int


@dataclass(frozen=True, slots=True)
class Enabling:
    """A host that was emptied, or is being, is given domains again."""

    host_id: int


@dataclass(frozen=True, slots=True)
class Migration:
    """A domain is to go to a host."""

    domain_id: int
    host_id: int


@dataclass(frozen=True, slots=True, eq=False)
class Landing:
    """A domain has left its host, and is to go on where there is room kept for it."""

    state: GuestState


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """A domain is ready to be copied, and its receiver is to be asked for room."""

    wanted: RoomWanted


@dataclass(frozen=True, slots=True)
class Answered:
    """A receiver has answered, or cannot any more."""

    answer: RoomAnswer


@dataclass(frozen=True, slots=True)
class CalledOff:
    """A domain does not come to the host that was asked for room."""

    domain_id: int
    host_id: int


@dataclass(frozen=True, slots=True)
class Rebalancing:
    """Domains are to move so that hosts are filled alike."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """Those who have lost their host, and are due, are to be started again."""


Item: TypeAlias = (
    Warmed
    | Recovery
    | Failure
    | Enabling
    | CalledOff
    | Answered
    | Landing
    | Departure
    | Arrival
    | Operation
    | Asking
    | Evacuation
    | Migration
    | Rescue
    | Rebalancing
)
RANKS: Final[dict[type[Item], int]] = {
    kind: rank
    for rank, kind in enumerate(
        (
            Warmed,
            Recovery,
            Failure,
            Enabling,
            CalledOff,
            Answered,
            Landing,
            Departure,
            Arrival,
            Operation,
            Asking,
            Evacuation,
            Migration,
            Rescue,
            Rebalancing,
        )
    )
}


class Agenda:
    """The queue."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, int, int, int, Item]] = []
        self._entries = count()

    def add(self, at_ns: int, item: Item, key: int = 0) -> None:
        """Let `item` be done at `at_ns`, among others of its kind in order of `key`."""
        heapq.heappush(self._queue, (at_ns, RANKS[type(item)], key, next(self._entries), item))

    @property
    def due_ns(self) -> int:
        """When the next item is due."""
        return self._queue[0][0] if self._queue else NEVER

    def peek(self, last_ns: int) -> Iterator[Item]:
        """What is due up to and including `last_ns`, and stays; in no order."""
        todo = [0]
        while todo:
            place = todo.pop()
            if place < len(self._queue) and self._queue[place][0] <= last_ns:
                yield self._queue[place][-1]
                todo += (2 * place + 1, 2 * place + 2)  # nobody in a heap is due before who is above

    def until(self, last_ns: int) -> Iterator[tuple[int, Item]]:
        """Take out what is due up to and including `last_ns`, with its instant [AG-1]."""
        while self._queue and self._queue[0][0] <= last_ns:
            at_ns, _, _, _, item = heapq.heappop(self._queue)
            yield at_ns, item
