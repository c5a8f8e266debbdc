"""The guest-to-machine table of a domain, and the contents of the pages it maps.

What        Entries of 4 KiB, 2 MiB and 1 GiB that are RAM, `pod` or empty; setting and splitting them as the table
            kind
            does [T1, T2], looking at them without populating [T3], and the two content bits of every page.
Units       gfn and mfn in 4 KiB frames; i is a page within its block, wi and m a word of a row and a mask in it.
Invariants  A bit of RAM_ROW and of POD_ROW is never set for the same page. HEAD is a subset of ANY is a subset of
            RAM_ROW.
            Records of blocks below a 1 GiB entry say the same as the entry.
Departs     Tables above 512 GiB are not kept: they are taken to exist where a 1 GiB slot below them was ever set.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.heap import ALL, U0, U1, span_mask
from podcluster.host.kernel import kernel, popcount, routine
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
    HEAD_WORDS,
    KIND,
    ODD,
    ONES,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    SHADOW_MASK,
    STALE_ANY,
    STALE_HEAD,
    TABLE,
    ZEROS,
    DomainState,
    HostState,
)

# ---- rows and frame lists
# -------------------------------------------------------------------------------------------


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
def detail_give(h: HostState, handle: int) -> None:
    """Give a list of frames back."""
    if handle:
        r = h.rec[0]
        h.detail[handle, 0] = r.detail_free
        r.detail_free = handle
        r.details_used -= 1


@routine
def _detail_make(h: HostState, base: int) -> int:
    """A list of the frames base, base + 1, ..."""
    r = h.rec[0]
    new = r.detail_free
    if new:
        r.detail_free = h.detail[new, 0]
    else:
        new = r.detail_top
        r.detail_top += 1
    r.details_used += 1
    for i in range(BLOCK_PAGES):
        h.detail[new, i] = base + i
    return int(new)


@routine
def frame_of(h: HostState, g: DomainState, b: int, i: int) -> int:
    """Frame behind RAM page `i` of block `b`."""
    handle = g.blk[b, DETAIL]
    if handle:
        return int(h.detail[handle, i])
    return int(g.blk[b, BASE]) + i


# ---- contents
# -------------------------------------------------------------------------------------------------------


@routine
def contents_set(h: HostState, g: DomainState, b: int, wi: int, m: np.uint64, data: bool) -> None:
    """The pages of mask `m` now hold data in their heads (and so in all), or zeroes."""
    head = int(g.blk[b, HEAD])
    both = head == g.blk[b, ANY]
    if data:
        if h.row[head, wi] & m != m:
            head = row_own(h, head)
            g.blk[b, HEAD] = head
            h.row[head, wi] |= m
        if both:
            g.blk[b, ANY] = head
            return
        any_row = int(g.blk[b, ANY])
        if h.row[any_row, wi] & m != m:
            any_row = row_own(h, any_row)
            g.blk[b, ANY] = any_row
            h.row[any_row, wi] |= m
    else:
        if h.row[head, wi] & m != U0:
            head = row_own(h, head)
            g.blk[b, HEAD] = head
            h.row[head, wi] &= ~m
        if both:
            g.blk[b, ANY] = head
            return
        any_row = int(g.blk[b, ANY])
        if h.row[any_row, wi] & m != U0:
            any_row = row_own(h, any_row)
            g.blk[b, ANY] = any_row
            h.row[any_row, wi] &= ~m


@routine
def contents_uniform(h: HostState, g: DomainState, b: int, row: int) -> None:
    """All pages of block `b` hold data (`row` ONES) or nothing but zeroes (ZEROS)."""
    head = g.blk[b, HEAD]
    any_row = g.blk[b, ANY]
    row_give(h, head)
    if any_row != head:
        row_give(h, any_row)
    g.blk[b, HEAD] = row
    g.blk[b, ANY] = row


@routine
def contents_set_bits(h: HostState, g: DomainState, b: int, i: int, any_bit: bool, head_bit: bool) -> None:
    """Set the two content bits of one page, which may differ from each other."""
    if any_bit == head_bit:
        contents_set(h, g, b, i >> 6, U1 << np.uint64(i & 63), any_bit)
        return
    # Only ANY: the two rows part company here.
    head = int(g.blk[b, HEAD])
    any_row = int(g.blk[b, ANY])
    if head == any_row and head > ONES:
        any_row = row_own(h, ZEROS)
        for wi in range(8):
            h.row[any_row, wi] = h.row[head, wi]
    else:
        any_row = row_own(h, any_row)
    g.blk[b, ANY] = any_row
    head = row_own(h, head)
    g.blk[b, HEAD] = head
    m = U1 << np.uint64(i & 63)
    h.row[any_row, i >> 6] |= m
    h.row[head, i >> 6] &= ~m


@routine
def page_bit(h: HostState, row: int, i: int) -> bool:
    """Bit `i` of `row`."""
    return bool((h.row[row, i >> 6] >> np.uint64(i & 63)) & U1 != U0)


# ---- words of pages (replay)
# ----------------------------------------------------------------------------------------


@routine
def words_clear(h: HostState, mfn: int) -> None:
    """Zero all words of a frame: what was kept of them belongs to an older generation."""
    if h.rec[0].words:
        h.page_words[mfn] = ((h.page_words[mfn] >> 32) + 1) << 32


@routine
def _word_slot(h: HostState, mfn: int, word: int) -> int:
    """Slot of a word in the hash: where it is, or the empty one where it would go."""
    size = h.words.shape[0]
    key = mfn * 512 + word + 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64(mixed >> np.uint64(20)) & (size - 1)
    while h.words[at, 0] != 0 and h.words[at, 0] != key:
        at = (at + 1) & (size - 1)
    return int(at)


@routine
def word_read(h: HostState, mfn: int, word: int) -> int:
    """Value of a word, as the int64 of the same bits."""
    at = _word_slot(h, mfn, word)
    if h.words[at, 0] != 0 and h.words[at, 1] == h.page_words[mfn] >> 32:
        return int(h.words[at, 2])
    return 0


@routine
def word_write(h: HostState, g: DomainState, gfn: int, mfn: int, word: int, value: int) -> None:
    """Write a word of the RAM page at `gfn` and keep its two content bits."""
    old = word_read(h, mfn, word)
    if old != value:
        at = _word_slot(h, mfn, word)
        if h.words[at, 0] == 0:
            h.words[at, 0] = mfn * 512 + word + 1
            h.rec[0].word_count += 1
        h.words[at, 1] = h.page_words[mfn] >> 32
        h.words[at, 2] = value
        change = (1 if old == 0 else 0) - (1 if value == 0 else 0)
        h.page_words[mfn] += change << 16
        if word < HEAD_WORDS:
            h.page_words[mfn] += change
    counts = h.page_words[mfn] & 0xFFFFFFFF
    contents_set_bits(h, g, gfn >> 9, gfn & 511, counts >> 16 != 0, counts & 0xFFFF != 0)


@kernel
def words_rehash(h: HostState, larger: npt.NDArray[np.int64]) -> None:
    """Move the words that still count into a larger hash, whose size is a power of two as well."""
    size = larger.shape[0]
    kept = 0
    for at in range(h.words.shape[0]):
        key = h.words[at, 0]
        if key == 0 or h.words[at, 1] != h.page_words[(key - 1) >> 9] >> 32:
            continue
        mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
        to = np.int64(mixed >> np.uint64(20)) & (size - 1)
        while larger[to, 0] != 0:
            to = (to + 1) & (size - 1)
        larger[to, 0] = key
        larger[to, 1] = h.words[at, 1]
        larger[to, 2] = h.words[at, 2]
        kept += 1
    h.rec[0].word_count = kept


# ---- looking
# --------------------------------------------------------------------------------------------------------


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


# ---- setting
# --------------------------------------------------------------------------------------------------------


@routine
def _block_clear(h: HostState, g: DomainState, b: int) -> None:
    """Give back everything that block `b` owns; its record is to be written anew."""
    row_give(h, g.blk[b, RAM_ROW])
    row_give(h, g.blk[b, POD_ROW])
    row_give(h, g.blk[b, ODD])
    detail_give(h, g.blk[b, DETAIL])
    g.blk[b, DETAIL] = 0
    g.blk[b, ODD] = ZEROS


@routine
def _block_uniform(h: HostState, g: DomainState, b: int, kind: int, mfn: int) -> None:
    """Make block `b` one entry, or what lies below a 1 GiB entry; contents and attributes are the caller's."""
    row_give(h, g.blk[b, RAM_ROW])
    row_give(h, g.blk[b, POD_ROW])
    detail_give(h, g.blk[b, DETAIL])
    g.blk[b, DETAIL] = 0
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
def set_pages(h: HostState, g: DomainState, gfn: int, count: int, kind: int, mfn: int) -> None:
    """Set `count` entries of 4 KiB inside one block; RAM on consecutive frames from `mfn` on."""
    b = gfn >> 9
    i = gfn & 511
    open_block(g, b)
    if kind == RAM:
        handle = int(g.blk[b, DETAIL])
        if handle == 0:
            base = mfn - i
            if base != g.blk[b, BASE]:
                if int(g.blk[b, RAM_ROW]) == ZEROS or row_is(h, int(g.blk[b, RAM_ROW]), U0):
                    g.blk[b, BASE] = base
                else:
                    handle = _detail_make(h, int(g.blk[b, BASE]))
                    g.blk[b, DETAIL] = handle
        if handle:
            for k in range(count):
                h.detail[handle, i + k] = mfn + k
    if count == BLOCK_PAGES:
        row_give(h, g.blk[b, RAM_ROW])
        row_give(h, g.blk[b, POD_ROW])
        g.blk[b, RAM_ROW] = ONES if kind == RAM else ZEROS
        g.blk[b, POD_ROW] = ONES if kind == POD else ZEROS
        if kind != RAM:
            detail_give(h, g.blk[b, DETAIL])
            g.blk[b, DETAIL] = 0
    else:
        ram_row = int(g.blk[b, RAM_ROW])
        pod_row = int(g.blk[b, POD_ROW])
        while count > 0:
            wi = i >> 6
            span = min(count, 64 - (i & 63))
            m = span_mask(i & 63, span)
            want = m if kind == RAM else U0
            if h.row[ram_row, wi] & m != want:
                ram_row = row_own(h, ram_row)
                h.row[ram_row, wi] = (h.row[ram_row, wi] & ~m) | want
            want = m if kind == POD else U0
            if h.row[pod_row, wi] & m != want:
                pod_row = row_own(h, pod_row)
                h.row[pod_row, wi] = (h.row[pod_row, wi] & ~m) | want
            i += span
            count -= span
        g.blk[b, RAM_ROW] = ram_row
        g.blk[b, POD_ROW] = pod_row
    g.rec[0].table_generation += 1


