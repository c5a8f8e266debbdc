"""ReferenceMachine: one host and its domains, page by page, with the operations of the traces and of the simulator.

What        The method names, arguments and returns of `podcluster.host.machine.Machine`, so that a test can drive both.
Units       gfns, frames, sizes and counts are 4 KiB pages; words are 64-bit. Status of a guest access: 0 done,
            -1 nothing mapped there, -2 the guest crashed in it, -3 the guest was not running.
Invariants  [P15] checked by `audit`. References, loose and special frames are told apart exactly as P15 does.
Source      docs/model.md, docs/golden-traces.md; docs/model.md H for claims.
Departs     Nowhere: it passes every golden trace, diagnostic fields included.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from podcluster.errors import InvariantError
from podcluster.host.written import PATTERN, ZERO
from tests.reference.eras import MANAGERS
from tests.reference.hashes import FNV_OFFSET, TableHashes, fnv, text
from tests.reference.host import Domain, Frames
from tests.reference.pod import EINVAL, ENOMEM, PodManager
from tests.reference.pod2009 import Pod2009
from tests.reference.table import EMPTY, RAM, Table, Table2009

DONE, HOLE, CRASHED, NOT_RUNNING = 0, -1, -2, -3
MASK = (1 << 64) - 1


class Counters(NamedTuple):
    """What the simulator asks of a domain [pages; the 2m totals count 2 MiB entries]."""

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


class Ballooned(NamedTuple):
    """How far a balloon's batches came."""

    how: int
    whole_pages: int
    zeroed_pages: int
    given_pages: int

    @property
    def died(self) -> bool:
        """In zeroing the next batch."""
        return self.how == 2

    @property
    def cut_short(self) -> bool:
        """In the hypercall of the next batch."""
        return self.how == 3


class Reference(NamedTuple):
    """Who holds a frame: found at a gfn, as a use of its type, by a grant, or any other way."""

    dom: int
    gfn: int
    mfn: int
    how: str


