"""Bit rows and frame lists: what a block of the table owns while it is not uniform.

What        Taking, copying and giving back rows of 512 bits and lists of 512 frames; reading them.
Units       A row is eight words of 64 bits, page i is bit i & 63 of word i >> 6. Frames of 4 KiB.
Invariants  Rows ZEROS and ONES are shared and never written: a row is made one's own first.
Departs     nowhere.
"""

import numpy as np

from podcluster.host.heap import ALL, U0, U1, span_mask
from podcluster.host.kernel import clz, ctz, popcount, routine
from podcluster.host.state import BASE, BLOCK_PAGES, DETAIL, DOWN, ONES, RAM_ROW, UP, ZEROS, DomainState, HostState

SEVERAL = 16  # frames that are looked at together


@routine
def row_give(h: HostState, row: int) -> None:
    """Give a row back; the shared ones stay."""
    if row > ONES:
        r = h.rec[0]
        h.row[row, 0] = np.uint64(r.row_free)
        r.row_free = row
        r.rows_used -= 1


@routine
def row_own(h: HostState, row: int) -> int:
    """`row` itself when it may be written, else a private copy of it."""
    if row > ONES:
        return row
    r = h.rec[0]
    new = r.row_free
    if new:
        r.row_free = np.int64(h.row[new, 0])
    else:
        new = r.row_top
        r.row_top += 1
    r.rows_used += 1
    fill = ALL if row == ONES else U0
    for wi in range(8):
        h.row[new, wi] = fill
    return int(new)


@routine
def row_write(h: HostState, g: DomainState, b: int, field: int, wi: int, m: np.uint64, on: bool) -> None:
    """Set or clear the bits of `m` in the row that `field` of block `b` names; a shared row is copied first."""
    row = int(g.blk[b, field])
    want = m if on else U0
    if h.row[row, wi] & m != want:
        row = row_own(h, row)
        g.blk[b, field] = row
        h.row[row, wi] = (h.row[row, wi] & ~m) | want


@routine
def row_fill(h: HostState, g: DomainState, b: int, field: int, i: int, count: int, on: bool) -> None:
    """Set or clear the `count` bits from `i` on, not all 512, in the row that `field` of block `b` names; a shared row
    is copied first.
    """
    row = int(g.blk[b, field])
    if row == (ONES if on else ZEROS):
        return
    row = row_own(h, row)
    g.blk[b, field] = row
    while count > 0:
        span = min(count, 64 - (i & 63))
        m = span_mask(i & 63, span)
        if on:
            h.row[row, i >> 6] |= m
        else:
            h.row[row, i >> 6] &= ~m
        i += span
        count -= span


@routine
def row_is(h: HostState, row: int, word: np.uint64) -> bool:
    """Whether all eight words of `row` equal `word`."""
    for wi in range(8):
        if h.row[row, wi] != word:
            return False
    return True


@routine
def row_count(h: HostState, row: int) -> int:
    """Bits set in `row`."""
    if row <= ONES:
        return BLOCK_PAGES * row
    bits = 0
    for wi in range(8):
        bits += popcount(h.row[row, wi])
    return bits


@routine
def row_count_in(h: HostState, row: int, i: int, count: int) -> int:
    """Bits set in `row` among `count` from `i` on."""
    bits = 0
    while count > 0:
        span = min(count, 64 - (i & 63))
        bits += popcount(h.row[row, i >> 6] & span_mask(i & 63, span))
        i += span
        count -= span
    return bits


@routine
def page_bit(h: HostState, row: int, i: int) -> bool:
    """Bit `i` of `row`."""
    return bool((h.row[row, i >> 6] >> np.uint64(i & 63)) & U1 != U0)


