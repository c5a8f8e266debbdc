"""Does the terminal say how far a study is, and what came out, from the stored tables alone?"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from podcluster.config import Cell, Config
from podcluster.io.load import load_results
from podcluster.report import figure, terminal
from podcluster.report.dataset import columns, provenance, rows
from podcluster.report.progress import LiveLine, LogLines, clock, make_progress, state
from podcluster.report.style import in_full, with_ends
from podcluster.report.summary import fate_card, packs, plans, signed_size, size, summary
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB
from tests.report.conftest import SMALL

MakeConfig = Callable[..., Config]


def printed(folder: Path) -> str:
    """The summary as text."""
    console = Console(file=io.StringIO(), width=160, highlight=False)
    summary(folder, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_of(text: str, word: str) -> list[str]:
    """The words of the line that begins with `word`."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(word)]
    return line.split()


def test_a_run_is_summed_up(run_folder: Path) -> None:
    """Ratios, every fate with its count, worst hosts first, rates with what they were counted from, where it all is."""
    text = printed(run_folder)
    found = load_results(run_folder)
    run = found["runs"].iloc[0]
    for name in ("static", "target", "commit", "demand"):
        words = line_of(text, f"{name}_ratio")
        assert words[1:3] == [f"{run[f'{name}_ratio_mean']:.3f}", f"{run[f'{name}_ratio_max']:.3f}"]
    fates = Counter(found["domains"]["fate"])
    assert fates["pod_oom"] > 0 and fates["running"] > 0
    for fate, count in fates.items():
        assert line_of(text, fate)[1] == str(count)
    worst = found["hosts"].sort_values(["domains_died", "free_pages_min", "host_id"], ascending=[False, True, True])
    row = text.splitlines()[next(i for i, line in enumerate(text.splitlines()) if "worst hosts" in line) + 4]
    assert row.split()[:2] == [str(worst.iloc[0]["host_id"]), str(worst.iloc[0]["domains_died"])]
    assert f"{run['fate_pod_oom']} of {run['boots_started']} boots" in text
    assert "memory held since boot" in text
    assert str(run_folder / "results") in text


def test_a_sweep_is_a_line_for_each_cell(sweep_folder: Path) -> None:
    """Axes, what was reached, rates with intervals."""
    text = printed(sweep_folder)
    assert "4 cells, 2 replications each" in text
    cells = load_results(sweep_folder)["cells"]
    rates = text.partition("packing")[0]
    lines = [line.split() for line in rates.splitlines() if line.strip().startswith(("linux", "windows"))]
    assert [words[:3] for words in lines] == [
        [cell["guest"], str(cell["overcommit"]), f"{cell['static_ratio']:.2f}"] for _, cell in cells.iterrows()
    ]


def test_a_sweep_over_several_hosts_says_how_far_from_the_best_packing_it_is(sweep_folder: Path) -> None:
    """Hosts used and the bound from the runs, the gap between them; the second line of each cell."""
    text = printed(sweep_folder).partition("packing, means over replications")[2]
    found = load_results(sweep_folder)
    lines = [line.split() for line in text.splitlines() if line.strip().startswith(("linux", "windows"))]
    assert len(lines) == 4
    for words, (_, cell) in zip(lines, found["cells"].iterrows(), strict=True):
        runs = found["runs"][found["runs"]["cell"] == cell["cell"]]
        used, bound = runs["hosts_used_max"].sum(), runs["hosts_bound"].sum()
        assert words[2] == f"{used / 2:.3g}"
        assert f"{used / bound - 1:.1%}" in words
    assert "more than that" in text and "stranded" in text


@pytest.mark.parametrize(
    ("used", "axes", "told"), [(1.0, (), False), (1.5, (), True), (1.0, ("placement",), True), (None, (), False)]
)
def test_packing_is_told_where_there_is_some(used: float | None, axes: tuple[str, ...], told: bool) -> None:
    """One host has no packing to speak of, unless placement is what is swept; old results have no such column."""
    assert packs([{"hosts_used": used}], axes) is told


