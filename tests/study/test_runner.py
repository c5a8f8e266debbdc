"""Does a study compute what is missing and only that, and is what it leaves the same however it was interrupted?"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podcluster import workloads
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import RunOutcome, run
from podcluster.config import Cell, Config
from podcluster.errors import ConfigError, InvariantError, PodclusterError
from podcluster.io.checkpoints import CheckpointFolder
from podcluster.io.digest import digest
from podcluster.io.load import load_results
from podcluster.io.lock import Lock
from podcluster.records.machines import Workload
from podcluster.study.runner import cell_name, host_seed, run_study

pytestmark = pytest.mark.usefixtures("fake_hosts")

MakeConfig = Callable[..., Config]

SMALL = (
    "engine=inline",
    "workload.machines=12",
    "study.duration_s=1200",
    "workload.boot_spread_s=300",
    "cluster.host_mem_gib=64",
)


@pytest.fixture
def config(make_config: MakeConfig) -> Config:
    """Twelve machines for twenty minutes, three times."""
    return make_config(*SMALL, "study.replications=3")


def sweep(make_config: MakeConfig, *overcommits: float) -> list[Cell]:
    """A cell for each overcommit, two replications."""
    return [
        Cell(config=make_config(*SMALL, "study.replications=2", f"overcommit={value}"), axes={"overcommit": value})
        for value in overcommits
    ]


class Counter:
    """Counts the replications that are really simulated, and interrupts one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt_at: int | None = None) -> None:
        self.calls = 0

        def counted(*arguments: Any) -> RunOutcome:
            self.calls += 1
            if self.calls == interrupt_at:
                raise KeyboardInterrupt
            return run(*arguments)

        monkeypatch.setattr("podcluster.cluster.run.run", counted)


def test_a_run_is_a_folder_with_every_table(make_config: MakeConfig, tmp_path: Path) -> None:
    """One replication: tables, mark, one row in `runs` and `cells`, as many rows in `domains` as requests."""
    outcome = run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path / "run", command="podcluster a 'b c'")
    assert (outcome.computed, outcome.skipped) == (1, 0)
    found = load_results(tmp_path / "run")
    assert set(found.tables) == {"cells", "runs", "hosts", "domains", "samples", "machine_samples", "events"}
    assert len(found["runs"]) == len(found["cells"]) == 1
    assert len(found["domains"]) == found["runs"]["requests"][0] == 12
    assert found.provenance["command"] == ["podcluster", "a", "b c"]
    assert (tmp_path / "run" / "DONE").is_file()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["DONE", "results"]


