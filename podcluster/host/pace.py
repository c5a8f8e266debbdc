"""Instants in kernels: exact products and quotients, and pages that are due at a pace.

What        `muldiv`, floor(a b / c); `write_paced`, batches of a guest's writes at a pace, in one call.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     page i of a stream is due at anchor + i num / den, rounded down [GS-1]
Invariants  [LK-1], [LK-2] of lock.py: a batch begins at max(due, when the lock is free), and what it waited and took
                   in Xen moves the anchor.
Why exact   It is the loop over batches itself, left where another stream of the guest may come first.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine
from podcluster.host.ranges import touch_range
from podcluster.host.state import DomainState, HostState

# A pace and how far it has come: fields of the array that `write_paced` and `balloon_paced` take and change.
ANCHOR = 0
NUM = 1
DEN = 2
BATCH = 3  # pages in a batch
PAGES = 4  # of the stream in all
DONE = 5  # pages done, in whole batches
NEXT = 6  # when the next batch is due; in the end, when it is or could be
FREE = 7  # since when the lock is free
LAST = 8  # no batch but the first begins later
SKIPS = 9  # 1: a guest without entries may be skipped [G12]
HELD = 10  # ns that the lock was held, added up
LATE = 11  # ns that the stream was held up, added up
BEGAN = 12  # when the latest batch began
PART = 13  # pages done of the batch that the guest died in
HOW = 14
PACE_FIELDS = 15

# How a call ended.
ON_TIME = 0  # all that begins by LAST is done
DIED = 1
INERT = 2  # no entry is left: what is written from here on is nothing to Xen [G12]

NOTHING = -1  # as a first gfn: pages that count and are not written


def pacing(
    *,
    anchor_ns: int,
    num: int,
    den: int,
    batch: int,
    done: int,
    upto: int,
    next_ns: int,
    free_ns: int,
    last_ns: int,
    skips: bool = False,
) -> list[int]:
    """The fields of a pace that is `done` pages along and may go up to page `upto`."""
    return [anchor_ns, num, den, batch, upto, done, next_ns, free_ns, last_ns, skips, 0, 0, -1, 0, 0]


@routine
def muldiv(a: int, b: int, c: int) -> int:
    """floor(a b / c) for 0 <= b, 0 < c < 2**61 and a quotient below 2**50 in size; the product may pass 2**63.

    The quotient of floats is off by one or two at most; what is then left over is exact modulo 2**64.
    """
    q = np.int64(np.float64(a) * np.float64(b) / np.float64(c))
    rest = a * b - q * c
    while rest < 0:
        q -= 1
        rest += c
    while rest >= c:
        q += 1
        rest -= c
    return q


@kernel
def divided(a: int, b: int, c: int) -> int:
    """`muldiv`, for tests."""
    return muldiv(a, b, c)


@routine
def due(p: npt.NDArray[np.int64], page: int) -> int:
    """When page number `page` of the stream is due."""
    return p[ANCHOR] + muldiv(page, p[NUM], p[DEN])


@kernel
def write_paced(
    h: HostState, g: DomainState, runs: npt.NDArray[np.int64], content: int, p: npt.NDArray[np.int64]
) -> None:
    """Write `runs` (pairs: first gfn, pages; negative: from the top page down) in batches, from page DONE on; `p` says
    how far it came. The first batch is done whenever it begins.
    """
    r = g.rec[0]
    at = 0
    used = 0  # pages of run `at`
    p[HOW] = ON_TIME
    while p[DONE] < p[PAGES]:
        began = max(p[NEXT], p[FREE])
        if p[BEGAN] >= 0 and began > p[LAST]:
            return
        p[BEGAN] = began
        r.now_ns = began
        size = min(p[BATCH], p[PAGES] - p[DONE])
        wrote = 0
        alive = True
        while wrote < size and alive and at < runs.shape[0] // 2:
            first = runs[2 * at]
            count = abs(runs[2 * at + 1])
            take = min(count - used, size - wrote)
            done = take
            if first >= 0:
                down = runs[2 * at + 1] < 0
                begin = first + count - used - 1 if down else first + used
                done = touch_range(h, g, begin, take, -1 if down else 1, content)
                alive = done == take
            used += done
            wrote += done
            if used == count:
                at += 1
                used = 0
        end = r.now_ns
        if end != began:
            p[HELD] += end - began
            p[FREE] = end
        if not alive:
            p[PART] = wrote
            p[HOW] = DIED
            p[NEXT] = max(began, due(p, p[DONE]))
            return
        if end != began:
            late = end - p[NEXT]
            p[ANCHOR] += late
            p[LATE] += late
        p[DONE] += size
        p[NEXT] = max(began, due(p, p[DONE]))
        if p[SKIPS] and r.entry_count == 0:
            p[HOW] = INERT
            return
