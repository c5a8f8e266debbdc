"""Does every experiment's notebook run on a toy dataset of its own study, and answer in its first cell?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import pytest

from podcluster.cli import plan
from podcluster.config import Cell
from podcluster.study.runner import run_study

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
NAMES = sorted(folder.name for folder in EXPERIMENTS.iterdir() if (folder / "notebook.py").is_file())


@dataclass(frozen=True)
class Toy:
    """A study, but small: what is laid over its configuration, how many cells that makes, what its answer must say."""

    overrides: tuple[str, ...]
    cells: int
    answer: tuple[str, ...]
    figures: int = 1
    command: str = "podcluster experiment={name}"


TOYS = {
    "overcommit": Toy(
        (
            "engine=inline",
            "workload.machines=4",
            "workload.boot_spread_s=30",
            "study.duration_s=120",
            "study.replications=2",
            "cluster.host_mem_gib=64",
            "overcommit=1,3",
            "guest=linux_no_driver,linux",
            "guest.page_cache.rate_mib_per_s=0,200",
        ),
        8,
        ("safe up to a static ratio of", "guest linux, rate_mib_per_s 0", "boots in 2 replications"),
    ),
    "controllers": Toy(
        (
            "engine=inline",
            "workload=alike",
            "workload.maxmem_mib=1024",
            "workload.machines=3",
            "workload.boot_spread_s=30",
            "study.duration_s=120",
            "study.replications=2",
            "cluster.host_mem_gib=8",
            "overcommit=2,3",
            "controller=static,squeezed,qmemman",
        ),
        6,
        ("n = 2 replications of 3 machines", "| squeezed | 2 | 6 |", "| qmemman | 3 | 6 |"),
        command="podcluster experiment={name} workload.path=DIR",
    ),
    "boot_race": Toy(
        (
            "workload.machines=1",
            "study.replications=2",
            "study.duration_s=120",
            "guest=linux,linux_no_driver",
            "hazard=as_is,no_wrap",
            "overcommit=1.5,3",
            "guest.balloon.start_s=[2,2],[60,60]",
            "guest.balloon.rate_pages_per_s=[11700,11700],[62000,62000]",
        ),
        32,
        ("| guest | maxmem / memory 1.5 | maxmem / memory 3 |", "| linux | none of 8 |", "2/2 (> "),
        figures=2,
    ),
    "eras": Toy(
        (
            "workload.machines=2",
            "study.replications=2",
            "overcommit=2,4",
            "guest=linux_hardened",
            "host.era=xen2012,today",
        ),
        4,
        ("| era | of a machine | host.era=today | here |", "| xen2012 | died |", "| boot_s |"),
    ),
    "scrubbed": Toy(
        ("workload.machines=2", "study.replications=2", "overcommit=2,4", "guest=scrubber,linux"),
        8,
        (
            "| guest | scrubbed_pod | overcommit | of a machine | host.scrubbed_pod=false | here |",
            "| scrubber | true | 2 | died |",
        ),
    ),
    "assumptions": Toy(
        (
            "engine=inline",
            "workload.machines=2",
            "workload.boot_spread_s=30",
            "study.duration_s=300",
            "study.replications=2",
            "guest=linux,windows",
            "overcommit=1.5,2.5",
            "assumption=as_is,xen_slow",
        ),
        8,
        (
            "| assumption | guest | overcommit | of a machine | assumption=as_is | here |",
            "| xen_slow | windows | 2.5 |",
        ),
        command="podcluster experiment={name}",
    ),
    "swap_disk": Toy(
        (
            "engine=inline",
            "workload.machines=4",
            "workload.boot_spread_s=30",
            "study.duration_s=600",
            "study.replications=2",
            "overcommit=1,3",
            "swap=none,ssd",
        ),
        4,
        ("kills per domain-day (95%)", "| 3 | ssd | 8 |"),
    ),
    "boot_storm": Toy(
        (
            "workload.machines=8",
            "cluster.host_mem_gib=12",
            "study.duration_s=200",
            "study.replications=2",
            "controller=static,squeezed",
            "overcommit=2.5,3",
            "workload.boot_spread_s=0,60",
        ),
        8,
        ("never up (95%)", "| static | 3.0 | 0 | 16 |", "| squeezed | 3.0 | 60 | 16 |"),
    ),
    "host_failure": Toy(
        (
            "engine=inline",
            "workload.machines=6",
            "workload.boot_spread_s=30",
            "workload.orders=[120 host-fail 0]",
            "cluster.hosts=3",
            "study.duration_s=400",
            "study.replications=2",
            "controller=static,squeezed",
            "overcommit=1,2",
        ),
        4,
        ("up after: median [s]", "| static | 2.0 |"),
    ),
    "evacuation": Toy(
        (
            "engine=inline",
            "workload.machines=6",
            "workload.boot_spread_s=30",
            "workload.orders=[120 host-evacuate 0]",
            "cluster.hosts=3",
            "study.duration_s=300",
            "study.replications=2",
            "guest=linux,linux_no_driver",
            "controller=static",
            "overcommit=1,1.33",
        ),
        4,
        ("last gone after [s]", "| linux | 1.33 |", "in debt"),
    ),
    "churn_azure": Toy(
        (
            "engine=inline",
            "workload=churn",
            "workload.arrivals_per_day=300",
            "workload.boot_spread_s=60",
            "study.duration_s=900",
            "study.warmup_s=300",
            "study.replications=2",
            "overcommit=1,2",
        ),
        2,
        ("no packing below", "of those at the lowest overcommit", "| 1.0 |", "starts refused"),
        command="podcluster experiment={name} workload.path=DIR",
    ),
    "field_crashes": Toy(
        ("crash=memory_500,qubes_4135",),
        2,
        ("**2 of 2** logged crashes come out", "| 921,600 | 921,600 |", "| entries, tot |"),
    ),
}


def toy_cells(name: str) -> list[Cell]:
    """The experiment's cells at toy size."""
    return plan([f"experiment={name}", *TOYS[name].overrides])[0]


