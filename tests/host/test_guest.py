"""Does a guest do with its memory what its class, its demand and its allocator say, and count it rightly?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.config import HostConfig, SwapConfig
from podcluster.host import domain as toolstack
from podcluster.host.domain import ABOVE_VGA, VGA_HOLE, Domain
from podcluster.host.fault import SOUND, Fault
from podcluster.host.guest import Guest
from podcluster.host.guest_boot import Boot
from podcluster.host.guest_demand import DemandStream
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import HeldBooks
from podcluster.host.machine import Machine
from podcluster.host.page_runs import Allocator, PageSet, aligned_blocks, shuffled_blocks
from podcluster.host.streams import BATCH_PAGES, NEVER, Pace, Runs, count_instants
from podcluster.host.traced import TracedMachine
from podcluster.records.commands import SetTarget
from podcluster.records.demand import Demand
from podcluster.records.fates import EventKind
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, one_life, request, start

MIB = PAGES_PER_MIB
SPAN = 400  # gfns of the small sets

small_runs = st.tuples(st.integers(0, SPAN), st.integers(0, 60))


# -- sets and orders ---------------------------------------------------------------------------------------------


@given(steps=st.lists(st.tuples(st.booleans(), small_runs), max_size=40), asked=small_runs)
def test_page_set_is_a_set(steps: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    """Against a Python set: what add and remove return, the count, gaps, runs, membership."""
    ours, plain = PageSet(), set[int]()
    for add, (first, count) in steps:
        pages = set(range(first, first + count))
        if add:
            assert ours.add(first, count) == len(pages - plain)
            plain |= pages
        else:
            assert ours.remove(first, count) == len(pages & plain)
            plain -= pages
        assert ours.pages == len(plain)
    assert [gfn for first, count in ours.runs() for gfn in range(first, first + count)] == sorted(plain)
    assert all(a + n < b for (a, n), (b, _) in zip(ours.runs(), ours.runs()[1:], strict=False))
    first, count = asked
    gaps = [gfn for at, n in ours.gaps(first, count) for gfn in range(at, at + n)]
    assert gaps == sorted(set(range(first, first + count)) - plain)
    assert all((gfn in ours) == (gfn in plain) for gfn in range(SPAN + 70))


def laid_out(runs: Sequence[tuple[int, int]]) -> list[int]:
    """Pages in the order they are taken: runs in order, each from its top page down."""
    return [gfn for first, count in runs for gfn in range(first + count - 1, first - 1, -1)]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "away", "back", "again"]), st.integers(0, 50), st.integers(0, 100)),
        max_size=30,
    )
)
def test_allocator_hands_out_in_order(steps: list[tuple[str, int, int]]) -> None:
    """Against lists of single pages: what was freed last first, then what came back, then untouched from the top; what
    is freed for good goes out again in the order in which it went before.
    """
    allocator = Allocator([(0, 100), (150, 70)])
    pool = [*range(219, 149, -1), *range(99, -1, -1)]  # in the order they go
    taken: list[int] = []
    away: list[tuple[int, int]] = []
    for what, pages, in_use_percent in steps:
        if what == "take":
            assert laid_out(allocator.take(pages)) == pool[:pages]
            taken, pool = taken + pool[:pages], pool[pages:]
        elif what == "away":
            in_use = len(taken) * in_use_percent // 100
            runs = allocator.take_away(pages, in_use)
            freed, fresh = taken[in_use:][:pages], max(0, pages - (len(taken) - in_use))
            assert laid_out(runs) == freed + pool[:fresh]
            taken, pool = taken[:in_use] + taken[in_use + len(freed) :], pool[fresh:]
            away += runs
        elif what == "again":
            in_use = len(taken) * in_use_percent // 100
            runs = allocator.put_back_spare(in_use)
            assert laid_out(runs[::-1]) == taken[in_use:]
            taken, pool = taken[:in_use], taken[in_use:] + pool
        elif away:
            run = away.pop()
            allocator.put_back([run])
            pool = laid_out([run]) + pool
        assert (allocator.taken_pages, allocator.pool.pages) == (len(taken), len(pool))


def test_random_blocks_are_the_same_pages() -> None:
    """Aligned blocks of 64, each once, in an order that the generator decides."""
    runs = [(10, 100), (200, 313)]
    blocks = [(first, count) for first, count in shuffled_blocks(runs, 64, np.random.default_rng(3)).tolist()]
    assert sorted(laid_out(blocks)) == sorted(laid_out(runs))
    assert all(first // 64 == (first + count - 1) // 64 for first, count in blocks)
    assert blocks != sorted(blocks)
    assert np.array_equal(blocks, shuffled_blocks(runs, 64, np.random.default_rng(3)))


@given(first=st.integers(0, 300), count=st.integers(1, 300), block_pages=st.integers(1, 80))
def test_a_run_is_cut_at_every_multiple(first: int, count: int, block_pages: int) -> None:
    """Whole blocks between a first and a last part; page by page it is the run."""
    blocks = aligned_blocks([(first, count)], block_pages).tolist()
    pages = list(range(first, first + count))
    assert [gfn for at, n in blocks for gfn in range(at, at + n)] == pages
    assert [at for at, _ in blocks] == [gfn for gfn in pages if gfn == first or gfn % block_pages == 0]


@given(start=st.integers(0, 50), span=st.integers(0, 5000), pages=st.integers(0, 3000), last=st.integers(0, 6000))
def test_pace_counts_whole_batches(start: int, span: int, pages: int, last: int) -> None:
    """`batched_by` against a walk over the batches: those whose first page is due."""
    pace = Pace(start, span, pages)
    due = [first for first in range(0, pages, BATCH_PAGES) if pace.instant(first) <= last]
    assert pace.batched_by(last) == min(pages, len(due) * BATCH_PAGES)
    assert pace.instant(0) == (start if pages else pace.end_ns)
    assert all(pace.instant(page) <= pace.instant(page + 1) <= pace.end_ns for page in range(0, pages, 97))


@given(step=st.integers(1, 40), first=st.integers(0, 20), more=st.integers(0, 4000))
def test_count_instants(step: int, first: int, more: int) -> None:
    """Against counting."""
    last = first * step + more
    due = [k for k in range(first, last + 1) if k * step <= last]
    assert count_instants(lambda k: k * step, first, last) == len(due)


@given(
    runs=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 20)), max_size=5),
    first=st.integers(0, 80),
    pages=st.integers(0, 80),
    descending=st.booleans(),
)
def test_slices_of_runs(runs: list[tuple[int, int]], first: int, pages: int, descending: bool) -> None:
    """Against a list of single pages."""
    step = -1 if descending else 1
    flat = [gfn for at, count in runs for gfn in range(at, at + count)[::step]]
    laid = Runs(runs, descending=descending)
    sliced = laid.slice(first, pages)
    assert [gfn for at, count in sliced for gfn in range(at, at + count)[::step]] == flat[first : first + pages]
    assert all(count > 0 for _, count in sliced)
    assert laid.pages == len(flat)
    strips = Runs.lay((Runs([(7, 2)]), laid)).tolist()
    at, before, end, pages_of_all = laid.place(first)
    rest = [
        gfn
        for start, count in zip(strips[2 * at : 2 * end : 2], strips[2 * at + 1 : 2 * end : 2], strict=True)
        for gfn in range(start, start + abs(count))[:: 1 if count > 0 else -1]
    ]
    assert (rest[before:], pages_of_all) == (flat[first:], len(flat))


# -- a guest on a machine -----------------------------------------------------------------------------------------


class Rig:
    """A guest alone on a machine, without a host's clock around it."""

    def __init__(
        self,
        kind: str = "linux_no_driver",
        memory_mib: int = 64,
        maxmem_mib: int = 128,
        demand: Demand | None = None,
        *,
        hold_ns: int = -1,
        may_skip: bool = True,
        ahead: bool = True,
        vcpus: int = 2,
        fault: Fault = SOUND,
        **changed: Any,
    ) -> None:
        cfg = guest_config(kind, **changed)
        self.machine = TracedMachine((maxmem_mib + 64) * MIB)
        asked = request(0, kind, memory_mib, maxmem_mib)
        built = toolstack.build(self.machine, 1, asked, HostConfig(), cfg)
        assert isinstance(built, Domain)
        self.domain = built
        self.boot = Boot.draw(cfg, 1, 0, 1)
        self.memory = GuestMemory(
            self.machine,
            1,
            built.layout,
            image_pages=self.boot.kernel_pages,
            descriptor_pages=maxmem_mib * MIB // 64,
            block_pages=cfg.alloc_block_pages,
            rng=np.random.default_rng(1) if cfg.alloc_order == "random" else None,
            may_skip=may_skip,
            zero_on_free=cfg.zero_on_free,
        )
        self.events: list[tuple[int, EventKind, str]] = []
        self.guest = Guest(
            self.memory,
            self.boot,
            cfg,
            demand or Demand.flat(0),
            hold_ns=hold_ns,
            start_ns=0,
            vcpus=vcpus,
            on_event=lambda at_ns, kind, text: self.events.append((at_ns, kind, text)),
            ahead=ahead,
            fault=fault,
        )

    def run_to(self, until_s: float) -> "Rig":
        self.guest.run(s_to_ns(until_s))
        return self


