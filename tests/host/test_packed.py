"""Are numbers and the arrays of a machine the same after packing?"""

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.host import integers
from podcluster.host.integers import (
    packed_numbers,
    packed_sequence,
    packed_sparse,
    unpacked_numbers,
    unpacked_sequence,
)
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA

BLOCK = 512
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.one_of(st.lists(INT64), st.lists(st.integers(-3, 3), max_size=300)))
def test_numbers(values: list[int]) -> None:
    """Any whole numbers of 64 bits, differences that overflow included."""
    array = np.array(values, np.int64)
    assert np.array_equal(unpacked_numbers(packed_numbers(array)), array)


def test_what_is_regular_is_one_run() -> None:
    """A million frames one after another take a few bytes."""
    assert sum(map(len, packed_numbers(np.arange(10**6) + 7))) < 32


def whole(machine: TracedMachine) -> None:
    """Give a machine arrays that were packed and unpacked."""
    machine.__setstate__(machine.__getstate__())


def told(machine: TracedMachine, change: Any) -> list[Any]:
    """A short life with words, references, special pages and an offlined frame, changed after each operation."""
    found: list[Any] = []

    def after(result: Any) -> None:
        change(machine)
        found.append((result, machine.state_record(1)))

    machine.create(1, maxmem_pages=4096, max_pages=3000)
    after(machine.set_pod_target(1, 2048))
    after(machine.mark_pod_seq(1, 0, 8, 9))
    after(machine.write_seq(1, 5, 700, 3, 1, 0x1234567890ABCDEF))
    after(machine.populate_special(1, 5000))
    after(machine.add_ref(1, 8, 77))
    after(machine.set_flag(1, 11, "special", True))
    after(machine.touch_range(1, 2000, 900, content=DATA))
    after(machine.offline(1, "single", 0))
    after(machine.write_seq(1, 2000, 100, 1, 0, 0))
    after(machine.decrease_seq(1, 4000, 60, 0, -1))
    after(machine.read_seq(1, 0, 4096, 1, 1))
    after(machine.drop_ref(77, 1))
    machine.audit()
    after(machine.destroy(1))
    machine.forget(1)
    machine.create(1, maxmem_pages=4096, max_pages=3000)
    after(machine.populate_seq(1, 0, 100, 0, 1))
    return found


@pytest.mark.parametrize("scrubs", [True, False])
def test_a_machine_that_keeps_words(scrubs: bool) -> None:
    """The same answers and the same state, operation by operation."""
    never = told(TracedMachine(8192, words=True, scrub_on_free=scrubs), lambda machine: None)
    assert told(TracedMachine(8192, words=True, scrub_on_free=scrubs), whole) == never


def test_what_was_written_is_found_without_the_systems_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Where no pagemap is, all of an array is read; the same is found."""
    machine = TracedMachine(1 << 20)
    machine.create(1, maxmem_pages=4096, max_pages=4096)
    machine.populate_seq(1, 0, 4096, 0, 1)
    for gfn in (3, 700, 4095):
        assert machine.set_flag(1, gfn, "special", True) == 0
    quick = packed_sparse(machine._h.attr)
    assert np.count_nonzero(machine._h.attr) == 3
    monkeypatch.setattr(integers, "PAGEMAP", tmp_path / "none")
    assert packed_sparse(machine._h.attr) == quick


PAIRS = st.lists(st.tuples(INT64, st.integers(0, 600)), max_size=80)
LONG = st.lists(st.one_of(st.integers(-5, 5), INT64, st.integers(2**63, 2**64)), max_size=80)
ANYTHING = st.lists(st.one_of(st.integers(), st.booleans(), st.none(), st.tuples(st.integers())), max_size=40)


@given(values=st.one_of(PAIRS, LONG, ANYTHING), as_tuple=st.booleans())
def test_sequences(values: list[Any], as_tuple: bool) -> None:
    """What is packed comes back as it was, in the same kind of sequence; what is not of whole numbers is left alone."""
    given_values = tuple(values) if as_tuple else values
    packed = packed_sequence(given_values)
    if packed is not None:
        assert repr(unpacked_sequence(packed)) == repr(given_values)


def test_long_sequences_are_packed() -> None:
    """Pages in order, blocks in order, and numbers in any order; not short ones, not flags, not what is too large."""
    runs = [(512 * k, 512) for k in range(1000)]
    packed = packed_sequence(runs)
    assert packed is not None and sum(len(part) for column in packed[1] for part in column) < 32
    assert packed_sequence([7, 3] * 50) is not None
    for other in ([1] * 8, [True] * 50, [1] * 49 + [2**63], [(1, 2)] * 49 + [(1, 2, 3)], [1.0] * 50):
        assert packed_sequence(other) is None


@pytest.mark.parametrize("descending", [False, True])
def test_frames_that_follow_each_other_need_no_list(descending: bool) -> None:
    """Upwards or downwards from the base, whether there are holes or not; a page with a frame of its own does."""
    machine = TracedMachine(8 * BLOCK)
    machine.create(1, maxmem_pages=4 * BLOCK, max_pages=4 * BLOCK, sp_1g=False, sp_2m=False)
    machine.set_pod_target(1, 3 * BLOCK)
    machine.mark_pod_seq(1, 0, 3, 9)
    machine.touch_range(1, 5, 3 * BLOCK - 9, content=DATA, descending=descending)
    machine.audit()
    assert not machine._h.rec["details_used"][0]
    again = pickle.loads(pickle.dumps(machine))
    again.audit()
    assert again.state_record(1) == machine.state_record(1) and not again._h.rec["details_used"][0]
    for one in (machine, again):
        assert one.decrease(1, BLOCK + 7, 0) == [1, 0]
        assert one.populate(1, 3 * BLOCK, 0) == 1  # which has the frame now
        assert one.populate(1, BLOCK + 7, 0) == 1
        one.audit()
    assert machine._h.rec["details_used"][0] == 1
    assert again.state_record(1) == machine.state_record(1)
