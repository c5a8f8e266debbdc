"""Does the whole way from a configuration to a digest give the same bytes wherever the real hosts live, and however
time is cut?
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podcluster.cluster import run as run_module
from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import InlinePool
from podcluster.cluster.ray_pool import RayEngine
from podcluster.config import Cell, Config, EngineConfig
from podcluster.io.digest import digest
from podcluster.io.load import load_results
from podcluster.records.commands import StartDomain
from podcluster.study.runner import run_study
from podcluster.units import NS_PER_S
from podcluster.workloads import requests

MakeConfig = Callable[..., Config]

# Guests die in it, are rejected in it, and boot while others run.
TINY = (
    "guest=linux_no_driver",
    "workload.machines=16",
    "workload.boot_spread_s=60",
    "study.duration_s=400",
    "study.telemetry_s=60",
    "cluster.host_mem_gib=16",
    "cluster.hosts=3",
    "overcommit=1.3",
)


@pytest.fixture(scope="module")
def inline_digest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of the tiny study computed in this process."""
    from podcluster.cli import compose

    folder = tmp_path_factory.mktemp("inline")
    run_study([Cell(config=compose([*TINY, "engine=inline"]))], out_dir=folder)
    fates = set(load_results(folder)["domains"]["fate"])
    assert {"running", "pod_oom", "rejected"} <= fates, "the scenario no longer shows what it is for"
    return digest(folder)


@pytest.fixture
def engine(ray_cluster: None) -> Iterator[RayEngine]:
    """Actors on the session's Ray."""
    engine = RayEngine("local")
    yield engine
    engine.close()


@pytest.mark.ray
@pytest.mark.parametrize("where", ["engine.actors=1", "engine.actors=2", "engine.hosts_per_actor=1"])
def test_ray_gives_the_digest_of_this_process(
    make_config: MakeConfig, ray_cluster: None, inline_digest: dict[str, str], tmp_path: Path, where: str
) -> None:
    """Every table of the tiny study, byte for byte."""
    run_study([Cell(config=make_config(*TINY, "engine=ray", where))], out_dir=tmp_path)
    assert set(load_results(tmp_path)["runs"]["engine_kind"]) == {"ray"}
    assert digest(tmp_path) == inline_digest