@pytest.fixture(scope="module", params=NAMES)
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A notebook, executed as its reader would, on a dataset computed here."""
    name = str(request.param)
    folder = tmp_path_factory.mktemp(name)
    cells = toy_cells(name)
    assert len(cells) == TOYS[name].cells
    run_study(cells, out_dir=folder)
    notebook = jupytext.read(EXPERIMENTS / name / "notebook.py")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PODCLUSTER_RESULTS": str(folder), "PYTHONPATH": path}
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(EXPERIMENTS / name)}}
    )
    return name, client.execute(env=environment)


def outputs(cell: Any, kind: str) -> list[str]:
    """What a cell shows of one kind."""
    return [output["data"][kind] for output in cell.get("outputs", []) if kind in output.get("data", {})]


@pytest.mark.slow
def test_the_first_cell_answers(executed: Any) -> None:
    """A table with a number and n, before anything else."""
    name, notebook = executed
    (answer,) = outputs(notebook.cells[0], "text/markdown")
    for words in TOYS[name].answer:
        assert words in answer


@pytest.mark.slow
def test_every_cell_runs_without_a_word_of_warning(executed: Any) -> None:
    """No error, nothing on stderr, and a figure among the outputs."""
    name, notebook = executed
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 3
    for cell in code:
        assert [output for output in cell.outputs if output.output_type in ("error", "stream")] == []
    assert sum(len(outputs(cell, "image/png")) for cell in code) == TOYS[name].figures


def test_every_experiment_has_a_question_a_command_and_a_figure() -> None:
    """README begins with its one question, names its command, and shows what to expect."""
    assert set(NAMES) == set(TOYS)
    for name in NAMES:
        text = (EXPERIMENTS / name / "README.md").read_text()
        assert text.splitlines()[0].startswith("# ") and text.splitlines()[0].endswith("?")
        assert TOYS[name].command.format(name=name) in text
        assert "expected.png" in text and (EXPERIMENTS / name / "expected.png").is_file()
