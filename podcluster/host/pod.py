"""Populate-on-demand of one domain: marking, populating, setting the target, giving memory back.

What        P4 set target, P5 mark, P6 demand-populate, P7 recent list, P12 decrease reservation, P13 offlined frames,
            P14 destruction.
Units       Frames of 4 KiB; an extent of order k is 2**k of them.
Symbols     E entry_count   C cache_count   tot tot_pages   P populated = tot - C   B ballooned_to   T target   M
            maxmem
Invariants  [POD-1] 0 <= P <= T <= B <= M   [POD-2] E = B - P   [POD-3] tot = P + C, in a regular life (pod.md); what
            breaks
            one of them says so in `rec.irregular`. Debt E - C moves only in `decrease_chunk` (P12), `set_target` (P4)
            and
            where RAM is put over `pod` entries.
Departs     nowhere.
"""

import numpy as np

from podcluster.host.cache import (
    INTERRUPTED,
    cache_add_run,
    cache_add_super,
    cache_empty,
    cache_get_single,
    cache_get_super,
    frame_home,
    frame_loosen,
    frame_release,
    frames_take,
    list_pop,
    list_push,
    run_release,
    set_cache_size,
)
from podcluster.host.heap import U0, U1
from podcluster.host.kernel import ctz, kernel, routine
from podcluster.host.p2m import (
    contents_set_bits,
    contents_uniform,
    detail_give,
    entry_order,
    forget_mapping,
    frame_of,
    mark_odd,
    page_bit,
    page_kind,
    row_count,
    row_give,
    set_block,
    set_pages,
    set_range,
    stale_bits,
)
from podcluster.host.reclaim import eager_reclaim, emergency_sweep, reclaim_super
from podcluster.host.state import (
    ANY,
    BASE,
    BLOCK_PAGES,
    DETAIL,
    DROPPED,
    EBUSY,
    EINVAL,
    EMPTY,
    ENOMEM,
    EXTRA_REFERENCES,
    G_EMPTY,
    G_NONE,
    G_POD,
    KIND,
    L_LENGTH,
    LOOSE,
    LOOSE_LIST,
    ODD,
    POD,
    POD_ROW,
    RAM,
    RAM_ABOVE_TARGET,
    RAM_OVER_POD,
    RAM_ROW,
    REF_MASK,
    REF_ONE,
    RETIRED,
    RING_SLOTS,
    RING_SUPER,
    SHADOW_ONE,
    SINGLE,
    SPECIAL,
    SPECIAL_PAGES,
    STALE,
    STALE_ANY,
    STALE_HEAD,
    SUPER,
    TABLE,
    TARGET_LOWERED,
    ZEROS,
    DomainState,
    HostState,
)

HOLE = -1
CRASHED = -2
NOT_RUNNING = -3
DONE = 1 << 40  # `decrease` ran to its end


# ---- counting
# -------------------------------------------------------------------------------------------------------


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
                row = int(g.blk[b, RAM_ROW if kind == RAM else POD_ROW])
                for k in range(i, i + here):
                    if page_bit(h, row, k):
                        total += 1
        gfn += here
    return total


@routine
def chunk_order(gfn: int, order: int) -> int:
    """Order of the equal chunks that an extent is cut into (P5, P12)."""
    return min(ctz(np.uint64(gfn | (1 << order))), order)


# ---- P4, P5
# ---------------------------------------------------------------------------------------------------------


@kernel
def set_target(h: HostState, g: DomainState, pages: int) -> int:
    """P4: 0, EINVAL or ENOMEM; continued until done."""
    r = g.rec[0]
    r.generation += 1
    if pages > r.max_pages:
        return EINVAL
    if pages < r.target:
        r.irregular |= TARGET_LOWERED
    r.target = pages
    while True:
        populated = r.tot_pages - r.cache_count
        if (populated > 0 and r.entry_count == 0) or r.dying or pages < r.tot_pages:
            return 0
        wanted = pages - populated
        if populated > 0:
            wanted = min(wanted, r.entry_count)
        if wanted < r.cache_count:
            r.asserted = 1
        result = set_cache_size(h, g, wanted, True)
        if result != INTERRUPTED:
            return result


