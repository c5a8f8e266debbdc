"""Does Ray give the bytes that this process gives: for one actor, two, one per host, and one that dies on the way?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from podcluster.cluster.deadline import left_behind, within
from podcluster.cluster.exchange import ShardServer
from podcluster.cluster.plan import actor_count
from podcluster.cluster.pool import HostPlan, MakeHost
from podcluster.cluster.ray_pool import RayEngine, cluster_cpus, knock
from podcluster.config import EngineConfig
from podcluster.errors import ConfigError, InvariantError, PodclusterError
from podcluster.records.commands import Command
from podcluster.records.hosts import HostSpec
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S
from tests.cluster.fake import FakeHost, make_fake
from tests.cluster.story import inline, machines, physics, play, small_plan

WORKLOAD = machines()
PLAN = small_plan(WORKLOAD)


@pytest.fixture(scope="module")
def engine(ray_cluster: None) -> Iterator[RayEngine]:
    """One engine on the session's Ray; its actors are kept from test to test, as they are from cell to cell."""
    engine = RayEngine("local")
    yield engine
    engine.close()


def asked(**options: Any) -> EngineConfig:
    """engine=ray with these options."""
    return EngineConfig(kind="ray", timeout_s=120, **options)


@pytest.mark.ray
@pytest.mark.parametrize(("options", "actors"), [({"actors": 1}, 1), ({"actors": 2}, 2), ({"hosts_per_actor": 1}, 3)])
def test_actors_give_the_rows_of_this_process(engine: RayEngine, options: dict[str, int], actors: int) -> None:
    """Same story inline and on 1 actor, 2 actors and one actor per host: every table equal, only the engine differs."""
    expected = physics(play(PLAN, WORKLOAD, inline(PLAN))[1])
    pool = engine.pool(asked(**options), PLAN.specs, PLAN.hosts, make_fake)
    outcome, sink = play(PLAN, WORKLOAD, pool)
    assert physics(sink) == expected
    assert (outcome.row.engine_kind, outcome.row.engine_actors) == ("ray", actors)
    pool.close()


@pytest.mark.ray
def test_a_run_survives_the_death_of_an_actor(engine: RayEngine) -> None:
    """SIGKILL an actor after the first of two halves of a run: its shard is rebuilt and replayed to the same
    reports.
    """
    pool = engine.pool(asked(actors=2), PLAN.specs, PLAN.hosts, make_fake)
    here = inline(PLAN)
    steps = [10 * NS_PER_S * step for step in range(1, 11)]
    for step_ns in steps[:5]:
        assert pool.advance(step_ns, {}) == here.advance(step_ns, {})
    os.kill(engine.pids()[1], signal.SIGKILL)
    for step_ns in steps[5:]:
        assert pool.advance(step_ns, {}) == here.advance(step_ns, {})
    pool.close()


@pytest.mark.ray
def test_a_whole_run_with_a_killed_actor_gives_the_same_rows(engine: RayEngine) -> None:
    """Kill both actors at moments of their own while the story runs; the tables do not tell."""
    expected = physics(play(PLAN, WORKLOAD, inline(PLAN))[1])
    pool = engine.pool(asked(actors=2), PLAN.specs, PLAN.hosts, make_slow)
    victims = engine.pids()[:2]

    def kill() -> None:
        for pid in victims:
            time.sleep(0.4)
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    _, sink = play(PLAN, WORKLOAD, pool)
    killer.join()
    assert physics(sink) == expected
    assert not set(victims) & set(engine.pids())
    pool.close()


class SlowHost(FakeHost):
    """A host that takes its time, so that a run can be disturbed."""

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Sleep a little, then do the same."""
        time.sleep(0.005)
        return super().advance(until_ns, commands)


def make_slow(spec: HostSpec, plan: HostPlan) -> FakeHost:
    """Slow fake hosts."""
    return SlowHost(spec, plan.seed, plan.telemetry_ns)


class BadHost(FakeHost):
    """Does at 20 s what its name says."""

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Break, hang or end the process, by host_id."""
        if until_ns >= 20 * NS_PER_S:
            if self.spec.host_id == 0:
                raise InvariantError("[POD-2] E == B - P violated: E=512, B - P=511 (host 0)")
            if self.spec.host_id == 1:
                time.sleep(60)
            os._exit(1)
        return super().advance(until_ns, commands)


