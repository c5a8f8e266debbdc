"""Runs that outlive the process that drives them: what is kept of a run, and how it goes on from there.

What        `KeptPool` stands between the epochs and the pool that computes them. Every so often it has the hosts
            packed, and gives them to a `Store` with all that they have reported since the last time.
Why         A driver is a function of its plan and of what the hosts report. Given the reports again, it does in seconds
            what it did before, rows and all, and comes to where the hosts were packed: nothing of its own has to be
            kept.
Units       Simulated time in ns; wall time in seconds.
Invariants  [CK-1] what is kept, and when, changes no row: packing a host leaves it as it is.
            [CK-2] what a store holds are the reports of all steps up to one, and the hosts as they were after it, or
                   after the next, each with its report of that [EP-7].
Form        Of a host that has nothing to say at the end of a step but the time, nothing is kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Final, NamedTuple, Protocol, TypeAlias

from podcluster.cluster.ahead import Ahead
from podcluster.cluster.pool import CommandsByHost, Packed, PackingPool
from podcluster.errors import InvariantError
from podcluster.records.hosts import HostView
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S

logger = getLogger(__name__)

LEAST_SHARE: Final = 20  # of the time between two saves, one part in so many is for the save at most


class Told(NamedTuple):
    """What the hosts had to say at the end of a step."""

    until_ns: int
    reports: tuple[HostReport, ...]


class Store(Protocol):
    """Where a run is kept."""

    @property
    def steps(self) -> int:
        """How many steps are kept; 0: the run begins."""

    def told(self) -> Iterator[Told]:
        """These steps, in order."""

    def packed(self) -> Packed:
        """The hosts as they were after them [CK-2]."""

    def save(self, told: Sequence[Told], packed: Iterable[tuple[int, bytes]]) -> None:
        """Keep these further steps, and the hosts in place of what was kept of them; all of it or nothing."""


OpenPool: TypeAlias = Callable[[Packed], PackingPool]


class KeptPool:
    """The hosts of a run that is kept, as the epochs see them."""

    def __init__(
        self,
        open_pool: OpenPool,
        host_ids: Sequence[int],
        kind: str,
        store: Store,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_pool` makes the hosts, of what is packed or new; it is called when the first of them has to step.
        `every_s` infinite: nothing is kept from here on.
        """
        self.kind = kind
        self._open_pool = open_pool
        self._store = store
        self._every_s = every_s
        self._clock = clock
        self._memory = Memory(host_ids)
        self._known = store.told()
        self._known_steps = store.steps
        self._steps = 0
        self._now_ns = 0  # where the steps that are known end
        self._pool: PackingPool | None = None
        self._unsaved: list[Told] = []
        self._due_s = 0.0

    @property
    def actors(self) -> int:
        """Actors that hold the hosts; 0 where none was needed any more."""
        return 0 if self._pool is None else self._pool.actors

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Say what the hosts said, or let them step."""
        self._steps += 1
        if self._steps <= self._known_steps:
            told = next(self._known)
            if told.until_ns != until_ns:
                raise InvariantError(
                    f"[CK-2] a run goes on as it went violated: step {self._steps} was to {told.until_ns} ns, is to "
                    f"{until_ns} ns"
                )
            self._now_ns = until_ns
            return self._memory.whole(told)
        if self._pool is None:
            self._begin()
        assert self._pool is not None
        reports = self._pool.advance(until_ns, commands, ahead)
        if self._every_s < math.inf:
            self._unsaved.append(self._memory.news(until_ns, reports))
            if self._clock() >= self._due_s:
                self._save()
        return reports

    def close(self) -> None:
        """Let go of the hosts."""
        if self._pool is not None:
            self._pool.close()

    def _begin(self) -> None:
        """Make the hosts."""
        if self._known_steps:
            logger.info("going on from its checkpoint, at %s s of simulated time", f"{self._now_ns / NS_PER_S:,.0f}")
        self._pool = self._open_pool(self._store.packed())
        self._due_s = self._clock() + self._every_s

    def _save(self) -> None:
        assert self._pool is not None
        began_s = self._clock()
        try:
            self._store.save(self._unsaved, self._pool.pack())
        except OSError as error:
            # The run itself is as well as before.
            logger.warning("the run could not be kept (%s), and is tried again in %.0f s", error, self._every_s)
        else:
            self._pool.rely_on(self._store.packed())
            self._unsaved.clear()
            logger.debug("kept %d steps and all hosts in %.2f s", self._steps, self._clock() - began_s)
        now_s = self._clock()
        self._due_s = now_s + max(self._every_s, LEAST_SHARE * (now_s - began_s))


class Memory:
    """What hosts said last, so that what they say again need not be kept."""

    def __init__(self, host_ids: Sequence[int]) -> None:
        self._host_ids = sorted(host_ids)
        self._views: dict[int, HostView] = {}

    def news(self, until_ns: int, reports: Sequence[HostReport]) -> Told:
        """What of these reports, of all hosts, cannot be told from those before them."""
        found = tuple(report for report in reports if not self._is_known(report))
        self._views.update((report.host_id, report.view) for report in found)
        return Told(until_ns, found)

    def whole(self, told: Told) -> list[HostReport]:
        """The reports of which these were the news."""
        news: Mapping[int, HostReport] = {report.host_id: report for report in told.reports}
        self._views.update((host_id, report.view) for host_id, report in news.items())
        return [
            news.get(host_id) or HostReport(host_id, told.until_ns, replace(self._views[host_id], at_ns=told.until_ns))
            for host_id in self._host_ids
        ]

    def _is_known(self, report: HostReport) -> bool:
        """Whether only the time is new in it."""
        view = self._views.get(report.host_id)
        if view is None or report.domains or report.events or report.host is not None:
            return False
        if report.samples or report.machine_samples:
            return False
        if report.moving or report.view.at_ns != report.now_ns:
            return False
        return report.view == replace(view, at_ns=report.now_ns)
