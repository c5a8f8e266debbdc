"""The guest-to-machine table of a domain.

What        Entries of 4 KiB, 2 MiB and 1 GiB that are RAM, `pod` or empty; setting and splitting them as the table
            kind does [T1, T2], and looking at them without populating [T3].
Units       gfn and mfn in 4 KiB frames; i is a page within its block.
Invariants  A bit of RAM_ROW and of POD_ROW is never set for the same page. Records of blocks below a 1 GiB entry say
            the same as the entry. Where no page is RAM or promised, RAM_ROW or POD_ROW is ZEROS.
Departs     Tables above 512 GiB are not kept: they are taken to exist where a 1 GiB slot below them was ever set.
"""

import numpy as np

from podcluster.host.contents import contents_set_bits, contents_uniform, pattern_set, pattern_uniform
from podcluster.host.heap import U0, U1
from podcluster.host.kernel import kernel, routine
from podcluster.host.rows import detail_give, lay_frames, page_bit, row_fill, row_give, row_is, row_write
from podcluster.host.state import (
    ANY,
    BASE,
    BLOCK_PAGES,
    DETAIL,
    EMPTY,
    G_EMPTY,
    G_NONE,
    G_POD,
    G_RAM,
    G_TABLE,
    GIB_BLOCKS,
    GIB_PAGES,
    HEAD,
    KIND,
    ODD,
    ONES,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    SHADOW_MASK,
    TABLE,
    TABLE_CONFLICT,
    UP,
    ZEROS,
    DomainState,
    HostState,
)


@kernel
def page_kind(h: HostState, g: DomainState, gfn: int) -> int:
    """EMPTY, RAM or POD; never populates [T3]."""
    b = gfn >> 9
    if b >= g.rec[0].blocks:
        return EMPTY
    kind = int(g.blk[b, KIND])
    if kind != TABLE:
        return kind
    if page_bit(h, int(g.blk[b, RAM_ROW]), gfn & 511):
        return RAM
    if page_bit(h, int(g.blk[b, POD_ROW]), gfn & 511):
        return POD
    return EMPTY


@kernel
def entry_order(g: DomainState, gfn: int) -> int:
    """Order of the entry at `gfn`; for an empty slot that of the level where the walk ended [T4]."""
    top = g.rec[0].top_gfn
    if gfn > top:
        # Above everything ever mapped: the largest slot that begins above the highest gfn.
        for order in (27, 18, 9):
            if (gfn >> order) << order > top:
                return order
        return 0
    gi = gfn >> 18
    slot = g.gib[gi]
    if slot == G_TABLE:
        return 0 if g.blk[gfn >> 9, KIND] == TABLE else 9
    if slot == G_NONE:
        first = (gfn >> 27) << 9
        for other in range(first, min(first + 512, g.gib.shape[0])):
            if g.gib[other] != G_NONE:
                return 18
        return 27
    return 18


@routine
def _block_uniform(h: HostState, g: DomainState, b: int, kind: int, mfn: int) -> None:
    """Make block `b` one entry, or what lies below a 1 GiB entry; contents and attributes are the caller's."""
    row_give(h, g.blk[b, RAM_ROW])
    row_give(h, g.blk[b, POD_ROW])
    detail_give(h, g.blk[b, DETAIL])
    if kind != RAM:
        pattern_uniform(h, g, b, ZEROS)
    g.blk[b, DETAIL] = UP
    g.blk[b, KIND] = kind
    g.blk[b, BASE] = mfn
    g.blk[b, RAM_ROW] = ONES if kind == RAM else ZEROS
    g.blk[b, POD_ROW] = ONES if kind == POD else ZEROS


@routine
def open_gib(g: DomainState, b: int, small: bool) -> None:
    """Make room for an entry smaller than 1 GiB in block `b`, shattering what is there as the table kind does [T2]."""
    gi = b >> 9
    slot = g.gib[gi]
    if slot == G_TABLE:
        return
    g.gib[gi] = G_TABLE
    if small and g.rec[0].ept and (slot == G_POD or slot == G_RAM):
        for other in range(gi << 9, (gi << 9) + GIB_BLOCKS):
            g.blk[other, KIND] = TABLE  # rows and base say already which pages are what


@routine
def open_block(g: DomainState, b: int) -> None:
    """Make block `b` a table of 4 KiB entries; entries stay what they are [T2]."""
    open_gib(g, b, True)
    g.blk[b, KIND] = TABLE


@routine
def _settle(h: HostState, g: DomainState, b: int) -> None:
    """Give back what block `b` owns and needs no more: rows without a bit, and the frames of no RAM."""
    pod = int(g.blk[b, POD_ROW])
    if pod > ONES and row_is(h, pod, U0):
        row_give(h, pod)
        g.blk[b, POD_ROW] = ZEROS
    ram = int(g.blk[b, RAM_ROW])
    if ram > ONES and row_is(h, ram, U0):
        row_give(h, ram)
        g.blk[b, RAM_ROW] = ZEROS
        detail_give(h, int(g.blk[b, DETAIL]))
        g.blk[b, DETAIL] = UP
        if row_is(h, int(g.blk[b, HEAD]), U0) and row_is(h, int(g.blk[b, ANY]), U0):
            contents_uniform(h, g, b, ZEROS)


