"""Is a study that was killed, with no chance to clean up, completed by the same command to the same bytes?

And does one that is asked to end do so within seconds, and leave no process behind?
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from podcluster import rng
from podcluster.cluster.processes import descendants
from podcluster.io.digest import digest
from tests.cluster.busy import BUSY, check_that_it_is_busy
from tests.processes import assert_all_gone

REPOSITORY = Path(__file__).resolve().parents[2]
SWEEP = (
    "-m",
    "engine=inline",
    "overcommit=1,1.5,2",
    "study.replications=2",
    "study.duration_s=300",
    "study.figure=false",
    "workload.machines=6",
    "workload.boot_spread_s=60",
    "cluster.host_mem_gib=32",
)


def command(folder: Path) -> list[str]:
    """The sweep as a user starts it."""
    return [sys.executable, "-m", "podcluster", *SWEEP, f"hydra.sweep.dir={folder}"]


@pytest.mark.slow
def test_a_killed_sweep_is_completed_by_the_same_command(tmp_path: Path) -> None:
    """SIGKILL, on real hosts, as soon as the first replication is stored; run again: the digest is the uncut one's."""
    whole = subprocess.run(command(tmp_path / "whole"), capture_output=True, text=True, timeout=240)
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    running = subprocess.Popen(command(cut), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 200
    while not list(cut.glob("cells/*/.replications/*/results")) and not list(cut.glob("cells/*/DONE")):
        assert running.poll() is None and time.monotonic() < deadline_s, "it never stored a replication"
        time.sleep(0.005)
    running.kill()
    running.wait()
    assert not (cut / "results").exists()
    again = subprocess.run(command(cut), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert digest(cut) == digest(tmp_path / "whole")
    left = [path.name for path in cut.rglob("*") if path.name.startswith(".")]
    assert left == []


LIVES = ("inline", "ray", "inline", "ray", "inline")
DEATHS = ("save", "save", "write", "write")
FIRST_SAVES = 8  # changes to files in the first two of them: the folder, and each time two files written and renamed
END_S = 20


def busy(folder: Path, engine: str, env: dict[str, str], every_s: float = 0.2) -> subprocess.Popen[str]:
    """The busy run as a user starts it, in a group of its own as a shell makes one."""
    return started(["-m", "podcluster"], folder, engine, env, every_s)


def dying(folder: Path, kind: str, number: int) -> subprocess.Popen[str]:
    """The same in this process, which kills itself before it changes a file of that kind for that time."""
    return started(["-m", "tests.study.dying", str(folder), kind, str(number)], folder, "inline", dict(os.environ), 0.2)


def started(
    program: list[str], folder: Path, engine: str, env: dict[str, str], every_s: float
) -> subprocess.Popen[str]:
    """A process that does the busy run."""
    command = [sys.executable, *program, *BUSY, f"hydra.run.dir={folder}", f"engine.checkpoint_s={every_s}"]
    command += ["engine=ray", "engine.actors=2"] if engine == "ray" else ["engine=inline"]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=REPOSITORY, start_new_session=True
    )


def completed(folder: Path, env: dict[str, str]) -> str:
    """Run it to its end; what it said."""
    last = busy(folder, "inline", env)
    _, said = last.communicate(timeout=200)
    assert last.returncode == 0, said
    return said


def wait_for(run: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Until the run has made one more file like this."""
    before = set(folder.glob(pattern))
    deadline_s = time.monotonic() + 120
    while not set(folder.glob(pattern)) - before:
        assert run.poll() is None and time.monotonic() < deadline_s, f"it never made {pattern}"
        time.sleep(0.01)


class Undisturbed(NamedTuple):
    """The busy run in one go: its digest, and how often it changes a file, beside those it goes on from."""

    digest: dict[str, str]
    writes: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run = dying(folder, "none", 0)
    _, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    check_that_it_is_busy(folder)
    return Undisturbed(digest(folder), json.loads(said.splitlines()[-1])["write"])


@pytest.mark.slow
def test_a_run_goes_on_however_often_its_driver_is_killed(
    private_ray: dict[str, str], undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """SIGKILL at five random moments, in this process or with Ray: each life goes on where the one before was kept. The
    first is killed before anything was.
    """
    draw = rng.stream(4, "test", "driver")
    folder = tmp_path / "run"
    for life, engine in enumerate(LIVES):
        run = busy(folder, engine, private_ray, 0.2 if life else 1000)
        wait_for(run, folder, ".checkpoint/hosts-*" if life else ".results.*")
        time.sleep(float(draw.uniform(0, 0.5)))
        children = set(descendants(run.pid))
        assert run.poll() is None, "it ended before it was killed"
        run.kill()
        run.communicate()
        assert list(folder.glob(".checkpoint/hosts-*")) if life else not (folder / ".checkpoint").exists()
        assert not (folder / "results").exists() and not (folder / "DONE").exists()
        assert_all_gone(children)
    assert "going on from its checkpoint" in completed(folder, private_ray)
    assert digest(folder) == undisturbed.digest
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]


@pytest.mark.slow
def test_a_run_goes_on_whatever_file_it_was_killed_at(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """SIGKILL just before a folder or a file is made, renamed or taken away: at two of the first saves' changes, and at
    two of all others' from the first folder to the last mark; what is there under its own name is whole.
    """
    draw = rng.stream(7, "test", "driver")
    folder = tmp_path / "run"
    for kind in DEATHS:
        number = int(draw.integers(1, (FIRST_SAVES if kind == "save" else undisturbed.writes) + 1))
        run = dying(folder, kind, number)
        _, said = run.communicate(timeout=200)
        assert run.returncode == -signal.SIGKILL, f"it outlived {kind} {number}: {said}"
        if (folder / "results").exists():
            assert digest(folder) == undisturbed.digest
        if (folder / "DONE").exists():  # killed while it put away what it needs no more: the next begins anew
            shutil.rmtree(folder)
    completed(folder, dict(os.environ))
    assert digest(folder) == undisturbed.digest
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "engine", "word"),
    [(signal.SIGINT, "ray", "interrupted"), (signal.SIGTERM, "ray", "terminated"), (signal.SIGTERM, "inline", "term")],
)
def test_a_run_that_is_asked_to_end_does(
    private_ray: dict[str, str], undisturbed: Undisturbed, tmp_path: Path, number: int, engine: str, word: str
) -> None:
    """Ctrl-C (to all of its group, as a terminal sends it) and SIGTERM: one line, its status, nobody left; and the same
    command goes on to the same bytes.
    """
    folder = tmp_path / "run"
    run = busy(folder, engine, private_ray)
    wait_for(run, folder, ".checkpoint/hosts-*")
    children = set(descendants(run.pid))
    asked_s = time.monotonic()
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - asked_s < END_S
    assert run.returncode == 128 + number, said
    assert said.splitlines()[-1].startswith(f"podcluster: {word}") and "hydra.run.dir=" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert_all_gone(children)
    assert sorted(path.name for path in folder.iterdir()) == [".checkpoint"]
    assert "going on from its checkpoint" in completed(folder, private_ray)
    assert digest(folder) == undisturbed.digest
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]
