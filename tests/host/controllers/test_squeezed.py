"""The proportional policy: never more than there is, the same share for all, monotone; and how squeezed counts."""

from hypothesis import given
from hypothesis import strategies as st

from podcluster.controller_parameters import SqueezedParameters
from podcluster.host.controllers.squeezed import Member, Squeezed, share_out, write
from podcluster.host.controllers.view import Limit, Target
from tests.host.controllers.views import MIB, domain, host

MARGIN = 8


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    """Domains anywhere in or around their ranges [KiB]."""
    found = []
    for domid in range(draw(st.integers(0, 6))):
        low = draw(st.integers(0, 1 << 24))
        high = low + draw(st.integers(0, 1 << 24))
        actual = draw(st.integers(low, high))
        found.append(Member(domid, low, high, actual, actual, True))
    return found


sizes = st.integers(0, 1 << 26)


@given(members(), sizes, sizes)
def test_targets_never_exceed_what_there_is(domains: list[Member], free: int, goal: int) -> None:
    """Sum of targets <= what all have and what is free beyond the goal, wherever that covers the minimums."""
    targets = share_out(free, goal, domains, MARGIN)
    there_is = free + sum(one.actual_kib for one in domains) - goal
    least = sum(one.min_kib for one in domains)
    assert sum(targets) <= max(least, there_is + sum(min(MARGIN, one.actual_kib - one.min_kib) for one in domains))
    assert all(one.min_kib <= new <= one.max_kib for one, new in zip(domains, targets, strict=True))


@given(members(), sizes, sizes, sizes)
def test_more_wanted_never_means_more_for_anybody(domains: list[Member], free: int, goal: int, more: int) -> None:
    """Monotone in the goal and in free memory."""
    before = share_out(free, goal, domains, MARGIN)
    assert all(a >= b for a, b in zip(before, share_out(free, goal + more, domains, MARGIN), strict=True))
    assert all(a <= b for a, b in zip(before, share_out(free + more, goal, domains, MARGIN), strict=True))


@given(members(), sizes, sizes)
def test_everybody_gets_the_same_share_of_its_range(domains: list[Member], free: int, goal: int) -> None:
    """One gamma: targets lie within 1 KiB of min + gamma range."""
    targets = share_out(free, goal, domains, MARGIN)
    wide = [(one, new) for one, new in zip(domains, targets, strict=True) if one.max_kib > one.min_kib]
    for one, new in wide:
        first, its = wide[0]
        share = (its - first.min_kib) / (first.max_kib - first.min_kib)
        unsure = 1 + (one.max_kib - one.min_kib) / (first.max_kib - first.min_kib)
        assert abs(new - one.min_kib - share * (one.max_kib - one.min_kib)) <= unsure


def test_the_worked_example() -> None:
    """D5: surplus 1,535,984 of ranges 3,145,728 KiB."""
    mib = 1024
    domains = [
        Member(1, 1024 * mib, 2048 * mib, 2048 * mib, 2048 * mib, True),
        Member(2, 2048 * mib, 4096 * mib, 4096 * mib, 4096 * mib, True),
    ]
    assert share_out(500 * mib, 2072 * mib, domains, MARGIN) == [1_560_570, 3_121_141]


def test_no_ranges() -> None:
    """D5.4: with ranges of nothing there is nothing to share, whatever gamma is."""
    pinned = [Member(1, 1000, 1000, 1000, 1000, True)]
    assert share_out(5000, 0, pinned, MARGIN) == share_out(0, 5000, pinned, MARGIN) == [1000]
    assert share_out(0, 0, [], MARGIN) == []


def test_the_order_of_writes() -> None:
    """D5.8: limit first when raising, target first when lowering; the limit has the offset and 1 MiB on top."""
    one = Member(3, 4000, 40_000, 20_000, 20_000, True, limit_pages=5000 + 256 + 10, offset_pages=10)
    assert list(write(one, 40_000)) == [Limit(3, 10_266), Target(3, 40_000)]
    assert list(write(one, 4000)) == [Target(3, 4000), Limit(3, 1266)]
    assert list(write(one, 20_000)) == []
    assert list(write(one, 4000, limits=False)) == [Target(3, 4000)]


def test_what_is_free_to_squeezed() -> None:
    """D5.1, D5.2: to be scrubbed counts, grants not built do not, nor what a booting domain was promised."""
    booting = domain(1, 64, 128, 100, owned=90, can_balloon=False, has_agent=False, shadow_pages=4 * MIB)
    running = domain(2, 64, 128, 100, memory_offset_pages=-8)
    view = host(50, [booting, running])._replace(scrub_pages=MIB, reserved_pages=7 * MIB)
    free_kib, found = Squeezed(SqueezedParameters()).host(view)
    assert free_kib == (50 + 1 - 7 - (100 - 90 - 4)) * 1024
    assert [(one.domid, one.actual_kib) for one in found] == [(2, 100 * 1024 + 32)]


def test_it_waits_for_the_scrubber() -> None:
    """D5.2: from 1024 pages on it looks again in 0.25 s, and does nothing before."""
    daemon = Squeezed(SqueezedParameters())
    view = host(500, [domain(1, 64, 128, 64)])
    assert daemon.decide(view, daemon.first_state).actions
    held = daemon.decide(view._replace(scrub_pages=1024), daemon.first_state)
    assert (held.actions, held.next_check_ns) == ((), 250_000_000)
    assert daemon.decide(view._replace(scrub_pages=1023), daemon.first_state).actions
