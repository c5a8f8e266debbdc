"""Streams: what acts in a guest at instants, and the arithmetic of instants.

What        `Stream`, the interface that a guest's clock merges; `Pace`, pages spread evenly over a time; `Stage`, a
            stream of so many pages with something to follow.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  [GS-1] the instant of every batch is a function of where its stream is anchored, in integers, and the anchor
                   moves only by what Xen took for its own batches [LK-2]: to stop between any two batches and go on
                   later changes nothing, nor does doing many batches of one stream at once while nothing else is due in
                   the guest. A batch happens whole, at the instant its first page is due, or when the lock is free.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

from podcluster.host import merged
from podcluster.host.domain import Run
from podcluster.host.lock import Lock
from podcluster.host.shares import Ahead, Share, share
from podcluster.units import NS_PER_S

NEVER: Final = 1 << 62
BATCH_PAGES: Final = 512
FEWEST_AHEAD: Final = 64 * BATCH_PAGES

FIRMWARE, KERNEL, DESCRIPTORS, SCRUBBER, SERVICES, BALLOON, DEMAND, DIRTY, INSTALL, CACHE, VISITS = range(11)
"""Ranks of a guest's streams: what acts first of two at one instant."""


class Stream(Protocol):
    """Something in a guest that acts at instants."""

    next_ns: int  # when it acts next; NEVER: nothing is planned

    @property
    def rank(self) -> int:
        """What acts first of two at one instant: the lower."""

    def run(self, last_ns: int, *, single: bool) -> None:
        """Act at each instant up to and including `last_ns` (`single`: the next only); may return early where it
        changed another's plans.
        """

    def touches_heap(self) -> bool:
        """Whether its next act may take from the host's heap or give to it."""

    def enters_xen(self) -> bool:
        """Whether its next act may, and so waits for the lock [LK-1]."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`pages` pages spread evenly over `span_ns` from `start_ns` [GS-1]."""

    start_ns: int
    span_ns: int
    pages: int

    @classmethod
    def at_rate(cls, start_ns: int, pages: int, pages_per_s: int) -> Pace:
        """So many pages at a rate."""
        return cls(start_ns, pages * NS_PER_S // pages_per_s, pages)

    def later(self, ns: int) -> Pace:
        """The same, held up by so much."""
        return Pace(self.start_ns + ns, self.span_ns, self.pages)

    @property
    def end_ns(self) -> int:
        """When the last page is done."""
        return self.start_ns + self.span_ns

    def instant(self, page: int) -> int:
        """When page number `page` (from 0) is due."""
        return self.start_ns + page * self.span_ns // self.pages if page < self.pages else self.end_ns

    def batch_instant(self, page: int) -> int:
        """When the batch that page number `page` belongs to happens."""
        return self.instant(page // BATCH_PAGES * BATCH_PAGES)

    def batched_by(self, last_ns: int) -> int:
        """Pages in the batches that happen up to and including `last_ns`."""
        if last_ns < self.start_ns or not self.pages:
            return 0
        if self.span_ns == 0:
            return self.pages
        # page * span // pages <= d  <=>  page <= ((d + 1) * pages - 1) // span
        latest_page = ((last_ns - self.start_ns + 1) * self.pages - 1) // self.span_ns
        return min(self.pages, (latest_page // BATCH_PAGES + 1) * BATCH_PAGES)


class Stage:
    """A stage of a boot: so many pages over so much time, and then something follows."""

    def __init__(
        self,
        rank: int,
        lock: Lock,
        *,
        write: Callable[[int, int, int], int],
        died: Callable[[], bool],
        on_death: Callable[[int], None],
        on_done: Callable[[int], None],
        on_late: Callable[[int], None] = lambda _: None,
        at_once: Callable[[int], bool] = lambda _: True,
        ahead: Ahead = lambda _first, _pages: None,
        vcpu: int = 0,
        interrupts: bool = True,
    ) -> None:
        """`write(first page number, pages, instant)` returns pages done; `on_late(ns)`: Xen has held it up;
        `at_once(pages)`: whether so many can be one write of many batches; `ahead`: what batches come to, so that
        they may be made together with those of others. It runs on `vcpu`, its interrupts enabled or not.
        """
        self.rank = rank
        self.next_ns = NEVER
        self._lock = lock
        self._vcpu = vcpu
        self._interrupts = interrupts
        self._on_late = on_late
        self._write = write
        self._died = died
        self._on_death = on_death
        self._on_done = on_done
        self._at_once = at_once
        self._ahead = ahead
        self._pace = Pace(0, 0, 0)
        self._done = 0
        self._most = FEWEST_AHEAD  # pages of a part

    def start(self, pace: Pace) -> None:
        """Begin."""
        self._pace = pace
        self.next_ns = pace.start_ns if pace.pages else pace.end_ns

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def enters_xen(self) -> bool:
        """While it writes."""
        return self._lock.faults and self._done < self._pace.pages

    def postpone(self, ns: int) -> None:
        """Begin later than planned, if it is planned and not begun."""
        if not self._done and self.next_ns < NEVER:
            self.start(self._pace.later(ns))

    def run(self, last_ns: int, *, single: bool) -> None:
        """Write the batches due; when all are written, wait for the end of the stage."""
        first = self._done
        if first == self._pace.pages:
            at_ns, self.next_ns = self.next_ns, NEVER
            self._on_done(at_ns)
            return
        upto = min(first + BATCH_PAGES, self._pace.pages)
        if not (single or self._lock.faults):
            many = self._pace.batched_by(last_ns)
            if self._at_once(many - first):
                upto = many
        began_ns = self._lock.enter(self.next_ns, vcpu=self._vcpu, interrupts=self._interrupts)
        done = self._write(first, upto - first, began_ns)
        late_ns = self._lock.leave()
        if self._died():
            self._on_death(max(began_ns, self._pace.batch_instant(first + done)))
            return
        if late_ns:
            self._pace = self._pace.later(late_ns)
            self._on_late(late_ns)
        self._done = upto
        self.next_ns = max(began_ns, self._pace.instant(upto))

    def join(self, last_ns: int, claimed: int) -> Share | None:
        """Its part, of batches due by `last_ns`: what Xen takes makes them later, so there are no more. One that has
        not begun may yet be postponed, and begins by itself.
        """
        pace, first = self._pace, self._done
        upto = min(pace.batched_by(last_ns), first + self._most) if first else 0
        part = self._ahead(first, upto - first) if self._lock.faults and first < upto else None
        if part is None:
            return None
        return share(
            anchor_ns=pace.start_ns, num=pace.span_ns, den=pace.pages, done=first, upto=upto, batch=BATCH_PAGES,
            next_ns=self.next_ns, part=part, vcpu=self._vcpu, interrupts=self._interrupts, scrubs=part.free_only,
        )  # fmt: skip

    def leave(self, one: Share, how: int, given: int) -> None:
        """How far it came, and by how much Xen has held it up."""
        fields = one.fields
        if how == merged.DIED:
            self._on_death(fields[merged.NEXT])
            return
        late_ns = fields[merged.LATE]
        if late_ns:
            self._pace = self._pace.later(late_ns)
            self._on_late(late_ns)
        self._most = most_ahead(self._most, fields[merged.DONE] - self._done)
        self._done, self.next_ns = fields[merged.DONE], fields[merged.NEXT]


def most_ahead(most: int, used: int) -> int:
    """Pages of the next part, of which `most` were told last and `used` were done: so that little is told in vain."""
    return 2 * most if used >= most else max(FEWEST_AHEAD, 2 * used)


def count_instants(instant: Callable[[int], int], first: int, last_ns: int) -> int:
    """How many of the instants number `first`, `first + 1`, ... are due by `last_ns`, of which the first is."""
    step = 1
    while instant(first + step) <= last_ns:
        step *= 2
    low, high = step // 2, step  # instant(first + low) <= last_ns < instant(first + high)
    while low + 1 < high:
        middle = (low + high) // 2
        if instant(first + middle) <= last_ns:
            low = middle
        else:
            high = middle
    return low + 1


class Runs:
    """Runs laid end to end, to be sliced by page number however many there are."""

    __slots__ = ("_ends", "_runs", "pages")

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = tuple(run for run in runs if run[1])
        self._ends = list(accumulate(count for _, count in self._runs))
        self.pages = self._ends[-1] if self._ends else 0

    def slice(self, first: int, pages: int, *, descending: bool = False) -> list[Run]:
        """Pages number `first` to `first + pages`; `descending`: each run is laid from its top page down."""
        found: list[Run] = []
        end = min(first + pages, self.pages)
        i = bisect_right(self._ends, first)
        while first < end:
            start, count = self._runs[i]
            skipped = first - (self._ends[i] - count)
            n = min(count - skipped, end - first)
            found.append((start + count - skipped - n if descending else start + skipped, n))
            first += n
            i += 1
        return found
