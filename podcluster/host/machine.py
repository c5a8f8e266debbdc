"""One Xen host and its domains: the Python face of the kernels.

What        `Machine` owns the arrays and offers the hypervisor's operations that the simulator uses, by number of the
            domain, whole ranges at a time. `traced.py` adds those of the golden traces.
Units       Pages of 4 KiB everywhere; first_gfn and count describe a range, `descending` the direction in which it is
            walked.
Rules       T1-T4, P1-P15 of docs/model.md; H1-H3 of docs/model.md.
"""

import gc
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from podcluster.errors import InvariantError
from podcluster.host import (
    access,
    audit,
    batches,
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
    PATTERNED,
    POD,
    RAM_ABOVE_TARGET,
    RECENT_AFTER,
    RING_EMPTY,
    RING_SUPER,
    TABLE,
    DomainState,
    detail_capacity,
    grown,
    new_domain_state,
    new_host_state,
    renew_domain_state,
    row_capacity,
)
from podcluster.host.takers import Taker, Turns
from podcluster.records.values import Int64Array

YOUNG = 100_000  # objects that are new before the collector looks at them; of a guest some hundreds stay, and what
# goes mostly goes by itself, or when it is let go of

gc.freeze()  # the compiler is a hundred thousand objects that stay: no collection need go through them again
if 0 < gc.get_threshold()[0] < YOUNG:
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])

FEWEST_PIECES = 1 << 10
PIECES = 1 << 15  # that several balloons take in one call
# Scratch of all hosts of a process, one at a time: what balloons take, and what following a demand puts down.
TAKEN = np.empty(turns.TAKEN_FIELDS * PIECES, np.int64)
TOLD = follow.room_for(1 << 15)
POD_SCRUBBED = 3
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


