"""The populate-on-demand manager as it first went into Xen, in January 2009, rule by rule, the slow way.

What        R1-R12 of docs/model.md as overrides of today's rules: what is not overridden did not differ.
Units       As in `tests/reference/pod.py`.
Invariants  After a conflict (R1) a frame may be mapped and cached at once, so that P15 holds again only when the domain
            has been destroyed. R12 leaves entry_count above the promises in the table.
Departs     Nowhere from the golden traces of that time. What no trace reaches follows the rules' text: type counts,
            grants (R7), accesses by other domains (R6), two conflicts in one access.
"""

from collections.abc import Iterable

from tests.reference.host import Domain, Frames
from tests.reference.pod import EBUSY, EINVAL, SUPERPAGE, PodManager, Resize
from tests.reference.table import EMPTY, POD, RAM, Table2009

SWEEP_LIMIT = 1024
TWO_32 = 1 << 32


class Pod2009(PodManager):
    """Populate on demand for one domain, as the RFC's code did it."""

    sweep_yields = False
    ring_slots = 1  # not there
    table_type = Table2009

    def __init__(self, domain: Domain, frames: Frames) -> None:
        super().__init__(domain, frames)
        assert isinstance(domain.table, Table2009)
        self.table = domain.table
        self.conflicts_told = 0
        self.locked = False  # R5: the table lock is held for ever

    # -- R2-R4 the cache ---------------------------------------------------------------------------------------------

    def cache_add(self, first: int, order: int) -> None:
        """To the tail of `super` or `single`, whatever the frames hold."""  # R2
        if order == 9:
            self.domain.cache_super.append(first)
        else:
            self.domain.cache_single.extend(range(first, first + (1 << order)))

    def set_cache_size(self, wanted: int, *, preemptible: bool) -> Resize:
        """Superpages in until `wanted` is reached or passed, then superpages out; failures are not told."""  # R3
        domain = self.domain
        while domain.count < wanted:
            first = self.frames.allocate(domain, 9)
            if first is None:
                return "done"
            self.cache_add(first, 9)
        while domain.count > wanted:
            order = 9 if domain.cache_super else 0
            first = self.cache_get(order)
            assert first is not None
            for mfn in range(first, first + (1 << order)):
                self.frames.drop_allocation(mfn)
        return "done"

    def set_target(self, target: int) -> int:
        """The set-target hypercall."""  # R4
        domain = self.domain
        if target > domain.max_pages:
            return EINVAL
        self.enter()
        self.take("hypercall_ns")
        if domain.entry_count == 0 or domain.destroyed or target < domain.tot_pages:
            return 0
        wanted = min(target - (domain.tot_pages - domain.count), domain.entry_count)
        if wanted <= domain.count:
            self.notes["assert"] = 1
        self.set_cache_size(wanted, preemptible=False)
        return 0

    # -- R5, R12 marking and real RAM --------------------------------------------------------------------------------

    def mark(self, gfn: int, order: int) -> int:
        """Promise an extent, whole."""  # R5
        kinds = [self.table.lookup(gfn + i)[0] for i in range(1 << order)]
        if RAM in kinds:
            self.locked = True
            return EBUSY
        if self.set_range(gfn, order, POD):
            self.domain.entry_count += (1 << order) - kinds.count(POD)
            result = 0
        else:
            result = EINVAL
        self.crash_after_conflict()
        return result

    def put_ram(self, gfn: int, order: int, mfn: int) -> None:
        """Map frames from the host; promises below stay counted, and where it fails the frames stay owned."""  # R12
        self.set_range(gfn, order, RAM, mfn)
        self.crash_after_conflict()

    def crash_after_conflict(self) -> bool:
        """Whether a 2 MiB entry was ever to be set over a table: then the guest is crashed."""  # R1
        if self.table.conflicts > self.conflicts_told:
            self.notes["conflict"] = self.table.conflicts - self.conflicts_told
            self.conflicts_told = self.table.conflicts
        if self.table.conflicts:
            self.domain.crashed = True
        return self.table.conflicts > 0

    # -- R6 populating -----------------------------------------------------------------------------------------------

    def demand_populate(self, gfn: int, order: int) -> bool:
        """One attempt to back the entry of this order around gfn; True means: look again."""
        domain = self.domain
        base = gfn >> order << order
        if domain.destroyed:
            return False
        if order == 9 and not domain.cache_super:  # step 1
            self.superpage_sweep()
        if not domain.cache_single and (order == 0 or not domain.cache_super):  # step 2
            self.emergency_sweep()
        if self.accessor is None:  # step 3
            domain.max_guest = max(domain.max_guest, gfn)
        if domain.count == 0:  # step 4
            domain.crashed = True
            self.notes["oom"] = {"dom": domain.dom}
            self.crash_after_conflict()
            return False
        mfn = self.cache_get(order)  # step 5
        if mfn is None:
            domain.splintered_2m += 1
            self.take("splinter_ns")
            for i in range(SUPERPAGE):
                self.set_range(base + i, 0, POD)
            return True
        self.set_range(base, order, RAM, mfn)
        domain.entry_count -= 1 << order
        if order == 9:
            domain.populated_2m += 1
            self.take("populate_2m_ns")
        else:
            domain.populated_4k += 1
            self.take("populate_4k_ns")
        return not self.crash_after_conflict()

    # -- R7 zero checks ----------------------------------------------------------------------------------------------

    def _is_plain(self, mfn: int) -> bool:
        """No page table; nothing else is asked at first."""
        return not self.frames.pages[mfn].shadowed_pt

    def would_be_reclaimed(self, gfn: int) -> bool:
        """Whether a check would take this page back now."""
        kind, mfn, _ = self.table.lookup(gfn)
        if kind != RAM or not self._is_plain(mfn) or self._is_granted(gfn, 0):
            return False
        page = self.frames.pages[mfn]
        return page.type_refs == 0 and not page.words

    def _is_granted(self, gfn: int, order: int) -> bool:
        return any(granted >> order == gfn >> order for granted in self.domain.granted)

    def check_superpage(self, gfn: int) -> bool:
        """Take a 2 MiB range back as a superpage if all of it is zero, or crash the guest in trying to."""
        self.take("look_ns")
        mfns: list[int] = []
        for i in range(SUPERPAGE):
            kind, mfn, _ = self.table.lookup(gfn + i)
            if kind != RAM:
                return False
            mfns.append(mfn)
        first = mfns[0]
        if first % SUPERPAGE or mfns != list(range(first, first + SUPERPAGE)):
            return False
        if not all(self._is_plain(mfn) for mfn in mfns):
            return False
        for mfn in mfns:
            self.take("check_nonzero_ns")
            if not self.frames.pages[mfn].head_is_zero:
                return False
        self.take("check_zero_ns")
        self.take("zero_4k_ns", SUPERPAGE - 1)
        self.set_range(gfn, 9, POD)
        in_use = self.frames.pages[first].type_refs > 0 or self._is_granted(gfn, 9)
        if in_use or any(self.frames.pages[mfn].words for mfn in mfns):
            self.set_range(gfn, 9, RAM, first)
            return False
        self.cache_add(first, 9)
        self.domain.entry_count += SUPERPAGE
        self.domain.reclaimed_2m += 1
        return True

    def check_frames(self, gfns: Iterable[int]) -> None:
        """Take back those of up to 16 gfns whose frame is zero."""
        passed = []
        for gfn in gfns:
            kind, mfn, _ = self.table.lookup(gfn)
            if kind != RAM:
                continue
            self.take("check_nonzero_ns")
            if self._may_be_reclaimed(mfn):
                self.take("check_zero_ns")
                self.set_range(gfn, 0, POD)
                if self.frames.pages[mfn].type_refs:
                    self.set_range(gfn, 0, RAM, mfn)
                else:
                    passed.append((gfn, mfn))
        for gfn, mfn in passed:
            if self.frames.pages[mfn].words or self._is_granted(gfn, 0):
                self.set_range(gfn, 0, RAM, mfn)
            else:
                self.cache_add(mfn, 0)
                self.domain.entry_count += 1
                self.domain.reclaimed_4k += 1

    # -- R8 superpage sweep ------------------------------------------------------------------------------------------

    def superpage_sweep(self) -> None:
        """Try superpages from where the last sweep stopped, downwards."""
        domain = self.domain
        domain.super_sweeps += 1
        start = domain.reclaim_super
        if start == 0:
            start = (domain.max_guest // SUPERPAGE * SUPERPAGE - SUPERPAGE) % TWO_32
        limit = max(start - SWEEP_LIMIT, 0)
        gfn = start
        while gfn > 0:
            if gfn <= self.table.highest_gfn:  # nothing can be found above, and there may be eight million steps
                self.check_superpage(gfn)
            else:
                top = self.table.highest_gfn // SUPERPAGE * SUPERPAGE + SUPERPAGE
                self.take("look_ns", (gfn - top) // SUPERPAGE + 1)
                gfn = top
            if gfn < limit and domain.cache_super:
                break
            gfn -= SUPERPAGE
        domain.reclaim_super = gfn - SUPERPAGE if gfn else 0

    # -- R10 giving memory back --------------------------------------------------------------------------------------

    def give_back(self, gfn: int, order: int) -> list[int]:
        """An extent, whole: [1 if all of it went, 1 if PoD said that it dealt with it]."""
        if self._deal_with(gfn, order):
            return [1, 1]
        for at in range(gfn, gfn + (1 << order)):
            kind, mfn, _ = self.table.lookup(at)
            if kind != RAM:
                return [0, 0]
            self.set_range(at, 0, EMPTY)
            self.frames.drop_allocation(mfn)
        return [1, 0]

    def _deal_with(self, gfn: int, order: int) -> bool:
        domain = self.domain
        self.take("look_ns")
        if domain.entry_count == 0 or domain.destroyed:
            return False
        kinds = [self.table.lookup(at)[0] for at in range(gfn, gfn + (1 << order))]
        pod, ram = kinds.count(POD), kinds.count(RAM)
        steal = domain.entry_count > domain.count
        if pod == 0 and not steal:
            return False
        if pod == 1 << order:
            self.set_range(gfn, order, EMPTY)
            domain.entry_count -= 1 << order
            return True
        others = (1 << order) - pod
        for at in range(gfn, gfn + (1 << order)):
            if not (pod > 0 or (steal and ram > 0)):
                break
            kind, mfn, _ = self.table.lookup(at)
            if kind == POD:
                self.set_range(at, 0, EMPTY)
                domain.entry_count -= 1
                pod -= 1
            elif kind == RAM and steal:
                self.set_range(at, 0, EMPTY)
                self.cache_add(mfn, 0)
                steal = domain.entry_count > domain.count
                ram -= 1
                others -= 1
        if domain.entry_count < domain.count:
            self.set_cache_size(domain.entry_count, preemptible=False)
        return others == 0
