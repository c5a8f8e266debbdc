"""The machine's free frames: a buddy allocator of orders 0 to 18.

What        Allocation takes the lowest free block of the smallest order that will do and halves it downwards; freeing
            goes frame by frame and merges with free buddies (docs/golden-traces.md).
Units       Frames of 4 KiB. A machine block is 512 frames, aligned.
State       Because freeing merges at once, the allocator's state is a function of the *set* of free frames. A machine
            block that is free altogether is part of a block of order 9 to 18; otherwise its free frames are a row of
            512 bits, and the orders of the maximal free blocks inside it a mask of nine bits. For every order a
            four-level bit map tells the lowest machine block (orders 0-8) or the lowest block (orders 9-18) in a few
            instructions, for hosts up to 32 TiB. Rows of blocks that are free altogether or not at all hold nothing
            of meaning and are never touched.
Departs     nowhere.
"""

import numpy as np

from podcluster.host.kernel import ctz, kernel, routine
from podcluster.host.state import BLOCK_PAGES, HostState

HEAP_ALL = 512  # heap_masks: the machine block is free altogether
TOP_ORDER = 18

U0 = np.uint64(0)
U1 = np.uint64(1)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
# Bits at the multiples of 2**k within a word.
ALIGNED = np.array(
    [
        0xFFFFFFFFFFFFFFFF,
        0x5555555555555555,
        0x1111111111111111,
        0x0101010101010101,
        0x0001000100010001,
        0x0000000100000001,
        0x0000000000000001,
    ],
    np.uint64,
)


@routine
def span_mask(first: int, count: int) -> np.uint64:
    """The `count` bits of a word from bit `first` on; 1 <= count, first + count <= 64."""
    if count == 64:
        return ALL
    return ((U1 << np.uint64(count)) - U1) << np.uint64(first)


@routine
def _mark(h: HostState, order: int, index: int, free: bool) -> None:
    """Set bit `index` of the map of `order`, or clear it, up to the level where that changes nothing above."""
    r = h.rec[0]
    at = order * r.order_words
    size = r.level0
    for level in range(4):
        w = at + (index >> 6)
        before = h.heap_bits[w]
        one = U1 << np.uint64(index & 63)
        after = before | one if free else before & ~one
        h.heap_bits[w] = after
        if before != U0 and after != U0:
            return
        at += size
        size = r.level1 if level == 0 else (r.level2 if level == 1 else r.level3)
        index >>= 6
    if free:
        r.orders |= 1 << order
    else:
        r.orders &= ~(1 << order)


@routine
def _is_marked(h: HostState, order: int, index: int) -> bool:
    w = order * h.rec[0].order_words + (index >> 6)
    return bool((h.heap_bits[w] >> np.uint64(index & 63)) & U1 != U0)


@routine
def _lowest(h: HostState, order: int) -> int:
    """Lowest bit set in the map of `order`, which is not empty."""
    r = h.rec[0]
    at0 = order * r.order_words
    at1 = at0 + r.level0
    at2 = at1 + r.level1
    at3 = at2 + r.level2
    # The top level is one word for every host up to 32 TiB.
    i2 = ctz(h.heap_bits[at3])
    i1 = (i2 << 6) + ctz(h.heap_bits[at2 + i2])
    i0 = (i1 << 6) + ctz(h.heap_bits[at1 + i1])
    return (i0 << 6) + ctz(h.heap_bits[at0 + i0])


@routine
def _full_words(h: HostState, mb: int) -> int:
    """Which of the eight words of a machine block's row are all free, a bit each."""
    full = 0
    for wi in range(8):
        if h.heap_rows[mb, wi] == ALL:
            full |= 1 << wi
    return full