class Machine:
    """A host of `host_pages` frames, all of them free, without domains.

    `words`: keep the words of pages, for a `TracedMachine`, which sees to room for them; else only whether pages are
    zero. `era`: which hypervisor it runs. `ring_slots`: records in the recent list of each domain (P7), a power of
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
        self._aside: dict[int, list[tuple[int, int]]] = {}
        self._last_handle = 0
        self._touched: set[int] = set()
        self._audited: tuple[int, ...] = ()
        self._make_scratch()

    def _make_scratch(self) -> None:
        """Room for what kernels have to tell; nothing in it outlives a call."""
        self._out = np.empty(max(batches.B_FIELDS, turns.T_FIELDS), np.int64)
        self._pieces = np.empty(0, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        """What makes it the machine that it is: no scratch, no arrays to be used again."""
        passing = {"_out", "_pieces", "_h", "_domains"}
        kept = {name: value for name, value in vars(self).items() if name not in passing}
        return {**kept, "arrays": packed_arrays(self._h, self._domains), "_spare": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._h, self._domains = unpacked_arrays(state.pop("arrays"))
        vars(self).update(state)
        self._make_scratch()

    # ---- domains ----------------------------------------------------------------------------------------------------

    def create(
        self,
        dom: int,
        *,
        maxmem_pages: int,
        max_pages: int,
        paging: str = "hap",
        p2m: str = "ept",
        sp_1g: bool = True,
        sp_2m: bool = True,
    ) -> int:
        """A domain comes into being, empty. Always 0.

        `max_pages` is the quota, `maxmem_pages` the address space that its table is laid out for.
        """
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
        self._maxmem.pop(dom)
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

    def extend(self, dom: int, first_gfn: int, count: int) -> None:
        """The guest counts so many more gfns as its RAM (C1.9): M is more by that. Nothing is there yet."""
        self._reach(dom, first_gfn + count)
        self._maxmem[dom] += count

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
        r["pending_key"] = signed(key)
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

    # ---- PoD hypercalls ---------------------------------------------------------------------------------------------

    def set_pod_target(self, dom: int, pages: int) -> int:
        """P4: 0, -12 or -22."""
        return int(pod.set_target(self._h, self._changed(dom), pages))

    def mark_pod_extents(self, dom: int, runs: Sequence[tuple[int, int, int]]) -> int:
        """Mark runs of adjacent extents, (first gfn, count, order); number of extents done."""
        g = self._reach(dom, max(first + (count << order) for first, count, order in runs))
        return int(pod.mark_pod_extents(self._h, g, np.array(runs, np.int64).reshape(-1)))

    def populate_seq(self, dom: int, start: int, count: int, order: int, step: int) -> int:
        """Populate extents `step` extents apart; number done."""
        end = max(start, start + (count - 1) * (step << order)) + (1 << order)
        g = self._reach(dom, end)
        if order == 0 and step == 1:
            return int(ranges.populate_pages(self._h, g, start, count, step))
        return int(reservation.populate_seq(self._h, g, start, count, order, step))

    def map_page(self, dom: int, gfn: int, by: int) -> int:
        """Domain `by` maps a page of `dom`, which populates it: 0, or a status below 0; at a death the note says who
        (A6).
        """
        g = self._changed(dom)
        g.rec["accessor"] = by
        status = int(access.access_word(self._h, g, gfn, 0, 0, False))
        g.rec["accessor"] = -1
        return status

    def map_promised(self, dom: int, first_gfn: int, count: int, by: int) -> int:
        """Domain `by` maps what is promised in a range (A6.4); pages gone through, up to the death of the guest."""
        return int(access.map_promised(self._h, self._changed(dom), first_gfn, count, by))

    # ---- whole pages, ranges at a time ------------------------------------------------------------------------------

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """The guest overwrites whole pages with ZERO, DATA or PATTERN; pages done, holes included, up to its death."""
        first, step = _walk(first_gfn, count, descending)
        return int(ranges.touch_range(self._h, self._changed(dom), first, count, step, content))

    def touch_list(self, dom: int, gfns: Iterable[int], *, content: int) -> int:
        """The guest overwrites listed pages; pages done, up to the guest's death."""
        return int(ranges.touch_list(self._h, self._changed(dom), as_gfns(gfns), content))

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Give single pages back; pages done before the request stops."""
        first, step = _walk(first_gfn, count, descending)
        return int(ranges.balloon_range(self._h, self._changed(dom), first, count, step))

    def balloon_list(self, dom: int, gfns: Iterable[int]) -> int:
        """Give listed pages back; pages done before the request stops."""
        return int(ranges.balloon_list(self._h, self._changed(dom), as_gfns(gfns)))

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
        c, p = laid("common", common), laid("streams", streams)
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
        numbers, pieces = laid("books", s), self._room_for(room)
        follow_demand.follow_demand(
            self._h, self._changed(dom), books, numbers, laid("limits", d), curve, pieces, TOLD, float(pages_per_s)
        )
        return numbers.tolist(), TOLD

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

    def take_in_turns(self, doms: Sequence[int], takers: Sequence[Taker], least_pages: int) -> Turns:
        """`turns.take_in_turns`, and what each of the domains got in its table: what they came to. The takers are
        changed.
        """
        runs: list[int] = []
        for one in takers:
            one.fields[turns.RUN] = len(runs) // 2
            runs += one.runs
        p = laid("takers", [number for one in takers for number in one.fields])
        last_ns = min(one.until_ns for one in takers)
        turns.take_in_turns(self._h, p, np.array(runs, np.int64), last_ns, least_pages, TAKEN, self._out)
        for k, (dom, one) in enumerate(zip(doms, takers, strict=True)):
            one.fields = p[k * turns.TAKER_FIELDS : (k + 1) * turns.TAKER_FIELDS].tolist()
            if one.pages:
                turns.map_taken(self._h, self._changed(dom), TAKEN, one.fields[turns.FIRST_PIECE])
        count, first_ns, last_ns, pages, moment = self._out[: turns.T_FIELDS].tolist()
        return Turns(count, first_ns, last_ns, pages, moment + pages * first_ns)

    def take_back(
        self,
        dom: int,
        books: PageBooks,
        taker: Sequence[int],
        pages: int,
        common: Sequence[int],
        cache: Sequence[int],
        room: int,
        max_share: float,
        floor_share: float,
    ) -> tuple[list[int], list[int], list[int]]:
        """`turns.take_back`, with room for so many pieces: the taker, what is common and page cache, afterwards."""
        p, c, s = laid("takers", taker), laid("common", common), laid("streams", cache)
        g, pieces = self._changed(dom), self._room_for(room)
        turns.take_back(self._h, g, books, p, pages, c, s, pieces, max_share, floor_share)
        return p.tolist(), c.tolist(), s.tolist()

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

    def query(self, dom: int, gfn: int) -> list[int]:
        """[kind, order] without populating (T3): 0 empty, 1 RAM, 2 `pod`, 3 `pod_scrubbed` (S2)."""
        g = self._domains[dom]
        kind = int(p2m.page_kind(self._h, g, gfn))
        if kind == POD and int(self._h.row[g.blk[gfn >> 9, PATTERNED], (gfn & 511) >> 6]) >> (gfn & 63) & 1:
            kind = POD_SCRUBBED
        return [kind, 0 if self._is_2009 and kind == EMPTY else int(p2m.entry_order(g, gfn))]

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
        return pools + free + frames + tables + self._out.nbytes + self._pieces.nbytes

    def let_go(self) -> None:
        """Give the memory of its arrays back at once; it is of no use from here on."""
        vars(self).clear()

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


@cache
def _scratch(use: str, count: int) -> tuple[Int64Array, memoryview, Callable[..., None]]:
    """An array of so many numbers, its bytes, and what packs numbers into bytes."""
    array = np.empty(count, np.int64)
    return array, memoryview(array.data).cast("B"), struct.Struct(f"{count}q").pack_into


def laid(use: str, numbers: Sequence[int]) -> Int64Array:
    """These numbers for a kernel, until the next of the same use: scratch of all hosts of a process, one at a time.
    An array of its own for each call takes NumPy twice as long.
    """
    array, memory, pack = _scratch(use, len(numbers))
    pack(memory, 0, *numbers)
    return array


def _whole_gibs(pages: int) -> int:
    """Blocks of the whole GiB that hold `pages`."""
    return max(-(-pages // (GIB_BLOCKS * BLOCK_PAGES)), 1) * GIB_BLOCKS


def _walk(first_gfn: int, count: int, descending: bool) -> tuple[int, int]:
    """(first page, step) of a range that is walked up or down."""
    return (first_gfn + count - 1, -1) if descending else (first_gfn, 1)


def signed(value: int) -> int:
    """The int64 of the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def as_gfns(gfns: Iterable[int]) -> Gfns:
    """Listed gfns as kernels take them."""
    if isinstance(gfns, np.ndarray):
        return for_kernels(gfns)
    return np.array(list(gfns), np.int64)
