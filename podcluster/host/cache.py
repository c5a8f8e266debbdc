"""The PoD cache of a domain: two FIFO lists of frames, and the host memory that goes in and out of it.

What        P1 cache add, P2 cache get, P3 set cache size, P14's emptying; quota, claims and what a frame keeps when
            it moves.
Units       Frames of 4 KiB. Entries of the list SUPER are machine blocks (mfn / 512), of SINGLE and LOOSE_LIST
            frames.
Symbols     C cache_count   tot tot_pages
Lists       A list is a chain of chunks of 63 segments (first entry, signed length): consecutive entries, up or down,
            are one
            segment, so 4 GiB in order is one segment and a random order costs eight bytes a frame.
Invariants  C = 512 x entries of SUPER + entries of SINGLE [P15].
            Pages in the cache are zero; a page that leaves the domain forgets its flags.
Departs     nowhere.
"""

from podcluster.host.heap import heap_give_run, heap_take
from podcluster.host.kernel import routine
from podcluster.host.p2m import words_clear
from podcluster.host.state import (
    BLOCK_PAGES,
    CHUNK_NEXT,
    CHUNK_SEGMENTS,
    DROPPED,
    ENOMEM,
    L_HEAD,
    L_HEAD_AT,
    L_LENGTH,
    L_TAIL,
    L_TAIL_AT,
    LOOSE,
    LOOSE_FRAMES,
    LOOSE_LIST,
    REF_MASK,
    SINGLE,
    SPECIAL,
    STALE,
    SUPER,
    DomainState,
    HostState,
)

INTERRUPTED = 1

# ---- lists
# ----------------------------------------------------------------------------------------------------------


@routine
def _chunk_new(h: HostState) -> int:
    r = h.rec[0]
    new = r.chunk_free
    if new:
        r.chunk_free = h.chunk[new, CHUNK_NEXT]
    else:
        new = r.chunk_top
        r.chunk_top += 1
    r.chunks_used += 1
    h.chunk[new, CHUNK_NEXT] = 0
    return int(new)


@routine
def _chunk_give(h: HostState, chunk: int) -> None:
    r = h.rec[0]
    h.chunk[chunk, CHUNK_NEXT] = r.chunk_free
    r.chunk_free = chunk
    r.chunks_used -= 1


@routine
def list_push(h: HostState, g: DomainState, which: int, first: int, count: int, step: int) -> None:
    """Append the entries first, first + step, ...; step is 1 or -1."""
    g.rec[0].cache_generation += 1
    g.lists[which, L_LENGTH] += count
    chunk = g.lists[which, L_TAIL]
    at = g.lists[which, L_TAIL_AT]
    if chunk == 0:
        chunk = _chunk_new(h)
        g.lists[which, L_HEAD] = chunk
        g.lists[which, L_HEAD_AT] = 0
        g.lists[which, L_TAIL] = chunk
        at = 0
    else:
        # Does it continue the last segment?
        start = int(h.chunk[chunk, 2 * at])
        signed = int(h.chunk[chunk, 2 * at + 1])
        if signed == 1:
            if first == start + step and count >= 1:
                h.chunk[chunk, 2 * at + 1] = step * (1 + count)
                return
            if count == 1 and first == start - step:
                h.chunk[chunk, 2 * at + 1] = -2 * step
                return
        else:
            direction = 1 if signed > 0 else -1
            if first == start + signed and (count == 1 or direction == step):
                h.chunk[chunk, 2 * at + 1] = signed + direction * count
                return
        at += 1
        if at == CHUNK_SEGMENTS:
            new = _chunk_new(h)
            h.chunk[chunk, CHUNK_NEXT] = new
            chunk = new
            g.lists[which, L_TAIL] = chunk
            at = 0
    g.lists[which, L_TAIL_AT] = at
    h.chunk[chunk, 2 * at] = first
    # A segment of one has no direction: it is kept as +1.
    h.chunk[chunk, 2 * at + 1] = step * count if count > 1 else 1


