"""What must always hold: a recount of a whole host from its tables, lists and heap.

What        P15 after any step of anything: counters against a recount, and every frame in exactly one place. The
            equations of a regular life where the operations say that one is being led. Debt >= 0 from the end of the
            build.
Units       Frames of 4 KiB.
Symbols     E entry_count   C cache_count   P mapped RAM, special pages left out   B ballooned_to   T target
Invariants  [P15], [POD-1], [POD-2], [POD-3].
Departs     nowhere.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from podcluster.errors import InvariantError
from podcluster.host.heap import ALL, HEAP_ALL, U0, U1, span_mask
from podcluster.host.kernel import ctz, kernel, popcount, routine
from podcluster.host.lists import list_first, list_next
from podcluster.host.rows import frame_of, row_count
from podcluster.host.state import (
    ANY,
    BASE,
    BLOCK_PAGES,
    DETAIL,
    EMPTY,
    EXTRA_REFERENCES,
    HEAD,
    KIND,
    L_LENGTH,
    LOOSE,
    LOOSE_FRAMES,
    ODD,
    ONES,
    PATTERNED,
    POD,
    POD_ROW,
    RAM,
    RAM_OVER_POD,
    RAM_ROW,
    RETIRED,
    SINGLE,
    SPECIAL,
    SPECIAL_PAGES,
    SUPER,
    TABLE,
    TABLE_CONFLICT,
    UP,
    ZEROS,
    DomainState,
    HostState,
)

# Fields of the recount.
F_POD = 0
F_RAM = 1
F_SUPER = 2
F_SINGLE = 3
F_TWICE = 4  # a frame met a second time, or free; -1
F_CONTENTS = 5  # a gfn whose content bits contradict its entry; -1
F_SPECIAL_CACHED = 6
FIELDS = 7


@routine
def _claim_word(h: HostState, seen: npt.NDArray[np.uint64], word: int, m: np.uint64) -> int:
    """Note that the frames of `m` are here, of the 64 from 64 * word on; a frame that is elsewhere too, else -1."""
    mask = h.heap_masks[word >> 3]
    taken = seen[word]
    if mask == HEAP_ALL:
        taken = ALL
    elif mask != 0:
        taken |= h.heap_rows[word >> 3, word & 7]
    if taken & m != U0:
        return (word << 6) + ctz(taken & m)
    seen[word] |= m
    return -1


@kernel
def claim_run(h: HostState, seen: npt.NDArray[np.uint64], mfn: int, count: int) -> int:
    """Note that `count` frames from `mfn` on are here; a frame that is elsewhere too, else -1."""
    end = mfn + count
    if mfn < 0 or end > h.rec[0].frames:
        return abs(mfn)
    while mfn < end:
        span = min(end - mfn, 64 - (mfn & 63))
        twice = _claim_word(h, seen, mfn >> 6, span_mask(mfn & 63, span))
        if twice >= 0:
            return twice
        mfn += span
    return -1


@routine
def _claim_bits(h: HostState, seen: npt.NDArray[np.uint64], first: int, bits: np.uint64) -> int:
    """Note that for each bit i of `bits` frame first + i is here; a frame that is elsewhere too, else -1."""
    if bits == U0:
        return -1
    if first < 0 or first + 64 > h.rec[0].frames:  # some of the 64 are no frames: those of `bits` must be
        while bits != U0:
            i = ctz(bits)
            twice = claim_run(h, seen, first + i, 1)
            if twice >= 0:
                return twice
            bits &= bits - U1
        return -1
    shift = np.uint64(first & 63)
    low = bits << shift
    if low != U0:
        twice = _claim_word(h, seen, first >> 6, low)
        if twice >= 0:
            return twice
    if shift != U0:
        high = bits >> (np.uint64(64) - shift)
        if high != U0:
            return _claim_word(h, seen, (first >> 6) + 1, high)
    return -1


@routine
def _claim_listed(h: HostState, seen: npt.NDArray[np.uint64], ram: int, handle: int) -> int:
    """`claim_run` of the frames that a list names for the pages of row `ram`, a word of frames at a time."""
    word = -1
    m = U0
    for wi in range(8):
        left = h.row[ram, wi]
        while left != U0:
            mfn = int(h.detail[handle, 64 * wi + ctz(left)])
            left &= left - U1
            if mfn < 0 or mfn >= h.rec[0].frames:
                return abs(mfn)
            if mfn >> 6 != word:
                if word >= 0:
                    twice = _claim_word(h, seen, word, m)
                    if twice >= 0:
                        return twice
                word = mfn >> 6
                m = U0
            bit = U1 << np.uint64(mfn & 63)
            if m & bit != U0:
                return mfn
            m |= bit
    return _claim_word(h, seen, word, m) if word >= 0 else -1


@routine
def _reversed(bits: np.uint64) -> np.uint64:
    """The 64 bits in the opposite order."""
    span = U1
    for mask in (
        np.uint64(0x5555555555555555),
        np.uint64(0x3333333333333333),
        np.uint64(0x0F0F0F0F0F0F0F0F),
        np.uint64(0x00FF00FF00FF00FF),
        np.uint64(0x0000FFFF0000FFFF),
        np.uint64(0x00000000FFFFFFFF),
    ):
        bits = ((bits >> span) & mask) | ((bits & mask) << span)
        span <<= U1
    return bits


@routine
def _claim_block(h: HostState, g: DomainState, b: int, seen: npt.NDArray[np.uint64]) -> int:
    """Note the frames behind the RAM pages of a block; a frame that is elsewhere too, else -1."""
    ram = int(g.blk[b, RAM_ROW])
    handle = int(g.blk[b, DETAIL])
    if handle > UP:
        return _claim_listed(h, seen, ram, handle)
    base = int(g.blk[b, BASE])
    if ram == ONES:
        return claim_run(h, seen, base if handle == UP else base - BLOCK_PAGES + 1, BLOCK_PAGES)
    for wi in range(8):
        bits = h.row[ram, wi]
        if handle == UP:
            twice = _claim_bits(h, seen, base + 64 * wi, bits)
        else:
            twice = _claim_bits(h, seen, base - 64 * wi - 63, _reversed(bits))
        if twice >= 0:
            return twice
    return -1


@routine
def _count_special(h: HostState, g: DomainState, b: int) -> int:
    """Special pages among the RAM of a block. Only `ODD` ones are looked at: one that is not there is counted as RAM,
    which `tot_pages` then contradicts.
    """
    odd = int(g.blk[b, ODD])
    if odd == ZEROS:
        return 0
    special = 0
    for wi in range(8):
        left = h.row[odd, wi] & h.row[int(g.blk[b, RAM_ROW]), wi]
        while left != U0:
            mfn = frame_of(h, g, b, 64 * wi + ctz(left))
            left &= left - U1
            if 0 <= mfn < h.rec[0].frames and h.attr[mfn] & SPECIAL:
                special += 1
    return special


@routine
def _contradicting_word(h: HostState, g: DomainState, b: int) -> int:
    """Word of a block's rows in which content bits contradict the entry, -1 if there is none."""
    ram = int(g.blk[b, RAM_ROW])
    pod = int(g.blk[b, POD_ROW])
    head = int(g.blk[b, HEAD])
    some = int(g.blk[b, ANY])
    patterned = int(g.blk[b, PATTERNED])
    # One and the same row agrees with itself, and uniform rows are told by their handles.
    apart = ram == ZEROS or pod == ZEROS
    in_ram = some == ZEROS or some == ram or ram == ONES
    if apart and in_ram and (head == ZEROS or head == some) and patterned == ZEROS:
        return -1
    found = -1
    for wi in range(8):
        bits = h.row[ram, wi]
        any_bits = h.row[some, wi]
        odd_pattern = h.row[patterned, wi] & ~(h.row[head, wi] | h.row[pod, wi]) != U0
        if bits & h.row[pod, wi] != U0 or any_bits & ~bits != U0 or h.row[head, wi] & ~any_bits != U0 or odd_pattern:
            found = wi
    return found