def test_the_boot_writes_what_its_streams_say() -> None:
    """Firmware low, the image at 16 MiB, descriptors (maxmem/64) and services from the top of memory down."""
    rig = Rig(page_cache={"rate_mib_per_s": 0}).run_to(60)
    boot, descriptors = rig.boot, 128 * MIB // 64
    top = 120 * MIB  # maxmem less video RAM
    assert rig.memory.nonzero_runs == [
        (0, VGA_HOLE),
        (ABOVE_VGA, 0x180 - ABOVE_VGA),
        (0x1000, boot.kernel_pages),
        (top - descriptors - boot.services_pages, descriptors + boot.services_pages),
    ]
    assert rig.guest.boot_done_ns == boot.firmware_ns + boot.kernel_ns + boot.services_ns
    assert [kind for _, kind, _ in rig.events] == ["boot_done"]


def test_descriptors_follow_maxmem_whatever_the_target() -> None:
    """C1.11: two guests of one memory, one of four times the maxmem, differ by the descriptors alone."""
    small, large = (Rig(maxmem_mib=mib, page_cache={"rate_mib_per_s": 0}).run_to(60) for mib in (128, 512))
    assert large.memory.nonzero_pages - small.memory.nonzero_pages == 384 * MIB // 64


@pytest.mark.parametrize("kind", ["linux_no_driver", "windows"])
def test_the_guests_own_count_is_what_the_machine_holds(kind: str) -> None:
    """GM-3 against the machine's content bits: the same number of pages with data, from books that never ask."""
    rig = Rig(kind, 100, 128, curve((0, 10), (30, 60)), may_skip=False, swap={"mib": 0})
    for until_s in range(1, 40, 3):
        rig.run_to(until_s)
        assert rig.memory.nonzero_pages == rig.machine.nonzero_pages(1)
    assert rig.memory.nonzero_pages > 60 * MIB


