"""Memory controllers side by side on the same machines: what became of guests and starts, and what was moved for it.

What        `standings` sums up each controller at each overcommit from `runs`; `controllers_table` shows them. What a
            controller changes, machine by machine, is for the paired differences (`paired.py`).
            What else guests died of has a column where it happened at all.
Units       Shares of 1, seconds, GiB moved per host and day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from podcluster.units import NS_PER_S, PAGES_PER_GIB

AXIS: Final = "controller"
DAY_NS: Final = 86_400 * NS_PER_S
RARE: Final = {
    "fate_pod_oom_by_other": "killed by another",
    "fate_guest_panic": "panicked",
    "fate_ept_violation": "out of tables",
    "oom_kills": "applications killed",
}
"""Columns of `runs` that may well be zero, and their heads."""


class Standing(NamedTuple):
    """One controller at one overcommit, all replications."""

    controller: str
    overcommit: float
    boots: int
    killed: int
    rare: tuple[int, ...]  # as RARE
    refused: float
    swap_share: float
    waited_s: float  # a start, on average
    moved_gib: float  # per host and day
    uncooperative: int


def standings(runs: Sequence[dict[str, Any]], overcommit: float) -> list[Standing]:
    """In the order of the sweep; `overcommit` is that of a sweep which has no such axis."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((str(run[AXIS]), float(run.get("overcommit", overcommit))), []).append(run)
    found = []
    for (name, ratio), group in groups.items():

        def total(column: str, group: Sequence[dict[str, Any]] = group) -> float:
            return float(sum(run[column] for run in group))

        asked = total("requests") + total("restarts") + total("ha_restarts")
        host_days = sum(run["hosts"] * run["duration_ns"] for run in group) / DAY_NS
        found.append(
            Standing(
                name,
                ratio,
                int(total("boots_started")),
                int(total("fate_pod_oom")),
                tuple(int(total(column)) for column in RARE),
                (total("fate_rejected") + total("fate_build_failed")) / asked,
                total("swap_share") / len(group),
                total("starts_waited_ns") / NS_PER_S / asked,
                total("moved_pages") / PAGES_PER_GIB / host_days,
                int(total("uncooperative")),
            )
        )
    return found


def controllers_table(found: Sequence[Standing]) -> str:
    """The standings as a table of Markdown."""
    happened = [at for at in range(len(RARE)) if any(one.rare[at] for one in found)]
    heads = [
        "controller", "R", "boots", "killed", *(list(RARE.values())[at] for at in happened), "refused", "in swap",
        "waited, s a start", "moved, GiB a host-day", "flagged",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for one in found:
        words = [
            one.controller, f"{one.overcommit:g}", f"{one.boots:,}", f"{one.killed:,}",
            *(f"{one.rare[at]:,}" for at in happened), f"{one.refused:.1%}", f"{one.swap_share:.2%}",
            f"{one.waited_s:.1f}", f"{one.moved_gib:,.1f}", f"{one.uncooperative:,}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)
