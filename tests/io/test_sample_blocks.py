"""Rows of samples that are not there until somebody looks: are they the same as if they had been all along?"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.records.samples import MachineSampleBlock
from podcluster.records.values import Int64Array

COLUMNS = len(MachineSampleBlock.NAMES)


@dataclass(frozen=True)
class Machines:
    """So many machines of a host at instants; a value says which it is of."""

    host_id: int
    rows: int
    first: int
    instants: int

    @property
    def t_ns(self) -> Int64Array:
        return 300 * np.arange(self.first, self.first + self.instants, dtype=np.int64)

    @property
    def steady(self) -> Int64Array:
        numbers = np.arange(COLUMNS)[:, None] * 100 + np.arange(self.rows)
        numbers[1], numbers[2] = self.host_id, np.arange(self.rows)
        return numbers

    def changing(self, found: Int64Array) -> None:
        found[:] = self.t_ns * 1000 + 10 * np.arange(self.rows)[:, None]


def there(source: Machines) -> MachineSampleBlock:
    """The same rows, one by one."""
    between = range(3, COLUMNS - 1)
    rows = [
        [t_ns, source.host_id, machine, *(100 * column + machine for column in between), t_ns * 1000 + 10 * machine]
        for t_ns in source.t_ns.tolist()
        for machine in range(source.rows)
    ]
    return MachineSampleBlock(np.array(rows, np.int64).T.copy())


sources = st.lists(
    st.builds(
        Machines, host_id=st.just(0), rows=st.integers(1, 4), first=st.integers(1, 2), instants=st.integers(1, 7)
    ),
    min_size=1,
    max_size=4,
).map(lambda found: [replace(one, host_id=k) for k, one in enumerate(found)])


@settings(max_examples=200, deadline=None)
@given(hosts=sources, alike=st.booleans(), rows=st.integers(1, 40))
def test_pieces_in_order_are_the_whole(hosts: list[Machines], alike: bool, rows: int) -> None:
    """Whether all hosts have rows at the same instants or not, however many make a piece, and whoever has looked."""
    if alike:
        hosts = [replace(one, first=hosts[0].first, instants=hosts[0].instants) for one in hosts]
    wanted = np.concatenate([there(one).columns for one in hosts], axis=1)
    wanted = wanted[:, np.lexsort((wanted[2], wanted[1], wanted[0]))]

    def block() -> MachineSampleBlock:
        return MachineSampleBlock.by_instant([MachineSampleBlock.from_source(one) for one in hosts])

    assert len(block()) == wanted.shape[1]
    assert np.array_equal(block().columns, wanted)
    pieces = list(block().pieces(rows))
    assert np.array_equal(np.concatenate([one.columns for one in pieces], axis=1), wanted)
    at_an_instant = sum(one.rows for one in hosts)
    assert max(len(one) for one in pieces) <= max(rows, at_an_instant)
    assert not alike or all(one.in_order for one in pieces)
    seen = block()
    assert len(seen.columns) and [len(one) for one in seen.pieces(rows)][:-1] == [rows] * ((len(seen) - 1) // rows)


@pytest.mark.parametrize("hosts", [(1, 0), (0, 0)])
def test_what_does_not_ascend_is_not_said_to(hosts: tuple[int, int]) -> None:
    """Hosts that come in another order, and rows of two of them that are the same machine's."""
    sources = [MachineSampleBlock.from_source(Machines(host_id, 2, 1, 3)) for host_id in hosts]
    assert not any(one.in_order for one in MachineSampleBlock.by_instant(sources).pieces(4))


@pytest.mark.parametrize("look", [lambda one: one, lambda one: one[:2], lambda one: pickle.loads(pickle.dumps(one))])
def test_whoever_looks_finds_the_same(look: Callable[[MachineSampleBlock], MachineSampleBlock]) -> None:
    """A row, a slice, or what arrives elsewhere."""
    source = Machines(5, 3, 1, 4)
    block = MachineSampleBlock.from_source(source)
    assert look(block) == look(there(source)) and block[7] == there(source)[7]