@routine
def set_pages(h: HostState, g: DomainState, gfn: int, count: int, kind: int, mfn: int) -> None:
    """Set `count` entries of 4 KiB inside one block; RAM on consecutive frames from `mfn` on.

    Promises are plain ones. RAM keeps what PATTERNED says: it is what a scrubbed promise turns into.
    """
    b = gfn >> 9
    open_block(g, b)
    if kind == RAM:
        lay_frames(h, g, b, gfn & 511, count, mfn, 1)
    _set_rows(h, g, b, gfn & 511, count, kind)


@routine
def set_pages_down(h: HostState, g: DomainState, gfn: int, count: int, mfn: int) -> None:
    """Set the `count` entries of 4 KiB inside one block from `gfn` downwards to RAM on frames from `mfn` upwards."""
    b = gfn >> 9
    i = (gfn & 511) - count + 1
    open_block(g, b)
    lay_frames(h, g, b, i, count, mfn + count - 1, -1)
    _set_rows(h, g, b, i, count, RAM)


@routine
def _set_rows(h: HostState, g: DomainState, b: int, i: int, count: int, kind: int) -> None:
    """Say that `count` pages of table `b` from page `i` on are of this kind, the frames of RAM being laid."""
    patterned = kind != RAM and int(g.blk[b, PATTERNED]) != ZEROS
    if count == BLOCK_PAGES:
        if patterned:
            pattern_uniform(h, g, b, ZEROS)
        row_give(h, g.blk[b, RAM_ROW])
        row_give(h, g.blk[b, POD_ROW])
        g.blk[b, RAM_ROW] = ONES if kind == RAM else ZEROS
        g.blk[b, POD_ROW] = ONES if kind == POD else ZEROS
        if kind != RAM:
            detail_give(h, g.blk[b, DETAIL])
            g.blk[b, DETAIL] = UP
    else:
        row_fill(h, g, b, RAM_ROW, i, count, kind == RAM)
        row_fill(h, g, b, POD_ROW, i, count, kind == POD)
        if patterned:
            row_fill(h, g, b, PATTERNED, i, count, False)
        _settle(h, g, b)
    g.rec[0].table_generation += 1


@routine
def table_conflict(g: DomainState) -> None:
    """R1: a 2 MiB entry was to be set where a table hangs. The guest is crashed once what it does is done."""
    r = g.rec[0]
    r.conflicts += 1
    r.irregular |= TABLE_CONFLICT


@routine
def set_block(h: HostState, g: DomainState, b: int, kind: int, mfn: int) -> bool:
    """Set one entry of 2 MiB, or 512 of 4 KiB where the domain may not use it [T1, T2]; False where it fails [R1]."""
    if g.rec[0].sp_2m == 0:
        set_pages(h, g, b << 9, BLOCK_PAGES, kind, mfn)
        return True
    if h.rec[0].fixed_tables and g.blk[b, KIND] == TABLE:
        table_conflict(g)
        return False
    open_gib(g, b, False)
    _block_uniform(h, g, b, kind, mfn)
    g.rec[0].table_generation += 1
    return True


@routine
def _set_gib(h: HostState, g: DomainState, gi: int, kind: int, mfn: int) -> None:
    """Set one entry of 1 GiB."""
    for k in range(GIB_BLOCKS):
        _block_uniform(h, g, (gi << 9) + k, kind, mfn + k * BLOCK_PAGES if kind == RAM else 0)
    g.gib[gi] = G_RAM if kind == RAM else (G_POD if kind == POD else G_EMPTY)
    g.rec[0].table_generation += 1


@routine
def set_range(h: HostState, g: DomainState, gfn: int, order: int, kind: int, mfn: int) -> bool:
    """Set 2**order pages to `kind`, cut from low to high into the largest entries that the domain may use [T2]; whether
    the last of them could be set. Fixed tables are emptied in 4 KiB pieces [R1].

    Contents and attributes of RAM that is replaced are the caller's: it has taken the frames before.
    """
    r = g.rec[0]
    todo = 1 << order
    is_set = True
    small = kind == EMPTY and h.rec[0].fixed_tables != 0
    if kind != EMPTY:
        r.top_gfn = max(r.top_gfn, gfn + todo - 1)
    ram_bits = mfn if kind == RAM else 0
    while todo > 0:
        fit = gfn | todo | ram_bits
        if r.sp_1g and fit & (GIB_PAGES - 1) == 0:
            _set_gib(h, g, gfn >> 18, kind, mfn)
            step = GIB_PAGES
        elif r.sp_2m and fit & (BLOCK_PAGES - 1) == 0 and not small:
            is_set = set_block(h, g, gfn >> 9, kind, mfn)
            step = BLOCK_PAGES
        else:
            step = min(todo, BLOCK_PAGES - (gfn & 511))
            set_pages(h, g, gfn, step, kind, mfn)
            is_set = True
        gfn += step
        mfn += step
        ram_bits = mfn if kind == RAM else 0
        todo -= step
    return is_set


@routine
def forget_mapping(h: HostState, g: DomainState, b: int, i: int, mfn: int) -> None:
    """The translation of a page changes: its shadow references are gone, its contents forgotten here."""
    h.attr[mfn] &= ~SHADOW_MASK
    contents_set_bits(h, g, b, i, False, False)
    pattern_set(h, g, b, i >> 6, U1 << np.uint64(i & 63), False)
    row_write(h, g, b, ODD, i >> 6, U1 << np.uint64(i & 63), False)


@routine
def mark_odd(h: HostState, g: DomainState, gfn: int) -> None:
    """The frame at `gfn` has attributes from now on."""
    row_write(h, g, gfn >> 9, ODD, (gfn & 511) >> 6, U1 << np.uint64(gfn & 63), True)
