"""Is a study that was killed, with no chance to clean up, completed by the same command to the same bytes?

And does one that is asked to end do so within seconds, and leave no process behind?
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podcluster import rng
from podcluster.cluster.processes import descendants
from podcluster.io.digest import digest
from tests.cluster.busy import BUSY, check_that_it_is_busy
from tests.processes import is_alive

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
GONE_S = 20
END_S = 20


def busy(folder: Path, engine: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """The busy run as a user starts it, in a group of its own as a shell makes one."""
    command = [sys.executable, "-m", "podcluster", *BUSY, f"hydra.run.dir={folder}", "engine.checkpoint_s=0.2"]
    command += ["engine=ray", "engine.actors=2"] if engine == "ray" else ["engine=inline"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, start_new_session=True)


def wait_for_a_save(run: subprocess.Popen[str], folder: Path) -> None:
    """Until the run has kept its hosts once more."""
    before = set(folder.glob(".checkpoint/hosts-*"))
    deadline_s = time.monotonic() + 120
    while not set(folder.glob(".checkpoint/hosts-*")) - before:
        assert run.poll() is None and time.monotonic() < deadline_s, "it never kept anything"
        time.sleep(0.01)


def assert_all_gone(pids: set[int], within_s: float) -> None:
    """None of these is left after a while."""
    deadline_s = time.monotonic() + within_s
    while left := {pid for pid in pids if is_alive(pid)}:
        assert time.monotonic() < deadline_s, f"still there after {within_s} s: {left}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of the busy run in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = busy(folder, "inline", dict(os.environ))
    _, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    check_that_it_is_busy(folder)
    return digest(folder)


@pytest.mark.slow
def test_a_run_goes_on_however_often_its_driver_is_killed(
    private_ray: dict[str, str], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL at five random moments, in this process or with Ray: each life goes on where the one before was kept."""
    draw = rng.stream(4, "test", "driver")
    folder = tmp_path / "run"
    for engine in LIVES:
        run = busy(folder, engine, private_ray)
        wait_for_a_save(run, folder)
        time.sleep(float(draw.uniform(0, 0.5)))
        started = set(descendants(run.pid))
        assert run.poll() is None, "it ended before it was killed"
        run.kill()
        run.communicate()
        assert not (folder / "results").exists() and not (folder / "DONE").exists()
        assert_all_gone(started, GONE_S)
    last = busy(folder, "inline", private_ray)
    _, said = last.communicate(timeout=200)
    assert last.returncode == 0, said
    assert "going on from its checkpoint" in said
    assert digest(folder) == undisturbed
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "engine", "word"),
    [(signal.SIGINT, "ray", "interrupted"), (signal.SIGTERM, "ray", "terminated"), (signal.SIGTERM, "inline", "term")],
)
def test_a_run_that_is_asked_to_end_does(
    private_ray: dict[str, str], tmp_path: Path, number: int, engine: str, word: str
) -> None:
    """Ctrl-C (to all of its group, as a terminal sends it) and SIGTERM: one line, its status, nobody left."""
    folder = tmp_path / "run"
    run = busy(folder, engine, private_ray)
    wait_for_a_save(run, folder)
    started = set(descendants(run.pid))
    asked_s = time.monotonic()
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - asked_s < END_S
    assert run.returncode == 128 + number, said
    assert said.splitlines()[-1].startswith(f"podcluster: {word}") and "hydra.run.dir=" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert_all_gone(started, GONE_S)
    assert sorted(path.name for path in folder.iterdir()) == [".checkpoint"]
