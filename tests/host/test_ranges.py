"""Range operations leave the state of the page-by-page loop: against the same kernels a page at a time, and the model.

Three hosts go through the same preparation. Then one is asked for the range or list at once, one page by page through
the same kernels, and the third is the slow model, whose range operations *are* the loop.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from podcluster.config import ERAS
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, PATTERN, ZERO
from tests.host.pair import WORDS, Pair
from tests.host.test_pod_machine import BLOCK, SHAPES

DOM = 1
MAXMEM_BLOCKS = 4
HOST_PAGES = 10 * BLOCK + 37
EPT, PT, SHADOW = SHAPES[0], SHAPES[1], SHAPES[2]

COSTS = {
    "look_ns": 101,
    "check_nonzero_ns": 83,
    "check_zero_ns": 1009,
    "populate_4k_ns": 3001,
    "populate_2m_ns": 3011,
    "zero_4k_ns": 401,
    "splinter_ns": 20011,
}
"""No cost of a hypercall: a range is one, and its loop many."""

Step = tuple[str, tuple[Any, ...], dict[str, Any]]


class Trio(Pair):
    """A pair, and the same kernels once more for the loop."""

    def __init__(self, *, scrub_on_free: bool = True, words: bool = True, **host: Any) -> None:
        super().__init__(HOST_PAGES, scrub_on_free=scrub_on_free, words=words, **host)
        self.loop = TracedMachine(HOST_PAGES, scrub_on_free=scrub_on_free, words=words, **host)
        self.conflict = False  # R1: nothing more is asked of the guest

    def prepare(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """One operation of the preparation on all three."""
        if self.conflict:
            return None
        done = self.call(method, *arguments, **keywords)
        assert getattr(self.loop, method)(*arguments, **keywords) == done
        self.loop.take_notes()
        return done

    def create_all(self, dom: int, **guest: Any) -> None:
        self.create(dom, **guest)
        self.loop.create(dom, **guest)

    def build(self, shape: dict[str, Any], target: int, *, order: int = 9, low_ram: int = 0, slack: int = 0) -> None:
        self.create_all(DOM, maxmem_pages=MAXMEM_BLOCKS * BLOCK, max_pages=target + slack, **shape)
        if self.era != "rfc2009":
            self.prepare("set_pod_target", DOM, target)
        self.prepare("populate_seq", DOM, 0, low_ram, 0, 1)
        first = -(-low_ram >> order)
        self.prepare("mark_pod_seq", DOM, first << order, (MAXMEM_BLOCKS * BLOCK >> order) - first, order)
        if self.era == "rfc2009":  # R4: nothing before there are promises
            self.prepare("set_pod_target", DOM, target)

    def _end_after_conflict(self, dom: int) -> None:
        self.conflict = True

    def run(self, operation: str, gfns: Sequence[int], *, as_list: bool, **keywords: Any) -> int:
        """touch, balloon or populate `gfns` (adjacent unless `as_list`) in the three ways, or let another domain map
        those that are promised; how many were done.
        """
        if operation == "map_promised":
            gfns, as_list, keywords = sorted(range(min(gfns, default=0), max(gfns, default=-1) + 1)), False, {}
        page: dict[str, Callable[[int], int]] = {
            "map_promised": lambda gfn: self.loop.query(DOM, gfn)[0] < 2 or self.loop.map_page(DOM, gfn, 7) == 0,
            "touch": lambda gfn: self.loop.touch_range(DOM, gfn, 1, **keywords),
            "balloon": lambda gfn: self.loop.decrease(DOM, gfn, 0)[0],
            "populate": lambda gfn: self.loop.populate_range(DOM, gfn, 1),
        }
        looped = 0
        notes: dict[str, Any] = {}
        for gfn in gfns:
            done = page[operation](gfn)
            notes.update(self.loop.take_notes())
            if not done:
                break
            looped += 1
        if as_list:
            expected: int = getattr(self.slow, f"{operation}_list")(DOM, gfns, **keywords)
            found: int = getattr(self.fast, f"{operation}_list")(DOM, np.array(gfns, np.int64), **keywords)
        else:
            descending = len(gfns) > 1 and gfns[1] < gfns[0]
            first = min(gfns) if gfns else 0
            way = {"by": 7} if operation == "map_promised" else {**keywords, "descending": descending}
            name = operation if operation == "map_promised" else f"{operation}_range"
            expected = getattr(self.slow, name)(DOM, first, len(gfns), **way)
            found = getattr(self.fast, name)(DOM, first, len(gfns), **way)
        assert found == expected == looped, f"{operation}: range {found}, model {expected}, loop {looped}"
        noted = self.fast.take_notes()
        self.conflict = "conflict" in noted
        assert noted == self.slow.take_notes() == notes
        self.compare_all()
        return found

    def compare_all(self) -> None:
        self.compare()
        for dom in self.doms:
            assert self.loop.state_record(dom) == self.fast.state_record(dom)
            assert self.loop.counters(dom) == self.fast.counters(dom)
            assert self.loop.nonzero_pages(dom) == self.fast.nonzero_pages(dom)
            assert self.loop.clock(dom) == self.fast.clock(dom)
        if self.words and not self.fast.counters(DOM).crashed:
            ram = self.ram_gfns(DOM)
            for word in WORDS:
                assert self.loop.read_list(DOM, word, ram) == self.fast.read_list(DOM, word, ram)
        self.audit()
        self.loop.audit()


# -- any preparation, any range ----------------------------------------------------------------------------------

contents = st.sampled_from((ZERO, ZERO, DATA, PATTERN))
offsets = st.one_of(st.sampled_from((0, 1, 15, 16, 255, 496, 511)), st.integers(0, BLOCK - 1))
gfns = st.builds(lambda block, offset: block * BLOCK + offset, st.integers(0, MAXMEM_BLOCKS), offsets)
counts = st.one_of(st.sampled_from((1, 17, BLOCK, BLOCK + 1, 2 * BLOCK, MAXMEM_BLOCKS * BLOCK)), st.integers(0, 1500))
ranges = st.builds(
    lambda first, count, down: list(range(first, first + count)[:: -1 if down else 1]), gfns, counts, st.booleans()
)
per_s = st.sampled_from((0, 0, 1000, 20_000, 300_000, math.inf))
whole_blocks = st.builds(
    lambda first, blocks: list(range(first * BLOCK, (first + blocks) * BLOCK)),
    st.integers(0, MAXMEM_BLOCKS - 1),
    st.integers(1, MAXMEM_BLOCKS),
)
shuffled = st.builds(
    lambda first, count, chance: chance.sample(range(first, first + count), count), gfns, counts, st.randoms()
)
lists = st.one_of(shuffled, st.lists(gfns, max_size=60))
targets = st.one_of(st.sampled_from((BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 6, 3 * BLOCK, 40)), st.integers(1, 1600))
preparations = st.lists(
    st.one_of(
        st.tuples(st.just("touch_range"), st.tuples(gfns, counts), st.fixed_dictionaries({"content": contents})),
        st.tuples(st.just("touch_range"), st.tuples(gfns, counts), st.just({"content": ZERO})),
        st.tuples(st.just("balloon_range"), st.tuples(gfns, counts), st.just({})),
        st.tuples(st.just("add_ref"), st.tuples(gfns, st.integers(1, 3)), st.just({})),
        st.tuples(st.just("shadow_ref"), st.tuples(gfns), st.just({})),
        st.tuples(st.just("set_flag"), st.tuples(gfns, st.just("special"), st.booleans()), st.just({})),
        st.tuples(st.just("set_flag"), st.tuples(gfns, st.just("shadowed_pt"), st.just(True)), st.just({})),
        st.tuples(st.just("write"), st.tuples(gfns, st.sampled_from((0, 15, 16, 511)), st.just(9)), st.just({})),
        st.tuples(st.just("populate_special"), st.tuples(gfns), st.just({})),
        st.tuples(st.just("populate"), st.tuples(gfns, st.just(0)), st.just({})),
        st.tuples(st.just("set_pod_target"), st.tuples(st.integers(600, 1700)), st.just({})),
        st.tuples(st.just("set_preempt"), st.just(("always",)), st.just({})),
    ),
    max_size=8,
)


@settings(max_examples=360, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    target=targets,
    order=st.sampled_from((9, 9, 9, 0)),
    low_ram=st.sampled_from((0, 0, 32)),
    hosts=st.tuples(st.booleans(), st.booleans()),
    rates=st.one_of(st.none(), st.tuples(per_s, per_s, st.integers(0, 3))),
    era=st.sampled_from(("today", "today", *ERAS)),
    ring_slots=st.sampled_from((None, None, 1, 4)),
    preparation=preparations,
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("touch"), st.one_of(ranges, whole_blocks), st.just(False), contents),
            st.tuples(st.just("touch"), lists, st.just(True), contents),
            st.tuples(st.just("balloon"), st.one_of(ranges, whole_blocks), st.just(False), st.none()),
            st.tuples(st.just("balloon"), lists, st.just(True), st.none()),
            st.tuples(st.just("populate"), ranges, st.just(False), st.none()),
            st.tuples(st.just("map_promised"), ranges, st.just(False), st.none()),
        ),
        min_size=1,
        max_size=4,
    ),
)
@example(  # dies in the middle of a block, descending, with superpages in the table
    shape=EPT,
    target=BLOCK + 6,
    order=9,
    low_ram=0,
    hosts=(True, True),
    rates=None,
    era="today",
    ring_slots=None,
    preparation=[],
    operations=[("touch", list(range(MAXMEM_BLOCKS * BLOCK))[::-1], False, DATA)],
)
def test_any_range_equals_its_loop(
    shape: dict[str, Any],
    target: int,
    order: int,
    low_ram: int,
    hosts: tuple[bool, bool],
    rates: tuple[float, float, int] | None,
    era: str,
    ring_slots: int | None,
    preparation: list[Step],
    operations: list[tuple[str, list[int], bool, int | None]],
) -> None:
    """Any few ranges or lists after any preparation, in every era, with recent lists so short that superpages come out
    of them again, on hosts that keep words and on those with bits.
    """
    scrub_on_free, words = hosts
    trio = Trio(
        scrub_on_free=scrub_on_free, words=words, costs=COSTS if rates else None, era=era, ring_slots=ring_slots
    )
    trio.build(shape, target, order=order, low_ram=low_ram, slack=100)
    if not words and era != "rfc2009":
        trio.prepare("set_scrub_pattern", DOM, target % 4 != 3)
    if rates:
        softirqs, irqs, vcpu = rates
        trio.prepare("set_pending_work", DOM, 99, softirqs, irqs)
        trio.prepare("set_interrupts", DOM, vcpu > 0, vcpu)
        trio.prepare("set_clock", DOM, 10**9 * vcpu)
    for method, arguments, keywords in preparation:
        if method == "set_preempt":
            trio.prepare(method, *arguments)
        elif method == "write" and not words:
            continue  # a host without words has only whole-page writes
        else:
            trio.prepare(method, DOM, *arguments, **keywords)
    trio.compare_all()
    for operation, pages, as_list, content in operations:
        if not trio.conflict:
            trio.run(operation, pages, as_list=as_list, **({} if content is None else {"content": content}))


# -- no promises left: a guest and its neighbour under a memory controller ------------------------------------------

NEIGHBOUR = 2
moves = st.one_of(
    st.tuples(st.just("balloon"), st.one_of(ranges, whole_blocks), st.none()),
    st.tuples(st.just("populate"), st.one_of(ranges, whole_blocks), st.none()),
    st.tuples(st.just("touch"), ranges, contents),
)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    hosts=st.tuples(st.sampled_from((True, True, False)), st.booleans()),
    built=st.tuples(st.sampled_from((9, 0)), st.booleans(), st.integers(0, MAXMEM_BLOCKS * BLOCK)),
    cap=st.sampled_from((MAXMEM_BLOCKS * BLOCK, MAXMEM_BLOCKS * BLOCK + 1, 9 * BLOCK)),
    neighbour=st.tuples(st.integers(0, 6 * BLOCK + 37), lists, st.sampled_from((0, 0, 50, 2 * BLOCK))),
    own_claim=st.sampled_from((0, 0, 0, 30)),
    held=st.lists(st.tuples(gfns, st.sampled_from(("add_ref", "shadow_ref", "special"))), max_size=2),
    operations=st.lists(moves, min_size=2, max_size=8),
)
def test_any_range_equals_its_loop_where_nothing_is_promised(
    shape: dict[str, Any],
    hosts: tuple[bool, bool],
    built: tuple[int, bool, int],
    cap: int,
    neighbour: tuple[int, list[int], int],
    own_claim: int,
    held: list[tuple[int, str]],
    operations: list[tuple[str, list[int], int | None]],
) -> None:
    """Ballooning out and back with no promises, or none in debt: on hosts in pieces, full, claimed, at the quota."""
    scrub_on_free, words = hosts
    order, promised, dirty = built
    pages, holes, claim = neighbour
    trio = Trio(scrub_on_free=scrub_on_free, words=words, costs=COSTS)
    trio.create_all(NEIGHBOUR, maxmem_pages=HOST_PAGES, max_pages=HOST_PAGES)
    trio.prepare("populate_seq", NEIGHBOUR, 0, pages, 0, 1)
    trio.prepare("touch_range", NEIGHBOUR, 0, pages // 2, content=DATA)
    for gfn in holes:
        trio.prepare("decrease", NEIGHBOUR, gfn, 0)
    trio.create_all(DOM, maxmem_pages=MAXMEM_BLOCKS * BLOCK, max_pages=cap, **shape)
    if promised:
        trio.prepare("set_pod_target", DOM, MAXMEM_BLOCKS * BLOCK)
        trio.prepare("mark_pod_seq", DOM, 0, MAXMEM_BLOCKS * BLOCK >> order, order)
    else:
        trio.prepare("populate_seq", DOM, 0, MAXMEM_BLOCKS * BLOCK >> order, order, 1)
    trio.prepare("touch_range", DOM, 0, dirty, content=DATA)
    trio.prepare("claim", NEIGHBOUR, trio.slow.counters(NEIGHBOUR).tot_pages + claim if claim else 0)
    trio.prepare("claim", DOM, trio.slow.counters(DOM).tot_pages + own_claim if own_claim else 0)
    for k, (gfn, what) in enumerate(held):
        if what == "special":
            trio.prepare("set_flag", DOM, gfn, "special", True)
        else:
            trio.prepare(what, DOM, gfn, *((k,) if what == "add_ref" else ()))
    trio.compare_all()
    for operation, gfns_, content in operations:
        trio.run(operation, gfns_, as_list=False, **({} if content is None else {"content": content}))
    # What is free, and in which pieces, tells in which order it is taken.
    trio.prepare("populate_seq", NEIGHBOUR, HOST_PAGES, HOST_PAGES, 0, 1)
    trio.compare_all()


@pytest.mark.parametrize("descending", [False, True])
def test_leaves_of_a_gib_come_apart_like_page_by_page(descending: bool) -> None:
    """Ballooning into 1 GiB of RAM in one entry, and back: against the page loop of the kernels."""
    loop, whole = TracedMachine(3 << 18), TracedMachine(3 << 18)
    for machine in (loop, whole):
        machine.create(DOM, maxmem_pages=1 << 18, max_pages=1 << 18, sp_1g=True)
        assert machine.populate(DOM, 0, 18) == 1
        machine.touch_range(DOM, 700, 5000, content=DATA)
    assert whole.entry_map(DOM)[2] == 1
    first, count = 300, 3 * BLOCK
    order = range(first, first + count)[:: -1 if descending else 1]
    assert whole.balloon_range(DOM, first, count, descending=descending) == count
    assert all(loop.decrease(DOM, gfn, 0)[0] for gfn in order)
    assert whole.state_record(DOM) == loop.state_record(DOM)
    assert whole.populate_range(DOM, first, count, descending=descending) == count
    assert all(loop.populate(DOM, gfn, 0) for gfn in order)
    assert whole.state_record(DOM) == loop.state_record(DOM)
    assert whole.counters(DOM) == loop.counters(DOM)
    assert whole.nonzero_pages(DOM) == loop.nonzero_pages(DOM)
    whole.audit()


# -- the situations that must not be missed, each shown to have happened -----------------------------------------

Way = Callable[[int, int], list[int]]
ASCENDING: Way = lambda first, count: list(range(first, first + count))  # noqa: E731
DESCENDING: Way = lambda first, count: list(range(first, first + count))[::-1]  # noqa: E731
SCATTERED: Way = lambda first, count: [first + i * 389 % count for i in range(count)]  # noqa: E731
WAYS = {"ascending": (ASCENDING, False), "descending": (DESCENDING, False), "list": (SCATTERED, True)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Way, bool]:
    return WAYS[request.param]


@pytest.fixture(params=[True, False], ids=["words", "bits"])
def trio(request: pytest.FixtureRequest) -> Trio:
    return Trio(words=request.param)


@pytest.mark.parametrize("words", [True, False], ids=["words", "bits"])
@pytest.mark.parametrize("era", ERAS)
def test_a_boot_by_ranges_in_every_era(era: str, words: bool, way: tuple[Way, bool]) -> None:
    """Zeroes over more than the guest owns, data over a part, a balloon that takes both: each as its loop."""
    pages, as_list = way
    trio = Trio(words=words, era=era)
    trio.build(EPT, 2 * BLOCK)
    trio.run("touch", pages(BLOCK, 2 * BLOCK), as_list=as_list, content=ZERO)
    trio.run("touch", pages(BLOCK + 300, 200), as_list=as_list, content=DATA)
    trio.run("balloon", pages(BLOCK, BLOCK), as_list=as_list)
    trio.run("touch", pages(3 * BLOCK, 100), as_list=as_list, content=DATA)
    counters = trio.slow.counters(DOM)
    assert counters.populated_4k + counters.populated_2m > 2
    assert counters.crashed == 0


def test_the_cache_runs_dry_in_the_middle_and_the_guest_dies(trio: Trio, way: tuple[Way, bool]) -> None:
    pages, as_list = way
    trio.build(EPT, BLOCK + 6)
    done = trio.run("touch", pages(0, MAXMEM_BLOCKS * BLOCK), as_list=as_list, content=DATA)
    counters = trio.slow.counters(DOM)
    assert 0 < done < MAXMEM_BLOCKS * BLOCK
    assert (counters.crashed, counters.cache_count) == (1, 0)
    assert counters.entry_count == MAXMEM_BLOCKS * BLOCK - (BLOCK + 6)
    assert trio.run("touch", pages(0, BLOCK), as_list=as_list, content=DATA) == 0, "a dead guest does nothing"
    assert trio.run("balloon", pages(3 * BLOCK, 100), as_list=as_list) == 100, "its hypercalls still work"


def test_a_sweep_strikes_and_finds_what_was_zeroed(trio: Trio, way: tuple[Way, bool]) -> None:
    """Pages populated long ago and zeroed since: out of the recent list, so that only the sweep can find them."""
    pages, as_list = way
    trio.build(PT, 2 * BLOCK, order=0)
    trio.prepare("touch_range", DOM, 0, 2 * BLOCK, content=DATA)
    trio.prepare("touch_range", DOM, 100, 64, content=ZERO)
    trio.prepare("touch_range", DOM, 900, 7, content=ZERO)
    before = trio.slow.counters(DOM)
    done = trio.run("touch", pages(3 * BLOCK, 90), as_list=as_list, content=DATA)
    after = trio.slow.counters(DOM)
    assert after.sweeps >= 2, "one that finds, one that does not"
    assert (done, after.reclaimed_4k - before.reclaimed_4k, after.crashed) == (71, 71, 1)


def test_superpages_splinter_when_only_single_frames_are_left(trio: Trio, way: tuple[Way, bool]) -> None:
    pages, as_list = way
    trio.build(EPT, 2 * BLOCK - 1)
    trio.run("touch", pages(BLOCK, 2 * BLOCK), as_list=as_list, content=DATA)
    assert trio.slow.counters(DOM).splintered_2m >= 1


def test_zeroes_go_round_through_eager_reclaim(trio: Trio, way: tuple[Way, bool]) -> None:
    pages, as_list = way
    trio.build(SHADOW, BLOCK)
    assert trio.run("touch", pages(0, MAXMEM_BLOCKS * BLOCK), as_list=as_list, content=ZERO) == MAXMEM_BLOCKS * BLOCK
    counters = trio.slow.counters(DOM)
    assert (counters.crashed, counters.sweeps) == (0, 0)
    assert counters.reclaimed_2m + counters.reclaimed_4k > 0


def test_references_special_pages_and_page_tables_are_in_the_way(trio: Trio, way: tuple[Way, bool]) -> None:
    """A zeroed block that cannot be taken back whole: what is held stays, the rest goes frame by frame."""
    pages, as_list = way
    trio.build(SHADOW, BLOCK + 20)
    trio.prepare("touch_range", DOM, 0, BLOCK, content=ZERO)
    for gfn, identity in ((3, 1), (200, 2), (200, 3)):
        assert trio.prepare("add_ref", DOM, gfn, identity) == 0
    assert trio.prepare("shadow_ref", DOM, 77) == 0
    assert trio.prepare("set_flag", DOM, 300, "special", True) == 0
    assert trio.prepare("set_flag", DOM, 511, "shadowed_pt", True) == 0
    trio.run("touch", pages(2 * BLOCK, BLOCK), as_list=as_list, content=ZERO)
    counters = trio.slow.counters(DOM)
    assert (counters.reclaimed_2m, counters.crashed) == (0, 0)
    assert counters.reclaimed_4k > 0
    assert [trio.slow.query(DOM, gfn)[0] for gfn in (3, 200, 300, 511, 4, 77)] == [1, 1, 1, 1, 2, 2]
    trio.run("balloon", pages(0, BLOCK), as_list=as_list)


@pytest.mark.parametrize(
    ("shape", "references", "entries_2m"), [(EPT, 1, 1), (PT, 1, 1), (SHADOW, 1, 0), (SHADOW, 2, 1), (SHADOW, 0, 0)]
)
def test_a_held_zero_page_is_let_be_or_tried_in_vain(
    trio: Trio, shape: dict[str, Any], references: int, entries_2m: int
) -> None:
    """P9, P10: shadow paging lets one reference pass at first, and has shattered the superpage when it does not."""
    trio.build(shape, BLOCK + 1)
    trio.prepare("touch_range", DOM, 0, BLOCK, content=DATA)
    trio.prepare("touch_range", DOM, 33, 1, content=ZERO)
    for identity in range(references):
        assert trio.prepare("add_ref", DOM, 33, identity) == 0
    trio.run("touch", [3 * BLOCK, 3 * BLOCK + 1], as_list=False, content=DATA)
    assert trio.slow.entry_map(DOM)[1] == entries_2m
    assert trio.slow.counters(DOM).crashed == (references > 0)


def test_a_balloon_in_debt_steals_ram_until_the_debt_is_paid(trio: Trio, way: tuple[Way, bool]) -> None:
    """P12: RAM goes to the cache while there is debt, to the host afterwards; the stretch is cut where it ends."""
    pages, as_list = way
    trio.build(EPT, 2 * BLOCK, slack=200)
    trio.prepare("touch_range", DOM, 0, 2 * BLOCK, content=DATA)
    assert trio.prepare("set_pod_target", DOM, 2 * BLOCK + 100) == 0
    debt = trio.slow.counters(DOM).entry_count - trio.slow.counters(DOM).cache_count
    free = trio.slow.free_pages
    trio.prepare("balloon_range", DOM, 3 * BLOCK, BLOCK)
    assert trio.run("balloon", pages(0, 2 * BLOCK), as_list=as_list) == 2 * BLOCK
    after = trio.slow.counters(DOM)
    assert after.entry_count == after.cache_count == BLOCK
    assert trio.slow.free_pages - free == 2 * BLOCK + 100 - BLOCK
    assert debt == 2 * BLOCK - 100


def test_ballooning_a_zeroed_block_in_debt_takes_it_back_whole(trio: Trio, way: tuple[Way, bool]) -> None:
    """P12 step 5: the first page of a zero block makes the block a promise again."""
    pages, as_list = way
    trio.build(PT, 2 * BLOCK)
    trio.prepare("touch_range", DOM, 0, BLOCK, content=DATA)
    trio.prepare("touch_range", DOM, BLOCK, BLOCK, content=ZERO)
    assert trio.run("balloon", pages(BLOCK, BLOCK), as_list=as_list) == BLOCK
    assert trio.slow.counters(DOM).reclaimed_2m == 1


def test_a_balloon_stops_at_the_first_hole(trio: Trio, way: tuple[Way, bool]) -> None:
    pages, as_list = way
    trio.build(EPT, BLOCK)
    order = pages(BLOCK, BLOCK)
    trio.prepare("balloon_list", DOM, [order[200]])
    assert trio.run("balloon", order, as_list=as_list) == 200


def test_a_touch_passes_over_holes(trio: Trio, way: tuple[Way, bool]) -> None:
    pages, as_list = way
    trio.build(EPT, BLOCK)
    trio.prepare("balloon_range", DOM, 10, 30)
    assert trio.run("touch", pages(0, BLOCK + 5), as_list=as_list, content=ZERO) == BLOCK + 5
    assert trio.slow.query(DOM, 20)[0] == 0


@pytest.mark.parametrize("descending", [False, True])
def test_deflation_stops_at_the_quota_and_counts_promises_off(trio: Trio, descending: bool) -> None:
    """Populating where the balloon was, and over promises, until the quota refuses."""
    trio.build(EPT, BLOCK, slack=70)
    trio.prepare("balloon_range", DOM, BLOCK, 40)
    pages = (DESCENDING if descending else ASCENDING)(BLOCK, 200)
    entries = trio.slow.counters(DOM).entry_count
    assert trio.run("populate", pages, as_list=False) == 70
    assert trio.slow.counters(DOM).entry_count == entries - (70 if descending else 30)


def test_an_empty_range_does_nothing(trio: Trio) -> None:
    trio.build(EPT, BLOCK)
    for operation, keywords in (("touch", {"content": DATA}), ("balloon", {}), ("populate", {})):
        assert trio.run(operation, [], as_list=False, **keywords) == 0
