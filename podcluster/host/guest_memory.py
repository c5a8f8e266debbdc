"""A guest's own books of its memory: what its allocator hands out, in which order, and which pages hold data.

What        `GuestMemory`: sets and orders of pages (page_runs.py) together with the page mechanism: pages are written
            and given back through it, and it knows when the guest has died of an access.
Units       Pages of 4 KiB; a run is (first gfn, count).
Symbols     kernel    what the kernel never gives back: firmware's pages, kernel and initramfs, page descriptors
            held      what services and applications hold; `resident` is the part in memory, the rest is in swap
            cache     page cache, droppable
            room      pages that held and cache can have: RAM less kernel (written yet or not) less ballooned
            in use    allocated kernel pages + resident + cache: always the first pages of the allocator's order (G2:
                      what is freed last is taken first), so that only growth beyond the most that was ever in use
                      writes a page for the first time
Invariants  [GM-1] 0 <= resident, 0 <= cache, resident + cache <= room
            [GM-2] every page in use holds data, and so does every page that was freed, unless the kernel zeroes what
                   is freed; untouched and deflated pages do not
            [GM-3] `nonzero_pages` counts gfns (of RAM and of the device model) that hold data and are not ballooned. It
                   is kept in a set of its own, from what the guest wrote and gave back, and never asks the host.
            [G11]  a living guest has nonzero_pages <= owned (tot_pages). The page that a guest died writing counts as
                   one more, so that nonzero_peak > owned for exactly those whose death no reclaim could have prevented.
            [G12]  once entry_count is 0 nothing the guest writes changes Xen's state, and the mechanism is no longer
                   called for it.
Departs     Which page of used or cache memory is freed is not modelled page by page: it is always the one taken last.
            Page cache that is dropped is reused at once by whoever needed it. A kernel that zeroes on free does so in
            no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from podcluster.host import follow, merged
from podcluster.host.batches import CUT_SHORT, DIED
from podcluster.host.domain import ABOVE_4G, MMIO_HOLE, Layout, Run, lowest_gap, without
from podcluster.host.failures import NO_EXTENT, NO_TABLE
from podcluster.host.lock import Lock
from podcluster.host.mechanism import Mechanism
from podcluster.host.page_runs import (
    Allocator,
    PageSet,
    PageStack,
    batches,
    first_pages,
    free_runs,
    pop_runs,
    push_below,
    shuffled_blocks,
)
from podcluster.host.page_sets import PageBooks
from podcluster.host.shares import Share
from podcluster.host.takers import Taker
from podcluster.host.written import DATA, PATTERN, ZERO
from podcluster.host.xl import Numbers
from podcluster.records.fates import Cause
from podcluster.records.migration import GuestState
from podcluster.records.values import Int64Array
from podcluster.units import PAGES_PER_GIB, SUPERPAGE_ORDER, SUPERPAGE_PAGES

KERNEL_GFN: Final = 0x1000  # 16 MiB: where a boot loader puts a kernel
MANY_RUNS: Final = 16  # of free memory; for fewer there is room from the start
NEXT_RUNS: Final = 64  # of the pool that following a demand takes at once, as a rule
FIRMWARE_END: Final = 0x180  # tables, BIOS and hvmloader: low memory up to 1.5 MiB


class Merged(NamedTuple):
    """How streams that were run together came out (merged.py)."""

    how: int
    turn: int  # of whom: the one that died, was cut short, or would be next
    given: int  # pages that Xen took of a batch cut short
    shares: list[Share]
    held: int
    floor: int


class GuestMemory:
    """The books of one guest and its hands on the machine."""

    def __init__(
        self,
        machine: Mechanism,
        domid: int,
        layout: Layout,
        *,
        image_pages: int,
        descriptor_pages: int,
        block_pages: int,
        rng: np.random.Generator | None,
        may_skip: bool,
        zero_on_free: bool = False,
        lock: Lock | None = None,
        descriptor_share: int = 64,
        numbers: Numbers | None = None,
    ) -> None:
        """`image_pages` of kernel at 16 MiB, `descriptor_pages` wherever the allocator puts them; what is added later
        takes one for each `descriptor_share`.

        `rng` for random blocks, None for highest gfn first; `may_skip`: [G12] may be used. `lock` None: nothing that
        Xen does takes time. `numbers` say how large the pool of its tables is; None: it is never short.
        """
        self.lock = lock or Lock(None, domid)
        self._machine = machine
        self._domid = domid
        self.may_skip = may_skip
        self.paces = machine.paces
        self.zero_on_free = zero_on_free
        self.ram = layout.ram
        self.pattern_is_zero = False  # Xen knows the scrub pattern (S1)
        self.ram_pages = layout.ram_pages
        self.hotplugged: tuple[Run, ...] = ()  # of it, what was added since it booted
        self._beside = (*layout.extra, (MMIO_HOLE, ABOVE_4G - MMIO_HOLE))  # gfns where no RAM can be added
        self._descriptor_share = descriptor_share
        self._numbers = numbers
        end = max(first + count for first, count in layout.ram)
        self._nonzero = PageSet(end)
        self._extra_pages = layout.extra_pages  # the device model's, which hold data from the start
        self.firmware = _clip(layout.ram, 0, FIRMWARE_END)
        self.image = _clip(layout.ram, KERNEL_GFN, KERNEL_GFN + image_pages)
        kept = (*self.firmware, *self.image)
        self._reserved = PageSet(max((first + count for first, count in kept), default=0))
        for run in kept:
            self._reserved.add(*run)
        self._away = PageSet(end)  # ballooned gfns
        self._balloon = PageStack()  # the same, in order
        self._arrays: PageBooks | None = None  # of all of these, as of the last call of a kernel
        pool = without(layout.ram, kept)
        self._allocator = Allocator(shuffled_blocks(pool, block_pages, rng) if rng is not None else pool)
        # Of memory in blocks, about so many runs are in each at some time.
        if (runs := self._allocator.pool.run_count) > MANY_RUNS:
            for one in (self._nonzero, self._away, self._balloon, self._allocator.taken):
                one.make_room(runs)
        # What of the image did not fit at 16 MiB is allocated like the descriptors.
        self.descriptor_pages = descriptor_pages
        to_allocate = descriptor_pages + image_pages - sum(count for _, count in self.image)
        # Never given back, spoken for from the start whether written yet or not.
        self.kernel_pages = self._reserved.pages + to_allocate
        self.kernel_allocated = 0
        self.ballooned_pages = 0  # as of the last refresh
        self.resident = 0
        self.cache = 0
        self.crashed = False
        self.oom: dict[str, int] = {}  # what Xen logged at its death
        self.refusal = ""  # what it logged when the host last had fewer pages than asked
        # Of what went to the host, until it is taken down: (when the last did, pages, pages times when added up).
        self.freed: list[tuple[int, int, int]] = []
        # (a look at the host, entries that it and all after it find) since this was last taken down.
        self.entries_seen: list[tuple[int, int]] = []
        self.nonzero_peak = self._extra_pages
        self.owned = 0
        self.margin = 0
        self.entry_count = 0
        self.debt = 0  # E - C, as of the last refresh
        self.debt_paid_ns: int | None = None  # since when it is seen to owe nothing
        self.inert = False
        # Its table may want more pages than its pool has.
        self.short_of_tables = numbers is not None and numbers.tables_may_run_short()
        self.refresh()
        self.margin = self.owned - self.nonzero_pages

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_arrays": None}

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def nonzero_pages(self) -> int:
        """Distinct gfns that hold data and are not ballooned [GM-3]."""
        return self._nonzero.pages + self._extra_pages

    @property
    def written_pages(self) -> int:
        """Of these, RAM: pages that the guest has written."""
        return self._nonzero.pages

    @property
    def nonzero_runs(self) -> list[Run]:
        """RAM gfns that hold data, ascending."""
        return self._nonzero.runs()

    @property
    def books_bytes(self) -> int:
        """How much memory of this computer these books take."""
        allocator = self._allocator
        books = (self._nonzero, self._away, self._reserved, self._balloon, allocator.pool, allocator.taken)
        return sum(one.array.nbytes for one in books)

    @property
    def visible_pages(self) -> int:
        """Pages that the guest has, as it sees it."""
        return self.ram_pages - self.ballooned_pages

    @property
    def hotplugged_pages(self) -> int:
        """RAM that was added since it booted."""
        return sum(count for _, count in self.hotplugged)

    @property
    def room(self) -> int:
        """Pages that held memory and page cache can have together."""
        return self.visible_pages - self.kernel_pages

    @property
    def free(self) -> int:
        """Pages not in use and not spoken for."""
        return self.room - self.resident - self.cache

    @property
    def available(self) -> int:
        """Pages that an allocation can get without swapping: free, and page cache that can be dropped."""
        return self.room - self.resident

    @property
    def in_use(self) -> int:
        """Pages out of the allocator."""
        return self.kernel_allocated + self.resident + self.cache

    def refresh(self) -> None:
        """Ask the machine for the counters that decide what may be skipped, and what is owned."""
        machine, domid = self._machine, self._domid
        self._see(machine.tot_pages(domid), machine.entry_count(domid), machine.debt_pages(domid))

    def _see(self, owned: int, entries: int, debt: int) -> None:
        """What is owned, how many entries are left, and what is owed."""
        self.owned, self.entry_count, self.debt = owned, entries, debt
        self.ballooned_pages = self._away.pages
        self._count_inert()

    def set_by_toolstack(self, at_ns: int) -> None:
        """A toolstack has set the target: other pages may be owned, and others promised."""
        self.refresh()
        self._watch()
        self.see_debt(at_ns)

    def see_debt(self, at_ns: int) -> None:
        """At `at_ns` the debt may have become 0: only the balloon and the toolstack lower it (POD-4)."""
        if self.debt_paid_ns is None and self.debt <= 0:
            self.debt_paid_ns = at_ns

    def _count_entries(self) -> None:
        """What may change by writing: neither populate nor reclaim moves what is owned, or the debt [POD-4]."""
        self.entry_count = self._machine.entry_count(self._domid)
        self._count_inert()

    def _count_inert(self) -> None:
        self.inert = self.may_skip and self.entry_count == 0  # [G12]
        if self.inert:
            self.lock.faults = False

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, runs: Sequence[Run], *, content: int, descending: bool) -> int:
        """Overwrite whole pages with ZERO, DATA or PATTERN, run after run; pages done, fewer only if the guest died in
        the next.
        """
        done = 0
        for first, count in runs:
            n = self._touch(first, count, content=content, descending=descending)
            done += n
            if n < count:
                break
        if not self.inert:
            self._count_entries()
        self._watch()
        return done

    def _touch(self, first: int, count: int, *, content: int, descending: bool) -> int:
        n = count
        if not self.inert:
            n = self._machine.touch_range(self._domid, first, count, content=content, descending=descending)
            if n < count:
                self._crash()
        written = first + count - n if descending else first
        if self._counts(content):
            self._nonzero.add(written, n)
        else:
            self._nonzero.remove(written, n)
        return n

    def map_for(self, gfn: int, domid: int) -> None:
        """Another domain maps a page, which populates it as an access of the guest's own would (A6)."""
        if self.inert:
            return
        if self._machine.map_page(self._domid, gfn, domid) < 0 and not self.crashed:
            notes = self._machine.take_notes()
            self.crashed = "oom" in notes or "conflict" in notes  # else a hole: nothing to map
            self.oom = notes.get("oom", {})
        self.refresh()
        self._watch()

    def _crash(self) -> None:
        self.crashed = True
        self.oom = self._machine.take_notes().get("oom", {})  # none where its table was to blame (R1)

    def death_cause(self) -> Cause:
        """Why no page was to be had: the guest needed more than it owns [G11], or reclaim did not reach what was there:
        cut off by pending work, already past it, or where only the recent list could have helped.
        """
        if not self.oom:
            return "table_conflict"
        if self.nonzero_pages + 1 > self.owned:
            return "debt"
        wrap, preempt, ring = self._machine.hazard(self._domid)
        return "preempt" if preempt else "wrap" if wrap else "ring" if ring else "reclaim_short"

    def _watch(self) -> None:
        """The page that a guest died writing counts as one more: it needed that one too [G11]."""
        needed = self.nonzero_pages + self.crashed
        self.nonzero_peak = max(self.nonzero_peak, needed)
        self.margin = min(self.margin, self.owned - needed)

    def occupy(self, pages: int) -> int:
        """Take `pages` more into use (there must be as many free) and write data to those never written; pages done."""
        spare = self._allocator.taken_pages - self.in_use
        fresh = pages - spare
        if fresh <= 0:
            return pages
        done = self.write(self._allocator.take(fresh), content=DATA, descending=True)
        return spare + done

    @property
    def has_room_for_kernel(self) -> bool:
        """Whether all that the kernel needs for itself is there: if not, it cannot boot."""
        return self.room - self.resident >= 0

    def take_kernel(self, pages: int) -> int:
        """Allocate pages that the kernel keeps; pages done."""
        done = self.occupy(pages)
        self.kernel_allocated += pages
        return done

    def hold(self, pages: int) -> int:
        """Allocate memory for services or applications, dropping page cache for it; pages done."""
        pages = min(pages, self.available)
        free = self.free
        done = pages
        if free > 0:
            got = self.occupy(min(pages, free))
            done = got if self.crashed else pages
        self.cache -= max(0, pages - free)
        self.resident += pages
        return done

    def release(self, pages: int) -> None:
        """Free memory that services or applications held; a kernel that zeroes on free makes reclaimable pages of it
        [GM-2].
        """
        self.resident -= pages
        self.zero_freed()

    def zero_freed(self) -> None:
        """Zero what is free and was in use, if this kernel does."""
        if self.zero_on_free:
            self.write(self._allocator.put_back_spare(self.in_use), content=ZERO, descending=True)

    def fill_cache(self, pages: int) -> int:
        """Grow page cache into free memory; pages done."""
        pages = min(pages, self.free)
        done = self.occupy(pages)
        self.cache += pages
        return done

    def scrub(self, first: int, count: int, *, content: int, descending: bool) -> int:
        """Overwrite what is free and holds no data in a gfn range; pages of the range gone through, fewer only if the
        guest died in the next.
        """
        if self.inert:
            return count
        free = free_runs((self._nonzero, self._away, self._reserved), first, count, descending=descending)
        done = self.write(free, content=content, descending=descending)
        if not self.crashed:
            return count
        for start, pages in free:
            if done < pages:
                return first + count - start - pages + done if descending else start + done - first
            done -= pages
        return count - 1

    # -- many acts at once -------------------------------------------------------------------------------------------

    @property
    def books(self) -> tuple[int, int, int]:
        """What following a demand changes, in the order of follow.py."""
        return self.resident, self.cache, self.entry_count

    def run_merged(
        self,
        shares: Sequence[Share],
        turn: int,
        last_ns: int,
        *,
        calm_ns: int,
        touches_heap: bool,
        going: int,
        strips: Int64Array,
        held: int,
        floor: int,
        max_share: float,
        floor_share: float,
    ) -> Merged:
        """Run streams together (merged.py), number `turn` of them first; how it came out. Up to `calm_ns` what is given
        where nothing is owed may go to the host, and what the first batch gives may in any case if it `touches_heap`.
        `going` stages have to end before what follows them begins. `held` and `floor` are pages as of held.py,
        `max_share` and `floor_share` page cache's.
        """
        lock, allocator = self.lock, self._allocator
        paid_ns = -1 if self.debt_paid_ns is None else self.debt_paid_ns
        common = [
            lock.free_ns, 0, last_ns, turn, 0, 0, 0, 0, calm_ns, 0, 0, self.may_skip, self.inert, self.resident,
            self.cache, self.kernel_allocated, held, floor, self.ram_pages, self.kernel_pages, self._extra_pages,
            self.nonzero_peak, self.margin, self.owned, not self.pattern_is_zero, lock.served_ns, paid_ns, 0, 0, 0,
            going, touches_heap, 0, 0, 0, 0,
        ]  # fmt: skip
        streams = [number for one in shares for number in one] if len(shares) > 1 else shares[0]
        while True:
            common, streams, pieces = self._machine.run_merged(
                self._domid, self._page_books(), common, streams, strips, common[merged.MORE], max_share, floor_share
            )
            if pages := common[merged.FREED]:
                moment = common[merged.FREED_MOMENT] + pages * common[merged.FREED_FROM]
                self.freed.append((common[merged.FREED_LAST], pages, moment))
            if common[merged.HOW] != merged.BOOKS_FULL:
                break
            common[merged.FREED] = common[merged.FREED_MOMENT] = 0
            for one in (self._nonzero, self._away, self._balloon, allocator.taken):
                one.make_room(common[merged.MORE])
        lock.held(common[merged.FREE], common[merged.LOCKED])
        self.resident, self.cache, self.kernel_allocated, held, floor = common[merged.RESIDENT : merged.FLOOR + 1]
        self.nonzero_peak, self.margin = common[merged.PEAK], common[merged.MARGIN]
        if common[merged.PAID] >= 0:
            self.debt_paid_ns = common[merged.PAID]
        fields = merged.STREAM_FIELDS
        shares = [streams[at : at + fields] for at in range(0, len(streams), fields)]
        how, turn, given = common[merged.HOW], common[merged.TURN], common[merged.GIVEN]
        if how in (DIED, CUT_SHORT) and shares[turn][merged.KIND] == merged.GIVES:
            runs = list(zip(pieces[::2], pieces[1::2], strict=True))
            self._cut_batch(runs, common, upwards=bool(shares[turn][merged.UPWARDS]))
        if how == DIED:
            self._crash()
        self._see(common[merged.OWNED], common[merged.ENTRIES], common[merged.DEBT])
        if how in (DIED, CUT_SHORT):
            self._watch()
        return Merged(how, turn, given, shares, held, floor)

    def _page_books(self) -> PageBooks:
        """All sets and stacks as one, for a kernel."""
        allocator, books = self._allocator, self._arrays
        data, away, balloon = self._nonzero.array, self._away.array, self._balloon.array
        pool, taken = allocator.pool.array, allocator.taken.array
        same = (
            books is not None and books.data is data and books.away is away and books.balloon is balloon
            and books.pool is pool and books.taken is taken
        )  # fmt: skip
        if books is None or not same:
            books = self._arrays = PageBooks(
                data=data, away=away, reserved=self._reserved.array, balloon=balloon, pool=pool, taken=taken
            )
        return books

    def _cut_batch(self, runs: list[Run], common: Sequence[int], *, upwards: bool) -> None:
        """A batch of the balloon, in the order of its hypercall, in which the guest died of the zeroing, or of which
        Xen took only some pages.
        """
        if common[merged.HOW] == DIED:
            for run in first_pages(runs, common[merged.ZEROED], ascending=upwards):
                self._nonzero.remove(*run)
            return
        taken = list(first_pages(runs, common[merged.GIVEN], ascending=upwards))
        for run in taken:
            self._gave(*run)
        self._take_back(runs, taken)

    def _gave(self, first: int, count: int) -> None:
        """A run is in the balloon."""
        self._nonzero.remove(first, count)
        self._away.add(first, count)
        self._balloon.push_below((first, count))

    def _counts(self, content: int) -> bool:
        return content == DATA or (content == PATTERN and not self.pattern_is_zero)

    def follow(
        self, s: Sequence[int], d: Sequence[int], curve: follow.Curve, pages_per_s: float
    ) -> tuple[list[int], follow.Told]:
        """Follow a demand in a kernel (follow.py): its books afterwards, and what it has told."""
        allocator = self._allocator
        entries = self.entry_count
        s, told = self._machine.follow_demand(
            self._domid, self._page_books(), s, d, curve, max(NEXT_RUNS, s[follow.MORE] + 1), pages_per_s
        )
        if s[follow.HOW] == follow.BOOKS_FULL:
            for one in (self._nonzero, allocator.taken):
                one.make_room(s[follow.MORE])
        self.resident, self.cache = s[follow.RESIDENT], s[follow.CACHE]
        if s[follow.SEEN]:
            # What others did before is there at the next look.
            seen = [0, entries, *told.seen[: 2 * s[follow.SEEN]].tolist()]
            self.entries_seen += zip(seen[::2], seen[1::2], strict=True)
        if s[follow.ENTRIES] != entries:
            self.entry_count = s[follow.ENTRIES]
            self._count_inert()
        if s[follow.HOW] == follow.DIED:
            self._crash()
        self._watch()
        return s, told

    # -- the balloon -------------------------------------------------------------------------------------------------

    def inflate(
        self,
        pages: int,
        at_ns: int,
        *,
        batch_pages: int,
        scrub: bool,
        ascending: bool,
        contiguous: bool = False,
    ) -> tuple[int, bool]:
        """Give up to `pages` free pages back to Xen at `at_ns`, `batch_pages` a hypercall, page cache dropped for them.

        `scrub`: zero those of a batch before its hypercall, which populates them. `ascending`: each batch as one sorted
        list. `contiguous`: whole free 2 MiB first; of each batch, so that doing many at once changes nothing. Returns
        the pages given back, and whether each hypercall did all that it was asked; the guest may have died of
        scrubbing.
        """
        if contiguous and pages > batch_pages:
            done, complete = 0, True
            while complete and not self.crashed and done < pages:
                asked = min(batch_pages, pages - done)
                got, complete = self.inflate(
                    asked, at_ns, batch_pages=batch_pages, scrub=scrub, ascending=ascending, contiguous=True
                )
                done += got
            return done, complete
        pages = min(pages, self.available)
        self.cache -= max(0, pages - self.free)
        runs = self._allocator.take_away(pages, self.in_use, whole=contiguous)
        # [G12] an inert guest's zeroes change nothing.
        reached = self._machine.balloon_runs(
            self._domid, runs, batch_pages=batch_pages, ascending=ascending, scrub=scrub and not self.inert
        )
        stack = runs[::-1]
        whole = pop_runs(stack, reached.whole_pages)
        given = [run for batch in batches(whole, batch_pages) for run in sorted(batch)] if ascending else whole
        last = pop_runs(stack, batch_pages)  # the batch in which it stopped, if it did
        if ascending:
            last.sort()
        for run in first_pages(last, reached.given_pages, ascending=ascending):
            push_below(given, run)
        if reached.died:
            self._crash()
            for run in first_pages(last, reached.zeroed_pages, ascending=ascending):
                self._nonzero.remove(*run)
        complete = not reached.cut_short
        for run in given:
            self._gave(*run)
        if not complete:
            self._take_back(runs, given)
        owned = self.owned
        self.refresh()
        if self.owned < owned:
            self.freed.append((at_ns, owned - self.owned, (owned - self.owned) * at_ns))
        self._watch()
        return sum(count for _, count in given), complete

    def _take_back(self, runs: Iterable[Run], given: Iterable[Run]) -> None:
        """What Xen did not take is free again."""
        left = PageSet()
        for run in runs:
            left.add(*run)
        for run in given:
            left.remove(*run)
        self._allocator.put_back(left.runs())

    def deflate(self, pages: int) -> int:
        """Ask Xen for ballooned pages again, the last given first; pages got. They come from the host's heap, however
        full the domain's own cache is (A2.7), and within its quota (A5.2).
        """
        done = 0
        while done < pages:
            top = self._balloon.top
            if top is None:
                break
            n = min(top[1], pages - done)
            if self.short_of_tables:
                n = self._in_tables(sum(top), n)
                if not n:
                    self.refusal = NO_TABLE.format(self._domid, done, pages)
                    break
            [(first, _)] = self._balloon.pop(n)
            got = self._machine.populate_range(self._domid, first, n, descending=True)
            if got:
                self._away.remove(first + n - got, got)
                self._allocator.put_back([(first + n - got, got)])
            if got < n:
                self._balloon.push((first, n - got))
            done += got
            if got < n:
                self.refusal = self._refused(done, pages)
                break
        self.refresh()
        return done

    def _in_tables(self, end: int, pages: int) -> int:
        """How many of so many ballooned pages below `end`, from the top down, have a table, or a page for one in the
        domain's paging pool (A3.9).
        """
        assert self._numbers is not None
        left = self._numbers.paging_pages - self._machine.table_pages(self._domid)
        done, gib = 0, -1
        while done < pages:
            gfn = end - done - 1
            _, order = self._machine.query(self._domid, gfn)
            left -= (order >= SUPERPAGE_ORDER) + (order > SUPERPAGE_ORDER and gfn // PAGES_PER_GIB != gib)
            if left < 0:
                break
            done += gfn % SUPERPAGE_PAGES + 1
            gib = gfn // PAGES_PER_GIB
        return min(done, pages)

    def hotplug(self, pages: int, section_pages: int) -> bool:
        """Add so many pages of RAM, whole sections, where no RAM was: in the balloon, and not a word to Xen. Their
        descriptors are the kernel's from now on, page cache dropped for them; whether there was room for these, for
        nothing goes out to swap. The guest may have died of writing them.
        """
        descriptors = self._descriptors_of(pages)
        if descriptors > self.available:
            return False
        self.cache -= max(0, descriptors - self.free)
        run = lowest_gap((*self.ram, *self._beside), pages, section_pages), pages
        self._machine.extend(self._domid, *run)
        self._add(run)
        self._away.add(*run)
        self._balloon.push(run)
        self.ballooned_pages = self._away.pages
        self.take_kernel(descriptors)
        return True

    def _descriptors_of(self, pages: int) -> int:
        return -(-pages // self._descriptor_share)

    def _add(self, run: Run) -> None:
        """More RAM; its descriptors are spoken for."""
        first, count = run
        self.hotplugged += (run,)
        self.ram = tuple(sorted((*self.ram, run)))
        self.ram_pages += count
        self.kernel_pages += self._descriptors_of(count)
        self._nonzero.reach_to(first + count)
        self._away.reach_to(first + count)
        if self._numbers is not None:
            self.short_of_tables = self._numbers.tables_may_run_short(self.hotplugged_pages)

    def next_ballooned(self, pages: int) -> list[int]:
        """First gfns and pages of the runs that `deflate` would ask for next, so many pages of them at least."""
        numbers: list[int] = self._balloon.next_runs(1, pages).tolist()
        return numbers

    def deflated(self, pages: int, batch_pages: int) -> None:
        """Xen has given the next `pages` ballooned pages again, so many a batch."""
        self._allocator.take_back(self._balloon, self._away, pages, batch_pages)
        self.refresh()

    def deflated_beside(self, one: Taker, cache: Share, max_share: float, floor_share: float) -> Share:
        """The same, page cache growing meanwhile; its fields afterwards."""
        allocator = self._allocator
        common = [0] * merged.COMMON
        common[merged.SKIPS], common[merged.INERT] = self.may_skip, self.inert
        common[merged.RESIDENT : merged.ALLOCATED + 1] = self.resident, self.cache, self.kernel_allocated
        common[merged.RAM_PAGES : merged.OWNED + 1] = (
            self.ram_pages, self.kernel_pages, self._extra_pages, self.nonzero_peak, self.margin, self.owned,
        )  # fmt: skip
        taker, common[merged.HOW], common[merged.MORE] = one.before, merged.BOOKS_FULL, MANY_RUNS
        while common[merged.HOW] == merged.BOOKS_FULL:
            for books in (self._nonzero, self._away, allocator.pool, allocator.taken):
                books.make_room(common[merged.MORE])
            taker, common, cache = self._machine.take_back(
                self._domid, self._page_books(), taker, one.pages, common, cache, common[merged.MORE], max_share,
                floor_share,
            )  # fmt: skip
        self.cache, self.nonzero_peak, self.margin = common[merged.CACHE], common[merged.PEAK], common[merged.MARGIN]
        self.refresh()
        return cache

    # -- on its way to another host ----------------------------------------------------------------------------------

    @property
    def backed_runs(self) -> list[Run]:
        """RAM that the guest has, ballooned pages left out, ascending."""
        return [gap for run in self.ram for gap in self._away.gaps(*run)]

    def map_all(self, domid: int) -> None:
        """Another domain maps every page there is, which populates all that is promised (A6.4), until the guest dies of
        it.
        """
        for first, count in () if self.inert else self.backed_runs:
            if self._machine.map_promised(self._domid, first, count, domid) < count:
                self._crash()
                break
        self.refresh()
        self._watch()

    def pack(self) -> dict[str, Any]:
        """These books as fields of a GuestState."""
        return {
            "tot_pages": self.owned,
            "data": tuple(self._nonzero.runs()),
            "balloon": tuple(self._balloon.runs()),
            "hotplugged": self.hotplugged,
            "pool": tuple(self._allocator.pool.runs()),
            "taken": tuple(self._allocator.taken.runs()),
            "kernel_allocated": self.kernel_allocated,
            "resident": self.resident,
            "cache": self.cache,
        }

    def unpack(self, state: GuestState) -> None:
        """Take over the books of the same guest on another host; its pages are there already."""
        self._allocator = Allocator(state.pool, state.taken)
        for run in state.hotplugged:
            self._add(run)
        for run in state.data:
            self._nonzero.add(*run)
        for run in state.balloon:
            self._away.add(*run)
        self._balloon = PageStack(state.balloon)
        self.kernel_allocated = state.kernel_allocated
        self.resident, self.cache = state.resident, state.cache
        self.refresh()
        self.nonzero_peak = self.nonzero_pages
        self.margin = self.owned - self.nonzero_pages

    def _refused(self, done: int, asked: int) -> str:
        """What Xen logs when the host has no more (A2.5); nothing where the quota is in the way (E8), which whoever
        watches the quota tells.
        """
        counters = self._machine.counters(self._domid)
        return NO_EXTENT.format(self._domid, done, asked) if counters.tot_pages < counters.max_pages else ""


def _clip(ram: Iterable[Run], low: int, high: int) -> tuple[Run, ...]:
    """What of [low, high) is RAM below 4 GiB."""
    parts = []
    for first, count in ram:
        a, b = max(first, low), min(first + count, high)
        if a < b:
            parts.append((a, b - a))
    return tuple(parts)
