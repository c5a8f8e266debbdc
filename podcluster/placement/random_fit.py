"""Random fit: any host that fits, all with the same probability; the draws are named by the domain.

What        Hosts are drawn from all there are until one fits, which is uniform over those that do, and takes no longer
            in a large cluster than in a small one. After `TRIES` misses one of those that fit is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from podcluster.placement.index import TERMS, HostIndex
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.rng import stream

TRIES: Final = 32


class RandomFit:
    """Draw until a host fits."""

    search_kind = None

    def __init__(self, rules: Rules | None = None, seed: int = 0) -> None:
        self.rules = rules or Rules()
        self.terms = TERMS
        self.cursor = 0
        self._seed = seed

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The definition, on views."""
        uniform = stream(self._seed, "placement", ask.domain_id).random
        for _ in range(TRIES if views else 0):
            view = views[int(uniform() * len(views))]
            if self.rules.fits(ask, view):
                return view.host_id
        fitting = [view for view in views if self.rules.fits(ask, view)]
        return fitting[int(uniform() * len(fitting))].host_id if fitting else self.rules.rejected_by(ask, views)

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index."""
        uniform = stream(self._seed, "placement", ask.domain_id).random
        positions = index.open_positions()
        for _ in range(TRIES if len(positions) else 0):
            position = int(positions[int(uniform() * len(positions))])
            if index.fits(ask, position):
                return index.host_ids[position]
        fitting = index.fitting(ask)
        return index.host_ids[int(fitting[int(uniform() * len(fitting))])] if len(fitting) else index.rejection(ask)