def test_a_guest_that_owes_nothing_may_be_skipped() -> None:
    """G12: with no entry outstanding, all the same whether the machine is told of each write or not."""
    told, skipped = (
        Rig("linux_no_driver", 64, 64, curve((0, 10), (30, 50)), may_skip=may_skip).run_to(60)
        for may_skip in (False, True)
    )
    assert skipped.memory.inert
    assert not told.memory.inert
    assert told.memory.nonzero_runs == skipped.memory.nonzero_runs
    assert told.machine.nonzero_pages(1) > skipped.machine.nonzero_pages(1)
    assert told.machine.counters(1) == skipped.machine.counters(1)
    assert told.machine.entry_map(1) == skipped.machine.entry_map(1)


def test_a_scrubber_fills_no_book() -> None:
    """Zeroes are written over all that is free, populated and reclaimed; no page counts as holding data for it."""
    quiet, zeroing = (
        Rig(scrubber=scrubber, page_cache={"rate_mib_per_s": 0}).run_to(60) for scrubber in ("none", "zero")
    )
    assert zeroing.memory.nonzero_runs == quiet.memory.nonzero_runs
    assert zeroing.guest.end is None
    seen = zeroing.machine.counters(1)
    assert seen.populated_2m > quiet.machine.counters(1).populated_2m
    assert seen.reclaimed_2m + seen.reclaimed_4k > 0


