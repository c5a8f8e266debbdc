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
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podcluster import rng
from podcluster.cluster import pool as pool_module
from podcluster.cluster import ray_pool
from podcluster.cluster.exchange import Exchange, Transport
from podcluster.cluster.processes import descendants
from podcluster.cluster.progress import Silent
from podcluster.config import Cell, Config
from podcluster.io.digest import digest
from podcluster.study.runner import run_study
from tests.cluster.any_order import AnyOrder, AnyOrderServer, SortedShard
from tests.cluster.busy import BUSY, HOSTS, check_that_it_is_busy
from tests.processes import ACTOR, actors, assert_all_gone, end, of_folder, wait_until_none

MakeConfig = Callable[..., Config]
REPOSITORY = Path(__file__).resolve().parents[2]
KILLS = 20
STEPS = 60  # a busy run has more


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of the busy run computed in this process, in one go, with nothing kept."""
    from podcluster.cli import compose

    folder = tmp_path_factory.mktemp("undisturbed")
    run_study([Cell(config=compose([*BUSY, "engine=inline", "engine.checkpoint_s=0"]))], out_dir=folder)
    check_that_it_is_busy(folder)
    return digest(folder)


def exchanges(carried: list[AnyOrder], transport: Transport, *given: Any, **more: Any) -> Exchange:
    """What a run is given in place of its exchange: one whose replies come in any order."""
    carried.append(AnyOrder(transport))
    return Exchange(carried[-1], *given, **more)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    ("where", "actors"),
    [("engine.actors=1", 1), ("engine.actors=2", 2), ("engine.actors=4", 4), ("engine.hosts_per_actor=1", HOSTS)],
)
def test_wherever_hosts_live_and_in_whatever_order(
    make_config: MakeConfig,
    ray_cluster: None,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    actors: int,
) -> None:
    """[CL-1] [CK-1] [CL-3] one actor, two, four and one for each host; an actor steps its hosts in an order drawn for
    each step, and replies come in any; checkpoints as often as can be; one message and one reply for each actor and
    step.
    """
    carried: list[AnyOrder] = []
    monkeypatch.setattr(ray_pool, "ShardServer", AnyOrderServer)
    monkeypatch.setattr(ray_pool, "Exchange", partial(exchanges, carried))
    run_study([Cell(config=make_config(*BUSY, "engine=ray", where, "engine.checkpoint_s=0.01"))], out_dir=tmp_path)
    assert digest(tmp_path) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]
    (here,) = carried
    assert {shard for _, shard, _ in here.sent} == set(range(actors))
    if actors < HOSTS:
        assert sum(walk != sorted(walk) for walk in here.walked) > STEPS / 2, "hosts were walked in order"
    if actors > 1:
        assert any(replies != sorted(replies) for replies in here.replied), "replies came in order"
    steps = max(epoch for _, _, epoch in here.sent)
    assert steps > STEPS
    for shard in range(actors):
        assert [here.sent["advance", shard, step] for step in range(1, steps + 1)] == [1] * steps
    assert {method for method, _, step in here.sent if step} == {"advance", "pack"}
    assert not here.told, "where hosts fail nobody is told of what comes next"


@pytest.mark.slow
def test_in_one_process_in_whatever_order(
    make_config: MakeConfig, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[CL-1] [CK-1] hosts stepped in an order drawn for each step, and checkpoints as often as can be."""
    orders: list[list[int]] = []
    monkeypatch.setattr(SortedShard, "orders", orders)
    monkeypatch.setattr(pool_module, "HostShard", SortedShard)
    run_study([Cell(config=make_config(*BUSY, "engine=inline", "engine.checkpoint_s=0.01"))], out_dir=tmp_path)
    assert digest(tmp_path) == undisturbed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["DONE", "results"]
    assert sum(order != sorted(order) for order in orders) > STEPS / 2, "hosts were walked in order"


class Killer(Silent):
    """Kills one of our actors KILLS times, each at a random moment after the run has got on by a step; `most` is how
    many there ever were at such a moment.
    """

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.most = 0
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
            # One that was killed is still to be seen while its memory is taken away.
            victims = [pid for pid in actors(os.getpid()) if pid not in self.killed]
            self.most = max(self.most, len(victims))
            if victims:
                victim = int(self._draw.choice(victims))
                os.kill(victim, signal.SIGKILL)
                self.killed.append(victim)


