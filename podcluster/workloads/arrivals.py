"""Machines of a trace that says when each comes and goes: azure_v1 and alibaba_pods.

What        Cuts the window [start, start + duration) out of the trace, takes `workload.share` of its requests, and
            turns what is left into lives. A request is all the machines that arrive together for one tenant: they are
            kept or left out together, so that storms stay storms.
Units       Seconds and KiB in the table; MiB and ns in a life.
Invariants  [WL-3] [WL-4]; with a smaller share there are fewer of the same machines.
Departs     Machines of one request arrive at one instant, within workload.boot_spread_s after that in the trace, which
            knows it to a reading. Lifetimes are uniform within what the trace knows. Machines that live when the
            window begins boot within workload.boot_spread_s: give them a study.warmup_s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records.machines import LifeTable, Workload
from podcluster.records.values import Int64Array
from podcluster.rng import key, stream
from podcluster.units import NS_PER_S
from podcluster.workloads.bitbrains import DAY_S, resolve_resample, whole_days
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.lives import Life, requests_of

KIB_PER_MIB: Final = 1024
KEY_RANGE: Final = 1 << 64


def requests(
    cfg: WorkloadConfig,
    guests: ClassOf,
    overcommit: float,
    table: LifeTable,
    seed: int,
    duration_s: int,
    *,
    usable_pages: int | None = None,
    replication: int = 0,
    replications: int = 1,
) -> Workload:
    """The machines of one replication of a trace, in order of arrival."""
    span_s = table.end_s - table.epoch_s
    if cfg.start_s >= span_s:
        raise ConfigError(
            f"workload.start_s must be below the {span_s} s that {table.source} lasts, got {cfg.start_s}: "
            "try workload.start_s=0"
        )
    scheme = resolve_resample(cfg.resample, replications)
    start_s, drawn = cfg.start_s, 0 if scheme == "none" else replication
    if scheme == "machines_days":
        days = whole_days(span_s - cfg.start_s, duration_s)
        start_s += DAY_S * int(stream(seed, "workload", "replication", replication, "day").integers(days))
    kept = in_window(table, start_s, duration_s)
    kept = kept[_taken(table.batch[kept], cfg.share, seed, drawn)]
    made = requests_of(
        _lives(table, kept, start_s, cfg, seed, replication),
        cfg,
        guests,
        overcommit,
        seed,
        duration_s,
        usable_pages=usable_pages,
        replication=replication,
        machines=alive_about(table, kept, start_s, duration_s),
    )
    notes = [*table.notes, *made.notes, f"trace time from {start_s} s; {cfg.share:g} of its requests, by tenant"]
    if start_s + duration_s > span_s:
        notes.append(f"the trace ends {start_s + duration_s - span_s} s before the run: nothing arrives after that")
    return replace(made, notes=tuple(notes), resample=scheme, conditional_on=table.source if scheme == "none" else "")


def in_window(table: LifeTable, start_s: int, duration_s: int) -> Int64Array:
    """Machines that may live within the window: it is known later whether those of before still do."""
    arrives = table.arrival_s - start_s
    stays = ~table.leaves | (arrives + table.most_life_s > 0)
    found: Int64Array = np.flatnonzero((arrives < duration_s) & stays)
    return found


def alive_about(table: LifeTable, machines: Int64Array, start_s: int, duration_s: int) -> int:
    """About how many of these are there at a time."""
    first = table.arrival_s[machines] - start_s
    middle = (table.least_life_s[machines] + table.most_life_s[machines]) // 2
    last = np.where(table.leaves[machines], np.minimum(first + middle, duration_s), duration_s)
    return int(np.maximum(last - np.maximum(first, 0), 0).sum() // max(1, duration_s))


def _taken(batches: Int64Array, share: float, seed: int, replication: int) -> Int64Array:
    """Which of these machines belong to the share of requests that is taken."""
    if share >= 1:
        return np.arange(len(batches))
    names, inverse = np.unique(batches, return_inverse=True)
    path = ("workload", "replication", replication, "batch")
    below = int(share * KEY_RANGE)
    kept = np.array([key(seed, *path, name, "taken") < below for name in names.tolist()], dtype=bool)
    found: Int64Array = np.flatnonzero(kept[inverse])
    return found


def _lives(
    table: LifeTable, machines: Int64Array, start_s: int, cfg: WorkloadConfig, seed: int, replication: int
) -> Iterator[Life]:
    """Each machine with its arrival and its departure in the run's time; those that had left before it are not."""
    path = ("workload", "replication", replication)
    for machine in machines.tolist():
        batch = int(table.batch[machine])
        place = stream(seed, *path, "batch", batch, "boot").random()
        arrival_ns = (int(table.arrival_s[machine]) - start_s) * NS_PER_S
        if arrival_ns >= 0:
            arrival_ns += int(place * cfg.boot_spread_s * NS_PER_S)
        departure_ns: int | None = None
        if table.leaves[machine]:
            least_ns = int(table.least_life_s[machine]) * NS_PER_S
            spread_ns = int(table.most_life_s[machine]) * NS_PER_S - least_ns
            share = stream(seed, *path, "domain", machine, "life").random()
            departure_ns = arrival_ns + least_ns + int(share * spread_ns)
            if departure_ns <= 0:
                continue
        maxmem_mib = -(-int(table.maxmem_kib[machine]) // KIB_PER_MIB)
        name = f"vm{int(table.machine_id[machine])}"
        yield Life(machine, name, maxmem_mib, max(1, int(table.vcpus[machine])), arrival_ns, departure_ns)
