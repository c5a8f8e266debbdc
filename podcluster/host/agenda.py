"""What is to happen on a host by itself, next first: acts of guests, and the host's own.

What        `Agenda`, the queue of instants and how far time has come.
Units       ns of simulated time.
Order       By (time, domid, order of entry); the host's own acts stand at domid 0, before those of guests.
Invariants  [HM-4] time never runs backwards: nothing is carried out before what was.
            [AG-2] a guest may stand here later than it acts: as long as nobody sees what it does, and up to `lags_ns`.
                   Who takes it out, or is about to change anything of it, lets it catch up first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Final

from podcluster.errors import InvariantError
from podcluster.host.resident import Resident
from podcluster.host.streams import NEVER

TOOLSTACK: Final = 0  # in the queue, in place of a domid: an act of the host's own, before those of guests


class Agenda:
    """The acts that are to come."""

    def __init__(self, running: Mapping[int, Resident], place: str) -> None:
        """`running` by domid; `place` says in an error which host this is."""
        self._running = running
        self._place = place
        self._queue: list[tuple[int, int, int]] = []  # (instant, domid, stamp)
        self._stamp = 0
        self._acts: dict[int, tuple[int, Callable[[int], None]]] = {}  # the host's own, by stamp
        self.lags_ns = 0  # up to then what nobody sees may wait [AG-2]
        self.reached_ns = 0  # instant of the latest thing that touched the heap, or of the clock [HM-4]

    def reach(self, at_ns: int) -> None:
        """Something is carried out at `at_ns`."""
        if at_ns < self.reached_ns:
            raise InvariantError(
                f"[HM-4] time runs forward violated: {at_ns} ns after {self.reached_ns} ns ({self._place})"
            )
        self.reached_ns = at_ns

    @property
    def has_own(self) -> bool:
        """The host itself is going to act."""
        return bool(self._acts)

    @property
    def next_own_ns(self) -> int:
        """When the host itself acts next."""
        return min(at_ns for at_ns, _ in self._acts.values()) if self._acts else NEVER

    @property
    def next_ns(self) -> int:
        """When a guest, or the host itself, acts next."""
        queue = self._queue
        while queue:
            at_ns, domid, stamp = queue[0]
            resident = self._running.get(domid)
            if stamp in self._acts if resident is None else resident.queued == stamp:
                return at_ns
            heapq.heappop(queue)
        return NEVER

    def take_guest(self, before_ns: int) -> tuple[int, Resident] | None:
        """Take out the next act of a guest before `before_ns`, all that the host itself does first being done."""
        queue = self._queue
        while queue and queue[0][0] < before_ns:
            at_ns, domid, stamp = heapq.heappop(queue)
            if domid == TOOLSTACK:
                if stamp in self._acts:
                    self._acts.pop(stamp)[1](at_ns)
                continue
            resident = self._running.get(domid)
            if resident is not None and resident.queued == stamp:
                return at_ns, resident
        return None

    def guests_before(self, before_ns: int) -> list[tuple[int, Resident]]:
        """The guests that act before then, and when, in that order."""
        found = []
        for at_ns, domid, stamp in sorted(entry for entry in self._queue if entry[0] < before_ns):
            resident = self._running.get(domid)
            if resident is not None and resident.queued == stamp:
                found.append((at_ns, resident))
        return found

    def put_guest(self, resident: Resident) -> None:
        """A guest acts next when it says, or when anybody sees it; what stood here for it before is void."""
        self._stamp += 1
        at_ns = resident.queue(self._stamp, self.lags_ns)
        if at_ns < NEVER:
            heapq.heappush(self._queue, (at_ns, resident.domain.domid, self._stamp))

    def later(self, at_ns: int, act: Callable[[int], None]) -> int:
        """Let the host itself do something at `at_ns`; the stamp calls it off.

        It is one more act of the queue, so what it takes from the heap or gives to it comes in order of time [HM-1].
        """
        self._stamp += 1
        self._acts[self._stamp] = at_ns, act
        heapq.heappush(self._queue, (at_ns, TOOLSTACK, self._stamp))
        return self._stamp

    def call_off(self, stamp: int) -> None:
        """Do not do what was to be done later."""
        del self._acts[stamp]