@routine
def _audit_list(
    h: HostState, g: DomainState, which: int, seen: npt.NDArray[np.uint64], out: npt.NDArray[np.int64]
) -> int:
    """Entries on a list, noting its frames."""
    entries = 0
    position = list_first(g, which)
    pages = BLOCK_PAGES if which == SUPER else 1
    while position:
        first = int(h.chunk[position >> 6, 2 * (position & 63)])
        signed = int(h.chunk[position >> 6, 2 * (position & 63) + 1])
        size = abs(signed)
        entries += size
        low = first if signed > 0 else first - size + 1
        twice = claim_run(h, seen, low * pages, size * pages)
        if twice >= 0:
            out[F_TWICE] = twice
        if g.rec[0].odd_cached:
            for mfn in range(low * pages, (low + size) * pages):
                if h.attr[mfn] & SPECIAL:
                    out[F_SPECIAL_CACHED] += 1
        position = list_next(h, g, which, position)
    return entries


@kernel
def recount(h: HostState, g: DomainState, seen: npt.NDArray[np.uint64], out: npt.NDArray[np.int64]) -> None:
    """Count a domain anew from its table and lists."""
    out[:] = 0
    out[F_TWICE] = -1
    out[F_CONTENTS] = -1
    for b in range(g.rec[0].blocks):
        kind = g.blk[b, KIND]
        ram = int(g.blk[b, RAM_ROW])
        pod, some = g.blk[b, POD_ROW], g.blk[b, ANY]
        if kind == EMPTY and ram == ZEROS and pod == ZEROS and some == ZEROS and g.blk[b, HEAD] == ZEROS:
            continue
        wi = _contradicting_word(h, g, b)
        if wi >= 0:
            out[F_CONTENTS] = (b << 9) + 64 * wi
        if kind == POD or kind == TABLE:
            out[F_POD] += row_count(h, int(pod))
        if kind == RAM or kind == TABLE:
            out[F_RAM] += row_count(h, ram) - _count_special(h, g, b)
            twice = _claim_block(h, g, b, seen)
            if twice >= 0:
                out[F_TWICE] = twice
    out[F_SUPER] = _audit_list(h, g, SUPER, seen, out)
    out[F_SINGLE] = _audit_list(h, g, SINGLE, seen, out)