def test_a_scrubber_leaves_pages_in_use_alone() -> None:
    """Zeroing while services start: what holds data keeps it (the machine's bits say so)."""
    rig = Rig(scrubber="zero", scrub_start_s=[1, 1], scrub_rate_mib_per_s=[20, 20], may_skip=False)
    for until_s in range(1, 12):
        rig.run_to(until_s)
        assert rig.machine.nonzero_pages(1) == rig.memory.nonzero_pages


def test_linux_takes_from_the_top_and_windows_in_random_blocks() -> None:
    """G2: the orders that decide how many superpages a small working set populates."""
    linux = Rig(page_cache={"rate_mib_per_s": 0}, demand=Demand.flat(30 * MIB)).run_to(60)
    windows = Rig("windows", page_cache={"rate_mib_per_s": 0}, demand=Demand.flat(30 * MIB), scrubber="none").run_to(60)
    assert linux.memory.nonzero_pages == windows.memory.nonzero_pages
    assert len(linux.memory.nonzero_runs) == 4
    assert len(windows.memory.nonzero_runs) > 10


def test_freed_pages_are_taken_first() -> None:
    """GS-2: demand that comes and goes writes nothing new until it passes its peak."""
    demand = curve((0, 20), (30, 40), (40, 15), (50, 40), (60, 15), (70, 45))
    rig = Rig(demand=demand, hold_ns=0, page_cache={"rate_mib_per_s": 0})
    at_peak = rig.run_to(35).memory.nonzero_pages
    for until_s in (40, 45, 50, 60):
        assert rig.run_to(until_s).memory.nonzero_pages == at_peak
    assert rig.run_to(70).memory.nonzero_pages > at_peak


def test_page_cache_stops_at_its_share_and_at_its_floor() -> None:
    """G4: 0.7 of what is not held, and never below a tenth of the guest free."""
    rig = Rig("linux_no_driver", 128, 128, demand=Demand.flat(30 * MIB)).run_to(60)
    memory = rig.memory
    assert memory.cache == int(0.7 * memory.available)
    rig = Rig("linux_no_driver", 128, 128, Demand.flat(30 * MIB), page_cache={"max_share_of_free": 1.0}).run_to(60)
    assert rig.memory.free == int(0.1 * rig.memory.visible_pages)


def test_demand_drops_page_cache_before_it_swaps() -> None:
    """G3: a guest whose demand grows over its page cache drops it and writes no page it had not."""
    rig = Rig("linux_no_driver", 128, 128, demand=curve((0, 20), (40, 20), (60, 100))).run_to(40)
    full = rig.memory.cache
    rig.run_to(70)
    assert rig.memory.cache < full
    assert rig.guest.held.swapped == 0
    assert rig.guest.held.held == 100 * MIB - rig.memory.kernel_pages


def test_what_a_guest_says_of_itself_adds_up() -> None:
    """GT-1 along a life of page cache, growth beyond what it has, and swap; silence until its services are up."""
    rig = Rig("linux_no_driver", 128, 128, demand=curve((0, 20), (40, 20), (60, 130), (90, 130), (100, 30)), hold_ns=0)
    assert rig.run_to(1).guest.stats(s_to_ns(1)) is None
    swapped = []
    for at_s in range(10, 120, 5):
        told = rig.run_to(at_s).guest.stats(s_to_ns(at_s))
        assert told is not None
        assert told.total_pages == told.used_pages + told.cache_pages + told.free_pages == 120 * MIB - 32
        assert min(told.used_pages, told.cache_pages, told.free_pages) >= 0
        assert told.wanted_pages == rig.guest.wanted_pages(s_to_ns(at_s))
        assert told.swapped_pages <= told.swap_pages == 16 * MIB
        swapped.append(told.swapped_pages)
    assert max(swapped) == 130 * MIB - (120 * MIB - 32)
    assert swapped[0] == swapped[-1] == 0


