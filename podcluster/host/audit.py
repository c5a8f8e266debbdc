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


@kernel
def claim_run(h: HostState, seen: npt.NDArray[np.uint64], mfn: int, count: int) -> int:
    """Note that `count` frames from `mfn` on are here; a frame that is elsewhere too, else -1."""
    end = mfn + count
    if mfn < 0 or end > h.rec[0].frames:
        return abs(mfn)
    while mfn < end:
        span = min(end - mfn, 64 - (mfn & 63))
        m = span_mask(mfn & 63, span)
        mask = h.heap_masks[mfn >> 9]
        taken = seen[mfn >> 6]
        if mask == HEAP_ALL:
            taken = ALL
        elif mask != 0:
            taken |= h.heap_rows[mfn >> 9, (mfn & 511) >> 6]
        if taken & m != U0:
            return ((mfn >> 6) << 6) + ctz(taken & m)
        seen[mfn >> 6] |= m
        mfn += span
    return -1


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
        pod = int(g.blk[b, POD_ROW])
        if kind == EMPTY and ram == ZEROS and pod == ZEROS and g.blk[b, ANY] == ZEROS and g.blk[b, HEAD] == ZEROS:
            continue
        for wi in range(8):
            bits = h.row[ram, wi]
            any_bits = h.row[g.blk[b, ANY], wi]
            head = h.row[g.blk[b, HEAD], wi]
            odd_pattern = h.row[g.blk[b, PATTERNED], wi] & ~(head | h.row[pod, wi]) != U0
            if bits & h.row[pod, wi] != U0 or any_bits & ~bits != U0 or head & ~any_bits != U0 or odd_pattern:
                out[F_CONTENTS] = (b << 9) + 64 * wi
        if kind == POD or kind == TABLE:
            out[F_POD] += row_count(h, pod)
        if kind != RAM and kind != TABLE:
            continue
        odd = int(g.blk[b, ODD])
        if odd == ZEROS and g.blk[b, DETAIL] == 0 and row_count(h, ram) == BLOCK_PAGES:
            out[F_RAM] += BLOCK_PAGES
            twice = claim_run(h, seen, frame_of(h, g, b, 0), BLOCK_PAGES)
            if twice >= 0:
                out[F_TWICE] = twice
            continue
        for i in range(BLOCK_PAGES):
            if (h.row[ram, i >> 6] >> np.uint64(i & 63)) & U1 == U0:
                continue
            mfn = frame_of(h, g, b, i)
            if claim_run(h, seen, mfn, 1) >= 0:
                out[F_TWICE] = mfn
            elif h.attr[mfn] & SPECIAL == 0:
                out[F_RAM] += 1
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
