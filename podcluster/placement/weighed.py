"""What policies share that weigh every host that fits: a cost for each, the least of which wins, lowest host_id first.

What        A policy's file says what one view costs, which is its definition. From an index the same choice is one pass
            of `weigh.py` over all hosts, and a batch is one call.
Cost        Linear in the hosts: 25 to 45 us of 10,000.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement.searched import Searched
from podcluster.records.hosts import Ask, HostView, Rejected


class Weighed(Searched):
    """A policy by least cost; a cost is one or more numbers, compared in their order."""

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The definition, on views."""
        bearing = [view for view in views if self.rules.fits(ask, view) and self.bears(ask, view)]
        if not bearing:
            return self.rules.rejected_by(ask, views)
        return min(bearing, key=lambda view: self.cost(ask, view)).host_id

    def bears(self, ask: Ask, view: HostView) -> bool:
        """Whether a host that fits is one to consider."""
        return True

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """What this host costs."""
        raise NotImplementedError