@routine
def next_page(h: HostState, row: int, i: int, end: int, step: int, flip: np.uint64) -> int:
    """First page from `i` on, before `end` in the direction of `step`, whose bit is set in `row`, or clear where `flip`
    is ALL and not U0; `end` if none.
    """
    if row <= ONES:  # which is not to be gone through word by word
        return end if (row == ONES) == (flip != U0) else i
    while i != end:
        wi = i >> 6
        bits = h.row[row, wi] ^ flip
        if step > 0:
            left = bits & ~(span_mask(0, i & 63) if i & 63 else U0)
            if left != U0:
                return min(64 * wi + ctz(left), end)
            i = min(64 * (wi + 1), end)
        else:
            left = bits & span_mask(0, (i & 63) + 1)
            if left != U0:
                return max(64 * wi + 63 - clz(left), end)
            i = max(64 * wi - 1, end)
    return end


@routine
def detail_give(h: HostState, handle: int) -> None:
    """Give a list of frames back, if it is one."""
    if handle > UP:
        r = h.rec[0]
        h.detail[handle, 0] = r.detail_free
        r.detail_free = handle
        r.details_used -= 1


@routine
def list_frames(h: HostState, g: DomainState, b: int) -> int:
    """Have a list of the frames of block `b`, whichever they are; its handle."""
    handle = int(g.blk[b, DETAIL])
    if handle > UP:
        return handle
    base = int(g.blk[b, BASE])
    along = 1 if handle == UP else -1
    r = h.rec[0]
    new = r.detail_free
    if new:
        r.detail_free = h.detail[new, 0]
    else:
        new = r.detail_top
        r.detail_top += 1
    r.details_used += 1
    detail = h.detail[new]
    for i in range(BLOCK_PAGES):
        detail[i] = base + along * i
    g.blk[b, DETAIL] = new
    return int(new)


@routine
def lay_frames(h: HostState, g: DomainState, b: int, i: int, count: int, mfn: int, along: int) -> None:
    """Put frames mfn, mfn + along, ... behind the `count` pages of block `b` from page `i` on, which RAM_ROW does not
    count yet.
    """
    handle = int(g.blk[b, DETAIL])
    ram = int(g.blk[b, RAM_ROW])
    if ram == ZEROS or count == BLOCK_PAGES:  # there are no others
        detail_give(h, handle)
        g.blk[b, DETAIL] = UP if along > 0 else DOWN
        g.blk[b, BASE] = mfn - along * i
        return
    if handle <= UP:
        base = int(g.blk[b, BASE])
        way = 1 if handle == UP else -1
        if base + way * i == mfn and (count == 1 or along == way):
            return
        if row_count(h, ram) == 1:  # of a single page nobody knows which way its frames run
            other = next_page(h, ram, 0, BLOCK_PAGES, 1, U0)
            new = -way if count == 1 else along
            if base + way * other - new * other == mfn - new * i:
                g.blk[b, DETAIL] = UP if new > 0 else DOWN
                g.blk[b, BASE] = mfn - new * i
                return
        handle = list_frames(h, g, b)
    detail = h.detail[handle]
    for k in range(count):
        detail[i + k] = mfn + along * k


@routine
def frame_of(h: HostState, g: DomainState, b: int, i: int) -> int:
    """Frame behind RAM page `i` of block `b`."""
    handle = g.blk[b, DETAIL]
    if handle > UP:
        return int(h.detail[handle, i])
    base = int(g.blk[b, BASE])
    return base + i if handle == UP else base - i


@routine
def frame_run(h: HostState, g: DomainState, b: int, i: int, n: int, step: int) -> int:
    """How many of the `n` RAM pages of block `b` from page `i` on, in the direction of `step`, have frames that follow
    each other: less than 0 where they do so downwards. A single page counts as upwards.
    """
    if n == 1:
        return 1
    handle = g.blk[b, DETAIL]
    if handle <= UP:
        return n * step if handle == UP else -n * step
    detail = h.detail[handle]
    mfn = detail[i]
    along = -1 if detail[i + step] < mfn else 1
    run = 1
    while run + SEVERAL <= n:  # which are looked at together, as long as they follow
        last = run + SEVERAL - 1
        low, frame = (i + run, mfn + run * along) if step > 0 else (i - last, mfn + last * along)
        apart = False
        for k in range(SEVERAL):
            apart |= detail[low + k] != frame + k * along * step
        if apart:
            break
        run += SEVERAL
    while run < n and detail[i + run * step] == mfn + run * along:
        run += 1
    return run * along if run > 1 else 1
