"""How starts went: how many never came up, and how long the others took, from when they were asked for.

What        `starts_of` sorts boot attempts by the axes of a sweep; a table and two figures of it: `starts_figure` along
            a number such as the spread of a storm, `away_figure` for those that a failure took down. With `origin="ha"`
            the attempts are those of domains that lost their host, and their time counts from its failure.
Units       Seconds; shares of starts.
Methods     A share carries the interval over replications [ST-1], where it is neither none nor all; times are given by
            their distribution over starts, pooled over replications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.report.style import GREY, MARKERS, SERIES, dress, foot, new_figure, with_ends
from podcluster.study.statistics import ratio_interval
from podcluster.units import NS_PER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST: Final = 0.95
LANE: Final = 0.26  # between series of one row


class Starts(NamedTuple):
    """One cell: its values of the axes, and what came of its starts; None are ends of an interval that is not there."""

    values: tuple[Any, ...]
    asked: int
    failed: int
    share: float
    low: float | None
    high: float | None
    up_s: NDArray[np.float64]  # of those that came up, ascending
    replications: int

    def quantile(self, part: float) -> float:
        """How long a start took; nan where none came up."""
        return float(np.quantile(self.up_s, part)) if len(self.up_s) else float("nan")


def starts_of(
    domains: Mapping[str, Any], by: Sequence[str], confidence: float, *, origin: str = "boot"
) -> list[Starts]:
    """A line for each combination of the axes `by`, in the order of the sweep."""
    asked_ns = _failures(domains) if origin == "ha" else domains["arrival_ns"]
    mine = np.array([one == origin for one in domains["origin"]])
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in np.flatnonzero(mine).tolist():
        groups.setdefault(tuple(domains[name][row] for name in by), []).append(row)
    found = []
    for values, rows in groups.items():
        here = np.array(rows)
        done = domains["boot_done_ns"][here]
        up = np.array([one is not None for one in done])
        replication = domains["replication"][here]
        numbers = np.unique(replication)
        sums = [[float(part[replication == number].sum()) for number in numbers] for part in (~up, np.ones(len(up)))]
        share, low, high = ratio_interval(sums[0], sums[1], confidence, most=1.0)
        settled = not 0 < share < 1
        waited_s = (done[up].astype(np.float64) - asked_ns[here][up].astype(np.float64)) / NS_PER_S
        low, high = (None, None) if settled else (low, high)
        found.append(Starts(values, len(here), int((~up).sum()), share, low, high, np.sort(waited_s), len(numbers)))
    return found


def _failures(domains: Mapping[str, Any]) -> NDArray[Any]:
    """For each attempt, when the one before it ended."""
    key = list(
        zip(domains["cell"], domains["replication"], domains["domain_id"], domains["attempt"].tolist(), strict=True)
    )
    ended = dict(zip(key, domains["end_ns"].tolist(), strict=True))
    return np.array([ended.get((*one[:3], one[3] - 1), 0) for one in key], dtype=np.int64)


def in_words(starts: Sequence[Starts], by: Sequence[str], confidence: float) -> str:
    """A Markdown table of the answer."""
    names = [name.rpartition(".")[2] for name in by]
    heads = [*names, "starts", f"never up ({confidence:.0%})", "up after: median [s]", f"{WORST:.0%} at most [s]"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(by)}{' ---: |' * 4}"]
    for one in starts:
        times = [f"{one.quantile(part):,.0f}" if len(one.up_s) else "-" for part in (0.5, WORST)]
        values = " | ".join(f"{value}" for value in one.values)
        lines.append(f"| {values} | {one.asked:,} | {with_ends(one.share, one.low, one.high)} | {' | '.join(times)} |")
    return "\n".join(lines)


def starts_figure(starts: Sequence[Starts], by: Sequence[str], *, note: str = "") -> Figure:
    """Starts that never came up, and how long the others took (median, and the 95th percentile dashed), over the last
    axis; a series for each combination of the others.
    """
    figure = new_figure(11.0, 4.6)
    left, right = figure.subplots(1, 2)
    series = list(dict.fromkeys(one.values[:-1] for one in starts))
    for axes in (left, right):
        dress(axes)
        axes.set_xlabel(by[-1])
    for index, values in enumerate(series):
        some = [one for one in starts if one.values[:-1] == values]
        at = [float(one.values[-1]) for one in some]
        shares = np.array([one.share for one in some])
        ends = [np.array([s if e is None else e for s, e in zip(shares, end, strict=True)]) for end in (
            [one.low for one in some], [one.high for one in some])]  # fmt: skip
        arms = np.maximum(np.stack([shares - ends[0], ends[1] - shares]), 0.0)
        look: dict[str, Any] = {"color": SERIES[index % len(SERIES)], "marker": MARKERS[index % len(MARKERS)]}
        label = ", ".join(f"{value}" for value in values) or None
        left.errorbar(at, shares, yerr=arms, linewidth=1.2, capsize=3, label=label, **look)
        right.plot(at, [one.quantile(0.5) for one in some], linewidth=1.2, **look)
        right.plot(at, [one.quantile(WORST) for one in some], linewidth=1.2, linestyle="--", **look)
    left.set_ylabel("share of starts that never came up")
    left.set_ylim(bottom=0)
    right.set_ylabel("time until up [s]: median, 95% dashed")
    right.set_ylim(bottom=0)
    if len(series) > 1:
        left.legend(frameon=False, fontsize=8.5, title=", ".join(by[:-1]))
    replications = max((one.replications for one in starts), default=0)
    foot(figure, "; ".join(filter(None, [f"n = {replications} replications a cell", note])))
    return figure


def away_figure(starts: Sequence[Starts], by: Sequence[str], *, marks: Mapping[str, float], note: str = "") -> Figure:
    """How long domains that lost their host were away, and how many are back: a row for each value of the last axis.

    A dot at the median, a bar from the 5th to the 95th percentile; `marks` are instants after the failure [s] by name.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator

    series = list(dict.fromkeys(one.values[:-1] for one in starts))
    rows = list(dict.fromkeys(one.values[-1] for one in starts))
    figure = new_figure(9.6, 0.24 * len(starts) + 0.2 * len(rows) + 1.5)
    axes = figure.subplots()
    dress(axes)
    axes.grid(False, axis="y")
    for one in starts:
        index = series.index(one.values[:-1])
        lane = rows.index(one.values[-1]) + (index - (len(series) - 1) / 2) * LANE
        colour = SERIES[index % len(SERIES)]
        if len(one.up_s):
            ends = [one.quantile(part) for part in (1 - WORST, WORST)]
            axes.plot(ends, [lane] * 2, color=colour, linewidth=3.5, alpha=0.45, solid_capstyle="butt")
            axes.plot(one.quantile(0.5), lane, MARKERS[index % len(MARKERS)], color=colour, markersize=6)
        said = f"{len(one.up_s)} of {one.asked} back" + (
            f", half in {one.quantile(0.5):,.0f} s" if len(one.up_s) else ""
        )
        axes.annotate(said, (1.01, lane), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter("")
    seen = [float(end) for one in starts if len(one.up_s) for end in one.up_s[[0, -1]]] + list(marks.values())
    if seen:
        axes.set_xlim(min(seen) / 1.4, max(seen) * 1.4)
    for name, at_s in marks.items():
        axes.axvline(at_s, color=GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
        axes.annotate(
            name, (at_s, 1.01), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8.5, color=GREY
        )
    axes.set_yticks(range(len(rows)), [f"{value}" for value in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_ylabel(by[-1].rpartition(".")[2])
    axes.set_xlabel("time away [s], from the failure of the host until up again: median, and 5 to 95 of 100")
    if len(series) > 1:
        names = [", ".join(f"{value}" for value in values) for values in series]
        handles = [
            Line2D([], [], color=SERIES[at % len(SERIES)], marker=MARKERS[at % len(MARKERS)], linewidth=3.5, alpha=0.7)
            for at in range(len(series))
        ]
        axes.legend(handles, names, frameon=False, fontsize=8.5, title=", ".join(by[:-1]), loc="center")
    replications = max((one.replications for one in starts), default=0)
    foot(figure, "; ".join(filter(None, [f"n = {replications} replications a cell", note])))
    return figure