BOUND = "the bound is of memory and vCPUs alone"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("placement", ("chance_constrained",)),
        ("placement.anti_affinity", ("[a*]",)),
        ("placement.memory_ratio", (2,)),
        ("placement", ("first_fit", "chance_constrained")),
        ("placement.affinity", ("[]", "[a*]")),
    ],
)
def test_what_the_bound_does_not_know_is_said_under_the_packing(
    key: str, values: tuple[str | int, ...], fake_hosts: None, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Chance constraints, groups and ratios of memory, of a run, and of a sweep of which the first cell has none."""
    cells = [Cell(config=make_config(*SMALL, f"{key}={one}"), axes={key: one} if values[1:] else {}) for one in values]
    run_study(cells, out_dir=tmp_path)
    assert BOUND in printed(tmp_path).partition("packing")[2]


def test_where_the_bound_knows_all_nothing_is_said_of_it(run_folder: Path, sweep_folder: Path) -> None:
    """First fit by memory."""
    assert not any(BOUND in printed(folder) for folder in (run_folder, sweep_folder))


@pytest.mark.parametrize("overcommits", [(1.5,), (1.0, 2.0)])
def test_failover_plans_are_told_where_there_are_some(
    overcommits: tuple[float, ...], fake_hosts: None, make_config: MakeConfig, tmp_path: Path
) -> None:
    """D7: under the packing, of a run and of a sweep, as its runs have them; nothing without `failure.tolerate`."""
    asked = (*SMALL, "failure.tolerate=2", "failure.allow_overcommit=true", "workload.orders=[600 host-fail 0]")
    cells = [
        Cell(config=make_config(*asked, f"overcommit={one}"), axes={"overcommit": one} if overcommits[1:] else {})
        for one in overcommits
    ]
    run_study(cells, out_dir=tmp_path)
    lines = printed(tmp_path).partition("failover plan")[2].splitlines()[4:]
    runs = load_results(tmp_path)["runs"]
    assert runs["overcommitted_ns"].gt(0).all()
    for line, (_, run) in zip(lines[: len(overcommits)], runs.iterrows(), strict=True):
        share = run["overcommitted_ns"] / run["duration_ns"]
        assert line.split()[-2:] == [str(run["failures_tolerated_min"]), f"{share:.1%}"]


def test_without_failure_tolerate_no_plan_is_told(run_folder: Path, sweep_folder: Path) -> None:
    """Nor of results of before there were such columns."""
    assert not any("failover plan" in printed(folder) for folder in (run_folder, sweep_folder))
    assert not plans([{}])


def domain(**values: Any) -> dict[str, Any]:
    """A guest of 256 of 512 MiB that lives, but for `values`."""
    row = {
        "cell": "c",
        "replication": 0,
        "domain_id": 0,
        "attempt": 1,
        "fate": "running",
        "cause": "",
        "end_ns": 900 * NS_PER_S,
        "boot_start_ns": NS_PER_S,
        "boot_done_ns": 21 * NS_PER_S,
        "margin_pages": 6115,
        "tot_pages": 256 * PAGES_PER_MIB,
        "maxmem_pages": 512 * PAGES_PER_MIB,
        "nonzero_pages_peak": 59421,
        "ballooned_pages": 67829,
        "entry_count": 5760,
        "cache_count": 5760,
        "populated_4k": 352,
        "populated_2m": 240,
        "reclaimed_4k": 0,
        "reclaimed_2m": 128,
        "sweeps": 0,
        "oom_line": "",
    }
    return row | values


def card(*events: tuple[str, str], attempt: int = 1, **values: Any) -> str:
    """The fate card as text, the guest's first boot having these events: kind, text."""
    console = Console(file=io.StringIO(), width=160, highlight=False)
    which = {"cell": "c", "replication": 0, "domain_id": 0, "attempt": 1}
    told = [{**which, "kind": kind, "text": text} for kind, text in events]
    fate_card(console, [domain(attempt=attempt, **values)], told)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_guest_that_lives_shows_its_margin() -> None:
    """Fate, margin in MiB and pages, boot time, and that Xen had nothing to log."""
    text = card()
    assert line_of(text, "fate")[1] == "running"
    assert "+23.9 MiB (+6,115 pages): owns 256.0 MiB of 512.0 MiB promised" in text
    assert "up after 20.0 s" in text
    assert "Xen logs nothing" in text


def test_a_guest_that_dies_shows_the_line_that_xen_logs() -> None:
    """The line word for word, brackets and all, on one line however long."""
    line = "p2m_pod_demand_populate: Dom1 out of PoD memory! (tot=65536 ents=65536 dom1) [" + "x" * 200 + "]"
    text = card(fate="pod_oom", cause="debt", margin_pages=-12, boot_done_ns=None, oom_line=line)
    assert f"Xen logs {line}" in text.splitlines()
    assert "pod_oom (debt)" in text and "-0.0 MiB (-12 pages)" in text and "never came up" in text


def test_a_guest_that_was_never_built_has_no_margin() -> None:
    """build_failed and rejected have a fate and a cause and nothing more."""
    assert card(fate="build_failed", cause="claim_failed").splitlines() == [
        "fate     build_failed (claim_failed) at 900.0 s"
    ]
    assert len(card(fate="rejected", cause="no_host", boot_start_ns=None).splitlines()) == 1


def test_a_guest_that_was_refused_shows_in_whose_words() -> None:
    """E10, E13: the toolstack's text of this boot, brackets and all, on one line however long; not that of another."""
    text = "IOMMU required for device passthrough but not supported together with PoD [" + "x" * 200 + "]"
    events = ("place", "one: 256 of 512 MiB"), ("build_failed", text)
    found = card(*events, fate="build_failed", cause="refused").splitlines()
    assert found == ["fate     build_failed (refused) at 900.0 s", f"because  {text}"]
    assert len(card(*events, attempt=2, fate="build_failed", cause="refused").splitlines()) == 1
    none = "NO_HOSTS_AVAILABLE: needs 512 MiB"
    found = card(("reject", none), fate="rejected", cause="no_host", boot_start_ns=None).splitlines()
    assert found[1:] == [f"because  {none}"]


@pytest.mark.parametrize(
    ("pages", "text"),
    [(256, "1.0 MiB"), (4 * PAGES_PER_GIB, "4.0 GiB"), (4 * PAGES_PER_GIB - 256, "4,095.0 MiB"), (0, "0.0 MiB")],
)
def test_sizes_are_in_mib_below_four_gib(pages: int, text: str) -> None:
    """The border of the units."""
    assert size(pages) == text
    assert signed_size(-pages if pages else 0).startswith("-" if pages else "+")


def test_a_study_is_presented_whole(
    fake_hosts: None, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results, figure and summary at once; a second time nothing is computed and the same is said."""
    cells = [Cell(config=make_config(*SMALL))]
    outcome = terminal.present(cells, out_dir=tmp_path, command="podcluster")
    first = capsys.readouterr().out
    assert outcome.computed == 1
    assert (tmp_path / "figure.png").is_file() and (tmp_path / "figure.svg").is_file()
    assert str(tmp_path / "figure.png") in first
    assert terminal.present(cells, out_dir=tmp_path, command="podcluster").computed == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("overcommits", [(1.5,), (1.0, 2.0)])
def test_what_is_not_counted_is_said_wherever_numbers_are(
    overcommits: tuple[float, ...], fake_hosts: None, make_config: MakeConfig, tmp_path: Path
) -> None:
    """Under the summary and under the figure, of a run and of a sweep."""
    asked = (*SMALL, "study.warmup_s=600")
    cells = [
        Cell(config=make_config(*asked, f"overcommit={one}"), axes={"overcommit": one} if overcommits[1:] else {})
        for one in overcommits
    ]
    terminal.present(cells, out_dir=tmp_path, command="podcluster")
    assert "first 10 min not counted" in printed(tmp_path)
    assert b"first 10 min not counted" in (tmp_path / "figure.svg").read_bytes()


def test_no_samples_means_no_figure_and_a_word_why(
    fake_hosts: None, make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """study.telemetry_s=0 with study.figure=true: the run is not lost over it."""
    terminal.present([Cell(config=make_config(*SMALL, "study.telemetry_s=0"))], out_dir=tmp_path, command="podcluster")
    assert not (tmp_path / "figure.png").exists()
    assert "no figure" in caplog.text and "study.telemetry_s" in caplog.text


def test_figures_are_drawn_again_from_a_folder(
    run_folder: Path, sweep_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`podcluster figure DIR` for a run and for a sweep: both files, their names on stdout."""
    for folder in (run_folder, sweep_folder):
        assert figure.main([str(folder)]) == 0
        files = [folder / "figure.png", folder / "figure.svg"]
        assert capsys.readouterr().out.split() == [str(file) for file in files]
        assert all(file.stat().st_size > 10_000 for file in files)
    assert b"guest windows" in (sweep_folder / "figure.svg").read_bytes()


def test_tables_are_read_without_loss(run_folder: Path) -> None:
    """Columns equal the rows they come from, numbers as numbers, missing ones as None."""
    found, table = columns(run_folder, "domains"), rows(run_folder, "domains")
    assert found["maxmem_pages"].dtype.kind == "i"
    for name in ("domain_id", "fate", "boot_done_ns"):
        assert found[name].tolist() == [row[name] for row in table]
    assert provenance(run_folder)["seed"] == 1


def test_log_lines_come_at_their_pace(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of ours: 25 s of wall time at a line each 10 s are two lines, which say all there is to say."""
    now_s = [100.0]
    monkeypatch.setattr("podcluster.report.progress.time.monotonic", lambda: now_s[0])
    lines = LogLines(every_s=10.0)
    lines.begin("run", 4, 30, 7200 * NS_PER_S)
    with caplog.at_level(logging.INFO, "podcluster"):
        for step in range(26):
            now_s[0] = 100.0 + step
            lines.update(step * 60 * NS_PER_S, 20, Counter({"pod_oom": 3, "rejected": 1}))
    lines.end()
    assert caplog.messages == [
        "run: 0:10 h of 2:00 h simulated, 4 hosts, 20 running, 3 pod_oom, 1 rejected, 60x real time",
        "run: 0:20 h of 2:00 h simulated, 4 hosts, 20 running, 3 pod_oom, 1 rejected, 60x real time",
    ]


def test_a_sweep_of_short_runs_is_not_silent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six runs of 4 s: a line after 10 s and one after 20, each of the run it falls into."""
    now_s = [100.0]
    monkeypatch.setattr("podcluster.report.progress.time.monotonic", lambda: now_s[0])
    lines = LogLines(every_s=10.0)
    with caplog.at_level(logging.INFO, "podcluster"):
        for run in range(6):
            lines.begin(f"run {run}", 1, 1, 60 * NS_PER_S)
            for _ in range(4):
                now_s[0] += 1.0
                lines.update(30 * NS_PER_S, 1, {})
            lines.end()
    assert [message.split(":")[0] for message in caplog.messages] == ["run 2", "run 4"]


def test_the_live_line_shows_and_goes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal (Rich is told that it is one): state on stderr, nothing on stdout, nothing after the end."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    line = LiveLine()
    line.update(0, 0, {})
    line.begin("run", 4, 30, 7200 * NS_PER_S)
    line.update(3600 * NS_PER_S, 20, Counter({"pod_oom": 3}))
    line.end()
    line.end()
    streams = capsys.readouterr()
    assert "20 running, 3 pod_oom" in streams.err and "1:00 h" in streams.err
    assert streams.out == ""


def test_large_numbers_have_no_exponent() -> None:
    """A thousand hosts are not 1e+03; small ones are as rounded as they are."""
    assert [in_full(value, ".3g") for value in (1001, 104.4, 0.01234)] == ["1,001", "104", "0.0123"]
    assert with_ends(1001.5, 998.0, 12_345.0, ".3g") == "1,002 (998 to 12,345)"
    assert [in_full(value, "+.2g") for value in (-12_345.0, 99.4)] == ["-12,345", "+99"]


def test_progress_is_live_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """stderr decides."""
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_progress(), LogLines)


def test_those_who_live_to_the_end_are_running_before_and_after_it() -> None:
    """The last step writes a row for every domain, and hosts still say that they have them: nobody is counted twice."""
    assert state(2, 60, Counter({"pod_oom": 1})) == "2 hosts, 60 running, 1 pod_oom"
    assert state(1, 1060, Counter({"running": 1060, "pod_oom": 1})) == "1 host, 1,060 running, 1 pod_oom"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (599, "599 s"), (600, "0:10 h"), (90_061, "25:01 h")])
def test_simulated_time_is_readable(seconds: int, text: str) -> None:
    """Seconds below ten minutes, hours and minutes from there on."""
    assert clock(seconds * NS_PER_S) == text
