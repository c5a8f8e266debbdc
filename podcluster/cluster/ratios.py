"""Peaks over time of what a whole cluster promised, owned and was asked for.

What        Sums over hosts have their peak at an instant that no single host knows: `peak_of` finds it exactly for what
            is constant between a domain's start and end (maxmem, target), `SamplePeaks` on the telemetry grid for what
            moves all the time (owned, demanded), whose samples `add_hosts` sums.
Units       Pages of 4 KiB.
Departs     The peak of owned and demanded memory is that of the samples (`study.telemetry_s`, 300 s if that is 0): a
            spike between two samples is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from podcluster.records.rows import NO_HOST, DomainRow
from podcluster.records.samples import SampleBlock


def peak_of(rows: Sequence[DomainRow], name: str, since_ns: int = 0) -> int:
    """Most that column `name` [pages] sums to over the domains alive at one instant; one that ends where another
    starts is gone by then. Instants before `since_ns` do not count.
    """
    steps: list[tuple[int, int]] = []
    for row in rows:
        if row.boot_start_ns is None:
            continue
        pages = int(getattr(row, name))
        steps.append((max(row.boot_start_ns, since_ns), pages))
        # The end of the run ends nobody: what starts at that instant stands beside it.
        steps.append((row.end_ns + (row.fate == "running"), -pages))
    return _highest(steps)


def _highest(steps: list[tuple[int, int]]) -> int:
    """Highest level that changes (instant, pages) reach; what falls at an instant falls before what rises then."""
    level = peak = 0
    for _, change in sorted(steps):
        level += change
        peak = max(peak, level)
    return peak


def placed_peak(
    rows: Sequence[DomainRow], departures_ns: Mapping[int, int | None], end_ns: int, since_ns: int = 0
) -> int:
    """Most maxmem [pages] that was promised at one instant if every machine that a host took had stayed until it was
    to leave: what an operator set out to run, whatever became of it. `departures_ns` by domain_id; None: at the end.
    Instants before `since_ns` do not count.
    """
    steps: list[tuple[int, int]] = []
    for row in rows:
        if row.boot_start_ns is None:
            continue
        leaves_ns = departures_ns[row.domain_id]
        gone_ns = end_ns + 1 if leaves_ns is None else leaves_ns
        if gone_ns > since_ns:
            steps.append((max(row.boot_start_ns, since_ns), row.maxmem_pages))
            steps.append((gone_ns, -row.maxmem_pages))
    return _highest(steps)


def add_hosts(hosts: Sequence[SampleBlock]) -> SampleBlock:
    """A sample of the whole cluster for each instant of its hosts' samples, each host's in order of time: the sums."""
    times = [one.t_ns for one in hosts]
    t_ns = times[0]
    if not all(np.array_equal(there, t_ns) for there in times):  # as they mostly are
        t_ns = np.unique(np.concatenate(times))
    sums = np.zeros((len(SampleBlock.NAMES), len(t_ns)), dtype=np.int64)
    steps = np.zeros((len(SampleBlock.NAMES), len(t_ns) + 1), dtype=np.int64)
    for one, there in zip(hosts, times, strict=True):
        if len(there) == len(t_ns):
            one.add_to(sums, steps)
        else:
            sums[:, np.searchsorted(t_ns, there)] += one.columns
    sums += steps[:, :-1].cumsum(axis=1)
    sums[SampleBlock.NAMES.index("t_ns")] = t_ns
    sums[SampleBlock.NAMES.index("host_id")] = NO_HOST
    return SampleBlock(sums)


class SamplePeaks:
    """Running maxima of the cluster's samples [pages], from `since_ns` on."""

    def __init__(self, since_ns: int = 0) -> None:
        self._since_ns = since_ns
        self.owned_pages = 0
        self.target_pages = 0
        self.demanded_pages = 0

    def take(self, samples: SampleBlock) -> None:
        """Look at samples of the whole cluster, in order of time."""
        first = int(samples.t_ns.searchsorted(self._since_ns))
        self.owned_pages = max(self.owned_pages, int(samples.column("owned_pages")[first:].max(initial=0)))
        self.target_pages = max(self.target_pages, int(samples.column("target_pages")[first:].max(initial=0)))
        self.demanded_pages = max(self.demanded_pages, int(samples.column("demanded_pages")[first:].max(initial=0)))
