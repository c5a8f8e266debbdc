"""Scrubbed populate on demand, which no hypervisor has: promises of the guest's scrub pattern [S1-S4]."""

from typing import Any

import pytest

from podcluster.errors import InvariantError
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, PATTERN, ZERO
from tests.host.pair import Pair
from tests.host.test_pod_machine import BLOCK, SHAPES

DOM = 1
POD, POD_SCRUBBED = 2, 3
RAM = 1
EPT = SHAPES[0]
SMALL = SHAPES[4]
COSTS = {"zero_4k_ns": 1, "populate_2m_ns": 1000, "populate_4k_ns": 100}


def pair(target: int, shape: dict[str, Any] = EPT, *, registered: bool = True, **host: Any) -> Pair:
    """A guest of four blocks, on kernels and on the slow model."""
    both = Pair(8 * BLOCK, words=False, **host)
    both.create(DOM, maxmem_pages=4 * BLOCK, max_pages=target + 8, **shape)
    both.call("set_scrub_pattern", DOM, registered)
    both.call("set_pod_target", DOM, target)
    both.call("mark_pod_seq", DOM, 0, 4, 9)
    return both


def kinds(both: Pair, *gfns: int) -> list[int]:
    return [both.call("query", DOM, gfn)[0] for gfn in gfns]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
def test_a_pattern_scrubbing_guest_boots_where_it_would_die(shape: dict[str, Any]) -> None:
    """A wave of the pattern over four blocks with memory for one: with the pattern registered it goes round as a wave
    of zeroes does; without, it is data, and the guest dies when it has written what it owns.
    """
    lives, dies = pair(BLOCK, shape), pair(BLOCK, shape, registered=False)
    assert lives.call("touch_range", DOM, 0, 4 * BLOCK, content=PATTERN) == 4 * BLOCK
    assert dies.call("touch_range", DOM, 0, 4 * BLOCK, content=PATTERN) == BLOCK
    for both in (lives, dies):
        both.compare()
        both.audit()
    assert POD_SCRUBBED in kinds(lives, 0, BLOCK, 2 * BLOCK)
    assert kinds(dies, BLOCK) == [POD]


def test_without_a_registered_pattern_it_is_plain_data() -> None:
    """S1: the same state, hashes included, as of a guest that writes data."""
    states = []
    for content in (PATTERN, DATA):
        machine = TracedMachine(8 * BLOCK)
        machine.create(DOM, maxmem_pages=4 * BLOCK, max_pages=BLOCK + 40)
        machine.set_pod_target(DOM, BLOCK + 40)
        machine.mark_pod_seq(DOM, 0, 4, 9)
        machine.touch_range(DOM, 3, BLOCK, content=content)
        machine.touch_range(DOM, 20, 50, content=ZERO)
        machine.touch_range(DOM, 2 * BLOCK, BLOCK, content=content, descending=True)
        states.append((machine.state_record(DOM), machine.counters(DOM), machine.take_notes()))
    assert states[0] == states[1]


def test_a_promise_of_the_pattern_is_kept() -> None:
    """S3: what is populated from it is full of the pattern, so that it can be taken back as such again."""
    both = pair(BLOCK, costs=COSTS)
    both.call("touch_range", DOM, 0, BLOCK, content=PATTERN)
    both.call("touch_range", DOM, BLOCK, BLOCK, content=DATA)  # takes block 0 back whole
    assert kinds(both, 0, 511, BLOCK) == [POD_SCRUBBED, POD_SCRUBBED, RAM]
    both.call("touch_range", DOM, BLOCK, BLOCK, content=ZERO)
    before = both.fast.clock(DOM)
    # One page of it is written: the rest of the block is the guest's pattern still.
    both.call("touch_range", DOM, 7, 1, content=DATA)
    assert both.fast.clock(DOM) - before >= BLOCK, "filling takes time"
    assert both.fast.nonzero_pages(DOM) == BLOCK
    both.compare()
    both.call("touch_range", DOM, 3 * BLOCK, 1, content=DATA)  # page by page: all but the one
    assert kinds(both, 6, 7, 8) == [POD_SCRUBBED, RAM, POD_SCRUBBED]
    both.compare()
    both.audit()


