"""Rates of the cells of a sweep over the overcommit that was really reached.

What        `rate_over_ratio` draws one rate with its intervals on given axes; `overcommit_figure` the two prices of
            promising more than there is, crashes and swap, side by side.
Symbols     static_ratio = sum of maxmem / U, mean over time: the axis. R is only the knob that was turned.
Departs     A cell in which nothing was ever seen has no interval over replications: it gets a hollow marker at 0 and a
            bar up to the exact one-sided bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.report.style import MARKERS, SERIES, Table, column, dress, foot, new_figure, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Estimates(NamedTuple):
    """A number of each cell with the ends of its interval, nan where there is none."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def arms(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Lengths of error bars down and up; 0 where there is no interval."""
        lengths = np.stack([self.value - self.low, self.high - self.value])[:, keep]
        return np.maximum(np.nan_to_num(lengths, nan=0.0), 0.0)


def estimates(cells: Table, name: str, keep: NDArray[np.bool_], order: NDArray[np.intp]) -> Estimates:
    """Column `name` with `_low` and `_high`."""
    value, low, high = (numbers(cells, f"{name}{end}", keep)[order] for end in ("", "_low", "_high"))
    return Estimates(value, low, high)


def groups_of(cells: Table, axis: str | None) -> list[tuple[str, NDArray[np.bool_]]]:
    """The cells by value of one axis, in its order; all of them under an empty name without one."""
    if axis is None:
        return [("", np.ones(len(column(cells, "static_ratio")), dtype=bool))]
    values = column(cells, axis)
    return [(f"{axis} = {_plain(value)}", values == value) for value in sorted(set(values.tolist()))]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def rate_over_ratio(
    axes: Axes,
    cells: Table,
    rate: str,
    *,
    label: str,
    group: str | None = None,
    names: Mapping[str, str] | None = None,
) -> None:
    """Draw `rate` of each cell over its realised static_ratio, a series for each value of the axis `group`.

    `names` replaces a series' name ("guest = linux") by better words.
    """
    dress(axes)
    for index, (name, keep) in enumerate(groups_of(cells, group)):
        colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        order = np.argsort(numbers(cells, "static_ratio", keep), kind="stable")
        x, y = (estimates(cells, which, keep, order) for which in ("static_ratio", rate))
        bound = numbers(cells, f"{rate}_upper", keep)[order]
        seen = y.value > 0
        axes.plot(x.value, y.value, "-", color=colour, linewidth=1.0, alpha=0.5)
        bars = axes.errorbar(
            x.value[seen],
            y.value[seen],
            yerr=y.arms(seen),
            xerr=x.arms(seen),
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=6,
            linewidth=1.4,
        )
        bars.set_label((names or {}).get(name, name) or "_")
        none = ~seen & np.isfinite(y.value)
        axes.plot(x.value[none], y.value[none], marker, color=colour, markerfacecolor="white", clip_on=False, zorder=5)
        arms = np.nan_to_num(np.stack([0 * bound, bound])[:, none], nan=0.0)
        axes.errorbar(
            x.value[none], y.value[none], yerr=arms, fmt="none", color=colour, capsize=3, linewidth=0.8, alpha=0.7
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("realised static ratio (sum of maxmem / usable memory)")
    axes.set_ylabel(label)
    if group is not None:
        axes.legend(frameon=False, fontsize=9, loc="upper left")


def overcommit_figure(
    cells: Table, *, group: str | None = None, note: str = "", names: Mapping[str, str] | None = None
) -> Figure:
    """Crashes and swap over the realised overcommit."""
    figure = new_figure(11.0, 4.8)
    left, right = figure.subplots(1, 2)
    crash, swap = "crashes per boot (pod_oom / boots started)", "share of domain time spent swapping"
    rate_over_ratio(left, cells, "crash_per_boot", label=crash, group=group, names=names)
    rate_over_ratio(right, cells, "swap_share", label=swap, group=group, names=names)
    foot(figure, sample_size(cells) + (f"\n{note}" if note else ""))
    return figure


def sample_size(cells: Table) -> str:
    """n, and what the bars are, for the foot of a figure."""
    confidence = float(column(cells, "confidence")[0])
    replications, boots = column(cells, "replications"), column(cells, "boots_started")
    bars = f"bars: {confidence:.0%} intervals over replications"
    if replications.max() < 2:
        bars = "one replication: no intervals"
    return (
        f"n = {_span(replications)} replications a cell, {_span(boots)} boots; {bars};\n"
        f"hollow: none seen, with a bar up to the exact one-sided {confidence:.0%} bound"
    )


def _span(values: NDArray[Any]) -> str:
    least, most = int(values.min()), int(values.max())
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