def test_each_replication_is_drawn_once(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at before anything starts is what is then run."""
    drawn: list[int] = []
    draw = workloads.requests

    def counted(*arguments: Any, **keywords: Any) -> Workload:
        drawn.append(keywords["replication"])
        return draw(*arguments, **keywords)

    monkeypatch.setattr("podcluster.workloads.requests", counted)
    run_study([Cell(config=config)], out_dir=tmp_path)
    assert drawn == [0, 1, 2]


def test_progress_ends_with_those_who_run(make_config: MakeConfig, tmp_path: Path) -> None:
    """The last word on a run: as many as have a row that says so."""
    said: list[int] = []

    class Heard(Silent):
        def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
            said.append(running)

    run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path, progress=Heard())
    assert said[-1] == (load_results(tmp_path)["domains"]["fate"] == "running").sum() > 0


def test_replications_have_seeds_and_machines_of_their_own(config: Config, tmp_path: Path) -> None:
    """Three replications in one dataset, in order, none like another; the cell adds them up."""
    run_study([Cell(config=config)], out_dir=tmp_path)
    found = load_results(tmp_path)
    assert found["runs"]["replication"].tolist() == [0, 1, 2]
    maxmem = [tuple(part["maxmem_pages"]) for _, part in found["domains"].groupby("replication")]
    assert len(set(maxmem)) == 3
    cell = found["cells"].iloc[0]
    assert cell["replications"] == 3
    assert cell["boots_started"] == found["runs"]["boots_started"].sum()
    assert cell["crash_per_boot_numerator"] == found["runs"]["fate_pod_oom"].sum()
    assert len({host_seed(config.seed, replication) for replication in range(3)}) == 3
    assert not (tmp_path / ".replications").exists()


def test_what_is_done_is_not_done_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A second call computes nothing and says so; --force computes all of it, to the same digest."""
    counter = Counter(monkeypatch)
    cell = Cell(config=config)
    run_study([cell], out_dir=tmp_path)
    before = digest(tmp_path)
    with caplog.at_level(logging.INFO, "podcluster"):
        again = run_study([cell], out_dir=tmp_path)
    assert (again.computed, again.skipped, counter.calls) == (0, 1, 3)
    assert "already computed" in caplog.text and "--force" in caplog.text
    assert run_study([cell], out_dir=tmp_path, force=True).computed == 1
    assert counter.calls == 6 and digest(tmp_path) == before


def test_an_interrupted_cell_goes_on_at_the_replication_it_was_in(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupt the third replication: two are kept, no result is there, and the rest makes the same dataset."""
    run_study([Cell(config=config)], out_dir=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Counter(patch, interrupt_at=3)
        run_study([Cell(config=config)], out_dir=tmp_path / "cut")
    assert not (tmp_path / "cut" / "results").exists() and not (tmp_path / "cut" / "DONE").exists()
    counter = Counter(monkeypatch)
    run_study([Cell(config=config)], out_dir=tmp_path / "cut")
    assert counter.calls == 1
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_an_interrupted_sweep_keeps_its_finished_cells(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three cells of two replications, cut in the fifth: the rerun computes two, and the dataset is the uncut one's."""
    cells = sweep(make_config, 1.0, 1.5, 2.0)
    run_study(cells, out_dir=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Counter(patch, interrupt_at=5)
        run_study(cells, out_dir=tmp_path / "cut")
    assert not (tmp_path / "cut" / "results").exists()
    counter = Counter(monkeypatch)
    outcome = run_study(cells, out_dir=tmp_path / "cut")
    assert (outcome.skipped, outcome.computed, counter.calls) == (2, 1, 2)
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_a_sweep_is_one_dataset_with_typed_axes(make_config: MakeConfig, tmp_path: Path) -> None:
    """Cells in the order given, axes as numbers in every table; a larger sweep adds what is missing."""
    run_study(sweep(make_config, 2.0, 1.0), out_dir=tmp_path)
    found = load_results(tmp_path)
    assert found.axes == ("overcommit",)
    assert found["cells"]["overcommit"].tolist() == [2.0, 1.0]
    assert str(found["domains"]["overcommit"].dtype) == "float64"
    outcome = run_study(sweep(make_config, 1.0, 1.5, 2.0), out_dir=tmp_path)
    assert (outcome.computed, outcome.skipped) == (1, 2)
    assert load_results(tmp_path)["cells"]["overcommit"].tolist() == [1.0, 1.5, 2.0]


def test_cells_meet_the_same_machines_and_the_same_luck(make_config: MakeConfig, tmp_path: Path) -> None:
    """[SY-2] at two overcommits: equal machines, arrivals and (fake hosts draw them by domain) deaths."""
    run_study(sweep(make_config, 1.0, 2.0), out_dir=tmp_path)
    domains = load_results(tmp_path)["domains"]
    ones, twos = (domains[domains["overcommit"] == value].reset_index(drop=True) for value in (1.0, 2.0))
    for name in ("replication", "domain_id", "maxmem_pages", "arrival_ns", "fate", "end_ns"):
        assert ones[name].tolist() == twos[name].tolist()
    assert (ones["memory_pages"] > twos["memory_pages"]).any()


def test_a_cell_is_named_by_what_its_results_depend_on(config: Config) -> None:
    """[SY-1] engine and figure are no part of the name; seed, axes and everything else are."""
    cell = Cell(config=config)
    name = cell_name(cell)
    elsewhere = replace(config.engine, kind="ray", actors=2)
    assert cell_name(Cell(config=replace(config, engine=elsewhere))) == name
    assert cell_name(Cell(config=replace(config, study=replace(config.study, figure=False)))) == name
    assert cell_name(Cell(config=replace(config, seed=2))) != name
    assert cell_name(Cell(config=config, axes={"overcommit": 1.5})) != name
    assert cell_name(Cell(config=replace(config, study=replace(config.study, replications=4)))) != name


def test_what_a_killed_run_left_half_written_is_taken_away(make_config: MakeConfig, tmp_path: Path) -> None:
    """A folder written aside by a process that is no more."""
    (tmp_path / ".results.99999.tmp" / "domains").mkdir(parents=True)
    run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]


def test_a_checkpoint_of_another_run_is_refused_until_forced(make_config: MakeConfig, tmp_path: Path) -> None:
    """One line, and nothing of it is touched; --force begins anew and takes it away, as a finished run does."""
    cell = Cell(config=make_config(*SMALL))
    with CheckpointFolder(tmp_path, "another run") as store:
        store.save([], [])
    with pytest.raises(PodclusterError, match=r"must be of this configuration .*another run.*--force") as raised:
        run_study([cell], out_dir=tmp_path)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == [".checkpoint"]
    assert run_study([cell], out_dir=tmp_path, force=True).computed == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]
    with CheckpointFolder(tmp_path, "died before it was taken away") as store:
        store.save([], [])
    assert run_study([cell], out_dir=tmp_path).skipped == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]


