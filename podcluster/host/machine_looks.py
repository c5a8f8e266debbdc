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
from podcluster.records import NO_MACHINE_SAMPLES, Int64Array, MachineSampleBlock


class _Look(NamedTuple):
    """Machines at `instants` instants of the grid from `first_ns` on, in order of domain_id."""

    first_ns: int
    instants: int
    domain_ids: list[int]
    targets: list[int]
    owned: list[int]
    wanted: list[int | OnGrid]  # a number while it boots


class MachineLooks:
    """The looks since the last report."""

    def __init__(self, host_id: int, grid_ns: int) -> None:
        self._host_id = host_id
        self._grid_ns = grid_ns
        self._looks: list[_Look] = []
        self._demands: dict[int, OnGrid] = {}  # by domid, of guests that are up
        self._changes = True  # since the last look, or without anybody being told

    def take(self, first_ns: int, count: int, residents: Iterable[Resident], owned_of: Mapping[int, int]) -> None:
        """Look at all machines, of which nothing but demand changes within these instants."""
        last = self._looks[-1] if self._looks and not self._changes else None
        if last is not None and first_ns == last.first_ns + last.instants * self._grid_ns:
            self._looks[-1] = last._replace(instants=last.instants + count)
            return
        there = sorted(residents, key=lambda one: one.request.domain_id)
        look = _Look(
            first_ns,
            count,
            [one.request.domain_id for one in there],
            [one.domain.target_pages for one in there],
            [owned_of[one.domain.domid] for one in there],
            [self._wanted(one) for one in there],
        )
        # Who boots has taken more at each look, and tells nobody.
        self._changes = any(isinstance(wanted, int) for wanted in look.wanted)
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
        looks, self._looks = self._looks, []
        blocks = [self._rows(look) for look in looks if look.domain_ids]
        return MachineSampleBlock.join(blocks) if blocks else NO_MACHINE_SAMPLES

    def _rows(self, look: _Look) -> MachineSampleBlock:
        machines, count = len(look.domain_ids), look.instants
        wanted = np.empty((count, machines), dtype=np.int64)
        for k, one in enumerate(look.wanted):
            wanted[:, k] = one if isinstance(one, int) else one.at_each(look.first_ns, count)

        def each(values: list[int]) -> Int64Array:
            return np.tile(np.array(values, dtype=np.int64), count)

        instants = look.first_ns + self._grid_ns * np.arange(count, dtype=np.int64)
        return MachineSampleBlock.by_name(
            {
                "t_ns": np.repeat(instants, machines),
                "host_id": np.full(count * machines, self._host_id),
                "domain_id": each(look.domain_ids),
                "target_pages": each(look.targets),
                "owned_pages": each(look.owned),
                "demanded_pages": wanted.reshape(-1),
            }
        )
