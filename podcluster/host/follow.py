"""Following a demand from one instant to the next, in one kernel call.

What        `follow_demand`: what `guest_demand.DemandStream` does act by act with the books of `held.py` and
            `guest_memory.py`, for as long as nobody else has to have a say; then, how long nothing of it matters.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     as in guest_demand.py: W, H, piece, mark; s the books and the piece in hand, d what does not change; b the
            guest's sets and stacks of pages (page_sets.py)
Invariants  [GD-2], [GD-4] of guest_demand.py, [SW-1] of swap.py, [GM-1] of guest_memory.py.
Why exact   It is the same acts in the same order. Batches that neither find a page to write nor anything on swap are
            one act: all that happens between two instants of theirs is nothing. Pieces that are quiet are one step
            [GD-4].
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.kernel import kernel, routine
from podcluster.host.layout import Arrays, fields
from podcluster.host.merged import muldiv, take_fresh
from podcluster.host.page_sets import PAGES, PageBooks, runs_fit
from podcluster.host.page_stacks import room_of, runs_of
from podcluster.host.state import DomainState, HostState

NEVER = 1 << 62
NS = 1_000_000_000
BATCH = 512
FULL_MARGIN = 4  # entries that one act may add to a list of intervals, and some

# The books: fields of the array that a call takes, changes and leaves.
RESIDENT = 0
CACHE = 1
ENTRIES = 2  # entry_count
HELD = 3
KILLED = 4
KILLS = 5  # of applications in this call: their instants are in `kills`
SWAPPED_PEAK = 6
IN_PAGES = 7
OUT_PAGES = 8
DEVICE_FREE = 9  # since when the device has nothing to do
BUSY_FROM = 10  # its latest stretch of work; -1 none
BUSY_TO = 11
BUSY = 12  # stretches before it, in `busy`
OPEN_AT = 13  # since when R and the most that can be had are as they are while something is on swap; -1: nothing is
OPEN_IN = 14
OPEN_MOST = 15
SHORT = 16  # spans before it, in `short`
# The piece in hand.
PIECE = 17
FROM = 18
UNTIL = 19
K = 20
BASE = 21
GROWTH = 22
GROWN = 23
LATE = 24
NEXT = 25
QUIET = 26
# The lock.
FREE = 27
LOCK_HELD = 28
FAULTS = 29  # accesses may take time: not once no entry is left
INERT = 30
MORE = 31  # so many more runs there must be room for in each of the guest's sets and stacks
HOW = 32
AT = 33  # when it ended so
ACTS = 34  # since it was this stream's turn: the first is, however long it has to wait
SEEN = 35  # pairs in `seen`
BOOKS = 36

# What does not change: fields of `d`.
ROOM = 0
KERNEL = 1  # its pages
ALLOCATED = 2  # of these, from the allocator
FLOOR = 3
SWAP = 4  # pages that swap has room for
SPARE = 5  # pages kept available rather than take something back
WANTED = 6  # whether W counts yet
HELPS = 7  # whether it takes from its balloon rather than see an application killed (C1.10)
LATENCY = 8
CLUSTER = 9
HOLD = 10
PAGES_PER_S = 11
MATTERS = 12  # how many available pages somebody waits for; NEVER: nobody does
AHEAD = 13  # quiet pieces may be left out
TIMED = 14  # Xen has a clock
MAY_SKIP = 15
LAST = 16  # acts up to then
SETTLE = 17  # only make good what was left out, up to LAST
ZEROES = 18  # the guest zeroes what it frees
GRID = 19  # the host is looked at at its multiples
SERVED = 20  # most ns that a page takes Xen while nothing is owed; -1: it may be any
GIVEN = 21

# How a call ended.
DONE = 0
DIED = 1
RELEASED = 2  # held memory shrank, and somebody may be waiting for that
BALLOON_NEXT = 3  # before a batch for which it would rather take from its balloon
BOOKS_FULL = 4  # there must be more room in the guest's books, or for pieces
LISTS_FULL = 5

Ints = npt.NDArray[np.int64]


class Curve(Arrays):
    """A demand from the instant on at which a guest is up."""

    FIELDS = fields(
        ("t", np.int64),
        ("w", np.int64),
        ("high", np.int64),
        ("lags", np.int64),
        ("td", np.int64),
        ("wd", np.int64),
    )
    t: Ints  # its instants,
    w: Ints  # W
    high: Ints  # and H there
    lags: Ints  # pieces in which W is too fast
    td: Ints  # its samples: instants,
    wd: Ints  # and pages


class Told(Arrays):
    """What a call has put down in lists, each flat and in order, as many as the books say; the next call takes the same
    arrays.
    """

    FIELDS = fields(
        ("short", np.int64),
        ("busy", np.int64),
        ("kills", np.int64),
        ("seen", np.int64),
    )
    short: Ints  # spans in which something was on swap: what was in memory of W, the most to be had, from, to
    busy: Ints  # stretches of work of the swap device: from, to
    kills: Ints  # instants at which an application was killed
    seen: Ints  # looks at the host, and the entries that they and all after them find


WIDTHS = {"short": 4, "busy": 2, "kills": 1, "seen": 2}
"""How many numbers each of these is."""


def room_for(count: int) -> Told:
    """Room for so many of each."""
    return Told(**{name: np.empty(width * count, np.int64) for name, width in WIDTHS.items()})


# -- what is held ------------------------------------------------------------------------------------------------------


@routine
def _settle(s: Ints, d: Ints, short: Ints, at: int) -> None:
    """`HeldBooks._settle`."""
    swaps = d[WANTED] != 0 and s[HELD] > s[RESIDENT]
    inside = s[RESIDENT] + d[KERNEL]
    most = d[ROOM] + d[SWAP] + d[KERNEL]
    if swaps and s[OPEN_AT] >= 0 and s[OPEN_IN] == inside and s[OPEN_MOST] == most:
        return
    if 0 <= s[OPEN_AT] < at:
        k = 4 * s[SHORT]
        short[k] = s[OPEN_IN]
        short[k + 1] = s[OPEN_MOST]
        short[k + 2] = s[OPEN_AT]
        short[k + 3] = at
        s[SHORT] += 1
    s[OPEN_AT] = at if swaps else -1
    s[OPEN_IN] = inside
    s[OPEN_MOST] = most


@routine
def _service_ns(d: Ints, pages_per_s: float, pages: int) -> int:
    """`SwapDevice.service_ns`."""
    return int(-(-pages // d[CLUSTER]) * d[LATENCY] + np.int64(np.rint(pages * NS / pages_per_s)))


@routine
def _serve(s: Ints, busy: Ints, takes: int, at: int) -> None:
    """Have the swap device do what takes it so long."""
    start = max(at, s[DEVICE_FREE])
    s[DEVICE_FREE] = start + takes
    if s[BUSY_TO] != start or s[BUSY_FROM] < 0:
        if s[BUSY_FROM] >= 0:
            busy[2 * s[BUSY]] = s[BUSY_FROM]
            busy[2 * s[BUSY] + 1] = s[BUSY_TO]
            s[BUSY] += 1
        s[BUSY_FROM] = start
    s[BUSY_TO] = s[DEVICE_FREE]


@routine
def _request(s: Ints, d: Ints, busy: Ints, pages_per_s: float, pages: int, at: int) -> None:
    """`SwapDevice.request`."""
    _serve(s, busy, _service_ns(d, pages_per_s, pages), at)


@routine
def _spare_taken(s: Ints, d: Ints, b: PageBooks) -> int:
    """Pages that were handed out once and are free."""
    return int(b.taken[PAGES] - d[ALLOCATED] - s[RESIDENT] - s[CACHE])


@routine
def _fresh_for(s: Ints, d: Ints, b: PageBooks, pages: int) -> int:
    """Pages that would be written for the first time if so many more were held in memory."""
    free = d[ROOM] - s[RESIDENT] - s[CACHE]
    return int(max(0, min(pages, free) - _spare_taken(s, d, b)))


@routine
def _write_fresh(h: HostState, g: DomainState, s: Ints, d: Ints, b: PageBooks, pieces: Ints, pages: int) -> int:
    """Take pages of the pool and write them; pages done, fewer only if the guest died."""
    wrote = take_fresh(h, g, b, s[INERT] != 0, pages, pieces)
    s[ENTRIES] = g.rec[0].entry_count
    if d[MAY_SKIP] and s[ENTRIES] == 0:
        s[INERT] = 1
        s[FAULTS] = 0
    return int(wrote)


@routine
def _hold(h: HostState, g: DomainState, s: Ints, d: Ints, b: PageBooks, pieces: Ints, pages: int) -> int:
    """`GuestMemory.hold`."""
    pages = min(pages, d[ROOM] - s[RESIDENT])
    free = d[ROOM] - s[RESIDENT] - s[CACHE]
    done = pages
    if free > 0:
        wanted = min(pages, free)
        fresh = wanted - _spare_taken(s, d, b)
        if fresh > 0:
            wrote = _write_fresh(h, g, s, d, b, pieces, fresh)
            if wrote < fresh:
                s[HOW] = DIED
                done = wanted - fresh + wrote
    s[CACHE] -= max(0, pages - free)
    s[RESIDENT] += pages
    return int(done)


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
def _grow(
    h: HostState,
    g: DomainState,
    s: Ints,
    d: Ints,
    b: PageBooks,
    pieces: Ints,
    short: Ints,
    busy: Ints,
    kills: Ints,
    rate: float,
    pages: int,
    at: int,
) -> int:
    """`HeldBooks.grow`, without the balloon's help; `HOW` says if the guest died."""
    back = min(pages, s[HELD] - s[RESIDENT], d[ROOM] - s[RESIDENT] - d[SPARE])
    if back > 0:
        done = _hold(h, g, s, d, b, pieces, back)
        if s[HOW] == DIED:
            return int(done)
        s[IN_PAGES] += back
        _request(s, d, busy, rate, back, at)
        _settle(s, d, short, at)
        if s[HELD] > s[RESIDENT]:
            return int(pages)
    else:
        back = 0
    more = pages - back
    grown = max(0, min(more, d[ROOM] + d[SWAP] - s[HELD]))
    resident = min(grown, d[ROOM] - s[RESIDENT])
    done = _hold(h, g, s, d, b, pieces, resident)
    if s[HOW] == DIED:
        return int(back + done)
    s[HELD] += grown
    out = grown - resident
    if out:
        s[OUT_PAGES] += out
        s[SWAPPED_PEAK] = max(s[SWAPPED_PEAK], s[HELD] - s[RESIDENT])
        _request(s, d, busy, rate, out, at)
    _settle(s, d, short, at)
    if grown < more and not s[KILLED]:
        s[KILLED] = 1
        kills[s[KILLS]] = at
        s[KILLS] += 1
    return int(pages)