@routine
def set_block(h: HostState, g: DomainState, b: int, kind: int, mfn: int) -> None:
    """Set one entry of 2 MiB, or 512 of 4 KiB where the domain may not use it [T1, T2]."""
    if g.rec[0].sp_2m == 0:
        set_pages(h, g, b << 9, BLOCK_PAGES, kind, mfn)
        return
    open_gib(g, b, False)
    _block_uniform(h, g, b, kind, mfn)
    g.rec[0].table_generation += 1


@routine
def _set_gib(h: HostState, g: DomainState, gi: int, kind: int, mfn: int) -> None:
    """Set one entry of 1 GiB."""
    for k in range(GIB_BLOCKS):
        _block_uniform(h, g, (gi << 9) + k, kind, mfn + k * BLOCK_PAGES if kind == RAM else 0)
    g.gib[gi] = G_RAM if kind == RAM else (G_POD if kind == POD else G_EMPTY)
    g.rec[0].table_generation += 1


@routine
def set_range(h: HostState, g: DomainState, gfn: int, order: int, kind: int, mfn: int) -> None:
    """Set 2**order pages to `kind`, cut from low to high into the largest entries that the domain may use [T2].

    Contents and attributes of RAM that is replaced are the caller's: it has taken the frames before.
    """
    r = g.rec[0]
    todo = 1 << order
    if kind != EMPTY:
        r.top_gfn = max(r.top_gfn, gfn + todo - 1)
    ram_bits = mfn if kind == RAM else 0
    while todo > 0:
        fit = gfn | todo | ram_bits
        if r.sp_1g and fit & (GIB_PAGES - 1) == 0:
            _set_gib(h, g, gfn >> 18, kind, mfn)
            step = GIB_PAGES
        elif r.sp_2m and fit & (BLOCK_PAGES - 1) == 0:
            set_block(h, g, gfn >> 9, kind, mfn)
            step = BLOCK_PAGES
        else:
            step = min(todo, BLOCK_PAGES - (gfn & 511))
            set_pages(h, g, gfn, step, kind, mfn)
        gfn += step
        mfn += step
        ram_bits = mfn if kind == RAM else 0
        todo -= step


