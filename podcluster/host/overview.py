"""A host and its domains as they stand, gathered for its operator.

What        `overview`, a `HostLook` of now.
Units       Pages of 4 KiB; ns of simulated time.
Departs     No claim outlives its build, and builds take no time: no look shows one.
"""

from __future__ import annotations

from collections.abc import Sequence

from podcluster.host.mechanism import Mechanism
from podcluster.host.operator import DomainLook, HostLook
from podcluster.host.resident import Resident
from podcluster.records.hosts import HostSpec
from podcluster.units import kib_to_pages


def overview(machine: Mechanism, spec: HostSpec, standing: Sequence[Resident], dom0_pages: int, at_ns: int) -> HostLook:
    """What its operator sees of a host on which these domains stand."""
    return HostLook(
        host_id=spec.host_id,
        at_ns=at_ns,
        ram_pages=spec.ram_pages,
        free_pages=machine.free_pages,
        claim_pages=0,
        dom0_pages=dom0_pages,
        domains=tuple(_domain(machine, one) for one in sorted(standing, key=lambda one: one.domain.domid)),
    )


def _domain(machine: Mechanism, resident: Resident) -> DomainLook:
    domain = resident.domain
    entry_count = machine.entry_count(domain.domid)
    return DomainLook(
        domid=domain.domid,
        name=resident.request.name,
        vcpus=resident.request.vcpus,
        crashed=resident.guest.end is not None,
        tot_pages=machine.tot_pages(domain.domid),
        claim_pages=0,
        max_pages=domain.limit_pages,
        entry_count=entry_count,
        cache_count=entry_count - machine.debt_pages(domain.domid),
        target_pages=domain.target_pages,
        static_max_pages=kib_to_pages(domain.static_max_kib),
    )
