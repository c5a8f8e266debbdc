"""The buddy allocator against the plain one, on hosts of odd sizes and on large ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.host import heap
from podcluster.host.audit import count_free
from podcluster.host.kernel import kernel
from podcluster.host.state import HostState, new_host_state
from tests.reference.heap import BuddyHeap

TIB_PAGES = 1 << 28


def new_heap(frames: int) -> HostState:
    state = new_host_state(frames, scrub_on_free=True, words=False, gfn_blocks=0)
    heap.heap_init(state)
    return state


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 5000),
    steps=st.lists(st.tuples(st.integers(0, 18), st.integers(0, 1 << 30)), max_size=60),
)
def test_every_allocation_is_the_one_of_the_plain_heap(frames: int, steps: list[tuple[int, int]]) -> None:
    fast, plain = new_heap(frames), BuddyHeap(frames)
    held: list[int] = []
    for order, pick in steps:
        if pick % 3 and held:
            # Give back up to 2**order frames, one here and one there.
            for k in range(min(1 << order, len(held))):
                mfn = held.pop((pick + 7 * k) % len(held))
                heap.heap_give_run(fast, mfn, 1)
                plain.free(mfn)
        else:
            expected = plain.allocate(order)
            assert heap.heap_take(fast, order) == (-1 if expected is None else expected)
            if expected is not None:
                held.extend(range(expected, expected + (1 << order)))
        assert int(fast.rec["free"][0]) == plain.free_pages == count_free(fast)
        assert int(fast.rec["free_2m"][0]) == plain.free_2m


@kernel
def take_few(h: HostState, most: int) -> int:
    """`heap_take_few`, which only kernels call."""
    return heap.heap_take_few(h, most)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(1, 5000),
    lengths=st.lists(st.integers(1, 700), max_size=12),
    wanted=st.lists(st.integers(1, 600), min_size=1, max_size=40),
)
def test_a_few_frames_at_once_are_the_next_single_ones(frames: int, lengths: list[int], wanted: list[int]) -> None:
    """On heaps in pieces, until they are empty."""
    few, singles = new_heap(frames), new_heap(frames)
    for state in (few, singles):
        while heap.heap_take(state, 0) >= 0:
            pass
        first = 0
        for length in lengths:
            if length > 1 and first + length <= frames:
                heap.heap_give_run(state, first + 1, length - 1)
            first += length
    for most in wanted:
        taken = take_few(few, most)
        if taken < 0:
            assert heap.heap_take(singles, 0) == -1
            break
        first, count = taken >> 10, taken & 1023
        assert 1 <= count <= most
        assert [heap.heap_take(singles, 0) for _ in range(count)] == list(range(first, first + count))
        for fact in ("free", "free_2m", "orders"):
            assert few.rec[fact][0] == singles.rec[fact][0]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=20))
@settings(deadline=None)
def test_runs_given_back_leave_what_single_frames_leave(lengths: list[int]) -> None:
    runs, singles = new_heap(8192), new_heap(8192)
    for state in (runs, singles):
        while heap.heap_take(state, 0) >= 0:
            pass
    first = 0
    for length in lengths:
        count = min(length, 8192 - first)
        if count > 0:
            heap.heap_give_run(runs, first, count)
            for mfn in range(first, first + count):
                heap.heap_give_run(singles, mfn, 1)
        first += length + 3
    assert [heap.heap_take(runs, k % 10) for k in range(200)] == [heap.heap_take(singles, k % 10) for k in range(200)]


@pytest.mark.parametrize("frames", [TIB_PAGES, 3 * TIB_PAGES])
def test_a_large_host_costs_little_and_hands_out_low_addresses_first(frames: int) -> None:
    state = new_heap(frames)
    assert heap.heap_take(state, 9) == 0
    assert heap.heap_take(state, 18) == 1 << 18
    assert heap.heap_take(state, 0) == 512
    last = (frames // 512 - 1) * 512
    taken = [heap.heap_take(state, 18) for _ in range(frames // (1 << 18) - 2)]
    assert taken == sorted(taken) and taken[0] == 2 << 18
    heap.heap_give_run(state, taken[-1], 1 << 18)
    assert heap.heap_take(state, 18) == taken[-1]
    assert last >= taken[-1]
    # Bit maps and masks, not rows: those of whole blocks are never touched.
    assert not np.any(state.heap_rows[2:])
