"""Do logged crashes come out of their configurations, and is a prediction that fails told as one?"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from podcluster.cli import groups, plan
from podcluster.report.dataset import rows
from podcluster.report.field_crashes import LOGGED, crash_figure, crash_table, in_words, verdicts
from podcluster.report.figure import draw
from podcluster.report.summary import summary
from podcluster.study.runner import run_study
from podcluster.units import PAGES_PER_MIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment as anyone runs it, without -m."""
    made = tmp_path_factory.mktemp("field_crashes")
    cells, _ = plan(["experiment=field_crashes"])
    assert [cell.axes["crash"] for cell in cells] == [*LOGGED]
    run_study(cells, out_dir=made)
    return made


def test_every_logged_crash_is_a_configuration() -> None:
    """conf/crash and what was logged name the same crashes."""
    assert set(groups()["crash"]) == set(LOGGED)


@pytest.mark.parametrize("name", LOGGED)
def test_a_logged_crash_comes_out(folder: Path, name: str) -> None:
    """Entries to the page; tot within 32 pages where settings are known; the guest died of its debt, cache empty."""
    (one,) = [found for found in verdicts(rows(folder, "domains")) if found.name == name]
    assert one.entries_agree and one.tot_agrees is not False, one
    (row,) = [row for row in rows(folder, "domains") if row["crash"] == name]
    assert (row["fate"], row["cause"], row["cache_count"]) == ("pod_oom", "debt", 0)
    assert (one.ballooned_pages > 0) == (one.logged.settings == "searched")


def test_the_terminal_sets_them_side_by_side(folder: Path) -> None:
    """A line for each, logged before predicted."""
    draw(folder)
    console = Console(file=io.StringIO(), width=200, highlight=False)
    summary(folder, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for one in LOGGED.values():
        (line,) = [line for line in text.splitlines() if line.strip().startswith(one.where)]
        assert f"{one.entry_count:,}" in line.split() and f"{one.tot_pages:,}" in line.split()
    assert (folder / "figure.png").is_file() and str(folder / "figure.png") in text


def domain(**values: Any) -> dict[str, Any]:
    """The row of a guest as QubesOS 3861, but for `values`."""
    plain = {
        "crash": "qubes_3861", "memory_pages": 2048 * PAGES_PER_MIB, "maxmem_pages": 3000 * PAGES_PER_MIB,
        "ballooned_pages": 0, "fate": "pod_oom", "cause": "debt", "tot_pages": 524_280, "entry_count": 243_712,
    }  # fmt: skip
    return plain | values


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "entries, tot"),
        ({"entry_count": 243_711}, "not in entries, tot"),
        ({"tot_pages": 524_286 + 32}, "entries, tot"),
        ({"tot_pages": 524_286 - 33}, "entries, not in tot"),
        ({"fate": "running"}, "no: running"),
        ({"crash": "talos", "entry_count": 983_008}, "entries (tot aside)"),
    ],
)
def test_what_does_not_agree_is_said(changed: dict[str, Any], words: str) -> None:
    """A page of entries is a miss; tot has 32 pages, and not one more."""
    (one,) = verdicts([domain(**changed)])
    assert in_words(one) == words


def test_a_guest_that_lives_agrees_with_nothing() -> None:
    """The numbers of a living guest are no prediction of a crash; a crash that is not ours is left out."""
    (one,) = verdicts([domain(fate="running"), domain(crash="another")])
    assert not one.entries_agree and one.tot_agrees is False
    assert crash_table([domain(fate="running")]).rows[0].style == "bold red"
    assert len(crash_figure([one]).axes) == 2