@kernel
def mark_pod(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """P5: 0 or EBUSY; chunks before the failing one stay."""
    r = g.rec[0]
    r.generation += 1
    size = chunk_order(gfn, order)
    for at in range(gfn, gfn + (1 << order), 1 << size):
        if count_kind(h, g, at, size, RAM) > 0:
            return EBUSY
        fresh = (1 << size) - count_kind(h, g, at, size, POD)
        set_range(h, g, at, size, POD, 0)
        r.entry_count += fresh
        r.ballooned_to += fresh
    return 0


# ---- P6, P7
# ---------------------------------------------------------------------------------------------------------


@routine
def remember(g: DomainState, record: int) -> None:
    """P7: put a record into the ring."""
    r = g.rec[0]
    g.ring[r.mrp_idx] = record
    r.mrp_idx = (r.mrp_idx + 1) & (RING_SLOTS - 1)


@routine
def _mark_odd_frames(h: HostState, g: DomainState, gfn: int, mfn: int, count: int) -> None:
    """Frames that come from a cache with attributed ones keep their attributes."""
    for k in range(count):
        if h.attr[mfn + k]:
            mark_odd(h, g, gfn + k)
            g.rec[0].odd_cached -= 1


@routine
def out_of_memory(g: DomainState) -> None:
    """P6 step 5: the domain crashes; the numbers that Xen logs are kept."""
    r = g.rec[0]
    r.crashed = 1
    r.oom = 1
    r.oom_tot = r.tot_pages
    r.oom_entries = r.entry_count


@routine
def make_room(h: HostState, g: DomainState, gfn: int) -> bool:
    """P6 steps 3 to 6: reclaim as the rules say; False when the domain is out of PoD memory."""
    r = g.rec[0]
    if r.entry_count > r.cache_count:
        eager_reclaim(h, g)
    if r.cache_count == 0:
        emergency_sweep(h, g)
        if r.cache_count == 0:
            out_of_memory(g)
            return False
    r.max_guest = max(r.max_guest, gfn)
    return True


@routine
def demand_populate(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    """P6: back the `pod` entry of `order` at `gfn`, or make it smaller; the access then looks again."""
    r = g.rec[0]
    if r.dying:
        return False
    if order == 18:
        set_range(h, g, (gfn >> 18) << 18, 9, POD, 0)
        return True
    if not make_room(h, g, gfn):
        return False
    if order == 9:
        first = (gfn >> 9) << 9
        mfn = cache_get_super(h, g)
        if mfn < 0:
            set_pages(h, g, first, BLOCK_PAGES, POD, 0)
            r.splintered_2m += 1
            return True
        set_block(h, g, gfn >> 9, RAM, mfn)
        if r.odd_cached:
            _mark_odd_frames(h, g, first, mfn, BLOCK_PAGES)
        r.entry_count -= BLOCK_PAGES
        r.populated_2m += 1
        remember(g, first | RING_SUPER)
        return True
    mfn = cache_get_single(h, g)
    set_pages(h, g, gfn, 1, RAM, mfn)
    if r.odd_cached:
        _mark_odd_frames(h, g, gfn, mfn, 1)
    r.entry_count -= 1
    r.populated_4k += 1
    remember(g, gfn)
    return True


@routine
def allocating_lookup(h: HostState, g: DomainState, gfn: int) -> int:
    """T3: the frame at `gfn`, populated if need be; HOLE, CRASHED or NOT_RUNNING."""
    r = g.rec[0]
    if r.crashed or r.dying:
        return NOT_RUNNING
    r.generation += 1
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
        if not demand_populate(h, g, gfn, order):
            return CRASHED


# ---- RAM in and out of the table, one page at a time
# -----------------------------------------------------------------


@routine
def map_host_frames(h: HostState, g: DomainState, gfn: int, order: int, mfn: int) -> None:
    """Map frames fresh from the host as RAM; they show what an earlier owner left in them."""
    set_range(h, g, gfn, order, RAM, mfn)
    if h.rec[0].scrub_on_free:
        return
    for k in range(1 << order):
        a = h.attr[mfn + k]
        if a & STALE:
            h.attr[mfn + k] = a & ~STALE
            contents_set_bits(h, g, (gfn + k) >> 9, (gfn + k) & 511, a & STALE_ANY != 0, a & STALE_HEAD != 0)


@routine
def cover_range(h: HostState, g: DomainState, gfn: int, order: int) -> None:
    """What a populate replaces: `pod` entries leave E, RAM stays owned but unmapped."""
    r = g.rec[0]
    promised = count_kind(h, g, gfn, order, POD) if order <= chunk_order(gfn, order) else 0
    backed = 0
    for at in range(gfn, gfn + (1 << order)):
        kind = page_kind(h, g, at)
        if kind == RAM:
            backed += 1
            mfn = frame_of(h, g, at >> 9, at & 511)
            stale = stale_bits(h, g, at >> 9, at & 511)
            forget_mapping(h, g, at >> 9, at & 511, mfn)
            frame_loosen(h, g, mfn, stale)
        elif kind == POD and order > chunk_order(gfn, order):
            promised += 1
    if promised:
        r.irregular |= RAM_OVER_POD
        r.entry_count -= promised
    r.ballooned_to += (1 << order) - promised - backed


@routine
def range_is_empty(g: DomainState, gfn: int, order: int) -> bool:
    """Whether an extent lies in blocks that have nothing mapped, by their kind."""
    for b in range(gfn >> 9, (gfn + (1 << order) + 511) >> 9):
        if g.blk[b, KIND] != EMPTY:
            return False
    return True


@kernel
def populate(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """Allocate an extent from the host and map it as RAM: 1, or 0 when the allocation failed."""
    r = g.rec[0]
    r.generation += 1
    mfn = frames_take(h, g, order, True)
    if mfn < 0:
        return 0
    if range_is_empty(g, gfn, order):
        r.ballooned_to += 1 << order
    else:
        cover_range(h, g, gfn, order)
    if r.target and r.tot_pages > r.target:
        r.irregular |= RAM_ABOVE_TARGET
    map_host_frames(h, g, gfn, order, mfn)
    return 1


@kernel
def populate_special(h: HostState, g: DomainState, gfn: int) -> int:
    """One special page: owned, not counted, outside the quota."""
    r = g.rec[0]
    r.generation += 1
    mfn = frames_take(h, g, 0, False)
    if mfn < 0:
        return 0
    cover_range(h, g, gfn, 0)
    r.ballooned_to -= 1
    map_host_frames(h, g, gfn, 0, mfn)
    h.attr[mfn] |= SPECIAL
    mark_odd(h, g, gfn)
    r.irregular |= SPECIAL_PAGES
    return 1


@routine
def release_page(h: HostState, g: DomainState, gfn: int) -> None:
    """Unmap the RAM page at `gfn` the ordinary way and drop its allocation reference."""
    b = gfn >> 9
    i = gfn & 511
    mfn = frame_of(h, g, b, i)
    stale = stale_bits(h, g, b, i)
    special = h.attr[mfn] & SPECIAL
    forget_mapping(h, g, b, i, mfn)
    set_pages(h, g, gfn, 1, EMPTY, 0)
    frame_release(h, g, mfn, stale)
    if not special:
        g.rec[0].ballooned_to -= 1


# ---- P12
# ------------------------------------------------------------------------------------------------------------


@routine
def _free_surplus(h: HostState, g: DomainState) -> None:
    """P12 step 7: cached frames that no entry can ask for go to the host, not preemptible."""
    r = g.rec[0]
    if r.entry_count < r.cache_count:
        set_cache_size(h, g, r.entry_count, False)


@routine
def _is_special(h: HostState, g: DomainState, gfn: int) -> bool:
    b = gfn >> 9
    i = gfn & 511
    return page_bit(h, int(g.blk[b, ODD]), i) and h.attr[frame_of(h, g, b, i)] & SPECIAL != 0


@routine
def _count_special(h: HostState, g: DomainState, gfn: int, count: int) -> int:
    """Special RAM pages in an extent."""
    special = 0
    end = gfn + count
    while gfn < end:
        here = min(end, ((gfn >> 9) + 1) << 9)
        if int(g.blk[gfn >> 9, ODD]) != ZEROS:
            for at in range(gfn, here):
                if page_kind(h, g, at) == RAM and _is_special(h, g, at):
                    special += 1
        gfn = here
    return special


@routine
def _steal(h: HostState, g: DomainState, gfn: int, order: int) -> None:
    """P12 step 6: RAM goes to the cache instead of the host, at its own order."""
    b = gfn >> 9
    i = gfn & 511
    if order == 0:
        mfn = frame_of(h, g, b, i)
        odd = page_bit(h, int(g.blk[b, ODD]), i)
        if odd or page_bit(h, int(g.blk[b, ANY]), i):
            forget_mapping(h, g, b, i, mfn)
        set_pages(h, g, gfn, 1, EMPTY, 0)
        cache_add_run(h, g, mfn, 1, 1, odd and h.attr[mfn] != 0)
        return
    single = order < 9
    first = frame_of(h, g, b, i)
    for at in range(gfn, gfn + (1 << order)):
        mfn = frame_of(h, g, at >> 9, at & 511)
        odd = page_bit(h, int(g.blk[at >> 9, ODD]), at & 511)
        if odd or page_bit(h, int(g.blk[at >> 9, ANY]), at & 511):
            forget_mapping(h, g, at >> 9, at & 511, mfn)
        if odd and h.attr[mfn]:
            g.rec[0].odd_cached += 1
    set_range(h, g, gfn, order, EMPTY, 0)
    if single:
        cache_add_run(h, g, first, 1 << order, 1, False)
    else:
        for k in range(1 << (order - 9)):
            cache_add_super(h, g, first + k * BLOCK_PAGES, False)


@routine
def decrease_chunk(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """P12 on one aligned chunk: the pages that the PoD layer handled."""
    r = g.rec[0]
    if r.entry_count == 0 or r.dying:
        return 0
    size = 1 << order
    pod = count_kind(h, g, gfn, order, POD)
    ram = count_kind(h, g, gfn, order, RAM)
    if ram:
        ram -= _count_special(h, g, gfn, size)
    steal = r.entry_count > r.cache_count
    if pod == 0 and not steal:
        return 0
    handled = 0
    if steal and order < 9 and ram == size and reclaim_super(h, g, (gfn >> 9) << 9):
        pod = size
        ram = 0
    if pod == size:
        set_range(h, g, gfn, order, EMPTY, 0)
        r.entry_count -= size
        r.ballooned_to -= size
        handled = size
    else:
        at = gfn
        while at < gfn + size and (pod > 0 or (steal and ram > 0)):
            kind = page_kind(h, g, at)
            k = min(order, entry_order(g, at))
            step = 1 << k
            if kind == POD:
                set_range(h, g, at, k, EMPTY, 0)
                r.entry_count -= step
                r.ballooned_to -= step
                pod -= step
                handled += step
            elif kind == RAM and steal and not _is_special(h, g, at):
                _steal(h, g, at, k)
                r.ballooned_to -= step
                ram -= step
                handled += step
                steal = r.entry_count > r.cache_count
            at += step
    _free_surplus(h, g)
    return handled


@kernel
def decrease(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """Give one extent back: pages that PoD handled, | DONE when the request ran to its end."""
    g.rec[0].generation += 1
    size = chunk_order(gfn, order)
    handled = 0
    for at in range(gfn, gfn + (1 << order), 1 << size):
        handled += decrease_chunk(h, g, at, size)
    tolerated = handled
    j = 0
    while j + tolerated < 1 << order:
        kind = page_kind(h, g, gfn + j)
        if kind == RAM:
            release_page(h, g, gfn + j)
        elif kind == POD or tolerated == 0:
            return handled
        else:
            tolerated -= 1
        j += 1
    return handled | DONE


# ---- P13, P14, references and flags
# ----------------------------------------------------------------------------------


@kernel
def offline(h: HostState, g: DomainState, which: int, index: int, sub: int) -> int:
    """P13: a broken frame leaves the cache; 1, or -1 when there is no such entry or something refers to the frame."""
    r = g.rec[0]
    if index >= g.lists[which, L_LENGTH]:
        return -1
    # Turn the list once around; the entry is taken out on the way, unless the frame is held.
    entries = g.lists[which, L_LENGTH]
    broken = -1
    held = False
    for k in range(entries):
        entry = list_pop(h, g, which)
        if k == index:
            broken = (entry << 9) + sub if which == SUPER else entry
            held = h.attr[broken] & REF_MASK != 0
            if not held:
                continue
        list_push(h, g, which, entry, 1, 1)
    if held:
        return -1
    r.generation += 1
    if which == SUPER:
        first = broken - sub
        for k in range(BLOCK_PAGES):
            if k != sub:
                list_push(h, g, SINGLE, first + k, 1, 1)
    r.cache_count -= 1
    if not h.attr[broken] & SPECIAL:
        r.tot_pages -= 1
    h.attr[broken] = RETIRED
    h.rec[0].loose += 1
    fresh = frames_take(h, g, 0, True)
    if fresh >= 0:
        h.attr[fresh] = 0
        cache_add_run(h, g, fresh, 1, 1, False)
    return 1


@kernel
def destroy(h: HostState, g: DomainState) -> None:
    """P14: everything goes back to the host but frames that others refer to; the table ends empty."""
    r = g.rec[0]
    r.dying = 1
    r.generation += 1
    r.table_generation += 1
    h.rec[0].claims -= r.claim
    r.claim = 0
    cache_empty(h, g)
    for b in range(r.blocks):
        kind = g.blk[b, KIND]
        if kind == RAM or kind == TABLE:
            _release_block(h, g, b)
        row_give(h, int(g.blk[b, RAM_ROW]))
        row_give(h, int(g.blk[b, POD_ROW]))
        row_give(h, int(g.blk[b, ODD]))
        contents_uniform(h, g, b, ZEROS)
        detail_give(h, int(g.blk[b, DETAIL]))
        g.blk[b, KIND] = EMPTY
        g.blk[b, RAM_ROW] = ZEROS
        g.blk[b, POD_ROW] = ZEROS
        g.blk[b, ODD] = ZEROS
        g.blk[b, DETAIL] = 0
        g.blk[b, BASE] = 0
    for gi in range(g.gib.shape[0]):
        if g.gib[gi] != G_NONE:
            g.gib[gi] = G_EMPTY
    while g.lists[LOOSE_LIST, L_LENGTH] > 0:
        mfn = list_pop(h, g, LOOSE_LIST)
        h.rec[0].loose -= 1
        if not h.attr[mfn] & SPECIAL:
            r.loose -= 1
        h.attr[mfn] &= ~LOOSE
        frame_release(h, g, mfn, 0)


@routine
def _release_block(h: HostState, g: DomainState, b: int) -> None:
    """Release the RAM of one block of a dying domain."""
    odd = int(g.blk[b, ODD])
    row = int(g.blk[b, RAM_ROW])
    ordered = g.blk[b, DETAIL] == 0
    for wi in range(8):
        left = h.row[row, wi]
        if odd == ZEROS and ordered:
            while left != U0:
                first = ctz(left)
                run = ctz(~(left >> np.uint64(first)))
                run = min(run, 64 - first)
                run_release(h, g, int(g.blk[b, BASE]) + 64 * wi + first, run)
                if first + run == 64:
                    left = U0
                else:
                    left &= ~((U1 << np.uint64(first + run)) - U1)
            continue
        while left != U0:
            i = 64 * wi + ctz(left)
            left &= left - U1
            mfn = frame_of(h, g, b, i)
            forget_mapping(h, g, b, i, mfn)
            frame_release(h, g, mfn, 0)


@kernel
def add_ref(h: HostState, g: DomainState, gfn: int) -> int:
    """One more reference on the page at `gfn`: its frame, or -1."""
    if page_kind(h, g, gfn) != RAM:
        return -1
    mfn = frame_of(h, g, gfn >> 9, gfn & 511)
    h.attr[mfn] += REF_ONE
    mark_odd(h, g, gfn)
    g.rec[0].irregular |= EXTRA_REFERENCES
    return mfn


@kernel
def drop_ref(h: HostState, g: DomainState, mfn: int) -> None:
    """Drop an extra reference on a frame of domain `g`; the last one sends a page home that nothing else holds."""
    r = g.rec[0]
    r.generation += 1
    h.attr[mfn] -= REF_ONE
    a = h.attr[mfn]
    if a & (REF_MASK | DROPPED) == DROPPED:
        if not a & SPECIAL:
            r.tot_pages -= 1
            r.loose -= 1
        h.rec[0].loose -= 1
        frame_home(h, mfn, a & STALE, r.dying != 0)


@kernel
def shadow_ref(h: HostState, g: DomainState, gfn: int) -> int:
    """One more reference held by a shadow mapping of the page at `gfn`: 0, or -1."""
    if g.rec[0].shadow == 0 or page_kind(h, g, gfn) != RAM:
        return -1
    h.attr[frame_of(h, g, gfn >> 9, gfn & 511)] += SHADOW_ONE
    mark_odd(h, g, gfn)
    g.rec[0].irregular |= EXTRA_REFERENCES
    return 0


@kernel
def set_flag(h: HostState, g: DomainState, gfn: int, flag: int, on: bool) -> int:
    """Set or clear SPECIAL or SHADOWED_PT of the page at `gfn`: 0, 1 if already so, -1 if not RAM."""
    r = g.rec[0]
    if page_kind(h, g, gfn) != RAM:
        return -1
    mfn = frame_of(h, g, gfn >> 9, gfn & 511)
    if (h.attr[mfn] & flag != 0) == on:
        return 1
    r.generation += 1
    if on:
        h.attr[mfn] |= flag
        mark_odd(h, g, gfn)
    else:
        h.attr[mfn] &= ~flag
    if flag == SPECIAL:
        r.irregular |= SPECIAL_PAGES
        change = -1 if on else 1
        r.tot_pages += change
        r.ballooned_to += change
    return 0


@kernel
def claim(h: HostState, g: DomainState, pages: int) -> int:
    """H2: stake a claim on a final size of `pages`; 0 cancels. 0, EINVAL or ENOMEM."""
    r = g.rec[0]
    hr = h.rec[0]
    if pages == 0:
        hr.claims -= r.claim
        r.claim = 0
        return 0
    if r.claim > 0 or pages <= r.tot_pages or pages > r.max_pages or r.dying:
        return EINVAL
    if pages - r.tot_pages > hr.free - hr.claims:
        return ENOMEM
    r.claim = pages - r.tot_pages
    hr.claims += r.claim
    return 0
