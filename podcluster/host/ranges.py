"""Whole ranges and lists of pages in one kernel call, with the state that the page-by-page loop leaves.

What        Touching (writing data or zeroes), ballooning out and taking back pages of 4 KiB.
Units       Pages of 4 KiB; `step` is 1 (upwards) or -1 (downwards).
Symbols     E entry_count   C cache_count   D = E - C debt
Time        [G6] as page by page, and hypercall_ns for the whole of a balloon's range or list.
Why exact   Between two populates all writes of a guest commute: they set bits that only a reclaim reads, and only a
            populate reclaims. So writes are put down in masks, all those before a populate before it. Populates of
            4 KiB go in stretches (waves.py), those of 2 MiB as in whole_blocks.py. Giving back stretches is cut where
            the rule changes: where the debt is paid (P12 `steal`), and at the first page of a block that might be taken
            back whole (P12 step 5), which goes the ordinary way.
            Without debt RAM goes to the host a stretch at a time: which frames are free is all there is to the heap.
            Pages that come back take the next single frames, and those lead upwards through one free block.
Departs     nowhere: tests/host/test_ranges.py drives both.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.cache import cache_add_run, cache_give_singles
from podcluster.host.contents import (
    contents_set,
    contents_uniform,
    pattern_set,
    pattern_uniform,
    word_write,
    words_clear,
)
from podcluster.host.frames import run_release
from podcluster.host.heap import ALL, U0, U1, heap_take_few, span_mask
from podcluster.host.kernel import kernel, outline, routine
from podcluster.host.lists import list_drop, list_head, list_head_signed
from podcluster.host.p2m import set_pages, set_pages_down
from podcluster.host.pod import allocating_lookup, demand_populate
from podcluster.host.reservation import DONE, decrease_extent, populate
from podcluster.host.rows import frame_of, frame_run, next_page, page_bit, row_count
from podcluster.host.state import (
    ANY,
    BLOCK_PAGES,
    DETAIL,
    EMPTY,
    G_POD,
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
    RAM_ABOVE_TARGET,
    RAM_ROW,
    RECENT_IN_DEBT,
    SINGLE,
    TABLE,
    UP,
    ZEROS,
    DomainState,
    HostState,
)
from podcluster.host.waves import populate_stretch
from podcluster.host.whole_blocks import populate_in_debt, populate_supers, populates_are_plain
from podcluster.host.written import DATA, PATTERN, ZERO


@routine
def _write_span(h: HostState, g: DomainState, b: int, low: int, high: int, content: int) -> None:
    """The RAM pages low .. high - 1 of block `b` are written."""
    if low >= high:
        return
    row = int(g.blk[b, RAM_ROW])
    if h.rec[0].words:
        for i in range(low, high):
            if page_bit(h, row, i):
                mfn = frame_of(h, g, b, i)
                if content != ZERO:
                    word_write(h, g, (b << 9) + i, mfn, 0, 1)
                else:
                    words_clear(h, mfn)
                    contents_set(h, g, b, i >> 6, U1 << np.uint64(i & 63), False)
        return
    if content == ZERO and g.blk[b, ANY] == ZEROS and g.blk[b, PATTERNED] == ZEROS:
        return
    if high - low == BLOCK_PAGES and row == ONES:
        contents_uniform(h, g, b, ONES if content != ZERO else ZEROS)
        pattern_uniform(h, g, b, ONES if content == PATTERN else ZEROS)
        return
    patterned = content == PATTERN or g.blk[b, PATTERNED] != ZEROS
    i = low
    while i < high:
        span = min(high - i, 64 - (i & 63))
        m = span_mask(i & 63, span) & h.row[row, i >> 6]
        if m != U0:
            contents_set(h, g, b, i >> 6, m, content != ZERO)
            if patterned:
                pattern_set(h, g, b, i >> 6, m, content == PATTERN)
        i += span


@outline
def write_range(h: HostState, g: DomainState, first: int, count: int, step: int, content: int) -> int:
    """Write whole pages from `first` on; pages done, fewer than `count` only where the domain is dead."""
    r = g.rec[0]
    r.generation += 1
    done = 0
    faulted = -1  # the page whose access entered Xen last
    while done < count:
        if r.crashed or r.dying:
            return done
        gfn = first + done * step
        b = gfn >> 9
        i = gfn & 511
        here = min(count - done, BLOCK_PAGES - i if step > 0 else i + 1)
        kind = int(g.blk[b, KIND]) if b < r.blocks else EMPTY
        if kind == EMPTY:
            done += here
            continue
        if kind == POD:
            slot = np.int64(g.gib[b >> 9])
            whole = here == BLOCK_PAGES and slot == G_TABLE and r.sp_2m != 0 and h.rec[0].words == 0
            if whole and populates_are_plain(h, g):
                blocks = populate_supers(h, g, b, (count - done) // BLOCK_PAGES, step, content)
                if blocks > 0:
                    done += blocks * BLOCK_PAGES
                    continue
            if faulted != done:
                faulted = done
                r.entry_ns = r.now_ns
            if slot == G_TABLE and populate_in_debt(h, g, gfn):
                kind = RAM
            elif demand_populate(h, g, gfn, 18 if slot == G_POD else 9) == 0:
                return done
            else:
                continue
        if kind == RAM:
            low = i if step > 0 else i - here + 1
            _write_span(h, g, b, low, low + here, content)
            done += here
            continue
        # A table of 4 KiB entries. What is written since the last populate is put down before the next.
        end = i + here * step
        since = i
        while i != end:
            at = next_page(h, int(g.blk[b, POD_ROW]), i, end, step, U0)
            _write_span(h, g, b, since if step > 0 else at + 1, at if step > 0 else since + 1, content)
            done += abs(at - i)
            i = at
            since = at
            if at == end:
                break
            n = populate_stretch(h, g, b, at, end, step, content)
            if n == 0:
                if faulted != done:
                    faulted = done
                    r.entry_ns = r.now_ns
                if demand_populate(h, g, (b << 9) + at, 0) == 0:
                    return done
                n = 1
            done += n
            i += n * step
        _write_span(h, g, b, since if step > 0 else i + 1, i if step > 0 else since + 1, content)
    return done


@kernel
def touch_range(h: HostState, g: DomainState, first: int, count: int, step: int, content: int) -> int:
    """`write_range`, for Python."""
    return write_range(h, g, first, count, step, content)


@routine
def _populate_listed(h: HostState, g: DomainState, gfns: npt.NDArray[np.int64], k: int) -> int:
    """Populate and write with data the listed 4 KiB `pod` pages from `k` on, without debt, off the head segment; how
    many it did.
    """
    r = g.rec[0]
    if g.lists[SINGLE, L_LENGTH] == 0:
        return 0
    first = list_head(h, g, SINGLE)
    signed = list_head_signed(h, g, SINGLE)
    direction = 1 if signed > 0 else -1
    run = min(abs(signed), gfns.shape[0] - k)
    idx = r.mrp_idx
    records = h.rec[0].recent >= RECENT_IN_DEBT
    top = r.max_guest
    used = 0
    while used < run:
        gfn = gfns[k + used]
        b = gfn >> 9
        if b >= r.blocks or g.blk[b, KIND] != TABLE or int(g.blk[b, PATTERNED]) != ZEROS:
            break
        i = gfn & 511
        wi = i >> 6
        m = U1 << np.uint64(i & 63)
        row = int(g.blk[b, POD_ROW])
        if h.row[row, wi] & m == U0:
            break
        mfn = first + direction * used
        handle = int(g.blk[b, DETAIL])
        ram = int(g.blk[b, RAM_ROW])
        head = int(g.blk[b, HEAD])
        if handle > UP and row > ONES and ram > ONES and head > ONES and head == g.blk[b, ANY]:
            h.row[row, wi] &= ~m
            h.row[ram, wi] |= m
            h.row[head, wi] |= m
            h.detail[handle, i] = mfn
        else:
            set_pages(h, g, gfn, 1, RAM, mfn)
            contents_set(h, g, b, wi, m, True)
        if records:
            g.ring[idx] = gfn
            idx = (idx + 1) & (g.ring.shape[0] - 1)
        top = max(top, gfn)
        used += 1
    if used:
        list_drop(h, g, SINGLE, used)
        r.mrp_idx = idx
        r.max_guest = top
        r.cache_count -= used
        r.entry_count -= used
        r.populated_4k += used
        r.now_ns += used * h.rec[0].populate_4k_ns
        r.table_generation += 1
    return used


@kernel
def touch_list(h: HostState, g: DomainState, gfns: npt.NDArray[np.int64], content: int) -> int:
    """Write whole pages in the order of `gfns`; pages done, fewer only where the domain dies or is not running."""
    r = g.rec[0]
    r.generation += 1
    k = 0
    while k < gfns.shape[0]:
        if r.crashed or r.dying:
            return k
        if content == DATA and h.rec[0].words == 0 and populates_are_plain(h, g):
            used = _populate_listed(h, g, gfns, k)
            if used:
                k += used
                continue
        gfn = gfns[k]
        mfn = allocating_lookup(h, g, gfn)
        if mfn >= 0:
            _write_span(h, g, gfn >> 9, gfn & 511, (gfn & 511) + 1, content)
        elif r.crashed:
            return k
        k += 1
    return k


@routine
def _stretch(h: HostState, g: DomainState, gfn: int, limit: int, step: int, field: int, flip: np.uint64) -> int:
    """Pages from `gfn` on, `limit` at most and within its block, that are clear in the row of `field`, or set in it
    where `flip` is ALL and not U0.
    """
    i = gfn & 511
    end = i + min(limit, BLOCK_PAGES - i if step > 0 else i + 1) * step
    return abs(next_page(h, int(g.blk[gfn >> 9, field]), i, end, step, flip) - i)


@routine
def _give_back(h: HostState, g: DomainState, b: int, i: int, n: int, step: int, steal: bool) -> None:
    """Unmap `n` plain RAM pages of a block: into the cache, or to the host."""
    k = 0
    while k < n:
        mfn = frame_of(h, g, b, i + k * step)
        signed = frame_run(h, g, b, i + k * step, n - k, step)
        run = abs(signed)
        if steal:
            cache_add_run(h, g, mfn, run, 1 if signed > 0 else -1, False)
        else:  # the host does not mind the order
            run_release(h, g, mfn if signed > 0 else mfn - run + 1, run)
        k += run
    low = i if step > 0 else i - n + 1
    _write_span(h, g, b, low, low + n, ZERO)
    set_pages(h, g, (b << 9) + low, n, EMPTY, 0)
    g.rec[0].ballooned_to -= n


@outline
def give_back_range(h: HostState, g: DomainState, first: int, count: int, step: int) -> int:
    """As `balloon_range`, as a part of a hypercall."""
    r = g.rec[0]
    r.generation += 1
    look_ns = h.rec[0].look_ns
    # R10 leaves surpluses, and has no whole block to take back.
    singly = h.rec[0].whole_extents != 0
    plain = not singly and h.rec[0].words == 0 and h.rec[0].scrub_on_free != 0
    holed = -1  # the block in which a page has gone the ordinary way
    done = 0
    while done < count:
        gfn = first + done * step
        b = gfn >> 9
        if b >= r.blocks or g.blk[b, KIND] == EMPTY:
            r.now_ns += look_ns
            return done
        live = r.entry_count > 0 and r.dying == 0
        if live and r.entry_count >= r.cache_count and not singly:
            n = _stretch(h, g, gfn, count - done, step, POD_ROW, ALL)
            if n > 0:
                # P12 step 4 for each; once the debt is paid each leaves a surplus of one, which goes out as a single
                # (step 7).
                set_pages(h, g, gfn if step > 0 else gfn - n + 1, n, EMPTY, 0)
                r.entry_count -= n
                r.ballooned_to -= n
                r.now_ns += n * look_ns
                if r.entry_count < r.cache_count:
                    cache_give_singles(h, g, r.cache_count - r.entry_count)
                done += n
                continue
        debt = r.entry_count - r.cache_count if live else 0
        if plain and (debt <= 0 or b == holed):
            n = _stretch(h, g, gfn, count - done, step, RAM_ROW, ALL)
            n = _stretch(h, g, gfn, min(n, debt) if debt > 0 else n, step, ODD, U0)
            if n > 0:
                # In debt each would first be tried with the 2 MiB around it, in vain: there is a hole.
                r.now_ns += n * look_ns * (2 if debt > 0 else 1)
                _give_back(h, g, b, gfn & 511, n, step, debt > 0)
                done += n
                continue
        # In debt the first RAM page of a block goes the ordinary way: all of it may be taken back (P12 step 5).
        if decrease_extent(h, g, gfn, 0) & DONE == 0:
            return done
        holed = b
        done += 1
    return done


@kernel
def balloon_range(h: HostState, g: DomainState, first: int, count: int, step: int) -> int:
    """Give back pages from `first` on, one extent of order 0 each, in one hypercall; extents done before it stops."""
    g.rec[0].now_ns += h.rec[0].hypercall_ns
    return give_back_range(h, g, first, count, step)


@kernel
def balloon_list(h: HostState, g: DomainState, gfns: npt.NDArray[np.int64]) -> int:
    """Give back the listed pages, one extent of order 0 each, in one hypercall; extents done before it stops."""
    r = g.rec[0]
    r.generation += 1
    r.now_ns += h.rec[0].hypercall_ns
    for k in range(gfns.shape[0]):
        if decrease_extent(h, g, gfns[k], 0) & DONE == 0:
            return k
    return len(gfns)


@kernel
def populate_range(h: HostState, g: DomainState, first: int, count: int, step: int) -> int:
    """Populate pages from `first` on with RAM from the host (balloon deflation), in one hypercall; pages done."""
    done = populate_pages(h, g, first, count, step)
    g.rec[0].now_ns += h.rec[0].hypercall_ns + done * h.rec[0].populate_4k_ns
    return done


@kernel
def populate_pages(h: HostState, g: DomainState, first: int, count: int, step: int) -> int:
    """The same as a builder does it, for which no time passes."""
    g.rec[0].generation += 1
    done = 0
    while done < count:
        gfn = first + done * step
        n = _populate_holes(h, g, gfn, count - done, step)
        if n == 0:
            n = populate(h, g, gfn, 0)
            if n == 0:
                break
        done += n
    return done


@routine
def _populate_holes(h: HostState, g: DomainState, gfn: int, count: int, step: int) -> int:
    """Populate adjacent empty pages of one block with a run of the host's frames, as far as quota and claims certainly
    allow; how many, maybe none.
    """
    r = g.rec[0]
    hr = h.rec[0]
    if r.dying or r.conflicts or not hr.scrub_on_free:
        return 0
    n = min(count, r.max_pages - r.tot_pages, max(r.claim, hr.free - hr.claims))
    n = _stretch(h, g, gfn, max(n, 0), step, RAM_ROW, U0)
    n = _stretch(h, g, gfn, n, step, POD_ROW, U0)
    if n == 0:
        return 0
    taken = heap_take_few(h, n)
    claimed = min(r.claim, taken & 1023)
    r.claim -= claimed
    hr.claims -= claimed
    fill_holes(h, g, gfn, taken & 1023, step, taken >> 10)
    return taken & 1023


@routine
def fill_holes(h: HostState, g: DomainState, gfn: int, n: int, step: int, mfn: int) -> None:
    """Map `n` adjacent empty pages of one block, from `gfn` on, to frames that were taken for them, `mfn` upwards."""
    r = g.rec[0]
    if step > 0:
        set_pages(h, g, gfn, n, RAM, mfn)
    else:
        set_pages_down(h, g, gfn, n, mfn)
    r.top_gfn = max(r.top_gfn, gfn if step < 0 else gfn + n - 1)
    r.tot_pages += n
    r.ballooned_to += n
    if r.target and r.tot_pages > r.target:
        r.irregular |= RAM_ABOVE_TARGET


@kernel
def count_contents(h: HostState, g: DomainState) -> int:
    """RAM pages that hold a word that is not zero."""
    total = 0
    for b in range(g.rec[0].blocks):
        row = int(g.blk[b, ANY])
        if row == ONES:
            total += BLOCK_PAGES
        elif row > ONES:
            total += row_count(h, row)
    return total
