"""A month of demand that machines follow on whole hosts: what `bench trace` runs, on every engine that it compares.

What        `configure` and `draw` give the machines, `simulate` runs them in this process, `run_on` on any pool;
            `Rows` is where rows go that nobody keeps.
Epochs      The cluster meets its hosts once a minute while machines arrive, in the first ten minutes, and not each 10 s
            as by default: on actors each meeting costs some ms, whatever there is to do.
Units       Pages of 4 KiB; `simulate` and `run_on` in seconds of wall time.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import InlinePool, MakeHost, Pool, make_host
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.config import Config
from podcluster.placement.policy import make_policy
from podcluster.records.demand import Demand
from podcluster.records.machines import MachineRequest, Workload
from podcluster.records.summaries import RunRow
from podcluster.records.tables import Sink

EPOCH_S: Final = 60
MEAN_DW_SHARE: Final = 0.02
STRETCH_STEP: Final = 1.05


class Rows:
    """A sink that keeps what benchmarks look at: `runs`, and a digest of all else where asked."""

    def __init__(self, *, digest: bool = False) -> None:
        self.runs: list[RunRow] = []
        self._digest = hashlib.sha256() if digest else None

    def write(self, table: str, rows: Sequence[object]) -> None:
        """Take rows."""
        if table == "runs":
            self.runs += [row for row in rows if isinstance(row, RunRow)]
        elif self._digest is not None:
            for row in rows:
                self._digest.update(f"{table} {row}\n".encode())

    @property
    def digest(self) -> str:
        """Of every row but `runs`, which tell of the wall clock."""
        assert self._digest is not None
        return self._digest.hexdigest()


def configure(controller: str, machines: int, hosts: int, days: int) -> Config:
    """The configuration of one case."""
    from podcluster.cli import compose

    return compose(
        [
            f"controller={controller}",
            f"cluster.hosts={hosts}",
            f"cluster.epoch_s={EPOCH_S}",
            "guest=linux",
            "guest.balloon.scrub=false",
            "guest.page_cache.rate_mib_per_s=0",
            "workload=synthetic",
            f"workload.machines={machines}",
            "workload.hold_s=0",
            f"study.duration_s={days * 86400}",
            "study.telemetry_s=0",
            "engine=inline",
            "host.check=off",
        ]
    )


def draw(config: Config) -> tuple[Workload, float]:
    """The machines, their use stretched as far as it must be; and the mean |dW| per sample as a share of maxmem."""
    from podcluster.workloads import requests

    workload = requests(
        config.workload, config.guest, config.overcommit, None, config.seed, config.study.duration_s,
        usable_pages=config.usable_pages, replication=0, replications=1,
    )  # fmt: skip
    factor = 1.0
    while True:
        machines = [_stretched(request, factor) for request in workload.requests]
        share = statistics.fmean(_dw_share(request) for request in machines)
        if share >= MEAN_DW_SHARE:
            return replace(workload, requests=tuple(machines)), share
        factor *= STRETCH_STEP


def _stretched(request: MachineRequest, factor: float) -> MachineRequest:
    pages = request.demand.pages
    middle = np.median(pages)
    wide = np.clip(middle + (pages - middle) * factor, 0, request.maxmem_pages).astype(np.int64)
    return replace(request, demand=Demand(request.demand.t_ns, wide))


def _dw_share(request: MachineRequest) -> float:
    return float(np.abs(np.diff(request.demand.pages)).mean()) / request.maxmem_pages


def simulate(config: Config, plan: Plan, workload: Workload, sink: Sink, make: MakeHost = make_host) -> float:
    """One run in this process; the seconds it took."""
    return run_on(InlinePool(plan.specs, plan.hosts, make), config, plan, workload, sink)


def run_on(pool: Pool, config: Config, plan: Plan, workload: Workload, sink: Sink) -> float:
    """One run on these hosts, which are let go of after it; the seconds it took."""
    started = time.perf_counter()
    run(plan, workload, make_policy(config.placement, config.seed), pool, sink, Silent())
    seconds = time.perf_counter() - started
    pool.close()
    return seconds


def first_of(plan: Plan, workload: Workload, machines: int) -> tuple[Plan, Workload]:
    """The first machines, on hosts enough for them."""
    hosts = max(1, -(-machines * len(plan.specs) // len(workload.requests)))
    return replace(plan, specs=plan.specs[:hosts]), replace(workload, requests=workload.requests[:machines])
