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

from podcluster.records import Demand
from podcluster.units import NS_PER_S, PAGES_PER_MIB

Floats = NDArray[np.float64]
Interval = tuple[int, int]
"""[from, to) in ns."""


class SwapDevice:
    """One queue [SW-1]."""

    def __init__(self, *, latency_us: float, mib_per_s: float, cluster_pages: int) -> None:
        self.latency_ns = round(latency_us * 1000)
        self.pages_per_s = mib_per_s * PAGES_PER_MIB
        self.cluster_pages = cluster_pages
        self.free_ns = 0  # since when, or from when on, it has nothing to do
        self.busy: list[Interval] = []  # when it has, apart and in order

    def service_ns(self, pages: int) -> int:
        """What moving so many pages takes."""
        requests = -(-pages // self.cluster_pages)
        return requests * self.latency_ns + round(pages * NS_PER_S / self.pages_per_s)

    def request(self, pages: int, at_ns: int) -> int:
        """Move pages, after all that was asked before; when that is done."""
        start_ns = max(at_ns, self.free_ns)
        self.free_ns = start_ns + self.service_ns(pages)
        if self.busy and self.busy[-1][1] == start_ns:
            start_ns = self.busy.pop()[0]
        self.busy.append((start_ns, self.free_ns))
        return self.free_ns

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

    def lost_ns(
        self, demand: Demand, in_memory: int, most: int, span: Interval, waiting: Sequence[Interval] = ()
    ) -> float:
        """Time lost in `span` by a guest that has R = `in_memory` pages of W, and of W `most` at all; what it loses
        while it waits for the device anyway is not counted.
        """
        low, high = span
        if high <= low or not self._per_page or most <= in_memory:
            return 0.0
        t = demand.t_ns
        first, last = np.searchsorted(t, low, side="right"), np.searchsorted(t, high, side="left")
        nearby = demand.pages[max(0, first - 1) : last + 1]
        if int(nearby.max()) <= in_memory:
            return 0.0
        ends = np.array([end for one in waiting for end in one if low < end < high], np.int64)
        instants = np.unique(np.concatenate((np.array([low, high], np.int64), t[first:last], ends)))
        wanted = np.interp(instants.astype(np.float64), t.astype(np.float64), demand.pages.astype(np.float64))
        lost = self._mean_share(wanted, float(in_memory), float(most)) * np.diff(instants)
        if waiting:
            starts, stops = np.array(waiting, np.int64).T
            latest = np.searchsorted(starts, instants[:-1], side="right") - 1
            lost[(latest >= 0) & (instants[:-1] < stops[latest])] = 0.0
        return float(lost.sum())

    def _mean_share(self, wanted: Floats, in_memory: float, most: float) -> Floats:
        """Mean of x / (1 + x) along the line between each W and the next, by its integral over W."""
        k = self._per_page
        out = np.clip(wanted, in_memory, most) - in_memory
        share = k * out / (1 + k * out)
        top = k * (most - in_memory) / (1 + k * (most - in_memory))
        integral = out - np.log1p(k * out) / k + top * np.maximum(0.0, wanted - most)
        rise = np.diff(wanted)
        mean: Floats = (share[1:] + share[:-1]) / 2
        steep = np.abs(rise) >= 1  # or the difference below is all rounding
        np.divide(np.diff(integral), rise, out=mean, where=steep)
        return mean
