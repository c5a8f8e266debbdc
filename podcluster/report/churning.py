"""What a stream of machines needs and costs: hosts, crashes, time in swap and refusals, cell by cell.

What        `in_words`, a Markdown table from the rows of `cells`.
Units       Hosts; rates as the columns say, with the interval over replications where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def in_words(cells: Sequence[Mapping[str, Any]], by: Sequence[str]) -> str:
    """A line for each cell, in the order of the sweep."""
    most = f"at most ({cells[0]['confidence']:.0%})"
    heads = [*by, "hosts", "static ratio", "boots", "crashes per boot", most, "swap share", "starts refused"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(by)}{' ---: |' * 7}"]
    for cell in cells:
        upper = cell["crash_per_boot_upper"]
        numbers = (
            f"{cell['hosts_mean']:.1f}",
            f"{cell['static_ratio']:.2f}",
            f"{cell['boots_started']:,}",
            _with_interval(cell, "crash_per_boot"),
            "-" if upper is None else f"{upper:.2g}",
            _with_interval(cell, "swap_share"),
            _with_interval(cell, "start_refused"),
        )
        lines.append(f"| {' | '.join(str(cell[name]) for name in by)} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _with_interval(cell: Mapping[str, Any], name: str) -> str:
    value, low, high = (cell[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return "-"
    return f"{value:.2g}" if low is None or high is None else f"{value:.2g} ({low:.2g} to {high:.2g})"