class Hazardous(TracedMachine):
    """A machine on which the next write is a guest's death, with so many zero pages left behind for each reason."""

    left = (0, 0, 0)

    def touch_range(self, *_: Any, **__: Any) -> int:
        return 0

    def take_notes(self) -> dict[str, Any]:
        return {"oom": {"dom": 1, "tot": 0, "ents": 0, "curr": 1}}

    def hazard(self, dom: int) -> tuple[int, int, int]:
        return self.left


@pytest.mark.parametrize(
    ("wrap", "preempt", "ring", "cause"),
    [
        (0, 0, 0, "reclaim_short"),
        (0, 0, 9, "ring"),
        (3, 0, 9, "wrap"),
        (3, 1, 9, "preempt"),
        (0, 1, 0, "preempt"),
    ],
)
def test_a_death_short_of_the_limit_names_its_hazard(wrap: int, preempt: int, ring: int, cause: str) -> None:
    """G11: what kept reclaim from the pages that were left, the first that applies; and debt before all of them."""
    rig = Rig(page_cache={"rate_mib_per_s": 0}).run_to(1)
    rig.machine.__class__ = Hazardous
    rig.machine.left = (wrap, preempt, ring)  # type: ignore[attr-defined]
    rig.run_to(60)
    assert rig.guest.end is not None
    assert (rig.guest.end.fate, rig.guest.end.cause) == ("pod_oom", cause)
    rig.memory.owned = rig.memory.nonzero_pages
    assert rig.memory.death_cause() == "debt"


