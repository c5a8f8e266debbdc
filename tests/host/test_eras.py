"""Corners of the eras that no trace and few walks reach: each is staged, on the kernels and the slow model at once."""

import pytest

from podcluster.config import ERAS
from podcluster.errors import InvariantError
from podcluster.host.eras import RING_SLOTS, SWITCHES
from podcluster.host.failures import death
from podcluster.host.traced import TracedMachine
from podcluster.host.written import DATA, ZERO
from tests.host.pair import Pair
from tests.host.test_pod_machine import BLOCK

PT = {"paging": "hap", "p2m": "pt", "sp_1g": False}


def guest_of(era: str, *, blocks: int, target: int, order: int = 9, host_blocks: int = 12) -> Pair:
    """Domain 1, all of it promised in extents of `order`."""
    pair = Pair(host_blocks * BLOCK, era=era)
    pair.create(1, maxmem_pages=blocks * BLOCK, max_pages=target, **PT)
    pair.furnish(1, target, 0, blocks * BLOCK >> order, order, 0)
    return pair


def checked(pair: Pair) -> None:
    pair.compare()
    pair.audit()


def test_every_era_has_its_switches() -> None:
    """The configuration, the kernels' switches and the lengths of the recent list name the same eras."""
    assert set(ERAS) == set(SWITCHES) == set(RING_SLOTS)


@pytest.mark.parametrize("era", ERAS)
def test_who_maps_a_page_moves_max_guest_or_not(era: str) -> None:
    """R6 step 3: in 2009 only the guest's own accesses count; today, dom0's do too."""
    pair = guest_of(era, blocks=4, target=2 * BLOCK)
    assert pair.call("map_page", 1, 3 * BLOCK + 7, by=0) == 0
    assert pair.slow.state_record(1)["max_guest"] == (0 if era == "rfc2009" else 3 * BLOCK + 7)
    pair.call("read", 1, BLOCK + 5, 0)
    assert pair.slow.state_record(1)["max_guest"] == (BLOCK + 5 if era == "rfc2009" else 3 * BLOCK + 7)
    checked(pair)


@pytest.mark.parametrize("era", ERAS)
def test_a_death_by_another_domains_access_says_whose(era: str) -> None:
    """P6 step 5 names the accessor; the message of 2009 names nobody."""
    pair = guest_of(era, blocks=4, target=BLOCK)
    pair.call("touch_range", 1, 0, BLOCK, content=DATA)
    pair.slow.map_page(1, 2 * BLOCK, by=7)
    pair.fast.map_page(1, 2 * BLOCK, by=7)
    noted = pair.fast.take_notes()
    assert noted == pair.slow.take_notes()
    assert noted["oom"] == {"dom": 1} if era == "rfc2009" else noted["oom"]["curr"] == 7
    checked(pair)


@pytest.mark.parametrize(
    ("how", "at", "taken_2009"),
    [
        ("plain", 0, True),
        ("plain", 9, True),
        ("type", 0, False),
        ("type", 9, True),  # only the first frame of a superpage is asked
        ("grant", 0, False),
        ("grant", 9, False),
    ],
)
@pytest.mark.parametrize("era", ERAS)
def test_what_a_superpage_check_sees_of_references(era: str, how: str, at: int, taken_2009: bool) -> None:
    """R7: type count of the first frame, the grant table for all; today every reference stands in the way."""
    pair = guest_of(era, blocks=6, target=2 * BLOCK)
    pair.call("touch_range", 1, 2 * BLOCK, BLOCK, content=ZERO)
    pair.call("add_ref", 1, 2 * BLOCK + at, 5, how)
    pair.call("touch_range", 1, 4 * BLOCK, BLOCK, content=DATA)
    before = pair.slow.counters(1).reclaimed_2m
    pair.call("touch_range", 1, 5 * BLOCK, 1, content=DATA)
    checked(pair)
    assert (pair.slow.counters(1).reclaimed_2m > before) == (era == "rfc2009" and taken_2009)
    assert pair.call("drop_ref", 5, 1) == 0
    checked(pair)


@pytest.mark.parametrize(("how", "taken_2009"), [("plain", True), ("type", False), ("grant", False)])
@pytest.mark.parametrize("era", ERAS)
def test_what_a_frame_check_sees_of_references(era: str, how: str, taken_2009: bool) -> None:
    """R7 for single frames: one zero page, held; nothing else could feed the guest."""
    pair = guest_of(era, blocks=3, target=BLOCK, order=0)
    pair.call("touch_range", 1, 0, BLOCK, content=DATA)
    pair.call("touch_range", 1, 40, 1, content=ZERO)
    pair.call("add_ref", 1, 40, 5, how)
    pair.call("touch_range", 1, 2 * BLOCK, 1, content=DATA)
    checked(pair)
    assert bool(pair.slow.counters(1).crashed) != (era == "rfc2009" and taken_2009)


def test_a_grant_is_of_a_gfn_and_outlives_its_frame() -> None:
    """R7: the grant table names the gfn, so the page that is there now is left alone, until the grant goes."""
    pair = guest_of("rfc2009", blocks=3, target=BLOCK, order=0)
    pair.call("touch_range", 1, 0, BLOCK, content=DATA)
    pair.call("add_ref", 1, 40, 5, "grant")
    pair.call("balloon_range", 1, 40, 1)
    pair.call("mark_pod", 1, 40, 0)
    pair.call("touch_range", 1, 40, 1, content=ZERO)
    checked(pair)
    assert pair.slow.query(1, 40)[0] == 1
    assert pair.call("hazard", 1) == (0, 0, 0)
    assert pair.call("drop_ref", 5, 1) == 0
    pair.call("touch_range", 1, 2 * BLOCK, 1, content=DATA)
    checked(pair)
    assert (pair.slow.query(1, 40)[0], pair.slow.counters(1).crashed) == (2, 0)


