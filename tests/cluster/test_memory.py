"""Is memory estimated, compared and kept to: what fits stays, what does not is packed, what cannot is refused?"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podcluster.cli import compose
from podcluster.cluster.ledger import Ledger, check_attempts, run_row
from podcluster.cluster.memory import (
    ACTOR_BYTES,
    DRIVER_BYTES,
    MIB,
    RAY_BYTES,
    Estimate,
    available_bytes,
    budget,
    estimate_memory,
)
from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import PACKING, Host, HostPlan, HostShard, InlinePool, Packing
from podcluster.cluster.progress import Silent
from podcluster.cluster.ratios import SamplePeaks
from podcluster.cluster.run import run
from podcluster.config import Config, EngineConfig
from podcluster.errors import ConfigError
from podcluster.placement.policy import make_policy
from podcluster.records.commands import Close, Command, StartDomain
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import Workload
from podcluster.units import NS_PER_S, PAGES_PER_GIB
from podcluster.workloads import requests
from tests.cluster.fake import FakeHost, make_fake
from tests.cluster.story import ListSink, machine, machines, small_plan

MakeConfig = Callable[..., Config]
GIB = 1024**3
ESTIMATE = Estimate(programs=0, least=4 * GIB, most=16 * GIB, packed=1 * GIB, in_flight=2 * GIB, workload=0, rows=0)


def given(mib: int, **changed: object) -> EngineConfig:
    """An engine with so much memory."""
    return EngineConfig(memory_mib=str(mib), **changed)  # type: ignore[arg-type]


def test_memory_is_estimated_from_promises(make_config: MakeConfig) -> None:
    """2 MiB for each GiB of maxmem at most; more with all pages whole than packed; actors and Ray come on top."""
    config = make_config("cluster.hosts=4")
    workload = requests(
        config.workload, config.guest, config.overcommit, None, config.seed, config.study.duration_s,
        usable_pages=config.usable_pages,
    )  # fmt: skip
    plan = make_plan(config, workload, 1)
    inline, ray = estimate_memory(plan, workload, 0), estimate_memory(plan, workload, 2)
    gib = sum(request.maxmem_pages for request in workload.requests) / PAGES_PER_GIB
    assert inline.most - inline.least == pytest.approx(gib * (2 * 1024**2 - 64 * 1024), abs=2)
    assert inline.packed < inline.least < inline.most
    assert (inline.programs, ray.programs) == (0, RAY_BYTES + 2 * ACTOR_BYTES)
    assert ray.in_flight == pytest.approx(2 * inline.in_flight, abs=1)
    assert inline.in_flight == inline.most // 4  # the hosts are alike


def test_blocks_in_random_order_count(make_config: MakeConfig) -> None:
    """A guest that takes memory in blocks of 16 pages has 32 times the runs of one that takes 2 MiB at a time."""
    one = Workload((machine(0, 0.0, pages=PAGES_PER_GIB),))
    found = []
    for order in ("guest.alloc_order=descending", "guest.alloc_block_pages=512", "guest.alloc_block_pages=16"):
        config = make_config("cluster.hosts=1", "guest=linux", "guest.alloc_order=random", order)
        found.append(estimate_memory(make_plan(config, one, 1), one, 0))
    in_order, large, small = found
    assert small.least - in_order.least == 32 * (large.least - in_order.least) > 0
    assert small.packed - in_order.packed == 32 * (large.packed - in_order.packed) > 0


def test_only_what_is_there_at_once_counts(make_config: MakeConfig) -> None:
    """Machines one after another are one; and hosts that are full take no more."""
    config = make_config("cluster.hosts=1", "cluster.host_mem_gib=4")
    gib = PAGES_PER_GIB // 2  # `machine` promises twice its memory
    one = Workload((machine(0, 0.0, 100.0, pages=gib),))
    many = Workload(tuple(machine(k, 100.0 * k, 100.0 * (k + 1), pages=gib) for k in range(50)))
    crowd = Workload(tuple(machine(k, 0.0, pages=gib) for k in range(50)))
    plan = make_plan(config, one, 1)
    once, often = estimate_memory(plan, one, 0), estimate_memory(plan, many, 0)
    assert often._replace(workload=0, rows=0) == once._replace(workload=0, rows=0)
    assert (often.workload, often.rows) == (50 * once.workload, 50 * once.rows), "the driver remembers all of them"
    promised_gib = 2 * config.usable_pages / PAGES_PER_GIB
    found = estimate_memory(plan, crowd, 0)
    assert found.most - found.least == pytest.approx(promised_gib * (2 * 1024**2 - 64 * 1024), abs=2)
    nothing = estimate_memory(plan, Workload(()), 0)
    assert 0 < nothing.packed < nothing.least == nothing.most


def test_what_fits_has_no_limit() -> None:
    """Even with every superpage split."""
    assert budget(EngineConfig(), ESTIMATE, 0, 16 * GIB).room_bytes is None
    assert budget(given(16 * 1024), ESTIMATE, 0).room_bytes is not None  # the program itself takes some of that
    assert budget(given(17 * 1024), ESTIMATE, 0).room_bytes is None


def test_what_may_not_fit_is_packed_beyond_a_room() -> None:
    """What is free less all hosts packed and those in flight, dealt out to the actors; said in one line."""
    here = budget(EngineConfig(), ESTIMATE, 0, 8 * GIB)
    assert here.room_bytes == 5 * GIB
    assert here.note == (
        "memory: 4.0 GiB to 16.0 GiB of 8.0 GiB free; hosts beyond 5.0 GiB are packed between their turns"
    )
    assert budget(EngineConfig(kind="ray"), ESTIMATE, 5, 8 * GIB).room_bytes == GIB
    assert budget(EngineConfig(), ESTIMATE, 0, 3 * GIB).room_bytes == 0
    assert budget(given(8 * 1024), ESTIMATE, 0).room_bytes == 5 * GIB - DRIVER_BYTES


def test_what_the_driver_keeps_leaves_less_room() -> None:
    """Rows, which are still to come; and of what is given the machines, too, which of what is free have been taken."""
    kept = ESTIMATE._replace(workload=GIB, rows=GIB // 2)
    assert budget(EngineConfig(), kept, 0, 8 * GIB).room_bytes == 5 * GIB - GIB // 2
    assert budget(given(8 * 1024), kept, 0).room_bytes == 5 * GIB - DRIVER_BYTES - GIB - GIB // 2


def test_what_cannot_fit_is_refused() -> None:
    """All hosts packed and one in flight are the least; one line, with what to do."""
    for engine, remedy in ((EngineConfig(), "fewer engine.actors"), (given(2 * 1024), "raise engine.memory_mib")):
        with pytest.raises(ConfigError, match=rf"must fit in memory, got 3.\d GiB.*{remedy}") as raised:
            budget(engine, ESTIMATE, 0, 2 * GIB)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("packed", "got", "enough"),
    [(4 * MIB, "290 MiB", 290), (4 * MIB + 1, "291 MiB", 291), (1000 * MIB, "1.3 GiB", 1286)],
    ids=["to the MiB", "a byte more", "in GiB"],
)
def test_what_a_refusal_names_is_enough(packed: int, got: str, enough: int) -> None:
    """256 MiB for the driver, 30 for a host in flight, and the packed: rounded up, and the least that is taken."""
    one = ESTIMATE._replace(packed=packed, least=30 * MIB, in_flight=30 * MIB)
    with pytest.raises(ConfigError) as refused:
        budget(given(enough - 1), one, 0)
    there = "1.2 GiB" if enough > 1024 else f"{enough - 1} MiB"
    assert str(refused.value) == (
        f"the run must fit in memory, got {got} with all hosts packed and {there} given: "
        f"raise engine.memory_mib to {enough} or more"
    )
    assert budget(given(enough), one, 0).room_bytes is not None


def test_other_machines_have_memory_of_their_own() -> None:
    """A Ray cluster elsewhere: no limit unless one is given."""
    assert budget(EngineConfig(address="10.0.0.1:6379"), ESTIMATE, 2, 1).room_bytes is None
    assert budget(given(8 * 1024, address="10.0.0.1:6379"), ESTIMATE, 2).room_bytes is not None


def test_free_memory_is_known_here() -> None:
    """On Linux the system says what is free, and it is neither nothing nor more than there could be."""
    available = available_bytes()
    assert available is not None and 64 * 1024**2 < available < 2**50


# -- estimates and real sizes ------------------------------------------------------------------------------------------


@contextmanager
def traced() -> Iterator[list[int]]:
    """How many bytes more of Python's and NumPy's are held at the end, and at the most."""
    found: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        yield found
        gc.collect()
        found += tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "workload",
    [("workload.machines=400",), ("workload=churn", "workload.arrivals_per_day=700")],
    ids=["own", "churn"],
)
def test_machines_take_what_is_estimated(make_config: MakeConfig, workload: tuple[str, ...]) -> None:
    """Requests with demands of a day, and what the plan knows of each: no more than the estimate, and over half of
    it.
    """
    config = make_config(*workload, "cluster.hosts=4", "guest=mix")
    with traced() as found:
        drawn = requests(
            config.workload, config.guest, config.overcommit, None, config.seed, config.study.duration_s,
            classes=config.classes, usable_pages=config.usable_pages,
        )  # fmt: skip
    assert len(drawn.requests) > 300
    assert 0.5 < found[0] / estimate_memory(make_plan(config, drawn, 1), drawn, 0).workload <= 1


def test_rows_take_what_is_estimated(make_config: MakeConfig) -> None:
    """Those of real hosts, as actors send them, in a ledger that sums them up: no more than the estimate, and over half
    of it.
    """
    config = make_config(
        "workload=churn", "workload.arrivals_per_day=300", "guest=mix", "study.duration_s=20000", "study.warmup_s=3600",
        "cluster.hosts=3", "study.telemetry_s=3600",
    )  # fmt: skip
    drawn = requests(
        config.workload, config.guest, config.overcommit, None, config.seed, config.study.duration_s,
        classes=config.classes, usable_pages=config.usable_pages,
    )  # fmt: skip
    plan, sink = make_plan(config, drawn, 1), ListSink()
    pool = InlinePool(plan.specs, plan.hosts)
    run(plan, drawn, make_policy(config.placement, 1), pool, sink, Silent())
    rows, copies = sink.tables["domains"], 30
    assert sum(row.boot_start_ns is not None for row in rows) > len(rows) / 2 > 20
    many = [
        replace(request, domain_id=copy * 10**6 + request.domain_id)
        for copy in range(copies)
        for request in drawn.requests
    ]
    sent = [
        [pickle.dumps(replace(row, domain_id=copy * 10**6 + row.domain_id)) for row in rows] for copy in range(copies)
    ]
    workload = replace(drawn, requests=tuple(many))
    plan = replace(plan, need_pages={one.domain_id: plan.need_pages[one.domain_id % 10**6] for one in many})
    ledger = Ledger()
    with traced() as found:
        for some in sent:
            ledger.end([pickle.loads(row) for row in some])
        check_attempts(many, ledger.rows)
        run_row(plan, workload, ledger, SamplePeaks(plan.warmup_ns), pool, 0.0)
    assert 0.5 < found[1] / estimate_memory(plan, workload, 0).rows <= 1


# Guests whose memory lies in blocks in random order: much to keep of a host that is not packed, little of one that is.
SCATTERED = (
    "workload=alike", "workload.machines=48", "workload.memory_mib=3072", "workload.maxmem_mib=4096",
    "workload.boot_spread_s=0", "guest=linux", "guest.alloc_order=random", "guest.alloc_block_pages=16",
    "cluster.hosts=12", "cluster.host_mem_gib=16", "cluster.epoch_s=200", "study.duration_s=200",
    "study.telemetry_s=200", "study.figure=false", "engine=inline", "engine.checkpoint_s=0",
)  # fmt: skip
# Of its own memory alone: ru_maxrss is at least what the process had that started this one.
PEAK = """
import sys
from pathlib import Path
from podcluster.cli import main
status = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
peak_kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
sys.stdout.write(f"\\n{peak_kib}\\n")
sys.exit(status)
"""
REPOSITORY = Path(__file__).resolve().parents[2]


def peak_mib(folder: Path, *options: str) -> float:
    """The most memory that a process takes for the run of scattered guests [MiB]."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *SCATTERED, f"hydra.run.dir={folder}", *options],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and other allocators take other amounts")