@pytest.mark.slow
@pytest.mark.ray
def test_actors_are_killed_twenty_times(
    make_config: MakeConfig, ray_cluster: None, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """[CL-2] SIGKILL of one of two actors, twenty times in one run; it goes on to the same bytes, with two at any time
    and nobody in the end.
    """
    assert not wait_until_none(lambda: actors(os.getpid())), "some of another test are left"
    killer = Killer()
    config = make_config(*BUSY, "engine=ray", "engine.actors=2", "engine.checkpoint_s=0.5")
    run_study([Cell(config=config)], out_dir=tmp_path, progress=killer)
    assert len(killer.killed) == KILLS
    assert killer.most == 2
    assert not wait_until_none(lambda: actors(os.getpid()))
    assert_all_gone(killer.killed)
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
            nodes.stdin.close()
            nodes.wait(60)
        finally:
            nodes.kill()  # whoever is left of it, `private_ray` finds


def on_nodes(folder: Path, address: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """The busy run as a user starts it on a cluster that is there."""
    command = [sys.executable, "-m", "podcluster", *BUSY, f"hydra.run.dir={folder}"]
    command += ["engine=ray", f"engine.address={address}", "engine.actors=4", "engine.checkpoint_s=0.2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def wait_for_a_save(run: subprocess.Popen[str], folder: Path) -> None:
    """Until the run has kept its hosts."""
    deadline_s = time.monotonic() + 120
    while not list(folder.glob(".checkpoint/hosts-*")):
        assert run.poll() is None and time.monotonic() < deadline_s, "it never began"
        time.sleep(0.01)


def actors_of(env: dict[str, str]) -> set[int]:
    """The actors that hold hosts, of any Ray in this environment, whoever is their parent by now."""
    return {pid for pid, command in of_folder(env["RAY_TMPDIR"]).items() if command.startswith(ACTOR)}


@pytest.mark.slow
def test_on_two_nodes(
    private_ray: dict[str, str], two_nodes: dict[str, Any], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """[CL-1] nobody is killed: a run that is given the address of a cluster, then one that is a job of it, as it finds
    where it is in RAY_ADDRESS; actors on both nodes, and none once the run is over.
    """
    for address in (two_nodes["address"], "auto"):
        folder = tmp_path / address.partition(":")[0]
        env = {**private_ray, "RAY_ADDRESS": two_nodes["address"]} if address == "auto" else private_ray
        with on_nodes(folder, address, env) as run:
            wait_for_a_save(run, folder)
            there = actors_of(private_ray)
            assert len(there) == 4 and 0 < len(there & set(descendants(two_nodes["raylet"]))) < 4
            said, _ = run.communicate(timeout=200)
        assert run.returncode == 0, said
        assert "an actor was lost" not in said
        assert digest(folder) == undisturbed
        assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]
        assert not wait_until_none(lambda: actors_of(private_ray))
        assert descendants(two_nodes["raylet"]), "the cluster went with the run"


@pytest.mark.slow
def test_a_node_is_killed(
    private_ray: dict[str, str], two_nodes: dict[str, Any], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    """[CL-2] one of two nodes goes with all that is on it: the run goes on with the other, to the same bytes, and
    leaves no actor behind.
    """
    folder = tmp_path / "run"
    with on_nodes(folder, two_nodes["address"], private_ray) as run:
        wait_for_a_save(run, folder)
        time.sleep(float(rng.stream(2, "test", "node").uniform(0, 1)))
        node = descendants(two_nodes["raylet"])
        assert any(process.command.startswith(ACTOR) for process in node.values()), "no hosts were there"
        end([two_nodes["raylet"], *node])
        said, _ = run.communicate(timeout=200)
    assert run.returncode == 0, said
    assert "an actor was lost" in said
    assert digest(folder) == undisturbed
    assert sorted(path.name for path in folder.iterdir()) == ["DONE", "results"]
    assert_all_gone(node)
    assert not wait_until_none(lambda: actors_of(private_ray))
