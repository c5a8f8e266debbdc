"""The answer of an overcommit study in words: how far each series of cells may go.

What        A cell is safe where the exact one-sided bound of crashes per boot and the upper end of the interval of the
            swap share both lie within limits. A series is safe up to the cell before the first that is not: one that
            happens to be safe above an unsafe one does not count, since crashes need not grow with every step.
Symbols     static_ratio = sum of maxmem / U, as it was reached
Departs     Where one replication leaves no interval, the share itself is compared; the table says n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from podcluster.report.over_ratio import series_of
from podcluster.report.style import Table, column, numbers


class Reach(NamedTuple):
    """How far one series is safe, None where not even its first cell is; `limit` names what ends it, if anything."""

    name: str
    ratio: float | None
    crash_upper: float
    swap_high: float
    boots: int
    replications: int
    limit: str


def reach_of(cells: Table, by: Sequence[str], *, most_crash: float, most_swap: float) -> list[Reach]:
    """How far each series of the axes `by` may go under these limits."""
    found = []
    for name, keep in series_of(cells, by):
        order = np.argsort(numbers(cells, "static_ratio", keep), kind="stable")
        ratio, crash, swap, swap_high = (
            numbers(cells, which, keep)[order]
            for which in ("static_ratio", "crash_per_boot_upper", "swap_share", "swap_share_high")
        )
        worst_swap = np.where(np.isnan(swap_high), swap, swap_high)
        # A bound that is not known is not within any limit.
        crashes, swaps = ~(crash <= most_crash), ~(worst_swap <= most_swap)
        unsafe = np.flatnonzero(crashes | swaps)
        safe = int(unsafe[0]) if len(unsafe) else len(ratio)
        what = (
            ""
            if safe == len(ratio)
            else " and ".join(word for word, bad in (("crashes", crashes[safe]), ("swap", swaps[safe])) if bad)
        )
        shown = max(safe - 1, 0)
        found.append(
            Reach(
                name or "all cells",
                float(ratio[safe - 1]) if safe else None,
                float(crash[shown]),
                float(worst_swap[shown]),
                int(column(cells, "boots_started", keep)[order][shown]),
                int(column(cells, "replications", keep)[order][shown]),
                what,
            )
        )
    return found


def in_words(reaches: Sequence[Reach], *, most_crash: float, most_swap: float, confidence: float) -> str:
    """A Markdown table of the answer, with n and bounds."""
    lines = [
        f"Safe means: at most {most_crash:.0%} of boots crash (exact one-sided {confidence:.0%} bound) and at most "
        f"{most_swap:.0%} of domain time is spent swapping (upper end of the {confidence:.0%} interval).",
        "",
        "| guests | safe up to a static ratio of | crashes per boot there, at most | swap share there, at most | n "
        "| what ends it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for reach in reaches:
        ratio = "none tried" if reach.ratio is None else f"{reach.ratio:.2f}"
        end = reach.limit or "nothing up to here"
        n = f"{reach.boots:,} boots in {reach.replications} replications"
        lines.append(f"| {reach.name} | **{ratio}** | {reach.crash_upper:.2g} | {reach.swap_high:.2g} | {n} | {end} |")
    return "\n".join(lines)
