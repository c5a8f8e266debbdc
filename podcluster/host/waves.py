"""Populates of 4 KiB, many in one step: adjacent `pod` pages of one table, one after another.

What        `populate_stretch` populates and writes them as far as each populate is like the one before it.
Units       Pages of 4 KiB; `step` is 1 (upwards) or -1 (downwards).
Symbols     E entry_count   C cache_count   n pages of the stretch   R slots of the recent list
Time        [G6] as page by page: populate_4k_ns each, and what P8 looks at.
Why exact   n is at most what SINGLE holds, so C > 0 at every step: nothing is broken or swept, each pop takes a frame
            that was in the list at the start, and P8 looks at one record a step. The first R records are not the
            stretch's own. As long as they name none of its pages, looking at them reads and changes nothing that its
            populates do, but for the tail of SINGLE: all looks may go first. From step R on, step k looks at page
            k - R. Where it holds data that costs time and nothing else. Where it is zero it is reclaimed (P10): its
            frame, the (k - R)-th of the stretch, goes to the tail while the k-th leaves the head. So the first n - R
            pages end as they began, the first n - R frames have turned from head to tail in their order, and the last
            R pages are RAM, and the recent list.
            P8 runs at all steps or at none: E - C does not move.
Departs     nowhere: tests/host/test_waves.py drives both.
"""

from podcluster.host.heap import ALL, U0
from podcluster.host.kernel import routine
from podcluster.host.lists import list_drop, list_head, list_head_signed, list_turn
from podcluster.host.p2m import set_pages, set_pages_down
from podcluster.host.pod import reclaims_first
from podcluster.host.reclaim import look_at
from podcluster.host.rows import list_frames, next_page, page_bit
from podcluster.host.state import (
    L_LENGTH,
    ODD,
    PATTERNED,
    POD_ROW,
    RAM,
    RAM_ROW,
    RECENT_IN_DEBT,
    RING_EMPTY,
    RING_SUPER,
    SINGLE,
    ZEROS,
    DomainState,
    HostState,
)
from podcluster.host.written import PATTERN, ZERO


@routine
def _look_at_others(h: HostState, g: DomainState, low: int, high: int, count: int) -> int:
    """P8 on the oldest `count` records, up to the first that names any of the pages low .. high or the 2 MiB around
    them; how many.
    """
    r = g.rec[0]
    at = r.mrp_idx
    gone = 0  # records of pages that the guest has given back since, or that are promised again
    looked = 0
    while looked < count:
        record = g.ring[at]
        if record == RING_EMPTY:
            pass
        elif record & RING_SUPER:
            if (record & ~RING_SUPER) >> 9 == low >> 9:
                break
            look_at(h, g, record)
        elif low <= record <= high:
            break
        elif page_bit(h, int(g.blk[record >> 9, RAM_ROW]), record & 511):
            look_at(h, g, record)
        else:
            gone += 1
        at = (at + 1) & (g.ring.shape[0] - 1)
        looked += 1
    r.now_ns += gone * h.rec[0].look_ns
    return looked


@routine
def _back(h: HostState, g: DomainState, gfn: int, n: int, step: int) -> None:
    """Map the first n frames of SINGLE to the pages from `gfn` on."""
    low = gfn if step > 0 else gfn - n + 1
    first = list_head(h, g, SINGLE)
    signed = list_head_signed(h, g, SINGLE)
    if abs(signed) >= n:
        if (signed > 0) == (step > 0):  # frames ascend with the pages
            set_pages(h, g, low, n, RAM, first if step > 0 else first - n + 1)
        else:
            set_pages_down(h, g, low + n - 1, n, first if step < 0 else first - n + 1)
        list_drop(h, g, SINGLE, n)
        return
    set_pages(h, g, low, n, RAM, first)
    detail = h.detail[list_frames(h, g, gfn >> 9)]
    i = gfn & 511
    while n > 0:
        first = list_head(h, g, SINGLE)
        signed = list_head_signed(h, g, SINGLE)
        along = 1 if signed > 0 else -1
        here = min(n, abs(signed))
        for k in range(here):
            detail[i + k * step] = first + k * along
        list_drop(h, g, SINGLE, here)
        i += here * step
        n -= here


@routine
def populate_stretch(h: HostState, g: DomainState, b: int, i: int, end: int, step: int, content: int) -> int:
    """Populate adjacent `pod` pages of table `b` from page `i` on, before `end`, each of which is then written with
    `content`; how many were populated, 0 where the first must go the ordinary way.

    The writing of those that are RAM then is the caller's.
    """
    r = g.rec[0]
    hr = h.rec[0]
    if r.odd_cached or r.conflicts or hr.early_sweeps:
        return 0
    end = next_page(h, int(g.blk[b, POD_ROW]), i, end, step, ALL)
    if int(g.blk[b, PATTERNED]) != ZEROS:  # S3
        end = next_page(h, int(g.blk[b, PATTERNED]), i, end, step, U0)
    if int(g.blk[b, ODD]) != ZEROS:
        end = next_page(h, int(g.blk[b, ODD]), i, end, step, U0)
    gfn = (b << 9) + i
    n = min(abs(end - i), g.lists[SINGLE, L_LENGTH])
    slots = g.ring.shape[0]
    turned = 0  # pages that are populated and reclaimed
    if reclaims_first(h, g):
        if content == PATTERN and r.scrub_pattern:
            n = min(n, slots)  # S2: what is reclaimed becomes a promise of the pattern
        last = gfn + (n - 1) * step
        looks = min(n, slots)
        looked = _look_at_others(h, g, min(gfn, last), max(gfn, last), looks)
        if looked < looks:
            n = looked
        own = max(n - slots, 0)
        r.now_ns += own * (hr.look_ns + hr.check_nonzero_ns)
        if content == ZERO:
            turned = own
            r.now_ns += own * (hr.check_zero_ns + hr.zero_4k_ns)
            r.reclaimed_4k += own
            list_turn(h, g, SINGLE, own)
    if n == 0:
        return 0
    if hr.recent >= RECENT_IN_DEBT:
        ring = g.ring
        begin = r.mrp_idx
        for k in range(max(0, n - slots), n):  # those before are overwritten
            ring[(begin + k) & (slots - 1)] = gfn + k * step
        r.mrp_idx = (begin + n) & (slots - 1)
    _back(h, g, gfn + turned * step, n - turned, step)
    r.max_guest = max(r.max_guest, gfn + (n - 1) * step if step > 0 else gfn)
    r.cache_count -= n - turned
    r.entry_count -= n - turned
    r.populated_4k += n
    r.now_ns += n * hr.populate_4k_ns
    r.table_generation += 1
    return int(n)
