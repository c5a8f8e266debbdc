"""What came out of a study, in the terminal: made from the stored tables alone, so that yesterday's study prints the
same.

What        `summary` prints a run (ratios, fates, worst hosts), one guest (its fate, margin, and the line that Xen
            logs, or what the toolstack said instead of building it) or a sweep (a row for each cell). How well hosts
            were packed, and what failover plans there were, where that was a matter.
Units       Ratios and rates as plain numbers; sizes in MiB, or GiB from 4 GiB on; times in seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from podcluster.records.fates import FATES
from podcluster.report import dataset, field_crashes
from podcluster.report.figure import NAME, axes_of, condition, heading, held, not_counted
from podcluster.report.paired import cells_of, names_of, pair_table
from podcluster.report.style import in_full, new_table, with_interval
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WORST_HOSTS: Final = 3
MOST_CELLS: Final = 60
WIDTH: Final = 160
REFUSED: Final = {"build_failed": "build_failed", "reject": "rejected"}
"""Events that say why there was no boot, and the fates that come of them."""
DEAD: Final = ("pod_oom", "pod_oom_by_other", "guest_panic", "ept_violation", "host_failed")


def summary(folder: Path, console: Console | None = None) -> None:
    """Print what came out of the run or sweep in `folder`."""
    from rich.console import Console

    # Rich would cut tables at 80 columns where there is no terminal to ask.
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    origin = dataset.provenance(folder)
    cells = dataset.rows(folder, "cells")
    runs = dataset.rows(folder, "runs")
    console.print()
    if next(iter(origin["cells"].values())):
        console.print(f"[bold]{len(cells)} cells[/bold], {cells[0]['replications']} replications each")
        if field_crashes.AXIS in axes_of(origin):
            console.print(field_crashes.crash_table(dataset.rows(folder, "domains")))
        elif len(cells) > MOST_CELLS:
            console.print(crowd_table(cells, axes_of(origin), names_of(cells_of(folder))))
        else:
            console.print(sweep_table(cells, axes_of(origin)))
            if packs(cells, axes_of(origin)):
                console.print(packing_table(cells, axes_of(origin), origin["config"]["placement"]))
            if plans(cells):
                console.print(plan_table(cells, axes_of(origin)))
        if origin["config"]["study"]["baseline"] is not None:
            console.print(pair_table(folder, origin))
    else:
        console.print(heading(origin["config"], runs), style="bold")
        if origin["config"]["workload"]["family"] == "one":
            fate_card(console, dataset.rows(folder, "domains"), dataset.rows(folder, "events"))
        else:
            console.print(ratio_table(runs))
            console.print(fate_table(runs))
            console.print(host_table(dataset.rows(folder, "hosts"), len(runs)))
            if packs(cells):
                console.print(packing_table(cells, placement=origin["config"]["placement"]))
            if plans(cells):
                console.print(plan_table(cells))
            console.print(rate_table(cells[0]))
    warmup = not_counted(run["warmup_ns"] for run in runs)
    for line in filter(None, [condition(runs[0]), held(origin["config"]), warmup]):
        console.print(line, style="italic")
    console.print(f"results  {folder / 'results'}", soft_wrap=True)
    if (folder / f"{NAME}.png").is_file():
        console.print(f"figure   {folder / f'{NAME}.png'}", soft_wrap=True)


def ratio_table(runs: Sequence[dict[str, Any]]) -> Table:
    """The four ratios: mean over time and replications, and the maximum."""
    table = new_table("over the usable memory of all hosts", "ratio", "mean", "max", "")
    meanings = {"static": "promised: sum of maxmem", "target": "sum of targets", "commit": "owned", "demand": "wanted"}
    for name, meaning in meanings.items():
        mean = sum(run[f"{name}_ratio_mean"] for run in runs) / len(runs)
        most = max(run[f"{name}_ratio_max"] for run in runs)
        table.add_row(f"{name}_ratio", f"{mean:.3f}", f"{most:.3f}", meaning)
    table.columns[-1].justify = "left"
    return table


def fate_table(runs: Sequence[dict[str, Any]]) -> Table:
    """How many ended how."""
    table = new_table("", "fate", "machines", "share")
    requests = sum(run["requests"] + run["restarts"] + run["ha_restarts"] + run["migrations"] for run in runs)
    for fate in FATES:
        count = sum(run[f"fate_{fate}"] for run in runs)
        if count or fate in ("running", "pod_oom"):
            style = "bold red" if fate in DEAD and count else ""
            table.add_row(fate, f"{count:,}", f"{count / requests:.1%}" if requests else "", style=style)
    return table


def host_table(hosts: Sequence[dict[str, Any]], replications: int) -> Table:
    """The hosts on which most died, then those that came closest to running out."""
    worst = sorted(hosts, key=lambda host: (-host["domains_died"], host["free_pages_min"], host["host_id"]))
    names = ("host", "died", "started", "promised / U", "owned / U", "least free")
    table = new_table("worst hosts" + (f" of {replications} replications" if replications > 1 else ""), *names)
    for host in worst[:WORST_HOSTS]:
        usable = host["usable_pages"]
        table.add_row(
            f"{host['host_id']}" + (f" (replication {host['replication']})" if replications > 1 else ""),
            str(host["domains_died"]),
            str(host["domains_started"]),
            f"{host['promised_pages_peak'] / usable:.2f}",
            f"{host['owned_pages_peak'] / usable:.2f}",
            size(host["free_pages_min"]),
        )
    return table


def sweep_table(cells: Sequence[dict[str, Any]], axes: Sequence[str]) -> Table:
    """A row for each cell: its axes, what was reached, and the rates with their intervals."""
    most = f"at most ({cells[0]['confidence']:.0%})"
    table = new_table("", *(heads_of(axes) or ["cell"]), "static", "crash/boot", most, "refused", "swap share", "boots")
    for cell in cells:
        table.add_row(
            *(f"{cell[axis]}" for axis in (axes or ["cell"])),
            f"{cell['static_ratio']:.2f}",
            with_interval(cell, "crash_per_boot"),
            f"{cell['crash_per_boot_upper']:.2g}" if cell["crash_per_boot_upper"] is not None else "-",
            with_interval(cell, "start_refused"),
            with_interval(cell, "swap_share"),
            f"{cell['boots_started']:,}",
        )
    return table


def heads_of(axes: Sequence[str]) -> list[str]:
    """What axes are called above a column: the last part of a key is enough where no other axis ends the same."""
    ends = [axis.rpartition(".")[2] for axis in axes]
    return [end if ends.count(end) == 1 else axis for axis, end in zip(axes, ends, strict=True)]


def packs(cells: Sequence[dict[str, Any]], axes: Sequence[str] = ()) -> bool:
    """Whether it is worth saying how well hosts were packed: several were used, or placement is what is swept."""
    if any(cell.get("hosts_used") is None for cell in cells):
        return False  # results of before these columns
    return any(axis.partition(".")[0] == "placement" for axis in axes) or max(cell["hosts_used"] for cell in cells) > 1


def keeps_to_more(placement: dict[str, Any], cells: Sequence[dict[str, Any]], axes: Sequence[str]) -> bool:
    """Whether hosts take less than the bound lets them: for groups, a ratio of memory or a chance constraint."""
    named = [axis for axis in axes if axis in ("placement", "placement.policy")]
    policies = {placement.get("policy"), *(cell[axis] for cell in cells for axis in named)}
    return "chance_constrained" in policies or any(
        placement.get(key) or f"placement.{key}" in axes for key in ("affinity", "anti_affinity", "memory_ratio")
    )


def packing_table(
    cells: Sequence[dict[str, Any]], axes: Sequence[str] = (), placement: dict[str, Any] | None = None
) -> Table:
    """How far each cell is from the fewest hosts that its fullest instant could do with; under the table, where
    `placement` (of the first cell) or an axis keeps to more than that bound knows of.
    """
    means = "means over replications" if cells[0]["replications"] > 1 else "one replication"
    numbers = ("hosts used", "no packing below", "more than that", "density", "empty", "stranded")
    table = new_table(f"packing, {means}", *heads_of(axes), *numbers)
    for cell in cells:
        table.add_row(
            *(f"{cell[axis]}" for axis in axes),
            with_interval(cell, "hosts_used", ".3g"),
            in_full(cell["hosts_bound"], ".3g"),
            with_interval(cell, "hosts_gap", ".1%"),
            with_interval(cell, "packing_density", ".2f"),
            with_interval(cell, "empty_hosts", ".1%"),
            with_interval(cell, "stranded", ".1%"),
        )
    if keeps_to_more(placement or {}, cells, axes):
        table.caption = (
            "the bound is of memory and vCPUs alone: groups, memory_ratio and chance constraints may need more"
        )
        table.caption_justify = "left"
    return table


def plans(cells: Sequence[dict[str, Any]]) -> bool:
    """Whether some pool was to bear host failures; results of before these columns do not say."""
    return any(cell.get("failures_tolerated_min") is not None for cell in cells)


def plan_table(cells: Sequence[dict[str, Any]], axes: Sequence[str] = ()) -> Table:
    """How many host failures each cell had a plan for at all times, and how much of its time it had none for as many as
    it was to bear (D7).
    """
    means = "means over replications" if cells[0]["replications"] > 1 else "one replication"
    numbers = ("host failures planned for, at the least", "time overcommitted")
    table = new_table(f"failover plan, {means}", *heads_of(axes), *numbers)
    for cell in cells:
        least = cell["failures_tolerated_min"]
        share = with_interval(cell, "overcommitted_share", ".1%")
        table.add_row(*(f"{cell[axis]}" for axis in axes), "-" if least is None else f"{least}", share)
    return table


def crowd_table(cells: Sequence[dict[str, Any]], axes: Sequence[str], names: Sequence[str]) -> Table:
    """Many cells: a row for each combination of the axes that are names, from its cell of least crashes to its most."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    shown = [axis for axis in axes if axis in names] or ["experiment"]
    for cell in cells:
        groups.setdefault(tuple(str(cell.get(axis, "all cells")) for axis in shown), []).append(cell)
    heads = [axis.rpartition(".")[2] for axis in shown]
    table = new_table("each cell is in table cells", *heads, "cells", "boots", "crashes", "crash/boot: least", "most")
    for key, some in groups.items():
        rates = [cell["crash_per_boot"] for cell in some if cell["crash_per_boot"] is not None]
        ends = [f"{rate:.2g}" for rate in (min(rates), max(rates))] if rates else ["-", "-"]
        boots, crashes = (sum(cell[f"crash_per_boot_{end}"] for cell in some) for end in ("denominator", "numerator"))
        table.add_row(*key, f"{len(some)}", f"{boots:,}", f"{crashes:,}", *ends)
    return table