def test_results_of_another_configuration_stay(make_config: MakeConfig, tmp_path: Path) -> None:
    """[SY-3] a run, a sweep, and what a run was killed in the middle of: refused in one line, replaced when forced."""
    one, other = (Cell(config=make_config(*SMALL, f"seed={seed}")) for seed in (1, 2))
    run_study([one], out_dir=tmp_path / "run")
    before = digest(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run must hold results of this configuration .*hydra\.run\.dir.*--force$"):
        run_study([other], out_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match="got those of another"):
        run_study(sweep(make_config, 1.0, 2.0), out_dir=tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()  # as if killed before its mark
    with pytest.raises(ConfigError, match="got those of another"):
        run_study([other], out_dir=tmp_path / "run")
    assert digest(tmp_path / "run") == before
    assert run_study([one], out_dir=tmp_path / "run").computed == 1
    assert run_study([other], out_dir=tmp_path / "run", force=True).computed == 1
    assert digest(tmp_path / "run") != before


def test_a_sweep_may_grow_in_its_folder(make_config: MakeConfig, tmp_path: Path) -> None:
    """Its cells are all there, so what was made of them can be made again."""
    run_study(sweep(make_config, 1.0, 2.0), out_dir=tmp_path)
    assert run_study(sweep(make_config, 1.0, 2.0, 3.0), out_dir=tmp_path).computed == 1
    assert len(load_results(tmp_path)["cells"]) == 3


def test_replications_of_another_configuration_stay(
    config: Config, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[SY-3] what an interrupted study has finished is nobody else's."""
    Counter(monkeypatch, interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        run_study([Cell(config=config)], out_dir=tmp_path)
    other = make_config(*SMALL, "study.replications=3", "seed=2")
    with pytest.raises(ConfigError, match="got those of another"):
        run_study([Cell(config=other)], out_dir=tmp_path)
    assert len(list((tmp_path / ".replications").iterdir())) == 2
    assert run_study([Cell(config=config)], out_dir=tmp_path).computed == 1


@pytest.mark.parametrize("force", [False, True])
def test_what_others_keep_in_a_folder_stays(make_config: MakeConfig, tmp_path: Path, force: bool) -> None:
    """[SY-3] a folder `results` that is not ours, or not ours alone."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"nothing else, got thesis\.txt: move that away"):
        run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path, force=force)
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "thesis.txt"]


def test_a_folder_that_cannot_be_one(make_config: MakeConfig, tmp_path: Path) -> None:
    """A file in its place, or in its way."""
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(
            ConfigError, match=r"^hydra\.run\.dir must be a folder that can be written, got .* no folder"
        ):
            run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path / place)


def test_a_second_process_is_refused_before_it_touches_anything(make_config: MakeConfig, tmp_path: Path) -> None:
    """What the first is writing stays."""
    writing = tmp_path / ".results.1.tmp"
    with Lock(tmp_path):
        writing.mkdir()
        with pytest.raises(PodclusterError, match="one process at a time"):
            run_study([Cell(config=make_config(*SMALL))], out_dir=tmp_path)
        assert writing.is_dir()


def test_a_broken_rule_says_which_replication_broke_it(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of an InvariantError gains what it takes to replay it; nothing is left that looks like a result."""

    def broken(*arguments: Any, **options: Any) -> None:
        raise InvariantError("[POD-2] E == B - P violated: E=512, B - P=511")

    monkeypatch.setattr("podcluster.cluster.run.run", broken)
    with pytest.raises(InvariantError, match=r"\[POD-2\].*replication 0 of seed 1"):
        run_study([Cell(config=config)], out_dir=tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_mistake_in_the_last_cell_is_told_before_the_first_has_run(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two cells names a trace that is not there: nothing is simulated, no folder is left."""
    counter = Counter(monkeypatch)
    missing = str(tmp_path / "no-such-trace")
    cells = [
        Cell(config=make_config(*SMALL), axes={"workload": "synthetic"}),
        Cell(
            config=make_config(*SMALL, "workload=bitbrains", f"workload.path={missing}"), axes={"workload": "bitbrains"}
        ),
    ]
    with pytest.raises(ConfigError, match="no-such-trace"):
        run_study(cells, out_dir=tmp_path / "out")
    assert counter.calls == 0
    assert not (tmp_path / "out").exists()


def test_a_mark_that_is_not_ours_is_one_line(config: Config, tmp_path: Path) -> None:
    """A DONE file of somebody else's is not taken for ours."""
    run_study([Cell(config=config)], out_dir=tmp_path)
    for text in ("yes", "{}", '{"cells": 5}', "[]"):
        (tmp_path / "DONE").write_text(text)
        with pytest.raises(PodclusterError, match=r"DONE must be what podcluster wrote.*--force") as raised:
            run_study([Cell(config=config)], out_dir=tmp_path)
        assert "\n" not in str(raised.value)
    (tmp_path / "DONE").write_text(json.dumps({"cells": ["another"]}))
    with pytest.raises(ConfigError, match="got those of another"):
        run_study([Cell(config=config)], out_dir=tmp_path)
    assert run_study([Cell(config=config)], out_dir=tmp_path, force=True).computed == 1


def test_the_runner_imports_nothing_heavy() -> None:
    """In a fresh process: no Ray, matplotlib, scipy, pandas, pyarrow or Numba before they are needed."""
    code = (
        "import sys, podcluster.study.runner, podcluster.report.terminal\n"
        "heavy = {'ray', 'matplotlib', 'scipy', 'pandas', 'pyarrow', 'numba', 'hydra', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
