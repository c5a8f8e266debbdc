"""Is it the same run, byte for byte, wherever its hosts live, and whoever is killed meanwhile?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podcluster import rng
from podcluster.cluster import plan as plan_module
from podcluster.cluster.plan import Plan, make_plan
from podcluster.cluster.processes import descendants
from podcluster.cluster.progress import Silent
from podcluster.config import Cell, Config
from podcluster.io.digest import digest
from podcluster.records.machines import Workload
from podcluster.study.runner import run_study
from tests.cluster.busy import BUSY, check_that_it_is_busy
from tests.processes import actors

MakeConfig = Callable[..., Config]
REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 20


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of the busy run computed in this process, in one go, with nothing kept."""
    from podcluster.cli import compose

    folder = tmp_path_factory.mktemp("undisturbed")
    run_study([Cell(config=compose([*BUSY, "engine=inline", "engine.checkpoint_s=0"]))], out_dir=folder)
    check_that_it_is_busy(folder)
    return digest(folder)


def shuffled(config: Config, workload: Workload, seed: int) -> Plan:
    """The plan with its hosts in another order."""
    plan = make_plan(config, workload, seed)
    order = rng.stream(5, "test", "order").permutation(len(plan.specs))
    assert list(order) != sorted(order)
    return replace(plan, specs=tuple(plan.specs[at] for at in order))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "where",
    [
        ("engine=inline",),
        ("engine=ray", "engine.actors=1"),
        ("engine=ray", "engine.actors=2"),
        ("engine=ray", "engine.hosts_per_actor=1"),
    ],
    ids=lambda where: where[-1],
)
def test_wherever_hosts_live_and_in_whatever_order(
    make_config: MakeConfig,
    ray_cluster: None,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[str, ...],
) -> None:
    """[CL-1] [CK-1] this process, one actor, two and four, hosts shuffled, and checkpoints as often as can be."""
    monkeypatch.setattr(plan_module, "make_plan", shuffled)
    run_study([Cell(config=make_config(*BUSY, *where, "engine.checkpoint_s=0.01"))], out_dir=tmp_path)
    assert digest(tmp_path) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]


class Killer(Silent):
    """Kills one of our actors KILLS times, each at a random moment after the run has got on by a step."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self._draw = rng.stream(1, "test", "killer")
        self._stepped = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._kill)

    def begin(self, title: str, hosts: int, requests: int, duration_ns: int) -> None:
        """Set to work."""
        self._thread.start()

    def update(self, now_ns: int, running: int, fates: Mapping[str, int]) -> None:
        """A step further: otherwise a slow machine would never get through one."""
        self._stepped.set()

    def end(self) -> None:
        """Nobody is left."""
        self._over = True
        self._stepped.set()
        self._thread.join()

    def _kill(self) -> None:
        while self._stepped.wait() and not self._over and len(self.killed) < KILLS:
            self._stepped.clear()
            time.sleep(float(self._draw.uniform(0, 0.3)))
            victims = actors(os.getpid())
            if victims:
                victim = int(self._draw.choice(victims))
                os.kill(victim, signal.SIGKILL)
                self.killed.append(victim)


@pytest.mark.slow
@pytest.mark.ray
def test_actors_are_killed_twenty_times(
    make_config: MakeConfig, ray_cluster: None, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """[CL-2] SIGKILL of one of two actors, twenty times in one run; it goes on to the same bytes."""
    killer = Killer()
    config = make_config(*BUSY, "engine=ray", "engine.actors=2", "engine.checkpoint_s=0.5")
    run_study([Cell(config=config)], out_dir=tmp_path, progress=killer)
    assert len(killer.killed) == KILLS
    assert digest(tmp_path) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]


@pytest.fixture
def two_nodes(private_ray: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Their address, and the process of the second."""
    command = [sys.executable, "-m", "tests.cluster.two_nodes"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=private_ray,
        cwd=REPOSITORY,
    ) as nodes:
        assert nodes.stdout is not None and nodes.stdin is not None
        try:
            yield json.loads(nodes.stdout.readline())
            started = descendants(nodes.pid)
            nodes.stdin.close()
            nodes.wait(60)
        finally:
            nodes.kill()
        for pid in set(started) & set(descendants(os.getpid())):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_node_is_killed(
    private_ray: dict[str, str], two_nodes: dict[str, Any], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """[CL-2] one of two nodes goes with all that is on it: the run goes on with the other, to the same bytes."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "podcluster", *BUSY, f"hydra.run.dir={folder}"]
    command += ["engine=ray", f"engine.address={two_nodes['address']}", "engine.actors=4", "engine.checkpoint_s=0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=private_ray) as run:
        deadline_s = time.monotonic() + 120
        while not list(folder.glob(".checkpoint/hosts-*")):
            assert run.poll() is None and time.monotonic() < deadline_s, "it never began"
            time.sleep(0.01)
        time.sleep(float(rng.stream(2, "test", "node").uniform(0, 1)))
        node = descendants(two_nodes["raylet"])
        assert any(process.command.startswith("ray::ShardServer") for process in node.values()), "no hosts were there"
        for pid in (two_nodes["raylet"], *node):
            os.kill(pid, signal.SIGKILL)
        said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert "an actor was lost" in said
    assert digest(folder) == undisturbed
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]
