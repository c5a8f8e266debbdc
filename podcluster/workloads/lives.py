"""Machines that come and go: from when each lives to requests with a demand. What families with lifetimes share.

What        `requests_of` turns lives, wherever they are from, into the machines of a run; `memory_of` says what each
            wants while it lives.
Units       MiB and ns in a life; pages and ns in the requests.
Symbols     W(t) demand   M maxmem
Invariants  [WL-1] [WL-2] [WL-3]
            [WL-4] 0 <= arrival < departure, where there is one; a machine that was there before the run boots within
                   workload.boot_spread_s
Departs     Sources of lives say nothing of memory used: machines want what the synthetic family's machines of their
            size do (`synthetic.machine_of`), from the first moment and unchanged by their age. Between 75 and 90 of 100
            machines live an hour or less, and were not what that family was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records.demand import Demand
from podcluster.records.machines import MachineRequest, Workload
from podcluster.units import NS_PER_S, mib_to_pages, pages_to_mib
from podcluster.workloads import synthetic
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.starting import boot_ns, hold_ns, memory_mib

USE_NOTE = (
    "memory used: as machines of that size of the family fitted to GWA-T-12 (Bitbrains) 2013-8; the source has none"
)


class Life(NamedTuple):
    """One machine in its source: when it comes (below 0: it was there before the run) and goes (None: it stays)."""

    domain_id: int
    name: str
    maxmem_mib: int
    vcpus: int
    arrival_ns: int
    departure_ns: int | None


def requests_of(
    lives: Iterable[Life],
    cfg: WorkloadConfig,
    guests: ClassOf,
    overcommit: float,
    seed: int,
    duration_s: int,
    *,
    usable_pages: int | None,
    replication: int,
    machines: int,
) -> Workload:
    """The machines of one replication; `machines` is how many there are about at a time, which share pools of jobs."""
    end_ns = duration_s * NS_PER_S
    small = large = gone = standing = 0
    made: list[MachineRequest] = []
    for life in lives:
        if life.maxmem_mib < cfg.min_maxmem_mib:
            small += 1
            continue
        if usable_pages is not None and mib_to_pages(life.maxmem_mib) > usable_pages:
            large += 1
            continue
        arrival_ns = life.arrival_ns
        if arrival_ns < 0:
            arrival_ns = boot_ns(seed, replication, life.domain_id, cfg.boot_spread_s)
            standing += 1
        if arrival_ns > end_ns or (life.departure_ns is not None and life.departure_ns <= arrival_ns):
            gone += 1
            continue
        guest = guests(life.domain_id)
        made.append(
            MachineRequest(
                domain_id=life.domain_id,
                attempt=1,
                name=life.name,
                os_class=guest.os_class,
                vcpus=life.vcpus,
                maxmem_pages=mib_to_pages(life.maxmem_mib),
                memory_pages=mib_to_pages(memory_mib(life.maxmem_mib, guest, overcommit)),
                arrival_ns=arrival_ns,
                departure_ns=life.departure_ns,
                demand=memory_of(life, arrival_ns, end_ns, seed, replication, machines),
                hold_ns=hold_ns(cfg),
            )
        )
    if not made:
        raise ConfigError(
            f"workload must ask for some machine within the run, got none in {duration_s} s: raise study.duration_s or "
            "the rate of arrivals (workload.share of a trace, workload.arrivals_per_day), or lower "
            "workload.min_maxmem_mib"
        )
    left_out = {
        f"smaller than workload.min_maxmem_mib={cfg.min_maxmem_mib}": small,
        f"larger than the {pages_to_mib(usable_pages or 0)} MiB a host can give": large,
        "gone again before they could boot, or booting only after the end of the run (workload.boot_spread_s)": gone,
    }
    stood = f"{standing} machines that were there before boot within {cfg.boot_spread_s} s of its start"
    return Workload(
        requests=tuple(sorted(made, key=lambda request: (request.arrival_ns, request.domain_id))),
        notes=(USE_NOTE, *([stood] if standing else [])),
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def memory_of(life: Life, arrival_ns: int, end_ns: int, seed: int, replication: int, machines: int) -> Demand:
    """W(t) of a machine over its life, from streams of its own and, if it is of a pool, of the pool's [WL-3]."""
    path = ("workload", "replication", replication)
    last_ns = end_ns if life.departure_ns is None else min(life.departure_ns, end_ns)
    step_ns = synthetic.SAMPLE_S * NS_PER_S
    samples = -(-last_ns // step_ns) + 1
    pools = synthetic.pool_count(machines)
    machine = synthetic.machine_of(seed, (*path, "domain", life.domain_id), life.maxmem_mib, life.vcpus, pools)
    whole = synthetic.to_demand(synthetic.use_share(machine, samples, seed, path, life.domain_id), life.maxmem_mib)
    # What it would have wanted before it came is nobody's business, but a demand begins at 0 [WL-2].
    first = arrival_ns // step_ns
    if not first:
        return whole
    t_ns, pages = whole.t_ns[first:], whole.pages[first:]
    return Demand(np.concatenate(([0], t_ns)), np.concatenate((pages[:1], pages)))
