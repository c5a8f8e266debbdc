"""One Xen host and its domains: the Python face of the kernels.

What        `Machine` owns the arrays and offers the hypervisor's operations, by number of the domain: those of the
            golden traces (one method each, named and answered as in docs/golden-traces.md) and those the simulator
            uses, whole ranges at a time.
Units       Pages of 4 KiB everywhere; first_gfn and count describe a range, `descending` the direction in which it is
            walked.
Rules       T1-T4, P1-P15 of docs/model.md; H1-H3 of docs/model.md.
"""

import gc
import mmap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from podcluster.errors import InvariantError
from podcluster.host import (
    access,
    audit,
    batches,
    contents,
    follow,
    follow_demand,
    frames,
    hashes,
    heap,
    merged,
    p2m,
    pending,
    pod,
    ranges,
    reclaim,
    reservation,
    teardown,
    turns,
)
from podcluster.host.eras import RFC2009, RING_SLOTS, SWITCHES, TODAY
from podcluster.host.layout import for_kernels
from podcluster.host.packed import packed_arrays, unpacked_arrays
from podcluster.host.page_sets import PageBooks
from podcluster.host.reservation import DONE
from podcluster.host.state import (
    BLOCK_FIELDS,
    BLOCK_PAGES,
    CHUNK_FIELDS,
    COSTS,
    DOMAIN_RECORD,
    EMPTY,
    ENOMEM,
    G_TABLE,
    GIB_BLOCKS,
    KIND,
    L_LENGTH,
    PATTERNED,
    POD,
    RAM_ABOVE_TARGET,
    RECENT_AFTER,
    RING_EMPTY,
    RING_SUPER,
    SHADOWED_PT,
    SINGLE,
    SPECIAL,
    SUPER,
    TABLE,
    DomainState,
    detail_capacity,
    grown,
    new_domain_state,
    new_host_state,
    renew_domain_state,
    row_capacity,
)
from podcluster.host.takers import Taker
from podcluster.records.values import Int64Array

YOUNG = 5000  # objects that are new before the collector looks at them; a guest is some hundreds, most of which stay

gc.freeze()  # the compiler is a hundred thousand objects that stay: no collection need go through them again
if 0 < gc.get_threshold()[0] < YOUNG:
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])

TOLD = 1 << 10  # of each kind that a kernel puts down at once, at first
TOLD_MOST = 1 << 14
RUNS_LOGGED = 1 << 12
FEWEST_PIECES = 1 << 10
PIECES = 1 << 15  # that several balloons take in one call
TAKEN = np.empty(turns.TAKEN_FIELDS * PIECES, np.int64)  # scratch of all hosts of a process, one at a time
TAKEN_LOG = np.empty(turns.LOG_FIELDS * RUNS_LOGGED, np.int64)
WORD_MASK = (1 << 64) - 1
FLAGS = {"special": SPECIAL, "shadowed_pt": SHADOWED_PT}
POD_SCRUBBED = 3
LISTS = {"super": SUPER, "single": SINGLE}
Gfns = npt.NDArray[np.int64]


class Counters(NamedTuple):
    """Counters of one domain [4 KiB pages, or events]."""

    tot_pages: int
    cache_count: int
    entry_count: int
    max_pages: int
    populated_pages: int
    populated_4k: int
    populated_2m: int
    reclaimed_4k: int
    reclaimed_2m: int
    splintered_2m: int
    sweeps: int
    sweep_looks: int
    crashed: int
    claim_pages: int


COUNTED = tuple(
    (DOMAIN_RECORD.names or ()).index({"claim_pages": "claim"}.get(name, name))
    for name in Counters._fields
    if name != "populated_pages"
)
"""Places in a domain's record of the counters that are kept there."""


class Ballooned(NamedTuple):
    """How far a balloon's batches came."""

    how: int  # ALL_GIVEN, HEAP_NEXT, DIED, CUT_SHORT
    whole_pages: int  # of the batches that are done
    zeroed_pages: int  # of the next batch, in its order
    given_pages: int

    @property
    def died(self) -> bool:
        """The guest did not survive the zeroing of the next batch."""
        return self.how == batches.DIED

    @property
    def cut_short(self) -> bool:
        """A hypercall did less than it was asked."""
        return self.how == batches.CUT_SHORT


