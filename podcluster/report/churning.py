"""What a stream of machines needs and costs: hosts, crashes, time in swap and refusals, cell by cell.

What        `in_words`, a Markdown table; `churn_figure`, hosts over R beside the two prices of fewer of them.
Units       Hosts; rates as the columns say, with the interval over replications where there is one.
Methods     Replications are other days with many more machines or fewer, so an interval of their hosts says nothing of
            R. Hosts are therefore set against those of the lowest R on the same days, a ratio of sums with the interval
            of [ST-1], and each replication is a line of its own in the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from podcluster.report.over_ratio import colour_of, draw_rates, marker_of, series_of
from podcluster.report.style import Table, column, dress, new_figure, with_ends, with_interval
from podcluster.study.statistics import ratio_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATIO: Final = "overcommit"

Row = Mapping[str, Any]


class Share(NamedTuple):
    """Hosts used over those of the lowest R; the ends are None where there is no interval."""

    value: float
    low: float | None
    high: float | None


def hosts_against_least(cells: Sequence[Row], runs: Sequence[Row], by: Sequence[str]) -> dict[str, Share]:
    """By cell: hosts used over those of the cell with the lowest overcommit and the same other axes of `by`."""
    used: dict[str, list[int]] = {}
    for run in sorted(runs, key=lambda run: run["replication"]):
        used.setdefault(run["cell"], []).append(run["hosts_used_max"])
    others = [axis for axis in by if axis != RATIO]
    found = {}
    for cell in cells:
        same = [other for other in cells if all(other[axis] == cell[axis] for axis in others)]
        least = min(same, key=lambda other: float(other[RATIO]))
        here, there = used[cell["cell"]], used[least["cell"]]
        if not any(there):
            continue
        value, low, high = ratio_interval(here, there, cell["confidence"])
        found[cell["cell"]] = Share(value, *((None, None) if low == high else (low, high)))
    return found


def in_words(cells: Sequence[Row], runs: Sequence[Row], by: Sequence[str]) -> str:
    """A line for each cell, in the order of the sweep."""
    level = f"{cells[0]['confidence']:.0%}"
    shares = hosts_against_least(cells, runs, by) if RATIO in by else {}
    compared = [f"of those at the lowest {RATIO} ({level})"] if shares else []
    heads = [*by, "hosts used", "no packing below", *compared, "static ratio", "boots", "crashes per boot"]
    heads += [f"at most ({level})", "swap share", "starts refused"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(by)}{' ---: |' * (len(heads) - len(by))}"]
    for cell in cells:
        upper = cell["crash_per_boot_upper"]
        numbers = [f"{cell['hosts_used']:.1f}", f"{cell['hosts_bound']:.1f}"]
        if shares:
            share = shares.get(cell["cell"])
            numbers.append("-" if share is None else with_ends(*share))
        numbers += [
            f"{cell['static_ratio']:.2f}",
            f"{cell['boots_started']:,}",
            with_interval(cell, "crash_per_boot"),
            "-" if upper is None else f"{upper:.2g}",
            with_interval(cell, "swap_share"),
            with_interval(cell, "start_refused"),
        ]
        lines.append(f"| {' | '.join(str(cell[name]) for name in by)} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def churn_figure(cells: Table, runs: Sequence[Row], *, by: Sequence[str] = (), note: str = "") -> Figure:
    """Hosts over the overcommit asked for, then crashes and swap over the one reached; a series for each value of `by`,
    the axes beside `overcommit`.
    """
    figure = new_figure(14.0, 4.8)
    left, middle, right = figure.subplots(1, 3)
    _hosts_over_ratio(left, cells, runs, by)
    draw_rates(figure, middle, right, cells, by=by, note=note)
    return figure


def _hosts_over_ratio(axes: Axes, cells: Table, runs: Sequence[Row], by: Sequence[str]) -> None:
    """Most hosts in use at once, its mean with a marker and each replication thin, and the mean bound, dashed."""
    dress(axes)
    used = {(run["cell"], run["replication"]): run["hosts_used_max"] for run in runs}
    replications = sorted({run["replication"] for run in runs})
    for index, (_, keep) in enumerate(series_of(cells, by)):
        some = sorted(
            zip(*(column(cells, name, keep) for name in (RATIO, "cell", "hosts_used", "hosts_bound")), strict=True),
            key=lambda one: one[0],
        )
        at, names, means, bounds = zip(*some, strict=True)
        colour = colour_of(index)
        for replication in replications if len(replications) > 1 else ():
            thin = [used[name, replication] for name in names]
            label = "each replication" if index == 0 and replication == replications[0] else None
            axes.plot(at, thin, color=colour, linewidth=0.8, alpha=0.45, label=label)
        first = index == 0
        axes.plot(at, means, color=colour, marker=marker_of(index), linewidth=1.8, label="mean" if first else None)
        fewest = "no packing below (mean)" if first else None
        axes.plot(at, bounds, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), label=fewest)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("overcommit R (asked for)")
    axes.set_ylabel("most hosts in use at once")
    axes.legend(frameon=False, fontsize=8.5)
