"""Pieces of a demand while a kernel follows it: where each begins, how far held memory grows in it, and when.

What        `plan` and `begin`, a piece; `next_batch` and `due`, when its pages are had; `count_out` and `send_out`,
            batches that all go to swap, as one act.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W, H, piece, mark as in guest_demand.py; s the books and the piece in hand, d what does not change, t the
            instants of the curve, high H there, td and wd its samples (follow.py)
            growth  pages beyond the mark that W comes to within the piece, of which so many are grown
Invariants  [GD-2] of guest_demand.py, [SW-1] of swap.py.
Why exact   `due` is [GD-2] in integers, and does not decrease from page to page: so how many batches are due by an
            instant is found by bisection. Of batches that go to swap quotients and what is left of them go on from one
            to the next, each batch a request of its own.
"""

from podcluster.host.follow import (
    BASE,
    BATCH,
    BUSY,
    FIRST,
    FREE,
    FROM,
    FULL_MARGIN,
    GROWN,
    GROWTH,
    HELD,
    HOLD,
    KERNEL,
    KILLED,
    LAST,
    LATE,
    NEVER,
    NEXT,
    NS,
    OUT_PAGES,
    PAGES_PER_S,
    PIECE,
    RESIDENT,
    ROOM,
    SPARE,
    START,
    SWAP,
    SWAPPED_PEAK,
    TIMED,
    UNTIL,
    Ints,
    K,
)
from podcluster.host.follow_held import serve, service_ns, settle, shrink
from podcluster.host.kernel import routine
from podcluster.host.merged import muldiv


@routine
def mark(s: Ints, d: Ints) -> int:
    """What W beyond it moves pages, the kernel's included."""
    swaps = s[HELD] > s[RESIDENT]
    return int(d[KERNEL] + (s[RESIDENT] if swaps and d[ROOM] - s[RESIDENT] > d[SPARE] else s[HELD]))


@routine
def last_not_after(t: Ints, at: int, hint: int) -> int:
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
        if _at(td, wd, last_not_after(td, at, k), at) > s[BASE] + middle:
            low = middle + 1
        else:
            high = middle
    return int(low)


@routine
def due(s: Ints, d: Ints, td: Ints, wd: Ints, page: int, late: int) -> int:
    """When this page of the growth is written [GD-2], if Xen holds it up for so much more by then."""
    k = s[K]
    wanted = td[k]
    if k + 1 < td.shape[0] and wd[k + 1] > wd[k]:
        rise = s[BASE] + 1 + page - wd[k]
        if rise > 0:
            wanted = td[k] - muldiv(-rise, td[k + 1] - td[k], wd[k + 1] - wd[k])
    return int(max(_reached(s, d, page) + late, wanted))


@routine
def next_batch(s: Ints, d: Ints, td: Ints, wd: Ints, now: int) -> None:
    """Say when the next batch of the piece is had; its end, if that is before."""
    at = due(s, d, td, wd, s[GROWN], 0) if s[GROWN] < s[GROWTH] else NEVER
    if at > s[UNTIL]:  # this piece is over first: the next one sees what is missing
        s[GROWTH] = s[GROWN]
        at = s[UNTIL]
    s[NEXT] = max(now, at)


@routine
def begin(s: Ints, d: Ints, t: Ints, td: Ints, wd: Ints, piece: int, now: int) -> None:
    """Take this piece in hand, from `now` on: the growth in it is from the mark as it is."""
    s[PIECE] = piece
    s[FROM] = now
    s[UNTIL] = t[piece + 1] if piece + 1 < t.shape[0] else NEVER
    s[K] = last_not_after(td, now, s[K])
    s[BASE] = mark(s, d)
    s[GROWN] = 0
    s[LATE] = 0
    s[GROWTH] = 0 if s[KILLED] else _count_growth(s, d, td, wd)


@routine
def plan(s: Ints, d: Ints, t: Ints, high: Ints, td: Ints, wd: Ints, short: Ints, now: int) -> bool:
    """Begin the piece that `now` is in; whether held memory shrank."""
    piece = last_not_after(t, now, s[PIECE])
    shrank = False
    if d[HOLD] >= 0 and (t[piece] if piece else d[START]) == now:
        shrank = shrink(s, d, short, (high[piece] if piece else d[FIRST]) - d[KERNEL], now)
    if s[KILLED]:
        k = last_not_after(td, now, s[K])
        if _at(td, wd, k, now) - d[KERNEL] <= d[ROOM] + d[SWAP]:
            s[KILLED] = 0
    begin(s, d, t, td, wd, piece, now)
    next_batch(s, d, td, wd, now)
    return shrank


@routine
def batched_by(s: Ints, d: Ints, td: Ints, wd: Ints, most: int, last: int, late: int) -> int:
    """Pages of the growth, `most` at most, in batches due by `last` and before the piece ends; the next batch is.
    `late`: most that each of them holds up those after it.
    """
    last = min(last, s[UNTIL])
    first = s[GROWN] // BATCH
    low = first + 1
    high = -(-most // BATCH)
    if high > low and due(s, d, td, wd, (high - 1) * BATCH, (high - 1 - first) * late) <= last:
        low = high
    while low < high:
        middle = (low + high) // 2
        if due(s, d, td, wd, middle * BATCH, (middle - first) * late) <= last:
            low = middle + 1
        else:
            high = middle
    return int(min(low * BATCH, most))


@routine
def count_out(s: Ints, d: Ints, busy: Ints, td: Ints, wd: Ints) -> int:
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
    return int((batched_by(s, d, td, wd, s[GROWN] + fit * BATCH, d[LAST], 0) - s[GROWN]) // BATCH)


@routine
def send_out(s: Ints, d: Ints, short: Ints, busy: Ints, td: Ints, wd: Ints, rate: float, batches: int) -> int:
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
    takes = service_ns(d, rate, BATCH)
    reached_step = BATCH * NS // speed
    reached_step_left = BATCH * NS % speed
    at = s[NEXT]
    pages = batches * BATCH
    s[GROWN] += pages
    s[HELD] += pages
    s[OUT_PAGES] += pages
    s[SWAPPED_PEAK] = max(s[SWAPPED_PEAK], s[HELD] - s[RESIDENT])
    settle(s, d, short, at)
    serve(s, busy, takes, at)
    for _ in range(batches - 1):
        reached += reached_step
        reached_left += reached_step_left
        if reached_left >= speed:
            reached += 1
            reached_left -= speed
        wanted += wanted_step
        wanted_left += wanted_step_left
        if wanted_left >= rise:
            wanted += 1
            wanted_left -= rise
        at = max(at, max(reached, td[k] - wanted))
        serve(s, busy, takes, at)
    return int(at)
