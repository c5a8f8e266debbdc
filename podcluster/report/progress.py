"""How far a study is, on stderr: a live line where that is a terminal, else a log line every `LINE_EVERY_S` seconds.

What        Two listeners of `cluster.progress.Progress`: hosts, domains by fate, simulated time, rate.
Units       Simulated time as hours and minutes; the rate in simulated seconds per second.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from podcluster.cluster.progress import Progress
from podcluster.records.fates import FATES
from podcluster.units import NS_PER_S

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

logger = logging.getLogger(__name__)

LINE_EVERY_S: Final = 10.0


def make_progress() -> Progress:
    """A live line on a terminal, log lines elsewhere."""
    return LiveLine() if sys.stderr.isatty() else LogLines()


def state(hosts: int, running: int, fates: Mapping[str, int]) -> str:
    """Hosts, and domains by fate; those that live to the end are still running after it."""
    ended = [f"{fates[fate]:,} {fate}" for fate in FATES if fate != "running" and fates.get(fate)]
    return ", ".join([f"{hosts} host{'s' if hosts != 1 else ''}", f"{running:,} running", *ended])


def rate(simulated_ns: int, wall_s: float) -> str:
    """Simulated time per wall time."""
    return f"{simulated_ns / NS_PER_S / max(wall_s, 1e-3):,.0f}x real time"


class LogLines:
    """A line every `LINE_EVERY_S` seconds, none for a study that is over sooner."""

    def __init__(self, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._title = ""
        self._hosts = self._duration_ns = 0
        self._started_s = 0.0
        self._last_s: float | None = None

    def begin(self, title: str, hosts: int, requests: int, duration_ns: int) -> None:
        """Start the clock of one run; that of the lines goes on, or short runs of a long sweep would say nothing."""
        self._title, self._hosts, self._duration_ns = title, hosts, duration_ns
        self._started_s = time.monotonic()
        if self._last_s is None:
            self._last_s = self._started_s

    def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
        """Say how far it is, if it is time to."""
        now_s = time.monotonic()
        if self._last_s is not None and now_s - self._last_s < self._every_s:
            return
        self._last_s = now_s
        logger.info(
            "%s: %s of %s simulated, %s, %s",
            self._title,
            clock(now_ns),
            clock(self._duration_ns),
            state(self._hosts, running, fates),
            rate(now_ns, now_s - self._started_s),
        )

    def end(self) -> None:
        """Nothing is left on the screen."""


class LiveLine:
    """One bar on stderr that is gone when the run is over."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._hosts = 0
        self._started_s = 0.0

    def begin(self, title: str, hosts: int, requests: int, duration_ns: int) -> None:
        """Put the bar up."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._hosts, self._started_s = hosts, time.monotonic()
        texts = ("{task.description}", "{task.percentage:>3.0f} %", "{task.fields[state]}")
        first, percent, now = (TextColumn(text) for text in texts)
        self._bar = Bar(first, BarColumn(bar_width=24), percent, now, console=Console(stderr=True), transient=True)
        self._bar.add_task(title, total=duration_ns, state=f"{hosts} hosts, {requests} machines to come")
        self._bar.start()

    def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
        """Move the bar."""
        if self._bar is not None:
            speed = rate(now_ns, time.monotonic() - self._started_s)
            now = f"{clock(now_ns)}, {state(self._hosts, running, fates)}, {speed}"
            self._bar.update(self._bar.task_ids[0], completed=now_ns, state=now)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def clock(t_ns: int) -> str:
    """Simulated time as hours and minutes, or seconds below ten minutes."""
    seconds = t_ns // NS_PER_S
    if seconds < 600:
        return f"{seconds} s"
    return f"{seconds // 3600}:{seconds // 60 % 60:02d} h"
