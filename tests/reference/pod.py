"""The populate-on-demand manager of one domain, rule by rule, the slow way.

What        P1-P14 of docs/model.md as methods of `PodManager`, on a domain's record and the host's frames. No draws,
            no clock. What other eras do otherwise is in `tests/reference/eras.py`.
Units       Every count is 4 KiB pages. An order-k extent is 2**k pages.
Invariants  [POD-2], [POD-3] and P15 are audited by `model.ReferenceMachine.audit`.
Departs     Nowhere from the golden traces. The second promise (S1-S4) is not here; `PROMISED` is where a second kind
            would go.
"""

import math
from collections.abc import Iterable
from typing import Literal

from tests.reference.hashes import EMPTY_RING_SLOT
from tests.reference.host import Domain, Frames
from tests.reference.pending import arrivals
from tests.reference.table import EMPTY, NO_FRAME, POD, POD_SCRUBBED, RAM

SUPERPAGE = 512
RING_SUPERPAGE_BIT = 1 << 63
SWEEP_BATCH = 16
SWEEP_LIMIT = 1024
PROMISED = (POD, POD_SCRUBBED)
COSTS = (
    "look_ns",
    "check_nonzero_ns",
    "check_zero_ns",
    "populate_4k_ns",
    "populate_2m_ns",
    "zero_4k_ns",
    "splinter_ns",
    "hypercall_ns",
)

ENOMEM, EBUSY, EINVAL = -12, -16, -22
Resize = Literal["done", "enomem", "preempted"]


def chunk_order(gfn: int, order: int) -> int:
    """Order of the equal chunks an extent is worked in: the lowest set bit of gfn | 2**order."""  # P5
    bits = gfn | 1 << order
    return (bits & -bits).bit_length() - 1


