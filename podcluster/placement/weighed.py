"""What policies share that weigh every host that fits: a cost for each, the least of which wins, lowest host_id first.

What        A policy gives its cost twice: of one view, which is its definition, and of all hosts at once, on columns.
            Both are the same numbers.
Cost        Linear in the hosts, a few vector operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podcluster.placement.index import HostIndex
from podcluster.placement.rules import Rules
from podcluster.records import Ask, HostView, Int64Array, Rejected

Numbers = NDArray[Any]


class Weighed:
    """A policy by least cost; a cost is one or more numbers, compared in their order."""

    search_kind = None

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.cursor = 0

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The definition, on views."""
        bearing = [view for view in views if self.rules.fits(ask, view) and self.bears(ask, view)]
        if not bearing:
            return self.rules.rejected_by(ask, views)
        return min(bearing, key=lambda view: self.cost(ask, view)).host_id

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index."""
        positions = index.fitting(ask)
        positions = positions[self.bear(ask, index, positions)]
        if len(positions) == 0:
            return index.rejection(ask)
        least = np.ones(len(positions), dtype=np.bool_)
        for costs in self.costs(ask, index, positions):
            least &= costs == costs[least].min()
        return index.host_ids[int(positions[least][0])]

    def bears(self, ask: Ask, view: HostView) -> bool:
        """Whether a host that fits is one to consider."""
        return True

    def bear(self, ask: Ask, index: HostIndex, positions: Int64Array) -> NDArray[np.bool_]:
        """The same of many hosts."""
        return np.ones(len(positions), dtype=np.bool_)

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """What this host costs."""
        raise NotImplementedError

    def costs(self, ask: Ask, index: HostIndex, positions: Int64Array) -> Sequence[Numbers]:
        """The same of many hosts, number by number."""
        raise NotImplementedError
