"""The figure of a run: what the cluster promised, owned and was asked for over time, against what it has.

What        `memory_over_time` draws the cluster's samples, a line for its capacity, and every death of a domain: where
            it happened on the curve of owned memory, and counted below.
Units       Axes in GiB (MiB for small guests) over hours (minutes, seconds for short runs).
Symbols     U usable_pages
Departs     A capacity more than five times what is promised would press the curves flat: then the foot names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.errors import ConfigError
from podcluster.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Table,
    column,
    dress,
    foot,
    memory_scale,
    new_figure,
    time_scale,
)
from podcluster.units import PAGES_PER_GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEATHS: Final[Mapping[str, tuple[str, str]]] = {
    "pod_oom": (RED, "X"),
    "pod_oom_by_other": (PURPLE, "X"),
    "guest_panic": (ORANGE, "P"),
    "ept_violation": (SKY, "D"),
    "host_failed": (INK, "s"),
}
LINES: Final = (
    ("promised", ORANGE, "sum of maxmem"),
    ("owned", BLUE, "held by guests"),
    ("demanded", GREEN, "wanted by guests"),
)
CAPACITY_IN_VIEW: Final = 5.0


class Label(NamedTuple):
    """The name of a line at its right end."""

    value: float
    colour: str
    name: str
    meaning: str


def memory_over_time(
    samples: Table,
    domains: Table,
    *,
    usable_pages: int,
    duration_ns: int,
    title: str,
    note: str = "",
    replication: int = 0,
    warmup_ns: int = 0,
) -> Figure:
    """Promised, owned and demanded memory of the whole cluster over time, against its capacity, with every death.

    The warm-up is drawn on grey: it is shown, and no rate of the run counts it.
    """
    keep = (column(samples, "host_id") == -1) & (column(samples, "replication") == replication)
    if not keep.any():
        raise ConfigError("a figure over time needs samples, got none: run with study.telemetry_s above 0, such as 300")
    # Nothing is promised before the first sample.
    series = {name: _from_zero(column(samples, f"{name}_pages", keep)) for name, _, _ in LINES}
    clock = time_scale(duration_ns)
    times = _from_zero(column(samples, "t_ns", keep)) / clock.divisor
    most = max(float(values.max()) for values in series.values())
    in_view = usable_pages <= CAPACITY_IN_VIEW * most
    memory = memory_scale(max(most, usable_pages if in_view else 0))

    fates = column(domains, "fate").astype(str)
    dead = np.isin(fates, list(DEATHS)) & (column(domains, "replication") == replication)

    figure = new_figure(8.6, 5.0 if dead.any() else 4.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1]) if dead.any() else (figure.subplots(), None)
    dress(axes)
    for part in (axes, below) if warmup_ns else ():
        if part is not None:
            part.axvspan(0, warmup_ns / clock.divisor, color=GREY, alpha=0.12, linewidth=0)
    axes.fill_between(times, series["owned"] / memory.divisor, color=BLUE, alpha=0.18, linewidth=0)
    labels = []
    for name, colour, meaning in LINES:
        axes.plot(times, series[name] / memory.divisor, color=colour, linewidth=1.8)
        labels.append(Label(float(series[name][-1]) / memory.divisor, colour, name, meaning))
    top = most
    if in_view:
        top = max(top, usable_pages)
        axes.axhline(usable_pages / memory.divisor, color=INK, linewidth=1.4, linestyle=(0, (5, 3)))
        labels.append(Label(usable_pages / memory.divisor, INK, "capacity", "usable memory"))
    else:
        note = "; ".join(filter(None, [note, f"capacity {usable_pages / PAGES_PER_GIB:,.0f} GiB, far above"]))
    axes.set_ylim(0, max(top, 1) / memory.divisor * 1.08)  # nothing at all, where no start came to anything
    axes.set_xlim(0, duration_ns / clock.divisor)
    axes.set_ylabel(f"memory [{memory.unit}]")
    _label_ends(axes, labels)
    if below is not None:
        when = column(domains, "end_ns", dead) / clock.divisor
        _deaths(axes, below, when, fates[dead], times, series["owned"] / memory.divisor)
    (below or axes).set_xlabel(f"simulated time [{clock.unit}]")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    if note:
        foot(figure, note)
    return figure


def _from_zero(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.concatenate([[0.0], values.astype(np.float64)])


def _label_ends(axes: Axes, labels: Sequence[Label]) -> None:
    """Name each line at its right end instead of in a legend, pushed apart where two ends are close."""
    low, high = axes.get_ylim()
    gap = (high - low) * 0.115
    ordered = sorted(labels)
    heights: list[float] = []
    for label in ordered:
        heights.append(max(label.value, heights[-1] + gap if heights else low + gap / 2))
    # What was pushed over the top comes back down, from the highest on.
    ceiling = high - gap / 4
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    right = axes.get_xlim()[1]
    for label, height in zip(ordered, heights, strict=True):
        place: dict[str, Any] = {
            "xy": (right, label.value),
            "xytext": (1.025, (height - low) / (high - low)),
            "textcoords": "axes fraction",
            "va": "center",
            "annotation_clip": False,
        }
        leader: dict[str, Any] = {
            "arrowstyle": "-",
            "color": label.colour,
            "linewidth": 0.8,
            "shrinkA": 0,
            "shrinkB": 0,
        }
        axes.annotate(
            f"{label.name}\n",
            color=label.colour,
            fontsize=10,
            fontweight="bold",
            linespacing=1.1,
            arrowprops={**leader, "relpos": (0, 0.5)},
            **place,
        )
        axes.annotate(f"\n({label.meaning})", color=GREY, fontsize=8, linespacing=1.35, **place)


def _deaths(
    axes: Axes, below: Axes, when: NDArray[Any], fates: NDArray[Any], times: NDArray[Any], owned: NDArray[Any]
) -> None:
    """Mark each death on the owned curve, and count them below."""
    from matplotlib.ticker import MaxNLocator

    dress(below)
    right = axes.get_xlim()[1]
    for fate, (colour, marker) in DEATHS.items():
        at = np.sort(when[fates == fate])
        if not len(at):
            continue
        mark: dict[str, Any] = {"marker": marker, "color": colour, "edgecolor": "white", "linewidth": 0.6}
        axes.scatter(at, np.interp(at, times, owned), s=44, zorder=5, clip_on=False, **mark)
        steps = np.concatenate([[0.0], at, [right]])
        counts = np.concatenate([np.arange(len(at) + 1), [len(at)]])
        below.step(steps, counts, where="post", color=colour, linewidth=1.6)
        below.annotate(
            f"{len(at)} {fate}",
            (right, len(at)),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
    below.set_ylim(bottom=0)
    below.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    below.set_ylabel("deaths so far")
