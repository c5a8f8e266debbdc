"""Lower bounds on hosts: worked examples, and on drawn instances against the best packing found by search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.placement.bounds import Bounds, bounds, l1, l2, lp_bound


def best(vectors: Sequence[tuple[int, ...]], capacities: Sequence[int]) -> int:
    """Fewest hosts, by trying every placement: each item on every host in use, or on a new one."""
    items = sorted(vectors, reverse=True)
    least = len(items)

    def go(i: int, hosts: list[list[int]]) -> None:
        nonlocal least
        if len(hosts) >= least:
            return
        if i == len(items):
            least = len(hosts)
            return
        for host in hosts:
            if all(h + s <= c for h, s, c in zip(host, items[i], capacities, strict=True)):
                host[:] = [h + s for h, s in zip(host, items[i], strict=True)]
                go(i + 1, hosts)
                host[:] = [h - s for h, s in zip(host, items[i], strict=True)]
        go(i + 1, [*hosts, list(items[i])])

    go(0, [])
    return least


def test_sums() -> None:
    """L1 by hand, at and past the edge."""
    assert [l1(sizes, 10) for sizes in ([], [10], [5, 5], [5, 5, 1], [1] * 31)] == [0, 1, 1, 2, 4]


def test_l2_by_hand() -> None:
    """C = 10. Three of 6: each alone. 7, 7, 4, 4: K = 4 puts the 7s alone, the 4s fill one more; sum says 3, too. Of
    6, 6, 6, 4, 4: K = 4 lets 4 join 6. Of 7, 7, 7, 4: K = 4 makes four.
    """
    assert l2([6, 6, 6], 10) == 3 and l1([6, 6, 6], 10) == 2
    assert l2([7, 7, 4, 4], 10) == 3
    assert l2([6, 6, 6, 4, 4], 10) == 3
    assert l2([7, 7, 7, 4], 10) == 4 and l1([7, 7, 7, 4], 10) == 3
    assert l2([], 10) == 0


def test_the_lp_sees_what_neither_sum_nor_size_does() -> None:
    """C = 100, nine of 34: two to a host, so 4.5 hosts; L1 says 4, L2 sees no size above C/2 and says 4."""
    sizes = [34] * 9
    assert (l1(sizes, 100), l2(sizes, 100)) == (4, 4)
    assert lp_bound([(size,) for size in sizes], [100]) == 5
    assert bounds([(size,) for size in sizes], [100], lp=True) == Bounds(4, 4, 5)
    assert bounds([(size,) for size in sizes], [100], lp=True).hosts == 5
    assert bounds([(size,) for size in sizes], [100]).hosts == 4


def test_vectors_are_bounded_in_each_dimension_and_together() -> None:
    """Memory and vCPUs: by memory two hosts, by vCPUs three; and items that fit in neither dimension's company."""
    assert bounds([(5, 8), (5, 8), (5, 8), (5, 1)], [10, 10]) == Bounds(3, 3)
    # Two kinds that exclude each other: (6, 1) with (1, 6) fits, (6, 1) twice does not, nor (5, 5) with (6, 1).
    mixed = [(6, 1), (6, 1), (1, 6), (1, 6), (5, 5)]
    assert lp_bound(mixed, [10, 10]) == best(mixed, [10, 10]) == 3


def test_nothing_needs_no_host() -> None:
    """No requests, with and without the LP."""
    assert bounds([], [10]) == Bounds(0, 0)
    assert bounds([], [10], lp=True) == Bounds(0, 0, 0)


def test_what_no_host_can_hold_is_counted_apart() -> None:
    """C = 10: 11 alone is one host by every bound, though its sum says two; beside 6 and 6 there are three; one that is
    too large in one dimension only is too large.
    """
    assert bounds([(11,)], [10], lp=True) == Bounds(1, 1, 1)
    assert bounds([(11,), (25,), (6,), (6,)], [10], lp=True) == Bounds(4, 4, 4)
    assert lp_bound([(1, 11), (5, 5), (5, 5)], [10, 10]) == 2
    assert bounds([(1, 11), (5, 5), (5, 6)], [10, 10], lp=True) == Bounds(3, 3, 3)


def test_the_solver_leaves_stdout_alone() -> None:
    """Pages and vCPUs of which HiGHS says that it mends a solution: a process prints what it prints itself."""
    script = (
        "from podcluster.placement.bounds import lp_bound\n"
        "print('before')\n"
        "sizes = [2151468, 9773630, 8886643, 19529719, 10612742, 24876005]\n"
        "print(lp_bound(list(zip(sizes, [3, 14, 8, 14, 5, 1])), [31000001, 24]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("before\n3\n", "")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 16), st.integers(1, 16)), min_size=1, max_size=7))
def test_no_bound_is_above_the_best_where_some_are_too_large(vectors: list[tuple[int, int]]) -> None:
    """Drawn vectors of which some fit no host, each of them alone on one that is larger: by search."""
    found = bounds(vectors, [12, 12], lp=True)
    assert found.lp is not None and found.l1 <= min(found.l2, found.lp)
    assert max(found.l2, found.lp) <= best(vectors, [12, 12])


@given(st.lists(st.integers(1, 30), max_size=9))
def test_in_one_dimension_no_bound_is_above_the_best(sizes: list[int]) -> None:
    """Drawn sizes, C = 30, by search: L1 <= L2 <= best, L2 at least two thirds of it, the LP between L1 and best."""
    least = best([(size,) for size in sizes], [30])
    assert l1(sizes, 30) <= l2(sizes, 30) <= least
    assert 3 * l2(sizes, 30) >= 2 * least
    assert l1(sizes, 30) <= lp_bound([(size,) for size in sizes], [30]) <= least if sizes else least == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=7))
def test_in_two_dimensions_no_bound_is_above_the_best(vectors: list[tuple[int, int]]) -> None:
    """Drawn vectors by search; stopped after any number of columns the LP is still a bound."""
    least = best(vectors, [12, 12])
    found = bounds(vectors, [12, 12], lp=True)
    assert found.l1 <= found.l2 <= least
    assert found.lp is not None and found.l1 <= found.lp <= least
    assert lp_bound(vectors, [12, 12], most_columns=1) <= found.lp


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_l2_is_the_largest_over_every_k(sizes: list[int]) -> None:
    """Against its definition, K by K."""

    def of(k: int, capacity: int) -> int:
        alone = [s for s in sizes if s > capacity - k]
        large = [s for s in sizes if capacity / 2 < s <= capacity - k]
        small = [s for s in sizes if k <= s <= capacity / 2]
        rest = sum(small) - (len(large) * capacity - sum(large))
        return len(alone) + len(large) + max(0, -(-rest // capacity))

    for capacity in (60, 61):
        assert l2(sizes, capacity) == max(of(k, capacity) for k in range(capacity // 2 + 1))