class ReferenceMachine:
    """A host of `host_pages` frames; slow, plain, and right."""

    paces = False  # every act of a guest is made by itself

    def __init__(
        self,
        host_pages: int,
        *,
        scrub_on_free: bool = True,
        words: bool = True,
        era: str = "today",
        ring_slots: int | None = None,
        sweep_wraps: bool = False,
        costs: Mapping[str, int] | None = None,
    ) -> None:
        self.era = era
        self._manager = MANAGERS[era]
        self.frames = Frames(host_pages, scrub_on_free)
        self.preempt_mode = "never"
        self._ring_slots = ring_slots or self._manager.ring_slots
        self._sweep_wraps = sweep_wraps
        self._costs = costs or {}
        self._header_guests: dict[int, dict[str, Any]] = {}
        self._pods: dict[int, PodManager] = {}
        self._references: dict[int, Reference] = {}  # by add_ref's id
        self._handles: dict[int, list[int]] = {}  # set_aside's handle -> mfns
        self._last_handle = 0
        self._notes: dict[str, Any] = {}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "ReferenceMachine":
        """The host of a golden trace; its guests come into being with `create(dom)`."""
        era = header.get("era", "today")
        machine = cls(header["host_pages"], scrub_on_free=header["scrub_on_free"], era=era)
        for guest in header["guests"]:
            machine._header_guests[guest["id"]] = {key: value for key, value in guest.items() if key != "id"}
        return machine

    # -- domains -----------------------------------------------------------------------------------------------------

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
        """A domain comes into being, empty; without keywords as the trace's header describes it."""
        if maxmem_pages is None or max_pages is None:
            return self.create(dom, **self._header_guests[dom])
        shadow = paging == "shadow"
        if self.era == "rfc2009":
            table: Table = Table2009()
        else:
            table = Table(ept=p2m == "ept" and not shadow, use_1g=sp_1g and not shadow, use_2m=sp_2m or shadow)  # T1
        domain = Domain(dom, maxmem_pages, max_pages, shadow, table, TableHashes(table))
        domain.ring = [self._manager.ring_start] * self._ring_slots
        pod = self._pods[dom] = self._manager(domain, self.frames)
        pod.sweep_wraps = self._sweep_wraps
        pod.costs.update(self._costs)
        return 0

    def extend(self, dom: int, first_gfn: int, count: int) -> None:
        """More gfns that the guest counts as RAM; its table knows no end."""
        self._domain(dom).maxmem_pages += count

    def destroy(self, dom: int) -> int:
        """Tear-down."""
        self._pod(dom).destroy()
        return 0

    def state(self, dom: int) -> int:
        """A closing record; does nothing."""
        return 0

    def set_max_pages(self, dom: int, pages: int) -> int:
        """Change the quota; what is already owned stays."""
        self._domain(dom).max_pages = pages
        return 0

    def set_preempt(self, mode: str) -> int:
        """Whether there is other work whenever the hypervisor looks: `always` or `never`."""
        self.preempt_mode = mode
        return 0

    def set_clock(self, dom: int, now_ns: int) -> None:
        """The vCPU that acts next does so at this time."""
        self._domain(dom).now_ns = now_ns

    def clock(self, dom: int) -> int:
        """Simulated time by now."""
        return self._domain(dom).now_ns

    def set_interrupts(self, dom: int, enabled: bool, vcpu: int) -> None:
        """The vCPU that acts next, and whether it has interrupts enabled."""
        domain = self._domain(dom)
        domain.irqs_on, domain.vcpu = enabled, vcpu

    def set_pending_work(self, dom: int, key: int, softirq_per_s: float, irq_per_s: float) -> None:
        """How often other work arrives for a vCPU of this domain."""  # G7
        domain = self._domain(dom)
        domain.pending_key, domain.softirq_per_s, domain.irq_per_s = key, softirq_per_s, irq_per_s

    def set_scrub_pattern(self, dom: int, on: bool) -> None:
        """Register a scrub pattern, or take it back."""  # S1
        self._pods[dom].scrub_pattern = on

    def hazard(self, dom: int) -> tuple[int, int, int]:
        """Reclaimable pages that the last sweep left: above its start, below its end, out of any sweep's reach."""
        return self._pods[dom].hazard()

    def claim(self, dom: int, pages: int) -> int:
        """Stake `pages` (final size) for a domain; 0 cancels."""  # H2.1
        domain = self._domain(dom)
        if pages == 0:
            self.frames.outstanding_claims -= domain.claim_pages
            domain.claim_pages = 0
            return 0
        if domain.claim_pages or pages <= domain.tot_pages or pages > domain.max_pages or domain.destroyed:
            return EINVAL
        stake = pages - domain.tot_pages
        if stake > self.free_pages - self.outstanding_claims:
            return ENOMEM
        domain.claim_pages = stake
        self.frames.outstanding_claims += stake
        return 0

    # -- PoD hypercalls ----------------------------------------------------------------------------------------------

    def set_pod_target(self, dom: int, pages: int) -> int:
        """The set-target hypercall."""
        return self._pod(dom).set_target(pages)

    def mark_pod(self, dom: int, gfn: int, order: int) -> int:
        """Promise an extent: 0, or -16 where there is RAM."""
        return self._pod(dom).mark(gfn, order)

    def mark_pod_seq(self, dom: int, start: int, count: int, order: int) -> int:
        """Promise adjacent extents; number done."""
        for i in range(count):
            if self.mark_pod(dom, start + (i << order), order) != 0:
                return i
        return count

    def mark_pod_extents(self, dom: int, runs: Sequence[tuple[int, int, int]]) -> int:
        """Promise runs of adjacent extents, one after another; number done."""
        total = 0
        for start, count, order in runs:
            done = self.mark_pod_seq(dom, start, count, order)
            total += done
            if done < count:
                break
        return total

    # -- populate and decrease ---------------------------------------------------------------------------------------

    def populate(self, dom: int, gfn: int, order: int) -> int:
        """Real RAM from the host over an extent: 1, or 0 when refused."""
        return self._populate(dom, gfn, order, special=False)

    def populate_special(self, dom: int, gfn: int) -> int:
        """One special page, outside the quota."""
        return self._populate(dom, gfn, 0, special=True)

    def _populate(self, dom: int, gfn: int, order: int, *, special: bool) -> int:
        pod = self._pod(dom)
        domain = pod.domain
        mfn = self.frames.allocate(domain, order, special=special)
        if mfn is None:
            return 0
        pod.put_ram(gfn, order, mfn)
        return 1

    def populate_seq(self, dom: int, start: int, count: int, order: int, step: int) -> int:
        """Populate extents `step` extents apart; number done."""
        return self.populate_list(dom, order, [start + i * step * (1 << order) for i in range(count)])

    def populate_list(self, dom: int, order: int, gfns: Iterable[int]) -> int:
        """Populate listed extents; number done."""
        done = 0
        for gfn in gfns:
            if not self.populate(dom, gfn, order):
                break
            done += 1
        return done

    def decrease(self, dom: int, gfn: int, order: int) -> list[int]:
        """Give an extent back: [1 if it ran to the end, pages the PoD layer dealt with]."""
        self._pod(dom).take("hypercall_ns")
        return self._pod(dom).give_back(gfn, order)

    def decrease_seq(self, dom: int, start: int, count: int, order: int, step: int) -> list[int]:
        """Several decreases, `step` extents apart; stops at the first that did not run to the end."""
        return self.decrease_list(dom, order, [start + i * step * (1 << order) for i in range(count)])

    def decrease_list(self, dom: int, order: int, gfns: Iterable[int]) -> list[int]:
        """Decreases of listed extents: totals."""
        total_done = total_handled = 0
        for gfn in gfns:
            done, handled = self.decrease(dom, gfn, order)
            total_handled += handled
            if not done:
                break
            total_done += 1
        return [total_done, total_handled]

    # -- guest accesses ----------------------------------------------------------------------------------------------

    def _access(self, dom: int, gfn: int) -> tuple[int, int]:
        """(status, frame) of an allocating look-up by the running guest."""  # T3
        pod = self._pod(dom)
        domain = pod.domain
        if domain.crashed or domain.destroyed:
            return NOT_RUNNING, -1
        pod.enter()
        while True:
            kind, mfn, order = domain.table.lookup(gfn)
            if kind == RAM:
                return DONE, mfn
            if kind == EMPTY:
                return HOLE, -1
            pod.preempt = self.preempt_mode == "always"
            if not pod.demand_populate(gfn, order):
                return CRASHED, -1

    def map_page(self, dom: int, gfn: int, by: int) -> int:
        """Another domain maps a page: 0, or a status below 0."""  # A6
        pod = self._pods[dom]
        pod.accessor = by
        status, _ = self._access(dom, gfn)
        pod.accessor = None
        return status

    def map_promised(self, dom: int, first_gfn: int, count: int, by: int) -> int:
        """Another domain maps what is promised in a range; pages gone through before one that was not to be had."""
        for gfn in range(first_gfn, first_gfn + count):
            if self.query(dom, gfn)[0] > RAM and self.map_page(dom, gfn, by) < 0:
                return gfn - first_gfn
        return count

    def table_pages(self, dom: int) -> int:
        """Pages of the table: root, one for each 512 GiB, each GiB and each 2 MiB that is not one entry."""  # A3.9
        return self._pod(dom).domain.table.pages()

    def read(self, dom: int, gfn: int, word: int) -> int:
        """The word, or a status below 0."""
        status, mfn = self._access(dom, gfn)
        return self.frames.pages[mfn].words.get(word, 0) if status == DONE else status

    def write(self, dom: int, gfn: int, word: int, value: int) -> int:
        """Status of writing one word."""
        status, mfn = self._access(dom, gfn)
        if status == DONE:
            self.frames.pages[mfn].pattern = False
            if value:
                self.frames.pages[mfn].words[word] = value
            else:
                self.frames.pages[mfn].words.pop(word, None)
        return status

    def read_seq(self, dom: int, start: int, count: int, step: int, word: int) -> list[int]:
        """Reads from `start`, `step` gfns apart: [ok, hole, status, sum]."""
        return self.read_list(dom, word, [start + i * step for i in range(count)])

    def write_seq(self, dom: int, start: int, count: int, step: int, word: int, value: int) -> list[int]:
        """Writes from `start`, `step` gfns apart: [ok, hole, status, 0]."""
        return self.write_list(dom, word, value, [start + i * step for i in range(count)])

    def read_list(self, dom: int, word: int, gfns: Iterable[int]) -> list[int]:
        """Reads of listed gfns: [ok, hole, status, sum]."""
        ok = hole = total = 0
        for gfn in gfns:
            status, mfn = self._access(dom, gfn)
            if status <= CRASHED:
                return [ok, hole, status, total]
            if status == HOLE:
                hole += 1
            else:
                ok += 1
                total = (total + self.frames.pages[mfn].words.get(word, 0)) & MASK
        return [ok, hole, DONE, total]

    def write_list(self, dom: int, word: int, value: int, gfns: Iterable[int]) -> list[int]:
        """Writes of listed gfns: [ok, hole, status, 0]."""
        ok = hole = 0
        for gfn in gfns:
            status = self.write(dom, gfn, word, value)
            if status <= CRASHED:
                return [ok, hole, status, 0]
            if status == HOLE:
                hole += 1
            else:
                ok += 1
        return [ok, hole, DONE, 0]

    def query(self, dom: int, gfn: int) -> list[int]:
        """[kind, order] without populating."""
        kind, _, order = self._domain(dom).table.lookup(gfn)
        return [kind, 0 if self.era == "rfc2009" and kind == EMPTY else order]

    # -- references, flags, broken frames ----------------------------------------------------------------------------

    def add_ref(self, dom: int, gfn: int, id: int, how: str = "plain") -> int:
        """An extra reference on the frame now at gfn (plain, type or grant); -1 where there is no RAM."""
        domain = self._domain(dom)
        kind, mfn, _ = domain.table.lookup(gfn)
        if kind != RAM or id in self._references:
            return -1
        self._references[id] = Reference(dom, gfn, mfn, how)
        page = self.frames.pages[mfn]
        page.extra_refs += 1
        page.type_refs += how == "type"
        if how == "grant":
            domain.granted.append(gfn)
        return 0

    def drop_ref(self, id: int, dom: int) -> int:
        """Drop a reference again, wherever its frame is by now; -1 for an unknown id."""
        held = self._references.pop(id, None)
        if held is None:
            return -1
        self.frames.pages[held.mfn].type_refs -= held.how == "type"
        if held.how == "grant":
            self._domain(held.dom).granted.remove(held.gfn)
        self.frames.drop_extra(held.mfn)
        return 0

    def shadow_ref(self, dom: int, gfn: int) -> int:
        """A reference of a shadow mapping; it goes when the translation of gfn changes."""
        domain = self._domain(dom)
        kind, mfn, _ = domain.table.lookup(gfn)
        if kind != RAM or not domain.shadow:
            return -1
        domain.shadow_refs[gfn] = domain.shadow_refs.get(gfn, 0) + 1
        self.frames.pages[mfn].shadow_refs += 1
        return 0

    def set_flag(self, dom: int, gfn: int, flag: str, on: bool) -> int:
        """Set or clear `special` or `shadowed_pt`: 0, 1 if already so, -1 where there is no RAM."""
        kind, mfn, _ = self._domain(dom).table.lookup(gfn)
        if kind != RAM:
            return -1
        page = self.frames.pages[mfn]
        if getattr(page, flag) == bool(on):
            return 1
        if flag == "special":
            self.frames.set_special(mfn, bool(on))
        else:
            page.shadowed_pt = bool(on)
        return 0

    def offline(self, dom: int, list: str, index: int, sub: int = 0) -> int:
        """A memory error in a cached frame: 1, or -1 when there is no such frame or something holds it."""
        return 1 if self._pod(dom).offline(list, index, sub) else -1

    # -- what the traces record --------------------------------------------------------------------------------------

    def take_notes(self) -> dict[str, Any]:
        """Out of memory, growth failures and failed assertions since the last call."""
        for pod in self._pods.values():
            self._notes.update(pod.notes)
            pod.notes.clear()
        notes, self._notes = self._notes, {}
        return notes

    def state_record(self, dom: int) -> dict[str, Any]:
        """Every field of a state record."""
        domain = self._domain(dom)
        lists = [2 * mfn + 1 for mfn in domain.cache_super] + [2 * mfn for mfn in domain.cache_single]
        recent: dict[str, Any] = {"mrp_idx": domain.ring_index, "mrp": text(fnv(domain.ring, FNV_OFFSET))}
        if self.era == "rfc2009":
            recent = {"reclaim_super": domain.reclaim_super, "super_sweeps": domain.super_sweeps}
        return {
            "dom": dom,
            "tot_pages": domain.tot_pages,
            "pod_count": domain.count,
            "entry_count": domain.entry_count,
            "cache_super": len(domain.cache_super),
            "cache_single": len(domain.cache_single),
            "max_guest": domain.max_guest,
            "reclaim_single": domain.reclaim_single,
            "crashed": int(domain.crashed),
            "host_free_pages": self.free_pages,
            "host_free_2m": self.free_2m,
            "ev": [
                domain.populated_4k,
                domain.populated_2m,
                domain.reclaimed_4k,
                domain.reclaimed_2m,
                domain.splintered_2m,
            ],
            "sweeps": domain.sweeps,
            **domain.hashes.record(),
            "cache": text(fnv(lists, FNV_OFFSET)),
            **recent,
        }

    # -- the simulator's range operations: the page-by-page loops ----------------------------------------------------

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """The guest overwrites whole pages; pages done, holes included."""
        return self.touch_list(dom, _gfns(first_gfn, count, descending), content=content)

    def touch_list(self, dom: int, gfns: Iterable[int], *, content: int) -> int:
        """The guest overwrites listed pages, with zeroes (all words) or something else (word 0 becomes 1)."""
        done = 0
        for gfn in gfns:
            status, mfn = self._access(dom, int(gfn))
            if status <= CRASHED:
                break
            if status == DONE:
                if content != ZERO:
                    self.frames.pages[mfn].words[0] = 1
                else:
                    self.frames.pages[mfn].words.clear()
                self.frames.pages[mfn].pattern = content == PATTERN
            done += 1
        return done

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Give single pages back; pages done before the first that failed."""
        return self.balloon_list(dom, _gfns(first_gfn, count, descending))

    def balloon_list(self, dom: int, gfns: Iterable[int]) -> int:
        """Give listed pages back in one hypercall; pages done before the first that failed."""
        self._pod(dom).take("hypercall_ns")
        done = 0
        for gfn in gfns:
            if not self._pod(dom).give_back(int(gfn), 0)[0]:
                break
            done += 1
        return done

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
        """Give runs back in batches, a hypercall each."""
        pages = [gfn for first, count in runs for gfn in reversed(range(first, first + count))]
        whole = 0
        for at in range(0, len(pages), batch_pages):
            batch = pages[at : at + batch_pages]
            domain = self._domain(dom)
            if until_heap and domain.entry_count - domain.count < len(batch):
                return Ballooned(1, whole, 0, 0)
            if ascending:
                batch.sort()
            zeroed = self.touch_list(dom, batch, content=ZERO) if scrub else 0
            if scrub and zeroed < len(batch):
                return Ballooned(2, whole, zeroed, 0)
            given = self.balloon_list(dom, batch)
            if given < len(batch):
                return Ballooned(3, whole, zeroed, given)
            whole += len(batch)
        return Ballooned(0, whole, 0, 0)

    def populate_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Put real pages at gfns in one hypercall; pages done before the first that failed."""
        pod = self._pod(dom)
        pod.take("hypercall_ns")
        done = self.populate_list(dom, 0, _gfns(first_gfn, count, descending))
        pod.take("populate_4k_ns", done)
        return done

    # -- the simulator's view ----------------------------------------------------------------------------------------

    @property
    def host_pages(self) -> int:
        """Frames of the host."""
        return self.frames.host_pages

    @property
    def free_pages(self) -> int:
        """Free frames of the host."""
        return self.frames.heap.free_pages

    @property
    def free_2m(self) -> int:
        """Free aligned 2 MiB blocks of the host."""
        return self.frames.heap.free_2m

    @property
    def outstanding_claims(self) -> int:
        """Pages staked and not yet allocated, all domains together."""
        return self.frames.outstanding_claims

    def counters(self, dom: int) -> Counters:
        """Counters of one domain."""
        domain = self._domain(dom)
        return Counters(
            domain.tot_pages,
            domain.count,
            domain.entry_count,
            domain.max_pages,
            domain.tot_pages - domain.count,
            domain.populated_4k,
            domain.populated_2m,
            domain.reclaimed_4k,
            domain.reclaimed_2m,
            domain.splintered_2m,
            domain.sweeps,
            domain.sweep_looks,
            int(domain.crashed),
            domain.claim_pages,
        )

    def nonzero_pages(self, dom: int) -> int:
        """Pages of one domain that are not zero."""
        return sum(
            1
            for _, kind, mfn, order in self._domain(dom).table.entries()
            if kind == RAM
            for i in range(1 << order)
            if self.frames.pages[mfn + i].words
        )

    def entry_map(self, dom: int) -> tuple[int, int, int, int, int, int]:
        """Entries by kind and size: (ram4k, ram2m, ram1g, pod4k, pod2m, pod1g)."""
        counts = self._domain(dom).hashes.counts()
        return (
            counts["ram4k"],
            counts["ram2m"],
            counts["ram1g"],
            counts["pod4k"],
            counts["pod2m"],
            counts["pod1g"],
        )

    def is_locked(self, dom: int) -> bool:
        """Whether whatever comes next for this domain would stop the hypervisor; the model's own, for tests."""  # R5
        pod = self._pods[dom]
        return isinstance(pod, Pod2009) and pod.locked

    def entries(self, dom: int) -> list[tuple[int, int, int, int]]:
        """(first gfn, kind, first frame, order) of every entry, ascending; the model's own, for tests."""
        return list(self._domain(dom).table.entries())

    def q_dump(self, dom: int) -> str:
        """The line of the operator's debug key."""  # P15
        domain = self._domain(dom)
        return f"PoD entries={domain.entry_count} cachesize={domain.count}"

    @staticmethod
    def oom_line(oom: Mapping[str, int]) -> str:
        """The line the hypervisor prints when a guest runs out of PoD memory."""
        if "tot" not in oom:  # R6: the message names no numbers
            return "p2m_pod_demand_populate: Out of populate-on-demand memory!"
        return (
            f"p2m_pod_demand_populate: Dom{oom['dom']} out of PoD memory! "
            f"(tot={oom['tot']} ents={oom['ents']} dom{oom['curr']})"
        )

    def set_aside(self, pages: int) -> int:
        """Frames for Xen, dom0 and pools: a handle >= 1, or -12 when there are too few."""
        mfns = self.frames.set_aside(pages)
        if mfns is None:
            return ENOMEM
        self._last_handle += 1
        self._handles[self._last_handle] = mfns
        return self._last_handle

    def release(self, handle: int) -> int:
        """Give back what `set_aside` took; -1 for an unknown handle."""
        mfns = self._handles.pop(handle, None)
        if mfns is None:
            return -1
        self.frames.release_set_aside(mfns)
        return 0

    # -- P15 ---------------------------------------------------------------------------------------------------------

    def audit(self, dom: int | None = None) -> None:
        """Check P15 for one domain, or for all and for the host; raises InvariantError."""
        for pod in [self._pods[dom]] if dom is not None else self._pods.values():
            self._audit_domain(pod.domain)
        if dom is None:
            self._audit_host()

    def _audit_domain(self, domain: Domain) -> None:
        if isinstance(domain.table, Table2009) and domain.table.conflicts and not domain.destroyed:
            return  # R1: frames may be in two places
        pod = 0
        mapped: list[int] = []
        for _, kind, mfn, order in domain.table.entries():
            if kind == RAM:
                mapped.extend(range(mfn, mfn + (1 << order)))
            else:
                pod += 1 << order
        if self.era == "rfc2009":
            _check(pod <= domain.entry_count, f"pod entries {pod} <= entry_count {domain.entry_count}", domain)  # R12
        elif not domain.destroyed:
            _check(pod == domain.entry_count, f"pod entries {pod} == entry_count {domain.entry_count}", domain)
        cached = [f for first in domain.cache_super for f in range(first, first + 512)] + [*domain.cache_single]
        _check(len(cached) == domain.count, "frames on the lists == count", domain)
        pages = self.frames.pages
        in_use = mapped + cached
        _check(len(set(in_use)) == len(in_use), "no frame mapped or cached twice", domain)
        _check(domain.owned.issuperset(in_use), "mapped and cached frames are owned", domain)
        _check(all(pages[f].allocated for f in in_use), "used frames hold the allocation reference", domain)
        if self.era != "rfc2009":  # R2
            _check(not any(pages[f].words for f in cached), "cached frames are zero", domain)
        loose = domain.owned.difference(in_use)
        _check(all(pages[f].allocated or pages[f].other_refs for f in loose), "loose frames are held", domain)
        counted = sum(1 for f in domain.owned if not pages[f].special)
        _check(counted == domain.tot_pages, f"owned frames {counted} == tot_pages {domain.tot_pages}", domain)
        shadow_refs = sum(pages[f].shadow_refs for f in domain.owned)
        _check(shadow_refs == sum(domain.shadow_refs.values()), "shadow references are on mapped frames", domain)
        slots_used = [slot for slot in domain.ring if slot != MASK]
        _check(0 <= domain.ring_index < len(domain.ring) >= len(slots_used), "ring", domain)

    def _audit_host(self) -> None:
        free = self.frames.heap.free_frames()
        _check(len(free) == self.free_pages, "frames on the free lists == free pages", None)
        places = [0] * self.host_pages
        for mfn in free:
            places[mfn] += 1
        for pod in self._pods.values():
            for mfn in pod.domain.owned:
                places[mfn] += 1
                _check(self.frames.pages[mfn].owner is pod.domain, f"owner of frame {mfn}", pod.domain)
        for mfn, page in enumerate(self.frames.pages):
            places[mfn] += page.retired + page.set_aside
        _check(all(n == 1 for n in places), "every frame is in exactly one place", None)
        extra = sum(page.extra_refs for page in self.frames.pages)
        _check(extra == len(self._references), "extra references", None)
        claims = sum(pod.domain.claim_pages for pod in self._pods.values())
        _check(claims == self.outstanding_claims, "claims", None)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _pod(self, dom: int) -> PodManager:
        pod = self._pods[dom]
        pod.preempt = self.preempt_mode == "always"
        return pod

    def _domain(self, dom: int) -> Domain:
        return self._pods[dom].domain


def _gfns(first_gfn: int, count: int, descending: bool) -> Sequence[int]:
    gfns = range(first_gfn, first_gfn + count)
    return gfns[::-1] if descending else gfns


def _check(holds: bool, what: str, domain: Domain | None) -> None:
    if not holds:
        where = "host" if domain is None else f"domain {domain.dom}"
        raise InvariantError(f"[P15] {what} violated ({where})")