def make_bad(spec: HostSpec, plan: HostPlan) -> FakeHost:
    """Bad fake hosts."""
    return BadHost(spec, plan.seed, plan.telemetry_ns)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("host_id", "timeout_s", "error", "text"),
    [
        (0, 60, InvariantError, "E == B - P violated"),
        (1, 5, PodclusterError, "engine.timeout_s must be longer"),
        (2, 60, PodclusterError, "died 8 times at step 2.*engine=inline"),
    ],
)
def test_what_goes_wrong_in_an_actor_is_one_line(
    ray_cluster: None, host_id: int, timeout_s: int, error: type[PodclusterError], text: str
) -> None:
    """Our own mistake arrives as itself, a hang ends at the time-out, an actor that dies every time is given up."""
    make: MakeHost = make_bad
    own = RayEngine("local")
    own.pool(asked(actors=1), PLAN.specs, PLAN.hosts, make_fake).close()  # to start an actor may take longer than that
    pool = own.pool(
        EngineConfig(kind="ray", actors=1, timeout_s=timeout_s), PLAN.specs[host_id : host_id + 1], PLAN.hosts, make
    )
    pool.advance(10 * NS_PER_S, {})
    with pytest.raises(error, match=text) as raised:
        pool.advance(20 * NS_PER_S, {})
    assert "\n" not in str(raised.value)
    own.close()


class Unmakable(ShardServer):
    """Stands for a node on which podcluster is not installed."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'podcluster'")


@pytest.mark.ray
def test_an_actor_that_cannot_be_made_is_not_tried_again(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constructor's failure is no death: one line that carries its last line and says what must be there."""
    monkeypatch.setattr("podcluster.cluster.ray_pool.ShardServer", Unmakable)
    own = RayEngine("local")
    with pytest.raises(PodclusterError, match=r"no actor can be made \(.*No module named 'podcluster'.*engine=inline"):
        own.pool(asked(actors=1), PLAN.specs, PLAN.hosts, make_fake)
    own.close()


@pytest.mark.parametrize(
    ("options", "hosts", "expected"),
    [
        (EngineConfig(), 16, 2),
        (EngineConfig(), 1, 1),
        (EngineConfig(actors=5), 16, 5),
        (EngineConfig(actors=5), 3, 3),
        (EngineConfig(hosts_per_actor=1), 16, 16),
        (EngineConfig(hosts_per_actor=3), 16, 6),
        (EngineConfig(hosts_per_actor=100), 16, 1),
    ],
)
def test_number_of_actors(options: EngineConfig, hosts: int, expected: int) -> None:
    """On two CPUs: as configured, else one per CPU, never more than hosts."""
    assert actor_count(options, hosts, 2) == expected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto", "127.0.0.1:none"])
def test_an_address_nobody_answers_at_is_one_line(address: str) -> None:
    """A ConfigError that names the key, the address and what to do, within seconds (Ray alone tries for minutes)."""
    started_s = time.monotonic()
    with pytest.raises(ConfigError, match=f"engine.address must be .*got {address} .*RAY_AUTH_TOKEN") as raised:
        knock(address)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started_s < 20


def test_a_job_whose_ray_address_is_none_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes the address from Ray, which no check of the configuration has seen."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:99999")
    with pytest.raises(ConfigError, match=r"^engine.address must be .*got auto \(127.0.0.1:99999 is no host:port\)"):
        knock("auto")


# -- heads that do not answer, and clusters without CPUs ---------------------------------------------------------------

ADDRESS = "10.0.0.1:6379"
HEAD = {"Alive": True, "Resources": {"memory": 1e9}}  # started with --num-cpus=0
GONE = {"Alive": False, "Resources": {"CPU": 4.0}}


def node(cpus: float) -> dict[str, Any]:
    """What Ray says of a worker."""
    return {"Alive": True, "Resources": {"CPU": cpus, "memory": 1e9}}


@pytest.fixture
def never() -> Iterator[Callable[[], Any]]:
    """A function that does not return before the test is over."""
    over = threading.Event()
    yield over.wait
    over.set()
    until_s = time.monotonic() + 10
    while left_behind() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not left_behind()


def fake_ray(monkeypatch: pytest.MonkeyPatch, **functions: Callable[..., Any]) -> None:
    """Put these in place of Ray, which this process has joined already."""
    ray = SimpleNamespace(is_initialized=lambda: True, kill=lambda *_, **__: None, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(**{**vars(ray), **functions}))


def test_what_returns_in_time_is_passed_on(never: Callable[[], Any]) -> None:
    """A value, an error as it is, and what was promised in place of who is late, whose thread is remembered."""
    late = PodclusterError("late")
    assert within(60, lambda: 7, late) == 7
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 // 0, late)
    assert not left_behind()
    with pytest.raises(PodclusterError, match="late"):
        within(0.05, never, late)
    assert left_behind()


@pytest.mark.parametrize(("nodes", "cpus"), [([HEAD, node(8), node(4), GONE], 12), ([node(0.5)], 1)])
def test_cpus_are_those_of_nodes_that_are_alive(nodes: list[Any], cpus: int) -> None:
    """All of them, and at least one where there is any."""
    assert cluster_cpus(ADDRESS, lambda: nodes, 0) == cpus


