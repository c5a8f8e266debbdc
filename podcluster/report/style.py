"""How every figure and table looks: colours, units of axes, files, numbers with their intervals; and how a table gives
its columns.

What        One palette, one frame, one way to save, so that figures of different studies can be laid side by side.
Units       `memory_scale` and `time_scale` choose what an axis is in; tables come in pages and ns.
Departs     No pyplot: no window system, no global state, and figures can be drawn wherever Python runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table as RichTable

# Okabe and Ito's palette: told apart by readers with any colour vision, and in grey by its lightness.
BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
GREEN: Final = "#009E73"
RED: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
INK: Final = "#222222"
GREY: Final = "#777777"
SERIES: Final = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
DPI: Final = 150


class Table(Protocol):
    """Columns by name: a pandas frame from `load_results()`, or a dict of arrays."""

    def __getitem__(self, name: str, /) -> Any:
        """One column."""

    def __contains__(self, name: object, /) -> bool:
        """Whether there is such a column."""


class Scale(NamedTuple):
    """What to divide by, and what it is called then."""

    divisor: float
    unit: str


def memory_scale(pages: float) -> Scale:
    """GiB, or MiB below 4 GiB."""
    return Scale(PAGES_PER_GIB, "GiB") if pages >= 4 * PAGES_PER_GIB else Scale(PAGES_PER_MIB, "MiB")


def time_scale(duration_ns: float) -> Scale:
    """Hours, minutes below two hours, seconds below five minutes."""
    if duration_ns >= 2 * 3600 * NS_PER_S:
        return Scale(3600 * NS_PER_S, "h")
    if duration_ns >= 300 * NS_PER_S:
        return Scale(60 * NS_PER_S, "min")
    return Scale(NS_PER_S, "s")


def column(table: Table, name: str, keep: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """One column as an array."""
    values = np.asarray(table[name])
    return values if keep is None else values[keep]


def numbers(table: Table, name: str, keep: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """A column as floats, nan where it is null or not there."""
    if name not in table:
        return np.full(len(column(table, "static_ratio", keep)), np.nan)
    return np.array([np.nan if value is None else value for value in column(table, name, keep)], dtype=np.float64)


def new_table(title: str, *names: str) -> RichTable:
    """A table for the terminal, whose first column is text and whose others are numbers."""
    from rich.box import SIMPLE
    from rich.table import Table as RichTable

    table = RichTable(title=title, title_justify="left", title_style="", box=SIMPLE, pad_edge=False)
    for index, name in enumerate(names):
        table.add_column(name, justify="left" if index == 0 else "right")
    return table


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Text as text keeps an SVG readable and small; the fixed salt makes its ids, and so its bytes, the same each time.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "podcluster", "font.size": 10})
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def dress(axes: Axes) -> None:
    """Two spines, a light grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)


def span(counts: Iterable[int]) -> str:
    """How many, if all are as many, or from the least to the most: for the foot of a figure."""
    found = [int(count) for count in counts]
    least, most = min(found), max(found)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def in_full(value: float, digits: str) -> str:
    """A number in this format, but with all its digits where that would shorten a large one by an exponent."""
    text = f"{value:{digits}}"
    return f"{value:{'+' if digits.startswith('+') else ''},.0f}" if "e+" in text else text


def with_ends(value: float | None, low: float | None, high: float | None, digits: str = ".2g") -> str:
    """A number, if there is one, with its interval, if it has one."""
    if value is None:
        return "-"
    ends = "" if low is None or high is None else f" ({in_full(low, digits)} to {in_full(high, digits)})"
    return f"{in_full(value, digits)}{ends}"


def with_interval(cell: Mapping[str, Any], name: str, digits: str = ".2g") -> str:
    """The same of a column of a cell, over its replications."""
    return with_ends(cell[name], cell[f"{name}_low"], cell[f"{name}_high"], digits)


def foot(figure: Figure, text: str) -> None:
    """What a reader must know beside the picture: n, intervals, conditions."""
    figure.supxlabel(text, fontsize=8.5, color=GREY, x=0.01, ha="left")


def png(figure: Figure) -> bytes:
    """The figure as a notebook shows it, which knows only those that pyplot made: `Image(png(figure))`."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path` as .png and .svg, under other names until whole; the two files."""
    written = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
        target = path.with_suffix(suffix)
        partial = target.with_name(f".{target.name}.tmp")
        figure.savefig(partial, dpi=DPI, format=suffix[1:], metadata=metadata)
        partial.replace(target)
        written.append(target)
    return written