def test_a_process_stays_within_its_memory(tmp_path: Path) -> None:
    """What a run took at most is below what it was given, and makes use of it; unlimited, it takes far more."""
    given_mib = 385
    assert peak_mib(tmp_path / "all") > 1.25 * given_mib
    assert 0.75 * given_mib < peak_mib(tmp_path / "some", f"engine.memory_mib={given_mib}") < given_mib


# -- shards ------------------------------------------------------------------------------------------------------------

PLAN = small_plan(machines(), hosts=3)


class Books:
    """Counts what a shard packs and lets go of; a host takes 10 bytes more than it has taken steps."""

    def __init__(self) -> None:
        self.packed = self.gone = 0

    def pack(self, host: FakeHost) -> bytes:
        self.packed += 1
        return pickle.dumps(host)

    def let_go(self, host: FakeHost) -> None:
        self.gone += 1

    def packing(self, room_bytes: int | None) -> Packing:
        return Packing(
            self.pack, pickle.loads, lambda host: 10 + host.now_ns // NS_PER_S, self.let_go, room_bytes=room_bytes
        )


def shard(room_bytes: int | None) -> tuple[HostShard, Books]:
    """All hosts of the story in one shard."""
    books = Books()
    found = HostShard(PLAN.hosts, make_fake, books.packing(room_bytes))
    found.add(PLAN.specs)
    return found, books


