"""First fit: the first host, in host_id order, that fits. No cursor is kept between calls (that would be next fit)."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement.index import HostIndex, fits, rejected_by
from podcluster.records import Ask, HostView, Rejected


class FirstFit:
    """Fill hosts in host_id order."""

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The first of `views` that fits [pages]."""
        for view in views:
            if fits(ask, view):
                return view.host_id
        return rejected_by(ask, views)

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index [pages]."""
        return index.first_fit(ask)
