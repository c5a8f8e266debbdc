"""Is what a guest holds the working set that the model says: the most it wanted in a window?"""

import numpy as np
import pytest

from podcluster.host.demand_window import DemandWindow
from podcluster.records.demand import Demand
from podcluster.units import NS_PER_S
from tests.statistical.replicas import check

SAMPLES = 2000
TOP = 1_000_000


@pytest.mark.parametrize("window", [1, 4, 12, 96])
def test_what_is_held_of_independent_samples(window: int) -> None:
    """G3: of samples that are uniform on [0, 1), the largest of k + 1 is (k + 1) / (k + 2) on average."""

    def one(rng: np.random.Generator) -> float:
        demand = Demand(
            np.arange(SAMPLES, dtype=np.int64) * 300 * NS_PER_S, rng.integers(0, TOP, SAMPLES, dtype=np.int64)
        )
        curve = DemandWindow(demand, 0, window * 300 * NS_PER_S, 10**9)
        settled = (curve.t >= window * 300 * NS_PER_S) & (curve.t <= demand.t_ns[-1])
        return float(curve.h[settled].mean()) / TOP

    check(f"window {window}", one, (window + 1) / (window + 2))


def test_how_often_a_guest_that_keeps_all_needs_more() -> None:
    """The n-th of independent samples is the largest so far with probability 1 / n: the harmonic number of records."""

    def one(rng: np.random.Generator) -> float:
        demand = Demand(np.arange(SAMPLES, dtype=np.int64), rng.permutation(SAMPLES).astype(np.int64))
        curve = DemandWindow(demand, 0, SAMPLES, 10**9)
        so_far = curve.h[curve.t < SAMPLES]
        return 1 + int(np.count_nonzero(np.diff(so_far)))

    check("records", one, float(np.sum(1 / np.arange(1, SAMPLES + 1))))
