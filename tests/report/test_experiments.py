"""Do the figures and answers of experiments show what is in the tables: every count, every interval, zero as zero?"""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

from podcluster.cli import plan
from podcluster.config import Cell
from podcluster.report import churning, hazards, phase, summary, swapping
from podcluster.report.controllers import controllers_table, standings
from podcluster.report.dataset import of_experiment
from podcluster.report.figure import draw, experiment_measures
from podcluster.report.forest import Line, forest
from podcluster.report.paired import Pooled, paired_figure, pooled_in_words, that_happened
from podcluster.report.style import BLUE, new_figure
from podcluster.study.pairs import Difference
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from tests.io.rows import plain
from tests.report.conftest import SMALL, faking

DAY_NS = 86_400 * NS_PER_S


def texts(figure: Figure) -> list[str]:
    """Everything written in a figure."""
    return [item.get_text() for item in figure.findobj(Text) if isinstance(item, Text)]


# -- the race


def race(*rows: tuple[str, float, float, float, int], replications: int = 4) -> dict[str, Any]:
    """Cells of (guest, rate, start, ratio, deaths of 20)."""
    guests, rates, starts, ratios, deaths = zip(*rows, strict=True)
    share = np.array(deaths) / 20
    missing = np.array([0 < p < 1 and p != 0.5 for p in share])
    ends = {"low": share - 0.1, "high": share + 0.1}
    return {
        "guest": np.array(guests, dtype=object),
        "guest.balloon.rate_pages_per_s": np.array([f"[{rate}, {rate}]" for rate in rates], dtype=object),
        "guest.balloon.start_s": np.array([f"[{start - 1}, {start + 1}]" for start in starts], dtype=object),
        "overcommit": np.array(ratios),
        "crash_per_boot_numerator": np.array(deaths),
        "crash_per_boot_denominator": np.full(len(rows), 20),
        "crash_per_boot_upper": share + 0.13,
        **{
            f"crash_per_boot_{end}": [p if there else None for p, there in zip(value, missing, strict=True)]
            for end, value in ends.items()
        },
        **{f"crash_per_boot_{end}_pooled": value for end, value in ends.items()},
        "replications": np.full(len(rows), replications),
        "confidence": np.full(len(rows), 0.95),
    }


RACE = race(
    ("linux", 1000, 5, 2, 0), ("linux", 1000, 60, 2, 5), ("linux", 1000, 5, 4, 10), ("linux", 1000, 60, 4, 20),
    ("windows", 1000, 5, 2, 0), ("windows", 1000, 60, 2, 0), ("windows", 1000, 5, 4, 0), ("windows", 1000, 60, 4, 0),
)  # fmt: skip


def test_a_map_for_each_guest_with_counts_and_intervals() -> None:
    """Ratio along, start upwards (the middle of its range); interval, pooled interval (*), bound, as there is one."""
    figure = phase.phase_figure(RACE, note="memory held since boot")
    left, right = figure.axes[:2]
    assert (left.get_title(), right.get_title()) == ("linux", "windows")
    np.testing.assert_allclose(np.asarray(left.images[0].get_array()), [[0, 0.5], [0.25, 1]])
    np.testing.assert_allclose(np.asarray(right.images[0].get_array()), np.zeros((2, 2)))
    assert [item.get_text() for item in left.get_xticklabels()] == ["2", "4"]
    assert [item.get_text() for item in left.get_yticklabels()] == ["5", "60"]
    words = [item.get_text() for item in left.texts]
    assert words == ["0/20", "< 13%", "10/20", "40-60% *", "5/20", "15-35%", "20/20", "> 90% *"]
    foot = "\n".join(texts(figure))
    assert "4 replications a field" in foot and "memory held since boot" in foot


def test_a_field_without_a_cell_stays_empty() -> None:
    """A sweep need not be whole: what was not computed is no zero."""
    figure = phase.phase_figure(RACE, keep=np.array([True] * 3 + [False] * 5))
    shares: Any = figure.axes[0].images[0].get_array()
    assert shares.mask[1, 1] and shares[0, 0] == 0
    assert len(figure.axes[0].texts) == 6