class Reference(NamedTuple):
    """An extra reference that somebody holds: on a frame, had through a gfn."""

    mfn: int
    dom: int
    gfn: int
    how: str


class Machine:
    """A host of `host_pages` frames, all of them free, without domains.

    `words`: keep the words of pages, so that reads return what was written (golden traces); else only whether pages
    are zero. `era`: which hypervisor it runs. `ring_slots`: records in the recent list of each domain (P7), a power of
    two; None: as the era has it. `sweep_wraps`: not Xen, a sweep that reaches the bottom empty-handed goes on at the
    top. `costs`: ns that the hypervisor takes, by the names in `host.costs` (G6); none: no time passes.
    """

    paces = True

    def __init__(
        self,
        host_pages: int,
        *,
        scrub_on_free: bool = True,
        words: bool = False,
        era: str = TODAY,
        ring_slots: int | None = None,
        sweep_wraps: bool = False,
        costs: Mapping[str, int] | None = None,
    ) -> None:
        self._gfn_blocks = 0
        room = 2 * host_pages // BLOCK_PAGES  # for guests that are promised twice what there is; others make more
        self._h = new_host_state(host_pages, scrub_on_free=scrub_on_free, words=words, gfn_blocks=room)
        for switch, value in SWITCHES[era].items():
            self._h.rec[switch] = value
        heap.heap_init(self._h)
        self._ring_slots = ring_slots or RING_SLOTS[era]
        self._h.rec["sweep_wraps"] = sweep_wraps
        for name in COSTS:
            self._h.rec[name] = (costs or {}).get(name, 0)
        self._is_2009 = era == RFC2009
        self._domains: dict[int, DomainState] = {}
        self._maxmem: dict[int, int] = {}
        self._spare: dict[int, list[DomainState]] = {}  # arrays of domains that are gone, by blocks of room
        self._table_hashes: dict[int, tuple[int, dict[str, Any]]] = {}
        self._cache_hashes: dict[int, tuple[int, str]] = {}
        self._header_guests: dict[int, dict[str, Any]] = {}
        self._references: dict[int, Reference] = {}
        self._aside: dict[int, list[tuple[int, int]]] = {}
        self._last_handle = 0
        self._touched: set[int] = set()
        self._audited: tuple[int, ...] = ()
        self._make_scratch()

    def _make_scratch(self) -> None:
        """Room for what kernels have to tell; nothing in it outlives a call."""
        self._told = follow.room_for(TOLD)
        self._out = np.empty(batches.B_FIELDS, np.int64)
        self._pieces = np.empty(0, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """What makes it the machine that it is: no scratch, no arrays to be used again, no hashes worked out."""
        passing = {"_told", "_out", "_pieces", "_h", "_domains"}
        kept = {name: value for name, value in vars(self).items() if name not in passing}
        arrays = packed_arrays(self._h, self._domains)
        return {**kept, "arrays": arrays, "_spare": {}, "_table_hashes": {}, "_cache_hashes": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._h, self._domains = unpacked_arrays(state.pop("arrays"))
        vars(self).update(state)
        self._make_scratch()

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Machine":
        """The host of a golden trace; its guests come into being with `create(dom)`."""
        era = header.get("era", TODAY)
        machine = cls(header["host_pages"], scrub_on_free=header["scrub_on_free"], words=True, era=era)
        for guest in header["guests"]:
            machine._header_guests[guest["id"]] = {key: value for key, value in guest.items() if key != "id"}
        return machine

    # ---- domains ----------------------------------------------------------------------------------------------------

    def create(
        self,
        dom: int,
        *,
        maxmem_pages: int | None = None,
        max_pages: int | None = None,
        paging: str = "hap",
        p2m: str = "ept",
        sp_1g: bool = True,
        sp_2m: bool = True,
    ) -> int:
        """A domain comes into being, empty; without keywords as the trace's header describes it. Always 0.

        `max_pages` is the quota, `maxmem_pages` the address space that its table is laid out for.
        """
        if maxmem_pages is None or max_pages is None:
            return self.create(dom, **self._header_guests[dom])
        blocks = _whole_gibs(maxmem_pages)
        self._reserve(blocks)
        # xen2012 begins with gfn 0 in every slot.
        ring_start = RING_SUPER if self._h.rec["recent"][0] == RECENT_AFTER else RING_EMPTY
        # Beside RAM lie holes and what is in them: up to 4 GiB in any guest, and RAM that they push upwards.
        room = max(blocks, 4 * GIB_BLOCKS) + GIB_BLOCKS
        spare = self._spare.get(room)
        g = spare.pop() if spare else new_domain_state(room, self._ring_slots)
        renew_domain_state(g, blocks, ring_start)
        shadow = paging == "shadow"
        fixed = self._is_2009  # R1: page tables without entries of 1 GiB, whatever the paging
        g.rec["max_pages"] = max_pages
        g.rec["shadow"] = shadow
        g.rec["ept"] = p2m == "ept" and not shadow and not fixed
        g.rec["sp_1g"] = sp_1g and not shadow and not fixed  # T1
        g.rec["sp_2m"] = sp_2m or shadow or fixed
        self._domains[dom] = g
        self._maxmem[dom] = maxmem_pages
        return 0

    def forget(self, dom: int) -> None:
        """Drop what is kept of a destroyed domain that owns nothing any more."""
        g = self._domains.pop(dom)
        assert g.rec["dying"][0] and g.rec["tot_pages"][0] == 0, "only a destroyed domain without pages is forgotten"
        self._gfn_blocks -= int(g.rec["blocks"][0])
        self._spare.setdefault(len(g.blk), []).append(g)  # its table is empty: the next domain may have it
        for kept in (self._maxmem, self._table_hashes, self._cache_hashes):
            kept.pop(dom, None)
        self._touched.discard(dom)

    def _reserve(self, blocks: int) -> None:
        """Have rows and frame lists for `blocks` more blocks of guest memory, at the worst."""
        self._gfn_blocks += blocks
        h = self._h
        rows, details = row_capacity(self._gfn_blocks), detail_capacity(self._gfn_blocks)
        if rows > h.row.shape[0] or details > h.detail.shape[0]:
            # Twice what is needed: growing copies what is in use.
            self._h = h.replace(
                row=grown(h.row, 2 * rows, int(h.rec["row_top"][0])),
                detail=grown(h.detail, 2 * details, int(h.rec["detail_top"][0])),
            )

    def _reach(self, dom: int, end_gfn: int) -> DomainState:
        """The domain with an address space up to `end_gfn` at least."""
        g = self._changed(dom)
        held = int(g.rec["blocks"][0])
        if end_gfn > held * BLOCK_PAGES:
            blocks = _whole_gibs(end_gfn)
            self._reserve(blocks - held)
            g.rec["blocks"] = blocks
            if blocks > len(g.blk):
                gib = np.zeros(blocks // GIB_BLOCKS, np.int32)
                gib[: len(g.gib)] = g.gib
                g = g.replace(blk=grown(g.blk, blocks, held), gib=gib)
                self._domains[dom] = g
        return g

    def _changed(self, dom: int) -> DomainState:
        self._touched.add(dom)
        g = self._domains[dom]
        if self._is_2009 and g.rec["locked"][0]:
            raise InvariantError(
                f"[R5] the table lock of domain {dom} is held for ever: it was promised where it has RAM"
            )
        return g

    def set_max_pages(self, dom: int, pages: int) -> int:
        """Change the quota; nothing is taken away."""
        self._domains[dom].rec["max_pages"] = pages
        return 0

    def set_preempt(self, mode: str) -> int:
        """Host-wide: `always` there is pending work when the hypervisor polls for it, or `never`."""
        self._h.rec["preempt"] = mode == "always"
        return 0

    def set_clock(self, dom: int, now_ns: int) -> None:
        """The vCPU that acts next does so at `now_ns` (G6)."""
        self._domains[dom].rec["now_ns"] = now_ns

    def clock(self, dom: int) -> int:
        """Simulated time by now: `set_clock`'s, and what Xen has taken since."""
        return int(self._domains[dom].rec["now_ns"][0])

    def set_interrupts(self, dom: int, enabled: bool, vcpu: int) -> None:
        """The vCPU that acts next, and whether it has interrupts enabled (G7)."""
        r = self._domains[dom].rec
        r["irqs_on"], r["vcpu"] = enabled, vcpu

    def set_pending_work(self, dom: int, key: int, softirq_per_s: float, irq_per_s: float) -> None:
        """How often other work arrives for the CPU of a vCPU (G7): softirqs, and interrupts for the guest itself.

        `key` (64 bits) names the draw: the same key has the same arrivals. Infinite: whenever Xen looks.
        """
        r = self._domains[dom].rec
        r["pending_key"] = _signed(key)
        r["softirq_bin_ns"], r["irq_bin_ns"] = pending.bin_ns(softirq_per_s), pending.bin_ns(irq_per_s)

    def set_scrub_pattern(self, dom: int, on: bool) -> None:
        """Register the scrub pattern of a guest (S1), so that pages full of it are reclaimed too, or take it back."""
        if self._h.rec["words"][0] or self._is_2009:
            raise InvariantError("[S1] a host that keeps words, or one of 2009, knows no scrub pattern")
        self._domains[dom].rec["scrub_pattern"] = on

    def end_build(self, dom: int) -> None:
        """The builder is done: from here on the debt is not negative, and the equations count from here.

        What is owned beyond the target by now (the device model's video RAM and ROMs) lies beside it.
        """
        r = self._domains[dom].rec[0]
        r["built"] = 1
        r["beside"] = max(int(r["tot_pages"]) - int(r["target"]), 0) if r["target"] else 0
        r["irregular"] &= ~RAM_ABOVE_TARGET

    def claim(self, dom: int, pages: int) -> int:
        """Stake a claim on a final size (H2); 0 cancels. 0, -12 or -22."""
        return int(frames.claim(self._h, self._changed(dom), pages))

    def destroy(self, dom: int) -> int:
        """Tear-down; the domain's last counters stay."""
        teardown.destroy(self._h, self._changed(dom))
        return 0

    def state(self, dom: int) -> int:
        """A closing record; does nothing."""
        return 0

    # ---- PoD hypercalls ---------------------------------------------------------------------------------------------

    def set_pod_target(self, dom: int, pages: int) -> int:
        """P4: 0, -12 or -22."""
        return int(pod.set_target(self._h, self._changed(dom), pages))

    def mark_pod(self, dom: int, gfn: int, order: int) -> int:
        """P5: 0, or -16 where there is RAM."""
        return int(pod.mark_pod(self._h, self._reach(dom, gfn + (1 << order)), gfn, order))

    def mark_pod_seq(self, dom: int, start: int, count: int, order: int) -> int:
        """Mark adjacent extents; number done."""
        return self.mark_pod_extents(dom, [(start, count, order)])

    def mark_pod_extents(self, dom: int, runs: Sequence[tuple[int, int, int]]) -> int:
        """Mark runs of adjacent extents, (first gfn, count, order); number of extents done."""
        g = self._reach(dom, max(first + (count << order) for first, count, order in runs))
        return int(pod.mark_pod_extents(self._h, g, np.array(runs, np.int64).reshape(-1)))

    def populate(self, dom: int, gfn: int, order: int) -> int:
        """Allocate an extent from the host and map it: 1, or 0."""
        return int(reservation.populate(self._h, self._reach(dom, gfn + (1 << order)), gfn, order))

    def populate_special(self, dom: int, gfn: int) -> int:
        """One special page, outside the quota: 1, or 0."""
        return int(reservation.populate_special(self._h, self._reach(dom, gfn + 1), gfn))

    def populate_seq(self, dom: int, start: int, count: int, order: int, step: int) -> int:
        """Populate extents `step` extents apart; number done."""
        end = max(start, start + (count - 1) * (step << order)) + (1 << order)
        return int(reservation.populate_seq(self._h, self._reach(dom, end), start, count, order, step))

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
        return int(access.access_word(self._h, self._changed(dom), gfn, word, _signed(value), True))

    def read_seq(self, dom: int, start: int, count: int, step: int, word: int) -> list[int]:
        """Reads `step` gfns apart: [ok, holes, status, sum]."""
        return self._access(dom, _sequence(start, count, step), word, 0, False)

    def write_seq(self, dom: int, start: int, count: int, step: int, word: int, value: int) -> list[int]:
        """Writes `step` gfns apart: [ok, holes, status, 0]."""
        return self._access(dom, _sequence(start, count, step), word, value, True)

    def read_list(self, dom: int, word: int, gfns: Iterable[int]) -> list[int]:
        """Reads of listed gfns: [ok, holes, status, sum]."""
        return self._access(dom, _array(gfns), word, 0, False)

    def write_list(self, dom: int, word: int, value: int, gfns: Iterable[int]) -> list[int]:
        """Writes of listed gfns: [ok, holes, status, 0]."""
        return self._access(dom, _array(gfns), word, value, True)

    def _access(self, dom: int, gfns: Gfns, word: int, value: int, write: bool) -> list[int]:
        self._make_room_for_words(len(gfns) if write else 0)
        g = self._changed(dom)
        status = int(access.access_list(self._h, g, gfns, word, _signed(value), write))
        r = g.rec[0]
        return [int(r["stream_ok"]), int(r["stream_holes"]), status, int(r["stream_sum"]) & WORD_MASK]

    def map_page(self, dom: int, gfn: int, by: int) -> int:
        """Domain `by` maps a page of `dom`, which populates it: 0, or a status below 0; at a death the note says who
        (A6).
        """
        g = self._changed(dom)
        g.rec["accessor"] = by
        status = int(access.access_word(self._h, g, gfn, 0, 0, False))
        g.rec["accessor"] = -1
        return status

    def _make_room_for_words(self, more: int) -> None:
        """Keep the hash of words at most half full."""
        h = self._h
        if not h.rec["words"][0]:
            raise InvariantError("words of pages are read and written only on a Machine(words=True)")
        needed = int(h.rec["word_count"][0]) + more
        size = h.words.shape[0]
        if 2 * needed > size:
            while 2 * needed > size:
                size *= 2
            self._h = h.replace(words=np.zeros((size, 3), np.int64))
            contents.words_rehash(h, self._h)

    # ---- whole pages, ranges at a time ------------------------------------------------------------------------------

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """The guest overwrites whole pages with ZERO, DATA or PATTERN; pages done, holes included, up to its death."""
        if self._h.rec["words"][0]:
            self._make_room_for_words(count)
        first, step = _walk(first_gfn, count, descending)
        return int(ranges.touch_range(self._h, self._changed(dom), first, count, step, content))

    def touch_list(self, dom: int, gfns: Iterable[int], *, content: int) -> int:
        """The guest overwrites listed pages; pages done, up to the guest's death."""
        listed = _array(gfns)
        if self._h.rec["words"][0]:
            self._make_room_for_words(len(listed))
        return int(ranges.touch_list(self._h, self._changed(dom), listed, content))

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Give single pages back; pages done before the request stops."""
        first, step = _walk(first_gfn, count, descending)
        return int(ranges.balloon_range(self._h, self._changed(dom), first, count, step))

    def balloon_list(self, dom: int, gfns: Iterable[int]) -> int:
        """Give listed pages back; pages done before the request stops."""
        return int(ranges.balloon_list(self._h, self._changed(dom), _array(gfns)))

    def balloon_runs(
        self,
        dom: int,
        runs: Sequence[tuple[int, int]],
        *,
        batch_pages: int,
        ascending: bool = False,
        scrub: bool = False,
        until_heap: bool = False,
    ) -> Ballooned:
        """Give back runs of pages, `batch_pages` a hypercall; how far it came and why it stopped there."""
        listed = np.array(runs, np.int64).reshape(-1)
        out = np.empty(batches.B_FIELDS, np.int64)
        pieces = np.empty(len(listed) + 2, np.int64)
        g = self._changed(dom)
        batches.balloon_runs(self._h, g, listed, batch_pages, ascending, scrub, until_heap, pieces, out)
        return Ballooned(*out.tolist())

    def run_merged(
        self,
        dom: int,
        books: PageBooks,
        common: Sequence[int],
        streams: Sequence[int],
        strips: Int64Array,
        room: int,
        max_share: float,
        floor_share: float,
    ) -> tuple[list[int], list[int], list[int]]:
        """`merged.run_merged`, with room for so many pieces: what is common, the streams, and the pieces of a batch
        that was cut short, afterwards.
        """
        pieces = self._room_for(room)
        c, p = np.array(common, np.int64), np.array(streams, np.int64)
        merged.run_merged(self._h, self._changed(dom), books, c, p, strips, pieces, self._out, max_share, floor_share)
        numbers: list[int] = c.tolist()
        cut = numbers[merged.HOW] in (batches.DIED, batches.CUT_SHORT)
        return numbers, p.tolist(), pieces[: 2 * numbers[merged.PIECES]].tolist() if cut else []

    def follow_demand(
        self,
        dom: int,
        books: PageBooks,
        s: Sequence[int],
        d: Sequence[int],
        curve: follow.Curve,
        room: int,
        pages_per_s: float,
    ) -> tuple[list[int], follow.Told]:
        """The kernel of that name, with room for so many pieces: its books afterwards, and what it has told, until the
        next call.
        """
        numbers, told, pieces = np.array(s, np.int64), self._told, self._room_for(room)
        follow_demand.follow_demand(
            self._h, self._changed(dom), books, numbers, np.array(d, np.int64), curve, pieces, told, float(pages_per_s)
        )
        after = numbers.tolist()
        if after[follow.HOW] == follow.LISTS_FULL:
            self._told = follow.room_for(min(4 * len(told.kills), TOLD_MOST))
        return after, told

    def _room_for(self, pieces: int) -> Int64Array:
        """Scratch for so many pairs, and more."""
        if len(self._pieces) < 2 * pieces + 8:
            self._pieces = np.empty(4 * pieces + FEWEST_PIECES, np.int64)
        return self._pieces

    def populate_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Put real pages at gfns one by one (balloon deflation); pages done before the first failure."""
        g = self._reach(dom, first_gfn + count)
        first, step = _walk(first_gfn, count, descending)
        return int(ranges.populate_range(self._h, g, first, count, step))

    def take_in_turns(self, doms: Sequence[int], takers: Sequence[Taker], least_pages: int) -> list[tuple[int, int]]:
        """`turns.take_in_turns`, and what each of the domains got in its table: when how many pages were taken. The
        takers are changed.
        """
        runs: list[int] = []
        for one in takers:
            one.fields[turns.RUN] = len(runs) // 2
            runs += one.runs
        p = np.array([number for one in takers for number in one.fields], np.int64)
        taken, log, out = TAKEN, TAKEN_LOG, self._out
        last_ns = min(one.until_ns for one in takers)
        turns.take_in_turns(self._h, p, np.array(runs, np.int64), last_ns, least_pages, taken, log, out)
        for k, (dom, one) in enumerate(zip(doms, takers, strict=True)):
            one.fields = p[k * turns.TAKER_FIELDS : (k + 1) * turns.TAKER_FIELDS].tolist()
            if one.pages:
                turns.map_taken(self._h, self._changed(dom), taken, one.fields[turns.FIRST_PIECE])
        logged = turns.LOG_FIELDS * int(out[0])
        return [(at_ns, pages) for at_ns, pages in log[:logged].reshape(-1, 2).tolist()]

    # ---- references, flags, broken frames ---------------------------------------------------------------------------

    def query(self, dom: int, gfn: int) -> list[int]:
        """[kind, order] without populating (T3): 0 empty, 1 RAM, 2 `pod`, 3 `pod_scrubbed` (S2)."""
        g = self._domains[dom]
        kind = int(p2m.page_kind(self._h, g, gfn))
        if kind == POD and int(self._h.row[g.blk[gfn >> 9, PATTERNED], (gfn & 511) >> 6]) >> (gfn & 63) & 1:
            kind = POD_SCRUBBED
        return [kind, 0 if self._is_2009 and kind == EMPTY else int(p2m.entry_order(g, gfn))]

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

    # ---- host memory outside domains --------------------------------------------------------------------------------

    def set_aside(self, pages: int) -> int:
        """Take frames for Xen, dom0 or a paging pool: a handle, or -12 when they are not there or claimed."""
        r = self._h.rec[0]
        if pages + int(r["claims"]) > int(r["free"]):
            return ENOMEM
        runs = []
        order = 18
        while pages > 0:
            order = min(order, pages.bit_length() - 1)
            first = int(heap.heap_take(self._h, order))
            if first < 0:
                order -= 1
                continue
            runs.append((first, 1 << order))
            pages -= 1 << order
        self._last_handle += 1
        self._aside[self._last_handle] = runs
        return self._last_handle

    def release(self, handle: int) -> int:
        """Give back what `set_aside` took: 0, or -1 for an unknown handle."""
        runs = self._aside.pop(handle, None)
        if runs is None:
            return -1
        for first, count in runs:
            heap.heap_give_run(self._h, first, count)
        return 0

    # ---- looking ----------------------------------------------------------------------------------------------------

    @property
    def host_pages(self) -> int:
        """Frames of the machine."""
        return int(self._h.rec["frames"][0])

    @property
    def free_pages(self) -> int:
        """Free frames."""
        return int(self._h.rec["free"][0])

    @property
    def free_2m(self) -> int:
        """Free, aligned machine blocks of 2 MiB."""
        return int(self._h.rec["free_2m"][0])

    @property
    def outstanding_claims(self) -> int:
        """Pages claimed and not yet allocated, all domains."""
        return int(self._h.rec["claims"][0])

    def counters(self, dom: int) -> Counters:
        """The counters of a domain."""
        record = self._domains[dom].rec[0].item()
        values = [record[at] for at in COUNTED]
        populated = values[0] - values[1]
        return Counters._make([*values[:4], populated, *values[4:]])

    def nonzero_pages(self, dom: int) -> int:
        """Pages of a domain that are not zero, by a walk over its contents."""
        return int(ranges.count_contents(self._h, self._domains[dom]))

    def entry_count(self, dom: int) -> int:
        """Frames of outstanding `pod` entries."""
        return int(self._domains[dom].rec["entry_count"][0])

    def debt_pages(self, dom: int) -> int:
        """entry_count - cache_count."""
        r = self._domains[dom].rec[0]
        return int(r["entry_count"]) - int(r["cache_count"])

    def tot_pages(self, dom: int) -> int:
        """Pages that the domain owns, special ones left out."""
        return int(self._domains[dom].rec["tot_pages"][0])

    def crashed(self, dom: int) -> bool:
        """Whether the domain has run out of PoD memory."""
        return bool(self._domains[dom].rec["crashed"][0])

    def hazard(self, dom: int) -> tuple[int, int, int]:
        """Zero pages that a check would take back now, by why the last sweep left them: above its start (wrap), below
        where it was cut off (preemption), out of any sweep's reach (ring).
        """
        out = np.zeros(3, np.int64)
        reclaim.hazard(self._h, self._domains[dom], out)
        wrap, preempt, ring = out.tolist()
        return wrap, preempt, ring

    def take_notes(self) -> dict[str, Any]:
        """What happened since the last call: `oom` {dom, tot, ents, curr}, `nomem` {target, cache}, `assert` 1.

        rfc2009: `oom` {dom}, and `conflict`, how often a 2 MiB entry was to be set where a table hangs [R1].
        """
        notes: dict[str, Any] = {}
        for dom in sorted(self._touched):
            r = self._domains[dom].rec
            if r["oom"][0]:
                notes["oom"] = {"dom": dom}
                if not self._is_2009:  # its message names no numbers
                    tot, entries, by = int(r["oom_tot"][0]), int(r["oom_entries"][0]), int(r["oom_by"][0])
                    notes["oom"].update(tot=tot, ents=entries, curr=dom if by < 0 else by)
                r["oom"] = 0
            if r["conflicts"][0] > r["conflicts_told"][0]:
                notes["conflict"] = int(r["conflicts"][0] - r["conflicts_told"][0])
                r["conflicts_told"] = r["conflicts"]
            if r["nomem"][0]:
                notes["nomem"] = {"target": int(r["nomem_target"][0]), "cache": int(r["nomem_cache"][0])}
                r["nomem"] = 0
            if r["asserted"][0]:
                notes["assert"] = 1
                r["asserted"] = 0
        self._touched.clear()
        return notes

    def entry_map(self, dom: int) -> tuple[int, int, int, int, int, int]:
        """Entries by kind and size: ram4k, ram2m, ram1g, pod4k, pod2m, pod1g."""
        out = np.empty(6, np.int64)
        hashes.count_entries(self._h, self._domains[dom], out)
        ram4k, ram2m, ram1g, pod4k, pod2m, pod1g = out.tolist()
        return ram4k, ram2m, ram1g, pod4k, pod2m, pod1g

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

    def table_pages(self, dom: int) -> int:
        """Pages of the domain's table itself: the root, the tables below it, and one for each GiB and each 2 MiB that
        is not one entry (A3.9).
        """
        g = self._domains[dom]
        tables_2m = int(np.count_nonzero(g.blk[:, KIND] == TABLE))
        tables_1g = int(np.count_nonzero(g.gib == G_TABLE))
        return 1 + -(-len(g.gib) // GIB_BLOCKS) + tables_1g + tables_2m

    def memory_bytes(self, dom: int | None = None) -> int:
        """Bytes of the arrays that are kept for domains (all: None) and in use: table, contents, lists, ring, frames.

        Rows, frame lists and chunks are shared by a host's domains; asked for one domain, it must be the only one.
        """
        h = self._h.rec[0]
        domains = self._domains if dom is None else {dom: self._domains[dom]}
        shared = 64 * int(h["rows_used"]) + 4 * BLOCK_PAGES * int(h["details_used"])
        shared += 4 * CHUNK_FIELDS * int(h["chunks_used"])
        own = 0
        for g in domains.values():
            own += 4 * BLOCK_FIELDS * int(g.rec["blocks"][0])
            own += g.rec.nbytes + g.gib.nbytes + g.ring.nbytes + g.lists.nbytes
        return shared + own

    @property
    def resident_bytes(self) -> int:
        """About the memory that its arrays take: what was ever used of pools and tables, and what the free memory of
        the host is kept in. A host that does not scrub may have something to keep of every frame.
        """
        h = self._h
        r = h.rec[0]
        pools = sum(
            array[: int(r[top])].nbytes
            for array, top in ((h.row, "row_top"), (h.detail, "detail_top"), (h.chunk, "chunk_top"))
        )
        partly = int(np.count_nonzero((h.heap_masks != 0) & (h.heap_masks != heap.HEAP_ALL)))
        free = h.heap_bits.nbytes + h.heap_masks.nbytes + min(partly * mmap.PAGESIZE, h.heap_rows.nbytes)
        frames = h.page_words.nbytes + h.words.nbytes + (0 if r["scrub_on_free"] else h.attr.nbytes)
        domains = (*self._domains.values(), *(g for spare in self._spare.values() for g in spare))
        tables = sum(g.blk[: int(g.rec["blocks"][0])].nbytes for g in domains)
        told: list[Int64Array] = [getattr(self._told, name) for name in follow.WIDTHS]
        scratch = sum(one.nbytes for one in (*told, self._out, self._pieces))
        return pools + free + frames + tables + scratch

    def let_go(self) -> None:
        """Give the memory of its arrays back at once; it is of no use from here on."""
        vars(self).clear()

    def q_dump(self, dom: int) -> str:
        """The PoD line of the operator's debug key."""
        r = self._domains[dom].rec[0]
        return f"PoD entries={r['entry_count']} cachesize={r['cache_count']}"

    @staticmethod
    def oom_line(oom: Mapping[str, int]) -> str:
        """The line that Xen logs when a domain runs out of PoD memory."""
        if "tot" not in oom:
            return "p2m_pod_demand_populate: Out of populate-on-demand memory!"
        return (
            f"p2m_pod_demand_populate: Dom{oom['dom']} out of PoD memory! "
            f"(tot={oom['tot']} ents={oom['ents']} dom{oom['curr']})"
        )

    def audit(self, dom: int | None = None) -> None:
        """P15 and the equations of a regular life, for one domain or the whole host; InvariantError.

        The whole host is walked again only if something may have changed since it was last found in order.
        """
        if dom is not None:
            seen = np.zeros(self.host_pages // 64 + 1, np.uint64)
            audit.audit_domain(self._h, self._domains[dom], dom, self._maxmem[dom], seen)
            return
        now = (self.free_pages, self._last_handle, *(int(g.rec["generation"][0]) for g in self._domains.values()))
        if now == self._audited:
            return
        aside = np.array([run for runs in self._aside.values() for run in runs], np.int64).reshape(-1, 2)
        audit.audit_host(self._h, {k: (g, self._maxmem[k]) for k, g in self._domains.items()}, aside)
        self._audited = now


def _whole_gibs(pages: int) -> int:
    """Blocks of the whole GiB that hold `pages`."""
    return max(-(-pages // (GIB_BLOCKS * BLOCK_PAGES)), 1) * GIB_BLOCKS


def _walk(first_gfn: int, count: int, descending: bool) -> tuple[int, int]:
    """(first page, step) of a range that is walked up or down."""
    return (first_gfn + count - 1, -1) if descending else (first_gfn, 1)


def _signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def _array(gfns: Iterable[int]) -> Gfns:
    if isinstance(gfns, np.ndarray):
        return for_kernels(gfns)
    return np.array(list(gfns), np.int64)


def _sequence(start: int, count: int, step: int) -> Gfns:
    return start + step * np.arange(count, dtype=np.int64)
