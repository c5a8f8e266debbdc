"""Paired differences as dots with their intervals, a line for each group: what a change makes, zero in sight.

Symbols     full     interval over replications [ST-5]
            hollow   no interval over replications: the pooled one [ST-7], or none
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from podcluster.report.style import GREY, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from podcluster.study.pairs import Difference


class Line(NamedTuple):
    """One line of a panel: its name, its colour, and what differs (None where nothing was compared)."""

    name: str
    colour: str
    found: Difference | None


def forest(axes: Axes, lines: Sequence[Line], *, label: str) -> None:
    """Draw the lines from top to bottom; `label` names the difference with its unit."""
    dress(axes)
    axes.axvline(0, color=GREY, linewidth=1.0)
    for at, line in enumerate(lines):
        if line.found is None:
            continue
        found = line.found
        low, high = found.low, found.high
        pooled = low is None or high is None
        if low is None or high is None:
            low, high = found.low_pooled, found.high_pooled
        face = "white" if pooled else line.colour
        dot: dict[str, Any] = {"color": line.colour, "markerfacecolor": face, "markersize": 6}
        if low is not None and high is not None:
            axes.plot([low, high], [at, at], "-", color=line.colour, linewidth=1.4)
        axes.plot([found.difference], [at], "o", **dot)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], fontsize=8.5)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(label)
