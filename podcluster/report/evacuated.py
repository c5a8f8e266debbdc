"""How an evacuation went: who got away, who had to stay and why, who died of it, and how long it took.

What        `evacuations` sorts the events of a sweep by its axes; a table and a figure of it.
Symbols     not taken: the receiver could not free the memory for it   lost: it had left, and no host could
            died: on the access of who copies it   died before: on that host, and before the order
Units       Domains, summed over replications; seconds from the order to the last that left, its mean over replications.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from podcluster.report.over_time import DEATHS
from podcluster.report.style import BLUE, GREY, INK, ORANGE, PURPLE, RED, SKY, dress, foot, new_figure
from podcluster.units import NS_PER_S

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REASONS: Final = {
    "no other host": "no room",
    "host": "not taken",
    "it owes": "in debt",
    "it has": "too large",
    "it is not up": "not up",
}
ENDS: Final = {
    "away": BLUE,
    "no room": GREY,
    "in debt": ORANGE,
    "too large": PURPLE,
    "not up": "#cccccc",
    "not taken": SKY,
    "lost": INK,
    "died": RED,
    "died before": "#f2c4ad",
}
LAST: Final = "last gone after [s]"


class Evacuated(NamedTuple):
    """One cell: its values of the axes, how many domains came to which of ENDS, and when the last had left."""

    values: tuple[Any, ...]
    ends: Mapping[str, int]
    last_s: float | None
    replications: int


def evacuations(events: Mapping[str, Any], domains: Mapping[str, Any], by: Sequence[str]) -> list[Evacuated]:
    """A line for each combination of the axes `by`, in the order of the sweep."""
    ends: dict[tuple[Any, ...], Counter[str]] = {}
    ordered_ns: dict[tuple[Any, ...], int] = {}
    emptied: dict[tuple[Any, ...], int] = {}
    last_ns: dict[tuple[Any, ...], int] = {}
    columns = [events[name] for name in (*by, "replication", "kind", "text", "t_ns", "host_id")]
    for *values, replication, kind, text, t_ns, host_id in zip(*columns, strict=True):
        cell = tuple(values)
        found = ends.setdefault(cell, Counter())
        if kind == "evacuate":
            ordered_ns[*cell, replication] = int(t_ns)
            emptied[*cell, replication] = int(host_id)
        elif kind == "migrate":
            found["away"] += 1
            last_ns[*cell, replication] = int(t_ns)
        elif kind == "migrate_refused":
            found[next((end for start, end in REASONS.items() if text.startswith(start)), "not up")] += 1
    columns = [domains[name] for name in (*by, "replication", "fate", "origin", "end_ns", "host_id")]
    for *values, replication, fate, how, end_ns, host_id in zip(*columns, strict=True):
        cell = tuple(values)
        run = (*cell, replication)
        if fate in DEATHS and host_id == emptied.get(run) and end_ns < ordered_ns[run]:
            ends[cell]["died before"] += 1
        else:
            ends[cell]["died"] += fate == "pod_oom_by_other"
        lost = how == "migration" and fate == "build_failed"
        ends[cell].update({"lost": lost, "away": -lost})
    found_of = []
    for cell, counts in ends.items():
        runs = [key for key in ordered_ns if key[:-1] == cell]
        times_s = [(last_ns[key] - ordered_ns[key]) / NS_PER_S for key in runs if key in last_ns]
        mean_s = sum(times_s) / len(times_s) if times_s else None
        found_of.append(Evacuated(cell, counts, mean_s, len(runs)))
    return found_of


def in_words(cells: Sequence[Evacuated], by: Sequence[str]) -> str:
    """A Markdown table of the answer."""
    names = [name.rpartition(".")[2] for name in by]
    lines = [f"| {' | '.join([*names, 'domains', *ENDS, LAST])} |"]
    lines.append(f"|{' --- |' * len(by)}{' ---: |' * (len(ENDS) + 2)}")
    for one in cells:
        counts = [str(one.ends.get(end, 0)) for end in ENDS]
        last = "-" if one.last_s is None else f"{one.last_s:,.0f}"
        values = " | ".join(f"{value}" for value in one.values)
        lines.append(f"| {values} | {sum(one.ends.values())} | {' | '.join(counts)} | {last} |")
    return "\n".join(lines)


def evacuation_figure(cells: Sequence[Evacuated], by: Sequence[str], *, note: str = "") -> Figure:
    """A bar for each cell, of those that got away, stayed and died, and beside it when the last had left."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10.8, 0.34 * len(cells) + 1.6)
    axes = figure.subplots()
    dress(axes)
    labels = [", ".join(f"{value}" for value in one.values) for one in cells]
    left = [0] * len(cells)
    for end, colour in ENDS.items():
        counts = [one.ends.get(end, 0) for one in cells]
        axes.barh(labels, counts, left=left, color=colour, label=end)
        left = [a + b for a, b in zip(left, counts, strict=True)]
    most = max(left, default=0)
    for row, one in enumerate(cells):
        last = "-" if one.last_s is None else f"{one.last_s:,.0f}"
        axes.text(1.06 * most, row, last, ha="center", va="center", fontsize=9, color=INK)
    axes.text(1.06 * most, -0.9, LAST.replace(" after", "\nafter"), ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.set_xlim(0, 1.13 * most)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.invert_yaxis()
    axes.set_xlabel("domains of the host that was to be emptied, all replications")
    axes.set_ylabel(", ".join(name.rpartition(".")[2] for name in by))
    axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    replications = max((one.replications for one in cells), default=0)
    foot(figure, "; ".join(filter(None, [f"n = {replications} replications a cell", note])))
    return figure
