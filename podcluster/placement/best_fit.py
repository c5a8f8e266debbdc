"""Best fit: of the hosts that fit, the one with least room left, lowest host_id among equals."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement import search
from podcluster.placement.searched import Searched
from podcluster.records.hosts import HostView


class BestFit(Searched):
    """Fill the fullest host that still fits."""

    search_kind = search.BEST

    def pick(self, fitting: Sequence[HostView]) -> HostView:
        """The tightest; `min` takes the first of equals."""
        return min(fitting, key=self.rules.room)
