"""Lifetime-aware: keep together what leaves together, so that hosts become empty.

What        A request costs a host the time by which it would outlive everybody there, in buckets: nothing where
            somebody stays longer, all of its life on an empty host. The cheapest wins, then the tightest.
Units       ns.
Source      NILAS, the lifetime-aware scorer of LAVA (MLSys 2025): cost by the extension of the host's exit time, in
            buckets, then the packing score.
Departs     Departures are forecast once, at the request; nothing is predicted again as a domain ages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from podcluster.placement.index import HostIndex
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Numbers, Weighed
from podcluster.records import Ask, HostView, Int64Array
from podcluster.units import NS_PER_S


class LifetimeAware(Weighed):
    """Extend the life of a host by as little as possible."""

    def __init__(self, rules: Rules | None = None, bucket_ns: int = 3600 * NS_PER_S) -> None:
        super().__init__(rules)
        self._bucket_ns = bucket_ns

    def extension(self, ask: Ask, leaves_ns: Any) -> Any:
        """Buckets by which the request outlives who is there, rounded up: a number, or an array of them."""
        alone_from = np.maximum(leaves_ns, ask.arrival_ns)
        return -(-np.maximum(0, ask.leaves_ns - alone_from) // self._bucket_ns)

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """First the extension, then the room."""
        return int(self.extension(ask, view.leaves_ns)), self.rules.room(view)

    def costs(self, ask: Ask, index: HostIndex, positions: Int64Array) -> Sequence[Numbers]:
        """The same of many."""
        return [self.extension(ask, index.columns["leaves_ns"][positions]), index.rooms(positions)]
