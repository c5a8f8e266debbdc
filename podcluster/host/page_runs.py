"""Sets and orders of a guest's pages, as runs.

What        `PageSet`, a set of gfns; `Allocator`, the order in which untouched pages are taken; and what stacks of runs
            have in common.
Units       Pages of 4 KiB; a run is (first gfn, count).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import repeat

import numpy as np

from podcluster.host.domain import Run
from podcluster.units import SUPERPAGE_PAGES


class PageSet:
    """A set of gfns as ascending runs that do not touch; `pages` is their number."""

    __slots__ = ("_ends", "_starts", "pages")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.pages = 0

    def add(self, first: int, count: int) -> int:
        """Put a run in; how many of its pages were not there."""
        if count <= 0:
            return 0
        end = first + count
        starts, ends = self._starts, self._ends
        low = bisect_left(ends, first)
        if low == len(starts) or starts[low] > end:  # by itself, as most are
            starts.insert(low, first)
            ends.insert(low, end)
            self.pages += count
            return count
        if low + 1 == len(starts) or starts[low + 1] > end:  # grows the one that it overlaps or touches
            before = ends[low] - starts[low]
            starts[low], ends[low] = min(first, starts[low]), max(end, ends[low])
            added = ends[low] - starts[low] - before
            self.pages += added
            return added
        high = bisect_right(starts, end, low)  # those from `low` overlap it or touch it
        before = sum(ends[low:high]) - sum(starts[low:high])
        first, end = min(first, starts[low]), max(end, ends[high - 1])
        starts[low:high] = (first,)
        ends[low:high] = (end,)
        added = end - first - before
        self.pages += added
        return added

    def remove(self, first: int, count: int) -> int:
        """Take a run out; how many of its pages were there."""
        if count <= 0:
            return 0
        end = first + count
        starts, ends = self._starts, self._ends
        low, high = bisect_right(ends, first), bisect_left(starts, end)  # runs that overlap
        if low >= high:
            return 0
        before = sum(ends[low:high]) - sum(starts[low:high])
        kept = [(starts[low], min(first, ends[low])), (max(end, starts[high - 1]), ends[high - 1])]
        kept = [(a, b) for a, b in kept if a < b]
        starts[low:high] = [a for a, _ in kept]
        ends[low:high] = [b for _, b in kept]
        removed = before - sum(b - a for a, b in kept)
        self.pages -= removed
        return removed

    def gaps(self, first: int, count: int) -> list[Run]:
        """Runs of [first, first + count) that are not in the set, ascending."""
        end = first + count
        found = []
        i = bisect_right(self._ends, first)
        while first < end and i < len(self._starts) and self._starts[i] < end:
            if self._starts[i] > first:
                found.append((first, self._starts[i] - first))
            first = self._ends[i]
            i += 1
        if first < end:
            found.append((first, end - first))
        return found

    def misses(self, first: int, count: int) -> bool:
        """No page of [first, first + count) is in the set."""
        i = bisect_right(self._ends, first)
        return i == len(self._starts) or self._starts[i] >= first + count

    @classmethod
    def union(cls, low: int, high: int, sets: Iterable[PageSet]) -> PageSet:
        """All that is in any of the sets, of the runs that reach into [low, high)."""
        found = cls()
        runs: list[tuple[int, int]] = []
        for one in sets:
            i, j = bisect_right(one._ends, low), bisect_left(one._starts, high)
            runs += zip(one._starts[i:j], one._ends[i:j], strict=True)
        runs.sort()
        starts, ends = found._starts, found._ends
        last = -1
        for start, end in runs:
            if start > last:
                starts.append(start)
                ends.append(end)
                last = end
            elif end > last:
                ends[-1] = last = end
        found.pages = sum(ends) - sum(starts)
        return found

    def runs(self) -> list[Run]:
        """All runs, ascending."""
        return [(a, b - a) for a, b in zip(self._starts, self._ends, strict=True)]

    @property
    def run_count(self) -> int:
        """How many runs it takes to say it."""
        return len(self._starts)

    def __contains__(self, gfn: object) -> bool:
        if not isinstance(gfn, int):
            return False
        i = bisect_right(self._starts, gfn) - 1
        return i >= 0 and gfn < self._ends[i]


class Allocator:
    """The order in which a kernel hands out pages that nobody has written yet, and what it handed out (G2).

    Runs are taken from their top page down. `taken` are pages handed out at least once and not ballooned since, in
    order; `pool` are the others.
    """

    __slots__ = ("_pool", "_taken", "pool_pages", "taken_pages")

    def __init__(self, pool: Iterable[Run]) -> None:
        """`pool` in the reverse of the order in which it is handed out."""
        self._pool = [run for run in pool if run[1] > 0]
        self._taken: list[Run] = []
        self.pool_pages = sum(count for _, count in self._pool)
        self.taken_pages = 0

    def take(self, pages: int) -> list[Run]:
        """Hand out untouched pages, as many of `pages` as there are."""
        runs = pop_runs(self._pool, pages)
        for run in runs:
            push_below(self._taken, run)
        got = sum(count for _, count in runs)
        self.pool_pages -= got
        self.taken_pages += got
        return runs

    @property
    def run_count(self) -> int:
        """How many runs there are of both."""
        return len(self._pool) + len(self._taken)

    @property
    def runs(self) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """The pool and what was taken from it, as runs."""
        return tuple(self._pool), tuple(self._taken)

    @classmethod
    def of(cls, pool: Iterable[Run], taken: Iterable[Run]) -> Allocator:
        """One that has given `taken` and has `pool` left."""
        found = cls(pool)
        found._taken = list(taken)
        found.taken_pages = sum(count for _, count in found._taken)
        return found

    def copy(self) -> Allocator:
        """The same, to go back to."""
        found = Allocator(())
        found._pool, found._taken = list(self._pool), list(self._taken)
        found.pool_pages, found.taken_pages = self.pool_pages, self.taken_pages
        return found

    def drop(self, pages: int) -> None:
        """So many untouched pages have been handed out."""
        pop_runs(self._pool, pages)
        self.pool_pages -= pages

    def took(self, first: int, count: int) -> None:
        """Of these, a run that is in use."""
        push_below(self._taken, (first, count))
        self.taken_pages += count

    def next_pages(self, pages: int) -> list[Run]:
        """The runs of untouched pages that would be handed out next."""
        found: list[Run] = []
        at = len(self._pool)
        while pages > 0 and at:
            at -= 1
            first, count = self._pool[at]
            n = min(count, pages)
            found.append((first + count - n, n))
            pages -= n
        return found

    def next_runs(self, most: int, least_pages: int) -> list[int]:
        """The first gfns and the pages of the runs that it hands out next: `most` of them, or more up to `least_pages`
        pages.
        """
        runs = self._pool[: -most - 1 : -1]
        if sum(count for _, count in runs) < least_pages:
            runs = self.next_pages(least_pages)
        return [number for run in runs for number in run]

    def _pop_spare(self, in_use: int) -> list[Run]:
        """Take back what is handed out beyond the first `in_use` pages: the run that went out last first."""
        freed: list[Run] = []
        spare = self.taken_pages - in_use
        while spare > 0:
            first, count = self._taken.pop()
            if count > spare:
                self._taken.append((first + spare, count - spare))
                count = spare
            freed.append((first, count))
            spare -= count
        return freed

    def put_back_spare(self, in_use: int) -> list[Run]:
        """Take back what is handed out beyond the first `in_use` pages, to be handed out again in the same order as
        before.
        """
        freed = self._pop_spare(in_use)
        pages = self.taken_pages - in_use
        self.taken_pages -= pages
        self.pool_pages += pages
        self._pool += freed
        return freed

    def take_away(self, pages: int, in_use: int, *, whole: bool = False) -> list[Run]:
        """Hand out pages for good (to the balloon): first what was freed, the last freed first, then untouched ones.

        `whole`: before either, untouched 2 MiB of which no page is missing.
        """
        if whole:
            runs = self._take_whole(pages)
            return runs + self.take_away(pages - sum(count for _, count in runs), in_use)
        freed = self._pop_spare(in_use)
        runs = pop_runs(freed, pages)
        for run in reversed(freed):
            push_below(self._taken, run)
        got = sum(count for _, count in runs)
        self.taken_pages -= got
        fresh = pop_runs(self._pool, pages - got)
        self.pool_pages -= sum(count for _, count in fresh)
        for run in fresh:
            push_below(runs, run)
        return runs

    def _take_whole(self, pages: int) -> list[Run]:
        """As many whole superpages of the pool as `pages` holds, in the order in which the pool would be handed out."""
        runs: list[Run] = []
        wanted = pages // SUPERPAGE_PAGES
        for at in range(len(self._pool) - 1, -1, -1):
            first, count = self._pool[at]
            low, high = -(-first // SUPERPAGE_PAGES), (first + count) // SUPERPAGE_PAGES
            got = min(wanted, high - low)
            if got > 0:
                start, end = (high - got) * SUPERPAGE_PAGES, high * SUPERPAGE_PAGES
                rest = [(first, start - first), (end, first + count - end)]
                self._pool[at : at + 1] = [run for run in rest if run[1]]
                runs.append((start, end - start))
                wanted -= got
            if not wanted:
                break
        self.pool_pages -= sum(count for _, count in runs)
        return runs

    def put_back(self, runs: Iterable[Run]) -> None:
        """Take pages in again (from the balloon), to be handed out next."""
        for run in runs:
            self._pool.append(run)
            self.pool_pages += run[1]


def pop_runs(stack: list[Run], pages: int) -> list[Run]:
    """Take `pages` pages off the end of a stack of runs, each from its top page down."""
    runs: list[Run] = []
    while pages > 0 and stack:
        first, count = stack.pop()
        if count > pages:
            stack.append((first, count - pages))
            first, count = first + count - pages, pages
        push_below(runs, (first, count))
        pages -= count
    return runs


def first_pages(runs: Iterable[Run], pages: int, *, ascending: bool) -> Iterator[Run]:
    """The first `pages` pages of runs that are walked one after another, each up or down."""
    for first, count in runs:
        n = min(count, pages)
        if n:
            yield (first if ascending else first + count - n), n
        pages -= n


def push_below(runs: list[Run], run: Run) -> None:
    """Append a run, as one with the last where it lies right below it."""
    if runs and run[0] + run[1] == runs[-1][0]:
        runs[-1] = (run[0], run[1] + runs[-1][1])
    else:
        runs.append(run)


def batches(runs: Iterable[Run], batch_pages: int) -> Iterator[list[Run]]:
    """Cut runs, each taken from its top page down, into lists of `batch_pages` pages."""
    stack = list(runs)[::-1]
    while stack:
        yield pop_runs(stack, batch_pages)


def shuffled_blocks(runs: Iterable[Run], block_pages: int, rng: np.random.Generator) -> list[Run]:
    """The same pages in aligned blocks of `block_pages`, in random order."""
    blocks = [block for run in runs for block in aligned_blocks(run, block_pages)]
    return list(map(blocks.__getitem__, rng.permutation(len(blocks)).tolist()))


def aligned_blocks(run: Run, block_pages: int) -> list[Run]:
    """A run cut at multiples of `block_pages`, ascending."""
    first, end = run[0], run[0] + run[1]
    low, high = -(-first // block_pages) * block_pages, end // block_pages * block_pages
    if low > high:
        return [run]
    blocks = [(first, low - first)] if first < low else []
    blocks.extend(zip(range(low, high, block_pages), repeat(block_pages), strict=False))
    if high < end:
        blocks.append((high, end - high))
    return blocks
