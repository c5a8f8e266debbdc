"""What policies share that are one search of the index: most in logarithmic time, and whole batches at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from podcluster.placement.index import TERMS, HostIndex
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView, Rejected


class Searched:
    """A policy that is one kind of search (of `search.py` or `weigh.py`) under some rules."""

    search_kind: ClassVar[int]

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.terms = TERMS
        self.cursor = 0  # host_id of the last placement

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """The definition, on views."""
        fitting = [view for view in views if self.rules.fits(ask, view)]
        if not fitting:
            return self.rules.rejected_by(ask, views)
        self.cursor = self.pick(fitting).host_id
        return self.cursor

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same from an index."""
        answer = index.choose(ask, self.cursor, self.terms)
        if not isinstance(answer, Rejected):
            self.cursor = answer
        return answer

    def pick(self, fitting: Sequence[HostView]) -> HostView:
        """One of these hosts, all of which fit, in host_id order."""
        raise NotImplementedError
