"""Best fit: of the hosts that fit, the one with least uncommitted memory left, lowest host_id among equals."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement.index import HostIndex, fits, rejected_by
from podcluster.records import Ask, HostView, Rejected


class BestFit:
    """Fill the fullest host that still fits."""

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The tightest of `views` that fits [pages]."""
        fitting = [view for view in views if fits(ask, view)]
        if fitting:
            return min(fitting, key=lambda view: (view.usable_pages - view.committed_pages, view.host_id)).host_id
        return rejected_by(ask, views)

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index [pages]."""
        return index.best_fit(ask)