def test_the_race_in_words_goes_from_kindest_to_harshest() -> None:
    """Deaths of the best and of the worst balloon at each ratio; none of all where none died."""
    lines = phase.race_in_words(RACE).splitlines()
    assert lines[-2] == "| linux | 0/20 (< 13%) to 5/20 (15-35%) | 10/20 (40-60% *) to 20/20 (> 90% *) |"
    assert lines[-1] == "| windows | none of 40 | none of 40 |"


def test_deaths_are_counted_by_cause_as_xen_is() -> None:
    """Only the cells with all hazards on; boots that live count as boots."""
    rows = [
        ("windows", "as_is", "pod_oom", "wrap"), ("windows", "as_is", "pod_oom", "debt"),
        ("windows", "as_is", "running", ""), ("windows", "no_wrap", "pod_oom", "ring"),
        ("linux", "as_is", "guest_panic", "boot_barrier"),
    ]  # fmt: skip
    names = ("guest", "hazard", "fate", "cause")
    table = {name: np.array([row[at] for row in rows], dtype=object) for at, name in enumerate(names)}
    found = hazards.tally(table)
    assert found == {"windows": Counter({"": 3, "wrap": 1, "debt": 1}), "linux": Counter({"": 1})}
    words = hazards.tally_in_words(found).splitlines()
    assert words[0] == "| guest | boots | debt | preempt | wrap | ring | reclaim_short |"
    assert words[2:] == ["| windows | 3 | 1 | 0 | 1 | 0 | 0 |", "| linux | 1 | 0 | 0 | 0 | 0 | 0 |"]


# -- what a change makes

SURE = Difference(5, 100, 0.5, 0.25, -0.25, -0.5, -0.1, 0.06, 0, 25, -0.3, -0.2, 1e-7)
NONE = Difference(5, 100, 0.5, 0.5, 0.0, None, None, 1.0, 0, 0, -0.03, 0.03, 1.0)


def test_a_dot_with_its_interval_or_hollow() -> None:
    """Over replications full, pooled hollow, neither: the dot alone; a line is there for what was not compared."""
    figure = new_figure(4, 3)
    axes = figure.subplots()
    bare = NONE._replace(low_pooled=None, high_pooled=None)
    forest(
        axes, [Line("a", BLUE, SURE), Line("b", BLUE, NONE), Line("c", BLUE, bare), Line("d", BLUE, None)], label="x"
    )
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    spans = [line for line in axes.lines[1:] if line.get_marker() != "o"]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True, True]
    assert [np.asarray(line.get_xdata()).tolist() for line in spans] == [[-0.5, -0.1], [-0.03, 0.03]]
    assert [item.get_text() for item in axes.get_yticklabels()] == ["a", "b", "c", "d"]


def test_groups_are_set_against_the_baseline() -> None:
    """A panel a measure, a line a group, named by what differs between groups; the table says the same."""
    lines = [
        Pooled({"guest": guest, "host.era": "rfc2009"}, 3, {"died": found, "sweeps": NONE})
        for guest, found in (("linux", SURE), ("windows", NONE))
    ]
    figure = paired_figure(lines, ("died", "boot_s"), "host.era=today", note="memory held since boot")
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "died,\nless that of host.era=today",
        "boot_s,\nless that of host.era=today",
    ]
    assert [item.get_text() for item in figure.axes[0].get_yticklabels()] == ["linux, rfc2009", "windows, rfc2009"]
    assert "100 pairs of machines a line, in 5 replications" in "\n".join(texts(figure))
    words = pooled_in_words(lines, ("died", "boot_s"), "host.era=today", 0.95).splitlines()
    assert (
        words[0] == "| guest | era | of a machine | host.era=today | here | difference | 95% | machines that differ |"
    )
    assert words[2] == "| linux | rfc2009 | died | 0.5 | 0.25 | -0.25 | -0.5 to -0.1 | 25 of 100 |"
    assert words[3] == "| windows | rfc2009 | died | 0.5 | 0.5 | 0 | -0.03 to +0.03 * | 0 of 100 |"
    assert len(words) == 6


