"""Sets and orders of a guest's pages, as runs.

What        `PageSet`, a set of gfns; `PageStack`, runs in an order; `Allocator`, the order in which untouched pages are
            taken. Their numbers are arrays that kernels take as they are (page_sets.py, page_stacks.py); here is what
            Python asks of them. And what lists of runs have in common.
Units       Pages of 4 KiB; a run is (first gfn, count).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from podcluster.host import page_sets, page_stacks
from podcluster.host.domain import Run
from podcluster.host.integers import Numbers, packed_numbers, unpacked_numbers
from podcluster.host.page_sets import PAGES
from podcluster.host.page_stacks import FIRST, RUNS
from podcluster.records.values import Int64Array
from podcluster.units import SUPERPAGE_PAGES

PackedPairs = tuple[Numbers, Numbers]

FEWEST_RUNS: Final = 128  # that there is room for: enough for most guests whose memory is in one piece
FEWEST_ROWS: Final = 128  # of blocks that are in a set in part
PIECES: Final = 64  # runs that are asked for at once


def run_array(runs: Iterable[Run] | Int64Array) -> Int64Array:
    """[run, 2] these runs, empty ones left out; of an array none is."""
    if isinstance(runs, np.ndarray):
        return runs
    return np.array([run for run in runs if run[1]], np.int64).reshape(-1, 2)


def packed_pairs(pairs: Int64Array) -> PackedPairs:
    """[pair, 2] as few bytes."""
    first, second = pairs.T
    return packed_numbers(first), packed_numbers(second)


def unpacked_pairs(packed: PackedPairs) -> Int64Array:
    """The pairs again."""
    return np.stack([unpacked_numbers(column) for column in packed], axis=1)


def _larger(array: Int64Array, size: int) -> Int64Array:
    """The same with room for more."""
    larger = np.empty(size, np.int64)
    larger[: len(array)] = array
    return larger


def _own_rows(blocks: int) -> int:
    """Where, in a set of so many blocks, the rows begin that no two of them share."""
    return page_sets.TABLE + (blocks + 1) // 2 + page_sets.ROW_WORDS * (page_sets.FULL + 1)


class PageSet:
    """A set of gfns; `pages` is their number."""

    __slots__ = ("array",)

    def __init__(self, end: int = 0) -> None:
        """Empty; made for gfns below `end`, and larger where others come."""
        self._make(-(-end // SUPERPAGE_PAGES), FEWEST_ROWS)

    def _make(self, blocks: int, rows: int) -> None:
        own, words = _own_rows(blocks), page_sets.ROW_WORDS
        self.array = np.empty(own + words * min(rows, blocks), np.int64)
        self.array[: own - words] = 0
        self.array[own - words : own] = -1  # the row of a full block is the last that they share
        self.array[page_sets.BLOCKS] = blocks
        self.array[page_sets.TOP_ROW] = page_sets.FULL + 1

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return int(self.array[PAGES])

    def make_room(self, more: int) -> None:
        """See to it that so many more runs fit in."""
        array = self.array
        blocks, used = int(array[page_sets.BLOCKS]), int(array[page_sets.USED])
        own = _own_rows(blocks)
        rows = (len(array) - own) // page_sets.ROW_WORDS
        if rows < min(used + 2 * more, blocks):
            rows = min(max(used + 2 * more, 4 * rows), blocks)
            self.array = _larger(array, own + page_sets.ROW_WORDS * rows)

    def reach_to(self, end: int) -> None:
        """See to it that gfns below `end` can be in it."""
        if end > SUPERPAGE_PAGES * int(self.array[page_sets.BLOCKS]):
            self._fill(-(-end // SUPERPAGE_PAGES), self._ends())

    def _fill(self, blocks: int, runs: Int64Array) -> None:
        """Be of so many blocks, and hold these runs, as `_ends` has them."""
        self._make(blocks, 2 * len(runs) + FEWEST_ROWS)
        page_sets.add_runs(self.array, runs.reshape(-1))

    def add(self, first: int, count: int) -> int:
        """Put a run in; how many of its pages were not there."""
        self.reach_to(first + count)
        self.make_room(1)
        return page_sets.set_add(self.array, first, count)

    def remove(self, first: int, count: int) -> int:
        """Take a run out; how many of its pages were there."""
        self.make_room(1)
        return page_sets.set_remove(self.array, first, count)

    def gaps(self, first: int, count: int) -> list[Run]:
        """Runs of [first, first + count) that are not in the set, ascending."""
        return free_runs((self, NOTHING, NOTHING), first, count, descending=False)

    def runs(self) -> list[Run]:
        """All runs, ascending."""
        return [(first, end - first) for first, end in self._ends().tolist()]

    def _ends(self) -> Int64Array:
        """[run, 2] the first gfn and the end of each run, ascending."""
        runs = np.empty(2 * PIECES, np.int64)
        n = page_sets.list_runs(self.array, NOTHING.array, runs)
        if n > PIECES:
            runs = np.empty(2 * n, np.int64)
            page_sets.list_runs(self.array, NOTHING.array, runs)
        return runs[: 2 * n].reshape(-1, 2)

    def __contains__(self, gfn: object) -> bool:
        return isinstance(gfn, int) and not self.gaps(gfn, 1)

    def __getstate__(self) -> tuple[PackedPairs, int]:
        return packed_pairs(self._ends()), int(self.array[page_sets.BLOCKS])

    def __setstate__(self, state: tuple[PackedPairs, int]) -> None:
        packed, blocks = state
        self._fill(blocks, unpacked_pairs(packed))


NOTHING: Final = PageSet()  # nobody adds to it


def free_runs(sets: tuple[PageSet, PageSet, PageSet], first: int, count: int, *, descending: bool) -> list[Run]:
    """Runs of [first, first + count) of which no page is in any of the sets, in the order in which they are met."""
    one, two, three = (each.array for each in sets)
    begin, step = (first + count - 1, -1) if descending else (first, 1)
    pieces = np.empty(2 * PIECES + 1, np.int64)
    found: list[Run] = []
    while count > 0:
        n = page_sets.list_free(one, two, three, begin, count, step, pieces)
        gone = int(pieces[0])
        found += _pairs(pieces[1:], n)
        begin, count = begin + gone * step, count - gone
    return found


class PageStack:
    """Runs in an order, each taken from its top page down; the last is taken first."""

    __slots__ = ("array",)

    def __init__(self, runs: Iterable[Run] | Int64Array = ()) -> None:
        if isinstance(runs, tuple) and not runs:  # as most are at first
            self.array = np.zeros(FIRST + 2 * FEWEST_RUNS, np.int64)
            return
        self._set(run_array(runs))

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return int(self.array[PAGES])

    @property
    def run_count(self) -> int:
        """How many runs it takes to say it."""
        return int(self.array[RUNS])

    def make_room(self, more: int) -> None:
        """See to it that so many more runs fit in."""
        needed = FIRST + 2 * (self.run_count + more)
        if needed > len(self.array):
            self.array = _larger(self.array, max(needed, 4 * len(self.array)))

    def _numbers(self) -> Int64Array:
        """[run, 2] what it holds."""
        return self.array[FIRST : FIRST + 2 * self.run_count].reshape(-1, 2)

    def __getstate__(self) -> PackedPairs:
        return packed_pairs(self._numbers())

    def __setstate__(self, state: PackedPairs) -> None:
        self._set(unpacked_pairs(state))

    def _set(self, numbers: Int64Array) -> None:
        """Hold these numbers, [run, 2]."""
        self.array = np.empty(FIRST + 2 * max(FEWEST_RUNS, len(numbers)), np.int64)
        self.array[RUNS] = len(numbers)
        self.array[FIRST : FIRST + 2 * len(numbers)] = numbers.reshape(-1)
        self.array[PAGES] = int(numbers[:, 1].sum())

    def push(self, run: Run) -> None:
        """Put a run on top."""
        self.make_room(1)
        page_stacks.push(self.array, *run, False)

    def push_below(self, run: Run) -> None:
        """The same; as one with the topmost where it lies right below it."""
        self.make_room(1)
        page_stacks.push(self.array, *run, True)

    @property
    def top(self) -> Run | None:
        """The run on top."""
        runs = self.run_count
        if not runs:
            return None
        first, count = self.array[FIRST + 2 * runs - 2 : FIRST + 2 * runs].tolist()
        return first, count

    def pop(self, pages: int) -> list[Run]:
        """Take so many pages, as many as there are."""
        pieces = np.empty(2 * self.run_count + 2, np.int64)
        return _pairs(pieces, page_stacks.draw(self.array, pages, pieces, 0))

    def runs(self) -> list[Run]:
        """All runs, from the bottom up."""
        return [(first, count) for first, count in self._numbers().tolist()]

    def next_runs(self, most: int, least_pages: int) -> Int64Array:
        """The first gfns and the pages of the topmost runs, the topmost first: `most` of them, or more up to
        `least_pages` pages.
        """
        array, runs = self.array, self.run_count
        end = FIRST + 2 * runs
        while most < runs and sum(array[end - 2 * most + 1 : end : 2].tolist()) < least_pages:
            most *= 2
        return array[max(FIRST, end - 2 * most) : end].reshape(-1, 2)[::-1].reshape(-1)

    def replace(self, runs: Sequence[Run]) -> None:
        """Hold other runs."""
        self._set(np.array(runs, np.int64).reshape(-1, 2))


def _pairs(pieces: Int64Array, n: int) -> list[Run]:
    return [(first, count) for first, count in pieces[: 2 * n].reshape(-1, 2).tolist()]


class Allocator:
    """The order in which a kernel hands out pages that nobody has written yet, and what it handed out (G2).

    `taken` are pages handed out at least once and not ballooned since, in order; `pool` are the others.
    """

    __slots__ = ("pool", "taken")

    def __init__(self, pool: Iterable[Run] | Int64Array, taken: Iterable[Run] = ()) -> None:
        """`pool` in the reverse of the order in which it is handed out."""
        self.pool = PageStack(pool)
        self.taken = PageStack(taken)

    @property
    def taken_pages(self) -> int:
        """Pages that were handed out."""
        return self.taken.pages

    @property
    def run_count(self) -> int:
        """How many runs there are of both."""
        return self.pool.run_count + self.taken.run_count

    def take(self, pages: int) -> list[Run]:
        """Hand out untouched pages, as many of `pages` as there are."""
        runs = self.pool.pop(pages)
        for run in runs:
            self.taken.push_below(run)
        return runs

    def put_back_spare(self, in_use: int) -> list[Run]:
        """Take back what is handed out beyond the first `in_use` pages, to be handed out again in the same order as
        before; the last that was handed out first.
        """
        self.pool.make_room(self.taken.run_count)
        pieces = np.empty(2 * self.taken.run_count + 2, np.int64)
        return _pairs(pieces, page_stacks.put_back_spare(self.pool.array, self.taken.array, in_use, pieces))

    def take_away(self, pages: int, in_use: int, *, whole: bool = False) -> list[Run]:
        """Hand out pages for good (to the balloon): first what was freed, the last freed first, then untouched ones.

        `whole`: before either, untouched 2 MiB of which no page is missing.
        """
        if whole:
            runs = self._take_whole(pages)
            return runs + self.take_away(pages - sum(count for _, count in runs), in_use)
        self.taken.make_room(1)
        pieces = np.empty(2 * self.run_count + 2, np.int64)
        n = page_stacks.draw_spare(self.taken.array, in_use, pages, pieces)
        n = page_stacks.draw(self.pool.array, pages - int(pieces[1 : 2 * n : 2].sum()), pieces, n)
        return _pairs(pieces, n)

    def _take_whole(self, pages: int) -> list[Run]:
        """As many whole superpages of the pool as `pages` holds, in the order in which the pool would be handed out."""
        runs: list[Run] = []
        pool = self.pool.runs()
        wanted = pages // SUPERPAGE_PAGES
        for at in range(len(pool) - 1, -1, -1):
            first, count = pool[at]
            low, high = -(-first // SUPERPAGE_PAGES), (first + count) // SUPERPAGE_PAGES
            got = min(wanted, high - low)
            if got > 0:
                start, end = (high - got) * SUPERPAGE_PAGES, high * SUPERPAGE_PAGES
                rest = [(first, start - first), (end, first + count - end)]
                pool[at : at + 1] = [run for run in rest if run[1]]
                runs.append((start, end - start))
                wanted -= got
            if not wanted:
                break
        self.pool.replace(pool)
        return runs

    def take_back(self, balloon: PageStack, away: PageSet, pages: int, batch_pages: int) -> None:
        """Take the topmost pages of the balloon in again, and out of `away`, so many a batch: what is of one run and
        one batch is a run of the pool.
        """
        most = balloon.run_count + pages // batch_pages + 1
        self.pool.make_room(most)
        away.make_room(most)
        page_stacks.take_back(self.pool.array, balloon.array, away.array, pages, batch_pages)

    def put_back(self, runs: Iterable[Run]) -> None:
        """Take pages in again (from the balloon), to be handed out next."""
        for run in runs:
            self.pool.push(run)


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


def shuffled_blocks(runs: Iterable[Run], block_pages: int, rng: np.random.Generator) -> Int64Array:
    """[block, 2] the same pages in aligned blocks of `block_pages`, in random order."""
    blocks = aligned_blocks(runs, block_pages)
    return blocks.take(rng.permutation(len(blocks)), axis=0)


def aligned_blocks(runs: Iterable[Run], block_pages: int) -> Int64Array:
    """[block, 2] runs cut at multiples of `block_pages`, each ascending; none of the runs is empty."""
    found = [np.empty((0, 2), np.int64)]
    for first, count in runs:
        edges = np.arange(first // block_pages, -(-(first + count) // block_pages) + 1, dtype=np.int64) * block_pages
        edges[0], edges[-1] = first, first + count
        blocks = np.empty((len(edges) - 1, 2), np.int64)
        blocks[:, 0] = edges[:-1]
        np.subtract(edges[1:], edges[:-1], out=blocks[:, 1])
        found.append(blocks)
    return np.concatenate(found)
