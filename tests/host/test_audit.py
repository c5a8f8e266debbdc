"""The audit names the domain, the numbers and the rule of whatever is wrong."""

from collections.abc import Callable

import numpy as np
import pytest

from podcluster.errors import InvariantError
from podcluster.host.audit import claim_run
from podcluster.host.state import ANY, BASE, DETAIL, SINGLE, SPECIAL, SUPER
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA

GUEST = 7


def booted() -> TracedMachine:
    """A guest of 16 MiB promised, 8 MiB owned, some of it touched and some ballooned out."""
    machine = TracedMachine(1 << 14)
    machine.create(GUEST, maxmem_pages=4096, max_pages=2048)
    machine.set_pod_target(GUEST, 2048)
    machine.mark_pod_seq(GUEST, 0, 8, 9)
    machine.end_build(GUEST)
    machine.touch_range(GUEST, 0, 700, content=DATA)
    machine.balloon_range(GUEST, 3000, 100)
    machine.audit()
    return machine


def rec_change(field: str, change: int) -> Callable[[TracedMachine], None]:
    def apply(machine: TracedMachine) -> None:
        machine._domains[GUEST].rec[field] += change

    return apply


def map_a_cached_frame(machine: TracedMachine) -> None:
    machine._domains[GUEST].blk[0, BASE] += 512  # where the second block's frames are


def content_where_nothing_is(machine: TracedMachine) -> None:
    machine._domains[GUEST].blk[4, ANY] = 1  # all pages of a promised block hold data


def lose_host_frames(machine: TracedMachine) -> None:
    machine._h.rec["free"] -= 3


def stretch_a_list(machine: TracedMachine) -> None:
    machine._domains[GUEST].lists[SUPER, 4] += 1


@pytest.mark.parametrize(
    ("damage", "rule", "words"),
    [
        (rec_change("entry_count", 1), "P15", "entry_count"),
        (rec_change("cache_count", -1), "P15", "cache_count"),
        (rec_change("tot_pages", 512), "P15", "tot_pages"),
        (rec_change("ballooned_to", 1), "POD-2", "B 3997"),
        (rec_change("target", -1200), "POD-1", "T 848"),
        (map_a_cached_frame, "P15", "two places"),
        (content_where_nothing_is, "P15", "content bits near gfn"),
        (lose_host_frames, "P15", "free"),
        (stretch_a_list, "P15", "list lengths"),
    ],
)
def test_damage_is_named(damage: Callable[[TracedMachine], None], rule: str, words: str) -> None:
    machine = booted()
    damage(machine)
    machine._audited = ()
    with pytest.raises(InvariantError) as caught:
        machine.audit()
    assert f"[{rule}]" in str(caught.value) and words in str(caught.value)
    if damage is not lose_host_frames:
        assert f"domain {GUEST}" in str(caught.value)


def shuffled() -> TracedMachine:
    """The guest with a hole in its first block, and pages of its second one by one, wherever there were frames."""
    machine = booted()
    machine.balloon_range(GUEST, 100, 60)
    machine.balloon_range(GUEST, 600, 90)
    machine.set_max_pages(GUEST, 4096)
    assert machine.populate_range(GUEST, 600, 90, descending=True) == 90
    machine.audit()
    blk = machine._domains[GUEST].blk
    assert blk[0, DETAIL] == 0 and blk[1, DETAIL] != 0
    return machine


def shift_a_block(machine: TracedMachine) -> None:
    machine._domains[GUEST].blk[0, BASE] += 1


def name_no_frame(machine: TracedMachine) -> None:
    machine._h.detail[machine._domains[GUEST].blk[1, DETAIL], 5] = 1 << 14


def name_a_frame_twice(machine: TracedMachine) -> None:
    listed = machine._h.detail[machine._domains[GUEST].blk[1, DETAIL]]
    listed[450] = listed[5]


def name_a_free_frame(machine: TracedMachine) -> None:
    free = next(mfn for mfn in range(1 << 14) if claim_run(machine._h, np.zeros(257, np.uint64), mfn, 1) >= 0)
    machine._h.detail[machine._domains[GUEST].blk[1, DETAIL], 5] = free


def hide_a_special_page(machine: TracedMachine) -> None:
    machine._h.attr[machine._domains[GUEST].blk[0, BASE] + 7] |= SPECIAL
    machine._domains[GUEST].rec["tot_pages"] -= 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shift_a_block, "two places"),
        (name_no_frame, "two places"),
        (name_a_frame_twice, "two places"),
        (name_a_free_frame, "two places"),
        (hide_a_special_page, "tot_pages"),
    ],
)
def test_damage_is_found_page_by_page(damage: Callable[[TracedMachine], None], words: str) -> None:
    """Blocks with holes, and those whose frames are listed: one frame too many, shared, free, or not looked at."""
    machine = shuffled()
    damage(machine)
    with pytest.raises(InvariantError, match=words):
        machine.audit(GUEST)


def test_equations_are_checked_while_a_regular_life_is_led_and_no_longer() -> None:
    machine = booted()
    assert machine._domains[GUEST].rec["irregular"][0] == 0
    # RAM over a promise takes an entry away that was never backed: from here on P may pass T.
    machine.set_max_pages(GUEST, 4096)
    assert machine.populate(GUEST, 2048, 0) == 1
    assert machine._domains[GUEST].rec["irregular"][0] != 0
    machine.audit()


def test_negative_debt_is_an_error_from_the_end_of_the_build_on() -> None:
    machine = TracedMachine(1 << 14)
    machine.create(GUEST, maxmem_pages=4096, max_pages=4096)
    machine.set_pod_target(GUEST, 1024)
    machine.audit()  # a cache before there are entries is how a build begins
    machine.mark_pod(GUEST, 0, 9)
    machine.end_build(GUEST)
    with pytest.raises(InvariantError, match=r"debt E 512 - C 1024"):
        machine.audit(GUEST)


def test_the_operators_key_and_the_log_line() -> None:
    machine = booted()
    assert machine.q_dump(GUEST) == f"PoD entries={machine.entry_count(GUEST)} cachesize=1024"
    machine.touch_range(GUEST, 0, 4096, content=DATA)
    assert machine.oom_line(machine.take_notes()["oom"]) == (
        "p2m_pod_demand_populate: Dom7 out of PoD memory! (tot=2048 ents=1948 dom7)"
    )
    assert machine._domains[GUEST].lists[SINGLE, 4] == 0
