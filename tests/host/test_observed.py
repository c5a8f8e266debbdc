"""What a host is seen to do: sums of demand on a grid equal the demands one by one, however they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.host.observed import STRETCH, DemandGrid, Level
from podcluster.records.demand import Demand

GRID_NS = 300 * 10**9


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    """Curves whose samples are on the grid, on whole seconds, or anywhere; some too steep for 64 bits."""
    count = draw(st.integers(1, 12))
    unit = draw(st.sampled_from([GRID_NS, 10**9, 7]))
    steps = [0] + [1 if unit == GRID_NS else draw(st.integers(1, 2000)) for _ in range(count - 1)]
    pages = draw(st.lists(st.integers(0, 1 << 28), min_size=count, max_size=count))
    return Demand(unit * np.cumsum(steps, dtype=np.int64), np.array(pages, dtype=np.int64))


@given(demands(), st.integers(0, 20 * GRID_NS), st.sampled_from([1, 10**9, GRID_NS]), st.integers(1, 20))
def test_demand_at_each_instant(demand: Demand, first_ns: int, step_ns: int, count: int) -> None:
    """`at_each` is `at`, instant by instant."""
    found = demand.at_each(first_ns, step_ns, count)
    assert found.tolist() == [demand.at(first_ns + i * step_ns) for i in range(count)]


@given(
    st.lists(st.tuples(demands(), st.integers(0, 3 * STRETCH), st.integers(0, 3 * STRETCH)), max_size=4),
    st.integers(0, STRETCH),
)
def test_sums_on_the_grid(guests: list[tuple[Demand, int, int]], every: int) -> None:
    """[OB-1] Guests come and go at instants; what is asked for in pieces is the sum of those that are there."""
    grid = DemandGrid(GRID_NS)
    found: list[int] = []
    changes = {0, 3 * STRETCH}
    for _, come, go in guests:
        changes |= {come, go}
    at = 0
    for until in sorted(changes):
        while at < until:
            some = grid.sums(at, min(until - at, every + 1))
            found += some.tolist()
            at += len(some)
        for key, (demand, come, go) in enumerate(guests):
            if come == until < go:
                grid.add(key, demand, come * GRID_NS - 1)
            if go == until > come:
                grid.remove(key, go)
    there = [sum(demand.at(i * GRID_NS) for demand, come, go in guests if come <= i < go) for i in range(3 * STRETCH)]
    assert found == there


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=9), st.integers(0, 50), st.integers(1, 50))
def test_levels_at_many_instants(values: list[int], first_ns: int, step_ns: int) -> None:
    """`at_each` leaves what `at` at each instant leaves."""
    one, many = Level(), Level()
    for i, value in enumerate(values):
        one.at(first_ns + i * step_ns, value)
    many.at_each(first_ns, step_ns, np.array(values, dtype=np.int64))
    assert one == many
    assert one.mean(first_ns + 100 * step_ns) == pytest.approx(many.mean(first_ns + 100 * step_ns), rel=0)


@given(
    st.integers(0, 1 << 40),
    st.lists(st.tuples(st.integers(0, 100), st.integers(1, 999)), min_size=1, max_size=9),
    st.integers(0, 9),
    st.sampled_from([1, -1]),
)
def test_steps_one_way_add_up(value: int, steps: list[tuple[int, int]], cut: int, sign: int) -> None:
    """`shift` leaves what `at` at each instant leaves, told in two parts of which either may begin before the other."""
    one, many = Level(value, value, value), Level(value, value, value)
    for t_ns, more in sorted(steps):
        one.at(t_ns, one.now + sign * more)
    for part in (steps[:cut], steps[cut:]):
        if part:
            moment = sum(t_ns * more for t_ns, more in part)
            many.shift(max(part)[0], sign * sum(more for _, more in part), sign * moment)
    assert one == many
