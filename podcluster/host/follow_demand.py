"""Following a demand from one instant to the next, in one kernel call.

What        `follow_demand`: what `guest_demand.DemandStream` does act by act with the books of `held.py` and
            `guest_memory.py`, for as long as nobody else has to have a say; then, how long nothing of it matters.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W, piece, mark as in guest_demand.py; s the books and the piece in hand, d what does not change (follow.py);
            b the guest's sets and stacks of pages (page_sets.py)
Invariants  [GD-2], [GD-4] of guest_demand.py, [SW-1] of swap.py, [GM-1] of guest_memory.py.
Why exact   It is the same acts in the same order. Batches that neither find a page to write nor anything on swap are
            one act: all that happens between two instants of theirs is nothing. Pieces that are quiet are one step
            [GD-4].
"""

from podcluster.host.follow import (
    ACTS,
    AT,
    BALLOON_NEXT,
    BASE,
    BATCH,
    BOOKS_FULL,
    BUSY,
    CACHE,
    DIED,
    DONE,
    FAULTS,
    FREE,
    FULL_MARGIN,
    GRID,
    GROWN,
    GROWTH,
    HELD,
    HELPS,
    HOW,
    INERT,
    KILLS,
    LAST,
    LATE,
    LISTS_FULL,
    LOCK_HELD,
    MATTERS,
    MORE,
    NEVER,
    NEXT,
    QUIET,
    RELEASED,
    RESIDENT,
    ROOM,
    SEEN,
    SERVED,
    SETTLE,
    SHORT,
    SWAP,
    TIMED,
    ZEROES,
    Curve,
    Ints,
    K,
    Told,
)
from podcluster.host.follow_held import fresh_for, grow, spare_taken
from podcluster.host.follow_pieces import batched_by, count_out, due, mark, next_batch, plan, send_out
from podcluster.host.follow_quiet import look_ahead, make_good
from podcluster.host.kernel import kernel, routine
from podcluster.host.page_sets import PAGES, PageBooks, runs_fit
from podcluster.host.page_stacks import room_of, runs_of
from podcluster.host.state import DomainState, HostState


