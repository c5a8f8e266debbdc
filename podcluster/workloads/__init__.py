"""Where demand comes from: pure functions from tables and seeds to the machines of a run, one family a file.

What        `requests(...)` gives the machines one replication asks for. Nothing here reads a file (io.traces does) or
            knows a host, but for the size of the largest.
Invariants  [WL-1] min(guest.min_memory_mib, maxmem) <= memory <= maxmem <= U of a host
            [WL-2] 0 <= W(t) <= maxmem; first sample at 0
            [WL-3] a machine's draws come from streams named by replication and domain alone, so that a change of
            policy, overcommit or host count meets the same machines.
"""

from __future__ import annotations

from collections.abc import Mapping

from podcluster.config import GuestConfig, WorkloadConfig
from podcluster.errors import InvariantError
from podcluster.records.machines import LifeTable, MachineTable, Workload
from podcluster.workloads import alike, arrivals, bitbrains, churn, one, synthetic
from podcluster.workloads.classes import class_of

__all__ = ["requests"]


def requests(
    cfg: WorkloadConfig,
    guest: GuestConfig,
    overcommit: float,
    table: MachineTable | LifeTable | None,
    seed: int,
    duration_s: int,
    *,
    classes: Mapping[str, GuestConfig] | None = None,
    usable_pages: int | None = None,
    replication: int = 0,
    replications: int = 1,
) -> Workload:
    """The machines of one replication, in order of arrival.

    `classes`: what a `guest` with weights draws from, by os_class and in the order of its weights. `table` is what
    `io.traces.read_machines` returned (None for families that need no data); `usable_pages` is U of a host, above which
    no machine takes part (None: no such limit); `replications` is how many the study runs, by which
    `workload.resample=auto` decides.
    """
    guests = class_of(guest, classes or {}, seed, replication)
    if cfg.family == "one":
        return one.requests(cfg, guests, overcommit, usable_pages=usable_pages)
    if cfg.family == "alike":
        return alike.requests(
            cfg, guests, overcommit, seed, duration_s, usable_pages=usable_pages, replication=replication
        )
    if cfg.family == "synthetic":
        return synthetic.requests(
            cfg, guests, overcommit, seed, duration_s, usable_pages=usable_pages, replication=replication
        )
    if cfg.family == "churn":
        return churn.requests(
            cfg, guests, overcommit, seed, duration_s, usable_pages=usable_pages, replication=replication
        )
    if cfg.family == "bitbrains" and isinstance(table, MachineTable):
        return bitbrains.requests(
            cfg,
            guests,
            overcommit,
            table,
            seed,
            duration_s,
            usable_pages=usable_pages,
            replication=replication,
            replications=replications,
        )
    if cfg.family in ("azure_v1", "alibaba_pods") and isinstance(table, LifeTable):
        return arrivals.requests(
            cfg,
            guests,
            overcommit,
            table,
            seed,
            duration_s,
            usable_pages=usable_pages,
            replication=replication,
            replications=replications,
        )
    raise InvariantError(
        f"[WL-0] workload={cfg.family} is given its table violated: read it with io.traces.read_machines first"
    )
