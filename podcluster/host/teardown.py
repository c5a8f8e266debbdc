"""The end of a domain, and of single frames; references and flags that stand in the way of both.

What        P14 destruction, P13 offlined frames, extra and shadow references, special pages and page tables.
Units       Frames of 4 KiB.
Invariants  Once the domain is dying nothing populates any more; every frame goes home but those that others refer to.
Departs     nowhere.
"""

from podcluster.host.cache import cache_add_run, cache_empty
from podcluster.host.contents import contents_uniform, pattern_uniform
from podcluster.host.frames import clear_fresh, frame_home, frame_release, frames_take, run_release
from podcluster.host.heap import ALL, U0
from podcluster.host.kernel import kernel, routine
from podcluster.host.lists import list_pop, list_push
from podcluster.host.p2m import forget_mapping, mark_odd, page_kind
from podcluster.host.rows import detail_give, frame_of, frame_run, next_page, row_give
from podcluster.host.state import (
    BASE,
    BLOCK_PAGES,
    DETAIL,
    DROPPED,
    EMPTY,
    EXTRA_REFERENCES,
    G_EMPTY,
    G_NONE,
    KIND,
    L_LENGTH,
    LOOSE,
    LOOSE_LIST,
    ODD,
    POD_ROW,
    RAM,
    RAM_ROW,
    REF_MASK,
    REF_ONE,
    RETIRED,
    SHADOW_ONE,
    SINGLE,
    SPECIAL,
    SPECIAL_PAGES,
    STALE,
    SUPER,
    TABLE,
    TYPE_ONE,
    UP,
    ZEROS,
    DomainState,
    HostState,
)


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
        pattern_uniform(h, g, b, ZEROS)
        detail_give(h, int(g.blk[b, DETAIL]))
        g.blk[b, KIND] = EMPTY
        g.blk[b, RAM_ROW] = ZEROS
        g.blk[b, POD_ROW] = ZEROS
        g.blk[b, ODD] = ZEROS
        g.blk[b, DETAIL] = UP
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
    row = int(g.blk[b, RAM_ROW])
    i = next_page(h, row, 0, BLOCK_PAGES, 1, U0)
    if int(g.blk[b, ODD]) != ZEROS or g.rec[0].conflicts:
        while i < BLOCK_PAGES:
            mfn = frame_of(h, g, b, i)
            forget_mapping(h, g, b, i, mfn)
            frame_release(h, g, mfn, 0)
            i = next_page(h, row, i + 1, BLOCK_PAGES, 1, U0)
        return
    while i < BLOCK_PAGES:
        # The host does not mind the order.
        end = next_page(h, row, i, BLOCK_PAGES, 1, ALL)
        while i < end:
            mfn = frame_of(h, g, b, i)
            signed = frame_run(h, g, b, i, end - i, 1)
            run = abs(signed)
            run_release(h, g, mfn if signed > 0 else mfn - run + 1, run)
            i += run
        i = next_page(h, row, i, BLOCK_PAGES, 1, U0)


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
        cache_add_run(h, g, fresh, 1, 1, clear_fresh(h, fresh, 1))
    return 1


@kernel
def add_ref(h: HostState, g: DomainState, gfn: int, typed: bool) -> int:
    """One more reference on the page at `gfn`: its frame, or -1. `typed`: it counts as a use of the frame's type."""
    if page_kind(h, g, gfn) != RAM:
        return -1
    mfn = frame_of(h, g, gfn >> 9, gfn & 511)
    h.attr[mfn] += REF_ONE + (TYPE_ONE if typed else 0)
    mark_odd(h, g, gfn)
    g.rec[0].irregular |= EXTRA_REFERENCES
    return mfn


@kernel
def drop_ref(h: HostState, g: DomainState, mfn: int, typed: bool) -> None:
    """Drop an extra reference on a frame of domain `g`; the last one sends a page home that nothing else holds."""
    r = g.rec[0]
    r.generation += 1
    h.attr[mfn] -= REF_ONE + (TYPE_ONE if typed else 0)
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
