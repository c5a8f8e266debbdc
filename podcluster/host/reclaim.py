"""Finding zero pages: the checks, the eager reclaim from the recent list, and the emergency sweep.

What        P8 eager reclaim, P9 superpage zero check, P10 frame zero check, P11 emergency sweep.
Units       Frames of 4 KiB; i is a page of block b, wi and m a word of a row and a mask in it.
Symbols     E entry_count   C cache_count
Invariants  Every reclaimed frame adds one to E and one to C: the debt E - C does not move.
Time        [G6] a gfn that a sweep passes, a record, a range that is tried: look_ns; a frame of RAM whose first 128
            bytes are read: check_nonzero_ns (a range is read up to the first that is not zero); a frame that passes:
            check_zero_ns; a range that passes: the same for its first frame, and zero_4k_ns for each of the others,
            which are read after one flush.
Order       Nothing else runs between a check's steps, so "set to `pod`, check in full, map back" is carried out by
            its outcome: the shattering or mending of the table, the vanishing of shadow references, and either the
            page's move to the cache or its staying.
Departs     nowhere.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.cache import cache_add_run, cache_add_super
from podcluster.host.contents import (
    contents_set_bits,
    contents_uniform,
    head_passes,
    holds_pattern,
    pattern_set,
    pattern_uniform,
)
from podcluster.host.heap import ALL, U0, U1, span_mask
from podcluster.host.kernel import ctz, kernel, popcount, routine
from podcluster.host.p2m import forget_mapping, open_block, set_block, set_pages, table_conflict
from podcluster.host.pending import NEVER, next_work
from podcluster.host.rows import detail_give, frame_of, frame_run, page_bit, row_count, row_give, row_is
from podcluster.host.state import (
    ANY,
    BASE,
    BATCH,
    BLOCK_PAGES,
    DETAIL,
    DOWN,
    EMPTY,
    G_RAM,
    G_TABLE,
    GIB_PAGES,
    HEAD,
    KIND,
    L_LENGTH,
    ODD,
    ONES,
    PATTERNED,
    POD,
    RAM,
    RAM_ROW,
    REF_MASK,
    REF_SHIFT,
    RING_EMPTY,
    RING_SUPER,
    SHADOW_MASK,
    SHADOW_SHIFT,
    SHADOWED_PT,
    SPECIAL,
    SUPER,
    SWEEP_BATCH,
    SWEEP_LIMIT,
    TABLE,
    TYPE_MASK,
    UP,
    ZEROS,
    DomainState,
    HostState,
)


@routine
def _refs_allow(h: HostState, g: DomainState, mfn: int) -> bool:
    """The first look at a frame: not special, no page table, no reference too many for now."""
    a = h.attr[mfn]
    if h.rec[0].blind_checks:
        return bool(a & SHADOWED_PT == 0)  # R7
    if a & (SPECIAL | SHADOWED_PT):
        return False
    extra = ((a & REF_MASK) >> REF_SHIFT) + ((a & SHADOW_MASK) >> SHADOW_SHIFT)
    # A count: on a shadow-paged domain one reference more may be the shadow mapping's own.
    return bool(extra <= (1 if g.rec[0].shadow else 0))


@routine
def _is_held(h: HostState, mfn: int) -> bool:
    """The second look, with the page set to `pod`: something refers to its frame, as far as the check sees [R7]."""
    return bool(h.attr[mfn] & (TYPE_MASK if h.rec[0].blind_checks else REF_MASK) != 0)


@routine
def _is_granted(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    """R7: the grant table names a gfn of an aligned range. Today a grant is a reference like any other."""
    if h.rec[0].blind_checks:
        for k in range(g.rec[0].grants):
            if g.grants[k] >> order == gfn >> order:
                return True
    return False


@routine
def block_is_whole(h: HostState, g: DomainState, b: int) -> bool:
    """All 512 gfns of `b` are RAM on consecutive frames that begin 2 MiB-aligned."""
    kind = g.blk[b, KIND]
    if kind == RAM:
        return True
    if kind != TABLE:
        return False
    ram = int(g.blk[b, RAM_ROW])
    if ram != ONES:
        if not row_is(h, ram, ALL):
            return False
        row_give(h, ram)
        g.blk[b, RAM_ROW] = ONES
    handle = int(g.blk[b, DETAIL])
    if handle == DOWN:
        return False
    if handle:
        base = int(h.detail[handle, 0])
        for i in range(BLOCK_PAGES):
            if h.detail[handle, i] != base + i:
                return False
        detail_give(h, handle)
        g.blk[b, DETAIL] = UP
        g.blk[b, BASE] = base
    return int(g.blk[b, BASE]) & (BLOCK_PAGES - 1) == 0


@routine
def _leading(h: HostState, row: int, on: bool) -> int:
    """Bits of `row` that are as `on` says, below the first that is not; 512 if there is none."""
    same = ALL if on else U0
    for wi in range(8):
        if h.row[row, wi] != same:
            return 64 * wi + ctz(h.row[row, wi] ^ same)
    return BLOCK_PAGES


@routine
def reclaim_super(h: HostState, g: DomainState, gfn: int) -> bool:
    """P9: try to turn the 2 MiB range at `gfn` (aligned) back into one `pod` entry."""
    r = g.rec[0]
    b = gfn >> 9
    if b >= r.blocks:
        return False
    r.now_ns += h.rec[0].look_ns
    if not block_is_whole(h, g, b):
        return False
    base = int(g.blk[b, BASE])
    odd = int(g.blk[b, ODD])
    if odd != ZEROS:
        for i in range(BLOCK_PAGES):
            if page_bit(h, odd, i) and not _refs_allow(h, g, base + i):
                return False
    # S4: all zero or all pattern, as the first frame has it.
    pattern = holds_pattern(h, g, b, 0)
    alike = _leading(h, int(g.blk[b, PATTERNED if pattern else HEAD]), pattern)
    r.now_ns += min(alike + 1, BLOCK_PAGES) * h.rec[0].check_nonzero_ns
    if alike < BLOCK_PAGES:
        return False
    r.now_ns += h.rec[0].check_zero_ns + (BLOCK_PAGES - 1) * h.rec[0].zero_4k_ns
    # R1: where the table holds 512 small entries neither the set to `pod` nor the mapping back can be done.
    fails = g.blk[b, KIND] == TABLE and h.rec[0].fixed_tables != 0
    clean = not _is_granted(h, g, gfn, 9)
    attributes = False
    if odd != ZEROS:
        # Set to `pod` for the full check: shadow mappings drop their references, others remain.
        for i in range(BLOCK_PAGES):
            if page_bit(h, odd, i):
                if not fails:
                    h.attr[base + i] &= ~SHADOW_MASK
                attributes = attributes or h.attr[base + i] != 0
                if i == 0 or not h.rec[0].blind_checks:  # R7: the first frame speaks for all
                    clean = clean and not _is_held(h, base + i)
    if fails:
        table_conflict(g)
    any_row = int(g.blk[b, ANY])
    if not clean or (not pattern and any_row != ZEROS and not row_is(h, any_row, U0)):
        set_block(h, g, b, RAM, base)  # mapped back as one entry
        return False
    if not fails:
        contents_uniform(h, g, b, ZEROS)
        row_give(h, odd)
        g.blk[b, ODD] = ZEROS
        set_block(h, g, b, POD, 0)
        pattern_uniform(h, g, b, ONES if pattern else ZEROS)  # S2
    cache_add_super(h, g, base, attributes)
    r.entry_count += BLOCK_PAGES
    r.reclaimed_2m += 1
    return True


@routine
def reclaim_page(h: HostState, g: DomainState, b: int, i: int) -> bool:
    """P10 on a RAM page whose first 16 words are zero, or the pattern of the guest [S2]."""
    r = g.rec[0]
    mfn = frame_of(h, g, b, i)
    odd = page_bit(h, int(g.blk[b, ODD]), i)
    if odd and not _refs_allow(h, g, mfn):
        return False
    r.now_ns += h.rec[0].check_zero_ns
    clean = not _is_granted(h, g, (b << 9) + i, 0)
    pattern = holds_pattern(h, g, b, i)
    if odd:
        h.attr[mfn] &= ~SHADOW_MASK
        clean = clean and not _is_held(h, mfn)
    if not clean or (not pattern and page_bit(h, int(g.blk[b, ANY]), i)):
        open_block(g, b)  # mapped back, as an entry of 4 KiB
        r.table_generation += 1
        return False
    if odd:
        forget_mapping(h, g, b, i, mfn)
    set_pages(h, g, (b << 9) + i, 1, POD, 0)
    if pattern:
        contents_set_bits(h, g, b, i, False, False)
        pattern_set(h, g, b, i >> 6, U1 << np.uint64(i & 63), True)
    cache_add_run(h, g, mfn, 1, 1, odd and h.attr[mfn] != 0)
    r.entry_count += 1
    r.reclaimed_4k += 1
    return True


@routine
def _are_plain(h: HostState, g: DomainState, b: int, wi: int, m: np.uint64) -> bool:
    """Whether P10 takes back all pages of mask `m`, whose heads pass: they are zero, their frames like any."""
    kept = h.row[g.blk[b, ANY], wi] | h.row[g.blk[b, ODD], wi]
    return bool(kept & m == U0 and g.rec[0].grants == 0)


@routine
def _reclaim_plain(h: HostState, g: DomainState, b: int, wi: int, m: np.uint64) -> None:
    """P10 on pages that `_are_plain`, ascending, each on its own."""
    r = g.rec[0]
    pages = popcount(m)
    r.now_ns += pages * h.rec[0].check_zero_ns
    r.entry_count += pages
    r.reclaimed_4k += pages
    while m != U0:
        low = ctz(m)
        n = min(ctz(~(m >> np.uint64(low))), 64 - low)
        i = 64 * wi + low
        k = 0
        while k < n:
            signed = frame_run(h, g, b, i + k, n - k, 1)
            cache_add_run(h, g, frame_of(h, g, b, i + k), abs(signed), 1 if signed > 0 else -1, False)
            k += abs(signed)
        set_pages(h, g, (b << 9) + i, n, POD, 0)
        m &= ~span_mask(low, n)


@routine
def reclaim_each(h: HostState, g: DomainState, gfn: int) -> None:
    """P10 on every page of the 2 MiB range at `gfn`, ascending, each on its own."""
    b = gfn >> 9
    g.rec[0].now_ns += BLOCK_PAGES * h.rec[0].look_ns
    if (g.blk[b, KIND] != RAM and g.blk[b, KIND] != TABLE) or int(g.blk[b, RAM_ROW]) == ZEROS:
        return
    g.rec[0].now_ns += row_count(h, int(g.blk[b, RAM_ROW])) * h.rec[0].check_nonzero_ns
    for wi in range(8):
        left = head_passes(h, g, b, wi)
        if _are_plain(h, g, b, wi, left):
            _reclaim_plain(h, g, b, wi, left)
            continue
        while left != U0:
            i = ctz(left)
            left &= left - U1
            reclaim_page(h, g, b, 64 * wi + i)


@routine
def look_at(h: HostState, g: DomainState, record: int) -> None:
    """P8 on one record of the recent list, which has left it."""
    if record & RING_SUPER:
        gfn = record & ~RING_SUPER
        if not reclaim_super(h, g, gfn):
            reclaim_each(h, g, gfn)
        return
    look_at_page(h, g, record)


@routine
def look_at_page(h: HostState, g: DomainState, gfn: int) -> None:
    """The same on the record of a page."""
    r = g.rec[0]
    b = gfn >> 9
    i = gfn & 511
    r.now_ns += h.rec[0].look_ns
    if page_bit(h, int(g.blk[b, RAM_ROW]), i):
        r.now_ns += h.rec[0].check_nonzero_ns
        if head_passes(h, g, b, i >> 6) & (U1 << np.uint64(i & 63)) != U0:
            reclaim_page(h, g, b, i)


@routine
def eager_reclaim(h: HostState, g: DomainState) -> None:
    """P8: look at the oldest record of the recent list, and at more only while the cache is empty."""
    r = g.rec[0]
    at = r.mrp_idx
    for _ in range(g.ring.shape[0]):
        record = g.ring[at]
        if record != RING_EMPTY:
            g.ring[at] = RING_EMPTY
            look_at(h, g, record)
        at = (at + 1) & (g.ring.shape[0] - 1)
        if r.cache_count > 0:
            return


@routine
def _check_batch(h: HostState, g: DomainState, count: int) -> None:
    """P10 on the `count` candidates gathered in `g.lists[BATCH]`, in the order in which they were met."""
    for k in range(count):
        gfn = g.lists[BATCH, k]
        reclaim_page(h, g, gfn >> 9, gfn & 511)


@routine
def _sweep_down(h: HostState, g: DomainState, start: int, floor: int, limit: int, due: int) -> int:
    """P11 from gfn `start` down to the one above `floor`: the gfn at which it stopped, `floor` if it did not.

    It stops at a gfn below `limit` where there is something in the cache, or the time `due` of other work has come.
    RAM pages are gathered and checked sixteen at a time. A word without a page that can pass only counts how many it
    adds to the batch; the others are walked page by page, as long as a candidate is in hand or ahead, or the time comes
    within them.
    """
    r = g.rec[0]
    look_ns = h.rec[0].look_ns
    batch_ns = SWEEP_BATCH * h.rec[0].check_nonzero_ns
    gathered = 0  # RAM pages in the batch in hand
    held = 0  # of them candidates
    gfn = start
    while gfn > floor:
        # The sweep ends at the first gfn below the limit, once there is something in the cache or work waits.
        ends = r.cache_count > 0 or r.now_ns >= due
        b = gfn >> 9
        kind = int(g.blk[b, KIND]) if b < r.blocks else EMPTY
        if kind != RAM and kind != TABLE:
            last = b << 9
            if b >= r.blocks:
                last = r.blocks << 9
            elif g.gib[b >> 9] != G_TABLE and g.gib[b >> 9] != G_RAM:
                last = (b >> 9) * GIB_PAGES
            last = max(last, floor + 1)
            if limit > last:
                if ends:
                    last = min(gfn, limit - 1)
                elif look_ns > 0:
                    waits = gfn + 1 - (due - r.now_ns + look_ns - 1) // look_ns  # the gfn at which the time has come
                    last = max(min(waits, limit - 1), last)
            r.now_ns += (gfn - last + 1) * look_ns
            gfn = last
            if gfn < limit and (ends or r.now_ns >= due):
                break
            gfn -= 1
            continue
        last = max((gfn >> 6) << 6, floor + 1)
        if ends and limit > last:
            last = min(gfn, limit - 1)
        wi = (gfn & 511) >> 6
        ram = h.row[g.blk[b, RAM_ROW], wi] & span_mask(last & 63, gfn - last + 1)
        candidates = ram & head_passes(h, g, b, wi)
        if candidates == U0 and held == 0:
            total = gathered + popcount(ram)
            took = (gfn - last + 1) * look_ns + total // SWEEP_BATCH * batch_ns
            if ends or r.now_ns + took < due:
                r.now_ns += took
                gathered = total % SWEEP_BATCH
                gfn = last
                if ends and gfn < limit:
                    break
                gfn -= 1
                continue
        while True:
            r.now_ns += look_ns
            one = U1 << np.uint64(gfn & 63)
            if ram & one != U0:
                if candidates & one != U0:
                    g.lists[BATCH, held] = gfn
                    held += 1
                gathered += 1
                if gathered == SWEEP_BATCH:
                    r.now_ns += batch_ns
                    _check_batch(h, g, held)
                    held = 0
                    gathered = 0
            if gfn == last or (gfn < limit and (r.cache_count > 0 or r.now_ns >= due)):
                break
            gfn -= 1
        if gfn < limit and (r.cache_count > 0 or r.now_ns >= due):
            break
        gfn -= 1
    r.now_ns += gathered * h.rec[0].check_nonzero_ns
    _check_batch(h, g, held)
    return gfn


@routine
def _looked(start: int, stopped: int, floor: int) -> int:
    """How many gfns a walk down from `start` to the one above `floor` looked at that stopped at `stopped`."""
    return start - stopped + (1 if stopped > floor else 0)


@routine
def emergency_sweep(h: HostState, g: DomainState) -> None:
    """P11: look for zero pages downwards from where the last sweep stopped."""
    r = g.rec[0]
    r.sweeps += 1
    if r.reclaim_single == 0:
        r.reclaim_single = r.max_guest
    start = r.reclaim_single
    due = next_work(h, g) if h.rec[0].sweep_yields else NEVER
    stopped = _sweep_down(h, g, start, 0, max(start - SWEEP_LIMIT, 0), due)
    r.sweep_looks += _looked(start, stopped, 0)
    r.reclaim_single = max(stopped - 1, 0)
    r.sweep_wrapped = 0
    if stopped == 0 and r.cache_count == 0 and h.rec[0].sweep_wraps and start < r.max_guest:
        # Not Xen: on from the top, as if it lay below the bottom.
        stopped = _sweep_down(h, g, r.max_guest, start, r.max_guest + start - SWEEP_LIMIT, due)
        r.sweep_looks += _looked(r.max_guest, stopped, start)
        r.reclaim_single = stopped - 1 if stopped > start else 0
        r.sweep_wrapped = 1
    r.sweep_from = start
    r.sweep_to = stopped


@routine
def super_sweep(h: HostState, g: DomainState) -> None:
    """R8: try superpages downwards from where the last sweep stopped; at least four, unless gfn 0 comes first.

    A restart is at 512 below the superpage of `max_guest`, in unsigned arithmetic of 32 bits. Above the highest gfn
    ever mapped there is nothing that could be found, so those steps are left out.
    """
    r = g.rec[0]
    r.super_sweeps += 1
    start = r.reclaim_super
    if start == 0:
        start = (((r.max_guest >> 9) << 9) - BLOCK_PAGES) & 0xFFFFFFFF
    limit = max(start - SWEEP_LIMIT, 0)
    gfn = min(start, (r.top_gfn >> 9) << 9)
    r.now_ns += (start - gfn) // BLOCK_PAGES * h.rec[0].look_ns
    while gfn > 0:
        reclaim_super(h, g, gfn)
        if gfn < limit and g.lists[SUPER, L_LENGTH] > 0:
            break
        gfn -= BLOCK_PAGES
    r.reclaim_super = max(gfn - BLOCK_PAGES, 0)


@routine
def _count_reclaimable(h: HostState, g: DomainState, low: int, high: int) -> int:
    """RAM pages in [low, high] that a check would take back now (P10)."""
    found = 0
    gfn = low
    end = min(high + 1, g.rec[0].blocks << 9)
    while gfn < end:
        b = gfn >> 9
        i = gfn & 511
        span = min(end - gfn, 64 - (i & 63))
        passes = ~h.row[g.blk[b, ANY], i >> 6]
        if g.rec[0].scrub_pattern:
            passes |= h.row[g.blk[b, PATTERNED], i >> 6]
        left = h.row[g.blk[b, RAM_ROW], i >> 6] & passes & span_mask(i & 63, span)
        if int(g.blk[b, ODD]) == ZEROS and g.rec[0].grants == 0:
            found += popcount(left)
            left = U0
        while left != U0:
            k = (i & ~63) + ctz(left)
            left &= left - U1
            mfn = frame_of(h, g, b, k)
            free = not page_bit(h, int(g.blk[b, ODD]), k) or (_refs_allow(h, g, mfn) and not _is_held(h, mfn))
            if free and not _is_granted(h, g, (b << 9) + k, 0):
                found += 1
        gfn += span
    return found


@kernel
def hazard(h: HostState, g: DomainState, out: npt.NDArray[np.int64]) -> None:
    """Reclaimable pages by why the last sweep left them: above where it began; below where it was cut off; out of any
    sweep's reach (beyond the highest gfn touched, and gfn 0).
    """
    r = g.rec[0]
    # One that went on at the top has looked at all below its start.
    above = 0 if r.sweep_wrapped else r.max_guest
    below = r.sweep_from if r.sweep_wrapped else 0
    out[0] = _count_reclaimable(h, g, r.sweep_from + 1, above)
    out[1] = _count_reclaimable(h, g, below + 1, r.sweep_to - 1)
    out[2] = _count_reclaimable(h, g, 0, 0) + _count_reclaimable(h, g, r.max_guest + 1, (r.blocks << 9) - 1)