def test_what_never_happened_has_no_panel_and_no_column() -> None:
    """Not zero here or there, for one group or for all: shown; zero everywhere, or compared nowhere: not."""
    zero = NONE._replace(baseline_value=0.0, value=0.0)
    lines = [
        Pooled({"controller": "mom"}, 3, {"guest_panic": zero, "oom_kills": zero}),
        Pooled({"controller": "esx"}, 3, {"guest_panic": zero, "oom_kills": zero._replace(baseline_value=0.1)}),
    ]
    assert that_happened(lines, ("oom_kills", "guest_panic", "ept_violation")) == ("oom_kills",)
    assert experiment_measures(lines, "controllers")[-2:] == ("moved_gib", "oom_kills")
    assert experiment_measures(lines, "eras") == ("died", "sweeps", "splintered_2m", "boot_s")


def test_many_panels_go_in_rows() -> None:
    """Five: three above two, each with its measure; four stay in one row."""
    lines = [Pooled({"controller": "mom"}, 3, {"died": SURE})]
    for count, rows in ((4, [4]), (5, [3, 2])):
        measures = ("refused", "died", "swap_s", "slowdown", "moved_gib")[:count]
        figure = paired_figure(lines, measures, "controller=static")
        assert [axes.get_xlabel().split(",")[0] for axes in figure.axes] == list(measures)
        specs = [axes.get_subplotspec() for axes in figure.axes]
        assert list(Counter(spec.rowspan.start for spec in specs if spec is not None).values()) == rows


def test_controllers_side_by_side() -> None:
    """Counts and shares by hand over two replications of a day on two hosts; a column for panics, none for what never
    happened.
    """
    run = plain(
        "runs", hosts=2, duration_ns=DAY_NS, requests=9, restarts=1, boots_started=8, fate_rejected=1, swap_share=0.1,
        fate_build_failed=1, starts_waited_ns=20 * NS_PER_S, moved_pages=3 * PAGES_PER_GIB, uncooperative=4,
    )  # fmt: skip
    runs = [asdict(run) | {"controller": "mom"}, asdict(run) | {"controller": "mom", "fate_guest_panic": 1}]
    (found,) = standings(runs, 2.0)
    assert (found.controller, found.overcommit, found.boots, found.killed) == ("mom", 2.0, 16, 0)
    assert (found.refused, found.waited_s, found.moved_gib, found.uncooperative) == (0.2, 2.0, 1.5, 8)
    head, _, line = controllers_table([found]).splitlines()
    assert head.split(" | ")[3:6] == ["killed", "panicked", "refused"]
    assert line == "| mom | 2 | 16 | 0 | 1 | 20.0% | 10.00% | 2.0 | 1.5 | 8 |"
    assert "panicked" not in controllers_table(standings(runs[:1], 2.0))


# -- swap


def guests() -> dict[str, Any]:
    """Four guests for a day at overcommit 2 without swap and with a disk, one of them refused."""
    start = np.array([0, 0, 0, None] * 2, dtype=object)
    return {
        "overcommit": np.full(8, 2.0),
        "swap": np.array(["none"] * 4 + ["hdd"] * 4, dtype=object),
        "replication": np.array([0, 1, 1, 0] * 2),
        "boot_start_ns": start,
        "end_ns": np.full(8, DAY_NS),
        "oom_kills": np.array([3, 0, 1, 0, 0, 0, 0, 0]),
        "swap_ns": np.array([0, 0, 0, 0, 100, 300, 0, 0]) * NS_PER_S,
        "slowdown": np.array([1.0, 1.0, 1.0, 1.0, 1.5, 4.0, 1.0, 1.0]),
    }


