"""A swap device, and what it costs a guest that wants more than it has in memory.

What        `SwapDevice`, one queue of requests; `Thrashing`, the steady cost of a working set that does not fit.
Units       Pages of 4 KiB; ns of simulated time. Rates and shares are floats, whole results are ints.
Symbols     s      service time of a request: latency + cluster / bandwidth
            W(t)   what the guest wants to use, its kernel included; R  what of it is in memory
            u      W - R: pages of the working set that are out
            tau    `guest.swap.reuse_s`: a guest at full speed comes back to each page of its working set once in it
Rules       [SW-1] the device serves one request at a time, in the order they come; each moves up to `cluster_pages`
                   pages and takes s. To move many pages is as many requests as they fill.
            [SW-2] who moves pages to make room, or gets back what it wants, waits for the device.
            [SW-3] while W > R, a guest at full speed misses u / tau pages a second. Each costs m = s + s / cluster: one
                   request brings the page in (its readahead is of no use), and a page has to go out for it, in full
                   clusters. So of each second it runs, it waits x = u m / tau more: of real time it loses x / (1 + x),
                   and 1 / m misses for each second lost.
Departs     A working set is taken to be used evenly: with some pages hotter than others fewer accesses miss. Pages that
            come in are taken to be dirty when they go out again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from podcluster.host import stretches
from podcluster.host.layout import for_kernels
from podcluster.records.demand import Demand
from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S, PAGES_PER_MIB

Floats = NDArray[np.float64]
Interval = tuple[int, int]
"""[from, to) in ns."""


class Rows:
    """Rows of int64 in order, in one array that grows: one at a time, or many that a kernel has left."""

    def __init__(self, width: int) -> None:
        self._room = np.empty((8, width), dtype=np.int64)
        self._count = 0

    def append(self, row: Sequence[int]) -> None:
        """One more."""
        self._make_room(1)
        self._room[self._count] = row
        self._count += 1

    def extend(self, flat: Int64Array, count: int) -> None:
        """So many more, one after another at the beginning of an array."""
        if not count:
            return
        self._make_room(count)
        width = self._room.shape[1]
        self._room[self._count : self._count + count] = flat[: count * width].reshape(-1, width)
        self._count += count

    @property
    def all(self) -> Int64Array:
        """int64[rows, width]; what follows may move them elsewhere."""
        return self._room[: self._count]

    def and_then(self, row: Sequence[int] | None) -> Int64Array:
        """All rows and one more, which is not put down."""
        if row is None:
            return self.all
        self._make_room(1)
        self._room[self._count] = row
        return self._room[: self._count + 1]

    def _make_room(self, more: int) -> None:
        if self._count + more > len(self._room):
            larger = np.empty((2 * (self._count + more), self._room.shape[1]), dtype=np.int64)
            larger[: self._count] = self.all
            self._room = larger


class SwapDevice:
    """One queue [SW-1]."""

    def __init__(self, *, latency_us: float, mib_per_s: float, cluster_pages: int) -> None:
        self.latency_ns = round(latency_us * 1000)
        self.pages_per_s = mib_per_s * PAGES_PER_MIB
        self.cluster_pages = cluster_pages
        self.free_ns = 0  # since when, or from when on, it has nothing to do
        self.latest: Interval | None = None  # when it last had
        self.earlier = Rows(2)  # and before that, apart and in order

    def service_ns(self, pages: int) -> int:
        """What moving so many pages takes."""
        requests = -(-pages // self.cluster_pages)
        return requests * self.latency_ns + round(pages * NS_PER_S / self.pages_per_s)

    def request(self, pages: int, at_ns: int) -> int:
        """Move pages, after all that was asked before; when that is done."""
        start_ns = max(at_ns, self.free_ns)
        self.free_ns = start_ns + self.service_ns(pages)
        if self.latest is not None:
            if self.latest[1] == start_ns:
                start_ns = self.latest[0]
            else:
                self.earlier.append(self.latest)
        self.latest = (start_ns, self.free_ns)
        return self.free_ns

    @property
    def busy(self) -> Int64Array:
        """When it had something to do: int64[stretches, 2], [from, to) in ns, apart and in order; until it has more."""
        return self.earlier.and_then(self.latest)

    def pages_within(self, at_ns: int, within_ns: int) -> int:
        """Pages that it can move in this time, after all that was asked before, in full clusters."""
        left_ns = at_ns + within_ns - max(at_ns, self.free_ns)
        cluster_ns = self.service_ns(self.cluster_pages)
        return max(0, left_ns // cluster_ns * self.cluster_pages) if cluster_ns else within_ns

    @property
    def miss_ns(self) -> float:
        """m, the cost of a page that is wanted and out [SW-3]."""
        cluster_ns = self.service_ns(self.cluster_pages)
        return cluster_ns + cluster_ns / self.cluster_pages


class Thrashing:
    """What is lost to misses [SW-3], as a function of W."""

    def __init__(self, miss_ns: float, reuse_ns: int) -> None:
        self._per_page = miss_ns / reuse_ns  # x for each page that is out

    def lost_ns(self, demand: Demand, spans: Int64Array, busy: Int64Array) -> float:
        """Time lost by a guest that has R pages of W in memory, and of W `most` at all, in spans (R, most, from, to)
        that are apart and in order; what it loses while it waits for the device anyway is not counted.

        `spans` is int64[spans, 4], `busy` int64[stretches, 2].
        """
        if not self._per_page:
            return 0.0
        t, w = for_kernels(demand.t_ns), for_kernels(demand.pages)
        room = spans.size + len(t) + busy.size
        cut, logs = _scratch("cut", stretches.PIECE_FIELDS * room), _scratch("logs", 2 * room)
        pieces = stretches.cut_spans(spans.reshape(-1), t, w, busy.reshape(-1), self._per_page, cut, logs)
        if not pieces:
            return 0.0
        logs, lost = logs[: 2 * pieces], _scratch("lost", room)[:pieces]
        np.log1p(logs, out=logs)
        stretches.weigh(cut, logs, self._per_page, lost)
        return float(lost.sum())


_SCRATCH: dict[str, Floats] = {}


def _scratch(use: str, count: int) -> Floats:
    """Room for so many numbers, until the next of the same use: of all guests of a process, one at a time. A month is
    hundreds of KiB, which the system would have to clear for each guest.
    """
    array = _SCRATCH.get(use)
    if array is None or len(array) < count:
        array = _SCRATCH[use] = np.empty(count)
    return array
