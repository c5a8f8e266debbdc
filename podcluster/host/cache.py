"""The PoD cache of a domain: two FIFO lists of frames.

What        P1 cache add, P2 cache get, P3 set cache size, P14's emptying.
Units       Frames of 4 KiB. Entries of the list SUPER are machine blocks (mfn / 512), of SINGLE frames.
Symbols     C cache_count   n the size aimed at
Time        A frame that goes into the cache is cleared: zero_4k_ns [G6].
Invariants  C = 512 x entries of SUPER + entries of SINGLE [P15]. Pages in the cache are zero.
Departs     nowhere.
"""

from podcluster.host.contents import words_clear
from podcluster.host.frames import clear_fresh, frame_loosen, frame_release, frames_take, frames_take_few, run_release
from podcluster.host.heap import heap_run_order
from podcluster.host.kernel import routine
from podcluster.host.lists import list_drop, list_head, list_head_signed, list_pop, list_push
from podcluster.host.pending import NEVER, next_work
from podcluster.host.state import BLOCK_PAGES, ENOMEM, L_LENGTH, SINGLE, STALE, SUPER, DomainState, HostState

INTERRUPTED = 1


@routine
def cache_add_run(h: HostState, g: DomainState, mfn: int, count: int, step: int, odd: bool) -> None:
    """P1, frames mfn, mfn + step, ... to the tail of SINGLE, cleared. `odd`: they may have attributes."""
    r = g.rec[0]
    if not h.rec[0].keeps_contents:
        r.now_ns += count * h.rec[0].zero_4k_ns
        if h.rec[0].words:
            for k in range(count):
                words_clear(h, mfn + k * step)
    if odd:
        r.odd_cached += count
    list_push(h, g, SINGLE, mfn, count, step)
    r.cache_count += count


@routine
def cache_add_supers(h: HostState, g: DomainState, mfn: int, blocks: int) -> None:
    """P1, order 9, `blocks` times: to the tail of SUPER, cleared."""
    r = g.rec[0]
    pages = blocks * BLOCK_PAGES
    if not h.rec[0].keeps_contents:
        r.now_ns += pages * h.rec[0].zero_4k_ns
        if h.rec[0].words:
            for k in range(mfn, mfn + pages):
                words_clear(h, k)
    list_push(h, g, SUPER, mfn >> 9, blocks, 1)
    r.cache_count += pages


@routine
def cache_add_super(h: HostState, g: DomainState, mfn: int, odd: bool) -> None:
    """P1, order 9, once. `odd`: some of its frames may have attributes."""
    if odd:
        g.rec[0].odd_cached += BLOCK_PAGES
    cache_add_supers(h, g, mfn, 1)


@routine
def cache_get_super(h: HostState, g: DomainState) -> int:
    """P2, order 9: the head of SUPER, -1 when there is none."""
    if g.lists[SUPER, L_LENGTH] == 0:
        return -1
    g.rec[0].cache_count -= BLOCK_PAGES
    return list_pop(h, g, SUPER) << 9


@routine
def cache_break(h: HostState, g: DomainState) -> None:
    """P2: the head of SUPER becomes 512 singles, ascending; SUPER is not empty."""
    list_push(h, g, SINGLE, list_pop(h, g, SUPER) << 9, BLOCK_PAGES, 1)


@routine
def cache_get_single(h: HostState, g: DomainState) -> int:
    """P2, order 0, of a cache that is not empty."""
    if g.lists[SINGLE, L_LENGTH] == 0:
        cache_break(h, g)
    g.rec[0].cache_count -= 1
    return list_pop(h, g, SINGLE)


@routine
def cache_give_singles(h: HostState, g: DomainState, count: int) -> None:
    """Give `count` cached frames to the host, one by one from the head of SINGLE, breaking superpages as needed."""
    r = g.rec[0]
    while count > 0:
        if g.lists[SINGLE, L_LENGTH] == 0:
            cache_break(h, g)
        signed = list_head_signed(h, g, SINGLE)
        if r.odd_cached or r.conflicts:
            mfn = cache_get_single(h, g)
            frame_release(h, g, mfn, h.attr[mfn] & STALE)
            count -= 1
            continue
        first = list_head(h, g, SINGLE)
        here = min(abs(signed), count)
        list_drop(h, g, SINGLE, here)
        r.cache_count -= here
        run_release(h, g, first if signed > 0 else first - here + 1, here)
        count -= here


