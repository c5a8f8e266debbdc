"""`podcluster bench trace`: whole hosts that follow a month of demand, page by page.

What        1,000 machines of the synthetic family on 64 hosts for 30 days of 300-second samples, in this process on one
            core: placed, built, booted, ballooned, followed to the end. The clock runs from the first placement to the
            last row; drawing the demand is outside it. A run as usual, only that nothing is written.
Units       `_per_s` samples of demand per second of wall time; pages of 4 KiB; `_s` seconds of simulated time.
Cases       static     targets stay.   squeezed   the balancing daemon moves them.
Demand      Held memory follows demand at once, up and down (hold_s=0), which is as much work as a trace can make. The
            family is the fitted one; use is stretched about each machine's median until the mean |dW| per sample is 2 %
            of maxmem, since the family (1.6 %) leaves out the smallest machines of its trace (2.4 % with them).
Guests      Linux whose driver does not scrub what it hands back; the allocator takes again what was freed last, so that
            only growth beyond the high-water mark touches pages for the first time (G2).
Audits      Off here (`host.check=off`): a run by default recounts one domain a host and epoch.
Check       A hundredth of the machines live once more on a host that makes every access and every hypercall a page at a
            time, with nothing run ahead; the digest of its rows is that of the fast path.
"""

from __future__ import annotations

import hashlib
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from podcluster.bench.page_loop import make_page_loop_host
from podcluster.cluster.plan import Plan, make_plan
from podcluster.cluster.pool import InlinePool, MakeHost, make_host
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.config import Config
from podcluster.placement.policy import make_policy
from podcluster.records import Demand, MachineRequest, RunRow, Workload

REPEAT = 3
BOUNDS = {
    "static_samples_per_s": (">=", 7e6),
    "squeezed_samples_per_s": (">=", 2e6),
    "peak_rss_mib": ("<", 2048),
    "mean_dw_share": (">=", 0.02),
}
MACHINES, HOSTS, DAYS = 1000, 64, 30
QUICK_DIVISOR = 10
MEAN_DW_SHARE = 0.02
STRETCH_STEP = 1.05


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


def simulate(config: Config, plan: Plan, workload: Workload, rows: Rows, make: MakeHost = make_host) -> float:
    """One run in this process; the seconds it took."""
    pool = InlinePool(plan.specs, plan.hosts, make)
    started = time.perf_counter()
    run(plan, workload, make_policy(config.placement, config.seed), pool, rows, Silent())
    seconds = time.perf_counter() - started
    pool.close()
    return seconds


def measure(repeat: int, *, quick: bool) -> dict[str, Any]:
    """All figures; `quick` is a tenth of the machines, hosts and days."""
    part = QUICK_DIVISOR if quick else 1
    machines, hosts, days = MACHINES // part, -(-HOSTS // part), DAYS // part
    figures: dict[str, Any] = {"machines": machines, "hosts": hosts, "days": days}
    spread: dict[str, list[float]] = {}
    for controller in ("static", "squeezed"):
        config = configure(controller, machines, hosts, days)
        workload, share = draw(config)
        plan = make_plan(config, workload, config.seed)
        samples = sum(len(request.demand.pages) - 1 for request in workload.requests)
        simulate(config, *_part(plan, workload, max(1, machines // 100)), Rows())  # warm up
        seconds = []
        rows = Rows()
        for _ in range(repeat):
            rows = Rows()
            seconds.append(simulate(config, plan, workload, rows))
        key = f"{controller}_samples_per_s"
        figures[key] = samples / statistics.median(seconds)
        spread[key] = [samples / max(seconds), samples / min(seconds)]
        figures |= {"samples": samples, "mean_dw_share": share}
        figures[f"{controller}_pages_moved"] = rows.runs[0].moved_pages
        figures[f"{controller}_domains_with_debt_s"] = rows.runs[0].debt_s
        figures[f"{controller}_page_loop_equal"] = equals_page_loop(
            config, *_part(plan, workload, max(1, machines // 100))
        )
    figures["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 1024**2
    )
    return {**figures, "repeat": repeat, "spread": spread}


def equals_page_loop(config: Config, plan: Plan, workload: Workload) -> bool:
    """Whether the page loop writes the same rows."""
    digests = []
    for make in (make_host, make_page_loop_host):
        rows = Rows(digest=True)
        simulate(config, plan, workload, rows, make)
        digests.append(rows.digest)
    return digests[0] == digests[1]


def _part(plan: Plan, workload: Workload, machines: int) -> tuple[Plan, Workload]:
    """The first machines, on hosts enough for them."""
    hosts = max(1, -(-machines * len(plan.specs) // len(workload.requests)))
    return replace(plan, specs=plan.specs[:hosts]), replace(workload, requests=workload.requests[:machines])
