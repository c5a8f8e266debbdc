"""One guest, as in the RFC that introduced populate-on-demand: maxmem=512, memory=256, and little to do.

Units       MiB in the configuration, pages in the request.
Departs     Demand is flat at a fifth of what it is given, at most 64 MiB: this family is about the boot, and the
            guest's own kernel, services and page cache touch more than that.
"""

from __future__ import annotations

from typing import Final

from podcluster.config import WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.records.demand import Demand
from podcluster.records.machines import MachineRequest, Workload
from podcluster.units import PAGES_PER_MIB, mib_to_pages, pages_to_mib
from podcluster.workloads.classes import ClassOf
from podcluster.workloads.starting import hold_ns, memory_mib

DEMAND_SHARE_PERCENT: Final = 20
DEMAND_MIB_MAX: Final = 64


def requests(cfg: WorkloadConfig, guests: ClassOf, overcommit: float, *, usable_pages: int | None = None) -> Workload:
    """One machine of workload.maxmem_mib with workload.memory_mib (default maxmem/overcommit), booting at 0."""
    guest = guests(0)
    given_mib = cfg.maxmem_mib if cfg.maxmem_mib is not None else cfg.memory_mib
    if given_mib is None:
        raise ConfigError(
            "workload.maxmem_mib must be given for workload=one, got null: "
            "try workload.memory_mib=256 workload.maxmem_mib=512"
        )
    start_mib = cfg.memory_mib if cfg.memory_mib is not None else memory_mib(given_mib, guest, overcommit)
    maxmem_pages, memory_pages = mib_to_pages(given_mib), mib_to_pages(start_mib)
    if usable_pages is not None and maxmem_pages > usable_pages:
        raise ConfigError(
            f"workload.maxmem_mib must be at most the {pages_to_mib(usable_pages)} MiB that a host can give, got "
            f"{given_mib}: lower it or raise cluster.host_mem_gib"
        )
    demand = Demand.flat(min(memory_pages * DEMAND_SHARE_PERCENT // 100, DEMAND_MIB_MAX * PAGES_PER_MIB))
    request = MachineRequest(
        domain_id=0,
        attempt=1,
        name="one",
        os_class=guest.os_class,
        vcpus=guest.vcpus,
        maxmem_pages=maxmem_pages,
        memory_pages=memory_pages,
        arrival_ns=0,
        departure_ns=None,
        demand=demand,
        hold_ns=hold_ns(cfg),
    )
    return Workload(requests=(request,))