@pytest.mark.parametrize(
    ("let_go", "preempt", "cause"),
    [(True, "never", "debt"), (True, "always", "preempt"), (False, "never", "reclaim_short")],
)
def test_a_guest_that_booted_dies_of_preemption(let_go: bool, preempt: str, cause: str) -> None:
    """G11, counted by the machine: a backend maps the zero pages behind the kernel's image, so the recent list does
    not take them back, and lets go of them when the list has forgotten them. When the guest has data in all else, only
    a sweep can save it, which comes down from the top, over more than a thousand pages of data. If it is cut off for
    work that waits, the guest dies as many pages short of its limit; if not, at its limit.
    """
    demand = curve((0, 20), (20, 20), (40, 100), (50, 100), (70, 160))
    rig = Rig(memory_mib=128, maxmem_mib=256, demand=demand, page_cache={"rate_mib_per_s": 0}, swap={"mib": 0})
    rig.machine.set_preempt(preempt)
    rig.run_to(3)
    behind = 0x1000 + rig.boot.kernel_pages
    mapped = [gfn for gfn in range(behind, -(-behind // 512) * 512) if rig.machine.query(1, gfn)[0] == 1]
    assert mapped
    for reference, gfn in enumerate(mapped):
        assert rig.machine.add_ref(1, gfn, reference) == 0
    rig.run_to(45)
    if let_go:
        for reference in range(len(mapped)):
            assert rig.machine.drop_ref(reference, 1) == 0
    rig.run_to(100)
    assert rig.guest.end is not None
    assert (rig.guest.end.fate, rig.guest.end.cause) == ("pod_oom", cause)
    # The write that found nothing counts as one more [G11].
    assert rig.memory.margin == (-1 if cause == "debt" else len(mapped) - 1)


def test_a_lying_guest_claims_more_than_it_has_in_use() -> None:
    """guest.fault.kind=lying: what it says of its use and wants is false, and adds up all the same [GT-1]."""
    story: dict[str, Any] = {"demand": Demand.flat(40 * MIB), "page_cache": {"rate_mib_per_s": 5}}
    honest, lying = (
        Rig("linux_no_driver", 128, 128, fault=fault, **story).run_to(60).guest.stats(s_to_ns(60))
        for fault in (SOUND, Fault("lying", factor=2.0))
    )
    assert honest is not None
    assert lying is not None
    assert (lying.used_pages, lying.wanted_pages) == (2 * honest.used_pages, 2 * honest.wanted_pages)
    assert lying.total_pages == lying.used_pages + lying.cache_pages + lying.free_pages == honest.total_pages
    boastful = Rig("linux_no_driver", 128, 128, fault=Fault("lying", factor=9.0), **story).run_to(60).guest
    told = boastful.stats(s_to_ns(60))
    assert told is not None
    assert (told.used_pages, told.free_pages, told.cache_pages) == (told.total_pages, 0, 0)


# -- held memory ------------------------------------------------------------------------------------------------------


@st.composite
def curves(draw: st.DrawFn, scale: int = 1) -> Demand:
    """A demand of up to 60 times `scale` pages over a few hundred ns."""
    times = sorted(draw(st.sets(st.integers(1, 400), max_size=8)))
    pages = draw(st.lists(st.integers(0, 60), min_size=len(times) + 1, max_size=len(times) + 1))
    return Demand(np.array([0, *times], dtype=np.int64), scale * np.array(pages, dtype=np.int64))


@pytest.fixture(scope="module")
def roomy() -> tuple[Machine, Domain]:
    """A guest of 56 MiB that was promised nothing, so that what is written costs nothing."""
    machine = Machine(96 * MIB)
    built = toolstack.build(machine, 1, request(0, "linux", 64, 64), HostConfig(), guest_config("linux"))
    assert isinstance(built, Domain)
    return machine, built


Books = tuple[HeldBooks, DemandStream, GuestMemory, Demand]


def books(guest: tuple[Machine, Domain], demand: Demand, hold: int, pages_per_s: int) -> Books:
    """What the guest holds if it wants `demand` beside its kernel; W includes the kernel."""
    machine, built = guest
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=0, descriptor_pages=0, block_pages=512, rng=None, may_skip=True
    )
    whole = Demand(demand.t_ns, demand.pages + memory.kernel_pages)
    swap = SwapConfig(mib=0, latency_us=0, mib_per_s=1)
    held = HeldBooks(memory, whole, swap, on_kill=lambda _: None)
    stream = DemandStream(
        0,
        memory,
        held,
        whole,
        hold_ns=hold,
        pages_per_s=pages_per_s,
        on_death=lambda _: None,
        on_release=lambda _: None,
    )
    return held, stream, memory, whole


@given(demand=curves(200), hold=st.one_of(st.just(-1), st.integers(0, 200)), start=st.integers(0, 100))
def test_held_memory_is_the_maximum_over_the_window(
    roomy: tuple[Machine, Domain], demand: Demand, hold: int, start: int
) -> None:
    """GD-2: H(t) at each sample and when one leaves the window, for a guest that writes at once, or a batch more."""
    held, stream, _, _ = books(roomy, demand, hold, 10**6 * NS_PER_S)
    stream.start(start)
    marks = sorted({int(t) + d for t in demand.t_ns for d in {0, max(hold, 0)} if t + d > start} | {start})
    for at in marks:
        stream.run(at, single=False)
        stream.settle(at)
        since = start if hold < 0 else max(start, at - hold)
        exact = max(demand.at(t) for t in range(since, at + 1))
        assert exact <= held.held < exact + BATCH_PAGES
        if int(demand.t_ns[-1]) + max(hold, 0) <= at:
            assert held.held == exact


@given(
    demand=curves(200),
    hold=st.one_of(st.just(-1), st.integers(0, 200)),
    cuts=st.lists(st.integers(0, 500), max_size=9),
    pages_per_ns=st.sampled_from([20, 100, 10**6]),
)
def test_held_memory_does_not_depend_on_cuts(
    roomy: tuple[Machine, Domain], demand: Demand, hold: int, cuts: list[int], pages_per_ns: int
) -> None:
    """GS-1: stopping at any times on the way, or doing single batches, ends the same and writes the same pages."""
    ends = []
    for single in (False, True):
        held, stream, memory, _ = books(roomy, demand, hold, pages_per_ns * NS_PER_S)
        stream.start(0)
        for cut in sorted(cuts) if not single else []:
            while stream.next_ns <= cut:
                stream.run(cut, single=False)
            stream.settle(cut)
            stream.relax()
        while stream.next_ns <= 600:
            stream.run(600, single=single)
        stream.settle(600)
        ends.append((held.held, held.kills, memory.nonzero_runs, stream.next_ns))
    assert ends[0] == ends[1]


# -- swap and the killing of applications


def test_swap_takes_what_does_not_fit_and_costs_time() -> None:
    """SW-2, SW-3: W beyond what the guest has goes to swap; it waits while the device moves that, then for misses."""
    row = one_life(
        "linux_no_driver",
        64,
        64,
        until_s=200,
        demand=curve((0, 20), (100, 20), (101, 60), (150, 60), (151, 20)),
        page_cache={"rate_mib_per_s": 0},
        swap={"latency_us": 500, "mib_per_s": 4, "cluster_pages": 8, "reuse_s": 30},
    )
    # 56 MiB less the VGA hole for kernel and applications, so a little over 4 MiB of swap.
    out = 60 * MIB - (56 * MIB - 32)
    assert row.swapped_pages_peak == out
    assert row.oom_kills == 0
    # W rises over what there is in the last tenth of a second before 101 s, in batches of 512 pages.
    request_s = 0.0005 + 8 / (4 * MIB)
    wait_s = 2 * 64 * 0.0005 + 4 * 0.0005 + out / (4 * MIB)
    waits_per_s = out * (request_s + request_s / 8) / 30
    lost_s = waits_per_s / (1 + waits_per_s)
    assert row.swap_ns / NS_PER_S == pytest.approx(wait_s + lost_s * (49.1 - wait_s), abs=0.1)
    misses = row.swap_in_pages
    assert row.swap_out_pages == out + misses
    assert misses == pytest.approx(lost_s * (49.1 - wait_s) / (request_s * 9 / 8), rel=0.01)
    lived_ns = row.end_ns - (row.boot_start_ns or 0)
    assert row.slowdown == lived_ns / (lived_ns - row.swap_ns)


@pytest.mark.parametrize("single", [True, False])
def test_who_has_enough_to_go_on_with_is_told_of_what_swap_releases(
    roomy: tuple[Machine, Domain], single: bool
) -> None:
    """GD-4: 15 pages are available, and who waits for one goes on at whatever is released, be it all on swap."""
    machine, built = roomy
    memory = GuestMemory(
        machine, 1, built.layout, image_pages=0, descriptor_pages=0, block_pages=512, rng=None, may_skip=True
    )
    wanted = memory.room + memory.kernel_pages + np.array([1000, 1000, 500, 500], dtype=np.int64)
    demand = Demand(np.array([0, 100, 200, 300], dtype=np.int64) * NS_PER_S, wanted)
    swap = SwapConfig(mib=64, latency_us=0, mib_per_s=1000)
    held = HeldBooks(memory, demand, swap, on_kill=lambda _: None, spare_pages=15)
    released: list[int] = []
    stream = DemandStream(
        0, memory, held, demand, hold_ns=0, pages_per_s=NS_PER_S, on_death=lambda _: None, on_release=released.append,
        matters_from=lambda: 1,
    )  # fmt: skip
    stream.start(0)
    stream.run(150 * NS_PER_S, single=False)
    stream.settle(150 * NS_PER_S)
    assert held.page_out(15, 150 * NS_PER_S, NS_PER_S) == 15
    stream.room_changed(150 * NS_PER_S)
    assert (held.swapped, memory.available, released) == (1015, 15, [])
    while stream.next_ns <= 250 * NS_PER_S:
        stream.run(250 * NS_PER_S, single=single)
    assert (held.swapped, released) == (515, [200 * NS_PER_S])


def test_a_short_burst_keeps_the_device_busy_after_it() -> None:
    """12 MiB moved at 1 MiB/s takes 12 s, although W is above room for only two."""
    row = one_life(
        "linux_no_driver",
        64,
        64,
        until_s=200,
        demand=curve((0, 20), (100, 20), (101, 68), (102, 20)),
        page_cache={"rate_mib_per_s": 0},
        swap={"mib_per_s": 1},
    )
    assert 12 * NS_PER_S < row.swap_ns < 12.5 * NS_PER_S


def test_what_is_wanted_comes_back_when_there_is_room_and_what_is_idle_does_not() -> None:
    """GD-3: with more memory from 200 s on, pages that W wants come in from swap; W's old peak stays out."""
    guest = guest_config("linux", page_cache={"rate_mib_per_s": 0}, swap={"mib": 64})
    demand = curve((0, 20), (50, 20), (51, 90), (60, 90), (61, 70), (400, 70))
    model = host_model(guest, telemetry_s=1)
    model.advance(s_to_ns(199), [start(request(0, "linux", 64, 128, demand))])
    row = live(model, 400, SetTarget(s_to_ns(200), 0, 88 * MIB)).domains[0]
    # Short of 90 MiB of which it has about 55; then for 70, of which it has 80.
    short = 90 * MIB - (64 - 8 - 8 - 1) * MIB
    assert abs(row.swapped_pages_peak - short) < MIB
    came_back_by = row.swap_in_pages
    never = live(host_model(guest, telemetry_s=1), 400, start(request(0, "linux", 64, 128, demand))).domains[0]
    assert never.swapped_pages_peak == row.swapped_pages_peak
    assert came_back_by < never.swap_in_pages  # no misses any more
    assert row.swap_ns < never.swap_ns


def test_without_room_in_swap_an_application_is_killed_once_an_excursion() -> None:
    """G3: the domain lives; two excursions above room and swap are two kills, however long each is."""
    demand = curve((0, 20), (30, 90), (60, 90), (70, 20), (90, 90), (120, 90))
    row = one_life("linux_no_driver", 64, 64, until_s=150, demand=demand, swap={"mib": 8})
    assert (row.fate, row.oom_kills) == ("running", 2)
    assert row.swapped_pages_peak == 8 * MIB
    none = one_life("linux_no_driver", 64, 64, until_s=150, demand=demand, swap={"mib": 0})
    assert (none.oom_kills, none.swap_ns, none.swapped_pages_peak) == (2, 0, 0)


def test_a_guest_too_small_for_its_kernel_panics() -> None:
    """No memory to boot: 4 MiB of RAM beside the video RAM, and a kernel of more."""
    row = one_life("linux_no_driver", 12, 12, kernel_mib=[5, 5])
    assert (row.fate, row.cause, row.boot_done_ns) == ("guest_panic", "no_memory_to_boot", None)


def test_demand_waits_for_the_boot() -> None:
    """W counts once the guest is up, and not before."""
    rig = Rig(memory_mib=100, demand=Demand.flat(60 * MIB), page_cache={"rate_mib_per_s": 0})
    done_s = (rig.boot.firmware_ns + rig.boot.kernel_ns + rig.boot.services_ns) / NS_PER_S
    rig.run_to(done_s - 0.001)
    assert rig.guest.wanted_pages(0) == rig.memory.written_pages < 20 * MIB
    assert rig.guest.wanted_peak(s_to_ns(done_s)) == 0
    rig.run_to(done_s + 5)
    assert rig.guest.wanted_pages(s_to_ns(done_s) + 1) == 60 * MIB
    assert rig.memory.written_pages == rig.guest.held.held + rig.memory.kernel_pages == 60 * MIB


def test_memory_is_written_no_faster_than_the_guest_can() -> None:
    """A guest at 100 MiB/s that comes up to a demand of 50 MiB more has written it half a second later, not at once."""
    rig = Rig(demand=Demand.flat(60 * MIB), page_cache={"rate_mib_per_s": 0}, scrub_rate_mib_per_s=[100, 100])
    done_ns = rig.boot.firmware_ns + rig.boot.kernel_ns + rig.boot.services_ns
    rig.guest.run(done_ns - 1)
    missing = 60 * MIB - rig.memory.kernel_pages - rig.guest.held.held
    for share in (0.25, 0.5, 0.75):
        rig.guest.run(done_ns + int(share * missing * NS_PER_S / (100 * MIB)))
        written = missing - (60 * MIB - rig.memory.kernel_pages - rig.guest.held.held)
        assert 0 <= written - share * missing <= BATCH_PAGES


def test_nothing_is_planned_after_demand_is_flat_and_met() -> None:
    """A guest without page cache and with flat demand sleeps for ever, so that an idle host costs nothing."""
    rig = Rig(demand=Demand.flat(30 * MIB), page_cache={"rate_mib_per_s": 0}).run_to(100)
    assert rig.guest.next_ns == NEVER
