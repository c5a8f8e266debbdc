"""Whole blocks of 2 MiB in one step, where that is all there is to them.

What        Populating `pod` entries of 2 MiB that are then written, one after another; populating one in debt; and a
            balloon that scrubs a block and gives it back.
Units       Pages of 4 KiB; b is a block of 2 MiB; `step` is 1 (upwards) or -1 (downwards).
Symbols     E entry_count   C cache_count   D = E - C debt
Time        [G6] as page by page.
Why exact   Without debt a populate of 2 MiB reclaims nothing (P6 step 3) and cannot run dry (C >= E > 0): a stretch of
            them is a run off the cache list. In debt P8 looks at one record, and what it looks at here is nothing, a
            page, what the guest has given back since, or a whole block of data or of zeroes: its outcome is plain.
            A block that is zeroed and given back page by page in debt is taken back whole by its first page (P12 step
            5, P9), its frames go to the tail, and all that then goes are 512 promises: while D >= 512 no surplus comes
            of it.
Departs     nowhere: tests/host/test_ranges.py and test_balloon_runs.py drive both.
"""

from podcluster.host.heap import ALL
from podcluster.host.kernel import routine
from podcluster.host.lists import list_drop, list_head, list_head_signed, list_pop, list_push, list_turn
from podcluster.host.reclaim import look_at_page
from podcluster.host.rows import row_is
from podcluster.host.state import (
    ANY,
    BASE,
    BLOCK_PAGES,
    EMPTY,
    G_TABLE,
    HEAD,
    KIND,
    L_LENGTH,
    ODD,
    ONES,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_ROW,
    RECENT_ALWAYS,
    RECENT_IN_DEBT,
    RING_EMPTY,
    RING_SUPER,
    SUPER,
    TABLE,
    ZEROS,
    DomainState,
    HostState,
)
from podcluster.host.written import PATTERN, ZERO


@routine
def populates_are_plain(h: HostState, g: DomainState) -> bool:
    """Whether populates from here on take from the cache and do nothing else, as long as there is no debt."""
    r = g.rec[0]
    hr = h.rec[0]
    if hr.recent == RECENT_ALWAYS or hr.early_sweeps:
        return False
    return bool(r.entry_count <= r.cache_count and r.odd_cached == 0)


@routine
def populate_supers(h: HostState, g: DomainState, b: int, blocks: int, step: int, content: int) -> int:
    """Populate up to `blocks` whole `pod` entries of 2 MiB from block `b` on, without debt; how many it did."""
    r = g.rec[0]
    done = 0
    idx = r.mrp_idx
    records = h.rec[0].recent >= RECENT_IN_DEBT
    offset = 0 if step > 0 else BLOCK_PAGES - 1
    contents = ONES if content != ZERO else ZEROS
    pattern = ONES if content == PATTERN else ZEROS
    while done < blocks and g.lists[SUPER, L_LENGTH] > 0:
        first = list_head(h, g, SUPER)
        signed = list_head_signed(h, g, SUPER)
        direction = 1 if signed > 0 else -1
        run = min(abs(signed), blocks - done)
        used = 0
        while used < run and g.blk[b, KIND] == POD and g.gib[b >> 9] == G_TABLE and int(g.blk[b, PATTERNED]) == ZEROS:
            g.blk[b, KIND] = RAM
            g.blk[b, BASE] = (first + direction * used) << 9
            g.blk[b, RAM_ROW] = ONES
            g.blk[b, POD_ROW] = ZEROS
            g.blk[b, HEAD] = contents
            g.blk[b, ANY] = contents
            g.blk[b, PATTERNED] = pattern
            if records:
                g.ring[idx] = (b << 9) | RING_SUPER
                idx = (idx + 1) & (g.ring.shape[0] - 1)
            used += 1
            b += step
        if used == 0:
            break
        list_drop(h, g, SUPER, used)
        done += used
        top = b - 1 if step > 0 else b + used
        r.max_guest = max(r.max_guest, (top << 9) + offset)
        if used < run:
            break
    r.mrp_idx = idx
    r.cache_count -= done * BLOCK_PAGES
    r.entry_count -= done * BLOCK_PAGES
    r.populated_2m += done
    r.now_ns += done * h.rec[0].populate_2m_ns
    r.table_generation += 1
    return done


@routine
def _takes_back_ns(h: HostState) -> int:
    """What P9 takes for a whole block of zeroes, from the look to its frames in the cache."""
    hr = h.rec[0]
    pages = BLOCK_PAGES if hr.keeps_contents else 2 * BLOCK_PAGES
    return int(hr.look_ns + BLOCK_PAGES * hr.check_nonzero_ns + hr.check_zero_ns + (pages - 1) * hr.zero_4k_ns)


