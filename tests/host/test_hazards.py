"""Why zero pages were left when a guest ran out of memory, and what switching each cause off changes [G11]."""

from typing import Any

from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, ZERO

BLOCK = 512
DOM = 1


def guest(pages: int = 4 * BLOCK, **host: Any) -> TracedMachine:
    """A guest of 8 MiB that owns `pages`, in entries of 4 KiB, none of it touched."""
    machine = TracedMachine(8192, **host)
    machine.create(DOM, maxmem_pages=8 * BLOCK, max_pages=pages, sp_2m=False)
    machine.set_pod_target(DOM, pages)
    machine.mark_pod_seq(DOM, 0, 8, 9)
    return machine


def wrapped(**host: Any) -> int:
    """Two sweeps, with a page zeroed above where the second starts: 1 if the guest lives through the second."""
    machine = guest(**host)
    machine.touch_range(DOM, 1, 4 * BLOCK, content=DATA)
    machine.touch_range(DOM, 600, 1, content=ZERO)
    assert machine.touch_range(DOM, 5 * BLOCK, 1, content=DATA) == 1  # a sweep from gfn 2,048 down to 593
    machine.touch_range(DOM, 3 * BLOCK, 2, content=ZERO)
    lived = machine.touch_range(DOM, 5 * BLOCK + 1, 1, content=DATA)
    if not lived:
        assert machine.hazard(DOM) == (2, 0, 0)
    return lived


def test_pages_above_the_start_of_a_sweep_are_the_wrap_hazard() -> None:
    assert wrapped() == 0
    assert wrapped(sweep_wraps=True) == 1


def test_a_sweep_that_wraps_resumes_where_it_stopped() -> None:
    """From the top down to above its start, and the next one from there."""
    machine = guest(sweep_wraps=True)
    machine.touch_range(DOM, 1, 4 * BLOCK, content=DATA)
    machine.touch_range(DOM, 600, 1, content=ZERO)
    machine.touch_range(DOM, 5 * BLOCK, 1, content=DATA)
    start = machine.state_record(DOM)["reclaim_single"]
    assert start == 592, "checked sixteen at a time, looked at one by one"
    machine.touch_range(DOM, 4 * BLOCK - 8, 1, content=ZERO)
    assert machine.touch_range(DOM, 5 * BLOCK + 1, 1, content=DATA) == 1
    # It came down from gfn 2,560, which is where the highest touch was, past the page and as far as the limit asks.
    after = machine.state_record(DOM)
    assert (after["sweeps"], after["crashed"]) == (2, 0)
    assert start < after["reclaim_single"] < 4 * BLOCK - 8
    assert machine.touch_range(DOM, 5 * BLOCK + 2, 1, content=DATA) == 0
    assert machine.hazard(DOM) == (0, 0, 0)


def test_pages_beyond_the_highest_touch_and_gfn_0_are_the_ring_s() -> None:
    """P6 notes a gfn when it is populated: RAM that the builder put above it is never swept, nor is gfn 0."""
    machine = TracedMachine(8192)
    machine.create(DOM, maxmem_pages=8 * BLOCK, max_pages=BLOCK + 9, sp_2m=False)
    machine.set_pod_target(DOM, BLOCK)
    machine.populate_seq(DOM, 7 * BLOCK, 8, 0, 1)
    machine.mark_pod_seq(DOM, 0, 7, 9)
    machine.touch_range(DOM, 0, BLOCK, content=DATA)
    machine.touch_range(DOM, 0, 1, content=ZERO)
    assert machine.touch_range(DOM, BLOCK, 1, content=DATA) == 0
    assert machine.hazard(DOM) == (0, 0, 9)


def zero_wave(**host: Any) -> TracedMachine:
    """Forty pages are zeroed when forty others have been populated after them; then the guest wants sixty more."""
    machine = guest(BLOCK, **host)
    machine.touch_range(DOM, 1, BLOCK, content=DATA)
    machine.touch_range(DOM, BLOCK - 79, 40, content=ZERO)
    machine.touch_range(DOM, 3 * BLOCK, 60, content=DATA)
    return machine


def test_a_longer_ring_finds_what_a_shorter_one_has_forgotten() -> None:
    short, longer = zero_wave(ring_slots=8), zero_wave(ring_slots=128)
    assert short.state_record(DOM)["sweeps"] > 0
    assert longer.counters(DOM).reclaimed_4k == short.counters(DOM).reclaimed_4k == 40
    assert longer.state_record(DOM)["sweeps"] < short.state_record(DOM)["sweeps"]


def test_held_pages_are_nobody_s_hazard() -> None:
    """What a check would refuse is not counted."""
    machine = guest(BLOCK)
    machine.touch_range(DOM, 1, BLOCK, content=DATA)
    machine.touch_range(DOM, 9, 3, content=ZERO)
    for reference, gfn in enumerate((9, 10, 11)):
        machine.add_ref(DOM, gfn, reference)
    assert machine.touch_range(DOM, 2 * BLOCK, 1, content=DATA) == 0
    assert machine.hazard(DOM) == (0, 0, 0)
