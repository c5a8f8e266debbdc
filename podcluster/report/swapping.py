"""What a swap device is worth: applications killed without one, time lost with one, and for how long.

What        `prices_of` works out, for each overcommit and device, how often an application is killed, how many guests
            lose time to swapping, and how much each of those loses; a table and a figure of it.
Units       Kills per domain-day; times in seconds; slowdown is time since boot over the part not lost.
Methods     Kills per domain-day carry the interval over replications [ST-1]; what one guest loses is given by its
            distribution over the guests that lose any, pooled over replications: it says how it goes for one, not how
            sure we are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.report.style import MARKERS, SERIES, dress, foot, new_figure, span, with_ends
from podcluster.study.statistics import DAY_S, ratio_interval
from podcluster.units import NS_PER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVICE: Final = "swap"
RATIO: Final = "overcommit"


class Price(NamedTuple):
    """One overcommit with one device; the ends of an interval are None where there is none."""

    ratio: float
    device: str
    guests: int
    replications: int
    kills_per_day: float
    low: float | None
    high: float | None
    killed_guests: int
    lost_s: NDArray[np.float64]  # of each guest that lost any, ascending
    slowdown: NDArray[np.float64]  # of the same guests, ascending

    def share(self, values: NDArray[np.float64], part: float) -> float:
        """A quantile of what these guests lost; nan where none did."""
        return float(np.quantile(values, part)) if len(values) else float("nan")


def prices_of(domains: Mapping[str, Any], confidence: float) -> list[Price]:
    """A line for each overcommit and device, in the order of the sweep."""
    ratios, devices = np.asarray(domains[RATIO], dtype=np.float64), np.asarray(domains[DEVICE], dtype=object)
    lived = np.array([start is not None for start in domains["boot_start_ns"]])
    found = []
    for ratio, device in dict.fromkeys(zip(ratios.tolist(), devices.tolist(), strict=True)):
        keep = (ratios == ratio) & (devices == device) & lived
        start_ns = np.asarray(domains["boot_start_ns"][keep], dtype=np.float64)
        days = (domains["end_ns"][keep] - start_ns) / NS_PER_S / DAY_S
        kills, replication = domains["oom_kills"][keep], domains["replication"][keep]
        numbers = np.unique(replication)
        sums = [[float(values[replication == number].sum()) for number in numbers] for values in (kills, days)]
        rate, low, high = ratio_interval(sums[0], sums[1], confidence)
        lost_ns = domains["swap_ns"][keep]
        found.append(
            Price(
                ratio,
                device,
                int(keep.sum()),
                len(numbers),
                rate,
                low if kills.any() else None,
                high if kills.any() else None,
                int((kills > 0).sum()),
                np.sort(lost_ns[lost_ns > 0] / NS_PER_S),
                np.sort(domains["slowdown"][keep][lost_ns > 0].astype(np.float64)),
            )
        )
    return found


def in_words(prices: Sequence[Price], confidence: float) -> str:
    """A Markdown table of the answer."""
    heads = [
        "overcommit",
        "swap",
        "guests",
        f"kills per domain-day ({confidence:.0%})",
        "guests with a kill",
        "guests that lose time",
        "of those, lost: median [s]",
        "95 of 100 at most [s]",
        "slowdown: median",
        "95 of 100 at most",
    ]
    lines = [f"| {' | '.join(heads)} |", f"| ---: | --- |{' ---: |' * (len(heads) - 2)}"]
    for one in prices:
        kills = with_ends(one.kills_per_day, one.low, one.high)
        lost = [f"{one.share(one.lost_s, part):,.0f}" if len(one.lost_s) else "-" for part in (0.5, 0.95)]
        slow = [f"{one.share(one.slowdown, part):.2f}" if len(one.slowdown) else "-" for part in (0.5, 0.95)]
        lines.append(
            f"| {one.ratio:g} | {one.device} | {one.guests:,} | {kills} "
            f"| {one.killed_guests:,} | {len(one.lost_s):,} | {' | '.join(lost)} | {' | '.join(slow)} |"
        )
    return "\n".join(lines)


def swap_figure(prices: Sequence[Price], *, note: str = "") -> Figure:
    """Kills over the overcommit, and how much of its time a guest that swaps loses, as a share of guests."""
    devices = list(dict.fromkeys(one.device for one in prices))
    figure = new_figure(12.0, 4.6)
    left, middle, right = figure.subplots(1, 3)
    for axes in (left, middle, right):
        dress(axes)
    for index, device in enumerate(devices):
        look: dict[str, Any] = {"color": SERIES[index], "marker": MARKERS[index]}
        some = sorted((one for one in prices if one.device == device), key=lambda one: one.ratio)
        ratios = [one.ratio for one in some]
        rates = np.array([one.kills_per_day for one in some])
        low, high = (
            np.array([one.kills_per_day if end is None else end for one, end in zip(some, ends, strict=True)])
            for ends in ([one.low for one in some], [one.high for one in some])
        )
        arms = np.maximum(np.stack([rates - low, high - rates]), 0.0)
        left.errorbar(ratios, rates, yerr=arms, linewidth=1.2, capsize=3, label=device, **look)
        middle.plot(ratios, [len(one.lost_s) / one.guests for one in some], linewidth=1.2, **look)
        slowest = some[-1].slowdown
        if len(slowest):
            above = 1 - np.arange(len(slowest)) / len(slowest)
            right.step(slowest, above, where="post", color=SERIES[index], linewidth=1.4)
    left.set_xlabel("overcommit R")
    left.set_ylabel("applications killed per domain-day")
    left.set_ylim(bottom=0)
    left.legend(frameon=False, title="swap")
    middle.set_xlabel("overcommit R")
    middle.set_ylabel("share of guests that lose time to swapping")
    middle.set_ylim(bottom=0)
    right.set_xscale("log")
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter("")
    right.set_xlabel(f"slowdown, overcommit {max(one.ratio for one in prices):g}")
    right.set_ylabel("share of the guests that swap with at least that")
    right.set_ylim(0, 1.02)
    guests = [one.guests for one in prices]
    foot(
        figure,
        f"n = {span(guests)} guests a point, in {prices[0].replications} replications; "
        f"bars: intervals over replications{chr(10) + note if note else ''}",
    )
    return figure
