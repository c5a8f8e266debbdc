"""Does the terminal say what a change makes, with its interval, and does pooling compare each machine with itself?"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from podcluster.cli import compose
from podcluster.config import Cell
from podcluster.io.load import load_results
from podcluster.report import paired
from podcluster.report.paired import cells_of, in_words, names_of, pooled
from podcluster.report.summary import summary
from podcluster.study.pairs import Difference
from podcluster.study.runner import run_study
from tests.report.conftest import SMALL, faking


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two guests and two overcommits on fake hosts, compared with overcommit 1."""
    folder = tmp_path_factory.mktemp("compared")
    asked = (*SMALL, "study.replications=2", "study.baseline='overcommit=1'")
    cells = [
        Cell(config=compose([*asked, f"guest={guest}", f"overcommit={r}"]), axes={"guest": guest, "overcommit": r})
        for guest in ("linux", "windows")
        for r in (1.0, 2.0)
    ]
    with faking():
        run_study(cells, out_dir=folder)
    return folder


def printed(folder: Path) -> str:
    """The summary as text."""
    console = Console(file=io.StringIO(), width=160, highlight=False)
    summary(folder, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_cell_is_set_against_its_baseline(compared: Path) -> None:
    """A line of deaths for each cell that is not the baseline, with both means and how many machines differ."""
    text = printed(compared)
    assert "against overcommit=1, machine by machine" in text
    pairs = load_results(compared)["pairs"]
    died = pairs[pairs["measure"] == "died"].set_index("guest")
    lines = [line.split() for line in text.partition("machine by machine")[2].splitlines() if " died " in line]
    assert [words[:3] for words in lines] == [["linux", "2", "died"], ["windows", "2", "died"]]
    for words in lines:
        row = died.loc[words[0]]
        assert words[3:5] == [f"{row['baseline_value']:.3g}", f"{row['value']:.3g}"]
        assert words[-3:] == [f"{row['machines_higher'] + row['machines_lower']}", "of", f"{row['machines']}"]


def test_many_cells_are_pooled_by_their_names(compared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More cells than lines: axes of numbers are pooled, said so; one line a guest stays."""
    monkeypatch.setattr(paired, "MOST_LINES", 1)
    text = printed(compared)
    assert text.count(" died ") == 2
    assert names_of(cells_of(compared)) == ["guest"]
    (one,) = pooled(compared, "overcommit=1", [], 0.95)
    assert (one.axes, one.cells) == ({"overcommit": 2.0}, 2)
    found = load_results(compared)["domains"]
    both = one.differences["died"]
    assert both.machines == len(found) / 2
    dead = found[found["fate"] == "pod_oom"].groupby("overcommit").size()
    assert both.machines_higher - both.machines_lower == dead.get(2.0, 0) - dead.get(1.0, 0)


PLAIN = Difference(5, 100, 0.5, 0.25, -0.25, -0.5, -0.1, 0.06, 0, 25, -0.3, -0.2, 1e-7)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (PLAIN, ("0.5", "0.25", "-0.25", "-0.5 to -0.1", "25 of 100")),
        (PLAIN._replace(low=None, high=None), ("0.5", "0.25", "-0.25", "-0.3 to -0.2 *", "25 of 100")),
        (
            PLAIN._replace(difference=0.0, low=None, high=None, low_pooled=None, high_pooled=None, machines_lower=0),
            ("0.5", "0.25", "0", "-", "0 of 100"),
        ),
    ],
)
def test_an_interval_over_replications_comes_first(found: Difference, words: tuple[str, ...]) -> None:
    """The pooled one is marked, and none is said to be none."""
    assert in_words(found) == words