class PodManager:
    """Populate on demand for one domain, as today's Xen does it."""

    sweep_yields = True  # a sweep stops when there is other work
    ring_slots = 32
    ring_start = EMPTY_RING_SLOT

    def __init__(self, domain: Domain, frames: Frames) -> None:
        self.domain = domain
        self.frames = frames
        self.notes: dict[str, object] = {}
        self.preempt = False  # is there other work whenever we look?
        self.accessor: int | None = None  # who accesses the guest's memory, if not the guest
        self.costs = dict.fromkeys(COSTS, 0)
        self.sweep_wraps = False
        self.scrub_pattern = False  # has the toolstack registered one?

    # -- time --------------------------------------------------------------------------------------------------------

    def take(self, cost: str, times: int = 1) -> None:
        """The hypervisor does something."""  # G6
        self.domain.now_ns += times * self.costs[cost]

    def enter(self) -> None:
        """The vCPU enters the hypervisor."""
        self.domain.entry_ns = self.domain.now_ns

    def work_waits(self) -> bool:
        """Has other work arrived for this CPU since the vCPU entered?"""  # G7
        domain = self.domain
        if self.preempt:
            return True
        kinds = [domain.softirq_per_s, domain.irq_per_s if domain.irqs_on else 0]
        for kind, per_s in enumerate(kinds):
            if math.isinf(per_s):
                return True
            if per_s and domain.now_ns > domain.entry_ns:
                first = next(arrivals(domain.pending_key, domain.vcpu, kind, per_s, domain.entry_ns))
                if first <= domain.now_ns:
                    return True
        return False

    # -- the table, with what follows from a change of translation ---------------------------------------------------

    def set_range(self, gfn: int, order: int, kind: int, mfn: int = NO_FRAME) -> bool:
        """Set part of the table; references of shadow mappings whose translation changes vanish."""
        domain = self.domain
        held = [(at, domain.table.lookup(at)[1]) for at in domain.shadow_refs if gfn <= at < gfn + (1 << order)]
        done = domain.table.set_range(gfn, order, kind, mfn)
        for at, old in held:
            if domain.table.lookup(at)[1] != old:
                self.frames.pages[old].shadow_refs -= domain.shadow_refs.pop(at)
        return done

    # -- P1-P4 the cache ---------------------------------------------------------------------------------------------

    def cache_add(self, first: int, order: int) -> None:
        """Frames go to the tail of `super` (2 MiB and up) or of `single`, cleared."""  # P1
        mfns = range(first, first + (1 << order))
        for mfn in mfns:
            self.frames.pages[mfn].words.clear()
            self.frames.pages[mfn].pattern = False
            self.take("zero_4k_ns")
        if order >= 9:
            self.domain.cache_super.extend(mfns[::SUPERPAGE])
        else:
            self.domain.cache_single.extend(mfns)

    def cache_get(self, order: int) -> int | None:
        """A superpage or a frame from the head; a superpage is broken for a frame, never put together."""  # P2
        domain = self.domain
        if order == 9:
            return domain.cache_super.popleft() if domain.cache_super else None
        if not domain.cache_single:
            first = domain.cache_super.popleft()
            domain.cache_single.extend(range(first, first + SUPERPAGE))
        return domain.cache_single.popleft()

    def set_cache_size(self, wanted: int, *, preemptible: bool) -> Resize:
        """Grow from the host or give back to it until the cache holds `wanted` pages."""  # P3
        domain = self.domain
        while wanted > domain.count:
            order = 9 if wanted - domain.count >= SUPERPAGE else 0
            first = self.frames.allocate(domain, order)
            if first is None and order == 9:
                order = 0
                first = self.frames.allocate(domain, order)
            if first is None:
                self.notes["nomem"] = {"target": wanted, "cache": domain.count}
                return "enomem"
            self.cache_add(first, order)
            if preemptible and self.work_waits() and domain.count != wanted:
                return "preempted"
        while wanted < domain.count:
            order = 9 if domain.count - wanted > SUPERPAGE and domain.cache_super else 0
            first = self.cache_get(order)
            assert first is not None
            for mfn in range(first, first + (1 << order)):
                self.frames.drop_allocation(mfn)
                if preemptible and self.work_waits() and domain.count != wanted:
                    return "preempted"  # what is left of the block is in neither cache nor table from now on
        return "done"

    def set_target(self, target: int) -> int:
        """The set-target hypercall, resumed at once until it is done."""  # P4
        domain = self.domain
        if target > domain.max_pages:
            return EINVAL
        while True:
            self.enter()
            self.take("hypercall_ns")
            populated = domain.tot_pages - domain.count
            if (populated > 0 and domain.entry_count == 0) or domain.destroyed or target < domain.tot_pages:
                return 0
            wanted = target - populated
            if populated > 0:
                wanted = min(wanted, domain.entry_count)
            if wanted < domain.count:
                self.notes["assert"] = 1
            outcome = self.set_cache_size(wanted, preemptible=True)
            if outcome != "preempted":
                return ENOMEM if outcome == "enomem" else 0

    # -- P5-P8 marking and populating --------------------------------------------------------------------------------

    def mark(self, gfn: int, order: int) -> int:
        """Promise an extent, chunk by chunk."""  # P5
        chunk = chunk_order(gfn, order)
        for start in range(gfn, gfn + (1 << order), 1 << chunk):
            replaced = 0
            for _, kind, _, size_order in self.domain.table.walk(start, chunk):
                if kind == RAM:
                    return EBUSY
                if kind in PROMISED:
                    replaced += 1 << size_order
            self.set_range(start, chunk, POD)
            self.domain.entry_count += (1 << chunk) - replaced
        return 0

    def demand_populate(self, gfn: int, order: int) -> bool:
        """One attempt to back the entry of this order around gfn; True means: look again."""  # P6
        domain = self.domain
        base = gfn >> order << order
        if domain.destroyed:  # step 1
            return False
        if order == 18:  # step 2
            self.set_range(base, 9, POD)
            self.take("splinter_ns")
            return True
        self.before_populate()  # step 3
        if domain.count == 0:  # step 4
            self.emergency_sweep()
        if domain.count == 0:  # step 5
            domain.crashed = True
            self.notes["oom"] = {
                "dom": domain.dom,
                "tot": domain.tot_pages,
                "ents": domain.entry_count,
                "curr": domain.dom if self.accessor is None else self.accessor,
            }
            return False
        domain.max_guest = max(domain.max_guest, gfn)  # step 6
        scrubbed = domain.table.lookup(gfn)[0] == POD_SCRUBBED
        mfn = self.cache_get(order)  # step 7
        if mfn is None:
            domain.splintered_2m += 1
            self.take("splinter_ns")
            for i in range(SUPERPAGE):
                self.set_range(base + i, 0, POD_SCRUBBED if scrubbed else POD)
            return True
        self.set_range(base, order, RAM, mfn)  # step 8
        if scrubbed:
            for i in range(1 << order):
                self._fill(mfn + i)
        domain.entry_count -= 1 << order
        if order == 9:
            domain.populated_2m += 1
            self.take("populate_2m_ns")
        else:
            domain.populated_4k += 1
            self.take("populate_4k_ns")
        self.after_populate(base, order)
        return True

    def before_populate(self) -> None:
        """What is looked at before a populate."""  # P6 step 3
        if self.domain.entry_count > self.domain.count:
            self.eager_reclaim()

    def after_populate(self, gfn: int, order: int) -> None:
        """What is remembered of a populate."""  # P7
        self.remember(gfn | RING_SUPERPAGE_BIT if order == 9 else gfn)

    def remember(self, record: int) -> int:
        """Put a record into the ring; what it replaced."""  # P7
        domain = self.domain
        replaced = domain.ring[domain.ring_index]
        domain.ring[domain.ring_index] = record
        domain.ring_index = (domain.ring_index + 1) % len(domain.ring)
        return replaced

    def eager_reclaim(self) -> None:
        """Try what was populated longest ago; more of it only while the cache is empty."""  # P8
        domain = self.domain
        index = domain.ring_index
        for _ in range(len(domain.ring)):
            slot, domain.ring[index] = domain.ring[index], EMPTY_RING_SLOT
            index = (index + 1) % len(domain.ring)
            if slot != EMPTY_RING_SLOT:
                gfn = slot & ~RING_SUPERPAGE_BIT
                if not slot & RING_SUPERPAGE_BIT:
                    self.take("look_ns")
                    self.check_frames([gfn])
                elif not self.check_superpage(gfn):
                    for i in range(SUPERPAGE):
                        self.take("look_ns")
                        self.check_frames([gfn + i])
            if domain.count > 0:
                return

    # -- P9-P11 finding zeroes ---------------------------------------------------------------------------------------

    def _is_plain(self, mfn: int) -> bool:
        """The first part of both checks: not special, no page table, not held."""
        page = self.frames.pages[mfn]
        allowed_refs = 1 if self.domain.shadow else 0  # meant for the shadow mapping, which goes by itself
        return not page.special and not page.shadowed_pt and page.other_refs <= allowed_refs

    def _may_be_reclaimed(self, mfn: int) -> bool:
        """And the first 128 bytes are zero, or the pattern."""
        return self._is_plain(mfn) and self._promise(mfn) is not None

    def _promise(self, mfn: int) -> int | None:
        """What a frame could be promised as, by its first 128 bytes: zero, full of the pattern, or not at all."""  # S2
        page = self.frames.pages[mfn]
        if self.scrub_pattern and page.pattern:
            return POD_SCRUBBED
        return POD if page.head_is_zero else None

    def _is_zero_and_unheld(self, mfn: int) -> bool:
        """The second part: nothing holds it, and all of it is zero, or the pattern."""
        page = self.frames.pages[mfn]
        return page.other_refs == 0 and (not page.words or (self.scrub_pattern and page.pattern))

    def _fill(self, mfn: int) -> None:
        """Fill a frame with the pattern."""  # S3
        page = self.frames.pages[mfn]
        page.words[0], page.pattern = 1, True
        self.take("zero_4k_ns")

    def check_superpage(self, gfn: int) -> bool:
        """Take a 2 MiB range back as a superpage if all of it is zero."""  # P9
        domain = self.domain
        self.take("look_ns")
        mfns: list[int] = []
        for _, kind, mfn, order in domain.table.walk(gfn, 9):
            if kind != RAM:
                return False
            mfns.extend(range(mfn, mfn + (1 << order)))
        first = mfns[0]
        if first % SUPERPAGE or mfns != list(range(first, first + SUPERPAGE)):
            return False
        if not all(self._is_plain(mfn) for mfn in mfns):
            return False
        for mfn in mfns:
            self.take("check_nonzero_ns")
            if self._promise(mfn) is None or self._promise(mfn) != self._promise(first):  # S4
                return False
        promise = self._promise(first)
        assert promise is not None
        self.set_range(gfn, 9, promise)
        self.take("check_zero_ns")
        self.take("zero_4k_ns", SUPERPAGE - 1)  # what the others take to read
        if not all(self._is_zero_and_unheld(mfn) for mfn in mfns):
            self.set_range(gfn, 9, RAM, first)  # as one entry, whatever it was before
            return False
        self.cache_add(first, 9)
        domain.entry_count += SUPERPAGE
        domain.reclaimed_2m += 1
        return True

    def check_frames(self, gfns: Iterable[int]) -> None:
        """Take back those of up to 16 gfns whose frame is zero."""  # P10
        domain = self.domain
        candidates = []
        for gfn in gfns:
            kind, mfn, _ = domain.table.lookup(gfn)
            if kind == RAM:
                self.take("check_nonzero_ns")
                if self._may_be_reclaimed(mfn):
                    candidates.append((gfn, mfn))
                    self.take("check_zero_ns")
        for gfn, mfn in candidates:
            promise = self._promise(mfn)
            assert promise is not None
            self.set_range(gfn, 0, promise)
        for gfn, mfn in candidates:
            if self._is_zero_and_unheld(mfn):
                self.cache_add(mfn, 0)
                domain.entry_count += 1
                domain.reclaimed_4k += 1
            else:
                self.set_range(gfn, 0, RAM, mfn)

    def emergency_sweep(self) -> None:
        """Look for zero frames downwards from where the last sweep stopped."""  # P11
        domain = self.domain
        domain.sweeps += 1
        if domain.reclaim_single == 0:
            domain.reclaim_single = domain.max_guest
        start = domain.reclaim_single
        gfn = self._sweep_down(start, 0, max(start - SWEEP_LIMIT, 0))
        domain.reclaim_single = gfn - 1 if gfn > 0 else 0
        domain.sweep_from, domain.sweep_to, domain.sweep_wrapped = start, gfn, False
        if self.sweep_wraps and gfn == 0 and domain.count == 0 and start < domain.max_guest:
            gfn = self._sweep_down(domain.max_guest, start, start - SWEEP_LIMIT + domain.max_guest)
            domain.reclaim_single = gfn - 1 if gfn > start else 0
            domain.sweep_to, domain.sweep_wrapped = gfn, True

    def _sweep_down(self, start: int, floor: int, limit: int) -> int:
        """From `start` to above `floor`; where it stopped, `floor` if it did not."""
        domain = self.domain
        gathered: list[int] = []
        gfn = start
        while gfn > floor:
            self.take("look_ns")
            domain.sweep_looks += 1
            if domain.table.lookup(gfn)[0] == RAM:
                gathered.append(gfn)
                if len(gathered) == SWEEP_BATCH:
                    self.check_frames(gathered)
                    gathered = []
            if gfn < limit and (domain.count > 0 or (self.sweep_yields and self.work_waits())):
                break
            gfn -= 1
        self.check_frames(gathered)
        return gfn

    def would_be_reclaimed(self, gfn: int) -> bool:
        """Whether a check would take this page back now."""
        kind, mfn, _ = self.domain.table.lookup(gfn)
        if kind != RAM or not self._may_be_reclaimed(mfn):
            return False
        page = self.frames.pages[mfn]
        return page.extra_refs == 0 and (not page.words or self._promise(mfn) == POD_SCRUBBED)

    def hazard(self) -> tuple[int, int, int]:
        """Pages that a check would take back, but that lie where the last sweep did not look: above, below, never."""
        domain = self.domain
        above = below = never = 0
        for first, _, _, order in domain.table.entries():
            for gfn in range(first, first + (1 << order)):
                if self.would_be_reclaimed(gfn):
                    never += gfn == 0 or gfn > domain.max_guest
                    above += not domain.sweep_wrapped and domain.sweep_from < gfn <= domain.max_guest
                    below += (domain.sweep_from if domain.sweep_wrapped else 0) < gfn < domain.sweep_to
        return above, below, never

    # -- real RAM ----------------------------------------------------------------------------------------------------

    def put_ram(self, gfn: int, order: int, mfn: int) -> None:
        """Map frames from the host, over whatever is there; promises that they replace are taken off."""
        promised = sum(self.domain.table.lookup(gfn + i)[0] in PROMISED for i in range(1 << order))
        self.set_range(gfn, order, RAM, mfn)
        self.domain.entry_count -= promised

    def give_back(self, gfn: int, order: int) -> list[int]:
        """An extent, to PoD first and then the ordinary way: [1 if it ran to the end, pages that PoD dealt with]."""
        handled = self.decrease(gfn, order)
        left = handled
        j = 0
        while j + left < 1 << order:
            kind, mfn, _ = self.domain.table.lookup(gfn + j)
            if kind == RAM:
                self.set_range(gfn + j, 0, EMPTY)
                self.frames.drop_allocation(mfn)
            elif left == 0 or kind in PROMISED:
                return [0, handled]
            else:
                left -= 1
            j += 1
        return [1, handled]

    # -- P12 giving memory back --------------------------------------------------------------------------------------

    def decrease(self, gfn: int, order: int) -> int:
        """What PoD does before the ordinary release of an extent; returns the pages it dealt with."""  # P12
        chunk = chunk_order(gfn, order)
        return sum(self._decrease_chunk(start, chunk) for start in range(gfn, gfn + (1 << order), 1 << chunk))

    def _decrease_chunk(self, gfn: int, order: int) -> int:
        domain = self.domain
        self.take("look_ns")
        if domain.entry_count == 0 or domain.destroyed:  # step 1
            return 0
        size = 1 << order
        pod = ram = 0  # step 2
        for _, kind, mfn, piece in domain.table.walk(gfn, order):
            if kind in PROMISED:
                pod += 1 << piece
            elif kind == RAM and not self.frames.pages[mfn].special:
                ram += 1 << piece
        steal = domain.entry_count > domain.count
        if pod == 0 and not steal:  # step 3
            return 0
        handled = 0
        if pod == size:  # step 4
            self.set_range(gfn, order, EMPTY)
            domain.entry_count -= size
            handled = size
        else:
            if steal and size < SUPERPAGE and ram == size and self.check_superpage(gfn >> 9 << 9):  # step 5
                pod, ram = size, 0
            for at, kind, mfn, piece in domain.table.walk(gfn, order):  # step 6
                if not (pod > 0 or (steal and ram > 0)):
                    break
                pages = 1 << piece
                if kind in PROMISED:
                    self.set_range(at, piece, EMPTY)
                    domain.entry_count -= pages
                    pod -= pages
                    handled += pages
                elif steal and kind == RAM and not self.frames.pages[mfn].special:
                    self.set_range(at, piece, EMPTY)
                    self.cache_add(mfn, piece)
                    steal = domain.entry_count > domain.count
                    ram -= pages
                    handled += pages
        if domain.entry_count < domain.count:  # step 7
            self.set_cache_size(domain.entry_count, preemptible=False)
        return handled

    # -- P13, P14 ----------------------------------------------------------------------------------------------------

    def offline(self, which: str, index: int, sub: int) -> bool:
        """A cached frame breaks: retired and, if possible, replaced. False: no such frame, or it is held."""  # P13
        domain = self.domain
        entries = domain.cache_super if which == "super" else domain.cache_single
        if not 0 <= index < len(entries):
            return False
        mfn = entries[index] + (sub if which == "super" else 0)
        if self.frames.pages[mfn].other_refs:
            return False
        if which == "super":
            first = domain.cache_super[index]
            del domain.cache_super[index]
            domain.cache_single.extend(range(first, first + SUPERPAGE))
        domain.cache_single.remove(mfn)
        self.frames.retire(mfn)
        replacement = self.frames.allocate(domain, 0)
        if replacement is not None:
            self.cache_add(replacement, 0)
        return True

    def destroy(self) -> None:
        """Everything goes back to the host; what others hold goes when they let go."""  # P14
        domain = self.domain
        domain.destroyed = True
        for gfn, references in domain.shadow_refs.items():
            self.frames.pages[domain.table.lookup(gfn)[1]].shadow_refs -= references
        domain.shadow_refs.clear()
        domain.table.clear()
        domain.cache_super.clear()
        domain.cache_single.clear()
        self.frames.outstanding_claims -= domain.claim_pages  # H3.5
        domain.claim_pages = 0
        for mfn in sorted(domain.owned):
            if self.frames.pages[mfn].allocated:
                self.frames.drop_allocation(mfn)
