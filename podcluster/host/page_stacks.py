"""Orders of a guest's pages in flat arrays, for kernels.

What        A *stack* is runs in the order in which they were put there, each taken from its top page down.
            `page_sets.py` has the sets.
Units       Pages of 4 KiB; a run is (first gfn, pages).
Form        [runs, pages, first run, second run, ...] with room for more. Nothing here makes room: whoever adds sees
            beforehand that there is some (`room_of`).
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, move, routine
from podcluster.host.page_sets import PAGES, set_remove

Ints = npt.NDArray[np.int64]

RUNS = 0  # how many there are
FIRST = 2  # field of the first run


@routine
def room_of(a: Ints) -> int:
    """How many more runs there is room for."""
    return int((a.shape[0] - FIRST) // 2 - a[RUNS])


@routine
def _make_way(a: Ints, at: int, runs: int) -> None:
    """Move the runs from number `at` on up by `runs` places, or down."""
    first = FIRST + 2 * at
    if runs != 0:
        move(a, first + 2 * runs, first, FIRST + 2 * a[RUNS] - first)
    a[RUNS] += runs


@kernel
def push(a: Ints, first: int, count: int, joins: bool) -> None:
    """Put a run on a stack; `joins`: as one with the topmost where it lies right below it."""
    top = FIRST + 2 * a[RUNS] - 2
    a[PAGES] += count
    if joins and a[RUNS] > 0 and first + count == a[top]:
        a[top] = first
        a[top + 1] += count
        return
    a[top + 2] = first
    a[top + 3] = count
    a[RUNS] += 1


@routine
def runs_of(a: Ints, pages: int) -> int:
    """Over how many runs the topmost `pages` pages are spread."""
    k = a[RUNS]
    while k > 0 and pages > 0:
        k -= 1
        pages -= a[FIRST + 2 * k + 1]
    return int(a[RUNS] - k)


@routine
def _gather(pieces: Ints, n: int, first: int, count: int) -> int:
    """Add a run to the first `n` pairs, as one with the last where it lies right below it; how many there are then."""
    if n > 0 and first + count == pieces[2 * n - 2]:
        pieces[2 * n - 2] = first
        pieces[2 * n - 1] += count
        return n
    pieces[2 * n] = first
    pieces[2 * n + 1] = count
    return n + 1


@routine
def _cut_top(a: Ints, pages: int) -> int:
    """Take no more than so many pages off the topmost run, from its top page down; how many."""
    top = FIRST + 2 * a[RUNS] - 2
    take = min(a[top + 1], pages)
    a[top + 1] -= take
    a[PAGES] -= take
    if a[top + 1] == 0:
        a[RUNS] -= 1
    return int(take)


@routine
def _top_end(a: Ints) -> int:
    """The gfn after the topmost run."""
    top = FIRST + 2 * a[RUNS] - 2
    return int(a[top] + a[top + 1])


@kernel
def draw(a: Ints, pages: int, pieces: Ints, n: int) -> int:
    """Take the topmost pages off a stack, as many of `pages` as there are, and add them to the first `n` pairs of
    `pieces`; how many there are then.
    """
    while pages > 0 and a[RUNS] > 0:
        end = _top_end(a)
        take = _cut_top(a, pages)
        n = _gather(pieces, n, end - take, take)
        pages -= take
    return n


@kernel
def draw_spare(taken: Ints, in_use: int, pages: int, pieces: Ints) -> int:
    """Take pages that were handed out and are free, those beyond the first `in_use`, in the order in which they were
    handed out; how many pairs of `pieces`. It may take room for one more run.
    """
    spare = taken[PAGES] - in_use
    pages = min(pages, spare)
    if pages <= 0:
        return 0
    k = taken[RUNS] - 1
    beyond = np.int64(0)  # pages in the runs above number k
    while beyond + taken[FIRST + 2 * k + 1] < spare:
        beyond += taken[FIRST + 2 * k + 1]
        k -= 1
    begin = taken[FIRST + 2 * k]
    here = spare - beyond  # pages of run k that are free: its lowest
    used = taken[FIRST + 2 * k + 1] - here
    n = 0
    gone = min(here, pages)
    n = _gather(pieces, n, begin + here - gone, gone)
    taken[PAGES] -= pages
    pages -= gone
    if used > 0 and gone < here:
        _make_way(taken, k + 1, 1)
    if used > 0:
        taken[FIRST + 2 * k] = begin + here
        taken[FIRST + 2 * k + 1] = used
        k += 1
    if gone < here:
        taken[FIRST + 2 * k] = begin
        taken[FIRST + 2 * k + 1] = here - gone
        return n
    # Run k is gone from here on, and some of those above it.
    above = k if used > 0 else k + 1
    while pages > 0:
        count = taken[FIRST + 2 * above + 1]
        take = min(count, pages)
        n = _gather(pieces, n, taken[FIRST + 2 * above] + count - take, take)
        pages -= take
        taken[FIRST + 2 * above + 1] -= take
        if take == count:
            above += 1
    _make_way(taken, above, k - above)
    return n


@kernel
def put_back_spare(pool: Ints, taken: Ints, in_use: int, pieces: Ints) -> int:
    """Put pages that were handed out and are free back on the pool, to be handed out again in the same order; they in
    `pieces`, the last handed out first: how many pairs.
    """
    n = 0
    spare = taken[PAGES] - in_use
    while spare > 0:
        top = FIRST + 2 * taken[RUNS] - 2
        take = min(taken[top + 1], spare)
        pieces[2 * n] = taken[top]
        pieces[2 * n + 1] = take
        n += 1
        push(pool, taken[top], take, False)
        taken[top] += take
        taken[top + 1] -= take
        taken[PAGES] -= take
        if taken[top + 1] == 0:
            taken[RUNS] -= 1
        spare -= take
    return n


@kernel
def take_back(pool: Ints, balloon: Ints, away: Ints, pages: int, batch: int) -> None:
    """Put the topmost pages of the balloon on the pool, `batch` at a time, and take them out of `away`. It may take
    room for as many more runs of both as there are pieces.
    """
    left = 0
    while pages > 0:
        if left == 0:
            left = min(batch, pages)
        end = _top_end(balloon)
        take = _cut_top(balloon, left)
        push(pool, end - take, take, False)
        set_remove(away, end - take, take)
        left -= take
        pages -= take
