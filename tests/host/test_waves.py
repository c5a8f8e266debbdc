"""Stretches of 4 KiB populates leave the state of the page-by-page loop, in debt above all: the hosts of `test_ranges`.

A wave is a stretch of zeroes in debt: each page is reclaimed as soon as it has gone round the recent list.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.config import ERAS
from podcluster.host.written import DATA, PATTERN, ZERO
from tests.host.test_pod_machine import BLOCK, SHAPES
from tests.host.test_ranges import COSTS, DOM, EPT, HOST_PAGES, MAXMEM_BLOCKS, Trio, per_s

NEXT = 2
ALL_PAGES = MAXMEM_BLOCKS * BLOCK

contents = st.sampled_from((ZERO, ZERO, ZERO, DATA, PATTERN))
places = st.one_of(
    st.sampled_from((0, 63, 64, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 65)), st.integers(0, ALL_PAGES - 1)
)
lengths = st.one_of(st.sampled_from((1, 2, 31, 32, 33, 64, 65, 320, BLOCK, 2 * BLOCK)), st.integers(1, 700))
ranges = st.builds(
    lambda first, count, down: list(range(first, min(first + count, ALL_PAGES)))[:: -1 if down else 1],
    places,
    lengths,
    st.booleans(),
)
few = st.builds(lambda first, count, every: list(range(first, min(first + count * every, ALL_PAGES), every)),
                places, st.integers(1, 70), st.integers(1, 3))  # fmt: skip
moves = st.one_of(
    st.tuples(st.just("touch"), ranges, contents),
    st.tuples(st.just("touch"), ranges, contents),
    st.tuples(st.just("touch few"), few, contents),
    st.tuples(st.just("balloon"), ranges, st.none()),
    st.tuples(st.just("balloon few"), few, st.none()),
    st.tuples(st.just("populate"), ranges, st.none()),
    st.tuples(st.just("write"), few, st.sampled_from((15, 16, 511))),
    st.tuples(st.just("hold"), few, st.sampled_from(("add_ref", "shadow_ref", "special", "shadowed_pt"))),
    st.tuples(st.just("mark"), ranges, st.none()),
    st.tuples(st.just("set_pod_target"), st.just([0]), st.integers(600, 1700)),
)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    target=st.one_of(st.sampled_from((20, 33, 64, 100, BLOCK, BLOCK + 1, BLOCK + 90)), st.integers(1, 1500)),
    order=st.sampled_from((0, 0, 0, 9)),
    words=st.booleans(),
    pattern=st.booleans(),
    era=st.sampled_from(("today", "today", "today", *ERAS)),
    slots=st.sampled_from((None, None, None, 1, 4, 64)),
    rates=st.one_of(st.none(), st.tuples(per_s, per_s)),
    steps=st.lists(moves, min_size=2, max_size=12),
)
def test_any_life_in_debt_equals_its_loop(
    shape: dict[str, Any],
    target: int,
    order: int,
    words: bool,
    pattern: bool,
    era: str,
    slots: int | None,
    rates: tuple[float, float] | None,
    steps: list[tuple[str, list[int], Any]],
) -> None:
    """Stretches up and down over cache lists in pieces, with records of every kind before them in the recent list."""
    host: dict[str, Any] = {} if slots is None else {"ring_slots": slots}
    trio = Trio(words=words, era=era, costs=COSTS, **host)
    trio.build(shape, target, order=order, slack=200)
    if pattern and not words and era != "rfc2009":
        trio.prepare("set_scrub_pattern", DOM, True)
    if rates:
        trio.prepare("set_pending_work", DOM, 99, *rates)
        trio.prepare("set_interrupts", DOM, True, 1)
    for what, pages, how in steps:
        if trio.conflict:
            return
        if what in ("touch", "balloon", "populate"):
            trio.run(what, pages, as_list=False, **({} if how is None else {"content": how}))
        elif what == "touch few":
            trio.run("touch", pages, as_list=True, content=how)
        elif what == "balloon few":
            trio.run("balloon", pages, as_list=True)
        elif what == "set_pod_target":
            trio.prepare("set_pod_target", DOM, how)
        elif what == "mark":
            if era != "rfc2009":  # R5: where it fails the table stays locked
                trio.prepare("mark_pod_seq", DOM, min(pages), len(pages), 0)
        elif what == "hold":
            for identity, gfn in enumerate(pages[:2]):
                if how == "add_ref":
                    trio.prepare("add_ref", DOM, gfn, identity)
                elif how == "shadow_ref":
                    trio.prepare("shadow_ref", DOM, gfn)
                else:
                    trio.prepare("set_flag", DOM, gfn, how, True)
        elif words:
            for gfn in pages:
                trio.prepare("write", DOM, gfn, how, 9)
    if not trio.conflict:
        end(trio)


def end(trio: Trio) -> None:
    """The guest is destroyed, and another takes all that is free: which frames it gets tells what was given back."""
    trio.prepare("destroy", DOM)
    trio.doms.remove(DOM)
    trio.create_all(NEXT, maxmem_pages=HOST_PAGES, max_pages=HOST_PAGES)
    trio.prepare("populate_seq", NEXT, 0, HOST_PAGES, 0, 1)
    trio.compare_all()


# -- the situations that must not be missed, each shown to have happened -----------------------------------------


@pytest.fixture(params=[True, False], ids=["words", "bits"])
def trio(request: pytest.FixtureRequest) -> Trio:
    return Trio(words=request.param, costs=COSTS)


@pytest.fixture(params=[1, -1], ids=["upwards", "downwards"])
def step(request: pytest.FixtureRequest) -> int:
    step: int = request.param
    return step


def test_a_wave_turns_the_cache_and_leaves_the_last_32_pages(trio: Trio, step: int) -> None:
    trio.build(EPT, BLOCK, order=0)
    assert trio.run("touch", list(range(100, 400))[::step], as_list=False, content=ZERO) == 300
    counters = trio.slow.counters(DOM)
    assert (counters.populated_4k, counters.reclaimed_4k, counters.cache_count) == (300, 300 - 32, BLOCK - 32)
    assert sorted(trio.ram_gfns(DOM)) == (list(range(368, 400)) if step > 0 else list(range(100, 132)))


def test_a_wave_goes_on_over_blocks_and_pieces_of_the_list(trio: Trio, step: int) -> None:
    """Frames given back in both directions make a list of many segments."""
    trio.build(EPT, BLOCK + 50, order=0)
    trio.run("touch", list(range(150)), as_list=False, content=DATA)
    trio.run("balloon", list(range(20, 50)), as_list=False)
    trio.run("balloon", list(range(60, 100))[::-1], as_list=False)
    trio.run("balloon", list(range(101, 149, 2)), as_list=True)
    assert trio.slow.counters(DOM).reclaimed_4k == 0
    trio.run("touch", list(range(BLOCK - 100, 3 * BLOCK + 100))[::step], as_list=False, content=ZERO)
    assert trio.slow.counters(DOM).reclaimed_4k == 2 * BLOCK + 200 - 32


def test_data_in_debt_is_looked_at_and_stays(trio: Trio, step: int) -> None:
    trio.build(EPT, BLOCK + 6, order=0)
    before = trio.slow.clock(DOM)
    trio.run("touch", list(range(100, 400))[::step], as_list=False, content=DATA)
    assert trio.slow.counters(DOM).reclaimed_4k == 0
    looks = (300 - 32) * (COSTS["look_ns"] + COSTS["check_nonzero_ns"])
    assert trio.slow.clock(DOM) - before == 300 * COSTS["populate_4k_ns"] + looks


@pytest.mark.parametrize("cache", [1, 8, 32, 33, 40])
@pytest.mark.parametrize("content", [ZERO, DATA])
def test_a_wave_lives_on_a_cache_as_short_as_the_recent_list(trio: Trio, step: int, cache: int, content: int) -> None:
    trio.build(EPT, cache, order=0)
    done = trio.run("touch", list(range(BLOCK))[::step], as_list=False, content=content)
    assert done == (BLOCK if content == ZERO else cache)


def test_a_wave_meets_records_of_its_own_pages(trio: Trio, step: int) -> None:
    """Populated, given back and promised again: their old records tell of pages that the wave has just populated."""
    trio.build(EPT, BLOCK, order=0)
    trio.run("touch", list(range(650, 660))[::-step], as_list=False, content=DATA)
    trio.run("touch", list(range(700, 722)), as_list=False, content=DATA)
    trio.run("balloon", list(range(650, 660)), as_list=False)
    assert trio.prepare("mark_pod_seq", DOM, 650, 10, 0) == 10
    assert trio.slow.counters(DOM).reclaimed_4k == 0
    trio.run("touch", list(range(650, 660))[::step], as_list=False, content=ZERO)
    assert trio.slow.counters(DOM).reclaimed_4k == 5
    trio.run("touch", list(range(600, 690))[::step], as_list=False, content=ZERO)


@pytest.mark.parametrize("content", [ZERO, DATA])
def test_a_superpage_falls_out_of_the_recent_list_in_a_wave(trio: Trio, step: int, content: int) -> None:
    """One that is taken back whole, or, with some data in it, frame by frame; and the wave's own table, once whole."""
    trio.build(EPT, 3 * BLOCK)
    trio.run("touch", list(range(2 * BLOCK)), as_list=False, content=ZERO)
    trio.run("touch", list(range(5, 9)), as_list=False, content=content)
    trio.run("balloon", list(range(BLOCK, BLOCK + 30)), as_list=False)
    before = trio.slow.counters(DOM)
    trio.run("touch", list(range(3 * BLOCK, 4 * BLOCK))[::step], as_list=False, content=DATA)
    trio.run("touch", list(range(BLOCK, 3 * BLOCK))[::step], as_list=False, content=ZERO)
    after = trio.slow.counters(DOM)
    assert after.reclaimed_4k + after.reclaimed_2m > before.reclaimed_4k + before.reclaimed_2m