def test_special_pages_are_not_known_in_2009() -> None:
    """R7: a special zero page is reclaimed like any other; page tables are not."""
    for flag, taken in (("special", True), ("shadowed_pt", False)):
        pair = guest_of("rfc2009", blocks=3, target=BLOCK, order=0)
        pair.call("touch_range", 1, 0, BLOCK, content=DATA)
        pair.call("touch_range", 1, 40, 1, content=ZERO)
        pair.call("set_flag", 1, 40, flag, True)
        pair.call("touch_range", 1, 2 * BLOCK, 1, content=DATA)
        checked(pair)
        assert bool(pair.slow.counters(1).crashed) != taken


@pytest.mark.parametrize("max_guest", [5, 511, 512, 1023, 1024, 1536])
def test_where_a_superpage_sweep_begins_in_32_bits(max_guest: int) -> None:
    """R8: below 512 it comes down from 2**32 - 512 over the whole table; from 512 on it begins below `max_guest`."""
    pair = guest_of("rfc2009", blocks=8, target=2 * BLOCK)
    pair.call("map_page", 1, 5 * BLOCK, by=0)  # a superpage of zeroes, far above, that moves no max_guest
    pair.call("read", 1, max_guest, 0)
    checked(pair)
    assert pair.slow.state_record(1)["super_sweeps"] == 0
    pair.call("read", 1, 7 * BLOCK, 0)
    checked(pair)
    record = pair.slow.state_record(1)
    assert record["super_sweeps"] == 1
    assert pair.slow.counters(1).reclaimed_2m == (max_guest < BLOCK)
    assert record["reclaim_super"] == (4 * BLOCK if max_guest < BLOCK else 0)


def test_after_ram_was_promised_the_lock_is_held() -> None:
    """R5: the next operation on that guest would have stopped the hypervisor: ours says so, and others go on."""
    machine = TracedMachine(8 * BLOCK, era="rfc2009")
    for dom in (1, 2):
        machine.create(dom, maxmem_pages=2 * BLOCK, max_pages=BLOCK)
    assert machine.populate(1, 5, 0) == 1
    assert machine.mark_pod(1, 0, 9) == -16
    with pytest.raises(InvariantError, match=r"\[R5\].*domain 1"):
        machine.mark_pod(1, BLOCK, 9)
    assert machine.mark_pod(2, 0, 9) == 0


def test_a_conflict_is_set_right_by_the_end() -> None:
    """R1, R7: frames that are mapped and cached at once go home once."""
    pair = guest_of("rfc2009", blocks=6, target=2 * BLOCK)
    pair.call("balloon_range", 1, BLOCK, BLOCK)
    pair.call("set_max_pages", 1, 3 * BLOCK)
    assert pair.call("populate_range", 1, BLOCK, BLOCK) == BLOCK
    pair.call("touch_range", 1, 3 * BLOCK, 2 * BLOCK, content=DATA)
    free = pair.slow.free_pages
    assert pair.call("read", 1, 2 * BLOCK, 0) == -2  # Pair destroys it after the conflict
    assert pair.slow.free_pages == free + 3 * BLOCK == pair.slow.host_pages
    checked(pair)


def test_the_ring_of_2012_comes_round_after_128_superpages() -> None:
    """xen2012: what was populated 128 superpages ago is looked at; until then gfn 0 is, each time."""
    pair = guest_of("xen2012", blocks=134, target=131 * BLOCK, host_blocks=135)
    pair.call("touch_range", 1, BLOCK, 128 * BLOCK, content=ZERO)
    assert pair.slow.counters(1).reclaimed_2m == 0
    pair.call("touch_range", 1, 129 * BLOCK, BLOCK, content=ZERO)
    assert pair.slow.counters(1).reclaimed_2m == 1
    assert pair.slow.query(1, BLOCK) == [2, 9]
    checked(pair)


def test_2012_leaves_gfn_0_alone_while_it_is_populated() -> None:
    """A superpage at gfn 0, which no toolstack made: Xen would have populated and taken it back for ever."""
    pair = guest_of("xen2012", blocks=4, target=2 * BLOCK)
    assert pair.call("read", 1, 3, 0) == 0
    checked(pair)


@pytest.mark.parametrize(("era", "reclaimed"), [("today", 0), ("xen2015", 1), ("xen2012", 0), ("rfc2009", 0)])
def test_without_debt_only_2015_reclaims(era: str, reclaimed: int) -> None:
    """xen2015: the recent list is looked at whatever the debt."""
    pair = Pair(12 * BLOCK, era=era, ring_slots=1)
    pair.create(1, maxmem_pages=4 * BLOCK, max_pages=4 * BLOCK, **PT)
    pair.furnish(1, 4 * BLOCK, 0, 4, 9, 0)
    pair.call("touch_range", 1, BLOCK, BLOCK, content=ZERO)
    pair.call("touch_range", 1, 2 * BLOCK, BLOCK, content=DATA)
    assert pair.slow.counters(1).reclaimed_2m == reclaimed
    checked(pair)


@pytest.mark.parametrize("line", ["p2m_pod_demand_populate: Out of populate-on-demand memory!", ""])
def test_who_crashed_a_guest_is_said_beside_any_line(line: str) -> None:
    """R1, R6: rfc2009 prints no numbers, nor whose access it was, and nothing at all where a table was in the way."""
    _, text = death("pod_oom_by_other", "debt", 7, line, 0)
    assert text == f"{line}; Domain 7 reported crashed by domain 0".removeprefix("; ")