def test_single_promises_keep_their_kind_when_an_entry_splinters() -> None:
    """P6 step 7 within S2: 512 promises of the same kind."""
    both = pair(BLOCK)
    both.call("touch_range", DOM, 0, BLOCK, content=PATTERN)
    both.call("touch_range", DOM, BLOCK, BLOCK, content=DATA)
    assert kinds(both, 0) == [POD_SCRUBBED]
    both.call("touch_range", DOM, BLOCK + 9, 3, content=ZERO)
    both.call("touch_range", DOM, 0, 1, content=DATA)  # no superpage left: three frames are
    assert both.slow.counters(DOM).splintered_2m >= 1
    assert kinds(both, 1, 511) == [POD_SCRUBBED, POD_SCRUBBED]
    both.compare()


def test_a_range_of_both_kinds_is_never_taken_back_whole() -> None:
    """S4: one page of zeroes among pattern, or the other way round: page by page, and each keeps its kind."""
    for most, one in ((PATTERN, ZERO), (ZERO, PATTERN)):
        both = pair(BLOCK)
        both.call("touch_range", DOM, 0, BLOCK, content=most)
        both.call("touch_range", DOM, 100, 1, content=one)
        both.call("touch_range", DOM, 2 * BLOCK, 1, content=DATA)
        counters = both.slow.counters(DOM)
        assert (counters.reclaimed_2m, counters.reclaimed_4k) == (0, BLOCK)
        expected = {PATTERN: POD_SCRUBBED, ZERO: POD}
        assert kinds(both, 99, 100, 101) == [expected[most], expected[one], expected[most]]
        both.compare()
        both.audit()


def test_a_sweep_finds_pattern_pages() -> None:
    both = pair(2 * BLOCK, SMALL)
    both.call("touch_range", DOM, 0, 2 * BLOCK, content=DATA)
    both.call("touch_range", DOM, 60, 5, content=PATTERN)
    both.call("touch_range", DOM, 3 * BLOCK, 3, content=DATA)
    assert kinds(both, 59, 60, 64, 65) == [RAM, POD_SCRUBBED, POD_SCRUBBED, RAM]
    both.compare()


def test_what_is_written_into_a_pattern_page_makes_it_data() -> None:
    both = pair(BLOCK, SMALL)
    both.call("touch_range", DOM, 1, BLOCK, content=PATTERN)
    both.call("touch_range", DOM, 1, BLOCK, content=DATA)
    assert both.call("touch_range", DOM, 3 * BLOCK, 1, content=DATA) == 0


def test_hypercalls_treat_both_promises_alike() -> None:
    """Marking, populating with RAM and giving back over `pod_scrubbed` entries; fresh frames are not the pattern's."""
    both = pair(BLOCK)
    both.call("touch_range", DOM, 0, BLOCK, content=PATTERN)
    both.call("touch_range", DOM, BLOCK, 1, content=DATA)
    assert kinds(both, 0) == [POD_SCRUBBED]
    both.call("mark_pod", DOM, 64, 6)
    assert kinds(both, 63, 64, 127, 128) == [POD_SCRUBBED, POD, POD, POD_SCRUBBED]
    both.call("populate", DOM, 200, 0)
    both.call("decrease", DOM, 256, 8)
    both.compare()
    both.audit()
    assert kinds(both, 200, 256, 511) == [RAM, 0, 0]
    both.call("touch_range", DOM, 2 * BLOCK, BLOCK, content=ZERO)
    both.compare()


def test_taking_the_pattern_back_leaves_promises_and_stops_reclaim() -> None:
    both = pair(BLOCK + 2, SMALL)
    both.call("touch_range", DOM, 0, BLOCK, content=PATTERN)
    both.call("touch_range", DOM, BLOCK, 3, content=DATA)
    entries = [gfn for gfn in range(BLOCK) if kinds(both, gfn) == [POD_SCRUBBED]]
    assert entries
    both.call("set_scrub_pattern", DOM, False)
    both.compare()
    assert both.call("touch_range", DOM, 2 * BLOCK, BLOCK, content=DATA) < BLOCK
    both.compare()


def test_zeroed_pages_and_pattern_pages_left_at_a_death_are_hazards() -> None:
    both = pair(BLOCK, SMALL)
    both.call("touch_range", DOM, 0, BLOCK, content=DATA)
    both.call("touch_range", DOM, 0, 1, content=PATTERN)  # gfn 0, where no sweep looks; the ring knows it, once
    assert both.call("touch_range", DOM, BLOCK, 2, content=DATA) <= 1
    both.compare()


def test_hosts_that_keep_words_know_no_pattern() -> None:
    machine = TracedMachine(4 * BLOCK, words=True)
    machine.create(DOM, maxmem_pages=BLOCK, max_pages=BLOCK)
    with pytest.raises(InvariantError, match="S1"):
        machine.set_scrub_pattern(DOM, True)