def test_a_wave_of_the_registered_pattern_becomes_promises_of_it(step: int) -> None:
    trio = Trio(words=False, costs=COSTS)
    trio.build(EPT, BLOCK, order=0)
    trio.prepare("set_scrub_pattern", DOM, True)
    trio.run("touch", list(range(100, 400))[::step], as_list=False, content=PATTERN)
    assert trio.slow.counters(DOM).reclaimed_4k == 300 - 32
    trio.run("touch", list(range(90, 500))[::step], as_list=False, content=ZERO)


def test_frames_in_pieces_go_home_with_the_guest(trio: Trio, step: int) -> None:
    """Tables whose frames lead upwards, downwards and nowhere, with holes and without."""
    trio.build(EPT, 3 * BLOCK, order=0)
    trio.run("touch", list(range(2 * BLOCK)), as_list=False, content=DATA)
    trio.run("balloon", list(range(40, 100)), as_list=False)
    trio.run("balloon", list(range(200, 300))[::-1], as_list=False)
    trio.run("balloon", [300 + i * 57 % 200 for i in range(100)], as_list=True)
    trio.run("touch", list(range(2 * BLOCK, 4 * BLOCK - 500))[::step], as_list=False, content=DATA)
    trio.run("populate", list(range(40, 90))[::step], as_list=False)
    trio.prepare("add_ref", DOM, 3 * BLOCK, 1)
    end(trio)


