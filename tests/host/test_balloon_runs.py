"""Many batches of a balloon in one call: the state, the time and the stopping points of batches made one by one."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.host.batches import ALL_GIVEN, CUT_SHORT, DIED, HEAP_NEXT
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, ZERO
from tests.host.pair import Pair
from tests.host.test_pod_machine import BLOCK, SHAPES
from tests.host.test_ranges import COSTS

DOM = 1
BLOCKS = 5

quarters = st.permutations(range(4 * BLOCKS + 1))
runs = st.builds(
    lambda order, cuts: [(128 * at + skip, count) for at, (skip, count) in zip(order, cuts, strict=False)],
    quarters,
    st.lists(st.sampled_from(((0, 128), (0, 128), (0, 1), (127, 1), (3, 60), (0, 0))), max_size=16),
)
"""Runs that do not overlap, in any order, adjacent ones among them; some lead out of memory."""


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    target=st.sampled_from((BLOCK, BLOCK + 30, 3 * BLOCK)),
    dirty=st.integers(0, BLOCK),
    calls=st.lists(
        st.tuples(runs, st.sampled_from((1, 7, 64, 512, 8185)), st.booleans(), st.booleans(), st.booleans()),
        min_size=1,
        max_size=3,
    ),
    rate=st.sampled_from((0.0, 20_000.0)),
)
def test_any_batches_equal_the_page_loop(
    shape: dict[str, Any],
    target: int,
    dirty: int,
    calls: list[tuple[list[tuple[int, int]], int, bool, bool, bool]],
    rate: float,
) -> None:
    """In every mode, on pages that a call before has given back too, with costs and pending work."""
    pair = Pair(2 * BLOCKS * BLOCK, words=False, costs={**COSTS, "hypercall_ns": 997})
    pair.create(DOM, maxmem_pages=BLOCKS * BLOCK, max_pages=target, **shape)
    pair.call("set_pending_work", DOM, 5, rate, 0)
    pair.call("set_pod_target", DOM, target)
    pair.call("mark_pod_seq", DOM, 0, BLOCKS, 9)
    pair.call("touch_range", DOM, 0, dirty, content=DATA)
    for given_runs, batch, ascending, scrub, until_heap in calls:
        modes = {"ascending": ascending, "scrub": scrub, "until_heap": until_heap}
        pair.call("balloon_runs", DOM, given_runs, batch_pages=batch, **modes)
        pair.compare()
        pair.audit()


whole = st.lists(
    st.tuples(st.integers(0, BLOCKS - 1), st.sampled_from(((0, BLOCK), (0, BLOCK), (0, BLOCK), (5, BLOCK - 5)))),
    min_size=1,
    max_size=BLOCKS,
    unique_by=lambda one: one[0],
)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    target=st.sampled_from((BLOCK, BLOCK + 30, 2 * BLOCK, 3 * BLOCK)),
    before=st.lists(
        st.tuples(st.integers(0, BLOCKS * BLOCK - 1), st.sampled_from((1, 40, BLOCK)), st.sampled_from((ZERO, DATA))),
        max_size=4,
    ),
    calls=st.lists(st.tuples(whole, st.sampled_from((512, 512, 700)), st.booleans()), min_size=1, max_size=3),
)
def test_whole_blocks_equal_the_page_loop(
    shape: dict[str, Any],
    target: int,
    before: list[tuple[int, int, int]],
    calls: list[tuple[list[tuple[int, tuple[int, int]]], int, bool]],
) -> None:
    """Batches of 2 MiB that are scrubbed, whatever the recent list holds, as long as the debt lasts and beyond."""
    pair = Pair(2 * BLOCKS * BLOCK, words=False, costs={**COSTS, "hypercall_ns": 997})
    pair.create(DOM, maxmem_pages=BLOCKS * BLOCK, max_pages=target, **shape)
    pair.call("set_pod_target", DOM, target)
    pair.call("mark_pod_seq", DOM, 0, BLOCKS, 9)
    for first, count, content in before:
        pair.call("touch_range", DOM, first, min(count, BLOCKS * BLOCK - first), content=content)
    for blocks, batch, ascending in calls:
        given_runs = [(BLOCK * at + skip, count) for at, (skip, count) in blocks]
        pair.call("balloon_runs", DOM, given_runs, batch_pages=batch, ascending=ascending, scrub=True)
        pair.compare()
        pair.audit()


def guest(target: int, pages: int = 4 * BLOCK) -> TracedMachine:
    machine = TracedMachine(8 * BLOCK)
    machine.create(DOM, maxmem_pages=pages, max_pages=target)
    machine.set_pod_target(DOM, target)
    machine.mark_pod_seq(DOM, 0, pages // BLOCK, 9)
    return machine


@pytest.mark.parametrize("scrub", [False, True])
def test_it_stops_before_the_batch_that_may_touch_the_heap(scrub: bool) -> None:
    """A debt of 1,486 pages covers 14 batches of 100, not the fifteenth."""
    machine = guest(BLOCK + 50)
    free = machine.free_pages
    done = machine.balloon_runs(DOM, [(BLOCK, 3 * BLOCK)], batch_pages=100, scrub=scrub, until_heap=True)
    assert tuple(done) == (HEAP_NEXT, 1400, 0, 0)
    assert (machine.debt_pages(DOM), machine.free_pages) == (86, free)
    rest = machine.balloon_runs(DOM, [(BLOCK, 86)], batch_pages=100, scrub=scrub, until_heap=True)
    assert tuple(rest) == (ALL_GIVEN, 86, 0, 0)


def test_a_guest_that_dies_of_scrubbing_says_how_far_it_came() -> None:
    """All that it owns is dirty but one page that something else refers to."""
    machine = guest(BLOCK)
    machine.touch_range(DOM, 0, BLOCK, content=DATA)
    machine.add_ref(DOM, 3, 1)
    done = machine.balloon_runs(DOM, [(3, 1), (2 * BLOCK, 8)], batch_pages=16, scrub=True)
    assert tuple(done) == (DIED, 0, 1, 0)
    assert machine.crashed(DOM)


def test_a_hole_cuts_a_hypercall_short() -> None:
    machine = guest(2 * BLOCK)
    machine.balloon_range(DOM, BLOCK + 20, 1)
    done = machine.balloon_runs(DOM, [(BLOCK, 64)], batch_pages=32)
    assert tuple(done) == (CUT_SHORT, 32, 0, 11)


def test_a_batch_may_be_one_sorted_list() -> None:
    """Two runs, the lower one second: sorted, its hole comes first."""
    machine = guest(2 * BLOCK)
    machine.balloon_range(DOM, 5, 1)
    done = machine.balloon_runs(DOM, [(BLOCK, 10), (0, 10)], batch_pages=20, ascending=True)
    assert tuple(done) == (CUT_SHORT, 0, 0, 5)


def test_no_runs_do_nothing() -> None:
    machine = guest(BLOCK)
    assert tuple(machine.balloon_runs(DOM, [], batch_pages=5)) == (ALL_GIVEN, 0, 0, 0)
    machine.touch_range(DOM, 0, 5, content=ZERO)
    assert tuple(machine.balloon_runs(DOM, [(7, 0), (3, 0)], batch_pages=5)) == (ALL_GIVEN, 0, 0, 0)


def test_the_next_domain_may_have_the_memory_of_one_that_is_gone() -> None:
    """What is kept of a domain is used again, and nothing of it is seen."""
    fresh, used = guest(2 * BLOCK), guest(BLOCK)
    used.touch_range(DOM, 0, BLOCK - 7, content=DATA)
    used.balloon_runs(DOM, [(2 * BLOCK, BLOCK)], batch_pages=64, scrub=True)
    used.destroy(DOM)
    used.forget(DOM)
    used.create(DOM, maxmem_pages=4 * BLOCK, max_pages=2 * BLOCK)
    used.set_pod_target(DOM, 2 * BLOCK)
    used.mark_pod_seq(DOM, 0, 4, 9)
    for machine in (fresh, used):
        machine.touch_range(DOM, 5, BLOCK, content=DATA)
        machine.audit()
    assert used.state_record(DOM) == fresh.state_record(DOM)
    assert used.counters(DOM) == fresh.counters(DOM)
