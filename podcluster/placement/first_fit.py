"""First fit: the first host, in host_id order, that fits. No cursor decides (that would be next fit)."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement import search
from podcluster.placement.searched import Searched
from podcluster.records.hosts import HostView


class FirstFit(Searched):
    """Fill hosts in host_id order."""

    search_kind = search.FIRST

    def pick(self, fitting: Sequence[HostView]) -> HostView:
        """The first."""
        return fitting[0]