@kernel
def count_free(h: HostState) -> int:
    """Free frames by a walk over the machine blocks."""
    free = 0
    for mb in range(h.rec[0].blocks):
        mask = h.heap_masks[mb]
        if mask == HEAP_ALL:
            free += BLOCK_PAGES
        elif mask != 0:
            for wi in range(8):
                free += popcount(h.heap_rows[mb, wi])
    return free


@kernel
def count_loose(h: HostState, seen: npt.NDArray[np.uint64]) -> int:
    """Loose and retired frames by their attributes, noting them; -1 - mfn when one is elsewhere too."""
    loose = 0
    for mfn in range(h.rec[0].frames):
        if h.attr[mfn] & (LOOSE | RETIRED):
            if claim_run(h, seen, mfn, 1) >= 0:
                return -1 - mfn
            loose += 1
    return loose


def audit_domain(h: HostState, g: DomainState, domain: int, maxmem_pages: int, seen: npt.NDArray[np.uint64]) -> None:
    """Check one domain, noting its frames in `seen` (a bit each); InvariantError names domain, numbers and rule."""
    r = g.rec[0]
    out = np.zeros(FIELDS, np.int64)
    recount(h, g, seen, out)
    entries, cached, owned = int(r["entry_count"]), int(r["cache_count"]), int(r["tot_pages"])
    mapped, loose = int(out[F_RAM]), int(r["loose"])
    irregular = int(r["irregular"])
    if irregular & TABLE_CONFLICT and not r["dying"]:
        return  # R1: between the conflict and the end frames may be in two places

    def demand(holds: bool, rule: str, numbers: str) -> None:
        if not holds:
            raise InvariantError(f"[{rule}] violated: {numbers} (domain {domain})")

    demand(out[F_TWICE] < 0, "P15", f"frame {out[F_TWICE]} is in two places")
    demand(out[F_CONTENTS] < 0, "P15", f"content bits near gfn {out[F_CONTENTS]} contradict the entry")
    overstated = bool(irregular & RAM_OVER_POD and h.rec[0]["promises_stay"])  # E, by what RAM was put over [R12]
    if overstated:
        demand(out[F_POD] <= entries, "R12", f"pod frames in the table {out[F_POD]} <= entry_count {entries}")
    elif not r["dying"]:
        demand(out[F_POD] == entries, "P15", f"pod frames in the table {out[F_POD]} == entry_count {entries}")
    on_lists = int(BLOCK_PAGES * out[F_SUPER] + out[F_SINGLE])
    demand(on_lists == cached, "P15", f"frames on the cache lists {on_lists} == cache_count {cached}")
    lengths = (int(g.lists[SUPER, L_LENGTH]), int(g.lists[SINGLE, L_LENGTH]))
    demand(
        lengths == (out[F_SUPER], out[F_SINGLE]), "P15", f"list lengths {lengths} == {out[F_SUPER]}, {out[F_SINGLE]}"
    )
    counted = mapped + cached - int(out[F_SPECIAL_CACHED]) + loose
    demand(counted == owned, "P15", f"mapped {mapped} + cached {cached} + loose {loose} == tot_pages {owned}")
    if r["dying"]:
        return
    populated, ballooned_to, target = mapped, int(r["ballooned_to"]), int(r["target"])
    if not irregular & (EXTRA_REFERENCES | LOOSE_FRAMES | SPECIAL_PAGES):
        in_step = entries == ballooned_to - populated or overstated
        demand(in_step, "POD-2", f"E {entries} == B {ballooned_to} - P {populated}")
        demand(owned == populated + cached, "POD-3", f"tot {owned} == P {populated} + C {cached}")
    if r["built"]:
        in_debt = entries >= cached or bool(h.rec[0]["whole_extents"])  # R10 leaves a surplus in the cache
        demand(in_debt, "POD-4", f"debt E {entries} - C {cached} >= 0")
        if not irregular and target:
            # T <= B is not asked: a toolstack lets its guests balloon a little deeper than the debt. While there is a
            # debt, B is above what is owned, which is T and what lies beside it; that is POD-4.
            beside = int(r["beside"])
            demand(
                0 <= populated <= target + beside and ballooned_to <= maxmem_pages + beside,
                "POD-1",
                f"0 <= P {populated} <= T {target}, B {ballooned_to} <= M {maxmem_pages} (and {beside} beside both)",
            )


