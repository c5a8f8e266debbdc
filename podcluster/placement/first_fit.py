"""First fit: the first host, in host_id order, that fits. No cursor is kept between calls (that would be next fit)."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement.index import HostIndex, fits, rejected_by
from podcluster.records import HostView, Rejected


class FirstFit:
    """Fill hosts in host_id order."""

    def place(self, request_pages: int, request_maxmem_pages: int, views: Sequence[HostView]) -> int | Rejected:
        """The first of `views` that fits [pages]."""
        for view in views:
            if fits(request_pages, request_maxmem_pages, view):
                return view.host_id
        return rejected_by(request_pages, request_maxmem_pages, views)

    def place_indexed(self, request_pages: int, request_maxmem_pages: int, index: HostIndex) -> int | Rejected:
        """The same from an index [pages]."""
        return index.first_fit(request_pages, request_maxmem_pages)
