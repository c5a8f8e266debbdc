"""What a guest holds, in memory and on swap, while a kernel follows its demand.

What        `grow`, `shrink` and `hold`, the acts of `held.HeldBooks` and `guest_memory.GuestMemory`; `settle` and
            `serve`, what they cost: spans with something on swap, and work of the swap device.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     s the books, d what does not change (follow.py); b the guest's sets and stacks of pages (page_sets.py)
            fresh  pages that were never in use, and so are written
Invariants  [GD-1], [GD-3] of held.py, [SW-1] of swap.py, [GM-1] of guest_memory.py.
Why exact   It is the same acts in the same order, on the same counts: only pages that are fresh come to Xen.
"""

import numpy as np

from podcluster.host.follow import (
    ALLOCATED,
    BUSY,
    BUSY_FROM,
    BUSY_TO,
    CACHE,
    CLUSTER,
    DEVICE_FREE,
    DIED,
    ENTRIES,
    FAULTS,
    FLOOR,
    HELD,
    HOW,
    IN_PAGES,
    INERT,
    KERNEL,
    KILLED,
    KILLS,
    LATENCY,
    MAY_SKIP,
    NS,
    OPEN_AT,
    OPEN_IN,
    OPEN_MOST,
    OUT_PAGES,
    RESIDENT,
    ROOM,
    SHORT,
    SPARE,
    SWAP,
    SWAPPED_PEAK,
    WANTED,
    Ints,
)
from podcluster.host.kernel import routine
from podcluster.host.merged import take_fresh
from podcluster.host.page_sets import PAGES, PageBooks
from podcluster.host.state import DomainState, HostState


@routine
def settle(s: Ints, d: Ints, short: Ints, at: int) -> None:
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
def service_ns(d: Ints, pages_per_s: float, pages: int) -> int:
    """`SwapDevice.service_ns`."""
    return int(-(-pages // d[CLUSTER]) * d[LATENCY] + np.int64(np.rint(pages * NS / pages_per_s)))


@routine
def serve(s: Ints, busy: Ints, takes: int, at: int) -> None:
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
    serve(s, busy, service_ns(d, pages_per_s, pages), at)


@routine
def spare_taken(s: Ints, d: Ints, b: PageBooks) -> int:
    """Pages that were handed out once and are free."""
    return int(b.taken[PAGES] - d[ALLOCATED] - s[RESIDENT] - s[CACHE])


@routine
def fresh_for(s: Ints, d: Ints, b: PageBooks, pages: int) -> int:
    """Pages that would be written for the first time if so many more were held in memory."""
    free = d[ROOM] - s[RESIDENT] - s[CACHE]
    return int(max(0, min(pages, free) - spare_taken(s, d, b)))


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
def hold(h: HostState, g: DomainState, s: Ints, d: Ints, b: PageBooks, pieces: Ints, pages: int) -> int:
    """`GuestMemory.hold`."""
    pages = min(pages, d[ROOM] - s[RESIDENT])
    free = d[ROOM] - s[RESIDENT] - s[CACHE]
    done = pages
    if free > 0:
        wanted = min(pages, free)
        fresh = wanted - spare_taken(s, d, b)
        if fresh > 0:
            wrote = _write_fresh(h, g, s, d, b, pieces, fresh)
            if wrote < fresh:
                s[HOW] = DIED
                done = wanted - fresh + wrote
    s[CACHE] -= max(0, pages - free)
    s[RESIDENT] += pages
    return int(done)


@routine
def grow(
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
        done = hold(h, g, s, d, b, pieces, back)
        if s[HOW] == DIED:
            return int(done)
        s[IN_PAGES] += back
        _request(s, d, busy, rate, back, at)
        settle(s, d, short, at)
        if s[HELD] > s[RESIDENT]:
            return int(pages)
    else:
        back = 0
    more = pages - back
    grown = max(0, min(more, d[ROOM] + d[SWAP] - s[HELD]))
    resident = min(grown, d[ROOM] - s[RESIDENT])
    done = hold(h, g, s, d, b, pieces, resident)
    if s[HOW] == DIED:
        return int(back + done)
    s[HELD] += grown
    out = grown - resident
    if out:
        s[OUT_PAGES] += out
        s[SWAPPED_PEAK] = max(s[SWAPPED_PEAK], s[HELD] - s[RESIDENT])
        _request(s, d, busy, rate, out, at)
    settle(s, d, short, at)
    if grown < more and not s[KILLED]:
        s[KILLED] = 1
        kills[s[KILLS]] = at
        s[KILLS] += 1
    return int(pages)


@routine
def shrink(s: Ints, d: Ints, short: Ints, pages: int, at: int) -> bool:
    """`HeldBooks.shrink_to`, up to the zeroes of a guest that zeroes what it frees."""
    pages = max(pages, d[FLOOR])
    if pages >= s[HELD]:
        return False
    s[HELD] = pages
    s[RESIDENT] = min(s[RESIDENT], pages)
    settle(s, d, short, at)
    return True
