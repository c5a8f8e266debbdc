"""Streams: what acts in a guest at instants, and the arithmetic of instants.

What        `Stream`, the interface that a guest's clock merges, and `Joins`; `Pace`, pages spread evenly over a time;
            `Stage`, a stream of so many pages with something to follow; `Runs`, what a stage goes through.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  [GS-1] the instant of every batch is a function of where its stream is anchored, in integers, and the anchor
                   moves only by what Xen took for its own batches [LK-2]: to stop between any two batches and go on
                   later changes nothing, nor does doing many batches of one stream at once while nothing else is due in
                   the guest. A batch happens whole, at the instant its first page is due, or when the lock is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np

from podcluster.host import merged
from podcluster.host.batches import DIED
from podcluster.host.domain import Run
from podcluster.host.lock import Lock
from podcluster.host.page_runs import PackedPairs, packed_pairs, run_array, unpacked_pairs
from podcluster.host.shares import Share, share
from podcluster.host.written import DATA
from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S

NEVER: Final = merged.NEVER
BATCH_PAGES: Final = 512

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


class Joins(Stream, Protocol):
    """One whose batches may be made together with those of others (merged.py)."""

    def join(self, *, first: bool) -> Share | None:
        """Its fields; None if its next act has to be made by itself, or may yet be put off, where it is not `first`."""

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How it came out, `how` other than ON_TIME where its batch ended the call; `given`: pages that Xen took of a
        batch cut short.
        """


