"""Crashes that Xen logged for real operators beside what their configurations come to here (G10).

What        `LOGGED` is what was logged, by the names of conf/crash; `verdicts` sets the cells of a sweep over `crash`
            beside it. A log has two numbers: tot_pages and entries of the guest that died.
Units       Pages of 4 KiB.
Rules       Entries compare exactly [Z1]: no driver ran, so they are maxmem - memory to the page (32 less with the older
            builder). tot compares within 32 pages [B2.10], for the device model adds 17 to 30 in the logs and 24 here,
            and only where the settings are quoted or follow from the system's defaults. Where a driver had partly
            worked the settings are not known: there only the existence of settings is claimed, for which a guest dies
            with exactly both numbers (experiments/field_crashes says how they were found).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from podcluster.units import PAGES_PER_MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

TOT_WITHIN_PAGES: Final = 32
AXIS: Final = "crash"


class Logged(NamedTuple):
    """One logged crash: where it was reported, both numbers, and what of it is claimed here.

    `settings`: quoted | inferred (they fit) | searched (only that such settings exist).
    """

    where: str
    tot_pages: int
    entry_count: int
    settings: str
    tot_compares: bool


LOGGED: Final[dict[str, Logged]] = {
    "qubes_3861": Logged("QubesOS 3861", 524_286, 243_712, "quoted", True),
    "qubes_4135": Logged("QubesOS 4135, 8649", 102_385, 921_600, "inferred", True),
    "memory_500": Logged("a log, settings inferred", 128_016, 40_416, "inferred", True),
    "talos": Logged("Talos Linux, early boot", 66_075, 983_008, "inferred", False),
    "qubes_7023": Logged("QubesOS 7023", 182_246, 66_825, "searched", True),
    "memory_2048": Logged("a log of a large maxmem", 524_304, 28_773_031, "searched", True),
}


class Verdict(NamedTuple):
    """One logged crash beside ours: who it is, how it was configured, and both pairs of numbers."""

    name: str
    logged: Logged
    memory_mib: int
    maxmem_mib: int
    ballooned_pages: int
    fate: str
    cause: str
    tot_pages: int
    entry_count: int

    @property
    def entries_agree(self) -> bool:
        """To the page."""
        return self.fate == "pod_oom" and self.entry_count == self.logged.entry_count

    @property
    def tot_agrees(self) -> bool | None:
        """Within what the device model may add, exactly where the settings were searched for; None: not compared."""
        if not self.logged.tot_compares:
            return None
        within = 0 if self.logged.settings == "searched" else TOT_WITHIN_PAGES
        return self.fate == "pod_oom" and abs(self.tot_pages - self.logged.tot_pages) <= within


def verdicts(domains: Sequence[dict[str, Any]]) -> list[Verdict]:
    """The rows of `domains` of a sweep over `crash` beside what was logged, in the order of LOGGED."""
    rows = {row[AXIS]: row for row in domains if row[AXIS] in LOGGED}
    return [
        Verdict(
            name,
            logged,
            row["memory_pages"] // PAGES_PER_MIB,
            row["maxmem_pages"] // PAGES_PER_MIB,
            row["ballooned_pages"],
            row["fate"],
            row["cause"],
            row["tot_pages"],
            row["entry_count"],
        )
        for name, logged in LOGGED.items()
        if (row := rows.get(name)) is not None
    ]


def crash_table(domains: Sequence[dict[str, Any]]) -> Table:
    """Logged and predicted numbers side by side, for the terminal."""
    from podcluster.report.style import new_table

    heads = ("crash", "memory/maxmem", "settings", "ballooned", "entries logged", "here", "tot logged", "here", "off")
    table = new_table("what Xen logged, and what dies here", *heads, "agrees")
    for one in verdicts(domains):
        table.add_row(
            one.logged.where,
            f"{one.memory_mib:,}/{one.maxmem_mib:,} MiB",
            one.logged.settings,
            f"{one.ballooned_pages:,}",
            f"{one.logged.entry_count:,}",
            f"{one.entry_count:,}",
            f"{one.logged.tot_pages:,}",
            f"{one.tot_pages:,}",
            f"{one.tot_pages - one.logged.tot_pages:+,}",
            in_words(one),
            style="" if one.entries_agree and one.tot_agrees is not False else "bold red",
        )
    for index in (2, len(table.columns) - 1):
        table.columns[index].justify = "left"
    return table


def in_words(one: Verdict) -> str:
    """Which of the two numbers agree, and how closely they were asked to."""
    if one.fate != "pod_oom":
        return f"no: {one.fate}"
    entries = "entries" if one.entries_agree else "not in entries"
    if one.tot_agrees is None:
        return f"{entries} (tot aside)"
    return f"{entries}, {'tot' if one.tot_agrees else 'not in tot'}"


def in_markdown(found: Sequence[Verdict]) -> str:
    """The same table for a notebook."""
    lines = [
        "| crash | memory/maxmem [MiB] | settings | entries logged | here | tot logged | here | agrees |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        lines.append(
            f"| {one.logged.where} | {one.memory_mib:,}/{one.maxmem_mib:,} | {one.logged.settings} "
            f"| {one.logged.entry_count:,} | {one.entry_count:,} | {one.logged.tot_pages:,} | {one.tot_pages:,} "
            f"| {in_words(one)} |"
        )
    return "\n".join(lines)


def crash_figure(found: Sequence[Verdict]) -> Figure:
    """Entries logged over entries predicted, and how far tot is off."""
    from podcluster.report.style import BLUE, GREY, ORANGE, dress, foot, new_figure

    figure = new_figure(11.0, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    dress(left)
    dress(right)
    ends = [min(one.logged.entry_count for one in found) / 2, max(one.logged.entry_count for one in found) * 2]
    left.plot(ends, ends, color=GREY, linewidth=1.0)
    for one in found:
        colour = ORANGE if one.logged.settings == "searched" else BLUE
        left.plot(one.entry_count, one.logged.entry_count, "o", color=colour)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("entries of the guest that dies here [pages]")
    left.set_ylabel("entries that Xen logged [pages]")
    names = [f"{one.logged.where}\n{one.memory_mib:,}/{one.maxmem_mib:,} MiB" for one in found]
    right.axvspan(-TOT_WITHIN_PAGES, TOT_WITHIN_PAGES, color="#eef3f8")
    for at, one in enumerate(found):
        off = one.tot_pages - one.logged.tot_pages
        if one.tot_agrees is None:
            right.text(0, at, f"not compared ({off:+,} pages)", ha="center", va="center", color=GREY, fontsize=8.5)
        else:
            right.plot(off, at, "o", color=ORANGE if one.logged.settings == "searched" else BLUE)
    right.axvline(0, color=GREY, linewidth=1.0)
    right.set_xlim(-1.5 * TOT_WITHIN_PAGES, 1.5 * TOT_WITHIN_PAGES)
    right.set_ylim(-0.5, len(found) - 0.5)
    right.set_yticks(range(len(found)), names, fontsize=8.5)
    right.invert_yaxis()
    right.set_xlabel("tot_pages here less logged [pages]")
    foot(
        figure,
        f"n = {len(found)} logged crashes, one boot each; line: equal; band: {TOT_WITHIN_PAGES} pages, what device "
        "models differ by;\norange: settings searched for, so only that such a boot exists",
    )
    return figure
