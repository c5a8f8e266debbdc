"""How a run tells the outside how far it is: three calls, and the silent listener.

What        A protocol that `report.terminal` implements; simulation never depends on who listens.
Units       Simulated time in ns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Told of each run's beginning, of every step of the epochs, and of its end."""

    def begin(self, title: str, hosts: int, requests: int, duration_ns: int) -> None:
        """A run of `hosts` hosts begins, `requests` machines are coming."""

    def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
        """Simulated time is `now_ns`; `running` domains live, `fates` counts those that ended."""

    def end(self) -> None:
        """The run is over."""


class Silent:
    """Nobody listens."""

    def begin(self, title: str, hosts: int, requests: int, duration_ns: int) -> None:
        """Say nothing."""

    def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""