@routine
def _row_orders(h: HostState, mb: int) -> int:
    """Orders of the maximal free blocks in the row of machine block `mb`, a bit each."""
    orders = 0
    for wi in range(8):
        free = h.heap_rows[mb, wi]
        if free == U0 or free == ALL:
            continue
        for k in range(6):
            step = np.uint64(1 << k)
            pairs = free & (free >> step) & ALIGNED[k + 1]
            if free & ~(pairs | (pairs << step)) != U0:
                orders |= 1 << k
            free = pairs
            if free == U0:
                break
    full = _full_words(h, mb)
    for k in range(6, 9):
        gap = 1 << (k - 6)
        halves = full & (full >> gap) & (0x55 if k == 6 else (0x11 if k == 7 else 0x01))
        if full & ~(halves | (halves << gap)) != 0:
            orders |= 1 << k
        full = halves
    return orders


@routine
def _row_lowest(h: HostState, mb: int, order: int) -> int:
    """First page of the lowest maximal free block of `order` < 9 in the row of `mb`, or -1."""
    if order < 6:
        for wi in range(8):
            free = h.heap_rows[mb, wi]
            if free == U0 or free == ALL:
                continue
            for k in range(order):
                free = free & (free >> np.uint64(1 << k)) & ALIGNED[k + 1]
            step = np.uint64(1 << order)
            pairs = free & (free >> step) & ALIGNED[order + 1]
            found = free & ~(pairs | (pairs << step))
            if found != U0:
                return 64 * wi + ctz(found)
        return -1
    full = _full_words(h, mb)
    for k in range(6, order):
        full = full & (full >> (1 << (k - 6))) & (0x55 if k == 6 else 0x11)
    gap = 1 << (order - 6)
    halves = full & (full >> gap) & (0x55 if order == 6 else (0x11 if order == 7 else 0x01))
    found_words = full & ~(halves | (halves << gap))
    return 64 * ctz(np.uint64(found_words)) if found_words else -1


@routine
def _set_mask(h: HostState, mb: int, new: int) -> None:
    """Let the maps of orders 0-8 say that machine block `mb` has free blocks of the orders in `new`."""
    changed = (h.heap_masks[mb] & 511) ^ new
    while changed:
        k = ctz(np.uint64(changed))
        _mark(h, k, mb, (new >> k) & 1 != 0)
        changed &= changed - 1
    h.heap_masks[mb] = new


@routine
def _give_large(h: HostState, order: int, index: int) -> None:
    """Give back the block `index` of `order` >= 9, all of whose frames were in use, and merge it upwards."""
    while order < TOP_ORDER and _is_marked(h, order, index ^ 1):
        _mark(h, order, index ^ 1, False)
        index >>= 1
        order += 1
    _mark(h, order, index, True)


@kernel
def heap_init(h: HostState) -> None:
    """Make all frames of a new host free, cut from frame 0 upwards into the largest aligned blocks."""
    r = h.rec[0]
    mb = 0
    whole = r.frames // BLOCK_PAGES
    while mb < whole:
        order = TOP_ORDER
        while (mb & ((1 << (order - 9)) - 1)) != 0 or mb + (1 << (order - 9)) > whole:
            order -= 1
        _mark(h, order, mb >> (order - 9), True)
        for k in range(mb, mb + (1 << (order - 9))):
            h.heap_masks[k] = HEAP_ALL
        mb += 1 << (order - 9)
    rest = r.frames - whole * BLOCK_PAGES
    for page in range(rest):
        h.heap_rows[whole, page >> 6] |= U1 << np.uint64(page & 63)
    if rest:
        _set_mask(h, whole, _row_orders(h, whole))
    r.free = r.frames
    r.free_2m = whole


@kernel
def heap_take(h: HostState, order: int) -> int:
    """Take the lowest block of the smallest order >= `order` that is free; its first frame, or -1."""
    return _take(h, order, 1 << order)


@routine
def heap_take_few(h: HostState, most: int) -> int:
    """Take single frames one after another: as many as follow the first in its block, `most` and 512 at most.

    The first frame << 10 | how many; -1 when none is free. (What is left of a block that was halved for a frame is
    smaller than any other that is free: it is used up before the next is touched, upwards.)
    """
    orders = h.rec[0].orders
    if orders == 0:
        return -1
    count = min(most, 1 << min(ctz(np.uint64(orders)), 9))
    return _take(h, 0, count) << 10 | count