class Pace(NamedTuple):
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
        kind: int,
        *,
        write: Callable[[int, int, int], int],
        died: Callable[[], bool],
        on_death: Callable[[int], None],
        on_done: Callable[[int], None],
        on_late: Callable[[int], None] = lambda _: None,
        at_once: Callable[[int], bool] = lambda _: True,
        from_heap: Callable[[int], bool] = lambda _: False,
        strips: Runs | None = None,
        content: int = DATA,
        keeps: bool = False,
        followed: int = merged.AT_ONCE,
        vcpu: int = 0,
        interrupts: bool = True,
    ) -> None:
        """`write(first page number, pages, instant)` returns pages done; `on_late(ns)`: Xen has held it up;
        `at_once(pages)`: whether so many can be one write of many batches; `from_heap(pages)`: whether so many would
        take from the host's heap. It runs on `vcpu`, its interrupts enabled or not. As merged.py knows it: its `kind`,
        the `strips` to which it writes `content` before it takes pages into use, whether it `keeps` these, and what its
        end is `followed` by.
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
        self._from_heap = from_heap
        self._kind = kind
        self._strips = strips or NO_RUNS
        self._content = content
        self._keeps = keeps
        self._followed = followed
        self._pace = Pace(0, 0, 0)
        self._done = 0
        self._begun = False  # its first batch is made, or about to be

    def start(self, pace: Pace) -> None:
        """Begin."""
        self._pace = pace
        self.next_ns = pace.start_ns if pace.pages else pace.end_ns

    @property
    def ends_ns(self) -> int:
        """When it is over at the earliest."""
        return self._pace.end_ns

    def touches_heap(self) -> bool:
        """Populating takes from the domain's own cache."""
        left = self._pace.pages - self._done
        return left > 0 and self._from_heap(min(BATCH_PAGES, left))

    def enters_xen(self) -> bool:
        """While it writes."""
        return self._lock.faults and self._done < self._pace.pages

    def postpone(self, ns: int) -> None:
        """Begin later than planned, if it is planned and not begun."""
        if not self._begun and self.next_ns < NEVER:
            self.start(self._pace.later(ns))

    def run(self, last_ns: int, *, single: bool) -> None:
        """Write the batches due; when all are written, wait for the end of the stage."""
        self._begun = True
        first = self._done
        if first == self._pace.pages:
            at_ns, self.next_ns = self.next_ns, NEVER
            self._on_done(at_ns)
            return
        upto = min(first + BATCH_PAGES, self._pace.pages)
        began_ns = self._lock.enter(self.next_ns, vcpu=self._vcpu, interrupts=self._interrupts)
        if not (single or self._lock.faults or began_ns > last_ns):
            many = self._pace.batched_by(last_ns)
            if self._at_once(many - first):
                upto = many
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

    def join(self, *, first: bool) -> Share | None:
        """Its fields: not before it has begun, for it may yet be postponed, unless it is about to."""
        pace, done = self._pace, self._done
        self._begun |= first
        if done == pace.pages or not self._begun:
            return None
        return share(
            self._kind, anchor_ns=pace.start_ns, num=pace.span_ns, den=pace.pages, batch=BATCH_PAGES, upto=pace.pages,
            done=done, next_ns=self.next_ns, content=self._content, vcpu=self._vcpu, interrupts=self._interrupts,
            strips=self._strips.place(done), keeps=self._keeps, followed=self._followed,
        )  # fmt: skip

    def leave(self, fields: Sequence[int], how: int, given: int) -> None:
        """How far it came, and by how much Xen has held it up."""
        if how == DIED:
            self._on_death(fields[merged.NEXT])
            return
        late_ns = fields[merged.LATE]
        if late_ns:
            self._pace = self._pace.later(late_ns)
            self._on_late(late_ns)
        self._done, self.next_ns = fields[merged.DONE], fields[merged.NEXT]
        if self.next_ns == NEVER:
            self._on_done(fields[merged.BEGAN])


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
    """Runs laid end to end, to be sliced by page number however many there are; `descending`: each is gone through from
    its top page down.
    """

    __slots__ = ("_at", "_ends", "_runs", "_strips", "descending", "pages")

    def __init__(self, runs: Iterable[Run] | Int64Array, *, descending: bool = False) -> None:
        self._at = 0  # of its strips, among those of others
        self.descending = descending
        self._set(run_array(runs))

    def _set(self, runs: Int64Array) -> None:
        self._runs = runs
        self._ends: Int64Array = runs[:, 1].cumsum()
        self._strips = runs * (1, -1) if self.descending else runs  # as merged.py has them
        self.pages = int(self._ends[-1]) if len(runs) else 0

    def twin(self) -> Runs:
        """The same, to lie in a place of its own among strips."""
        other = Runs.__new__(Runs)
        other._at, other.descending, other.pages = 0, self.descending, self.pages
        other._runs, other._ends, other._strips = self._runs, self._ends, self._strips
        return other

    def __getstate__(self) -> tuple[PackedPairs, int, bool]:
        return packed_pairs(self._runs), self._at, self.descending

    def __setstate__(self, state: tuple[PackedPairs, int, bool]) -> None:
        runs, self._at, self.descending = state
        self._set(unpacked_pairs(runs))

    @staticmethod
    def lay(parts: Iterable[Runs]) -> Int64Array:
        """All of these as strips (merged.py), one after another: where each of them is from then on."""
        found = [np.empty((0, 2), np.int64)]
        at = 0
        for part in parts:
            part._at = at
            at += len(part._runs)
            found.append(part._strips)
        return np.concatenate(found).reshape(-1)

    def place(self, page: int) -> tuple[int, int, int, int]:
        """Among all strips: the one that page number `page` is in, pages of it before that, their end; pages of all."""
        if not self.pages:
            return self._at, 0, self._at, 0
        runs = len(self._runs)
        k = int(self._ends.searchsorted(page, "right")) if page else 0
        before = int(self._ends[k - 1]) if k else 0
        return self._at + k, page - before if k < runs else 0, self._at + runs, self.pages

    def slice(self, first: int, pages: int) -> list[Run]:
        """Pages number `first` to `first + pages`."""
        found: list[Run] = []
        end = min(first + pages, self.pages)
        i = int(self._ends.searchsorted(first, "right"))
        while first < end:
            start, count = self._runs[i].tolist()
            skipped = first - (int(self._ends[i]) - count)
            n = min(count - skipped, end - first)
            found.append((start + count - skipped - n if self.descending else start + skipped, n))
            first += n
            i += 1
        return found


NO_RUNS: Final = Runs(())  # of stages that write to no place of their own
