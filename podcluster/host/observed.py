"""What a host is seen to do: quantities over time, and the demand of its guests on a grid of instants.

What        `Level`, a quantity with its peak and its integral; `DemandGrid`, the sum of W over the guests that are up,
            at the instants at which the host is looked at.
Units       Pages of 4 KiB; ns of simulated time. Instant number i is at i * grid_ns.
Symbols     W(t)   what a guest wants to use
Invariants  [OB-1] a sum on the grid is the sum of `Demand.at` over the guests that were up before the instant, whatever
                   stretch of instants is asked for at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from podcluster.records.demand import Demand
from podcluster.records.values import Int64Array

STRETCH: Final = 128  # instants worked out at once, at first: twice as many each time ...
MOST_STRETCH: Final = 4096  # ... up to these


@dataclass(slots=True)
class Level:
    """A quantity over time: its peak, its least, its integral [page ns]."""

    now: int = 0
    peak: int = 0
    least: int = 1 << 62
    area: int = 0
    since_ns: int = 0
    begun_ns: int = 0

    def at(self, t_ns: int, value: int) -> None:
        """It has been as it was until `t_ns`, and is `value` from there."""
        self.area += self.now * (t_ns - self.since_ns)
        self.since_ns = t_ns
        self.now = value
        self.peak = max(self.peak, value)
        self.least = min(self.least, value)

    def shift(self, last_ns: int, more: int, moment: int) -> None:
        """It has become `more` by `last_ns`, all the way up or all the way down, and some of that maybe before what was
        said last; `moment` is the sum over its steps of how much each was times when.
        """
        end_ns = max(self.since_ns, last_ns)
        self.area += self.now * (end_ns - self.since_ns) + more * end_ns - moment
        self.since_ns = end_ns
        self.now += more
        self.peak = max(self.peak, self.now)
        self.least = min(self.least, self.now)

    def at_each(self, first_ns: int, step_ns: int, values: Int64Array) -> None:
        """`at` of instants `step_ns` apart."""
        self.at(first_ns, int(values[0]))
        if len(values) > 1:
            self.area += step_ns * int(values[:-1].sum())
            self.since_ns = first_ns + step_ns * (len(values) - 1)
            self.now = int(values[-1])
            self.peak = max(self.peak, int(values.max()))
            self.least = min(self.least, int(values.min()))

    def begin(self, t_ns: int) -> None:
        """Forget what was before `t_ns`."""
        self.peak = self.least = self.now
        self.area, self.since_ns, self.begun_ns = 0, t_ns, t_ns

    def mean(self, t_ns: int) -> float:
        """Its mean from 0, or where it began anew, to `t_ns`."""
        passed_ns = t_ns - self.begun_ns
        return (self.area + self.now * (t_ns - self.since_ns)) / passed_ns if passed_ns else float(self.now)


@dataclass(frozen=True, slots=True, eq=False)
class OnGrid:
    """A demand at instants of a grid; `same`: its samples are the grid's."""

    demand: Demand
    grid_ns: int
    same: bool

    @classmethod
    def of(cls, demand: Demand, grid_ns: int, like: OnGrid | None = None) -> OnGrid:
        """As it is; `like` another, whose instants may be the very same."""
        t, samples = demand.t_ns, len(demand.t_ns)
        if like is not None and like.demand.t_ns is t and like.grid_ns == grid_ns:
            return cls(demand, grid_ns, like.same)
        same = int(t[-1]) == grid_ns * (samples - 1)
        if same and samples > 1:
            same = bool((t == grid_ns * np.arange(samples, dtype=np.int64)).all())
        return cls(demand, grid_ns, same)

    def at_each(self, first_ns: int, count: int) -> Int64Array:
        """W at `count` instants of the grid, or one anywhere, int64[count]."""
        if not self.same or first_ns % self.grid_ns:
            return self.demand.at_each(first_ns, self.grid_ns, count)
        pages, first = self.demand.pages, first_ns // self.grid_ns
        wanted = pages[first : first + count]
        if len(wanted) < count:  # flat after the last sample
            wanted = np.concatenate([wanted, np.full(count - len(wanted), pages[-1])])
        return wanted


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A guest that is up: its demand, and the first instant that it counts at."""

    demand: OnGrid
    first: int


class DemandGrid:
    """The sum of W over guests, at instants of a grid, worked out a stretch at a time [OB-1]."""

    def __init__(self, grid_ns: int) -> None:
        self._grid_ns = grid_ns
        self._guests: dict[int, _Wanted] = {}
        self._latest: OnGrid | None = None
        self._start = 0  # number of the stretch's first instant
        self._sums = np.zeros(0, dtype=np.int64)

    def add(self, key: int, demand: Demand, up_ns: int) -> None:
        """A guest is up since `up_ns`: it counts at all instants after that."""
        self._latest = OnGrid.of(demand, self._grid_ns, self._latest)
        guest = _Wanted(self._latest, up_ns // self._grid_ns + 1)
        self._guests[key] = guest
        self._count(guest, self._start, 1)

    def remove(self, key: int, first: int) -> None:
        """A guest is gone: it counts no more from instant number `first` on. One that never was up is none."""
        guest = self._guests.pop(key, None)
        if guest is not None:
            self._count(guest, first, -1)

    def sums(self, first: int, count: int) -> Int64Array:
        """Sums at `count` instants from number `first` on; no more than there are left of `first`'s stretch."""
        if not self._start <= first < self._start + len(self._sums):
            self._start = first
            self._sums = np.zeros(min(max(2 * len(self._sums), STRETCH), MOST_STRETCH), dtype=np.int64)
            for guest in self._guests.values():
                self._count(guest, self._start, 1)
        return self._sums[first - self._start : first - self._start + count]

    def _count(self, guest: _Wanted, first: int, sign: int) -> None:
        """Add a guest's demand to the stretch in hand, or take it off, from instant `first` on."""
        first = max(first, guest.first, self._start)
        count = self._start + len(self._sums) - first
        if count <= 0:
            return
        sums, wanted = self._sums[first - self._start :], guest.demand.at_each(first * self._grid_ns, count)
        if sign > 0:
            sums += wanted
        else:
            sums -= wanted