def audit_host(h: HostState, domains: Mapping[int, tuple[DomainState, int]], aside: npt.NDArray[np.int64]) -> None:
    """Check every domain and that each frame is in one place; `aside`: (first frame, count) of what is set aside."""
    r = h.rec[0]
    frames, free = int(r["frames"]), int(r["free"])
    seen = np.zeros(frames // 64 + 1, np.uint64)
    for number, (g, maxmem_pages) in domains.items():
        audit_domain(h, g, number, maxmem_pages, seen)
    for first, count in aside:
        twice = claim_run(h, seen, first, count)
        if twice >= 0:
            raise InvariantError(f"[P15] violated: frame {twice} is set aside and in another place (host)")
    if r["loose"]:
        loose = count_loose(h, seen)
        if loose != r["loose"]:
            raise InvariantError(f"[P15] violated: loose and retired frames {loose} == {r['loose']} (host)")
    if any(g.rec["irregular"][0] & TABLE_CONFLICT and not g.rec["dying"][0] for g, _ in domains.values()):
        return  # R1
    used = int(np.bitwise_count(seen).sum())
    walked = count_free(h)
    if walked != free or used + free != frames:
        numbers = f"used {used} + free {free} == frames {frames}, heap has {walked}"
        raise InvariantError(f"[P15] violated: {numbers} (host)")
    claims = sum(int(g.rec[0]["claim"]) for g, _ in domains.values())
    if claims != r["claims"]:
        raise InvariantError(f"[H3] violated: claims of the domains {claims} == outstanding {r['claims']} (host)")
