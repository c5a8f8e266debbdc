"""Paired differences as people read them: from the table `pairs`, or pooled over axes from the machines themselves.

What        `pair_table` is the terminal's: a line for each cell that is compared, or for each group of cells where
            there are many. `pooled` compares whole groups of cells with their baselines, machine by machine.
Units       As the measure's (study/pairs.py).
Symbols     * an interval that takes every machine for independent [ST-7], where there is none over replications [ST-5]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from podcluster.config import AxisValue
from podcluster.report import dataset
from podcluster.report.style import in_full, new_table
from podcluster.study.pairs import MEASURES, Difference, Machines, as_text, compare, machines_of, together

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

MOST_LINES: Final = 40
MOST_PANELS: Final = 4  # in a row


class Pooled(NamedTuple):
    """A group of cells against the same of the baseline: the values that name it, and what differs."""

    axes: dict[str, AxisValue]
    cells: int
    differences: dict[str, Difference]


def cells_of(folder: Path) -> dict[str, dict[str, AxisValue]]:
    """The axes of each cell by its name, in the order of the sweep."""
    axes: dict[str, dict[str, AxisValue]] = dataset.provenance(folder)["cells"]
    return {str(cell): axes[cell] for cell in dataset.columns(folder, "cells")["cell"]}


def pooled(folder: Path, baseline: str, by: Sequence[str], confidence: float) -> list[Pooled]:
    """Compare the cells of each combination of the axes `by` with their baselines, all other axes pooled.

    `baseline` is "axis=value"; its axis is one of `by`, whether named or not. A replication of all pooled cells
    together is one unit.
    """
    axes_of_cells = cells_of(folder)
    name, _, wanted = baseline.partition("=")
    machines = _machines(folder)

    def beside(axes: dict[str, AxisValue]) -> tuple[AxisValue, ...]:
        return tuple(value for axis, value in axes.items() if axis != name)

    at_baseline = {
        beside(axes): machines[cell] for cell, axes in axes_of_cells.items() if as_text(axes[name]) == wanted
    }
    keys = [axis for axis in next(iter(axes_of_cells.values())) if axis in by or axis == name]
    groups: dict[tuple[AxisValue, ...], list[tuple[Machines, Machines]]] = {}
    for cell, axes in axes_of_cells.items():
        if as_text(axes[name]) != wanted:
            pair = (machines[cell], at_baseline[beside(axes)])
            groups.setdefault(tuple(axes[axis] for axis in keys), []).append(pair)
    found = []
    for values, pairs in groups.items():
        here, there = (together([pair[side] for pair in pairs]) for side in (0, 1))
        differences = dict(compare(here, there, confidence))
        found.append(Pooled(dict(zip(keys, values, strict=True)), len(pairs), differences))
    return found


def _machines(folder: Path) -> dict[str, Machines]:
    """The machines of every cell of a sweep."""
    stored = dataset.columns(folder, "domains")
    names = stored["cell"]
    found = {}
    # Rows of one cell lie together.
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1])) if len(names) else np.empty(0, np.int64)
    for start, end in zip(starts, np.append(starts[1:], len(names)), strict=True):
        found[str(names[start])] = machines_of({name: values[start:end] for name, values in stored.items()})
    return found


def names_of(axes_of_cells: dict[str, dict[str, AxisValue]]) -> list[str]:
    """Axes whose values are names, not numbers or lists of them: those worth a line of their own."""
    cells = list(axes_of_cells.values())
    return [
        axis
        for axis in cells[0]
        if all(isinstance(cell[axis], str) and not str(cell[axis]).startswith("[") for cell in cells)
    ]


def pair_table(folder: Path, origin: dict[str, Any]) -> Table:
    """A line for each cell against its baseline, or for each group of cells where those are too many."""
    axes_of_cells, study = cells_of(folder), origin["config"]["study"]
    baseline, confidence = study["baseline"], study["confidence"]
    name = baseline.partition("=")[0]
    by = list(next(iter(axes_of_cells.values())))
    lines = pooled(folder, baseline, by, confidence)
    if len(lines) > MOST_LINES:
        lines = pooled(folder, baseline, names_of(axes_of_cells), confidence)
    axes = [axis for axis in by if axis in lines[0].axes]
    axes = [axis for axis in axes if axis == name or len({as_text(line.axes[axis]) for line in lines}) > 1]
    over = "" if len(lines[0].axes) == len(by) else ", all other axes pooled"
    title = f"against {baseline}, machine by machine{over}"
    heads = [axis.rpartition(".")[2] for axis in axes]
    table = new_table(title, *heads, "of a machine", "there", "here", "difference", f"{confidence:.0%}", "differ")
    for line in lines:
        for at, (measure, found) in enumerate(_worth_a_line(line)):
            names = [as_text(line.axes[axis]) if at == 0 else "" for axis in axes]
            table.add_row(*names, _head(measure), *in_words(found))
    table.columns[len(heads)].justify = "left"
    table.caption = "* of all machines, as if each were independent: no interval over replications"
    table.caption_justify = "left"
    return table


def _worth_a_line(line: Pooled) -> list[tuple[str, Difference]]:
    """Deaths always; else what differs for some machine."""
    return [
        (measure, found)
        for measure, found in line.differences.items()
        if measure == "died" or found.machines_higher + found.machines_lower
    ]


def that_happened(lines: Sequence[Pooled], measures: Sequence[str]) -> tuple[str, ...]:
    """Those of the measures that are not zero for all machines, here and at the baseline."""
    return tuple(
        measure
        for measure in measures
        if any(found.value or found.baseline_value for line in lines if (found := line.differences.get(measure)))
    )


def _head(measure: str) -> str:
    unit = MEASURES[measure].unit
    return measure if unit == "1" or measure.endswith(f"_{unit.lower()}") else f"{measure} [{unit}]"


def in_words(found: Difference) -> tuple[str, str, str, str, str]:
    """Both means, their difference, its interval (over replications, or pooled *), and how many machines differ."""
    low, high, mark = found.low, found.high, ""
    if low is None or high is None:
        low, high, mark = found.low_pooled, found.high_pooled, " *"
    ends = "-" if low is None or high is None else f"{in_full(low, '+.2g')} to {in_full(high, '+.2g')}{mark}"
    differ = found.machines_higher + found.machines_lower
    return (
        in_full(found.baseline_value, ".3g"),
        in_full(found.value, ".3g"),
        in_full(found.difference, "+.2g") if found.difference else "0",
        ends,
        f"{differ:,} of {found.machines:,}",
    )


def pooled_in_words(lines: Sequence[Pooled], measures: Sequence[str], baseline: str, confidence: float) -> str:
    """A Markdown table for a notebook: these measures of each line, those that no machine has left out."""
    axes = list(lines[0].axes)
    heads = [*(axis.rpartition(".")[2] for axis in axes), "of a machine", baseline, "here", "difference"]
    out = [
        f"| {' | '.join(heads)} | {confidence:.0%} | machines that differ |",
        f"|{' --- |' * (len(axes) + 1)}{' ---: |' * 3} --- | ---: |",
    ]
    for line in lines:
        for measure in measures:
            if measure in line.differences:
                words = [*(as_text(line.axes[axis]) for axis in axes), _head(measure)]
                out.append(f"| {' | '.join([*words, *in_words(line.differences[measure])])} |")
    return "\n".join([*out, "", "\\* of all machines, as if each were independent: no interval over replications"])


def paired_figure(lines: Sequence[Pooled], measures: Sequence[str], baseline: str, *, note: str = "") -> Figure:
    """A panel for each measure, a line for each group of cells: what differs from the baseline."""
    from podcluster.report.forest import Line, forest
    from podcluster.report.style import SERIES, foot, new_figure

    axis = baseline.partition("=")[0]
    others = [name for name in lines[0].axes if name != axis and len({as_text(one.axes[name]) for one in lines}) > 1]
    values = list(dict.fromkeys(as_text(one.axes[axis]) for one in lines))
    rows = -(-len(measures) // MOST_PANELS)
    wide = -(-len(measures) // rows)
    figure = new_figure(2.6 + 2.9 * wide, 0.5 + rows * (1.0 + 0.24 * len(lines)))
    panels = figure.subplots(rows, wide, squeeze=False, sharey=True).ravel()
    for panel in panels[len(measures) :]:
        panel.remove()
    for panel, measure in zip(panels, measures, strict=False):
        drawn = [
            Line(
                ", ".join([*(as_text(one.axes[name]) for name in others), as_text(one.axes[axis])]),
                SERIES[values.index(as_text(one.axes[axis])) % len(SERIES)],
                one.differences.get(measure),
            )
            for one in lines
        ]
        forest(panel, drawn, label=f"{_head(measure)},\nless that of {baseline}")
    found = [one for line in lines for one in line.differences.values()]
    confidence = "intervals over replications; hollow: pooled over machines, where replications agree"
    foot(
        figure,
        f"n = {max(one.machines for one in found):,} pairs of machines a line, in "
        f"{max(one.replications for one in found)} replications; {confidence}{chr(10) + note if note else ''}",
    )
    return figure
