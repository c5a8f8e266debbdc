"""Populate-on-demand of one domain: target, promises, and making them good.

What        P4 set target, P5 mark, P6 demand-populate, P7 recent list, and T3's allocating look-up.
Units       Frames of 4 KiB; an extent of order k is 2**k of them.
Symbols     E entry_count   C cache_count   tot tot_pages   P populated = tot - C   B ballooned_to   T target   M
            maxmem
Invariants  [POD-1] 0 <= P <= T <= B <= M   [POD-2] E = B - P   [POD-3] tot = P + C, in a regular life
            (docs/model.md); what breaks one of them says so in `rec.irregular`. A populate and a sweep leave the debt
            E - C as it is.
Departs     nowhere.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.cache import INTERRUPTED, cache_get_single, cache_get_super, set_cache_size
from podcluster.host.contents import contents_set_bits, contents_uniform, pattern_uniform
from podcluster.host.kernel import ctz, kernel, outline, routine
from podcluster.host.p2m import mark_odd, page_kind, set_block, set_pages, set_range
from podcluster.host.reclaim import eager_reclaim, emergency_sweep, reclaim_super, super_sweep
from podcluster.host.rows import frame_of, page_bit, row_count, row_count_in
from podcluster.host.state import (
    BLOCK_PAGES,
    EBUSY,
    EINVAL,
    EMPTY,
    G_POD,
    G_TABLE,
    KIND,
    L_LENGTH,
    ONES,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    RECENT_AFTER,
    RECENT_ALWAYS,
    RECENT_IN_DEBT,
    RING_SUPER,
    SINGLE,
    STALE,
    STALE_ANY,
    STALE_HEAD,
    SUPER,
    TARGET_LOWERED,
    ZEROS,
    DomainState,
    HostState,
)

HOLE = -1
CRASHED = -2
NOT_RUNNING = -3


@routine
def count_kind(h: HostState, g: DomainState, gfn: int, order: int, kind: int) -> int:
    """Pages of `kind` (RAM or POD) in an aligned extent. RAM: special ones too."""
    total = 0
    end = gfn + (1 << order)
    while gfn < end:
        b = gfn >> 9
        i = gfn & 511
        here = min(end - gfn, BLOCK_PAGES - i)
        if b < g.rec[0].blocks:
            if here == BLOCK_PAGES:
                total += row_count(h, int(g.blk[b, RAM_ROW if kind == RAM else POD_ROW]))
            else:
                total += row_count_in(h, int(g.blk[b, RAM_ROW if kind == RAM else POD_ROW]), i, here)
        gfn += here
    return total


@routine
def chunk_order(gfn: int, order: int) -> int:
    """Order of the equal chunks that an extent is cut into (P5, P12)."""
    return min(ctz(np.uint64(gfn | (1 << order))), order)


@kernel
def set_target(h: HostState, g: DomainState, pages: int) -> int:
    """P4: 0, EINVAL or ENOMEM; continued until done."""
    r = g.rec[0]
    r.generation += 1
    if pages > r.max_pages:
        return EINVAL
    if pages < r.target or pages < r.tot_pages:
        r.irregular |= TARGET_LOWERED
    r.target = pages
    while True:
        r.entry_ns = r.now_ns
        r.now_ns += h.rec[0].hypercall_ns
        coarse = h.rec[0].coarse_cache  # R4
        populated = r.tot_pages - r.cache_count
        if ((populated > 0 or coarse) and r.entry_count == 0) or r.dying or pages < r.tot_pages:
            return 0
        wanted = pages - populated
        if populated > 0 or coarse:
            wanted = min(wanted, r.entry_count)
        if wanted < r.cache_count + coarse:
            r.asserted = 1
        result = set_cache_size(h, g, wanted, True)
        if result != INTERRUPTED:
            return result


@kernel
def mark_pod(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """P5: 0 or EBUSY; chunks before the failing one stay. R5: whole; EINVAL where its last piece could not be set."""
    r = g.rec[0]
    r.generation += 1
    size = order if h.rec[0].whole_extents else chunk_order(gfn, order)
    result = 0
    for at in range(gfn, gfn + (1 << order), 1 << size):
        if count_kind(h, g, at, size, RAM) > 0:
            r.locked = h.rec[0].whole_extents
            return EBUSY
        fresh = (1 << size) - count_kind(h, g, at, size, POD)
        if not set_range(h, g, at, size, POD, 0):
            result = EINVAL
            break
        r.entry_count += fresh
        r.ballooned_to += fresh
    if r.conflicts:
        r.crashed = 1
    return result


@routine
def _mark_above_all(h: HostState, g: DomainState, gfn: int, count: int, order: int) -> int:
    """P5 on `count` adjacent extents of 2 MiB or 1 GiB, each one entry, where nothing was ever mapped, so that there is
    nothing to look at or to give back first; how many were done, none where that is not so.
    """
    r = g.rec[0]
    usable = r.sp_2m if order == 9 else (r.sp_1g if order == 18 else 0)
    aligned = gfn & ((1 << order) - 1) == 0
    if not (usable and aligned and gfn >> 9 > r.top_gfn >> 9) or r.conflicts or h.rec[0].fixed_tables:
        return 0
    pages = count << order
    first, end = gfn >> 9, (gfn + pages) >> 9
    for b in range(first, end):
        g.blk[b, KIND] = POD
        g.blk[b, POD_ROW] = ONES
    for gi in range(first >> 9, ((end - 1) >> 9) + 1):
        g.gib[gi] = G_POD if order == 18 else G_TABLE
    r.top_gfn = gfn + pages - 1
    r.entry_count += pages
    r.ballooned_to += pages
    r.generation += count
    r.table_generation += count
    return count


@kernel
def mark_pod_extents(h: HostState, g: DomainState, runs: npt.NDArray[np.int64]) -> int:
    """P5 on runs of adjacent extents, (first gfn, count, order) one after another; how many extents were done."""
    total = 0
    for k in range(0, runs.shape[0], 3):
        first, count, order = runs[k], runs[k + 1], runs[k + 2]
        done = 0
        while done < count:
            gfn = first + (done << order)
            n = _mark_above_all(h, g, gfn, count - done, order)
            if n == 0:
                if mark_pod(h, g, gfn, order) != 0:
                    return total + done
                n = 1
            done += n
        total += count
    return total


@routine
def remember(h: HostState, g: DomainState, record: int) -> None:
    """P7: put a record into the ring; xen2012 looks at the superpage that falls out.

    It begins with gfn 0 in every slot and would populate and take back gfn 0 for ever, if a toolstack made a superpage
    of it (none did: the VGA hole is in it). Here gfn 0 is left alone while it is populated itself.
    """
    r = g.rec[0]
    recent = h.rec[0].recent
    if recent < RECENT_IN_DEBT:
        if recent != RECENT_AFTER or not record & RING_SUPER or r.entry_count <= r.cache_count:
            return
    oldest = g.ring[r.mrp_idx]
    g.ring[r.mrp_idx] = record
    r.mrp_idx = (r.mrp_idx + 1) & (g.ring.shape[0] - 1)
    if recent == RECENT_AFTER and (record | oldest) != RING_SUPER:
        reclaim_super(h, g, oldest & ~RING_SUPER)


@routine
def _mark_odd_frames(h: HostState, g: DomainState, gfn: int, mfn: int, count: int) -> None:
    """Frames that come from a cache with attributed ones keep their attributes, and what they hold [R2]."""
    for k in range(count):
        a = h.attr[mfn + k]
        if a == 0:
            continue
        g.rec[0].odd_cached -= 1
        if a & STALE:
            h.attr[mfn + k] = a & ~STALE
            contents_set_bits(h, g, (gfn + k) >> 9, (gfn + k) & 511, a & STALE_ANY != 0, a & STALE_HEAD != 0)
        if a & ~STALE:
            mark_odd(h, g, gfn + k)


@routine
def out_of_memory(g: DomainState) -> None:
    """P6 step 5: the domain crashes; the numbers that Xen logs are kept."""
    r = g.rec[0]
    r.crashed = 1
    r.oom = 1
    r.oom_by = r.accessor
    r.oom_tot = r.tot_pages
    r.oom_entries = r.entry_count


@routine
def reclaims_first(h: HostState, g: DomainState) -> bool:
    """Whether a populate begins with P8."""
    r = g.rec[0]
    recent = h.rec[0].recent
    return bool(recent == RECENT_ALWAYS or (recent == RECENT_IN_DEBT and r.entry_count > r.cache_count))


@routine
def make_room(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    """P6 steps 3 to 6, R6: reclaim as the rules say; False when the domain is out of PoD memory."""
    r = g.rec[0]
    if h.rec[0].early_sweeps:
        if order == 9 and g.lists[SUPER, L_LENGTH] == 0:
            super_sweep(h, g)
        if g.lists[SINGLE, L_LENGTH] == 0 and (order == 0 or g.lists[SUPER, L_LENGTH] == 0):
            emergency_sweep(h, g)
        if r.accessor < 0:
            r.max_guest = max(r.max_guest, gfn)
        if r.cache_count == 0:
            out_of_memory(g)
        return bool(r.cache_count > 0)
    if reclaims_first(h, g):
        eager_reclaim(h, g)
    if r.cache_count == 0:
        emergency_sweep(h, g)
        if r.cache_count == 0:
            out_of_memory(g)
            return False
    r.max_guest = max(r.max_guest, gfn)
    return True


@routine
def _has_survived(g: DomainState) -> bool:
    """R1: a conflict in a sweep crashes the guest once the access that the sweep served is done."""
    r = g.rec[0]
    if r.conflicts:
        r.crashed = 1
    return bool(r.conflicts == 0)


@routine
def _populate_on_demand(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    r = g.rec[0]
    if r.dying:
        return False
    if order == 18:
        set_range(h, g, (gfn >> 18) << 18, 9, POD, 0)
        r.now_ns += h.rec[0].splinter_ns
        return True
    if not make_room(h, g, gfn, order):
        return False
    if order == 9:
        first = (gfn >> 9) << 9
        mfn = cache_get_super(h, g)
        if mfn < 0:
            row = int(g.blk[gfn >> 9, PATTERNED])
            set_pages(h, g, first, BLOCK_PAGES, POD, 0)
            pattern_uniform(h, g, gfn >> 9, row)  # ZEROS or ONES: a promise of 2 MiB is of one kind [S4]
            r.splintered_2m += 1
            r.now_ns += h.rec[0].splinter_ns
            return True
        set_block(h, g, gfn >> 9, RAM, mfn)
        if r.odd_cached:
            _mark_odd_frames(h, g, first, mfn, BLOCK_PAGES)
        if int(g.blk[gfn >> 9, PATTERNED]) != ZEROS:
            contents_uniform(h, g, gfn >> 9, ONES)  # S3
            r.now_ns += BLOCK_PAGES * h.rec[0].zero_4k_ns
        r.entry_count -= BLOCK_PAGES
        r.populated_2m += 1
        r.now_ns += h.rec[0].populate_2m_ns
        remember(h, g, first | RING_SUPER)
        return _has_survived(g)
    mfn = cache_get_single(h, g)
    set_pages(h, g, gfn, 1, RAM, mfn)
    if r.odd_cached:
        _mark_odd_frames(h, g, gfn, mfn, 1)
    if page_bit(h, int(g.blk[gfn >> 9, PATTERNED]), gfn & 511):
        contents_set_bits(h, g, gfn >> 9, gfn & 511, True, True)  # S3
        r.now_ns += h.rec[0].zero_4k_ns
    r.entry_count -= 1
    r.populated_4k += 1
    r.now_ns += h.rec[0].populate_4k_ns
    remember(h, g, gfn)
    return _has_survived(g)


@outline
def demand_populate(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """P6: back the `pod` entry of `order` at `gfn`, or make it smaller: 1, and the access looks again; 0: it cannot."""
    return 1 if _populate_on_demand(h, g, gfn, order) else 0


@routine
def allocating_lookup(h: HostState, g: DomainState, gfn: int) -> int:
    """T3: the frame at `gfn`, populated if need be; HOLE, CRASHED or NOT_RUNNING."""
    r = g.rec[0]
    if r.crashed or r.dying:
        return NOT_RUNNING
    r.generation += 1
    r.entry_ns = r.now_ns
    while True:
        kind = page_kind(h, g, gfn)
        if kind == EMPTY:
            return HOLE
        if kind == RAM:
            return frame_of(h, g, gfn >> 9, gfn & 511)
        order = 0
        if g.gib[gfn >> 18] == G_POD:
            order = 18
        elif g.blk[gfn >> 9, KIND] == POD:
            order = 9
        if demand_populate(h, g, gfn, order) == 0:
            return CRASHED
