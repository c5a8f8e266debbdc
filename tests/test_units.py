"""Conversions: exact where they can be, and never to more pages than there are."""

from hypothesis import given
from hypothesis import strategies as st

from podcluster import units


def test_constants_agree() -> None:
    assert units.PAGES_PER_MIB * units.PAGE_BYTES == 2**20
    assert units.PAGES_PER_GIB * units.PAGE_BYTES == 2**30
    assert units.SUPERPAGE_PAGES * units.PAGE_BYTES == 2**21
    assert 1 << units.SUPERPAGE_ORDER == units.SUPERPAGE_PAGES
    assert units.KIB_PER_PAGE * 1024 == units.PAGE_BYTES


@given(st.integers(0, 2**40))
def test_mib_survive_the_way_there_and_back(mib: int) -> None:
    assert units.pages_to_mib(units.mib_to_pages(mib)) == mib
    assert units.gib_to_pages(mib) == units.mib_to_pages(mib * 1024)


@given(st.integers(0, 2**50))
def test_fractions_of_a_page_are_dropped(kib: int) -> None:
    pages = units.kib_to_pages(kib)
    assert 0 <= kib - units.pages_to_kib(pages) < units.KIB_PER_PAGE


def test_seconds_become_the_nearest_nanosecond() -> None:
    assert units.s_to_ns(0.1) == 100_000_000
    assert units.s_to_ns(1e-9 * 0.6) == 1
    assert units.s_to_ns(86_400) == 86_400 * 10**9