def test_what_a_swap_disk_is_worth() -> None:
    """Kills over domain-days by hand, an interval only where there was one, what the guests lose that lose any."""
    none, disk = swapping.prices_of(guests(), 0.95)
    assert (none.ratio, none.device, none.guests, none.replications) == (2.0, "none", 3, 2)
    assert none.kills_per_day == pytest.approx(4 / 3) and none.killed_guests == 2
    assert none.low == 0 and none.high is not None and none.high > 4 / 3
    assert (disk.kills_per_day, disk.low, disk.high, disk.killed_guests) == (0.0, None, None, 0)
    assert disk.lost_s.tolist() == [100, 300] and disk.slowdown.tolist() == [1.5, 4.0]
    assert len(none.lost_s) == 0
    words = swapping.in_words([none, disk], 0.95).splitlines()
    assert words[2].startswith("| 2 | none | 3 | 1.3 (0 to ") and words[2].endswith("| 2 | 0 | - | - | - | - |")
    assert words[3] == "| 2 | hdd | 3 | 0 | 0 | 2 | 200 | 290 | 2.75 | 3.88 |"


def test_the_figure_of_swap_has_a_curve_for_each_device() -> None:
    """Kills, share of guests that lose time, and how slow those are; n in the foot."""
    figure = swapping.swap_figure(swapping.prices_of(guests(), 0.95), note="memory held since boot")
    left, middle, right = figure.axes
    legend = left.get_legend()
    assert legend is not None and [item.get_text() for item in legend.get_texts()] == ["none", "hdd"]
    assert [np.asarray(line.get_ydata()).tolist() for line in middle.lines] == [[0.0], [pytest.approx(2 / 3)]]
    (curve,) = right.lines
    assert np.asarray(curve.get_xydata()).tolist() == [[1.5, 1.0], [4.0, 0.5]]
    assert "n = 3 guests a point, in 2 replications" in "\n".join(texts(figure))


# -- from a folder


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race of two guests on fake hosts, with one hazard switched off in half of it."""
    folder = tmp_path_factory.mktemp("race")
    axes = (
        "guest=linux,windows",
        "hazard=as_is,no_wrap",
        "overcommit=1.5,4",
        "guest.balloon.start_s=[2,2],[60,60]",
        "guest.balloon.rate_pages_per_s=[11700,11700],[62000,62000]",
    )
    small = (*SMALL, "cluster.hosts=1", "workload.machines=3")
    cells: list[Cell] = plan(["experiment=boot_race", *small, *axes, "study.replications=2"], multirun=True)[0]
    with faking():
        run_study(cells, out_dir=folder)
    return folder


def test_a_race_draws_its_maps_and_its_hazards(crowd: Path) -> None:
    """Two figures, the first under the name of every study's."""
    files = [file.name for file in draw(crowd)]
    assert files == ["figure.png", "figure.svg", "hazards.png", "hazards.svg"]
    tally, off, confidence = hazards.of_sweep(crowd)
    assert set(tally) == {"linux", "windows"} and confidence == 0.95
    assert [tuple(one.axes[axis] for axis in ("guest", "hazard")) for one in off] == [
        ("linux", "no_wrap"),
        ("windows", "no_wrap"),
    ]
    words = hazards.switched_off_in_words(off, confidence).splitlines()
    assert words[2].startswith("| linux | wrap | died |") and words[3].startswith("| linux | wrap | early |")
    assert words[4].startswith("| linux | wrap | sweep_looks |")


def test_a_storm_with_an_axis_fixed_is_drawn_along_the_rest(fake_hosts: None, tmp_path: Path) -> None:
    """overcommit=3 on the command line: no column of the results has that name, and the figure asks for none."""
    fixed = ("overcommit=3", "controller=static", "workload.boot_spread_s=0,60", "study.replications=2")
    run_study(plan(["experiment=boot_storm", *SMALL, *fixed])[0], out_dir=tmp_path)
    assert [file.name for file in draw(tmp_path)] == ["figure.png", "figure.svg"]


