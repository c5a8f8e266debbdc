"""Rates of the cells of a sweep over the overcommit that was really reached.

What        `rate_over_ratio` draws one rate with its intervals on given axes; `overcommit_figure` the two prices of
            promising more than there is, crashes and swap, side by side.
Symbols     static_ratio = sum of maxmem / U of the machines placed, whatever became of them: the axis. R is only the
            knob that was turned.
Departs     A cell in which nothing was ever seen has no interval over replications: it gets a hollow marker at 0 and a
            bar up to the exact one-sided bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.report.style import MARKERS, SERIES, Table, column, dress, foot, new_figure, numbers, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ASIDE: Final = 0.006  # of the axis: series that lie on one another are set side by side


class Estimates(NamedTuple):
    """A number of each cell with the ends of its interval, nan where there is none."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def moved(self, by: float) -> Estimates:
        """The same, set aside."""
        return Estimates(self.value + by, self.low + by, self.high + by)

    def arms(self, keep: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Lengths of error bars down and up; 0 where there is no interval."""
        lengths = np.stack([self.value - self.low, self.high - self.value])[:, keep]
        return np.maximum(np.nan_to_num(lengths, nan=0.0), 0.0)


def estimates(cells: Table, name: str, keep: NDArray[np.bool_], order: NDArray[np.intp]) -> Estimates:
    """Column `name` with `_low` and `_high`."""
    value, low, high = (numbers(cells, f"{name}{end}", keep)[order] for end in ("", "_low", "_high"))
    return Estimates(value, low, high)


def series_of(cells: Table, by: Sequence[str]) -> list[tuple[str, NDArray[np.bool_]]]:
    """The cells by the values of the axes `by`, in their order; all of them under an empty name without one."""
    columns = [column(cells, axis).tolist() for axis in by]
    keys = list(zip(*columns, strict=True)) if by else [()] * len(column(cells, "static_ratio"))
    return [
        (", ".join(f"{axis.rpartition('.')[2]} {_plain(value)}" for axis, value in zip(by, key, strict=True)),
         np.array([other == key for other in keys]))
        for key in sorted(set(keys))
    ]  # fmt: skip


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def rate_over_ratio(axes: Axes, cells: Table, rate: str, *, label: str, by: Sequence[str] = ()) -> None:
    """Draw `rate` of each cell over its realised static_ratio, a series for each value of the axes `by`."""
    dress(axes)
    ratios = numbers(cells, "static_ratio")
    span = max(float(np.ptp(ratios)), 0.2)
    series = series_of(cells, by)
    for index, (_, keep) in enumerate(series):
        look: dict[str, Any] = {"color": colour_of(index), "capsize": 3}
        marker = marker_of(index)
        order = np.argsort(numbers(cells, "static_ratio", keep), kind="stable")
        x, y = (estimates(cells, which, keep, order) for which in ("static_ratio", rate))
        bound = numbers(cells, f"{rate}_upper", keep)[order]
        x = x.moved((index - (len(series) - 1) / 2) * ASIDE * span)
        axes.plot(x.value, y.value, "-", color=colour_of(index), linewidth=1.0, alpha=0.5)
        seen = y.value > 0
        if seen.any():
            arms: dict[str, Any] = {"yerr": y.arms(seen), "xerr": x.arms(seen)}
            axes.errorbar(x.value[seen], y.value[seen], fmt=marker, markersize=6, linewidth=1.4, **arms, **look)
        none = ~seen & np.isfinite(y.value)
        if none.any():
            zero = np.zeros(int(none.sum()))
            hollow: dict[str, Any] = {"markerfacecolor": "white", "clip_on": False, "zorder": 5}
            axes.plot(x.value[none], zero, marker, color=colour_of(index), **hollow)
            upper = np.stack([zero, np.nan_to_num(bound[none], nan=0.0)])
            axes.errorbar(x.value[none], zero, yerr=upper, fmt="none", linewidth=0.8, alpha=0.7, **look)
    axes.set_ylim(bottom=0)
    # Few replications have intervals far wider than the ratios lie apart: those run out of the picture.
    axes.set_xlim(float(ratios.min()) - 0.06 * span, float(ratios.max()) + 0.06 * span)
    axes.set_xlabel("realised static ratio (sum of maxmem / usable memory)")
    axes.set_ylabel(label)


def colour_of(index: int) -> str:
    """Colour of a series; beyond the palette it repeats with other markers."""
    return SERIES[index % len(SERIES)]


def marker_of(index: int) -> str:
    """Marker of a series."""
    return MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def legend(figure: Figure, names: Sequence[str]) -> None:
    """One legend for all panels, above them."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour_of(index), marker=marker_of(index), linewidth=1.0, label=name)
        for index, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, fontsize=9)


def overcommit_figure(cells: Table, *, by: Sequence[str] = (), note: str = "") -> Figure:
    """Crashes and swap over the realised overcommit, a series for each value of the axes `by`."""
    figure = new_figure(11.0, 5.0)
    left, right = figure.subplots(1, 2)
    draw_rates(figure, left, right, cells, by=by, note=note)
    return figure


def draw_rates(figure: Figure, left: Axes, right: Axes, cells: Table, *, by: Sequence[str], note: str) -> None:
    """Crashes and swap on two panels of a figure; its legend, and what its foot says."""
    crash, swap = "crashes per boot (pod_oom / boots started)", "share of domain time spent swapping"
    rate_over_ratio(left, cells, "crash_per_boot", label=crash, by=by)
    rate_over_ratio(right, cells, "swap_share", label=swap, by=by)
    if by:
        legend(figure, [name for name, _ in series_of(cells, by)])
    foot(figure, sample_size(cells) + (f"\n{note}" if note else ""))


def sample_size(cells: Table) -> str:
    """n, and what the bars are, for the foot of a figure."""
    confidence = float(column(cells, "confidence")[0])
    replications, boots = column(cells, "replications"), column(cells, "boots_started")
    bars = f"bars: {confidence:.0%} intervals over replications"
    if replications.max() < 2:
        bars = "one replication: no intervals"
    return (
        f"n = {span(replications)} replications a cell, {span(boots)} boots; {bars};\n"
        f"hollow: none seen, with a bar up to the exact one-sided {confidence:.0%} bound"
    )