def test_merging_empty_epochs_changes_no_byte(
    make_config: MakeConfig, inline_digest: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[EP-1] on real hosts: every epoch of 10 s on its own."""
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    run_study([Cell(config=make_config(*TINY, "engine=inline"))], out_dir=tmp_path)
    assert digest(tmp_path) == inline_digest


@pytest.mark.parametrize(
    "engine", ["engine.memory_mib=271", pytest.param("engine.memory_mib=1006", marks=pytest.mark.ray)]
)
def test_hosts_that_take_turns_change_no_byte(
    make_config: MakeConfig, ray_cluster: None, inline_digest: dict[str, str], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, engine: str,
) -> None:  # fmt: skip
    """[CL-2] memory for no host out of its turn, in this process and in two actors: all are packed each time."""
    where = ("engine=inline",) if engine.endswith("271") else ("engine=ray", "engine.actors=2")
    with caplog.at_level("INFO"):
        run_study([Cell(config=make_config(*TINY, *where, engine))], out_dir=tmp_path)
    assert "hosts beyond 0 MiB" in caplog.text
    assert digest(tmp_path) == inline_digest


# Machines come and go, hosts die and come back, some of what they took finds no room for a while.
STORMY = (
    "workload=churn",
    "workload.arrivals_per_day=3000",
    "workload.boot_spread_s=30",
    "guest=linux",
    "study.duration_s=1800",
    "study.warmup_s=300",
    "study.telemetry_s=60",
    "cluster.host_mem_gib=[2x24,64]",
    "overcommit=2",
    "host.on_crash=restart",
    "failure.rate_per_host_year=40000",
    "failure.repair_s=150",
    "failure.restart_delay_s=20",
    "failure.best_effort_share=0.2",
    "workload.orders=[400 host-fail 2]",
)


@pytest.fixture(scope="module")
def stormy_digest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digest of the stormy study computed in this process."""
    from podcluster.cli import compose

    folder = tmp_path_factory.mktemp("stormy")
    run_study([Cell(config=compose([*STORMY, "engine=inline"]))], out_dir=folder)
    tables = load_results(folder)
    assert {"running", "shut_down", "host_failed", "rejected"} <= set(tables["domains"]["fate"])
    assert {"boot", "ha"} <= set(tables["domains"]["origin"])
    assert {"host_failed", "host_recovered", "ha_restart", "ha_waits"} <= set(tables["events"]["kind"])
    return digest(folder)


@pytest.mark.ray
@pytest.mark.parametrize("where", ["engine.actors=2", "engine.hosts_per_actor=1"])
def test_ray_gives_the_digest_of_this_process_through_failures(
    make_config: MakeConfig, ray_cluster: None, stormy_digest: dict[str, str], tmp_path: Path, where: str
) -> None:
    """Every table of the stormy study, byte for byte."""
    run_study([Cell(config=make_config(*STORMY, "engine=ray", where))], out_dir=tmp_path)
    assert digest(tmp_path) == stormy_digest


def test_merging_empty_epochs_changes_no_byte_through_failures(
    make_config: MakeConfig, stormy_digest: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[EP-1] of the stormy study: every epoch of 10 s on its own."""
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    run_study([Cell(config=make_config(*STORMY, "engine=inline"))], out_dir=tmp_path)
    assert digest(tmp_path) == stormy_digest


# Two hosts are emptied one after the other, by guests that are up; the controller has to make room for who comes.
MOVING = (
    "workload=alike",
    "workload.maxmem_mib=1024",
    "workload.machines=14",
    "workload.boot_spread_s=120",
    "guest=linux",
    "study.duration_s=1200",
    "study.telemetry_s=60",
    "cluster.host_mem_gib=6",
    "cluster.hosts=3",
    "overcommit=1.8",
    "host.toolstack=xapi",
    "workload.orders=[400 host-evacuate 0, 700 host-enable 0, 800 host-evacuate 1, 801 migrate 0 0, 1100 host-fail 2]",
)


STUCK = "guest.fault.kind=stuck", "guest.fault.once_ballooned=true", "guest.fault.share=0.5"


@pytest.mark.ray
def test_who_finds_no_room_stays_wherever_hosts_live(
    make_config: MakeConfig, ray_cluster: None, tmp_path: Path
) -> None:
    """D4.7: a receiver whose guests do not give what they were to give keeps no room, and the domain lives on where it
    was; with another engine it is the same.
    """
    story = (*MOVING, "controller=squeezed", *STUCK)
    for engine in ("inline", "ray"):
        run_study([Cell(config=make_config(*story, f"engine={engine}"))], out_dir=tmp_path / engine)
    assert digest(tmp_path / "ray") == digest(tmp_path / "inline")
    results = load_results(tmp_path / "inline")
    events, domains = results["events"], results["domains"]
    refused = events[(events["kind"] == "migrate_refused") & events["text"].str.contains("COOPERATE")]
    assert len(refused) == 1 and refused["text"].iloc[0].startswith("host 2 has no room for it: VMS_FAILED_TO_")
    (row,) = domains[domains["domain_id"] == refused["domain_id"].iloc[0]].itertuples()
    assert (row.fate, row.attempt, row.host_id) == ("running", 1, refused["host_id"].iloc[0])
    assert not ((domains["origin"] == "migration") & (domains["fate"] == "build_failed")).any()


@pytest.mark.ray
@pytest.mark.parametrize("controller", ["static", "squeezed"])
def test_moving_domains_changes_no_byte_wherever_hosts_live(
    make_config: MakeConfig,
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    controller: str,
) -> None:
    """[EP-1] [CL-1] migrations between real hosts: this process, an actor a host, and every epoch on its own."""
    story = (*MOVING, f"controller={controller}")
    run_study([Cell(config=make_config(*story, "engine=inline"))], out_dir=tmp_path / "here")
    table = load_results(tmp_path / "here")["domains"]
    assert {"migrated", "running"} <= set(table["fate"]) and (table["origin"] == "migration").sum() >= 4
    run_study([Cell(config=make_config(*story, "engine=ray", "engine.hosts_per_actor=1"))], out_dir=tmp_path / "ray")
    assert digest(tmp_path / "ray") == digest(tmp_path / "here")
    monkeypatch.setattr(run_module, "MOST_MERGED_NS", 0)
    monkeypatch.setattr(run_module, "count_steps", lambda *_: 10**18)
    run_study([Cell(config=make_config(*story, "engine=inline"))], out_dir=tmp_path / "apart")
    assert digest(tmp_path / "apart") == digest(tmp_path / "here")


def test_hosts_that_take_turns_change_no_byte_of_moving_domains(make_config: MakeConfig, tmp_path: Path) -> None:
    """[CL-2] the same with memory for one host at a time, while domains are on their way from one to another."""
    story = (*MOVING, "controller=squeezed", "engine=inline")
    run_study([Cell(config=make_config(*story))], out_dir=tmp_path / "all")
    run_study([Cell(config=make_config(*story, "engine.memory_mib=266"))], out_dir=tmp_path / "one")
    assert digest(tmp_path / "one") == digest(tmp_path / "all")


@pytest.mark.ray
def test_a_killed_actor_comes_back_to_the_same_reports(make_config: MakeConfig, engine: RayEngine) -> None:
    """[CL-2] SIGKILL after 60 s of boots: the rebuilt shard reports what a shard that never died does, page for
    page.
    """
    config = make_config(*TINY)
    workload = requests(
        config.workload, config.guest, config.overcommit, None, config.seed, 400, usable_pages=config.usable_pages
    )
    plan = make_plan(config, workload, 11)
    commands = {
        host_id: [
            StartDomain(max(1, request.arrival_ns), request)
            for request in workload.requests
            if request.domain_id % 3 == host_id and request.maxmem_pages < config.usable_pages
        ][:2]
        for host_id in range(3)
    }
    here = InlinePool(plan.specs, plan.hosts)
    there = engine.pool(EngineConfig(kind="ray", actors=2), plan.specs, plan.hosts)
    assert there.advance(60 * NS_PER_S, commands) == here.advance(60 * NS_PER_S, commands)
    os.kill(engine.pids()[0], signal.SIGKILL)
    for until_s in (120, 400):
        assert there.advance(until_s * NS_PER_S, {}) == here.advance(until_s * NS_PER_S, {})
    there.close()