@routine
def _next_look(d: Ints, at: int) -> int:
    """The first look at the host that sees what is done at `at`."""
    return int((at // d[GRID] + 1) * d[GRID])


@routine
def _note_entries(s: Ints, d: Ints, seen: Ints, entries: int, at: int) -> None:
    """From the next look at the host on there are so many."""
    look = _next_look(d, at)
    if s[SEEN] == 0 or seen[2 * s[SEEN] - 2] != look:
        seen[2 * s[SEEN]] = look
        s[SEEN] += 1
    seen[2 * s[SEEN] - 1] = entries


@routine
def _keeps_pace(g: DomainState, s: Ints, d: Ints, td: Ints, wd: Ints) -> bool:
    """Whether Xen serves every page from the cache, for nothing is owed: then neither reclaim nor a death is among what
    it does, whenever that is. And is done with a batch before the next one is due: either that is as late as this one
    was, or W takes longer to rise by so much.
    """
    r = g.rec[0]
    if d[SERVED] < 0 or r.entry_count > r.cache_count:
        return False
    k = s[K]
    return bool(k + 1 >= td.shape[0] or (wd[k + 1] - wd[k]) * d[SERVED] <= td[k + 1] - td[k])


@routine
def _next_pages(g: DomainState, s: Ints, d: Ints, b: PageBooks, td: Ints, wd: Ints) -> int:
    """Pages up to which the growth goes in the next act: a batch, or batches that are one to Xen, and none to swap."""
    upto = min(s[GROWN] + BATCH, s[GROWTH])
    left = s[GROWTH] - s[GROWN]
    fit = d[ROOM] - s[HELD]  # pages that all stay in memory
    if s[HELD] > s[RESIDENT]:
        return int(upto)
    if d[TIMED] and s[FREE] > s[NEXT] and (s[FAULTS] or s[FREE] > d[LAST]):  # it begins when the lock is free
        return int(upto)
    if left > fit:
        left = fit // BATCH * BATCH
    spare = spare_taken(s, d, b)
    last = d[LAST]
    paced = s[FAULTS] and _keeps_pace(g, s, d, td, wd)
    if paced or not s[FAULTS]:
        spare += b.pool[PAGES]
        if not s[INERT]:
            last = min(last, _next_look(d, s[NEXT]) - 1)
    if spare < min(left, d[ROOM] - s[RESIDENT] - s[CACHE]):
        left = spare // BATCH * BATCH
    most = s[GROWN] + left
    if most <= upto:
        return int(upto)
    if paced:  # the last of them tells when the lock is free again, and is made by itself
        return int(max(upto, (batched_by(s, d, td, wd, most, last, BATCH * d[SERVED]) - 1) // BATCH * BATCH))
    return int(max(upto, batched_by(s, d, td, wd, most, last, 0)))


@kernel
def follow_demand(
    h: HostState, g: DomainState, b: PageBooks, s: Ints, d: Ints, q: Curve, pieces: Ints, told: Told, rate: float
) -> None:
    """All acts up to `d[LAST]`, or up to one that somebody else has to know of.

    `rate`: pages a second that the swap device moves.
    """
    t, w, high, lags, td, wd = q.t, q.w, q.high, q.lags, q.td, q.wd
    short, busy, kills, seen = told.short, told.busy, told.kills, told.seen
    r = g.rec[0]
    s[HOW] = DONE
    cache = s[CACHE]  # who sleeps until memory is released wakes by it, too: once it is dropped, MATTERS is out of date
    if d[SETTLE]:
        if s[QUIET]:
            make_good(h, g, s, d, b, pieces, t, w, high, td, wd, short, busy, kills, rate, d[LAST])
        return
    while s[NEXT] <= d[LAST]:
        longest = max(s[SHORT], s[BUSY], s[KILLS], s[SEEN]) + FULL_MARGIN
        if longest > kills.shape[0]:
            s[HOW] = LISTS_FULL
            return
        now = s[NEXT]
        if s[QUIET]:
            make_good(h, g, s, d, b, pieces, t, w, high, td, wd, short, busy, kills, rate, now - 1)
            continue
        if s[GROWN] >= s[GROWTH] or mark(s, d) != s[BASE] + s[GROWN]:  # at its end, or somebody else moved pages
            s[ACTS] += 1
            if plan(s, d, t, high, td, wd, short, now):
                cares = d[MATTERS] < NEVER and (d[ROOM] - s[RESIDENT] >= d[MATTERS] or s[CACHE] != cache)
                if cares or d[ZEROES]:
                    s[HOW] = RELEASED
                    s[AT] = now
                    return
            if s[CACHE] == cache:
                look_ahead(s, d, b, t, w, high, lags)
            continue
        began = max(now, s[FREE]) if d[TIMED] else now
        if s[ACTS] and s[FAULTS] and began > d[LAST]:
            return
        out = count_out(s, d, busy, td, wd)
        if out:
            s[ACTS] += 1
            began = send_out(s, d, short, busy, td, wd, rate, out)
            if d[TIMED]:
                r.now_ns = began
            next_batch(s, d, td, wd, began)
            if s[CACHE] == cache:
                look_ahead(s, d, b, t, w, high, lags)
            continue
        upto = _next_pages(g, s, d, b, td, wd)
        first = s[GROWN]
        pages = upto - first
        if d[HELPS] and pages > d[ROOM] + d[SWAP] - s[HELD]:
            s[HOW] = BALLOON_NEXT
            return
        fresh = fresh_for(s, d, b, pages)
        if fresh:
            s[MORE] = runs_of(b.pool, fresh) + 1
            if s[MORE] > min(min(runs_fit(b.data), room_of(b.taken)), pieces.shape[0] // 2):
                s[HOW] = BOOKS_FULL
                return
        s[ACTS] += 1
        if d[TIMED]:
            r.now_ns = began
        entries = r.entry_count
        done = grow(h, g, s, d, b, pieces, short, busy, kills, rate, pages, began)
        if r.entry_count != entries:
            _note_entries(s, d, seen, r.entry_count, began)
        end = r.now_ns
        if d[TIMED] and end != began:
            s[LOCK_HELD] += end - began
            s[FREE] = end
        if s[HOW] == DIED:
            s[AT] = max(began, due(s, d, td, wd, (first + done) // BATCH * BATCH, 0))
            return
        if d[TIMED] and end != began:
            s[LATE] += end - now
        s[GROWN] = upto
        next_batch(s, d, td, wd, began)
        if s[CACHE] == cache:
            look_ahead(s, d, b, t, w, high, lags)
    if s[CACHE] == cache:
        look_ahead(s, d, b, t, w, high, lags)
