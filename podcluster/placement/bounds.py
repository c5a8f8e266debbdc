"""Hosts that no packing can do without: how far from the best a packing is at most.

What        `l1` and `l2` of sizes and one capacity; `lp_bound` of vectors; `bounds` of requests on equal hosts, each
            dimension for itself, the largest of all, and the LP over all dimensions together where asked for.
Units       Any one unit per dimension, integers: pages and vCPUs for hosts.
Symbols     C capacity   K a size, at most C/2
Bounds      L1   ceil(sum / C).
            L2   Martello and Toth (1990): for each K, what is above C - K is alone; what is above C/2 is in a host of
                 its own, too; what is at least K and not above C/2 fills the rest of these, and then whole hosts. At
                 least two thirds of the best packing.
            LP   Gilmore and Gomory's: fewest hosts, fractions allowed, of all ways to fill one. Columns are found by an
                 integer program (HiGHS); after each the Lagrangian bound of Farley holds, so that it may stop early.
Too large   What no host can hold has no packing. It is counted as a host of its own, and the rest is bounded as ever.
Departs     Groups are not in the bounds: keeping domains apart may need more hosts.
"""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.records.values import Int64Array

MOST_COLUMNS: Final = 400
SLACK: Final = 1e-6
"""Floating point in the LP never pushes a bound up: it is rounded up from so much below."""


class Bounds(NamedTuple):
    """Lower bounds on hosts; `lp` where it was asked for."""

    l1: int
    l2: int
    lp: int | None = None

    @property
    def hosts(self) -> int:
        """The best of them."""
        return max(self.l1, self.l2, self.lp or 0)


def l1(sizes: Sequence[int], capacity: int) -> int:
    """ceil(sum / C)."""
    return -(-sum(sizes) // capacity)


def l2(sizes: Sequence[int], capacity: int) -> int:
    """Martello and Toth's L2: the largest over K of what K says."""
    ascending = np.sort(np.asarray(sizes, dtype=np.int64))
    if len(ascending) == 0:
        return 0
    sums = np.concatenate([[0], np.cumsum(ascending)])
    half = int(np.searchsorted(ascending, capacity // 2, side="right"))  # those from here on are above C/2
    # K changes what it says only at a size, or at 0.
    ks = np.concatenate([[0], np.unique(ascending[:half])])
    small = np.searchsorted(ascending, ks, side="left")  # those from here on are at least K
    alone = np.maximum(half, np.searchsorted(ascending, capacity - ks, side="right"))
    filled = alone - half
    rest = filled * capacity - (sums[alone] - sums[half])
    spill = sums[half] - sums[small] - rest
    found = (len(ascending) - half) + np.maximum(0, -(-spill // capacity))
    return int(found.max())


def bounds(vectors: Sequence[Sequence[int]], capacities: Sequence[int], *, lp: bool = False) -> Bounds:
    """Of requests (a size per dimension each) on hosts of these capacities."""
    fitting = _fitting(vectors, capacities)
    alone = len(vectors) - len(fitting)
    if not fitting:
        return Bounds(alone, alone, alone if lp else None)
    columns = list(zip(*fitting, strict=True))
    pairs = list(zip(columns, capacities, strict=True))
    by_sum = alone + max(l1(sizes, capacity) for sizes, capacity in pairs)
    by_size = alone + max(l2(sizes, capacity) for sizes, capacity in pairs)
    return Bounds(by_sum, max(by_sum, by_size), lp_bound(vectors, capacities) if lp else None)


def lp_bound(vectors: Sequence[Sequence[int]], capacities: Sequence[int], most_columns: int = MOST_COLUMNS) -> int:
    """The LP bound over ways to fill a host, rounded up; the best that `most_columns` rounds could prove."""
    from scipy.optimize import linprog  # slow to import, and few runs ask for this

    fitting = _fitting(vectors, capacities)
    alone = len(vectors) - len(fitting)
    if not fitting:
        return alone
    kinds = Counter(tuple(vector) for vector in fitting)
    sizes = np.array(sorted(kinds), dtype=np.int64)
    demand = np.array([kinds[tuple(row)] for row in sizes.tolist()], dtype=np.int64)
    limits = np.asarray(capacities, dtype=np.int64)
    columns = _first_columns(sizes, demand, limits)
    best = 0.0
    for _ in range(most_columns):
        solved = linprog(np.ones(columns.shape[1]), A_ub=-columns, b_ub=-demand, method="highs")
        assert solved.fun is not None, "every kind has a column of its own: there is a solution"
        prices = np.maximum(0.0, -solved.ineqlin.marginals)
        fill, value = _dearest_fill(sizes, demand, limits, prices)
        # Farley: the prices, scaled so that no fill is worth more than 1, are a dual solution.
        best = max(best, float(prices @ demand) / max(value, 1.0))
        if value <= 1 + SLACK or ceil(best - SLACK) >= ceil(solved.fun - SLACK):
            break
        columns = np.column_stack([columns, fill])
    return alone + ceil(best - SLACK)


def _fitting(vectors: Sequence[Sequence[int]], capacities: Sequence[int]) -> list[Sequence[int]]:
    """Those that an empty host can hold."""
    return [one for one in vectors if all(size <= most for size, most in zip(one, capacities, strict=True))]


def _first_columns(sizes: Int64Array, demand: Int64Array, limits: Int64Array) -> Int64Array:
    """For each kind a host filled with it alone."""
    fits = np.array([min(int(c // s) for s, c in zip(row, limits, strict=True) if s > 0) if row.any() else 1 << 30
                     for row in sizes])  # fmt: skip
    return np.diag(np.minimum(demand, fits))


def _dearest_fill(
    sizes: Int64Array, demand: Int64Array, limits: Int64Array, prices: NDArray[np.float64]
) -> tuple[Int64Array, float]:
    """The fill of one host that is worth most at these prices, and an upper bound on what any is worth."""
    from scipy.optimize import Bounds as Between
    from scipy.optimize import LinearConstraint, milp

    with _stdout_kept_clean():
        solved = milp(
            -prices,
            constraints=LinearConstraint(sizes.T.astype(float), ub=limits.astype(float)),
            bounds=Between(0, demand.astype(float)),
            integrality=np.ones(len(prices), dtype=np.int64),
        )
    assert solved.x is not None and solved.mip_dual_bound is not None, "nothing at all is a fill"
    fill: Int64Array = np.rint(solved.x).astype(np.int64)
    return fill, max(-float(solved.mip_dual_bound), float(prices @ fill))


@contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """What C code prints goes nowhere: where HiGHS mends a solution that is not quite integer, it says so by a bare
    printf, which none of its options turns off, and stdout is for results.
    """
    flush = ctypes.CDLL(None).fflush  # printf's buffer is not Python's, and is written where stdout then is
    flush(None)
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)
