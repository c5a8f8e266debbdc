"""Memory that a domain takes from the host and gives back.

What        Populate with RAM, P12 decrease reservation with stealing and superpage recovery, the ordinary release.
Units       Frames of 4 KiB; an extent of order k is 2**k of them.
Symbols     E entry_count   C cache_count   B ballooned_to
Time        [G6] hypercall_ns a request of the guest, and look_ns for each chunk that it gives back.
Invariants  [POD-2] E = B - P: what leaves the table leaves B. Giving back pays the debt E - C down, never below 0.
Departs     nowhere.
"""

import numpy as np

from podcluster.host.cache import cache_add_run, cache_add_super, set_cache_size
from podcluster.host.contents import contents_set_bits, pattern_set, stale_bits
from podcluster.host.frames import frame_loosen, frame_release, frames_take
from podcluster.host.heap import U1
from podcluster.host.kernel import kernel, outline, routine
from podcluster.host.p2m import entry_order, forget_mapping, mark_odd, page_kind, set_pages, set_range, table_conflict
from podcluster.host.pod import chunk_order, count_kind
from podcluster.host.reclaim import reclaim_super
from podcluster.host.rows import frame_of, page_bit
from podcluster.host.state import (
    ANY,
    BLOCK_PAGES,
    EMPTY,
    KIND,
    ODD,
    POD,
    RAM,
    RAM_ABOVE_TARGET,
    RAM_OVER_POD,
    SPECIAL,
    SPECIAL_PAGES,
    STALE,
    STALE_ANY,
    STALE_HEAD,
    TABLE,
    ZEROS,
    DomainState,
    HostState,
)

DONE = 1 << 40  # `decrease` ran to its end


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
        elif kind == POD:
            pattern_set(h, g, at >> 9, (at & 511) >> 6, U1 << np.uint64(at & 63), False)
            promised += 1 if order > chunk_order(gfn, order) else 0
    if promised:
        r.irregular |= RAM_OVER_POD
        if not h.rec[0].promises_stay:
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
    # R1: each piece of 2 MiB meets its own table or none.
    by_tables = h.rec[0].fixed_tables != 0 and order >= 9 and gfn & (BLOCK_PAGES - 1) == 0
    size = 9 if by_tables else order
    for k in range(0, 1 << order, 1 << size):
        if by_tables and g.blk[(gfn + k) >> 9, KIND] == TABLE:
            table_conflict(g)
            for frame in range(mfn + k, mfn + k + BLOCK_PAGES):
                frame_loosen(h, g, frame, h.attr[frame] & STALE)
            continue
        if range_is_empty(g, gfn + k, size):
            r.ballooned_to += 1 << size
        else:
            cover_range(h, g, gfn + k, size)
        map_host_frames(h, g, gfn + k, size, mfn + k)
    if r.target and r.tot_pages > r.target:
        r.irregular |= RAM_ABOVE_TARGET
    if r.conflicts:
        r.crashed = 1
    return 1


@kernel
def populate_seq(h: HostState, g: DomainState, start: int, count: int, order: int, step: int) -> int:
    """Populate extents `step` extents apart; how many were done."""
    for k in range(count):
        if populate(h, g, start + k * step * (1 << order), order) == 0:
            return k
    return count


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
    if h.rec[0].blind_checks:
        r.irregular |= SPECIAL_PAGES  # R7: nothing keeps it from being reclaimed or stolen
    map_host_frames(h, g, gfn, 0, mfn)
    h.attr[mfn] |= SPECIAL
    mark_odd(h, g, gfn)
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
        stale = stale_bits(h, g, b, i)
        if odd or stale:
            forget_mapping(h, g, b, i, mfn)
            if h.rec[0].keeps_contents:  # R2
                h.attr[mfn] |= stale
        set_pages(h, g, gfn, 1, EMPTY, 0)
        cache_add_run(h, g, mfn, 1, 1, (odd or stale != 0) and h.attr[mfn] != 0)
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
            if h.attr[mfn] & SPECIAL:
                g.rec[0].irregular |= SPECIAL_PAGES  # cached now, and still not in tot_pages
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
    r.now_ns += h.rec[0].look_ns
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


@routine
def _decrease_whole(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    """R10 on a whole extent: whether nothing is left in it for the ordinary release."""
    r = g.rec[0]
    r.now_ns += h.rec[0].look_ns
    if r.entry_count == 0 or r.dying:
        return False
    size = 1 << order
    pod = count_kind(h, g, gfn, order, POD)
    ram = count_kind(h, g, gfn, order, RAM)
    steal = r.entry_count > r.cache_count
    if pod == 0 and not steal:
        return False
    if pod == size:
        set_range(h, g, gfn, order, EMPTY, 0)
        r.entry_count -= size
        r.ballooned_to -= size
        return True
    left = size - pod
    at = gfn
    while at < gfn + size and (pod > 0 or (steal and ram > 0)):
        kind = page_kind(h, g, at)
        if kind == POD:
            set_pages(h, g, at, 1, EMPTY, 0)
            r.entry_count -= 1
            r.ballooned_to -= 1
            pod -= 1
        elif kind == RAM and steal:
            _steal(h, g, at, 0)
            r.ballooned_to -= 1
            ram -= 1
            left -= 1
            steal = r.entry_count > r.cache_count
        at += 1
    _free_surplus(h, g)
    return left == 0


@routine
def _release_whole(h: HostState, g: DomainState, gfn: int, order: int) -> bool:
    """R10: the ordinary release, frame by frame up to the first that is not mapped; whether there was none."""
    for at in range(gfn, gfn + (1 << order)):
        if page_kind(h, g, at) != RAM:
            return False
        release_page(h, g, at)
    return True


@outline
def decrease_extent(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """Give one extent back: pages that PoD handled (R10: 1 or 0), | DONE when the request ran to its end."""
    if h.rec[0].whole_extents:
        if _decrease_whole(h, g, gfn, order):
            return DONE | 1
        return DONE if _release_whole(h, g, gfn, order) else 0
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


@kernel
def decrease(h: HostState, g: DomainState, gfn: int, order: int) -> int:
    """Give one extent back in a hypercall of its own; as `decrease_extent`."""
    r = g.rec[0]
    r.generation += 1
    r.now_ns += h.rec[0].hypercall_ns
    return decrease_extent(h, g, gfn, order)