def test_a_crowd_of_cells_is_told_by_its_names(crowd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More cells than lines: one line for each guest and hazard, its cells and boots counted."""
    monkeypatch.setattr(summary, "MOST_CELLS", 10)
    console = Console(file=io.StringIO(), width=160, highlight=False)
    summary.summary(crowd, console)
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().partition("machine by machine")[0].splitlines()]
    found = [words[:4] for words in lines if words and words[0] in ("linux", "windows")]
    assert sorted(found) == [[g, h, "8", "48"] for g in ("linux", "windows") for h in ("as_is", "no_wrap")]


def test_a_notebook_finds_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is named; else the newest sweep of the experiment; else where one would be."""
    monkeypatch.setenv("PODCLUSTER_RESULTS", "there")
    assert of_experiment("eras") == Path("there")
    monkeypatch.delenv("PODCLUSTER_RESULTS")
    assert of_experiment("eras", tmp_path) == tmp_path / "sweeps" / "eras"
    for name in ("eras-1", "eras-2", "other-3"):
        (tmp_path / "sweeps" / name).mkdir(parents=True)
    os.utime(tmp_path / "sweeps" / "eras-2", (1, 1))
    assert of_experiment("eras", tmp_path) == tmp_path / "sweeps" / "eras-1"


# -- a stream of machines


def stream_of(*hosts: tuple[float, str, tuple[int, ...]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cells of (overcommit, guest, hosts used by replication), and their runs; the bound is one host less."""
    rates = {
        f"{rate}{end}": None for rate in ("crash_per_boot", "swap_share", "start_refused") for end in ("_low", "_high")
    }
    fixed = {"static_ratio_low": None, "static_ratio_high": None, "crash_per_boot_upper": 0.1, "confidence": 0.95}
    zero = {"crash_per_boot": 0.0, "swap_share": 0.0, "start_refused": 0.0, "boots_started": 20, "replications": 2}
    cells, runs = [], []
    for overcommit, guest, used in hosts:
        name = f"{guest}-{overcommit}"
        mean = sum(used) / len(used)
        axes = {"cell": name, "overcommit": overcommit, "guest": guest, "static_ratio": overcommit}
        cells.append({**rates, **fixed, **zero, **axes, "hosts_used": mean, "hosts_bound": mean - 1})
        runs += [{"cell": name, "replication": at, "hosts_used_max": count} for at, count in enumerate(used)]
    return cells, runs


STREAM = stream_of(
    (2.0, "linux", (5, 21)), (1.0, "linux", (10, 40)), (1.0, "windows", (10, 40)), (2.0, "windows", (5, 20))
)


def test_hosts_are_set_against_those_of_the_lowest_ratio_on_the_same_days() -> None:
    """26 of 50 with an interval, 25 of 50 on each day alike without one; a guest is compared with itself."""
    shares = churning.hosts_against_least(*STREAM, ["guest", "overcommit"])
    assert shares["linux-1.0"] == (1.0, None, None) and shares["windows-2.0"] == (0.5, None, None)
    value, low, high = shares["linux-2.0"]
    assert value == 0.52 and low is not None and high is not None and low < 0.52 < high
    words = churning.in_words(*STREAM, ["guest", "overcommit"]).splitlines()
    assert words[0].startswith(
        "| guest | overcommit | hosts used | no packing below | of those at the lowest overcommit"
    )
    assert words[2].startswith("| linux | 2.0 | 13.0 | 12.0 | 0.52 (")
    assert words[5].startswith("| windows | 2.0 | 12.5 | 11.5 | 0.5 | 2.00 | 20 | 0 |")
    assert "lowest" not in churning.in_words(STREAM[0][:1], STREAM[1][:2], [])


def test_hosts_over_the_ratio_with_the_bound_and_each_day() -> None:
    """For each guest two thin lines, the mean and the bound, from the lowest ratio on."""
    cells, runs = STREAM
    table = {name: np.array([cell[name] for cell in cells], dtype=object) for name in cells[0]}
    figure = churning.churn_figure(table, runs, by=("guest",), note="first 6 h not counted")
    lines = [np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines]
    assert lines[:4] == [
        [[1, 10], [2, 5]],
        [[1, 40], [2, 21]],
        [[1, 25], [2, 13]],
        [[1, 24], [2, 12]],
    ]
    assert len(lines) == 8
    assert "first 6 h not counted" in "\n".join(texts(figure)) and "no packing below (mean)" in texts(figure)
