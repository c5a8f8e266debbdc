"""Whether a run fits in memory, and how much of it the hosts may take that are not packed.

What        `estimate_memory`, from what the machines promise; `budget`, what follows from it and from the memory there
            is. Hosts beyond it are packed between their turns (`pool.py`), which makes a run slower and never other.
Units       Bytes.
Departs     The estimates steer; no result depends on them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from podcluster.cluster.plan import Plan
from podcluster.config import EngineConfig
from podcluster.errors import ConfigError
from podcluster.records.machines import MachineRequest, Workload
from podcluster.units import PAGES_PER_GIB

# A simulated GiB costs at least its superpages (64 KiB) and, with every one of them split, at most 2 MiB.
LEAST_BYTES_PER_GIB: Final = 64 * 1024
MOST_BYTES_PER_GIB: Final = 2 * 1024**2
# Measured (`podcluster bench density`): a host without guests, what is no page of a guest, and what is left of packed
# ones.
HOST_BYTES: Final = 1024**2
GUEST_BYTES: Final = 128 * 1024
BLOCK_BYTES: Final = 200  # of a guest that takes memory in blocks in random order, for each of them
PACKED_HOST_BYTES: Final = 8 * 1024
PACKED_GUEST_BYTES: Final = 8 * 1024
PACKED_BLOCK_BYTES: Final = 6
PACKED_BYTES_PER_GIB: Final = 2 * 1024
DRIVER_BYTES: Final = 256 * 1024**2  # this process with its kernels
REQUEST_BYTES: Final = 1024  # what the driver knows of a machine, beside its demand: some 600 are the request itself
ROW_BYTES: Final = 2048  # and of how it ended: some 800 are the row itself, as many go to summing up all at the end
ACTOR_BYTES: Final = 110 * 1024**2
RAY_BYTES: Final = 500 * 1024**2
MIB: Final = 1024**2
GIB: Final = 1024**3


class Estimate(NamedTuple):
    """Memory that a run takes beside the programs themselves: with superpages intact, with all of them split, with all
    hosts packed, and one host of each shard in flight. And what the driver keeps of machines: what is asked for, which
    is there when the estimate is made, and rows.
    """

    programs: int
    least: int
    most: int
    packed: int
    in_flight: int
    workload: int
    rows: int


class Budget(NamedTuple):
    """`room_bytes`: for the hosts of one shard that are not packed, None: for all of them; and that in words."""

    room_bytes: int | None
    note: str


def estimate_memory(plan: Plan, workload: Workload, actors: int) -> Estimate:
    """Estimate from what the machines that are there at once promise, and no more than the hosts have room for."""
    requests, hosts = workload.requests, len(plan.specs)
    usable = [spec.usable_pages for spec in plan.specs]
    guests = gib = blocks = 0.0
    if requests:
        ratio = max(request.maxmem_pages / request.memory_pages for request in requests)
        smallest = min(request.memory_pages for request in requests)
        guests = min(_peak(requests, [1] * len(requests)), sum(usable) / smallest)
        promised = _peak(requests, [request.maxmem_pages for request in requests])
        gib = min(promised, sum(usable) * ratio) / PAGES_PER_GIB
        blocks = _peak(requests, [_blocks(request, plan) for request in requests]) * gib * PAGES_PER_GIB / promised
    objects = hosts * HOST_BYTES + int(guests * GUEST_BYTES + blocks * BLOCK_BYTES)
    most = objects + int(gib * MOST_BYTES_PER_GIB)
    return Estimate(
        programs=RAY_BYTES + ACTOR_BYTES * actors if actors else 0,
        least=objects + int(gib * LEAST_BYTES_PER_GIB),
        most=most,
        packed=hosts * PACKED_HOST_BYTES
        + int(guests * PACKED_GUEST_BYTES + blocks * PACKED_BLOCK_BYTES + gib * PACKED_BYTES_PER_GIB),
        in_flight=max(actors, 1) * most * max(usable) // sum(usable),
        workload=len(requests) * REQUEST_BYTES + _demand_bytes(requests),
        rows=len(requests) * ROW_BYTES,
    )


def _blocks(request: MachineRequest, plan: Plan) -> int:
    """Blocks in which a guest takes its memory in random order; 0 where it takes it in order."""
    guest = plan.hosts.guests[request.os_class]
    return request.maxmem_pages // guest.alloc_block_pages if guest.alloc_order == "random" else 0


def _demand_bytes(requests: Sequence[MachineRequest]) -> int:
    """What their demands take; machines of a trace share their instants."""
    arrays = {id(array): array for request in requests for array in (request.demand.t_ns, request.demand.pages)}
    return sum(array.nbytes for array in arrays.values())


def _peak(requests: Sequence[MachineRequest], weights: Sequence[int]) -> int:
    """The largest sum of the weights of those that are there at once."""
    instants = [(request.arrival_ns, weight) for request, weight in zip(requests, weights, strict=True)]
    instants += [
        (request.departure_ns, -weight)
        for request, weight in zip(requests, weights, strict=True)
        if request.departure_ns is not None
    ]
    return max(accumulate(weight for _, weight in sorted(instants)))


def available_bytes() -> int | None:
    """Memory this process may still take, None where the system does not say."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        limits.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(limits) if limits else None


def budget(engine: EngineConfig, estimate: Estimate, actors: int, available: int | None = None) -> Budget:
    """What hosts may take, by `engine.memory_mib` or by what is free; a ConfigError where not even packed ones fit.

    `available` None: what the system says is free. Actors on other machines are no business of this one's memory: there
    only what is given counts, as that of all of them.
    """
    given = engine.memory_bytes
    if given is None and actors and engine.address != "local":
        return Budget(None, "memory: that of the Ray cluster is taken to be enough; engine.memory_mib says otherwise")
    there = given if given is not None else (available_bytes() if available is None else available)
    if there is None:
        return Budget(None, "memory: this system does not say how much is free")
    # What is free is so beside this program and what it has been asked for.
    driver = estimate.rows + (DRIVER_BYTES + estimate.workload if given is not None else 0)
    programs = estimate.programs + driver
    needs = f"{_needed(programs + estimate.least)} to {_needed(programs + estimate.most)}"
    has = f"{_size(there)} {'free' if given is None else 'given'}"
    if programs + estimate.most <= there:
        return Budget(None, f"memory: {needs}, which {'is free' if given is None else 'was given'}")
    smallest = programs + estimate.packed + min(estimate.in_flight, estimate.least)
    if smallest > there:
        enough = f"raise engine.memory_mib to {-(-smallest // MIB)} or more"
        remedy = enough if given is not None else "take fewer engine.actors or fewer machines"
        raise ConfigError(
            f"the run must fit in memory, got {_needed(smallest)} with all hosts packed and {has}: {remedy}"
        )
    room = max(0, there - programs - estimate.packed - estimate.in_flight) // max(actors, 1)
    each = " in each actor" if actors > 1 else ""
    note = f"memory: {needs} of {has}; hosts beyond {_size(room)}{each} are packed between their turns"
    return Budget(room, note)


def _size(count: int) -> str:
    """What there is, rounded down."""
    return f"{10 * count // GIB / 10:.1f} GiB" if count >= GIB else f"{count // MIB} MiB"


def _needed(count: int) -> str:
    """What is needed, rounded up: so much is enough."""
    return f"{-(-10 * count // GIB) / 10:.1f} GiB" if count >= GIB else f"{-(-count // MIB)} MiB"
