"""First-in-first-out lists of frames as chains of run-length segments.

What        Appending runs, taking entries off the head, turning the list.
Units       Entries are frames, or machine blocks of 2 MiB in the list SUPER.
Lists       A list is a chain of chunks of 63 segments (first entry, signed length): consecutive entries, up or down,
            are one segment, so 4 GiB in order is one segment and a random order costs eight bytes an entry.
Departs     nowhere.
"""

from podcluster.host.kernel import routine
from podcluster.host.state import (
    CHUNK_NEXT,
    CHUNK_SEGMENTS,
    L_HEAD,
    L_HEAD_AT,
    L_LENGTH,
    L_TAIL,
    L_TAIL_AT,
    DomainState,
    HostState,
)


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


@routine
def list_turn(h: HostState, g: DomainState, which: int, count: int) -> None:
    """Take `count` entries, of a list that has as many, off its head and append them in their order."""
    while count > 0:
        first = list_head(h, g, which)
        signed = list_head_signed(h, g, which)
        n = min(abs(signed), count)
        list_drop(h, g, which, n)
        list_push(h, g, which, first, n, 1 if signed > 0 else -1)
        count -= n


@routine
def list_first(g: DomainState, which: int) -> int:
    """Where the head segment is, as chunk x 64 + place in it; 0 when the list is empty."""
    return int(g.lists[which, L_HEAD] << 6 | g.lists[which, L_HEAD_AT]) if g.lists[which, L_LENGTH] else 0


@routine
def list_next(h: HostState, g: DomainState, which: int, position: int) -> int:
    """Where the segment after the one at `position` is; 0 behind the last."""
    chunk = position >> 6
    at = position & 63
    if chunk == g.lists[which, L_TAIL] and at == g.lists[which, L_TAIL_AT]:
        return 0
    if at + 1 == CHUNK_SEGMENTS:
        return int(h.chunk[chunk, CHUNK_NEXT]) << 6
    return position + 1