@routine
def list_drop(h: HostState, g: DomainState, which: int, count: int) -> None:
    """Take `count` entries off the head segment, which has that many."""
    g.rec[0].cache_generation += 1
    g.lists[which, L_LENGTH] -= count
    chunk = g.lists[which, L_HEAD]
    at = g.lists[which, L_HEAD_AT]
    signed = int(h.chunk[chunk, 2 * at + 1])
    size = abs(signed)
    direction = 1 if signed > 0 else -1
    if count < size:
        h.chunk[chunk, 2 * at] += direction * count
        h.chunk[chunk, 2 * at + 1] = direction * (size - count) if size - count > 1 else 1
        return
    if chunk == g.lists[which, L_TAIL] and at == g.lists[which, L_TAIL_AT]:
        _chunk_give(h, chunk)
        g.lists[which, L_HEAD] = 0
        g.lists[which, L_TAIL] = 0
        return
    at += 1
    if at == CHUNK_SEGMENTS:
        g.lists[which, L_HEAD] = h.chunk[chunk, CHUNK_NEXT]
        _chunk_give(h, chunk)
        at = 0
    g.lists[which, L_HEAD_AT] = at


@routine
def list_head(h: HostState, g: DomainState, which: int) -> int:
    """First entry of the head segment of a list that is not empty."""
    return int(h.chunk[g.lists[which, L_HEAD], 2 * g.lists[which, L_HEAD_AT]])


@routine
def list_head_signed(h: HostState, g: DomainState, which: int) -> int:
    """Length of the head segment, negative where it runs downwards."""
    return int(h.chunk[g.lists[which, L_HEAD], 2 * g.lists[which, L_HEAD_AT] + 1])


@routine
def list_pop(h: HostState, g: DomainState, which: int) -> int:
    """Take the head entry off a list that is not empty."""
    entry = list_head(h, g, which)
    list_drop(h, g, which, 1)
    return entry


# ---- frames between host and domain
# ---------------------------------------------------------------------------------


@routine
def frames_take(h: HostState, g: DomainState, order: int, counted: bool) -> int:
    """Take 2**order frames from the host for the domain; -1 when quota, claims [H3] or the heap refuse.

    What the frames held before stays in their attributes: the caller maps them or clears them.
    """
    r = g.rec[0]
    hr = h.rec[0]
    count = 1 << order
    if r.dying or (counted and r.tot_pages + count > r.max_pages):
        return -1
    if hr.claims + count > hr.free and not (counted and r.claim >= count):
        return -1
    mfn = heap_take(h, order)
    if mfn < 0:
        return -1
    if counted:
        used = min(r.claim, count)
        r.claim -= used
        hr.claims -= used
        r.tot_pages += count
    return mfn


@routine
def stale_forget(h: HostState, mfn: int, count: int) -> None:
    """Forget what earlier owners left in frames that the host does not scrub."""
    if not h.rec[0].scrub_on_free:
        for k in range(mfn, mfn + count):
            if h.attr[k]:
                h.attr[k] = 0


@routine
def frame_release(h: HostState, g: DomainState, mfn: int, stale: int) -> None:
    """Drop the allocation reference of an unmapped frame; it goes to the host unless others refer to it.

    `stale`: its contents, as attribute bits.
    """
    r = g.rec[0]
    hr = h.rec[0]
    a = h.attr[mfn]
    if a & REF_MASK:
        h.attr[mfn] = (a & ~STALE) | LOOSE | DROPPED | stale
        hr.loose += 1
        if not a & SPECIAL:
            r.loose += 1
        return
    if not a & SPECIAL:
        r.tot_pages -= 1
    frame_home(h, mfn, stale, r.dying != 0)


@routine
def frame_home(h: HostState, mfn: int, stale: int, dying: bool) -> None:
    """Return a frame to the host, zeroed if the host scrubs or its owner has been destroyed."""
    hr = h.rec[0]
    keep = stale
    if hr.scrub_on_free or dying:
        keep = 0
        words_clear(h, mfn)
    if h.attr[mfn] != keep:
        h.attr[mfn] = keep
    heap_give_run(h, mfn, 1)


@routine
def run_release(h: HostState, g: DomainState, mfn: int, count: int) -> None:
    """Release a run of frames that are zero and have no attributes."""
    if h.rec[0].words:
        for k in range(mfn, mfn + count):
            words_clear(h, k)
    g.rec[0].tot_pages -= count
    heap_give_run(h, mfn, count)