def test_as_many_hosts_as_fit_stay() -> None:
    """Room for two at first, for one once they have grown, and then for none."""
    found, books = shard(25)
    assert found.residents == [0, 1] and books.packed == books.gone == len(PLAN.specs) - 2
    found.advance(10 * NS_PER_S, {})
    assert found.residents == [1]  # there was no room for 0 before 1 had its turn
    found.advance(20 * NS_PER_S, {})
    assert found.residents == []


@pytest.mark.parametrize("room_bytes", [None, 0, 25, 40, 10**6])
def test_reports_do_not_depend_on_room(room_bytes: int | None) -> None:
    """All hosts, one at a time, or some: the same reports, in order of hosts; and the same hosts packed for keeps."""
    always, _ = shard(None)
    found, books = shard(room_bytes)
    for until_s in (10, 20, 30):
        assert found.advance(until_s * NS_PER_S, {}) == always.advance(until_s * NS_PER_S, {})
    assert (books.packed == 0) == (room_bytes in (None, 10**6))
    again = HostShard(PLAN.hosts, make_fake, Books().packing(room_bytes))
    again.add(PLAN.specs, found.pack(found.host_ids))
    assert again.advance(40 * NS_PER_S, {}) == always.advance(40 * NS_PER_S, {})


def test_a_packed_host_that_is_quiet_is_left_alone() -> None:
    """Real hosts, one of them empty and one with a guest that is up: they are unpacked when something is to happen, and
    report what hosts do that never were packed.
    """
    config = compose(["guest=linux", "guest.page_cache.rate_mib_per_s=0", "cluster.host_mem_gib=8"])
    plan = HostPlan(config.host, config.guests, 1, 100 * NS_PER_S)
    specs = [HostSpec(host_id, 8 * PAGES_PER_GIB, config.usable_pages) for host_id in range(2)]
    unpacked: list[int] = []

    def unpack(packed: Any) -> Host:
        unpacked.append(1)
        return PACKING.unpack(packed)

    shards = [HostShard(plan, packing=PACKING), HostShard(plan, packing=PACKING._replace(unpack=unpack, room_bytes=0))]
    for one in shards:
        one.add(specs)
    told: dict[int, dict[int, list[Command]]] = {
        10: {0: [StartDomain(1, machine(0, 0.0, pages=PAGES_PER_GIB))]},
        350: {host_id: [Close(350 * NS_PER_S)] for host_id in range(2)},
    }
    turns: dict[int, int] = {}
    for until_s in range(10, 360, 10):
        before = len(unpacked)
        never, packed = (one.advance(until_s * NS_PER_S, told.get(until_s, {})) for one in shards)
        assert repr(packed) == repr(never)
        turns[until_s] = len(unpacked) - before
    assert turns[10] == 2  # nobody has said anything yet
    assert turns[20] == turns[30] == 1  # it boots
    assert {until_s for until_s in turns if until_s > 200 and turns[until_s]} == {300, 350}  # all look at their grid


def test_a_pool_keeps_to_its_room() -> None:
    """What the shard does, the pool in this process does."""
    always, _ = shard(None)
    pool = InlinePool(PLAN.specs, PLAN.hosts, make_fake, Books().packing(0))
    assert pool.advance(10 * NS_PER_S, {}) == always.advance(10 * NS_PER_S, {})
