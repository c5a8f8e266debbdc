"""Where boots die: shares of deaths over two axes as heat maps, with counts and intervals in each field.

What        `phase_figure` draws a map for each pair of two more axes: overcommit (maxmem / memory) along, the start of
            the balloon upwards, a column for each guest class, a row for each rate of the balloon.
Units       Axes as configured: seconds, pages per second.
Symbols     k/n deaths of boots; below them the interval over replications in per cent (* pooled, where replications
            agree), or the exact one-sided bound where none died.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from podcluster.report.style import GREY, INK, Table, column, foot, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATIO: Final = "overcommit"
START: Final = "guest.balloon.start_s"
RATE: Final = "guest.balloon.rate_pages_per_s"
GUEST: Final = "guest"
COLOURS: Final = "YlOrRd"


class Spot(NamedTuple):
    """Which cell: a guest, and three numbers."""

    guest: str
    rate: float
    start: float
    ratio: float


class Field(NamedTuple):
    """Deaths among the boots of one cell, with the ends of what is known of their share.

    `pooled`: replications agree, so the ends take every boot for independent.
    """

    deaths: int
    boots: int
    low: float
    high: float
    upper: float
    pooled: bool


def middle(value: Any) -> float:
    """The middle of a range as it stands in an axis' column ("[5, 5]"), or a number."""
    if isinstance(value, str):
        ends = json.loads(value)
        return float(sum(ends) / len(ends)) if isinstance(ends, list) else float(ends)
    return float(value)


def fields_of(cells: Table, keep: Any) -> dict[Spot, Field]:
    """What became of the boots of each cell."""
    guests = [str(value) for value in column(cells, GUEST, keep)]
    rates, starts, ratios = ([middle(value) for value in column(cells, axis, keep)] for axis in (RATE, START, RATIO))
    spots = [Spot(*spot) for spot in zip(guests, rates, starts, ratios, strict=True)]
    found = {}
    rows = np.arange(len(column(cells, GUEST)))[keep]
    for spot, row in zip(spots, rows, strict=True):
        ends = {end: cells[f"crash_per_boot_{end}"][row] for end in ("low", "high", "upper")}
        pooled = ends["low"] is None or bool(np.isnan(ends["low"]))
        low, high = (cells[f"crash_per_boot_{end}{'_pooled' if pooled else ''}"][row] for end in ("low", "high"))
        deaths, boots = (cells[f"crash_per_boot_{name}"][row] for name in ("numerator", "denominator"))
        found[spot] = Field(int(deaths), int(boots), float(low), float(high), float(ends["upper"]), pooled)
    return found


def phase_figure(cells: Table, *, keep: Any = None, note: str = "") -> Figure:
    """A map for each guest (columns) and each rate of the balloon (rows)."""
    keep = np.ones(len(column(cells, GUEST)), dtype=bool) if keep is None else keep
    fields = fields_of(cells, keep)
    guests = list(dict.fromkeys(spot.guest for spot in fields))
    rates, starts = sorted({spot.rate for spot in fields}), sorted({spot.start for spot in fields})
    ratios = sorted({spot.ratio for spot in fields})
    figure = new_figure(2.1 + 2.3 * len(guests), 1.3 + 2.2 * len(rates))
    grid = figure.subplots(len(rates), len(guests), squeeze=False, sharex=True, sharey=True)
    images = []
    for row, rate in enumerate(rates):
        for at, guest in enumerate(guests):
            axes = grid[row][at]
            images.append(_map(axes, fields, guest, rate, starts, ratios))
            if row == 0:
                axes.set_title(guest, fontsize=10)
            if at == 0:
                axes.set_ylabel(f"{rate:,.0f} pages/s\nballoon starts at [s]", fontsize=9)
            if row == len(rates) - 1:
                axes.set_xlabel("maxmem / memory", fontsize=9)
    bar = figure.colorbar(images[0], ax=grid, shrink=0.8, pad=0.01)
    bar.set_label("share of boots that Xen killed")
    foot(figure, f"{sample_words(cells, keep)}{chr(10) + note if note else ''}")
    return figure


def race_in_words(cells: Table, *, keep: Any = None) -> str:
    """A Markdown table: by guest and ratio, deaths of boots from the kindest to the harshest balloon that was tried."""
    keep = np.ones(len(column(cells, GUEST)), dtype=bool) if keep is None else keep
    fields = fields_of(cells, keep)
    ratios = sorted({spot.ratio for spot in fields})
    lines = [
        f"| guest | {' | '.join(f'maxmem / memory {ratio:g}' for ratio in ratios)} |",
        f"| --- |{' --- |' * len(ratios)}",
    ]
    for guest in dict.fromkeys(spot.guest for spot in fields):
        words = []
        for ratio in ratios:
            some = [found for spot, found in fields.items() if (spot.guest, spot.ratio) == (guest, ratio)]
            shares = sorted(some, key=lambda found: found.deaths / found.boots)
            least, most = shares[0], shares[-1]
            words.append(
                f"none of {sum(found.boots for found in some):,}"
                if most.deaths == 0
                else f"{least.deaths}/{least.boots} ({ends(least)}) to {most.deaths}/{most.boots} ({ends(most)})"
            )
        lines.append(f"| {guest} | {' | '.join(words)} |")
    return "\n".join(["Boots that Xen kills, from the kindest to the harshest balloon:", "", *lines])


def _map(
    axes: Axes,
    fields: dict[Spot, Field],
    guest: str,
    rate: float,
    starts: Sequence[float],
    ratios: Sequence[float],
) -> Any:
    shares = np.full((len(starts), len(ratios)), np.nan)
    for y, start in enumerate(starts):
        for x, ratio in enumerate(ratios):
            found = fields.get(Spot(guest, rate, start, ratio))
            if found is None or not found.boots:
                continue
            shares[y, x] = found.deaths / found.boots
            dark = "white" if shares[y, x] > 0.6 else INK
            axes.text(x, y + 0.12, f"{found.deaths}/{found.boots}", ha="center", va="center", fontsize=7.5, color=dark)
            axes.text(x, y - 0.22, ends(found), ha="center", va="center", fontsize=5.5, color=dark)
    image = axes.imshow(shares, origin="lower", aspect="auto", cmap=COLOURS, vmin=0, vmax=1)
    axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axes.set_yticks(range(len(starts)), [f"{start:g}" for start in starts])
    axes.tick_params(length=0, colors=INK)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    return image


def ends(found: Field) -> str:
    """The interval in per cent, or the one bound there is."""
    if found.deaths == 0:
        return f"< {found.upper:.0%}"
    if found.deaths == found.boots:
        return f"> {found.low:.0%} *"
    return f"{100 * found.low:.0f}-{100 * found.high:.0f}%{' *' if found.pooled else ''}"


def sample_words(cells: Table, keep: Any) -> str:
    """What n is, and what stands below it."""
    replications = int(column(cells, "replications", keep)[0])
    confidence = float(column(cells, "confidence", keep)[0])
    return (
        f"deaths/boots of {replications} replications a field; below: {confidence:.0%} interval over replications, "
        f"* pooled (Wilson) where replications agree,\nor the exact one-sided {confidence:.0%} bound where none died"
    )
