"""A machine as golden traces speak to it: one method for each of their operations, and their state record.

What        `TracedMachine`: extents one at a time or listed, words of pages, references and flags of frames, broken
            frames, and all that a state record says; named and answered as in docs/golden-traces.md.
Units       Pages of 4 KiB; extents of 2**order of them.
Rules       T1-T4, P1-P15, R1-R12 of docs/model.md, as the traces show them.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from podcluster.errors import InvariantError
from podcluster.host import access, contents, hashes, pod, reservation, teardown
from podcluster.host.eras import TODAY
from podcluster.host.machine import Gfns, Machine, as_gfns, signed
from podcluster.host.reservation import DONE
from podcluster.host.state import L_LENGTH, SHADOWED_PT, SINGLE, SPECIAL, SUPER

WORD_MASK = (1 << 64) - 1
FLAGS = {"special": SPECIAL, "shadowed_pt": SHADOWED_PT}
LISTS = {"super": SUPER, "single": SINGLE}


class Reference(NamedTuple):
    """An extra reference that somebody holds: on a frame, had through a gfn."""

    mfn: int
    dom: int
    gfn: int
    how: str


class TracedMachine(Machine):
    """A machine that does what a trace says, one operation after another."""

    def __init__(self, host_pages: int, **host: Any) -> None:
        """As the machine."""
        super().__init__(host_pages, **host)
        self._table_hashes: dict[int, tuple[int, dict[str, Any]]] = {}
        self._cache_hashes: dict[int, tuple[int, str]] = {}
        self._header_guests: dict[int, dict[str, Any]] = {}
        self._references: dict[int, Reference] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without hashes that were worked out."""
        return {**super().__getstate__(), "_table_hashes": {}, "_cache_hashes": {}}

    # ---- domains ----------------------------------------------------------------------------------------------------

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "TracedMachine":
        """The host of a golden trace; its guests come into being with `create(dom)`."""
        era = header.get("era", TODAY)
        machine = cls(header["host_pages"], scrub_on_free=header["scrub_on_free"], words=True, era=era)
        for guest in header["guests"]:
            machine._header_guests[guest["id"]] = {key: value for key, value in guest.items() if key != "id"}
        return machine

    def create(self, dom: int, **guest: Any) -> int:
        """As the machine does; without keywords as the trace's header describes it."""
        return super().create(dom, **(guest or self._header_guests[dom]))

    def forget(self, dom: int) -> None:
        """As the machine does."""
        super().forget(dom)
        self._table_hashes.pop(dom, None)
        self._cache_hashes.pop(dom, None)

    def state(self, dom: int) -> int:
        """A closing record; does nothing."""
        return 0

    # ---- hypercalls, an extent at a time ----------------------------------------------------------------------------

    def mark_pod(self, dom: int, gfn: int, order: int) -> int:
        """P5: 0, or -16 where there is RAM."""
        return int(pod.mark_pod(self._h, self._reach(dom, gfn + (1 << order)), gfn, order))

    def mark_pod_seq(self, dom: int, start: int, count: int, order: int) -> int:
        """Mark adjacent extents; number done."""
        return self.mark_pod_extents(dom, [(start, count, order)])

    def populate(self, dom: int, gfn: int, order: int) -> int:
        """Allocate an extent from the host and map it: 1, or 0."""
        return int(reservation.populate(self._h, self._reach(dom, gfn + (1 << order)), gfn, order))

    def populate_special(self, dom: int, gfn: int) -> int:
        """One special page, outside the quota: 1, or 0."""
        return int(reservation.populate_special(self._h, self._reach(dom, gfn + 1), gfn))

    def populate_list(self, dom: int, order: int, gfns: Iterable[int]) -> int:
        """Populate listed extents; number done."""
        done = 0
        for gfn in gfns:
            if not self.populate(dom, gfn, order):
                break
            done += 1
        return done

    def decrease(self, dom: int, gfn: int, order: int) -> list[int]:
        """P12 and the ordinary release: [1 if it ran to its end, pages that PoD handled]."""
        result = int(reservation.decrease(self._h, self._changed(dom), gfn, order))
        return [1, result - DONE] if result >= DONE else [0, result]

    def decrease_seq(self, dom: int, start: int, count: int, order: int, step: int) -> list[int]:
        """Several decreases, `step` extents apart; totals up to and with the first that does not run to its end."""
        return self.decrease_list(dom, order, [start + k * step * (1 << order) for k in range(count)])

    def decrease_list(self, dom: int, order: int, gfns: Iterable[int]) -> list[int]:
        """Decreases of listed extents; totals as in `decrease_seq`."""
        total, handled = 0, 0
        for gfn in gfns:
            done, dealt = self.decrease(dom, gfn, order)
            handled += dealt
            if not done:
                break
            total += 1
        return [total, handled]

    # ---- guest accesses to words ------------------------------------------------------------------------------------

    def read(self, dom: int, gfn: int, word: int) -> int:
        """The word at `gfn`, or a status below 0."""
        self._make_room_for_words(0)
        g = self._changed(dom)
        status = int(access.access_word(self._h, g, gfn, word, 0, False))
        return status if status else int(g.rec["stream_sum"][0]) & WORD_MASK

    def write(self, dom: int, gfn: int, word: int, value: int) -> int:
        """Write a word: 0 or a status below 0."""
        self._make_room_for_words(1)
        return int(access.access_word(self._h, self._changed(dom), gfn, word, signed(value), True))

    def read_seq(self, dom: int, start: int, count: int, step: int, word: int) -> list[int]:
        """Reads `step` gfns apart: [ok, holes, status, sum]."""
        return self._access(dom, _sequence(start, count, step), word, 0, False)

    def write_seq(self, dom: int, start: int, count: int, step: int, word: int, value: int) -> list[int]:
        """Writes `step` gfns apart: [ok, holes, status, 0]."""
        return self._access(dom, _sequence(start, count, step), word, value, True)

    def read_list(self, dom: int, word: int, gfns: Iterable[int]) -> list[int]:
        """Reads of listed gfns: [ok, holes, status, sum]."""
        return self._access(dom, as_gfns(gfns), word, 0, False)

    def write_list(self, dom: int, word: int, value: int, gfns: Iterable[int]) -> list[int]:
        """Writes of listed gfns: [ok, holes, status, 0]."""
        return self._access(dom, as_gfns(gfns), word, value, True)

    def _access(self, dom: int, gfns: Gfns, word: int, value: int, write: bool) -> list[int]:
        self._make_room_for_words(len(gfns) if write else 0)
        g = self._changed(dom)
        status = int(access.access_list(self._h, g, gfns, word, signed(value), write))
        r = g.rec[0]
        return [int(r["stream_ok"]), int(r["stream_holes"]), status, int(r["stream_sum"]) & WORD_MASK]

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """As the machine has it; where words are kept there is room for so many."""
        if self._h.rec["words"][0]:
            self._make_room_for_words(count)
        return super().touch_range(dom, first_gfn, count, content=content, descending=descending)

    def touch_list(self, dom: int, gfns: Iterable[int], *, content: int) -> int:
        """Likewise."""
        listed = as_gfns(gfns)
        if self._h.rec["words"][0]:
            self._make_room_for_words(len(listed))
        return super().touch_list(dom, listed, content=content)

    def _make_room_for_words(self, more: int) -> None:
        """Keep the hash of words at most half full."""
        h = self._h
        if not h.rec["words"][0]:
            raise InvariantError("words of pages are read and written only on a TracedMachine(words=True)")
        needed = int(h.rec["word_count"][0]) + more
        size = h.words.shape[0]
        if 2 * needed > size:
            while 2 * needed > size:
                size *= 2
            self._h = h.replace(words=np.zeros((size, 3), np.int64))
            contents.words_rehash(h, self._h)

    # ---- references, flags, broken frames ---------------------------------------------------------------------------

    def add_ref(self, dom: int, gfn: int, id: int, how: str = "plain") -> int:
        """An extra reference on the frame now at `gfn`: 0, or -1 where there is no RAM.

        `how`: `type`, it counts as a use of the frame's type; `grant`, the grant table names `gfn` as long as it lasts.
        Zero checks of rfc2009 see these two and no others [R7].
        """
        if id in self._references:
            return -1
        g = self._changed(dom)
        mfn = int(teardown.add_ref(self._h, g, gfn, how == "type"))
        if mfn < 0:
            return -1
        self._references[id] = Reference(mfn, dom, gfn, how)
        if how == "grant":
            self._set_grants(dom)
        return 0

    def _set_grants(self, dom: int) -> None:
        """Let the domain know what its grant table names."""
        gfns = [ref.gfn for ref in self._references.values() if ref.dom == dom and ref.how == "grant"]
        g = self._domains[dom].replace(grants=np.array([*gfns, 0], np.int64))
        g.rec["grants"] = len(gfns)
        self._domains[dom] = g

    def drop_ref(self, id: int, dom: int) -> int:
        """Drop a reference again, wherever its frame is by now; -1 for an unknown one."""
        held = self._references.pop(id, None)
        if held is None:
            return -1
        self._touched.add(held.dom)
        teardown.drop_ref(self._h, self._domains[held.dom], held.mfn, held.how == "type")
        if held.how == "grant":
            self._set_grants(held.dom)
        return 0

    def shadow_ref(self, dom: int, gfn: int) -> int:
        """A reference of a shadow mapping: 0, or -1."""
        return int(teardown.shadow_ref(self._h, self._changed(dom), gfn))

    def set_flag(self, dom: int, gfn: int, flag: str, on: bool) -> int:
        """Set or clear `special` or `shadowed_pt`: 0, 1 if already so, -1 where there is no RAM."""
        return int(teardown.set_flag(self._h, self._changed(dom), gfn, FLAGS[flag], bool(on)))

    def offline(self, dom: int, list: str, index: int, sub: int = 0) -> int:
        """P13, a memory error in a cached frame: 1, or -1."""
        return int(teardown.offline(self._h, self._changed(dom), LISTS[list], index, sub))

    # ---- looking ----------------------------------------------------------------------------------------------------

    def _hash_table(self, dom: int) -> dict[str, Any]:
        g = self._domains[dom]
        generation = int(g.rec["table_generation"][0])
        kept = self._table_hashes.get(dom)
        if kept is not None and kept[0] == generation:
            return kept[1]
        out = np.zeros(hashes.TABLE_FIELDS, np.uint64)
        hashes.hash_table(self._h, g, out)
        ram4k, ram2m, ram1g, pod4k, pod2m, pod1g, fnv, total, frames = out.tolist()
        table = {
            "ram4k": ram4k,
            "ram2m": ram2m,
            "ram1g": ram1g,
            "pod4k": pod4k,
            "pod2m": pod2m,
            "pod1g": pod1g,
            "p2m_fnv": f"{fnv:016x}",
            "p2m_sum": f"{total:016x}",
            "frames": f"{frames:016x}",
        }
        self._table_hashes[dom] = (generation, table)
        return table

    def _hash_cache(self, dom: int) -> str:
        g = self._domains[dom]
        generation = int(g.rec["cache_generation"][0])
        kept = self._cache_hashes.get(dom)
        if kept is None or kept[0] != generation:
            kept = (generation, f"{int(hashes.hash_cache(self._h, g)):016x}")
            self._cache_hashes[dom] = kept
        return kept[1]

    def state_record(self, dom: int) -> dict[str, Any]:
        """All fields of a golden state record (docs/golden-traces.md)."""
        g = self._domains[dom]
        r = dict(zip(g.rec.dtype.names or (), g.rec[0].item(), strict=True))
        if self._is_2009:
            recent = {"reclaim_super": r["reclaim_super"], "super_sweeps": r["super_sweeps"]}
        else:
            recent = {"mrp_idx": r["mrp_idx"], "mrp": f"{int(hashes.hash_ring(g)):016x}"}
        return {
            "dom": dom,
            "tot_pages": r["tot_pages"],
            "pod_count": r["cache_count"],
            "entry_count": r["entry_count"],
            "cache_super": int(g.lists[SUPER, L_LENGTH]),
            "cache_single": int(g.lists[SINGLE, L_LENGTH]),
            "max_guest": r["max_guest"],
            "reclaim_single": r["reclaim_single"],
            "crashed": r["crashed"],
            "host_free_pages": self.free_pages,
            "host_free_2m": self.free_2m,
            "ev": [r["populated_4k"], r["populated_2m"], r["reclaimed_4k"], r["reclaimed_2m"], r["splintered_2m"]],
            "sweeps": r["sweeps"],
            **self._hash_table(dom),
            "cache": self._hash_cache(dom),
            **recent,
        }

    def q_dump(self, dom: int) -> str:
        """The PoD line of the operator's debug key."""
        r = self._domains[dom].rec[0]
        return f"PoD entries={r['entry_count']} cachesize={r['cache_count']}"


def _sequence(start: int, count: int, step: int) -> Gfns:
    return start + step * np.arange(count, dtype=np.int64)