# ---- taking RAM out
# -------------------------------------------------------------------------------------------------


@routine
def forget_mapping(h: HostState, g: DomainState, b: int, i: int, mfn: int) -> None:
    """The translation of a page changes: its shadow references are gone, its contents forgotten here."""
    h.attr[mfn] &= ~SHADOW_MASK
    contents_set_bits(h, g, b, i, False, False)
    odd = int(g.blk[b, ODD])
    if page_bit(h, odd, i):
        odd = row_own(h, odd)
        h.row[odd, i >> 6] &= ~(U1 << np.uint64(i & 63))
        g.blk[b, ODD] = odd


@routine
def stale_bits(h: HostState, g: DomainState, b: int, i: int) -> int:
    """Contents of a page as the attribute bits of a frame that is not mapped."""
    bits = 0
    if page_bit(h, int(g.blk[b, ANY]), i):
        bits |= STALE_ANY
    if page_bit(h, int(g.blk[b, HEAD]), i):
        bits |= STALE_HEAD
    return bits


@routine
def mark_odd(h: HostState, g: DomainState, gfn: int) -> None:
    """The frame at `gfn` has attributes from now on."""
    b = gfn >> 9
    odd = row_own(h, int(g.blk[b, ODD]))
    h.row[odd, (gfn & 511) >> 6] |= U1 << np.uint64(gfn & 63)
    g.blk[b, ODD] = odd