@routine
def _shrink(s: Ints, d: Ints, short: Ints, pages: int, at: int) -> bool:
    """`HeldBooks.shrink_to`, up to the zeroes of a guest that zeroes what it frees."""
    pages = max(pages, d[FLOOR])
    if pages >= s[HELD]:
        return False
    s[HELD] = pages
    s[RESIDENT] = min(s[RESIDENT], pages)
    _settle(s, d, short, at)
    return True


# -- pieces ------------------------------------------------------------------------------------------------------------


@routine
def _mark(s: Ints, d: Ints) -> int:
    """What W beyond it moves pages, the kernel's included."""
    swaps = s[HELD] > s[RESIDENT]
    return int(d[KERNEL] + (s[RESIDENT] if swaps and d[ROOM] - s[RESIDENT] > d[SPARE] else s[HELD]))


@routine
def _last_not_after(t: Ints, at: int, hint: int) -> int:
    """Index of the last of ascending `t` that is at or before `at`, and not before `hint`."""
    low = hint
    if low + 1 < t.shape[0] and t[low + 1] <= at:
        step = 1
        while low + step < t.shape[0] and t[low + step] <= at:
            step *= 2
        high = min(low + step, t.shape[0])
        low += step // 2
        while low + 1 < high:
            middle = (low + high) // 2
            if t[middle] <= at:
                low = middle
            else:
                high = middle
    return int(low)


