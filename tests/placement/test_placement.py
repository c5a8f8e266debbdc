"""Placement policies: the definition on hand-made hosts, and the index against the definition on drawn ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.errors import ConfigError, InvariantError
from podcluster.placement import POLICIES, make_policy
from podcluster.placement.hosts import HostCount, Stay, auto_host_count, empty_hosts, most_needed, unplaced
from podcluster.placement.index import HostIndex
from podcluster.records import Ask, HostView, Rejected

PACKERS = ("best_fit", "first_fit")


def view(host_id: int, usable: int, committed: int) -> HostView:
    """A host of which only what placement reads matters."""
    return HostView(host_id, usable, committed, 0, 0, 0, 0)


def asks(needs: list[int], maxmem: int | None = None) -> list[Ask]:
    """Requests of these needs, promised `maxmem` each or what they need."""
    return [Ask(need, maxmem or need, domain_id=i) for i, need in enumerate(needs)]


def stays(needs: list[int], maxmem: int | None = None) -> list[Stay]:
    """The same, all at once and to the end."""
    return [Stay(ask, 0, None) for ask in asks(needs, maxmem)]


def test_first_fit_takes_the_first_that_fits_and_best_fit_the_tightest() -> None:
    """Three hosts with 10, 30 and 20 pages left: a request of 15 goes to the second, or to the third."""
    views = [view(0, 100, 90), view(4, 100, 70), view(7, 100, 80)]
    assert make_policy("first_fit").place(Ask(15, 50), views) == 4
    assert make_policy("best_fit").place(Ask(15, 50), views) == 7


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_last_page_may_be_committed_and_not_one_more(name: str) -> None:
    """[PLACE-1] at and past the edge."""
    views = [view(3, 100, 90)]
    assert make_policy(name).place(Ask(10, 100), views) == 3
    rejected = make_policy(name).place(Ask(11, 100), views)
    assert isinstance(rejected, Rejected)
    assert rejected.cause == "no_host"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_guest_is_promised_more_than_its_host(name: str) -> None:
    """[PLACE-2]: a small need does not help a maxmem above U; a larger host takes it."""
    small, large = view(0, 100, 0), view(1, 200, 150)
    rejected = make_policy(name).place(Ask(5, 101), [small])
    assert isinstance(rejected, Rejected)
    assert rejected.cause == "too_large"
    assert make_policy(name).place(Ask(5, 101), [small, large]) == 1
    assert make_policy(name).place_indexed(Ask(5, 101), HostIndex([small, large])) == 1


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_no_hosts_at_all_is_a_rejection(name: str) -> None:
    """An empty cluster answers, in words."""
    assert isinstance(make_policy(name).place(Ask(1, 1), []), Rejected)
    assert isinstance(make_policy(name).place_indexed(Ask(1, 1), HostIndex([])), Rejected)


def test_an_unknown_policy_lists_the_known_ones() -> None:
    """One line with key, value and remedy."""
    with pytest.raises(ConfigError, match=r"placement\.policy must be one of first_fit, best_fit, xapi, got worst_fit"):
        make_policy("worst_fit")


@given(
    name=st.sampled_from(sorted(POLICIES)),
    hosts=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=9),
    requests=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 70), st.booleans()), max_size=40),
)
def test_the_index_chooses_as_the_definition_does(
    name: str, hosts: list[tuple[int, int]], requests: list[tuple[int, int, bool]]
) -> None:
    """Hosts of mixed sizes under a run of placements and departures: same answer, [PLACE-1..2] after each."""
    policy = make_policy(name)
    usable = {2 * i + 1: u for i, (u, _) in enumerate(hosts)}
    committed = {2 * i + 1: min(c, u) for i, (u, c) in enumerate(hosts)}
    index = HostIndex([view(h, usable[h], committed[h]) for h in usable])
    placed: list[tuple[int, int]] = []
    for need, maxmem, leave in requests:
        if leave and placed:
            host_id, pages = placed.pop(len(placed) // 2)
            index.release(host_id, pages)
            committed[host_id] -= pages
        ask = Ask(need, maxmem)
        assert [one.committed_pages for one in index.views()] == list(committed.values())
        by_definition = policy.place(ask, index.views())
        assert policy.place_indexed(ask, index) == by_definition
        if not isinstance(by_definition, Rejected):
            index.place(by_definition, ask)
            committed[by_definition] += need
            placed.append((by_definition, need))
            assert committed[by_definition] <= usable[by_definition]
            assert maxmem <= usable[by_definition]
        assert all(index.free_pages(h) == usable[h] - committed[h] for h in usable)


def test_the_index_refuses_what_no_host_can_hold() -> None:
    """Committing past U, or giving back more than was taken, is our mistake and stops the run."""
    index = HostIndex(empty_hosts(2, 10))
    index.commit(1, 10)
    with pytest.raises(InvariantError, match="PLACE-1"):
        index.commit(1, 1)
    with pytest.raises(InvariantError, match="PLACE-1"):
        index.release(0, 1)
    with pytest.raises(InvariantError, match="PLACE-0"):
        HostIndex([view(1, 1, 0), view(1, 1, 0)])


@pytest.mark.parametrize("name", PACKERS)
def test_auto_takes_the_least_number_when_it_fits(name: str) -> None:
    """Six halves fit three hosts to the page; nothing at all still gets a host."""
    policy = make_policy(name)
    assert auto_host_count(stays([50] * 6, 60), 100, policy) == HostCount(3, 0)
    assert auto_host_count([], 100, policy) == HostCount(1, 0)


@pytest.mark.parametrize("name", PACKERS)
def test_auto_adds_one_host_at_a_time(name: str) -> None:
    """Fifteen of 60 pages want nine hosts by their sum, ten by 10 % more, fifteen in truth: the rest is left over."""
    policy = make_policy(name)
    assert auto_host_count(stays([60] * 15), 100, policy) == HostCount(10, 5)
    # 20 x 51 and 20 x 46 pages: 1,940 pages are 20 hosts of 100 by their sum, and 51 + 46 fit one host.
    assert auto_host_count(stays([51, 46] * 20, 51), 100, policy) == HostCount(20, 0)
    # The same in another order (small ones paired first) leaves ten hosts to find for the large: past the 10 %.
    needs = [46] * 20 + [51] * 20
    count = auto_host_count(stays(needs, 51), 100, policy)
    assert count == HostCount(22, 8)
    assert unplaced(stays(needs, 51), 30, 100, policy) == 0


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_auto_counts_who_is_there_at_one_instant(name: str) -> None:
    """Ten of 60 pages one after the other, each gone when the next comes, want one host; two at a time want two."""
    policy = make_policy(name)
    one_by_one = [Stay(ask, 10 * i, 10 * (i + 1)) for i, ask in enumerate(asks([60] * 10))]
    assert most_needed(one_by_one) == 60
    assert auto_host_count(one_by_one, 100, policy) == HostCount(1, 0)
    two = [Stay(ask, 10 * i, 10 * (i + 2)) for i, ask in enumerate(asks([60] * 10))]
    assert most_needed(two) == 120
    assert auto_host_count(two, 100, policy) == HostCount(2, 0)
    assert unplaced(two, 1, 100, policy) == 5


@given(
    needs=st.lists(st.integers(1, 100), min_size=1, max_size=60),
    name=st.sampled_from(sorted(POLICIES)),
)
def test_auto_never_takes_fewer_than_the_sum_nor_more_than_ten_percent(needs: list[int], name: str) -> None:
    """The stated bounds for any list of domains, and the count left over is the one the policy leaves."""
    policy = make_policy(name)
    least = -(-sum(needs) // 100)
    count = auto_host_count(stays(needs), 100, policy)
    assert least <= count.hosts <= least + -(-least // 10)
    assert unplaced(stays(needs), count.hosts, 100, policy) == count.unplaced
