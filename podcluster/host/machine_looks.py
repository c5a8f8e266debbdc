"""What is seen of each machine on a host, on the grid of telemetry.

What        `MachineLooks`: stretches of instants between which no machine is told a target, gives or takes memory, put
            down once each; `block`, a row for each instant and machine.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)   what a guest wants to use; while it boots, what it has taken so far
Order       By instant, then by domain_id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from podcluster.host.observed import OnGrid
from podcluster.host.resident import Resident
from podcluster.records.samples import NO_MACHINE_SAMPLES, MachineSampleBlock
from podcluster.records.values import Int64Array


class _Look(NamedTuple):
    """Machines of a host at `instants` instants of its grid from `first_ns` on, in order of domain_id."""

    host_id: int
    grid_ns: int
    first_ns: int
    instants: int
    domain_ids: list[int]
    targets: list[int]
    owned: list[int]
    wanted: list[int | OnGrid]  # a number while it boots

    @property
    def t_ns(self) -> Int64Array:
        """int64[instants]."""
        return self.first_ns + self.grid_ns * np.arange(self.instants, dtype=np.int64)

    @property
    def rows(self) -> int:
        """Machines at each of them."""
        return len(self.domain_ids)

    @property
    def steady(self) -> Int64Array:
        """int64[column, machine], 0 for what changes."""
        none = [0] * self.rows
        of = {
            "host_id": [self.host_id] * self.rows,
            "domain_id": self.domain_ids,
            "target_pages": self.targets,
            "owned_pages": self.owned,
        }
        return np.array([of.get(name, none) for name in MachineSampleBlock.NAMES], dtype=np.int64)

    def changing(self, found: Int64Array) -> None:
        """Put what machines want into [machine, instant]."""
        for row, wanted in zip(found, self.wanted, strict=True):
            row[:] = wanted if isinstance(wanted, int) else wanted.at_each(self.first_ns, self.instants)


class MachineLooks:
    """The looks since the last report."""

    def __init__(self, host_id: int, grid_ns: int) -> None:
        self._host_id = host_id
        self._grid_ns = grid_ns
        self._looks: list[_Look] = []
        self._latest: _Look | None = None  # as long as nothing changes, the next is like it
        self._demands: dict[int, OnGrid] = {}  # by domid, of guests that are up
        self._changes = True  # since the last look, or without anybody being told

    def take(self, first_ns: int, count: int, residents: Iterable[Resident], owned_of: Mapping[int, int]) -> None:
        """Look at all machines, of which nothing but demand changes within these instants."""
        latest = self._latest
        if latest is not None and not self._changes:
            if self._looks and first_ns == latest.first_ns + latest.instants * self._grid_ns:
                self._looks.pop()
                self._put_down(latest._replace(instants=latest.instants + count))
            else:
                self._put_down(latest._replace(first_ns=first_ns, instants=count))
            return
        there = sorted(residents, key=lambda one: one.request.domain_id)
        look = _Look(
            self._host_id,
            self._grid_ns,
            first_ns,
            count,
            [one.request.domain_id for one in there],
            [one.domain.target_pages for one in there],
            [owned_of[one.domain.domid] for one in there],
            [self._wanted(one) for one in there],
        )
        # Who boots has taken more at each look, and tells nobody.
        self._changes = any(isinstance(wanted, int) for wanted in look.wanted)
        self._put_down(look)

    def _put_down(self, look: _Look) -> None:
        self._latest = look
        self._looks.append(look)

    def change(self) -> None:
        """A machine has come, is up, has gone, was told a target, or owns other than before."""
        self._changes = True

    def _wanted(self, resident: Resident) -> int | OnGrid:
        if resident.guest.boot_done_ns is None:
            return resident.memory.written_pages
        domid = resident.domain.domid
        if domid not in self._demands:
            self._demands[domid] = OnGrid.of(resident.request.demand, self._grid_ns)
        return self._demands[domid]

    def retired(self, domid: int) -> None:
        """A machine is no more there."""
        self._changes = True
        self._demands.pop(domid, None)

    def block(self) -> MachineSampleBlock:
        """All rows since the last time."""
        looks, self._looks = [look for look in self._looks if look.domain_ids], []
        if not looks:
            return NO_MACHINE_SAMPLES
        if len(looks) == 1:
            return MachineSampleBlock.from_source(looks[0])
        return MachineSampleBlock.join(map(MachineSampleBlock.from_source, looks))
