"""The figures of a run or sweep, from its results: `podcluster figure DIR`.

What        A run gets `memory_over_time` of its first replication, an experiment the figures that answer it, any other
            sweep `overcommit_figure` of its cells. The first is written as `figure.png` and `figure.svg` beside
            `results`, a second under its own name.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podcluster.arguments import OneLineParser
from podcluster.io import load
from podcluster.report import churning, dataset, evacuated, field_crashes, hazards, phase, starts, swapping
from podcluster.report.paired import Pooled, paired_figure, pooled, that_happened
from podcluster.report.style import time_scale
from podcluster.units import PAGES_PER_GIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

NAME: Final = "figure"
STARTS: Final[dict[str, tuple[list[str], str]]] = {
    "boot_storm": (["controller", "overcommit", "workload.boot_spread_s"], "boot"),
    "host_failure": (["controller", "overcommit"], "ha"),
}
"""By experiment: the axes of its starts, of which the last is drawn along, and which starts they are."""
PAIRED: Final = {
    "eras": (("died", "sweeps", "splintered_2m", "boot_s"), ("guest",)),
    "scrubbed": (("died", "sweeps", "splintered_2m"), ("guest", "overcommit")),
    "controllers": (("refused", "died", "swap_s", "slowdown", "moved_gib"), ("controller",)),
    "assumptions": (("died", "swap_s", "oom_kills", "boot_s"), ("guest", "overcommit")),
}
"""Experiments that are about a change: what of a machine it changes, and the axes that are not pooled."""
RARE: Final = {"controllers": ("pod_oom_by_other", "guest_panic", "ept_violation", "oom_kills")}
"""What of a machine such a change may change, too, but need not: it is shown where it happens at all."""


def draw(folder: Path) -> list[Path]:
    """Draw the figure of the results in `folder` and write it beside them; raise ConfigError where it cannot be."""
    from podcluster.report.style import save

    origin = dataset.provenance(folder)
    axes = next(iter(origin["cells"].values()))
    figures = sweep_figures(folder, origin) if axes else {NAME: run_figure(folder, origin)}
    beside = load.results_folder(folder).parent
    return [file for name, figure in figures.items() for file in save(figure, beside / name)]


def run_figure(folder: Path, origin: dict[str, Any]) -> Figure:
    """Memory over time of the first replication."""
    from podcluster.report.over_time import memory_over_time

    runs = dataset.rows(folder, "runs")
    first = runs[0]
    config = origin["config"]
    conditions = [condition(first), held(config), not_counted([first["warmup_ns"]]), f"seed {origin['seed']}"]
    if len(runs) > 1:
        conditions.append(f"replication 1 of {len(runs)}")
    return memory_over_time(
        dataset.columns(folder, "samples"),
        dataset.columns(folder, "domains"),
        usable_pages=first["usable_pages"],
        duration_ns=first["duration_ns"],
        warmup_ns=first["warmup_ns"],
        title=heading(config, runs[:1]),
        note="; ".join(filter(None, conditions)),
    )


def sweep_figures(folder: Path, origin: dict[str, Any]) -> dict[str, Figure]:
    """The figures of the experiment, by name; else rates over the realised ratio."""
    experiment = origin["config"]["experiment"]
    axes = set(axes_of(origin))
    note = sweep_note(folder, origin)
    if field_crashes.AXIS in axes:
        return {NAME: field_crashes.crash_figure(field_crashes.verdicts(dataset.rows(folder, "domains")))}
    if {phase.GUEST, phase.RATIO, phase.START, phase.RATE} <= set(next(iter(origin["cells"].values()))):
        cells = dataset.columns(folder, "cells")
        as_is = cells[hazards.AXIS] == hazards.AS_IS if hazards.AXIS in cells else None
        figures = {NAME: phase.phase_figure(cells, keep=as_is, note=note)}
        if hazards.AXIS in axes:
            figures["hazards"] = hazards.hazard_figure(hazards.of_sweep(folder)[1], note=note)
        return figures
    if {swapping.DEVICE, swapping.RATIO} == axes:
        prices = swapping.prices_of(dataset.columns(folder, "domains"), origin["config"]["study"]["confidence"])
        return {NAME: swapping.swap_figure(prices, note=note)}
    if experiment in STARTS and STARTS[experiment][0][-1] in axes:
        return {NAME: start_figure(folder, origin)}
    if experiment == "evacuation":
        by = list(axes_of(origin))
        left = evacuated.evacuations(dataset.columns(folder, "events"), dataset.columns(folder, "domains"), by)
        return {NAME: evacuated.evacuation_figure(left, by, note=note)}
    if experiment == "churn_azure" and churning.RATIO in axes:
        return {NAME: hosts_figure(folder, origin)}
    if experiment in PAIRED and origin["config"]["study"]["baseline"] is not None:
        return {NAME: experiment_figure(folder, origin, note)}
    return {NAME: sweep_figure(folder, origin)}


def experiment_figure(folder: Path, origin: dict[str, Any], note: str = "") -> Figure:
    """What differs from the baseline, in the measures that the experiment is about."""
    experiment, study = origin["config"]["experiment"], origin["config"]["study"]
    lines = pooled(folder, study["baseline"], PAIRED[experiment][1], study["confidence"])
    return paired_figure(lines, experiment_measures(lines, experiment), study["baseline"], note=note)


def experiment_measures(lines: Sequence[Pooled], experiment: str) -> tuple[str, ...]:
    """What the experiment is about, and what else happened."""
    return PAIRED[experiment][0] + that_happened(lines, RARE.get(experiment, ()))


def sweep_figure(folder: Path, origin: dict[str, Any]) -> Figure:
    """Rates over the realised ratio, a series for each combination of the axes beside `overcommit`."""
    from podcluster.report.over_ratio import overcommit_figure

    by = [name for name in axes_of(origin) if name != "overcommit"]
    return overcommit_figure(dataset.columns(folder, "cells"), by=by, note=sweep_note(folder, origin))


def start_figure(folder: Path, origin: dict[str, Any]) -> Figure:
    """How starts went, or how long domains were away that were started again after a failure."""
    by, which = axes_of_starts(origin)
    config, note = origin["config"], sweep_note(folder, origin)
    found = starts.starts_of(dataset.columns(folder, "domains"), by, config["study"]["confidence"], origin=which)
    if which != "ha":
        return starts.starts_figure(found, by, note=note)
    failure = config["failure"]
    marks = {"started again from here on": failure["restart_delay_s"], "the host is back": failure["repair_s"]}
    return starts.away_figure(found, by, marks={name: at_s for name, at_s in marks.items() if at_s}, note=note)


def hosts_figure(folder: Path, origin: dict[str, Any]) -> Figure:
    """Hosts needed over R beside the rates, a series for each combination of the axes beside `overcommit`."""
    by = [name for name in axes_of(origin) if name != churning.RATIO]
    cells, runs = dataset.columns(folder, "cells"), dataset.rows(folder, "runs")
    return churning.churn_figure(cells, runs, by=by, note=sweep_note(folder, origin))


def sweep_note(folder: Path, origin: dict[str, Any]) -> str:
    """The conditions under which all cells were computed."""
    cells = dataset.columns(folder, "cells")
    first = {name: cells[name][0] for name in ("resample", "conditional_on")}
    warmup_ns = dataset.columns(folder, "runs")["warmup_ns"]
    return "; ".join(filter(None, [condition(first), held(origin["config"]), not_counted(warmup_ns)]))


def axes_of(origin: dict[str, Any]) -> list[str]:
    """The axes that take more than one value, in order."""
    cells = list(origin["cells"].values())
    return [name for name in cells[0] if len({str(cell[name]) for cell in cells}) > 1]


def axes_of_starts(origin: dict[str, Any]) -> tuple[list[str], str]:
    """The axes of STARTS that the sweep has, for the command line may fix others, and which starts are asked about."""
    known, which = STARTS[origin["config"]["experiment"]]
    return [axis for axis in known if axis in axes_of(origin)], which


def heading(config: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """What was run, in one line; hosts and guests of the first replication, the static ratio of all."""
    first = runs[0]
    hosts = f"{first['hosts']} host{'s' if first['hosts'] != 1 else ''}"
    guests = f"{first['requests']} {config['guest']['os_class']} guest{'s' if first['requests'] != 1 else ''}"
    host_gib = first["ram_pages"] / first["hosts"] / PAGES_PER_GIB
    ratio = sum(run["placed_ratio"] for run in runs) / len(runs)
    return f"{config['workload']['family']}: {guests} on {hosts} of {host_gib:g} GiB, static ratio {ratio:.2f}"


def condition(run: dict[str, Any]) -> str:
    """What a reader must keep in mind where machines were not drawn."""
    if not run["conditional_on"]:
        return ""
    return f"conditional on this trace ({run['conditional_on']})"


def held(config: dict[str, Any]) -> str:
    """How long memory stays held after its last use (G3): every figure says so."""
    hold_s = config["workload"]["hold_s"]
    return "memory held since boot" if hold_s < 0 else f"memory held {hold_s:,} s after its last use"


def not_counted(warmup_ns: Iterable[int]) -> str:
    """How much of each run is warm-up; empty where none is."""
    found_ns = sorted({int(one) for one in warmup_ns})
    ends = [_time(one) for one in dict.fromkeys((found_ns[0], found_ns[-1]))]
    return f"first {' to '.join(ends)} not counted" if found_ns[-1] else ""


def _time(ns: int) -> str:
    scale = time_scale(ns)
    return f"{ns / scale.divisor:g} {scale.unit}"


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the figure of DIR again; its exit status."""
    parser = OneLineParser(prog="podcluster figure", description="Draw the figure of a run or sweep again.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder a run or sweep printed")
    arguments = parser.parse_args(argv)
    for file in draw(arguments.folder):
        sys.stdout.write(f"{file}\n")
    return 0