@routine
def _look_in_debt(h: HostState, g: DomainState) -> bool:
    """P8 before a populate of 2 MiB, where it is plain and there is a superpage in the cache afterwards; else False,
    and nothing is done yet.
    """
    r = g.rec[0]
    hr = h.rec[0]
    record = int(g.ring[r.mrp_idx])
    has_super = g.lists[SUPER, L_LENGTH] > 0
    if record == RING_EMPTY or record & RING_SUPER == 0:
        if not has_super:
            return False
        if record != RING_EMPTY:
            look_at_page(h, g, record)
        return True
    old = (record & ~RING_SUPER) >> 9
    kind = int(g.blk[old, KIND])
    looks_ns = (1 + BLOCK_PAGES) * hr.look_ns
    if kind == RAM:
        if g.gib[old >> 9] != G_TABLE or int(g.blk[old, ODD]) != ZEROS or int(g.blk[old, PATTERNED]) != ZEROS:
            return False
        head = int(g.blk[old, HEAD])
        if head == ZEROS and int(g.blk[old, ANY]) == ZEROS and hr.words == 0:
            r.now_ns += _takes_back_ns(h)
            list_push(h, g, SUPER, int(g.blk[old, BASE]) >> 9, 1, 1)
            g.blk[old, KIND] = POD
            g.blk[old, BASE] = 0
            g.blk[old, RAM_ROW] = ZEROS
            g.blk[old, POD_ROW] = ONES
            r.cache_count += BLOCK_PAGES
            r.entry_count += BLOCK_PAGES
            r.reclaimed_2m += 1
            r.table_generation += 1
            return True
        if head != ONES and not row_is(h, head, ALL):
            return False
        looks_ns += (1 + BLOCK_PAGES) * hr.check_nonzero_ns
    elif kind != EMPTY and (kind != TABLE or int(g.blk[old, RAM_ROW]) != ZEROS):
        return False
    if not has_super:
        return False
    r.now_ns += looks_ns
    return True


@routine
def _is_plain_in_debt(h: HostState, g: DomainState, b: int) -> bool:
    """Whether the `pod` entry of 2 MiB of block `b` may be populated here: today's rules, in debt, ordinary frames."""
    r = g.rec[0]
    hr = h.rec[0]
    if hr.recent != RECENT_IN_DEBT or hr.early_sweeps or hr.blind_checks or hr.fixed_tables or r.sp_2m == 0:
        return False
    if r.odd_cached or r.conflicts or r.scrub_pattern or r.cache_count == 0 or r.entry_count <= r.cache_count:
        return False
    return int(g.blk[b, PATTERNED]) == ZEROS


@routine
def _populated(h: HostState, g: DomainState, b: int, gfn: int) -> None:
    """Put down that an access of `gfn` has populated block `b` as one entry."""
    r = g.rec[0]
    g.ring[r.mrp_idx] = (b << 9) | RING_SUPER
    r.mrp_idx = (r.mrp_idx + 1) & (g.ring.shape[0] - 1)
    r.max_guest = max(r.max_guest, gfn)
    r.populated_2m += 1
    r.now_ns += h.rec[0].populate_2m_ns
    r.table_generation += 1


@routine
def populate_in_debt(h: HostState, g: DomainState, gfn: int) -> bool:
    """Populate the `pod` entry of 2 MiB at `gfn`, in debt; whether it did."""
    b = gfn >> 9
    if not _is_plain_in_debt(h, g, b) or not _look_in_debt(h, g):
        return False
    r = g.rec[0]
    r.cache_count -= BLOCK_PAGES
    r.entry_count -= BLOCK_PAGES
    g.blk[b, KIND] = RAM
    g.blk[b, BASE] = list_pop(h, g, SUPER) << 9
    g.blk[b, RAM_ROW] = ONES
    g.blk[b, POD_ROW] = ZEROS
    _populated(h, g, b, gfn)
    return True


@routine
def scrub_and_give_back(h: HostState, g: DomainState, first: int, count: int, step: int) -> bool:
    """Zero the pages from `first` on and give them back in one hypercall, an extent a page, where they are one `pod`
    entry of 2 MiB and the debt is larger; whether it did.
    """
    r = g.rec[0]
    hr = h.rec[0]
    b = first >> 9
    if count != BLOCK_PAGES or first & 511 != (0 if step > 0 else 511) or b >= r.blocks or r.crashed or r.dying:
        return False
    if int(g.blk[b, KIND]) != POD or g.gib[b >> 9] != G_TABLE or hr.words or hr.whole_extents:
        return False
    if r.entry_count - r.cache_count < BLOCK_PAGES or not _is_plain_in_debt(h, g, b):
        return False
    entry_ns = r.now_ns
    if not _look_in_debt(h, g):
        return False
    r.entry_ns = entry_ns
    r.generation += 1
    _populated(h, g, b, first)
    r.now_ns += hr.hypercall_ns + BLOCK_PAGES * hr.look_ns + _takes_back_ns(h)
    list_turn(h, g, SUPER, 1)
    r.reclaimed_2m += 1
    r.entry_count -= BLOCK_PAGES
    r.ballooned_to -= BLOCK_PAGES
    g.blk[b, KIND] = TABLE
    g.blk[b, POD_ROW] = ZEROS
    return True
