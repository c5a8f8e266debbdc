"""The curve of a demand as a guest goes along it: the instants at which what is held may fall, and how much may stay.

What        `DemandWindow`: W and H at those instants. Where nothing is held on to they are those of the demand itself,
            not a copy: a month of samples is much memory to every guest.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)   what the guest as a whole wants to use
            H(t)   max of W over the last hold_ns, no further back than the guest was up (G3)
Invariants  [DW-1] between two instants W is on one line, so that its extremes are at the ends; before the second the
                   first instant is when it starts, though what stands for it may be the sample before that.
Departs     H falls at samples of the curve and hold_ns after them (where it is exact), not in between.
"""

from __future__ import annotations

import numpy as np

from podcluster.host.follow_quiet import any_lag
from podcluster.host.layout import for_kernels
from podcluster.records.demand import Demand
from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S

SAFE_BITS = 62


class DemandWindow:
    """A demand from `start_ns` on; `hold_ns` -1: what was wanted once stays held."""

    __slots__ = ("first", "h", "lags", "start_ns", "t", "w")

    start_ns: int
    """The first instant,"""
    first: int
    """and H there, which is W."""
    t: Int64Array
    """The instants, from the second on."""
    w: Int64Array
    """W at each."""
    h: Int64Array
    """H at each; what is held for ever depends on more than W, so there it is W again."""
    lags: Int64Array
    """Pieces in which W grows faster than the guest writes, from the second on."""

    def __init__(self, demand: Demand, start_ns: int, hold_ns: int, pages_per_s: int) -> None:
        """`pages_per_s`: how fast the guest writes."""
        self.start_ns, self.first = start_ns, demand.at(start_ns)
        after = int(np.searchsorted(demand.t_ns, start_ns, side="right"))
        if after == len(demand.t_ns):  # flat
            instants = [start_ns] if hold_ns <= 0 else [start_ns, start_ns + hold_ns]
            self.t, self.lags = np.array(instants, np.int64), np.empty(0, np.int64)
            self.w = self.h = np.full(len(instants), demand.pages[-1])
            return
        self.t, self.w = for_kernels(demand.t_ns[after - 1 :]), for_kernels(demand.pages[after - 1 :])
        if hold_ns > 0:
            kept = np.append(start_ns, self.t[1:])
            self.t = np.union1d(kept, kept + hold_ns)
            self.w = values_at(demand, self.t)
        self.h = self._most(demand, start_ns, hold_ns)
        self.lags = np.empty(0, np.int64)
        if any_lag(self.t, self.w, pages_per_s / NS_PER_S):  # as they mostly do not
            self.lags = np.flatnonzero(np.diff(self.w) > np.diff(self.t) * (pages_per_s / NS_PER_S))

    def _most(self, demand: Demand, start_ns: int, hold_ns: int) -> Int64Array:
        if hold_ns <= 0:
            return self.w
        low_ns = np.maximum(self.t - hold_ns, start_ns)
        first = np.searchsorted(self.t, low_ns, side="left")
        found: Int64Array = np.maximum(range_maxima(self.w, first, np.arange(len(self.t))), values_at(demand, low_ns))
        return found

    def __len__(self) -> int:
        return len(self.t)

    def piece(self, at_ns: int) -> int:
        """Number of the piece that `at_ns` is in: from its first instant to before the next."""
        return int(self.t.searchsorted(at_ns, "right")) - 1

    def instant_ns(self, piece: int) -> int:
        """When a piece begins."""
        return int(self.t[piece]) if piece else self.start_ns

    def most(self, piece: int) -> int:
        """H then [pages]."""
        return int(self.h[piece]) if piece else self.first


def values_at(demand: Demand, instants: Int64Array) -> Int64Array:
    """`demand.at` of each."""
    t, w = demand.t_ns, demand.pages
    if len(t) == 1:
        return np.full(len(instants), w[0], np.int64)
    left = np.clip(np.searchsorted(t, instants, side="right") - 1, 0, len(t) - 2)
    rise, span, into = w[left + 1] - w[left], t[left + 1] - t[left], instants - t[left]
    if int(np.abs(rise).max()).bit_length() + int(span.max()).bit_length() > SAFE_BITS:
        return np.array([demand.at(int(at)) for at in instants], np.int64)
    found: Int64Array = w[left] + rise * np.clip(into, 0, span) // span
    return found


def range_maxima(values: Int64Array, first: Int64Array, last: Int64Array) -> Int64Array:
    """Maximum of `values[first : last + 1]` for each pair, by maxima over spans of 1, 2, 4, ..."""
    lengths = last - first + 1
    levels = np.frexp(lengths.astype(np.float64))[1] - 1  # 2**level <= length
    found = np.empty(len(first), np.int64)
    spans = values
    for level in range(int(levels.max()) + 1):
        if level:
            half = 1 << (level - 1)
            spans = np.maximum(spans[:-half], spans[half:])
        here = np.flatnonzero(levels == level)
        found[here] = np.maximum(spans[first[here]], spans[last[here] - (1 << level) + 1])
    return found
