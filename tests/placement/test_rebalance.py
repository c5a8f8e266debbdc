"""Does each move bring the fullest and the emptiest host closer, until they are close enough?"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from podcluster.placement.groups import Bar
from podcluster.placement.rebalance import Move, rebalance
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView

NEED = Rules()


def host(host_id: int, usable: int, committed: int, promised: int = 0) -> HostView:
    """A host of which only memory matters."""
    return HostView(host_id, usable, committed, promised, 0, 0, 0)


def ask(domain_id: int, need: int, maxmem: int | None = None) -> Ask:
    """A domain, promised `maxmem` or what it needs."""
    return Ask(need, maxmem or need, domain_id=domain_id)


def test_the_largest_that_does_not_overshoot_goes() -> None:
    """90 and 10 of 100: of 50, 40, 30 and 20 the one of 40 leaves 50 against 50; then nothing is left to do."""
    hosts = [host(0, 100, 90), host(1, 100, 10)]
    domains = {0: [ask(4, 20), ask(1, 50), ask(2, 40), ask(3, 30)], 1: []}
    assert rebalance(hosts, domains, NEED, 0.1, 10) == [Move(2, 0, 1, 0.9, 0.1)]


def test_shares_count_and_not_pages() -> None:
    """300 of 1000 is emptier than 50 of 100."""
    hosts = [host(0, 1000, 300), host(1, 100, 50)]
    (move,) = rebalance(hosts, {1: [ask(7, 10)], 0: [ask(8, 10)]}, NEED, 0.1, 1)
    assert (move.domain_id, move.sender, move.receiver) == (7, 1, 0)


def test_a_gap_that_is_allowed_stays() -> None:
    """And one host alone has nobody to send to."""
    hosts = [host(0, 100, 60), host(1, 100, 50)]
    assert rebalance(hosts, {0: [ask(1, 5)]}, NEED, 0.1, 10) == []
    assert rebalance(hosts[:1], {0: [ask(1, 5)]}, NEED, 0.0, 10) == []


def test_hosts_are_as_full_as_placement_counts() -> None:
    """Alike by need, 90 and 10 of 100 by maxmem, 70 and 30 by half of each: by need nobody moves, by maxmem who is
    promised 40, for 50 is too much; by halves the three count for 27.5, 22.5 and 20, of which 20 is not too much.
    """
    hosts = [host(0, 100, 50, 90), host(1, 100, 50, 10)]
    domains = {0: [ask(1, 5, 50), ask(2, 5, 40), ask(3, 20)]}
    assert rebalance(hosts, domains, NEED, 0.1, 1) == []
    assert rebalance(hosts, domains, Rules("maxmem"), 0.1, 1) == [Move(2, 0, 1, 0.9, 0.1)]
    assert rebalance(hosts, domains, Rules("blend", maxmem_percent=50), 0.1, 1) == [Move(3, 0, 1, 0.7, 0.3)]
    # Targets and demand are those that hosts last had.
    seen = [replace(one, target_pages=t, demanded_pages=d) for one, t, d in zip(hosts, (50, 80), (80, 40), strict=True)]
    assert rebalance(seen, {0: [ask(1, 5)], 1: [ask(2, 5)]}, Rules("target"), 0.1, 1) == [Move(2, 1, 0, 0.8, 0.5)]
    assert rebalance(seen, {0: [ask(1, 5)], 1: [ask(2, 5)]}, Rules("demand"), 0.1, 1) == [Move(1, 0, 1, 0.8, 0.4)]


def test_who_may_not_go_is_passed_over() -> None:
    """By rules of any start: more maxmem than the receiver has, more than a ratio lets it take; and by strict groups,
    two of one group included that would meet there.
    """
    hosts = [host(0, 100, 90, 90), host(1, 60, 0)]
    domains = {0: [ask(1, 30, 61), ask(2, 30, 50), ask(3, 30, 29)]}
    assert rebalance(hosts, domains, NEED, 0.1, 1)[0].domain_id == 2
    assert rebalance(hosts, domains, Rules(memory_ratio=Fraction("0.4")), 0.1, 1) == []
    bars = {2: Bar(frozenset({1}))}
    assert rebalance(hosts, domains, NEED, 0.1, 1, bars)[0].domain_id == 3
    two = {0: [ask(1, 10), ask(2, 10), ask(3, 5)]}
    apart = {1: Bar(frozenset(), "db"), 2: Bar(frozenset(), "db")}
    assert [move.domain_id for move in rebalance(hosts, two, NEED, 0.1, 2)] == [1, 2]
    assert [move.domain_id for move in rebalance(hosts, two, NEED, 0.1, 2, apart)] == [1, 3]


@given(
    loads=st.lists(st.lists(st.integers(1, 40), max_size=8), min_size=1, max_size=6),
    usable=st.lists(st.integers(320, 900), min_size=6, max_size=6),
    gap=st.floats(0, 0.5),
    most=st.integers(1, 30),
)
def test_moves_bring_hosts_closer(loads: list[list[int]], usable: list[int], gap: float, most: int) -> None:
    """Nobody moves twice, nobody is overfilled, the spread never grows, and what stops it is what should."""
    hosts = [host(k, usable[k], sum(load)) for k, load in enumerate(loads)]
    domains = {k: [ask(100 * k + i, need) for i, need in enumerate(load)] for k, load in enumerate(loads)}
    need_of = {one.domain_id: one.need_pages for load in domains.values() for one in load}
    moves = rebalance(hosts, domains, NEED, gap, most)
    assert len(moves) <= most
    assert len({move.domain_id for move in moves}) == len(moves)
    shares = {one.host_id: one.committed_pages / one.usable_pages for one in hosts}
    for move in moves:
        assert shares[move.sender] - shares[move.receiver] > gap
        assert (shares[move.sender], shares[move.receiver]) == (max(shares.values()), min(shares.values()))
        before = max(shares.values()) - min(shares.values())
        committed = {k: round(shares[k] * usable[k]) for k in shares}
        committed[move.sender] -= need_of[move.domain_id]
        committed[move.receiver] += need_of[move.domain_id]
        shares = {k: committed[k] / usable[k] for k in shares}
        assert committed[move.receiver] <= usable[move.receiver]
        assert max(shares.values()) - min(shares.values()) <= before
        assert shares[move.sender] >= shares[move.receiver]