def test_a_table_that_is_emptied_owns_nothing(step: int) -> None:
    """What a balloon has taken whole leaves neither rows nor frame lists behind."""
    trio = Trio(words=False)
    trio.create_all(DOM, maxmem_pages=ALL_PAGES, max_pages=ALL_PAGES, **EPT)
    unmapped = trio.fast.memory_bytes(DOM)
    trio.prepare("set_pod_target", DOM, 3 * BLOCK)
    trio.prepare("mark_pod_seq", DOM, 0, MAXMEM_BLOCKS, 9)
    trio.run("touch", list(range(BLOCK)), as_list=False, content=DATA)
    trio.run("balloon", list(range(0, BLOCK, 2)), as_list=True)
    trio.run("touch", list(range(BLOCK + 7, 2 * BLOCK - 100))[::step], as_list=False, content=DATA)
    trio.run("balloon", list(range(BLOCK, 4 * BLOCK))[::step], as_list=False)
    assert trio.fast.memory_bytes(DOM) > unmapped
    trio.run("balloon", list(range(1, BLOCK, 2))[::step], as_list=True)
    assert trio.fast.memory_bytes(DOM) == unmapped


def test_a_superpage_of_zeroes_and_pattern_is_taken_back_page_by_page(step: int) -> None:
    """S4: never whole; each page becomes a promise of what it held."""
    trio = Trio(words=False, costs=COSTS)
    trio.build(EPT, 2 * BLOCK)
    trio.prepare("set_scrub_pattern", DOM, True)
    trio.run("touch", list(range(BLOCK)), as_list=False, content=ZERO)
    trio.run("touch", list(range(100, 164)), as_list=False, content=PATTERN)
    trio.run("touch", list(range(300, 310)), as_list=False, content=DATA)
    trio.run("touch", list(range(BLOCK, 2 * BLOCK)), as_list=False, content=DATA)
    trio.run("touch", list(range(2 * BLOCK, 2 * BLOCK + 10))[::step], as_list=False, content=DATA)
    counters = trio.slow.counters(DOM)
    assert (counters.reclaimed_2m, counters.reclaimed_4k) == (0, BLOCK - 10)