@routine
def heap_run_order(h: HostState, blocks: int) -> int:
    """Order of one take that stands for takes of 2 MiB one after another, `blocks` of them at most: 9 or more."""
    large = h.rec[0].orders >> 9
    if large == 0:
        return 9
    order = 9 + ctz(np.uint64(large))
    while 1 << (order - 9) > blocks:
        order -= 1
    return order


@routine
def _take(h: HostState, order: int, count: int) -> int:
    """Take the first `count` frames of the lowest block of the smallest order >= `order`: 2**order, or of an order-0
    take as many as that block has; -1 when there is none.
    """
    r = h.rec[0]
    usable = r.orders >> order
    if usable == 0:
        return -1
    k = order + ctz(np.uint64(usable))
    index = _lowest(h, k)
    r.free -= count
    # What is left of the block are blocks up to its end, of the orders of the bits of their sum: no buddy is left.
    left = (1 << min(k, 9)) - count
    if k < 9:
        page = _row_lowest(h, index, k)
        left |= h.heap_masks[index]
    else:
        _mark(h, k, index, False)
        while k > 9 and k > order:
            k -= 1
            index <<= 1
            _mark(h, k, index + 1, True)
        if order >= 9:
            first = index << (order - 9)
            for mb in range(first, first + (1 << (order - 9))):
                h.heap_masks[mb] = 0
            r.free_2m -= 1 << (order - 9)
            return first * BLOCK_PAGES
        for wi in range(8):
            h.heap_rows[index, wi] = ALL
        h.heap_masks[index] = 0
        r.free_2m -= 1
        page = 0
    first = index * BLOCK_PAGES + page
    while count > 0:
        span = min(count, 64 - (page & 63))
        h.heap_rows[index, page >> 6] &= ~span_mask(page & 63, span)
        page += span
        count -= span
    if k < 9 and _row_lowest(h, index, k) < 0:
        left &= ~(1 << k)
    _set_mask(h, index, left)
    return first


@routine
def heap_is_free(h: HostState, mfn: int) -> bool:
    """Whether a frame is free."""
    mask = h.heap_masks[mfn >> 9]
    if mask == 0 or mask == HEAP_ALL:
        return bool(mask != 0)
    return bool((h.heap_rows[mfn >> 9, (mfn & 511) >> 6] >> np.uint64(mfn & 63)) & U1 != U0)


@kernel
def heap_give_run(h: HostState, mfn: int, count: int) -> None:
    """Give back `count` frames from `mfn` on, none of which is free."""
    r = h.rec[0]
    r.free += count
    end = mfn + count
    while mfn < end:
        mb = mfn >> 9
        page = mfn & 511
        here = min(end - mfn, BLOCK_PAGES - page)
        if end - mfn >= 2 * BLOCK_PAGES and mfn & (2 * BLOCK_PAGES - 1) == 0:
            # Whole blocks that make up a larger one: what giving them one by one would merge them into.
            order = 10
            while order < TOP_ORDER and mfn & ((2 << order) - 1) == 0 and end - mfn >= 2 << order:
                order += 1
            for whole in range(mb, mb + (1 << (order - 9))):
                h.heap_masks[whole] = HEAP_ALL
            r.free_2m += 1 << (order - 9)
            _give_large(h, order, mfn >> order)
            mfn += 1 << order
            continue
        mfn += here
        if here < BLOCK_PAGES:
            if h.heap_masks[mb] == 0:
                for wi in range(8):
                    h.heap_rows[mb, wi] = U0
            while here > 0:
                span = min(here, 64 - (page & 63))
                h.heap_rows[mb, page >> 6] |= span_mask(page & 63, span)
                page += span
                here -= span
            if _full_words(h, mb) != 255:
                _set_mask(h, mb, _row_orders(h, mb))
                continue
        _set_mask(h, mb, 0)
        h.heap_masks[mb] = HEAP_ALL
        r.free_2m += 1
        _give_large(h, 9, mb)