@pytest.mark.parametrize("nodes", [[HEAD], [HEAD, GONE], []])
def test_a_cluster_without_cpus_is_refused(nodes: list[Any]) -> None:
    """One line that names the key, the address, what is there and what to do."""
    alive = sum(one["Alive"] for one in nodes)
    found = rf"^engine.address must be .*got {ADDRESS} \(nodes: {alive}, CPUs: 0, .*ray start --address"
    with pytest.raises(ConfigError, match=found) as raised:
        cluster_cpus(ADDRESS, lambda: nodes, 0)
    assert "\n" not in str(raised.value)


def test_a_worker_that_joins_meanwhile_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two looks find none."""
    monkeypatch.setattr("podcluster.cluster.ray_pool.LOOK_S", 0.01)
    looks = iter([[HEAD], [HEAD], [HEAD, node(3)]])
    assert cluster_cpus(ADDRESS, lambda: next(looks), 60) == 3


def test_a_run_on_a_cluster_without_cpus_makes_no_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a first one is asked for, and in place of one that has died."""
    for wait in ("WORKERS_S", "START_S"):
        monkeypatch.setattr(f"podcluster.cluster.ray_pool.{wait}", 0)
    monkeypatch.setattr("podcluster.cluster.ray_pool.new_actor", lambda: pytest.fail("an actor was asked for"))
    fake_ray(monkeypatch, nodes=lambda: [HEAD])
    engine = RayEngine(ADDRESS)
    with pytest.raises(ConfigError, match=r"^engine.address must be of a Ray cluster that has CPUs"):
        engine.pool(asked(actors=2, address=ADDRESS), PLAN.specs, PLAN.hosts, make_fake)
    engine.actors.append("of a node that is gone")
    with pytest.raises(PodclusterError, match=r"^no node of Ray is left to make an actor on"):
        engine.replace(0)


@pytest.mark.parametrize("silent", ["nodes", "kill", "new_actor"])
def test_a_head_that_falls_silent_is_one_line(
    monkeypatch: pytest.MonkeyPatch, never: Callable[[], Any], silent: str
) -> None:
    """Whatever Ray is asked when an actor is put in the place of another."""
    functions: dict[str, Callable[..., Any]] = {"nodes": lambda: [HEAD, node(2)], "kill": lambda *_, **__: None}
    made: Callable[[], Any] = lambda: "new"  # noqa: E731
    if silent == "new_actor":
        made = never
    else:
        functions[silent] = lambda *_, **__: never()
    fake_ray(monkeypatch, **functions)
    monkeypatch.setattr("podcluster.cluster.ray_pool.new_actor", made)
    monkeypatch.setattr("podcluster.cluster.ray_pool.ANSWER_S", 0.05)
    engine = RayEngine(ADDRESS)
    engine.actors.append("old")
    with pytest.raises(PodclusterError, match=f"^the head of Ray at {ADDRESS} must answer, got nothing in 0.05 s") as e:
        engine.replace(0)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("silent", ["kill", "shutdown"])
def test_a_run_that_is_done_is_so_without_a_goodbye(
    monkeypatch: pytest.MonkeyPatch, never: Callable[[], Any], caplog: pytest.LogCaptureFixture, silent: str
) -> None:
    """A head that does not answer any more is a warning then, and is not asked a second time."""
    fake_ray(monkeypatch, **{silent: lambda *_, **__: never()})
    monkeypatch.setattr("podcluster.cluster.ray_pool.ANSWER_S", 0.05)
    monkeypatch.setattr("podcluster.cluster.ray_pool.start_ray", lambda address: True)
    engine = RayEngine(ADDRESS)
    engine.actors.append("one")
    engine.close()
    engine.close()
    assert [record.message for record in caplog.records if "must answer" in record.message] == [caplog.messages[0]]


@pytest.mark.ray
def test_a_listener_that_never_answers_is_one_line(private_ray: dict[str, str]) -> None:
    """The whole command against a socket on which nobody ever accepts: status 2, one line, and the process ends."""
    code = (
        "import sys; from podcluster.cluster import ray_pool; ray_pool.JOIN_S = 2.0; from podcluster.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    with socket.socket() as hole:
        hole.bind(("", 0))
        hole.listen(64)
        address = f"127.0.0.1:{hole.getsockname()[1]}"
        words = ["workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512", "study.duration_s=60"]
        words += ["engine=ray", f"engine.address={address}", f"hydra.run.dir={private_ray['RAY_TMPDIR']}/run"]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=private_ray, capture_output=True, text=True, timeout=120
        )
    lines = [line for line in done.stderr.splitlines() if "engine.address" in line]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and f"got {address} (somebody listens there who did not answer in 2 s)" in lines[0]
    assert "Traceback" not in done.stderr
