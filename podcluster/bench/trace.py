"""`podcluster bench trace`: whole hosts that follow a month of demand, page by page.

What        1,000 machines of the synthetic family on 64 hosts for 30 days of 300-second samples, in this process on one
            core: placed, built, booted, ballooned, followed to the end. The clock runs from the first placement to the
            last row; drawing the demand is outside it. A run as usual, only that nothing is written.
Units       `_per_s` samples of demand per second of wall time; pages of 4 KiB; `_s` seconds of simulated time.
Cases       static     targets stay.   squeezed   the balancing daemon moves them.
            `pages_moved` and `domains_with_debt_s` (the time that domains had debt, summed over them) are those of the
            latter; of each case by its name, too.
Demand      Held memory follows demand at once, up and down (hold_s=0), which is as much work as a trace can make. The
            family is the fitted one; use is stretched about each machine's median until the mean |dW| per sample is 2 %
            of maxmem, since the family (1.6 %) leaves out the smallest machines of its trace (2.4 % with them).
Guests      Linux whose driver does not scrub what it hands back; the allocator takes again what was freed last, so that
            only growth beyond the high-water mark touches pages for the first time (G2).
Audits      Off here (`host.check=off`): a run by default recounts one domain a host and epoch.
Telemetry   Of the static case, with all its rows written to Parquet: `telemetry_ratio` is its time with a sample of
            every machine, every host and the cluster each 300 s over its time without; `telemetry_rows_per_s` how fast
            these samples are written on their own, from where hosts have reported them to the finished file.
Actors      Of the static case, too: `two_actor_share` is how much faster two Ray actors are than one, as a share of how
            much more two processes that know nothing of each other do than one alone.
Check       A hundredth of the machines live once more on a host that makes every access and every hypercall a page at a
            time, with nothing run ahead; the digest of its rows is that of the fast path.
"""

from __future__ import annotations

import statistics
from typing import Any

from podcluster.bench.actors import two_actor_share
from podcluster.bench.month import MEAN_DW_SHARE, Rows, configure, draw, first_of, simulate
from podcluster.bench.page_loop import make_page_loop_host
from podcluster.bench.processes import peak_rss_mib
from podcluster.bench.said import say
from podcluster.bench.telemetry import telemetry
from podcluster.cluster.plan import Plan, make_plan
from podcluster.cluster.pool import make_host
from podcluster.config import Config
from podcluster.records.machines import Workload

REPEAT = 3
BOUNDS = {
    "static_samples_per_s": (">=", 7e6),
    "squeezed_samples_per_s": (">=", 2e6),
    "peak_rss_mib": ("<", 2048),
    "mean_dw_share": (">=", MEAN_DW_SHARE),
    "telemetry_ratio": ("<=", 1.25),
    "telemetry_rows_per_s": (">=", 5e6),
    "two_actor_share": (">=", 0.85),
}
MACHINES, HOSTS, DAYS = 1000, 64, 30
QUICK_DIVISOR = 10


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
        simulate(config, *first_of(plan, workload, max(1, machines // 100)), Rows())  # warm up
        seconds = []
        rows = Rows()
        for done in range(repeat):
            say(f"trace: {controller}, {done} of {repeat} months done")
            rows = Rows()
            seconds.append(simulate(config, plan, workload, rows))
        key = f"{controller}_samples_per_s"
        figures[key] = samples / statistics.median(seconds)
        spread[key] = [samples / max(seconds), samples / min(seconds)]
        figures |= {"samples": samples, "mean_dw_share": share}
        moved = {"pages_moved": rows.runs[0].moved_pages, "domains_with_debt_s": rows.runs[0].debt_s}
        figures |= moved | {f"{controller}_{name}": value for name, value in moved.items()}
        figures[f"{controller}_page_loop_equal"] = equals_page_loop(
            config, *first_of(plan, workload, max(1, machines // 100))
        )
        if controller == "static":
            figures |= telemetry(config, workload, repeat)
            figures |= two_actor_share(config, workload, repeat)
    figures["peak_rss_mib"] = peak_rss_mib()
    return {**figures, "repeat": repeat, "spread": spread}


def equals_page_loop(config: Config, plan: Plan, workload: Workload) -> bool:
    """Whether the page loop writes the same rows."""
    digests = []
    for make in (make_host, make_page_loop_host):
        rows = Rows(digest=True)
        simulate(config, plan, workload, rows, make)
        digests.append(rows.digest)
    return digests[0] == digests[1]
