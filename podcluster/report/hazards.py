"""Deaths that reclaim is to blame for: how many of each hazard, and what switching one off changes.

What        A boot that Xen kills before its data fills what it owns dies of a hazard (G11): `preempt`, `wrap` or
            `ring`, or `reclaim_short` where none is found to blame. `tally` counts them; `switched_off` compares the
            same boots with one hazard off, all other axes but the guest pooled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from podcluster.report import dataset
from podcluster.report.forest import Line, forest
from podcluster.report.paired import Pooled, in_words, pooled
from podcluster.report.style import BLUE, GREEN, RED, foot, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXIS: Final = "hazard"
AS_IS: Final = "as_is"
CAUSES: Final = ("debt", "preempt", "wrap", "ring", "reclaim_short")
COLOURS: Final = {"no_wrap": BLUE, "no_ring": GREEN, "no_preemption": RED}


def tally(domains: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Boots of each guest class as it is, and its deaths by cause; boots are under an empty cause."""
    found: dict[str, Counter[str]] = {}
    as_is = domains[AXIS] == AS_IS
    columns = (domains[name][as_is] for name in ("guest", "fate", "cause"))
    for guest, fate, cause in zip(*columns, strict=True):
        counts = found.setdefault(str(guest), Counter())
        counts[""] += 1
        if fate == "pod_oom":
            counts[str(cause)] += 1
    return found


def tally_in_words(found: Mapping[str, Counter[str]]) -> str:
    """A Markdown table of deaths by cause."""
    lines = [f"| guest | boots | {' | '.join(CAUSES)} |", f"| --- |{' ---: |' * (len(CAUSES) + 1)}"]
    for guest, counts in found.items():
        lines.append(f"| {guest} | {counts['']:,} | {' | '.join(f'{counts[cause]:,}' for cause in CAUSES)} |")
    return "\n".join(lines)


def switched_off(folder: Path, confidence: float) -> list[Pooled]:
    """Each guest class with each hazard off, against the same boots with all of them on."""
    return pooled(folder, f"{AXIS}={AS_IS}", ["guest"], confidence)


def switched_off_in_words(found: Sequence[Pooled], confidence: float) -> str:
    """A Markdown table: deaths, deaths before the limit, and what sweeps looked at, with one hazard off."""
    lines = [
        f"| guest | off | of a boot | as it is | off | difference | {confidence:.0%} | boots that differ |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for one in found:
        for measure in ("died", "early", "sweep_looks"):
            words = " | ".join(in_words(one.differences[measure]))
            lines.append(f"| {one.axes['guest']} | {str(one.axes[AXIS]).removeprefix('no_')} | {measure} | {words} |")
    return "\n".join(lines)


def hazard_figure(found: Sequence[Pooled], *, note: str = "") -> Figure:
    """What switching each hazard off does to deaths, and to deaths before the limit."""
    guests = list(dict.fromkeys(str(one.axes["guest"]) for one in found))
    figure = new_figure(11.0, 1.4 + 0.24 * len(found))
    panels = figure.subplots(1, 2, sharey=True)
    names = {"died": "change in the share of boots that die", "early": "of those, before the limit (G11)"}
    for axes, (measure, label) in zip(panels, names.items(), strict=True):
        lines = [
            Line(f"{one.axes['guest']}, {str(one.axes[AXIS]).replace('_', ' ')}", COLOURS[str(one.axes[AXIS])],
                 one.differences.get(measure))
            for guest in guests
            for one in found
            if one.axes["guest"] == guest
        ]  # fmt: skip
        forest(axes, lines, label=label)
    boots = np.unique([one.differences["died"].machines for one in found])
    replications = found[0].differences["died"].replications
    words = f"n = {boots[0]:,} pairs of boots a line, in {replications} replications; full: interval over replications,"
    foot(figure, f"{words}\nhollow: pooled over boots, where replications agree{'; ' + note if note else ''}")
    return figure


def of_sweep(folder: Path) -> tuple[dict[str, Counter[str]], list[Pooled], float]:
    """Both, and the level of the intervals, from the results in `folder`."""
    confidence = float(dataset.provenance(folder)["config"]["study"]["confidence"])
    return tally(dataset.columns(folder, "domains")), switched_off(folder, confidence), confidence
