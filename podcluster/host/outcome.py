"""What came of a boot attempt: its row.

What        `outcome`, from a domain and its guest at the end of the attempt.
Units       Pages of 4 KiB; ns of simulated time.
"""

from __future__ import annotations

from podcluster.host.guest_memory import GuestMemory
from podcluster.host.held import NO_SWAP
from podcluster.host.mechanism import Mechanism
from podcluster.host.resident import Resident
from podcluster.records.fates import Fate
from podcluster.records.machines import MachineRequest
from podcluster.records.rows import DomainRow


def outcome(
    machine: Mechanism,
    host_id: int,
    request: MachineRequest,
    resident: Resident | None,
    start_ns: int | None,
    end_ns: int,
    fate: Fate,
    cause: str,
) -> DomainRow:
    """The row of a boot attempt; without a resident, of one that was never built."""
    memory = resident.memory if resident else None
    guest = resident.guest if resident else None
    balloon = resident.balloon if resident else None
    counters = machine.counters(resident.domain.domid) if resident else None
    swap = guest.held.totals(end_ns) if guest else NO_SWAP
    lived_ns = end_ns - start_ns if start_ns is not None else 0
    oom_line = machine.oom_line(memory.oom) if memory and memory.oom else ""
    return DomainRow(
        domain_id=request.domain_id,
        attempt=request.attempt,
        origin=request.origin,
        name=request.name,
        host_id=host_id,
        os_class=request.os_class,
        vcpus=request.vcpus,
        maxmem_pages=request.maxmem_pages,
        memory_pages=request.memory_pages,
        start_pages=resident.domain.numbers.memory_pages if resident else 0,
        arrival_ns=request.arrival_ns,
        boot_start_ns=start_ns,
        boot_done_ns=guest.boot_done_ns if guest else None,
        boot_delay_ns=guest.boot_delay_ns if guest and guest.boot_done_ns is not None else None,
        end_ns=end_ns,
        fate=fate,
        cause=cause,
        oom_line=oom_line,
        tot_pages=counters.tot_pages if counters else 0,
        entry_count=counters.entry_count if counters else 0,
        cache_count=counters.cache_count if counters else 0,
        nonzero_pages_peak=memory.nonzero_peak if memory else 0,
        margin_pages=memory.margin if memory else 0,
        working_pages_peak=guest.wanted_peak(end_ns) if guest else 0,
        ballooned_pages=memory.ballooned_pages if memory else 0,
        balloon_gave_up=balloon.gave_up if balloon else 0,
        moved_pages=resident.moved_pages if resident else 0,
        populated_4k=counters.populated_4k if counters else 0,
        populated_2m=counters.populated_2m if counters else 0,
        reclaimed_4k=counters.reclaimed_4k if counters else 0,
        reclaimed_2m=counters.reclaimed_2m if counters else 0,
        splintered_2m=counters.splintered_2m if counters else 0,
        sweeps=counters.sweeps if counters else 0,
        sweep_looks=counters.sweep_looks if counters else 0,
        hypervisor_ns=memory.lock.held_ns if memory else 0,
        debt_ns=_debt_ns(memory, lived_ns, end_ns) if memory else 0,
        swap_ns=swap.ns,
        swap_in_pages=swap.in_pages,
        swap_out_pages=swap.out_pages,
        swapped_pages_peak=guest.held.swapped_peak if guest else 0,
        oom_kills=guest.held.kills if guest else 0,
        slowdown=lived_ns / (lived_ns - swap.ns) if swap.ns < lived_ns else 1.0,
    )


def _debt_ns(memory: GuestMemory, lived_ns: int, end_ns: int) -> int:
    """How long a guest that lived for `lived_ns` could ask for more than its cache had, from its build on [ns]."""
    paid_ns = end_ns if memory.debt_paid_ns is None else min(memory.debt_paid_ns, end_ns)
    return max(0, lived_ns - (end_ns - paid_ns))
