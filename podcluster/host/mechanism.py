"""What the life of a host needs of the page mechanism: the interface that domain, guest, balloon and clock are written
against.

What        `Mechanism`, which `machine.Machine` and the tests' slow reference implement; `Counted`, what it tells of
            one domain.
Units       gfns, sizes and counts are 4 KiB pages; an order-k extent is 2**k of them. Error numbers are Xen's (-12 no
            memory, -22 invalid).
Invariants  A range operation leaves the state that the same operation page by page leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from podcluster.host.follow import Curve, Told
from podcluster.host.page_sets import PageBooks
from podcluster.host.takers import Taker, Turns
from podcluster.records.values import Int64Array


class Counted(Protocol):
    """Counters of one domain [pages; totals since its creation]."""

    @property
    def tot_pages(self) -> int:
        """Pages it owns."""

    @property
    def cache_count(self) -> int:
        """C, pages in its cache."""

    @property
    def entry_count(self) -> int:
        """E, gfns promised and not backed."""

    @property
    def max_pages(self) -> int:
        """Its quota."""

    @property
    def populated_pages(self) -> int:
        """P, gfns backed by a frame."""

    @property
    def populated_4k(self) -> int:
        """Demand populates of one page."""

    @property
    def populated_2m(self) -> int:
        """Demand populates of a superpage."""

    @property
    def reclaimed_4k(self) -> int:
        """Zero pages taken back one by one."""

    @property
    def reclaimed_2m(self) -> int:
        """Zero superpages taken back."""

    @property
    def splintered_2m(self) -> int:
        """Superpage entries split for want of a superpage."""

    @property
    def sweeps(self) -> int:
        """Emergency sweeps."""

    @property
    def sweep_looks(self) -> int:
        """How many gfns they looked at."""


class Ballooned(Protocol):
    """How far the batches of `balloon_runs` came."""

    @property
    def died(self) -> bool:
        """The guest did not survive the zeroing of the next batch."""

    @property
    def cut_short(self) -> bool:
        """A hypercall did less than it was asked."""

    @property
    def whole_pages(self) -> int:
        """Pages of the batches that are done."""

    @property
    def zeroed_pages(self) -> int:
        """Pages of the next batch, in its order, that are zeroed."""

    @property
    def given_pages(self) -> int:
        """And that are given back."""


class Mechanism(Protocol):
    """One machine's frames and the domains on them."""

    @property
    def paces(self) -> bool:
        """Whether many acts of a guest may be one call; else each is made by itself."""

    def follow_demand(
        self,
        dom: int,
        books: PageBooks,
        s: Sequence[int],
        d: Sequence[int],
        curve: Curve,
        room: int,
        pages_per_s: float,
    ) -> tuple[list[int], Told]:
        """The kernel of that name, with room for so many pieces: its books afterwards, and what it has told, until the
        next call. Only where it `paces`.
        """

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
        that was cut short, afterwards. Only where it `paces`.
        """

    def take_in_turns(self, doms: Sequence[int], takers: Sequence[Taker], least_pages: int) -> Turns:
        """Let balloons take pages of the host by turns (turns.py), leaving so many free: what they came to. The takers
        are changed. Only where it `paces`.
        """

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
        """`turns.take_back`, with room for so many pieces: the taker, what is common and page cache, afterwards. Only
        where it `paces`.
        """

    def create(
        self, dom: int, *, maxmem_pages: int, max_pages: int, paging: str, p2m: str, sp_1g: bool, sp_2m: bool
    ) -> int:
        """Bring an empty domain into being."""

    def extend(self, dom: int, first_gfn: int, count: int) -> None:
        """The guest counts so many more gfns as its RAM: M is more by that. Nothing is there yet."""

    def end_build(self, dom: int) -> None:
        """The builder is done: from here on the debt is not negative."""

    def destroy(self, dom: int) -> int:
        """Tear a domain down; everything it owned is free."""

    def forget(self, dom: int) -> None:
        """Drop what is kept of a destroyed domain."""

    def set_max_pages(self, dom: int, pages: int) -> int:
        """Set the quota."""

    def set_preempt(self, mode: str) -> int:
        """`always` or `never`: whether there is other work whenever Xen looks."""

    def set_clock(self, dom: int, now_ns: int) -> None:
        """The vCPU that acts next does so at `now_ns` (G6)."""

    def clock(self, dom: int) -> int:
        """Simulated time by now: what `set_clock` said, and what Xen has taken since."""

    def set_interrupts(self, dom: int, enabled: bool, vcpu: int) -> None:
        """The vCPU that acts next, and whether it has interrupts enabled, so that they count as pending work (G7)."""

    def set_pending_work(self, dom: int, key: int, softirq_per_s: float, irq_per_s: float) -> None:
        """How often other work arrives for the CPU of a vCPU of this domain: softirqs, and interrupts (G7).

        `key` (64 bits) names the draw; the same key has the same arrivals.
        """

    def set_scrub_pattern(self, dom: int, on: bool) -> None:
        """Register the guest's scrub pattern, or take it back (S1)."""

    def hazard(self, dom: int) -> tuple[int, int, int]:
        """At a death out of PoD memory: zero pages that were left, by why no sweep took them.

        (above where the last sweep began: wrap; below where it was cut off: preemption; beyond the highest gfn touched,
        or gfn 0, where no sweep ever looks: ring, for the recent list alone could have had them).
        """

    def claim(self, dom: int, pages: int) -> int:
        """Stake `pages` (final size); 0 cancels. 0, -12 or -22."""

    def set_pod_target(self, dom: int, pages: int) -> int:
        """Set the PoD target: 0, -12 or -22."""

    def mark_pod_extents(self, dom: int, runs: Sequence[tuple[int, int, int]]) -> int:
        """Promise runs of adjacent extents, (first gfn, count, order), one after another; extents done."""

    def populate_seq(self, dom: int, start: int, count: int, order: int, step: int) -> int:
        """Put host memory at extents `step` extents apart; extents done."""

    def populate_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Put host pages at single gfns; pages done."""

    def balloon_range(self, dom: int, first_gfn: int, count: int, *, descending: bool = False) -> int:
        """Give single gfns back; pages done."""

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
        """Give runs of pages (first gfn, count), no page twice, back in batches, each of one hypercall of single gfns.

        A batch takes each run from its top page down, and cuts it where the batch is full; `ascending` makes it one
        sorted list instead. `scrub` zeroes the pages of a batch, in its order, before its hypercall. It stops before a
        batch larger than the debt (`until_heap`), in a batch whose zeroing the guest does not survive, and where a
        hypercall does less than it was asked. `clock` tells what all of it took.
        """

    def touch_range(self, dom: int, first_gfn: int, count: int, *, content: int, descending: bool = False) -> int:
        """Overwrite whole pages with ZERO, DATA or PATTERN (written.py); pages done, fewer only if the guest died in
        the next one.
        """

    def map_page(self, dom: int, gfn: int, by: int) -> int:
        """Domain `by` maps a page, which populates it: 0, or a status below 0."""

    def map_promised(self, dom: int, first_gfn: int, count: int, by: int) -> int:
        """Domain `by` maps the pages of a range that are promised; pages gone through, fewer only if the guest died of
        the next one.
        """

    def query(self, dom: int, gfn: int) -> list[int]:
        """[kind, order] of the entry that a gfn is in, without populating: 0 empty, 1 RAM, 2 and 3 promised."""

    def table_pages(self, dom: int) -> int:
        """Pages of the domain's own page table (A3.9)."""

    def set_aside(self, pages: int) -> int:
        """Take frames for Xen, dom0 or a pool: a handle > 0, or -12."""

    def release(self, handle: int) -> int:
        """Give back what `set_aside` took."""

    def take_notes(self) -> dict[str, Any]:
        """`oom`, `nomem`, `assert` and `conflict` since the last call."""

    def oom_line(self, oom: Mapping[str, int]) -> str:
        """The line that Xen logs for an `oom` note."""

    def counters(self, dom: int) -> Counted:
        """Counters of one domain."""

    def tot_pages(self, dom: int) -> int:
        """Pages it owns; as in `counters`, without their cost."""

    def entry_count(self, dom: int) -> int:
        """E; as in `counters`."""

    def debt_pages(self, dom: int) -> int:
        """E - C."""

    def entry_map(self, dom: int) -> tuple[int, int, int, int, int, int]:
        """Entries of its table: (ram4k, ram2m, ram1g, pod4k, pod2m, pod1g)."""

    def audit(self, dom: int | None = None) -> None:
        """Check P15 for one domain, or for all of them and the host; raises InvariantError."""

    @property
    def resident_bytes(self) -> int:
        """Memory of this computer that it takes."""

    def let_go(self) -> None:
        """Give that back at once; it is of no use from here on."""

    @property
    def free_pages(self) -> int:
        """Free frames."""
