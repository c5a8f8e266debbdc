"""The curve of a demand as a guest goes along it: the instants at which what is held may fall, and how much may stay.

What        `DemandWindow`: W and H at those instants.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)   what the guest as a whole wants to use
            H(t)   max of W over the last hold_ns, no further back than the guest was up (G3)
Invariants  [DW-1] between two instants W is on one line, so that its extremes are at the ends.
Departs     H falls at samples of the curve and hold_ns after them (where it is exact), not in between.
"""

from __future__ import annotations

import numpy as np

from podcluster.records.demand import Demand
from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S

SAFE_BITS = 62


class DemandWindow:
    """A demand from `start_ns` on; `hold_ns` -1: what was wanted once stays held."""

    __slots__ = ("h", "lags", "t", "w")

    t: Int64Array
    """The instants, the start first."""
    w: Int64Array
    """W at each."""
    h: Int64Array
    """H at each; what is held for ever depends on more than W, so there it is W again."""
    lags: Int64Array
    """Pieces in which W grows faster than the guest writes."""

    def __init__(self, demand: Demand, start_ns: int, hold_ns: int, pages_per_s: int) -> None:
        """`pages_per_s`: how fast the guest writes."""
        after = int(np.searchsorted(demand.t_ns, start_ns, side="right"))
        if after == len(demand.t_ns):  # flat
            instants = [start_ns] if hold_ns <= 0 else [start_ns, start_ns + hold_ns]
            self.t, self.lags = np.array(instants, np.int64), np.empty(0, np.int64)
            self.w = self.h = np.full(len(instants), demand.pages[-1])
            return
        self.t = _from(demand.t_ns, after, start_ns)
        if hold_ns > 0:
            self.t = np.union1d(self.t, self.t + hold_ns)
            self.w = values_at(demand, self.t)
        else:  # the samples themselves
            self.w = _from(demand.pages, after, demand.at(start_ns))
        self.h = self._most(demand, start_ns, hold_ns)
        self.lags = _faster(self.t, self.w, pages_per_s / NS_PER_S)

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
        return int(np.searchsorted(self.t, at_ns, side="right")) - 1


def _from(samples: Int64Array, after: int, first: int) -> Int64Array:
    """`first`, and the samples from number `after` on; there is one before."""
    found = samples[after - 1 :].copy()
    found[0] = first
    return found


def _faster(t: Int64Array, w: Int64Array, pages_per_ns: float) -> Int64Array:
    """Pieces in which W grows by more than that."""
    spans, rises = t[1:] - t[:-1], w[1:] - w[:-1]
    if int(rises.max()) <= int(spans.min()) * pages_per_ns:  # as it is mostly
        return np.empty(0, np.int64)
    return np.flatnonzero(rises > spans * pages_per_ns)


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
