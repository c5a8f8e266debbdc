"""The host's frames and who owns them: allocation, quota, claims, references, contents.

Units       Frames of 4 KiB. Contents are 512 words of 64 bits a frame; only non-zero words are kept.
Invariants  [P15] every frame is free, owned by one domain, set aside, or retired; `tot_pages` of a domain counts the
            frames it owns that are not special.
Source      docs/golden-traces.md; docs/model.md H2, H3 for claims.
"""

from collections import deque
from dataclasses import dataclass, field

from tests.reference.hashes import TableHashes
from tests.reference.heap import BuddyHeap
from tests.reference.table import Table

HEAD_WORDS = 16  # what the quick zero check looks at


@dataclass(slots=True, eq=False)
class Page:
    """What is known of one machine frame that is not free."""

    owner: "Domain | None" = None
    allocated: bool = False  # holds the owner's allocation reference
    extra_refs: int = 0
    type_refs: int = 0  # of them, those that count as uses of its type
    shadow_refs: int = 0
    special: bool = False
    shadowed_pt: bool = False
    retired: bool = False
    set_aside: bool = False
    words: dict[int, int] = field(default_factory=dict)  # non-zero words only
    pattern: bool = False  # filled with its owner's scrub pattern (word 0 stands for all)

    @property
    def other_refs(self) -> int:
        """References beside the allocation reference."""
        return self.extra_refs + self.shadow_refs

    @property
    def head_is_zero(self) -> bool:
        """Are the first 16 words zero?"""
        return not self.words or min(self.words) >= HEAD_WORDS


@dataclass(slots=True, eq=False)
class Domain:
    """One domain: quota, table, cache lists, ring and counters. All sizes in pages."""

    dom: int
    maxmem_pages: int
    max_pages: int
    shadow: bool
    table: Table
    hashes: TableHashes
    owned: set[int] = field(default_factory=set)  # frames, special ones included
    tot_pages: int = 0
    entry_count: int = 0
    cache_super: deque[int] = field(default_factory=deque)  # first frames, head first
    cache_single: deque[int] = field(default_factory=deque)
    max_guest: int = 0
    reclaim_single: int = 0
    reclaim_super: int = 0
    ring: list[int] = field(default_factory=list)  # as many as its host says
    ring_index: int = 0
    now_ns: int = 0
    entry_ns: int = 0  # when the vCPU entered Xen
    softirq_per_s: float = 0
    irq_per_s: float = 0
    pending_key: int = 0
    vcpu: int = 0
    irqs_on: bool = False
    sweep_from: int = 0
    sweep_to: int = 0
    sweep_wrapped: bool = False
    crashed: bool = False
    destroyed: bool = False
    populated_4k: int = 0
    populated_2m: int = 0
    reclaimed_4k: int = 0
    reclaimed_2m: int = 0
    splintered_2m: int = 0
    sweeps: int = 0
    sweep_looks: int = 0
    super_sweeps: int = 0
    claim_pages: int = 0
    shadow_refs: dict[int, int] = field(default_factory=dict)  # gfn -> references of shadow mappings
    granted: list[int] = field(default_factory=list)  # gfns that the grant table names, as often as it does

    @property
    def count(self) -> int:
        """Frames in the PoD cache."""
        return 512 * len(self.cache_super) + len(self.cache_single)


class Frames:
    """All frames of one host."""

    def __init__(self, host_pages: int, scrub_on_free: bool) -> None:
        self.host_pages = host_pages
        self.scrub_on_free = scrub_on_free
        self.heap = BuddyHeap(host_pages)
        self.pages = [Page() for _ in range(host_pages)]
        self.outstanding_claims = 0

    def allocate(self, domain: Domain, order: int, *, special: bool = False) -> int | None:
        """A block for a domain, all or nothing: quota, then claims, then the heap. None when refused."""
        size = 1 << order
        if domain.destroyed or (not special and domain.tot_pages + size > domain.max_pages):
            return None
        own_claim = 0 if special else domain.claim_pages
        if self.outstanding_claims + size > self.heap.free_pages and own_claim < size:  # H3.1
            return None
        first = self.heap.allocate(order)
        if first is None:
            return None
        staked = min(own_claim, size)  # H3.3
        domain.claim_pages -= staked
        self.outstanding_claims -= staked
        for mfn in range(first, first + size):
            page = self.pages[mfn]
            page.owner, page.allocated, page.special = domain, True, special
            domain.owned.add(mfn)
        if not special:
            domain.tot_pages += size
        return first

    def set_aside(self, pages: int) -> list[int] | None:
        """Frames for nobody's domain, the largest blocks first; None (and nothing taken) when there are too few."""
        if pages + self.outstanding_claims > self.heap.free_pages:  # H3.4
            return None
        taken: list[int] = []
        order = 18
        while len(taken) < pages:
            while 1 << order > pages - len(taken) or not self.heap.has(order):
                order -= 1
            first = self.heap.allocate(order)
            assert first is not None
            for mfn in range(first, first + (1 << order)):
                self.pages[mfn].set_aside = True
                taken.append(mfn)
        return taken

    def release_set_aside(self, mfns: list[int]) -> None:
        """Give frames back that `set_aside` took."""
        for mfn in mfns:
            self.pages[mfn].set_aside = False
            self.pages[mfn].words.clear()
            self.heap.free(mfn)

    def drop_allocation(self, mfn: int) -> None:
        """The owner lets go of a frame; it is free once nothing else holds it."""
        self.pages[mfn].allocated = False
        self._free_if_unreferenced(mfn)

    def drop_extra(self, mfn: int) -> None:
        """One extra reference goes."""
        self.pages[mfn].extra_refs -= 1
        self._free_if_unreferenced(mfn)

    def set_special(self, mfn: int, special: bool) -> None:
        """Special frames are owned but not counted."""
        page = self.pages[mfn]
        assert page.owner is not None and page.special != special
        page.special = special
        page.owner.tot_pages += -1 if special else 1

    def retire(self, mfn: int) -> None:
        """A broken frame leaves its owner and never comes back."""  # P13
        self._disown(mfn)
        page = self.pages[mfn]
        page.allocated, page.retired = False, True

    def _free_if_unreferenced(self, mfn: int) -> None:
        page = self.pages[mfn]
        if page.allocated or page.other_refs:
            return
        assert page.owner is not None
        if self.scrub_on_free or page.owner.destroyed:
            page.words.clear()
        self._disown(mfn)
        self.heap.free(mfn)

    def _disown(self, mfn: int) -> None:
        page = self.pages[mfn]
        assert page.owner is not None
        page.owner.owned.discard(mfn)
        if not page.special:
            page.owner.tot_pages -= 1
        page.owner, page.special, page.shadowed_pt, page.pattern = None, False, False, False
