"""Do figures show what is in the tables: every line, every death, every interval, with units?"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from podcluster.errors import ConfigError
from podcluster.report.figure import not_counted
from podcluster.report.over_ratio import colour_of, marker_of, overcommit_figure, series_of
from podcluster.report.over_time import memory_over_time
from podcluster.report.style import memory_scale, save, time_scale
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB
from tests.report.tables import HOUR_NS, cells, domains, samples


def run_figure(fates: dict[str, int], *, usable_gib: float = 1000.0, note: str = "") -> Figure:
    """The figure of a day."""
    return memory_over_time(
        samples(),
        domains(fates),
        usable_pages=int(usable_gib * PAGES_PER_GIB),
        duration_ns=24 * HOUR_NS,
        title="a day",
        note=note,
    )


def texts(figure: Figure) -> str:
    """Everything written in a figure."""
    return "\n".join(item.get_text() for item in figure.findobj(Text) if isinstance(item, Text))


def test_a_run_shows_memory_over_time_against_capacity() -> None:
    """Three curves of the whole cluster (not of a host) in GiB over hours, the capacity, their names, no legend."""
    figure = run_figure({"running": 5}, note="conditional on this trace (x)")
    (axes,) = figure.axes
    promised, owned, demanded, capacity = axes.lines
    assert float(np.max(promised.get_ydata())) == pytest.approx(1500)
    assert float(np.max(owned.get_ydata())) == pytest.approx(950)
    assert float(np.max(demanded.get_ydata())) == pytest.approx(300)
    assert set(np.asarray(capacity.get_ydata()).tolist()) == {1000.0}
    assert float(np.max(promised.get_xdata())) == pytest.approx(24)
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("memory [GiB]", "simulated time [h]")
    assert axes.get_legend() is None
    for word in ("promised", "owned", "demanded", "capacity", "conditional on this trace"):
        assert word in texts(figure)


@pytest.mark.parametrize(
    ("warmups_s", "said"),
    [
        ([0, 0], ""), ([21600] * 3, "first 6 h not counted"), ([9000], "first 2.5 h not counted"),
        ([300], "first 5 min not counted"), ([90], "first 90 s not counted"),
        ([7200, 0], "first 0 s to 2 h not counted"),
    ],
)  # fmt: skip
def test_a_warm_up_is_stated(warmups_s: list[int], said: str) -> None:
    """In the unit that an axis of that length would have; nothing where there is none."""
    assert not_counted(warmup_s * NS_PER_S for warmup_s in warmups_s) == said


def test_the_warm_up_of_a_run_is_drawn_on_grey() -> None:
    """Six hours of the day, behind the curves and behind the deaths."""
    figure = memory_over_time(
        samples(), domains({"pod_oom": 2}), usable_pages=1000 * PAGES_PER_GIB, duration_ns=24 * HOUR_NS, title="a day",
        warmup_ns=6 * HOUR_NS,
    )  # fmt: skip
    for axes in figure.axes:
        (grey,) = axes.patches
        assert grey.get_window_extent().width == pytest.approx(axes.get_window_extent().width / 4)


def test_every_death_is_marked_and_counted() -> None:
    """Seven deaths of two kinds among 12: seven marks on the owned curve, two steps below that end at 5 and 2."""
    figure = run_figure({"running": 4, "pod_oom": 5, "guest_panic": 2, "shut_down": 1})
    above, below = figure.axes
    marks = [collection.get_offsets() for collection in above.collections[1:]]
    assert sorted(len(np.asarray(mark)) for mark in marks) == [2, 5]
    assert sorted(float(np.max(line.get_ydata())) for line in below.lines) == [2, 5]
    assert "5 pod_oom" in texts(figure) and "2 guest_panic" in texts(figure)
    assert below.get_xlabel() == "simulated time [h]" and below.get_ylabel() == "deaths so far"


def test_a_capacity_far_above_is_named_and_not_drawn() -> None:
    """One guest on a large host: the curves fill the picture."""
    figure = run_figure({"running": 1}, usable_gib=50_000)
    assert len(figure.axes[0].lines) == 3
    assert figure.axes[0].get_ylim()[1] < 2000
    assert "capacity 50,000 GiB, far above" in texts(figure)


def test_no_samples_is_the_users_to_mend() -> None:
    """study.telemetry_s=0 leaves nothing to draw: one line with the key."""
    empty = {name: values[:0] for name, values in samples().items()}
    with pytest.raises(ConfigError, match=r"study\.telemetry_s above 0"):
        memory_over_time(empty, domains({"running": 1}), usable_pages=1, duration_ns=1, title="")


@pytest.mark.parametrize(
    ("pages", "unit"), [(4 * PAGES_PER_GIB, "GiB"), (4 * PAGES_PER_GIB - 1, "MiB"), (PAGES_PER_MIB, "MiB")]
)
def test_memory_is_in_mib_below_four_gib(pages: int, unit: str) -> None:
    """The border of the units."""
    assert memory_scale(pages).unit == unit


@pytest.mark.parametrize(("seconds", "unit"), [(7200, "h"), (7199, "min"), (300, "min"), (299, "s")])
def test_time_is_in_hours_minutes_or_seconds(seconds: int, unit: str) -> None:
    """The borders of the units."""
    assert time_scale(seconds * NS_PER_S).unit == unit


def points(figure: Figure, panel: int) -> list[tuple[float, float, str]]:
    """Every marker of a panel: x, y, and whether it is hollow."""
    found = []
    for line in figure.axes[panel].lines:
        if line.get_marker() in ("o", "s", "^", "D", "v", "P"):
            hollow = "hollow" if line.get_markerfacecolor() == "white" else "full"
            found += [(float(x), float(y), hollow) for x, y in np.asarray(line.get_xydata())]
    return found


def test_a_sweep_shows_rates_over_the_realised_ratio() -> None:
    """Two panels; cells without a crash hollow at 0, the others full at their rate; the foot says n and what bars
    are."""
    figure = overcommit_figure(cells([0.9, 1.4, 1.9], [0, 5, 20]), note="memory held since boot")
    assert points(figure, 0) == [(1.4, 0.05, "full"), (1.9, 0.2, "full"), (0.9, 0.0, "hollow")]
    assert points(figure, 1) == [(1.4, 0.005, "full"), (1.9, 0.02, "full"), (0.9, 0.0, "hollow")]
    words = texts(figure)
    for word in ("n = 5 replications", "100 boots", "95% intervals over replications", "memory held since boot"):
        assert word in words
    assert "static ratio" in figure.axes[0].get_xlabel()


def test_error_bars_are_the_intervals() -> None:
    """From low to high over the rate, and up to the exact bound where nothing was seen."""
    figure = overcommit_figure(cells([0.9, 1.9], [0, 20]))
    spans = set()
    for container in figure.axes[0].containers:
        for bars in container[2]:
            for segment in bars.get_segments():
                if segment[0][0] == segment[1][0]:
                    spans.add((round(float(segment[0][1]), 6), round(float(segment[1][1]), 6)))
    assert spans == {(0.16, 0.24), (0.0, 0.03)}


def test_one_replication_says_that_it_has_no_intervals() -> None:
    """R = 1 is drawn, and the foot says what is missing."""
    assert "one replication: no intervals" in texts(overcommit_figure(cells([1.0, 2.0], [0, 9], replications=1)))


def test_series_are_told_apart_by_colour_marker_and_name() -> None:
    """A series for each combination of the axes, in their order, under one legend for both panels."""
    table: dict[str, Any] = cells([1.0, 2.0, 1.0, 2.0], [1, 5, 2, 9])
    table["guest.page_cache.rate_mib_per_s"] = np.array([20.0, 20.0, 0.0, 0.0])
    table["guest"] = np.array(["linux"] * 4, dtype=object)
    by = ("guest", "guest.page_cache.rate_mib_per_s")
    names = ["guest linux, rate_mib_per_s 0", "guest linux, rate_mib_per_s 20"]
    assert [name for name, _ in series_of(table, by)] == names
    figure = overcommit_figure(table, by=by)
    (shown,) = figure.legends
    assert [text.get_text() for text in shown.get_texts()] == names
    full = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "s")]
    assert len({line.get_color() for line in full}) == 2
    looks = [(colour_of(index), marker_of(index)) for index in range(24)]
    assert len(set(looks)) == 24


def test_a_sweep_with_empty_series_and_wide_intervals_keeps_its_layout() -> None:
    """No crash in one series, none at all in the other panel, intervals wider than the axis: panels stay wide."""
    table = cells([0.01, 1.5, 1.0, 2.0], [0, 0, 60, 90])
    table["swap_share"] = np.zeros(4)
    table["static_ratio_low"], table["static_ratio_high"] = table["static_ratio"] - 40, table["static_ratio"] + 40
    table["guest"] = np.array(["a", "a", "b", "b"], dtype=object)
    figure = overcommit_figure(table, by=("guest",))
    figure.canvas.draw()
    assert all(axes.get_position().width > 0.3 for axes in figure.axes)


def test_files_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    """PNG and SVG, no temporary file left, and equal bytes for equal data."""
    first = save(run_figure({"pod_oom": 2}), tmp_path / "figure")
    before = [path.read_bytes() for path in first]
    save(run_figure({"pod_oom": 2}), tmp_path / "figure")
    assert [path.read_bytes() for path in first] == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.png", "figure.svg"]
    assert before[0].startswith(b"\x89PNG") and b"promised" in before[1]
