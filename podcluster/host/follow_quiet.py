"""Pieces of a demand that a kernel leaves out, because nothing of them matters to anybody.

What        `look_ahead` counts pieces that are quiet and plans the next act for after them; `make_good` does for the
            books what was left out. `any_lag`, whether W is too fast in any.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     as in follow_pieces.py; w W at the instants of the curve, lags the pieces in which W is too fast (follow.py)
Invariants  [GD-4] of guest_demand.py.
Why exact   Pieces that are quiet are one step [GD-4]: no page is written, nothing moves to or from swap and nobody
            waits, so held memory at their end is W or H there by formula. Within a piece W is on one line: W and H at
            its ends, and whether it lags, say whether it is quiet.
"""

import numpy as np

from podcluster.host.follow import (
    AHEAD,
    ALLOCATED,
    CACHE,
    FAULTS,
    FIRST,
    FLOOR,
    FROM,
    GROWN,
    GROWTH,
    HELD,
    HOLD,
    KERNEL,
    KILLED,
    MATTERS,
    NEVER,
    NEXT,
    PIECE,
    QUIET,
    RESIDENT,
    ROOM,
    SWAP,
    UNTIL,
    ZEROES,
    Ints,
)
from podcluster.host.follow_held import grow, hold, shrink
from podcluster.host.follow_pieces import batched_by, begin, due, last_not_after, mark, next_batch
from podcluster.host.kernel import kernel, routine
from podcluster.host.page_sets import PAGES, PageBooks
from podcluster.host.state import DomainState, HostState

SEVERAL = 32  # samples that are looked at together


@kernel
def any_lag(t: Ints, w: Ints, pages_per_ns: float) -> bool:
    """Whether there is a piece in which W grows by more than that. All are looked at, several at once, since mostly
    there is none.
    """
    lags = False
    for i in range(1, t.shape[0]):
        lags |= bool(np.float64(w[i] - w[i - 1]) > np.float64(t[i] - t[i - 1]) * pages_per_ns)
    return lags


@routine
def _keeps_up(s: Ints, d: Ints, w: Ints, high: Ints, j: int) -> bool:
    """Whether at the end of the piece before number `j` all is there that should be."""
    if s[KILLED]:
        return True
    before = high[j - 1] if j > 1 else d[FIRST]
    if d[HOLD] >= 0 and s[HELD] <= s[RESIDENT] and s[HELD] + d[KERNEL] < before:
        return False
    return bool(j < w.shape[0] and w[j] <= mark(s, d))


@routine
def _first_above(w: Ints, i: int, end: int, most: int) -> int:
    """Index of the first of `w` from `i` on, before `end`, that is more than `most`; `end` if none is."""
    while i + SEVERAL <= end:  # which are looked at together, as long as none is
        above = False
        for k in range(i, i + SEVERAL):
            above |= w[k] > most
        if above:
            break
        i += SEVERAL
    while i < end and w[i] <= most:
        i += 1
    return i


@routine
def _count_quiet(s: Ints, d: Ints, b: PageBooks, w: Ints, high: Ints, lags: Ints, j: int) -> int:
    """How many pieces from number `j` on are quiet [GD-4]; all that are left: as many as instants."""
    end = w.shape[0]
    for k in range(lags.shape[0]):
        if lags[k] >= j:
            end = lags[k]
            break
    swaps = s[HELD] > s[RESIDENT]
    kernel_pages = d[KERNEL]
    most = d[ROOM] + d[SWAP] + kernel_pages
    holds = d[HOLD] >= 0
    all_out = swaps and kernel_pages + s[HELD] == mark(s, d)
    free_taken = min(d[ROOM], b.taken[PAGES] - d[ALLOCATED]) - s[CACHE]
    least = kernel_pages + (s[RESIDENT] if swaps else free_taken)
    # What is released.
    level = NEVER
    if holds:
        if swaps:
            # Where enough is available already, who waits goes on at whatever is released, be it on swap.
            level = max(s[HELD] if d[MATTERS] <= d[ROOM] - s[RESIDENT] else 0, s[RESIDENT])
        elif d[MATTERS] < NEVER:
            level = d[ROOM] - d[MATTERS]
        if d[FLOOR] > level:
            level = NEVER
    if level == NEVER and not (s[KILLED] or all_out):
        last = min(end, w.shape[0] - 1)
        above = _first_above(w, j + 1, last + 1, least)
        return int(above - 1 - j if above <= last else end - j)
    for i in range(j, end):
        if level < NEVER and high[i] <= level + kernel_pages:
            return int(i - j)
        if s[KILLED]:
            if w[i] <= most:
                return int(i - j)
        elif i + 1 < w.shape[0]:
            had = least
            if all_out:
                had = s[HELD] + kernel_pages
                if holds:
                    had = min(max(high[i], d[FLOOR] + kernel_pages), had)
            if w[i + 1] > had:
                return int(i - j)
    return int(end - j)


@routine
def look_ahead(s: Ints, d: Ints, b: PageBooks, t: Ints, w: Ints, high: Ints, lags: Ints) -> None:
    """Plan the next act for when it matters to anybody [GD-4]."""
    if not d[AHEAD] or s[QUIET] or s[GROWN] < s[GROWTH] or (s[FAULTS] and d[ZEROES]):
        return
    if s[NEXT] == NEVER or s[NEXT] != s[UNTIL]:
        return
    j = s[PIECE] + 1
    if not _keeps_up(s, d, w, high, j):
        return
    quiet = _count_quiet(s, d, b, w, high, lags, j)
    if quiet:
        s[QUIET] = 1
        s[NEXT] = t[j + quiet] if j + quiet < t.shape[0] else NEVER


@routine
def _rest(h: HostState, g: DomainState, s: Ints, d: Ints, b: PageBooks, pieces: Ints, pages: int) -> None:
    """Hold `pages`, all in memory that was in use before (so that nothing is written), nothing on swap."""
    more = pages - s[HELD]
    s[HELD] = pages
    if more > 0:
        hold(h, g, s, d, b, pieces, more)
    else:
        s[RESIDENT] += more


@routine
def make_good(
    h: HostState,
    g: DomainState,
    s: Ints,
    d: Ints,
    b: PageBooks,
    pieces: Ints,
    t: Ints,
    w: Ints,
    high: Ints,
    td: Ints,
    wd: Ints,
    short: Ints,
    busy: Ints,
    kills: Ints,
    rate: float,
    at: int,
) -> None:
    """What was left out, up to and including `at`."""
    s[QUIET] = 0
    piece = last_not_after(t, at, s[PIECE])
    if piece > s[PIECE]:
        swaps = s[HELD] > s[RESIDENT]
        if d[HOLD] >= 0:
            most = high[piece] - d[KERNEL]
            if swaps or s[KILLED]:
                shrink(s, d, short, most, t[piece])
            else:
                _rest(h, g, s, d, b, pieces, max(most, d[FLOOR]))
        elif not (swaps or s[KILLED]):
            most = 0
            for i in range(s[PIECE] + 1, piece + 1):
                most = max(most, w[i])
            _rest(h, g, s, d, b, pieces, max(most - d[KERNEL], s[HELD]))
        begin(s, d, t, td, wd, piece, t[piece])
        if s[GROWTH] and due(s, d, td, wd, 0, 0) <= at:
            upto = batched_by(s, d, td, wd, s[GROWTH], at, 0)
            grow(h, g, s, d, b, pieces, short, busy, kills, rate, upto, at)
            s[GROWN] = upto
    next_batch(s, d, td, wd, s[FROM])
