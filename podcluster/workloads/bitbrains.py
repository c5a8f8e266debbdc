"""Machines of a trace: sizes and memory use as recorded, over one window of its time.

What        Picks the machines that can take part, cuts the window [start, start + duration) out of their use, and turns
            both into requests. `workload.resample` says what a replication draws: nothing (`none`), its machines with
            replacement (`machines`), or those and the day it starts (`machines_days`; one day for all machines, so that
            bursts they share stay shared).
Units       KiB and seconds in the table, pages and ns in the requests.
Symbols     W(t) demand   M maxmem   U a host's usable memory
Invariants  [WL-1] [WL-2] [WL-3]
Departs     A machine whose first sample lies more than one sample into the window arrives with that sample; one whose
            last sample lies before the window's end keeps its last demand (flat) and does not leave: a trace that stops
            is no proof that the machine did.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records.demand import Demand
from podcluster.records.machines import MachineRequest, MachineTable, Workload
from podcluster.records.values import Int64Array
from podcluster.rng import stream
from podcluster.units import KIB_PER_PAGE, NS_PER_S, PAGES_PER_MIB, mib_to_pages, pages_to_mib
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.starting import TOO_LATE, boot_ns, hold_ns, memory_mib, require_some

BoolArray: TypeAlias = NDArray[np.bool_]

KIB_PER_MIB: Final = 1024
DAY_S: Final = 86_400
SAMPLE_S: Final = 300  # nominal step; a day that lacks less than one sample counts as whole
GAP_S: Final = 900  # steps longer than this are reported as gaps


def requests(
    cfg: WorkloadConfig,
    guests: ClassOf,
    overcommit: float,
    table: MachineTable,
    seed: int,
    duration_s: int,
    *,
    usable_pages: int | None = None,
    replication: int = 0,
    replications: int = 1,
) -> Workload:
    """The machines of one replication of a trace, in order of arrival.

    Boots are spread over workload.boot_spread_s; demand keeps the trace's own time, so bursts of many machines stay
    together however their boots are spread.
    """
    span_s = table.end_s - table.epoch_s
    if cfg.start_s >= max(span_s, 1):
        raise ConfigError(
            f"workload.start_s must be below the {span_s} s that {table.source} lasts, got {cfg.start_s}: "
            "try workload.start_s=0"
        )
    allowed, left_out = _allowed(cfg, table, usable_pages)
    taking_part = np.flatnonzero(allowed)
    if not len(taking_part):
        raise ConfigError(
            f"workload.min_maxmem_mib and cluster.host_mem_gib must leave some machines of {table.source}, got none of "
            f"{len(table.machine_id)} with {cfg.min_maxmem_mib} MiB: lower the first or raise the second"
        )
    scheme = resolve_resample(cfg.resample, replications)
    start_s = cfg.start_s
    if scheme == "machines_days":
        days = whole_days(span_s - cfg.start_s, duration_s)
        start_s += DAY_S * int(stream(seed, "workload", "replication", replication, "day").integers(days))

    made: list[MachineRequest] = []
    no_samples = too_late = gaps = 0
    for k in range(len(taking_part)):
        if scheme == "none":
            machine = int(taking_part[k])
            domain_id = machine
            name = f"vm{int(table.machine_id[machine])}"
        else:
            domain_id = k
            machine = _draw(seed, replication, domain_id, allowed)
            name = f"vm{int(table.machine_id[machine])}#{k}"
        samples = slice(int(table.offsets[machine]), int(table.offsets[machine + 1]))
        cut = window(table.t_s[samples], table.used_kib[samples], start_s, duration_s)
        if cut is None:
            no_samples += 1
            continue
        demand, first_s, gaps_here = cut
        gaps += gaps_here
        arrival_ns = boot_ns(seed, replication, domain_id, cfg.boot_spread_s)
        if first_s > SAMPLE_S:
            arrival_ns = max(arrival_ns, first_s * NS_PER_S)
        if arrival_ns > duration_s * NS_PER_S:
            too_late += 1
            continue
        maxmem_mib = _maxmem_mib(int(table.maxmem_kib[machine]))
        guest = guests(domain_id)
        made.append(
            MachineRequest(
                domain_id=domain_id,
                attempt=1,
                name=name,
                os_class=guest.os_class,
                vcpus=max(1, int(table.vcpus[machine])),
                maxmem_pages=mib_to_pages(maxmem_mib),
                memory_pages=mib_to_pages(memory_mib(maxmem_mib, guest, overcommit)),
                arrival_ns=arrival_ns,
                departure_ns=None,
                demand=demand,
                hold_ns=hold_ns(cfg),
            )
        )
    if no_samples == len(taking_part):
        raise ConfigError(
            f"workload.start_s must lie where machines of {table.source} have samples, got {cfg.start_s} with none: "
            "try workload.start_s=0"
        )
    require_some(len(made), cfg, duration_s)
    if no_samples:
        left_out["without a sample before or in the window"] = no_samples
    if too_late:
        left_out[TOO_LATE] = too_late
    notes = list(table.notes)
    if gaps:
        notes.append(f"{gaps} gaps of more than {GAP_S} s in the window are filled with a straight line")
    if start_s + duration_s > span_s + SAMPLE_S:
        notes.append(
            f"the trace ends {start_s + duration_s - span_s} s before the window: each machine keeps its last demand"
        )
    if scheme != "none":
        notes.append(f"machines drawn with replacement (replication {replication}), trace time from {start_s} s")
    return Workload(
        requests=tuple(sorted(made, key=lambda request: (request.arrival_ns, request.domain_id))),
        notes=tuple(notes),
        left_out=left_out,
        resample=scheme,
        conditional_on=table.source if scheme == "none" else "",
    )


def resolve_resample(resample: str, replications: int) -> str:
    """What `auto` means: nothing is drawn for one replication, machines and days for more."""
    if resample != "auto":
        return resample
    return "none" if replications == 1 else "machines_days"


def whole_days(span_s: int, duration_s: int) -> int:
    """How many days a window of this length can start on (at least one), a day from the trace's start being day 0."""
    return max(1, (span_s + SAMPLE_S - duration_s) // DAY_S + 1)


def window(t_s: Int64Array, used_kib: Int64Array, start_s: int, duration_s: int) -> tuple[Demand, int, int] | None:
    """Cut [start, start + duration] out of one machine's samples.

    Returns its demand with time from 0, when its samples begin within the window [s; 0 if before it], and how many gaps
    longer than GAP_S lie in it; None when the machine has no sample up to the window's end, or none after its start and
    none within a gap of it.
    """
    end_s = start_s + duration_s
    if len(t_s) == 0 or t_s[0] >= end_s or t_s[-1] + GAP_S < start_s:
        return None
    first, last = int(np.searchsorted(t_s, start_s, side="right")), int(np.searchsorted(t_s, end_s, side="left"))
    inner = slice(first, last)
    # The ends of the window lie between samples: their values are on the line.
    line = Demand(t_s, used_kib)
    times_s = np.concatenate(([start_s], t_s[inner], [end_s])).astype(np.int64)
    use_kib = np.concatenate(([line.at(start_s)], used_kib[inner], [line.at(end_s)])).astype(np.int64)
    near = t_s[max(first - 1, 0) : last + 1]
    return (
        Demand((times_s - start_s) * NS_PER_S, use_kib // KIB_PER_PAGE),
        max(0, int(t_s[0]) - start_s),
        int(np.count_nonzero(np.diff(near) > GAP_S)),
    )


def _maxmem_mib(maxmem_kib: int) -> int:
    """A recorded size rounded up to MiB, as toolstacks take whole MiB and no guest may get less than it had."""
    return -(-maxmem_kib // KIB_PER_MIB)


def _allowed(cfg: WorkloadConfig, table: MachineTable, usable_pages: int | None) -> tuple[BoolArray, dict[str, int]]:
    """Which machines take part, and how many do not, by reason. The least size is judged as recorded."""
    small = table.maxmem_kib < cfg.min_maxmem_mib * KIB_PER_MIB
    # Against U in pages, after rounding up to MiB as the request will be: U need not be whole MiB.
    maxmem_pages = -(-table.maxmem_kib // KIB_PER_MIB) * PAGES_PER_MIB
    large = np.zeros_like(small) if usable_pages is None else ~small & (maxmem_pages > usable_pages)
    left_out: dict[str, int] = {}
    if small.any():
        left_out[f"smaller than workload.min_maxmem_mib={cfg.min_maxmem_mib}"] = int(np.count_nonzero(small))
    if usable_pages is not None and large.any():
        left_out[f"larger than the {pages_to_mib(usable_pages)} MiB a host can give"] = int(np.count_nonzero(large))
    return ~small & ~large, left_out


def _draw(seed: int, replication: int, domain_id: int, allowed: BoolArray) -> int:
    """One machine with replacement, from the domain's own stream.

    Drawn over all machines of the trace until one that takes part comes up: another least size then changes the draws
    of only those domains whose machine it leaves out.
    """
    draws = stream(seed, "workload", "replication", replication, "domain", domain_id, "machine")
    while True:
        machine = int(draws.integers(len(allowed)))
        if allowed[machine]:
            return machine
