"""A balloon's hypercalls, batch after batch, in one kernel call.

What        `balloon_runs`: the pages of a list of runs, cut into batches; each is zeroed first if the driver scrubs,
            then given back in a hypercall of its own.
Units       Pages of 4 KiB; a run is (first gfn, count).
Symbols     D = E - C debt
Time        [G6] as touches and hypercalls one by one.
Why exact   It is the loop over batches itself, each of two range operations (ranges.py).
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine
from podcluster.host.ranges import give_back_range, write_range
from podcluster.host.state import DomainState, HostState
from podcluster.host.whole_blocks import scrub_and_give_back
from podcluster.host.written import ZERO

# How `balloon_runs` ended.
ALL_GIVEN = 0
HEAP_NEXT = 1  # before a batch that is larger than the debt, so that frames may go to the host
DIED = 2  # zeroing the next batch
CUT_SHORT = 3  # a hypercall did less than it was asked

# What it leaves in `out`.
B_HOW = 0
B_WHOLE = 1  # pages of the batches that are done
B_ZEROED = 2  # pages of the next batch that have been zeroed
B_GIVEN = 3  # pages of it that have been given back
B_FIELDS = 4


@routine
def _sort(pieces: npt.NDArray[np.int64], n: int) -> None:
    """Sort the first n (gfn, count) pairs by gfn: by insertion, for they are few or nearly in order."""
    for k in range(1, n):
        gfn = pieces[2 * k]
        count = pieces[2 * k + 1]
        at = k
        while at > 0 and pieces[2 * at - 2] > gfn:
            pieces[2 * at] = pieces[2 * at - 2]
            pieces[2 * at + 1] = pieces[2 * at - 1]
            at -= 1
        pieces[2 * at] = gfn
        pieces[2 * at + 1] = count


@routine
def hand_over(
    h: HostState,
    g: DomainState,
    pieces: npt.NDArray[np.int64],
    n: int,
    ascending: bool,
    scrub: bool,
    out: npt.NDArray[np.int64],
) -> int:
    """One batch, of the first `n` (gfn, count) pairs: zero its pages where the driver scrubs, then give them back in
    one hypercall. ALL_GIVEN, DIED or CUT_SHORT; `out` has what it came to.
    """
    step = 1 if ascending else -1
    if ascending:
        _sort(pieces, n)
    if scrub and n == 1:
        first = pieces[0] if ascending else pieces[0] + pieces[1] - 1
        if scrub_and_give_back(h, g, first, pieces[1], step):
            out[B_ZEROED] += pieces[1]
            out[B_GIVEN] += pieces[1]
            return ALL_GIVEN
    if scrub:
        for k in range(n):
            first = pieces[2 * k] if ascending else pieces[2 * k] + pieces[2 * k + 1] - 1
            done = write_range(h, g, first, pieces[2 * k + 1], step, ZERO)
            out[B_ZEROED] += done
            if done < pieces[2 * k + 1]:
                return DIED
    g.rec[0].now_ns += h.rec[0].hypercall_ns
    for k in range(n):
        first = pieces[2 * k] if ascending else pieces[2 * k] + pieces[2 * k + 1] - 1
        done = give_back_range(h, g, first, pieces[2 * k + 1], step)
        out[B_GIVEN] += done
        if done < pieces[2 * k + 1]:
            return CUT_SHORT
    return ALL_GIVEN


@kernel
def balloon_runs(
    h: HostState,
    g: DomainState,
    runs: npt.NDArray[np.int64],
    batch_pages: int,
    ascending: bool,
    scrub: bool,
    until_heap: bool,
    pieces: npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
) -> None:
    """Give back `runs` (pairs, one after another), each from its top page down, in batches; `out` says how far it came.

    `ascending`: each batch as one sorted list, upwards. `pieces` is room for as many pairs as there are runs, and one.
    """
    r = g.rec[0]
    out[:] = 0
    at = 0
    last = runs.shape[0] // 2
    left = int(runs[1]) if last else 0
    while at < last:
        # Gather a batch.
        n = 0
        size = 0
        while at < last and size < batch_pages:
            take = min(left, batch_pages - size)
            left -= take
            if take > 0:
                pieces[2 * n] = runs[2 * at] + left
                pieces[2 * n + 1] = take
                n += 1
            size += take
            if left == 0:
                at += 1
                left = int(runs[2 * at + 1]) if at < last else 0
        if n == 0:
            return
        if until_heap and r.entry_count - r.cache_count < size:
            out[B_HOW] = HEAP_NEXT
            return
        out[B_HOW] = hand_over(h, g, pieces, n, ascending, scrub, out)
        if out[B_HOW] != ALL_GIVEN:
            return
        out[B_WHOLE] += size
        out[B_ZEROED] = 0
        out[B_GIVEN] = 0
