"""XAPI's choice of a host (D6): categories by hand, the draw exactly and drawn, the policy on a pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.placement import weigh
from podcluster.placement.groups import Groups, place_indexed
from podcluster.placement.groups import place as place_by_ranks
from podcluster.placement.hosts import empty_hosts
from podcluster.placement.index import HostIndex
from podcluster.placement.xapi import Candidate, Sums, Xapi, categories, choose, draw, possible
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.rng import stream


def test_how_possible_a_host_is() -> None:
    """D6.1 (4): 1000 above all maxima, -1 below the minima, thousandths between, rounded down."""
    assert possible(Sums(40, 99, 40, 10)) == 1000
    assert possible(Sums(39, 99, 40, 10)) == 966
    assert possible(Sums(10, 99, 40, 10)) == 0
    assert possible(Sums(9, 99, 40, 10)) == -1


def test_each_host_is_in_its_first_category() -> None:
    """D6.1: one host of each kind, and one that cannot bear the VM at all."""
    hosts = {
        1: Sums(avail=50, static_max=60, dynamic_max=60, dynamic_min=55),  # cannot
        2: Sums(avail=50, static_max=60, dynamic_max=60, dynamic_min=40),  # possible: 500
        3: Sums(avail=50, static_max=60, dynamic_max=45, dynamic_min=40),  # probable: 5
        4: Sums(avail=50, static_max=30, dynamic_max=30, dynamic_min=10),  # definite: 20
        5: Sums(avail=50, static_max=60, dynamic_max=60, dynamic_min=40),
    }
    assert categories(hosts) == [[], [Candidate(20, 4)], [Candidate(5, 3)], [Candidate(500, 2), Candidate(500, 5)]]
    assert categories(hosts, preferred=5)[0] == [Candidate(500, 5)]
    assert categories(hosts, preferred=5)[3] == [Candidate(500, 2)]
    assert categories(hosts, preferred=1)[0] == []


def test_a_preferred_host_is_taken_if_it_is_possible() -> None:
    """D6.1 (1): the fullest of three for who prefers it, as long as the minima fit; then, and for others, a draw."""
    policy = Xapi(seed=7)
    views = [HostView(i, 1000, committed, committed, 0, 0, 0) for i, committed in enumerate((0, 10, 900))]
    for place in (policy.place, lambda ask, views: policy.place_indexed(ask, HostIndex(views))):
        asks = [Ask(100, 900, 0, domain_id) for domain_id in range(50)]
        assert {place(replace(ask, preferred_host=2), views) for ask in asks} == {2}
        assert {place(ask, views) for ask in asks} == {0, 1}
        larger = [replace(ask, need_pages=101, preferred_host=2) for ask in asks]
        assert {place(ask, views) for ask in larger} == {0, 1}
        assert {place(replace(ask, preferred_host=9), views) for ask in asks} == {0, 1}, "a host that is not there"


def test_a_preferred_host_is_ahead_of_its_group() -> None:
    """D6.4: one of a group on host 1, none on host 0: another that prefers host 1 goes there, unless groups are
    strict.
    """
    views = [HostView(i, 1000, 0, 0, 0, 0, 0) for i in (0, 1)]
    ask = Ask(10, 10, 0, 7, anti_affinity="db*")
    for strict, expected in ((False, 1), (True, 0)):
        groups = Groups(strict=strict)
        groups.enter(1, ask)
        for one, host_id in ((ask, 0), (replace(ask, preferred_host=1), expected)):
            assert place_by_ranks(Xapi(), one, views, groups) == host_id
            assert place_indexed(Xapi(), one, HostIndex(views), groups) == host_id


def test_the_bias_against_the_coordinator() -> None:
    """D6.2: (value - 1) / 2 where it is definite or probable, nothing where it is only possible."""
    hosts = {0: Sums(50, 10, 10, 5), 1: Sums(50, 25, 25, 5)}
    assert categories(hosts)[1] == [Candidate(40, 0), Candidate(25, 1)]
    assert categories(hosts, coordinator=0)[1] == [Candidate(25, 1), Candidate(19, 0)]
    only_possible = {0: Sums(50, 90, 90, 5), 1: Sums(40, 90, 90, 5)}
    assert categories(only_possible, coordinator=0) == categories(only_possible)


EXAMPLE = (0.5, 0.2071, 0.1589, 0.1340)


def test_the_distribution_of_picks_exactly() -> None:
    """D6.5, n = 4: pick k for u in [sqrt(k/4), sqrt((k+1)/4)): 0.5, 0.2071, 0.1589, 0.1340."""
    ends = [sqrt(k / 4) for k in range(5)]
    assert [round(b - a, 4) for a, b in pairwise(ends)] == list(EXAMPLE)
    for k, (a, b) in enumerate(pairwise(ends)):
        assert draw(4, a + 1e-9) == draw(4, (a + b) / 2) == draw(4, b - 1e-9) == k


def test_the_distribution_of_picks_drawn() -> None:
    """The policy on four hosts of descending room, 4000 domains: each share within four standard errors."""
    views = [HostView(i, 1000, 100 * i, 100 * i, 0, 0, 0) for i in range(4)]
    policy = Xapi(seed=11, coordinator_bias=False)
    picks = Counter(policy.place(Ask(50, 50, 0, domain_id), views) for domain_id in range(4000))
    for host_id, share in enumerate(EXAMPLE):
        assert abs(picks[host_id] / 4000 - share) <= 4 * sqrt(share * (1 - share) / 4000)


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_one_of_the_hosts(count: int, u: float) -> None:
    """Index trunc(n u^2) lies in 0 .. n - 1."""
    assert 0 <= draw(count, u) < count


def test_rejected_picks_are_left_out() -> None:
    """D6.3: the draw repeats without them, then the next category; nothing left is None."""
    found = [[], [Candidate(9, 1), Candidate(8, 2)], [Candidate(7, 3)]]
    for passing in (1, 2, 3):
        assert choose(found, lambda: 0.9, passing.__eq__) == passing
    assert choose(found, lambda: 0.9, lambda _: False) is None
    assert choose(found, lambda: 0.0, lambda _: True) == 1
    assert choose(found, lambda: 0.8, lambda _: True) == 2


def test_a_draw_is_named_by_its_domain() -> None:
    """The same domain meets the same luck, whoever was placed before."""
    views = empty_hosts(8, 10_000, 72)
    first = [Xapi(seed=3).place(Ask(10, 20, 5, i), views) for i in range(50)]
    assert [Xapi(seed=3).place(Ask(10, 20, 5, i), views) for i in reversed(range(50))] == first[::-1]
    assert [Xapi(seed=4).place(Ask(10, 20, 5, i), views) for i in range(50)] != first
    assert first[0] in range(8) and len(set(first)) > 4
    assert stream(3, "placement", 0).random() == stream(3, "placement", 0).random()


def test_a_full_pool_answers_with_both_errors() -> None:
    """E13, D6.5: no host, and what a start that does not look at memory would fail with."""
    answer = Xapi().place(Ask(512 * 256, 512 * 256), [HostView(0, 1024 * 256, 600 * 256, 0, 0, 0, 0)])
    assert isinstance(answer, Rejected)
    assert answer.cause == "no_host"
    assert answer.reason.startswith("NO_HOSTS_AVAILABLE: ")
    assert answer.reason.endswith("HOST_NOT_ENOUGH_FREE_MEMORY: 512 MiB needed, 424 available")


@pytest.mark.parametrize("overcommit", [1, 2])
def test_definite_hosts_come_before_possible_ones(overcommit: int) -> None:
    """A pool that fills: as long as a host can bear all maxima, hosts that cannot are not chosen."""
    index = HostIndex(empty_hosts(3, 1000, 72))
    policy = Xapi(seed=5)
    promised = Counter[int]()
    for domain_id in range(60):
        ask = Ask(100 // overcommit + 5, 100, 5, domain_id)
        host_id = policy.place_indexed(ask, index)
        if isinstance(host_id, Rejected):
            break
        room = {h: 1000 - 72 - 5 * n - 100 * n for h, n in ((h, promised[h]) for h in range(3))}
        if any(left >= 105 for left in room.values()):
            assert room[host_id] >= 105
        promised[host_id] += 1
        index.place(host_id, ask)
    # U less the reserve, 928 pages: eight of 105, or sixteen of 55.
    assert promised == Counter({h: 928 // (100 // overcommit + 5) for h in range(3)})


@given(values=st.lists(st.sampled_from([weigh.NO_MEMBER, -1, 0, 1, 5, 9, 1000]) | st.integers(0, 50), max_size=80))
def test_whom_a_rank_hits_is_who_stands_there_when_all_are_sorted(values: list[int]) -> None:
    """Selection without sorting, at every rank, against the sorted list."""
    members = sorted((-value, k) for k, value in enumerate(values) if value != weigh.NO_MEMBER)
    given_values = np.array(values, dtype=np.int64)
    for rank, (_, k) in enumerate(members):
        assert weigh.nth_largest(given_values, np.empty_like(given_values), rank) == k