@routine
def frame_loosen(h: HostState, g: DomainState, mfn: int, stale: int) -> None:
    """A frame stays the domain's, with its allocation reference, but is neither mapped nor cached."""
    r = g.rec[0]
    h.attr[mfn] = (h.attr[mfn] & ~STALE) | LOOSE | stale
    h.rec[0].loose += 1
    if not h.attr[mfn] & SPECIAL:
        r.loose += 1
    r.irregular |= LOOSE_FRAMES
    list_push(h, g, LOOSE_LIST, mfn, 1, 1)


# ---- P1, P2
# ---------------------------------------------------------------------------------------------------------


@routine
def cache_add_run(h: HostState, g: DomainState, mfn: int, count: int, step: int, odd: bool) -> None:
    """P1, frames mfn, mfn + step, ... to the tail of SINGLE, cleared. `odd`: they may have attributes."""
    r = g.rec[0]
    if h.rec[0].words:
        for k in range(count):
            words_clear(h, mfn + k * step)
    if odd:
        r.odd_cached += count
    list_push(h, g, SINGLE, mfn, count, step)
    r.cache_count += count


@routine
def cache_add_super(h: HostState, g: DomainState, mfn: int, odd: bool) -> None:
    """P1, order 9: to the tail of SUPER, cleared. `odd`: some of its frames may have attributes."""
    r = g.rec[0]
    if h.rec[0].words:
        for k in range(mfn, mfn + BLOCK_PAGES):
            words_clear(h, k)
    if odd:
        r.odd_cached += BLOCK_PAGES
    list_push(h, g, SUPER, mfn >> 9, 1, 1)
    r.cache_count += BLOCK_PAGES


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


# ---- P3
# -------------------------------------------------------------------------------------------------------------


@routine
def cache_give_singles(h: HostState, g: DomainState, count: int) -> None:
    """Give `count` cached frames to the host, one by one from the head of SINGLE, breaking superpages as needed."""
    r = g.rec[0]
    while count > 0:
        if g.lists[SINGLE, L_LENGTH] == 0:
            cache_break(h, g)
        signed = list_head_signed(h, g, SINGLE)
        if r.odd_cached:
            mfn = cache_get_single(h, g)
            frame_release(h, g, mfn, 0)
            count -= 1
            continue
        first = list_head(h, g, SINGLE)
        here = min(abs(signed), count)
        list_drop(h, g, SINGLE, here)
        r.cache_count -= here
        run_release(h, g, first if signed > 0 else first - here + 1, here)
        count -= here


@routine
def set_cache_size(h: HostState, g: DomainState, n: int, preemptible: bool) -> int:
    """P3: 0, ENOMEM, or INTERRUPTED when a preemptible call saw other work waiting."""
    r = g.rec[0]
    stops = preemptible and h.rec[0].preempt != 0
    while r.cache_count < n:
        order = 9 if n - r.cache_count >= BLOCK_PAGES else 0
        mfn = frames_take(h, g, order, True)
        if mfn < 0 and order == 9:
            order = 0
            mfn = frames_take(h, g, 0, True)
        if mfn < 0:
            r.nomem = 1
            r.nomem_target = n
            r.nomem_cache = r.cache_count
            return ENOMEM
        stale_forget(h, mfn, 1 << order)
        if order == 9:
            cache_add_super(h, g, mfn, False)
        else:
            cache_add_run(h, g, mfn, 1, 1, False)
        if stops and r.cache_count != n:
            return INTERRUPTED
    while r.cache_count > n:
        if r.cache_count - n > BLOCK_PAGES and g.lists[SUPER, L_LENGTH] > 0:
            mfn = cache_get_super(h, g)
            if r.odd_cached == 0 and not stops:
                run_release(h, g, mfn, BLOCK_PAGES)
                continue
            for k in range(BLOCK_PAGES):
                frame_release(h, g, mfn + k, 0)
                if stops and r.cache_count != n:
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
        mfn = cache_get_super(h, g)
        if r.odd_cached:
            for k in range(mfn, mfn + BLOCK_PAGES):
                frame_release(h, g, k, 0)
        else:
            run_release(h, g, mfn, BLOCK_PAGES)
    while r.cache_count > 0:
        cache_give_singles(h, g, min(r.cache_count, abs(list_head_signed(h, g, SINGLE))))