def rate_table(cell: dict[str, Any]) -> Table:
    """The rates, each with what it was counted from."""
    level = f"{cell['confidence']:.0%}"
    over = f"{level} over {cell['replications']} replications" if cell["replications"] > 1 else "one replication"
    table = new_table("rates", "rate", "", "counted", over, f"at most ({level})")
    counts = {"crash_per_boot": "boots", "crash_per_domain_day": "domain-days", "start_refused": "starts"}
    for name, unit in counts.items():
        if cell[name] is None:
            table.add_row(name, "-", f"no {unit}", "-", "-")
            continue
        counted = f"{cell[f'{name}_numerator']:,} of {plain(cell[f'{name}_denominator'])} {unit}"
        table.add_row(name, f"{cell[name]:.3g}", counted, interval(cell, name), f"{cell[f'{name}_upper']:.2g}")
    swapped = f"{cell['swapped_domains']:,} guests"
    table.add_row("swap_share", f"{cell['swap_share']:.3g}", swapped, interval(cell, "swap_share"), "-")
    return table


def plain(value: float) -> str:
    """A count as it is, a small fraction with its digits."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def interval(cell: dict[str, Any], name: str) -> str:
    """The interval over replications, where there is one."""
    if cell[f"{name}_low"] is None:
        return "-"
    return f"{cell[f'{name}_low']:.2g} to {cell[f'{name}_high']:.2g}"


def fate_card(console: Console, domains: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]] = ()) -> None:
    """What became of one guest, and how near it was to the other end; of one that was refused, in whose words."""
    refusals = {_boot(event): event["text"] for event in events if event["kind"] in REFUSED}
    for row in domains:
        died = row["fate"] in DEAD
        fate = row["fate"] + (f" ({row['cause']})" if row["cause"] else "")
        console.print(
            f"fate     {fate} at {row['end_ns'] / NS_PER_S:,.1f} s", style="bold red" if died else "bold green"
        )
        if row["boot_start_ns"] is None or row["fate"] == "build_failed":
            if row["fate"] in REFUSED.values() and _boot(row) in refusals:
                console.print(f"because  {refusals[_boot(row)]}", soft_wrap=True, markup=False)
            continue
        owns = f"owns {size(row['tot_pages'])} of {size(row['maxmem_pages'])} promised"
        held_data = f"data in {size(row['nonzero_pages_peak'])} at its peak"
        console.print(f"margin   {signed_size(row['margin_pages'])}: {owns}, {held_data}")
        boot = "never came up" if row["boot_done_ns"] is None else f"up after {since(row, 'boot_done_ns'):,.1f} s"
        books = f"PoD entries {row['entry_count']:,}, cache {row['cache_count']:,}"
        console.print(f"boot     {boot}, balloon holds {size(row['ballooned_pages'])}, {books}")
        populated = f"{row['populated_4k']:,} single pages and {row['populated_2m']:,} superpages populated"
        reclaimed = f"{row['reclaimed_4k']:,} and {row['reclaimed_2m']:,} taken back, {row['sweeps']:,} sweeps"
        console.print(f"work     {populated}, {reclaimed}")
        console.print(f"Xen logs {row['oom_line'] or 'nothing'}", soft_wrap=True, markup=False)


def _boot(row: dict[str, Any]) -> tuple[Any, ...]:
    """Which boot a row or an event is of."""
    return tuple(row[name] for name in ("cell", "replication", "domain_id", "attempt"))


def since(row: dict[str, Any], name: str) -> float:
    """Seconds from the start of the build."""
    return float(row[name] - row["boot_start_ns"]) / NS_PER_S


def size(pages: int) -> str:
    """Pages as MiB, or GiB from 4 GiB on."""
    if abs(pages) >= 4 * PAGES_PER_GIB:
        return f"{pages / PAGES_PER_GIB:,.1f} GiB"
    return f"{pages / PAGES_PER_MIB:,.1f} MiB"


def signed_size(pages: int) -> str:
    """The same with its sign, and the pages themselves."""
    return f"{'+' if pages >= 0 else '-'}{size(abs(pages))} ({pages:+,} pages)"
