"""Worst fit: of the hosts that fit, the one with most room left, lowest host_id among equals. It spreads load."""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.placement import search
from podcluster.placement.searched import Searched
from podcluster.records.hosts import HostView


class WorstFit(Searched):
    """Fill all hosts evenly."""

    search_kind = search.WORST

    def pick(self, fitting: Sequence[HostView]) -> HostView:
        """The roomiest; `max` takes the first of equals."""
        return max(fitting, key=self.rules.room)
