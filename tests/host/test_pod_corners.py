"""Corners of the rules that random walks pass by: each is staged, and carried out on the kernels and the slow model."""

import pytest

from podcluster.host.written import DATA
from tests.host.pair import Pair
from tests.host.test_pod_machine import BLOCK

EPT = {"paging": "hap", "p2m": "ept"}


def single_frames(pair: Pair, first_gfn: int = 0) -> None:
    """Domain 1, with 512 entries of 4 KiB at first_gfn on the lowest free frames, and two blocks of promises beyond."""
    pair.create(1, maxmem_pages=4 * BLOCK, max_pages=4 * BLOCK, **EPT)
    assert pair.call("populate_seq", 1, first_gfn, BLOCK, 0, 1) == BLOCK
    assert pair.call("mark_pod_seq", 1, 2 * BLOCK, 2, 9) == 2


@pytest.mark.parametrize(("aside_pages", "taken_back"), [(0, 1), (1, 0)])
def test_a_superpage_must_begin_aligned(aside_pages: int, taken_back: int) -> None:
    """P9: 512 zero pages on consecutive frames come back as one only if the first is a multiple of 512."""
    pair = Pair(6 * BLOCK)
    if aside_pages:
        assert pair.call("set_aside", aside_pages) == 1
    single_frames(pair)
    assert pair.call("decrease", 1, 7, 0) == [1, 1]
    pair.compare()
    pair.audit()
    assert pair.slow.counters(1).reclaimed_2m == taken_back


def test_a_failed_full_check_mends_what_was_splintered() -> None:
    """P9, P12 step 6: mapped back as one entry, so that the debt is looked at once for the whole chunk."""
    pair = Pair(6 * BLOCK)
    single_frames(pair)
    assert pair.call("write", 1, 400, 300, 5) == 0  # past the quick check
    assert pair.call("set_pod_target", 1, 3 * BLOCK - 1) == 0
    before = pair.slow.counters(1)
    assert before.entry_count - before.cache_count == 1
    assert pair.call("decrease", 1, 8, 3) == [1, 8]
    pair.compare()
    pair.audit()
    assert pair.slow.counters(1).tot_pages == before.tot_pages - 7, "eight were stolen for a debt of one, seven freed"


def test_a_special_page_further_in_is_stolen_with_its_superpage() -> None:
    """P12 step 6: an entry is special when its first frame is; the flag stays in the cache."""
    pair = Pair(6 * BLOCK)
    pair.create(1, maxmem_pages=3 * BLOCK, max_pages=2 * BLOCK, **EPT)
    pair.call("set_pod_target", 1, BLOCK)
    pair.call("mark_pod_seq", 1, 0, 3, 9)
    pair.call("touch_range", 1, 0, BLOCK, content=DATA)
    assert pair.call("set_flag", 1, 100, "special", True) == 0
    assert pair.call("decrease", 1, 0, 9) == [1, BLOCK]
    pair.compare()
    pair.audit()
    counters = pair.slow.counters(1)
    assert (counters.cache_count, counters.tot_pages) == (BLOCK, BLOCK - 1)
    pair.call("touch_range", 1, BLOCK, 1, content=DATA)
    assert pair.call("set_flag", 1, BLOCK + 100, "special", True) == 1, "already so: it came along"
    pair.compare()


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("scrub_on_free", [True, False])
@pytest.mark.parametrize("how", ["ballooned", "destroyed"])
def test_old_contents_show_unless_scrubbed(words: bool, scrub_on_free: bool, how: str) -> None:
    """golden.md 5: zeroed if the host scrubs or the owner was destroyed; else the next owner sees it."""
    pair = Pair(2 * BLOCK, scrub_on_free=scrub_on_free, words=words)
    for dom in (1, 2):
        pair.create(dom, maxmem_pages=BLOCK, max_pages=BLOCK, **EPT)
    assert pair.call("populate_range", 1, 0, 40) == 40
    assert pair.call("touch_range", 1, 0, 40, content=DATA) == 40
    if how == "ballooned":
        assert pair.call("balloon_range", 1, 0, 40) == 40
    else:
        pair.call("destroy", 1)
    assert pair.call("populate_range", 2, 0, 40) == 40
    pair.compare()
    pair.audit()
    shown = how == "ballooned" and not scrub_on_free
    assert pair.slow.nonzero_pages(2) == (40 if shown else 0)


def test_what_is_held_outlives_its_owner_and_goes_back_zeroed() -> None:
    """P14: a frame held by a reference stays the destroyed domain's until the reference is dropped."""
    pair = Pair(2 * BLOCK, scrub_on_free=False)
    pair.create(1, maxmem_pages=BLOCK, max_pages=BLOCK, **EPT)
    pair.call("populate", 1, 0, 0)
    pair.call("write", 1, 0, 3, 9)
    pair.call("add_ref", 1, 0, 5)
    pair.call("destroy", 1)
    pair.compare()
    assert pair.slow.counters(1).tot_pages == 1
    assert pair.call("drop_ref", 5, 1) == 0
    pair.create(2, maxmem_pages=BLOCK, max_pages=BLOCK, **EPT)
    pair.call("populate", 2, 0, 0)
    assert pair.call("read", 2, 0, 3) == 0
    pair.compare()
    pair.audit()


@pytest.mark.parametrize("flag", ["special", "shadowed_pt"])
def test_flags_do_not_outlive_the_return_to_the_host(flag: str) -> None:
    """golden.md 5: the frame comes back to a domain without them."""
    pair = Pair(2 * BLOCK)
    pair.create(1, maxmem_pages=BLOCK, max_pages=BLOCK, **EPT)
    pair.call("populate", 1, 0, 0)
    assert pair.call("set_flag", 1, 0, flag, True) == 0
    assert pair.call("decrease", 1, 0, 0) == [1, 0]
    pair.call("populate", 1, 0, 0)
    assert pair.call("set_flag", 1, 0, flag, False) == 1, "already so"
    pair.compare()
    pair.audit()