@routine
def _at(td: Ints, wd: Ints, k: int, at: int) -> int:
    """`Demand.at`, where sample k is the last at or before `at`."""
    if k + 1 >= td.shape[0]:
        return int(wd[wd.shape[0] - 1])
    return int(wd[k] + muldiv(wd[k + 1] - wd[k], at - td[k], td[k + 1] - td[k]))


@routine
def _reached(s: Ints, d: Ints, page: int) -> int:
    """When the guest, writing as fast as it can, is at this page of the growth."""
    return int(s[FROM] + s[LATE] + page * NS // d[PAGES_PER_S])


@routine
def _count_growth(s: Ints, d: Ints, td: Ints, wd: Ints) -> int:
    """Pages that the piece adds to what is held."""
    k = s[K]
    if k + 1 >= td.shape[0]:
        return int(max(0, wd[k] - s[BASE]))
    if wd[k + 1] >= wd[k]:
        return int(max(0, _at(td, wd, k, min(s[UNTIL], td[k + 1])) - s[BASE]))
    low = 0
    high = max(0, _at(td, wd, k, s[FROM]) - s[BASE])
    while low < high:
        middle = (low + high) // 2
        at = _reached(s, d, middle)
        if _at(td, wd, _last_not_after(td, at, k), at) > s[BASE] + middle:
            low = middle + 1
        else:
            high = middle
    return int(low)


@routine
def _due(s: Ints, d: Ints, td: Ints, wd: Ints, page: int, late: int) -> int:
    """When this page of the growth is written [GD-2], if Xen holds it up for so much more by then."""
    k = s[K]
    wanted = td[k]
    if k + 1 < td.shape[0] and wd[k + 1] > wd[k]:
        rise = s[BASE] + 1 + page - wd[k]
        if rise > 0:
            wanted = td[k] - muldiv(-rise, td[k + 1] - td[k], wd[k + 1] - wd[k])
    return int(max(_reached(s, d, page) + late, wanted))


@routine
def _next_batch(s: Ints, d: Ints, td: Ints, wd: Ints, now: int) -> None:
    at = _due(s, d, td, wd, s[GROWN], 0) if s[GROWN] < s[GROWTH] else NEVER
    if at > s[UNTIL]:  # this piece is over first: the next one sees what is missing
        s[GROWTH] = s[GROWN]
        at = s[UNTIL]
    s[NEXT] = max(now, at)


@routine
def _begin(s: Ints, d: Ints, t: Ints, td: Ints, wd: Ints, piece: int, now: int) -> None:
    s[PIECE] = piece
    s[FROM] = now
    s[UNTIL] = t[piece + 1] if piece + 1 < t.shape[0] else NEVER
    s[K] = _last_not_after(td, now, s[K])
    s[BASE] = _mark(s, d)
    s[GROWN] = 0
    s[LATE] = 0
    s[GROWTH] = 0 if s[KILLED] else _count_growth(s, d, td, wd)


@routine
def _plan(s: Ints, d: Ints, t: Ints, high: Ints, td: Ints, wd: Ints, short: Ints, now: int) -> bool:
    """Begin the piece that `now` is in; whether held memory shrank."""
    piece = _last_not_after(t, now, s[PIECE])
    shrank = False
    if d[HOLD] >= 0 and t[piece] == now:
        shrank = _shrink(s, d, short, high[piece] - d[KERNEL], now)
    if s[KILLED]:
        k = _last_not_after(td, now, s[K])
        if _at(td, wd, k, now) - d[KERNEL] <= d[ROOM] + d[SWAP]:
            s[KILLED] = 0
    _begin(s, d, t, td, wd, piece, now)
    _next_batch(s, d, td, wd, now)
    return shrank


@routine
def _batched_by(s: Ints, d: Ints, td: Ints, wd: Ints, most: int, last: int, late: int) -> int:
    """Pages of the growth, `most` at most, in batches due by `last` and before the piece ends; the next batch is.
    `late`: most that each of them holds up those after it.
    """
    last = min(last, s[UNTIL])
    first = s[GROWN] // BATCH
    low = first + 1
    high = -(-most // BATCH)
    if high > low and _due(s, d, td, wd, (high - 1) * BATCH, (high - 1 - first) * late) <= last:
        low = high
    while low < high:
        middle = (low + high) // 2
        if _due(s, d, td, wd, middle * BATCH, (middle - first) * late) <= last:
            low = middle + 1
        else:
            high = middle
    return int(min(low * BATCH, most))


@routine
def _count_out(s: Ints, d: Ints, busy: Ints, td: Ints, wd: Ints) -> int:
    """How many batches from the next one on go to swap as they are due: no page is available, swap has room for them,
    and nothing holds them up. None where the guest has yet to come to W as it was at the last sample.
    """
    k = s[K]
    if s[RESIDENT] != d[ROOM] or (d[TIMED] and s[FREE] > s[NEXT]):
        return 0
    if k + 1 < td.shape[0] and wd[k + 1] > wd[k] and s[BASE] + 1 + s[GROWN] <= wd[k]:
        return 0
    fit = min(s[GROWTH] - s[GROWN], d[ROOM] + d[SWAP] - s[HELD]) // BATCH
    fit = min(fit, busy.shape[0] // 2 - s[BUSY] - FULL_MARGIN)
    if fit <= 0:
        return 0
    return int((_batched_by(s, d, td, wd, s[GROWN] + fit * BATCH, d[LAST], 0) - s[GROWN]) // BATCH)


@routine
def _send_out(s: Ints, d: Ints, short: Ints, busy: Ints, td: Ints, wd: Ints, rate: float, batches: int) -> int:
    """Make so many of these batches, each a request of its own; when the last one is made.

    What they are due at (`_due`) are two quotients, which go on from batch to batch by the same, and by what is left.
    """
    k = s[K]
    page = s[GROWN]
    speed = d[PAGES_PER_S]
    reached = _reached(s, d, page)
    reached_left = page * NS % speed
    rises = k + 1 < td.shape[0] and wd[k + 1] > wd[k]
    span = int(td[k + 1] - td[k]) if rises else 0
    rise = int(wd[k + 1] - wd[k]) if rises else 1
    below = int(wd[k] - s[BASE] - 1 - page)  # above what W was there, below 0
    wanted = muldiv(below, span, rise)
    wanted_left = below * span - wanted * rise
    wanted_step = muldiv(-BATCH, span, rise)
    wanted_step_left = -BATCH * span - wanted_step * rise
    takes = _service_ns(d, rate, BATCH)
    at = s[NEXT]
    pages = batches * BATCH
    s[GROWN] += pages
    s[HELD] += pages
    s[OUT_PAGES] += pages
    s[SWAPPED_PEAK] = max(s[SWAPPED_PEAK], s[HELD] - s[RESIDENT])
    _settle(s, d, short, at)
    _serve(s, busy, takes, at)
    for _ in range(batches - 1):
        reached += BATCH * NS // speed
        reached_left += BATCH * NS % speed
        if reached_left >= speed:
            reached += 1
            reached_left -= speed
        wanted += wanted_step
        wanted_left += wanted_step_left
        if wanted_left >= rise:
            wanted += 1
            wanted_left -= rise
        at = max(at, max(reached, td[k] - wanted))
        _serve(s, busy, takes, at)
    return int(at)


# -- pieces left out ---------------------------------------------------------------------------------------------------


@routine
def _keeps_up(s: Ints, d: Ints, w: Ints, high: Ints, j: int) -> bool:
    """Whether at the end of the piece before number `j` all is there that should be."""
    if s[KILLED]:
        return True
    if d[HOLD] >= 0 and s[HELD] <= s[RESIDENT] and s[HELD] + d[KERNEL] < high[j - 1]:
        return False
    return bool(j < w.shape[0] and w[j] <= _mark(s, d))


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
    all_out = swaps and kernel_pages + s[HELD] == _mark(s, d)
    free_taken = min(d[ROOM], b.taken[PAGES] - d[ALLOCATED]) - s[CACHE]
    least = kernel_pages + (s[RESIDENT] if swaps else free_taken)
    # What is released.
    level = NEVER
    if holds:
        if swaps:
            level = max(s[HELD] if d[MATTERS] == 0 else 0, s[RESIDENT])
        elif d[MATTERS] < NEVER:
            level = d[ROOM] - d[MATTERS]
        if d[FLOOR] > level:
            level = NEVER
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
def _look_ahead(s: Ints, d: Ints, b: PageBooks, t: Ints, w: Ints, high: Ints, lags: Ints) -> None:
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
        _hold(h, g, s, d, b, pieces, more)
    else:
        s[RESIDENT] += more


@routine
def _make_good(
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
    piece = _last_not_after(t, at, s[PIECE])
    if piece > s[PIECE]:
        swaps = s[HELD] > s[RESIDENT]
        if d[HOLD] >= 0:
            most = high[piece] - d[KERNEL]
            if swaps or s[KILLED]:
                _shrink(s, d, short, most, t[piece])
            else:
                _rest(h, g, s, d, b, pieces, max(most, d[FLOOR]))
        elif not (swaps or s[KILLED]):
            most = 0
            for i in range(s[PIECE] + 1, piece + 1):
                most = max(most, w[i])
            _rest(h, g, s, d, b, pieces, max(most - d[KERNEL], s[HELD]))
        _begin(s, d, t, td, wd, piece, t[piece])
        if s[GROWTH] and _due(s, d, td, wd, 0, 0) <= at:
            upto = _batched_by(s, d, td, wd, s[GROWTH], at, 0)
            _grow(h, g, s, d, b, pieces, short, busy, kills, rate, upto, at)
            s[GROWN] = upto
    _next_batch(s, d, td, wd, s[FROM])


# -- the whole ---------------------------------------------------------------------------------------------------------


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
    if s[HELD] > s[RESIDENT] or (s[FAULTS] and d[TIMED] and s[FREE] > s[NEXT]):
        return int(upto)
    if left > fit:
        left = fit // BATCH * BATCH
    spare = _spare_taken(s, d, b)
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
        return int(max(upto, (_batched_by(s, d, td, wd, most, last, BATCH * d[SERVED]) - 1) // BATCH * BATCH))
    return int(max(upto, _batched_by(s, d, td, wd, most, last, 0)))


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
            _make_good(h, g, s, d, b, pieces, t, w, high, td, wd, short, busy, kills, rate, d[LAST])
        return
    while s[NEXT] <= d[LAST]:
        longest = max(s[SHORT], s[BUSY], s[KILLS], s[SEEN]) + FULL_MARGIN
        if longest > kills.shape[0]:
            s[HOW] = LISTS_FULL
            return
        now = s[NEXT]
        if s[QUIET]:
            _make_good(h, g, s, d, b, pieces, t, w, high, td, wd, short, busy, kills, rate, now - 1)
            continue
        if s[GROWN] >= s[GROWTH] or _mark(s, d) != s[BASE] + s[GROWN]:  # at its end, or somebody else moved pages
            s[ACTS] += 1
            if _plan(s, d, t, high, td, wd, short, now):
                cares = d[MATTERS] < NEVER and (d[ROOM] - s[RESIDENT] >= d[MATTERS] or s[CACHE] != cache)
                if cares or d[ZEROES]:
                    s[HOW] = RELEASED
                    s[AT] = now
                    return
            if s[CACHE] == cache:
                _look_ahead(s, d, b, t, w, high, lags)
            continue
        began = max(now, s[FREE]) if d[TIMED] else now
        if s[ACTS] and s[FAULTS] and began > d[LAST]:
            return
        out = _count_out(s, d, busy, td, wd)
        if out:
            s[ACTS] += 1
            began = _send_out(s, d, short, busy, td, wd, rate, out)
            if d[TIMED]:
                r.now_ns = began
            _next_batch(s, d, td, wd, began)
            if s[CACHE] == cache:
                _look_ahead(s, d, b, t, w, high, lags)
            continue
        upto = _next_pages(g, s, d, b, td, wd)
        first = s[GROWN]
        pages = upto - first
        if d[HELPS] and pages > d[ROOM] + d[SWAP] - s[HELD]:
            s[HOW] = BALLOON_NEXT
            return
        fresh = _fresh_for(s, d, b, pages)
        if fresh:
            s[MORE] = runs_of(b.pool, fresh) + 1
            if s[MORE] > min(min(runs_fit(b.data), room_of(b.taken)), pieces.shape[0] // 2):
                s[HOW] = BOOKS_FULL
                return
        s[ACTS] += 1
        if d[TIMED]:
            r.now_ns = began
        entries = r.entry_count
        done = _grow(h, g, s, d, b, pieces, short, busy, kills, rate, pages, began)
        if r.entry_count != entries:
            _note_entries(s, d, seen, r.entry_count, began)
        end = r.now_ns
        if d[TIMED] and end != began:
            s[LOCK_HELD] += end - began
            s[FREE] = end
        if s[HOW] == DIED:
            s[AT] = max(began, _due(s, d, td, wd, (first + done) // BATCH * BATCH, 0))
            return
        if d[TIMED] and end != began:
            s[LATE] += end - now
        s[GROWN] = upto
        _next_batch(s, d, td, wd, began)
        if s[CACHE] == cache:
            _look_ahead(s, d, b, t, w, high, lags)
    if s[CACHE] == cache:
        _look_ahead(s, d, b, t, w, high, lags)
