"""Next fit: from the host of the last placement on, in host_id order and round again, the first that fits.

Departs     Of the textbook's next fit, which never goes back: hosts are not bins that one closes, and guests leave.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement import search
from podcluster.placement.searched import Searched
from podcluster.records.hosts import HostView


class NextFit(Searched):
    """Stay on a host while it fits, then go on to the next."""

    search_kind = search.NEXT

    def pick(self, fitting: Sequence[HostView]) -> HostView:
        """The first at or behind the cursor, else the first of all."""
        return next((view for view in fitting if view.host_id >= self.cursor), fitting[0])
