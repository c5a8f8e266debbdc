"""Machines that are all alike, for studies of what boots do: `one`, many times over, with draws of their own.

Units       MiB in the configuration, pages in the requests.
Symbols     R overcommit
Departs     Where workload.maxmem_mib is not given, it follows from the memory: floor(memory * R). What an operator pays
            for then stays the same over R, and what he promises grows.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from podcluster.config import WorkloadConfig
from podcluster.records.machines import Workload
from podcluster.units import NS_PER_S
from podcluster.workloads import one
from podcluster.workloads.classes import ClassOf, always
from podcluster.workloads.starting import TOO_LATE, boot_ns, require_some


def requests(
    cfg: WorkloadConfig,
    guests: ClassOf,
    overcommit: float,
    seed: int,
    duration_s: int,
    *,
    usable_pages: int | None = None,
    replication: int = 0,
) -> Workload:
    """workload.machines machines of one size, their boots spread over workload.boot_spread_s."""
    if cfg.maxmem_mib is None and cfg.memory_mib is not None:
        # As the decimal number the user wrote: 1000 * 1.1 is 1100.
        cfg = replace(cfg, maxmem_mib=int(cfg.memory_mib * Fraction(str(overcommit))))
    made = []
    for domain_id in range(cfg.machines):
        at_ns = boot_ns(seed, replication, domain_id, cfg.boot_spread_s)
        if at_ns >= duration_s * NS_PER_S:
            continue
        (first,) = one.requests(cfg, always(guests(domain_id)), overcommit, usable_pages=usable_pages).requests
        made.append(replace(first, domain_id=domain_id, name=f"alike{domain_id}", arrival_ns=at_ns))
    require_some(len(made), cfg, duration_s)
    late = cfg.machines - len(made)
    return Workload(
        requests=tuple(sorted(made, key=lambda request: (request.arrival_ns, request.domain_id))),
        left_out={TOO_LATE: late} if late else {},
    )
