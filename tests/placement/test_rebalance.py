"""Does each move bring the fullest and the emptiest host closer, until they are close enough?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podcluster.placement.rebalance import Filled, Move, rebalance


def test_the_largest_that_does_not_overshoot_goes() -> None:
    """90 and 10 of 100: of 50, 40, 30 and 20 the one of 40 leaves 50 against 50; then nothing is left to do."""
    hosts = [Filled(0, 100, 90), Filled(1, 100, 10)]
    domains = {0: [(4, 20), (1, 50), (2, 40), (3, 30)], 1: []}
    assert rebalance(hosts, domains, 0.1, 10) == [Move(2, 0, 1, 0.9, 0.1)]


def test_shares_count_and_not_pages() -> None:
    """300 of 1000 is emptier than 50 of 100."""
    hosts = [Filled(0, 1000, 300), Filled(1, 100, 50)]
    (move,) = rebalance(hosts, {1: [(7, 10)], 0: [(8, 10)]}, 0.1, 1)
    assert (move.domain_id, move.sender, move.receiver) == (7, 1, 0)


def test_a_gap_that_is_allowed_stays() -> None:
    """And one host alone has nobody to send to."""
    hosts = [Filled(0, 100, 60), Filled(1, 100, 50)]
    assert rebalance(hosts, {0: [(1, 5)]}, 0.1, 10) == []
    assert rebalance(hosts[:1], {0: [(1, 5)]}, 0.0, 10) == []


@given(
    loads=st.lists(st.lists(st.integers(1, 40), max_size=8), min_size=1, max_size=6),
    usable=st.lists(st.integers(320, 900), min_size=6, max_size=6),
    gap=st.floats(0, 0.5),
    most=st.integers(1, 30),
)
def test_moves_bring_hosts_closer(loads: list[list[int]], usable: list[int], gap: float, most: int) -> None:
    """Nobody moves twice, nobody is overfilled, the spread never grows, and what stops it is what should."""
    hosts = [Filled(k, usable[k], sum(load)) for k, load in enumerate(loads)]
    domains = {k: [(100 * k + i, need) for i, need in enumerate(load)] for k, load in enumerate(loads)}
    need_of = dict(one for load in domains.values() for one in load)
    moves = rebalance(hosts, domains, gap, most)
    assert len(moves) <= most
    assert len({move.domain_id for move in moves}) == len(moves)
    shares = {host.host_id: host.committed / host.usable for host in hosts}
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