@routine
def _give_super(h: HostState, g: DomainState) -> None:
    """Give the head of SUPER, which is not empty, to the host whole."""
    mfn = cache_get_super(h, g)
    if g.rec[0].odd_cached == 0 and g.rec[0].conflicts == 0:
        run_release(h, g, mfn, BLOCK_PAGES)
    else:
        for k in range(mfn, mfn + BLOCK_PAGES):
            frame_release(h, g, k, h.attr[k] & STALE)


@routine
def _set_coarse_size(h: HostState, g: DomainState, n: int) -> None:
    """R3: grow by superpages until a request fails, which ends the call, or `n` is reached or passed; then shrink by
    superpages as long as there are any.
    """
    r = g.rec[0]
    while r.cache_count < n:
        mfn = frames_take(h, g, 9, True)
        if mfn < 0:
            return
        cache_add_super(h, g, mfn, clear_fresh(h, mfn, BLOCK_PAGES))
    while r.cache_count > n:
        if g.lists[SUPER, L_LENGTH] > 0:
            _give_super(h, g)
        else:
            cache_give_singles(h, g, r.cache_count - n)


@routine
def set_cache_size(h: HostState, g: DomainState, n: int, preemptible: bool) -> int:
    """P3: 0, ENOMEM, or INTERRUPTED when a preemptible call saw other work waiting."""
    r = g.rec[0]
    if h.rec[0].coarse_cache:
        _set_coarse_size(h, g, n)
        return 0
    due = next_work(h, g) if preemptible else NEVER
    while r.cache_count < n:
        wanted = n - r.cache_count
        order = 9
        mfn = -1
        if wanted >= BLOCK_PAGES:
            if due == NEVER:
                # Blocks of 2 MiB one after another are one larger block, if quota and claims allow all of them.
                order = heap_run_order(h, wanted // BLOCK_PAGES)
            mfn = frames_take(h, g, order, True)
            if mfn < 0 and order > 9:
                order = 9
                mfn = frames_take(h, g, 9, True)
        if mfn >= 0:
            clear_fresh(h, mfn, 1 << order)
            cache_add_supers(h, g, mfn, 1 << (order - 9))
        else:
            taken = frames_take_few(h, g, wanted if due == NEVER else 1)
            if taken < 0:
                r.nomem = 1
                r.nomem_target = n
                r.nomem_cache = r.cache_count
                return ENOMEM
            clear_fresh(h, taken >> 10, taken & 1023)
            cache_add_run(h, g, taken >> 10, taken & 1023, 1, False)
        if r.now_ns >= due and r.cache_count != n:
            return INTERRUPTED
    stops = r.now_ns >= due  # giving back takes no time
    while r.cache_count > n:
        if r.cache_count - n > BLOCK_PAGES and g.lists[SUPER, L_LENGTH] > 0:
            if not stops:
                _give_super(h, g)
                continue
            mfn = cache_get_super(h, g)
            for k in range(BLOCK_PAGES):
                frame_release(h, g, mfn + k, 0)
                if r.cache_count != n:
                    # The rest of the block is in neither cache nor table, and no continuation returns to it.
                    for rest in range(mfn + k + 1, mfn + BLOCK_PAGES):
                        frame_loosen(h, g, rest, 0)
                    return INTERRUPTED
        elif stops:
            frame_release(h, g, cache_get_single(h, g), 0)
            if r.cache_count != n:
                return INTERRUPTED
        else:
            # No superpage goes out whole from here on: there is none, or the surplus is 512 at most and shrinks.
            cache_give_singles(h, g, r.cache_count - n)
    return 0


@routine
def cache_empty(h: HostState, g: DomainState) -> None:
    """P14: give the whole cache back, superpages first."""
    r = g.rec[0]
    while g.lists[SUPER, L_LENGTH] > 0:
        if r.odd_cached or r.conflicts:
            _give_super(h, g)
            continue
        first = list_head(h, g, SUPER)
        signed = list_head_signed(h, g, SUPER)
        blocks = abs(signed)
        list_drop(h, g, SUPER, blocks)
        r.cache_count -= blocks * BLOCK_PAGES
        run_release(h, g, (first if signed > 0 else first - blocks + 1) << 9, blocks * BLOCK_PAGES)
    while r.cache_count > 0:
        cache_give_singles(h, g, min(r.cache_count, abs(list_head_signed(h, g, SINGLE))))
