"""Is what is sent to a host the same when it arrives, in as few bytes as it may take?"""

from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
import pytest

from podcluster.records.demand import Demand
from podcluster.records.hosts import HostView
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import HostReport
from podcluster.records.rows import EventRow
from podcluster.records.samples import SampleBlock
from podcluster.units import NS_PER_S

GRID = np.arange(1000, dtype=np.int64) * 300 * NS_PER_S
DRAWN = np.random.default_rng(1).integers(0, 1 << 31, 1000)


@pytest.mark.parametrize(
    ("t_ns", "pages", "most_bytes"),
    [
        (GRID, DRAWN, 4_300),
        (GRID[:1], DRAWN[:1], 400),
        (GRID[:2], DRAWN[:2], 400),
        (GRID, DRAWN, 8_400),  # with one of 2^31
        (GRID, np.full(1000, 1 << 40), 8_400),
        (np.append(GRID[:-1], GRID[-1] + 1), DRAWN, 12_500),
        (np.array([0, 5, 7], np.int64), DRAWN[:3], 400),
    ],
)
def test_a_demand_arrives_as_it_was_sent(t_ns: np.ndarray, pages: np.ndarray, most_bytes: int) -> None:
    """To the nanosecond and the page, in arrays that kernels take as they are."""
    pages = pages.copy()
    if most_bytes == 8_400:
        pages[0] = 1 << 31
    sent = pickle.dumps(Demand(t_ns, pages), pickle.HIGHEST_PROTOCOL)
    assert len(sent) <= most_bytes
    found = pickle.loads(sent)
    for got, wanted in ((found.t_ns, t_ns), (found.pages, pages)):
        assert got.dtype == np.int64 and got.flags.writeable and got.flags.c_contiguous
        assert np.array_equal(got, wanted)


def test_instants_that_many_share_are_there_once() -> None:
    """Machines of one grid need not each have it."""
    first, second = (pickle.loads(pickle.dumps(Demand(GRID.copy(), DRAWN))) for _ in range(2))
    assert first.t_ns is second.t_ns and first.pages is not second.pages


def test_what_hosts_say_arrives_as_it_was_said() -> None:
    """Every field of a view in its place, and rows in a report."""
    view = HostView(*range(15))
    samples = SampleBlock(np.arange(2 * len(SampleBlock.NAMES), dtype=np.int64).reshape(-1, 2))
    report = HostReport(3, 10, view, samples=samples, events=(EventRow(1, 2, 3, 4, "place", "text"),), stayed=(5,))
    assert pickle.loads(pickle.dumps(report, pickle.HIGHEST_PROTOCOL)) == report
    request = MachineRequest(1, 2, "m", "linux", 3, 4, 5, 6, None, Demand.flat(7), hold_ns=8)
    found = pickle.loads(pickle.dumps(request, pickle.HIGHEST_PROTOCOL))
    names = [one.name for one in fields(MachineRequest) if one.name != "demand"]
    assert [getattr(found, name) for name in names] == [getattr(request, name) for name in names]
    assert found.demand.at(0) == 7
