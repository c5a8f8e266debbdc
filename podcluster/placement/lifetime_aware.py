"""Lifetime-aware: keep together what leaves together, so that hosts become empty.

What        A request costs a host the time by which it would outlive everybody there, in buckets: nothing where
            somebody stays longer, all of its life on an empty host. The cheapest wins, then the tightest.
Units       ns.
Source      NILAS, the lifetime-aware scorer of LAVA (MLSys 2025): cost by the extension of the host's exit time, in
            buckets, then the packing score.
Departs     Departures are forecast once, at the request; nothing is predicted again as a domain ages.
"""

from __future__ import annotations

from podcluster.placement import weigh
from podcluster.placement.index import Terms
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Weighed
from podcluster.records.hosts import Ask, HostView
from podcluster.units import NS_PER_S


class LifetimeAware(Weighed):
    """Extend the life of a host by as little as possible."""

    search_kind = weigh.LIFETIME_AWARE

    def __init__(self, rules: Rules | None = None, bucket_ns: int = 3600 * NS_PER_S) -> None:
        super().__init__(rules)
        self.terms = Terms(bucket_ns=bucket_ns)

    def extension(self, ask: Ask, view: HostView) -> int:
        """Buckets by which the request outlives who is there, rounded up."""
        beyond_ns = max(0, ask.leaves_ns - max(view.leaves_ns, ask.arrival_ns))
        return -(-beyond_ns // self.terms.bucket_ns)

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """First the extension, then the room."""
        return self.extension(ask, view), self.rules.room(view)
