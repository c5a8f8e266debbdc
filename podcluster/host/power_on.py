"""A domain that is built gets its guest: its kernel, its memory, its driver, and what visits it from outside.

What        `power_on`, from a domain to a resident that boots; `resume`, to one that comes from another host.
Units       Pages of 4 KiB; ns of simulated time.
Draws       Streams "domain", domain_id, attempt: "boot", "pending", "allocator", "visits"; a fault is the machine's
            own and the same at each attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from podcluster.config import GuestConfig, HostConfig
from podcluster.host.domain import Domain
from podcluster.host.drivers import make_balloon, reserve_of
from podcluster.host.fault import Fault
from podcluster.host.guest import Guest
from podcluster.host.guest_boot import Boot
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.lock import Lock
from podcluster.host.mechanism import Mechanism
from podcluster.host.own import Visits
from podcluster.host.resident import Resident
from podcluster.host.xapi import settings_of
from podcluster.records.fates import EventKind
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import GuestState
from podcluster.rng import key, stream

RECLAIM_FOR_DEBT: Final = ("today", "xen2012")  # eras in which nothing is reclaimed of a guest that owes nothing


def power_on(
    machine: Mechanism,
    host: HostConfig,
    cfg: GuestConfig,
    request: MachineRequest,
    built: Domain,
    seed: int,
    at_ns: int,
    *,
    ahead: bool,
    on_event: Callable[[int, EventKind, str], None],
) -> Resident:
    """Let a domain start to boot; `ahead`: nothing minds what its guest does before its next act of the heap."""
    boot = Boot.draw(cfg, seed, request.domain_id, request.attempt)
    return _assemble(machine, host, cfg, request, built, boot, seed, at_ns, ahead=ahead, on_event=on_event)


def resume(
    machine: Mechanism,
    host: HostConfig,
    cfg: GuestConfig,
    request: MachineRequest,
    built: Domain,
    state: GuestState,
    seed: int,
    at_ns: int,
    *,
    ahead: bool,
    on_event: Callable[[int, EventKind, str], None],
) -> Resident:
    """Let a guest that comes from another host go on; its driver looks at the target it finds here."""
    boot = Boot(*state.boot)
    resident = _assemble(machine, host, cfg, request, built, boot, seed, at_ns, ahead=ahead, on_event=on_event)
    resident.guest.resume(state, at_ns)
    if resident.balloon is not None:
        resident.balloon.resume(at_ns, faulty=state.driver_faulty)
    return resident


def _assemble(
    machine: Mechanism,
    host: HostConfig,
    cfg: GuestConfig,
    request: MachineRequest,
    built: Domain,
    boot: Boot,
    seed: int,
    at_ns: int,
    *,
    ahead: bool,
    on_event: Callable[[int, EventKind, str], None],
) -> Resident:
    """A guest with all its parts, about to start its firmware."""
    domid, domain_id, attempt = built.domid, request.domain_id, request.attempt
    known_pattern = host.scrubbed_pod and cfg.scrubber == "pattern"
    if known_pattern:
        machine.set_scrub_pattern(domid, True)
    arrivals = key(seed, "domain", domain_id, attempt, "pending")
    machine.set_pending_work(domid, arrivals, host.softirq_per_s, cfg.irq_per_s)
    order = stream(seed, "domain", domain_id, attempt, "allocator") if cfg.alloc_order == "random" else None
    memory = GuestMemory(
        machine,
        domid,
        built.layout,
        image_pages=boot.kernel_pages,
        descriptor_pages=-(-request.maxmem_pages // cfg.descriptor_share),
        block_pages=cfg.alloc_block_pages,
        rng=order,
        # On a host that does not scrub, frames carry their contents to the next owner: what is written matters.
        may_skip=host.scrub_on_free,
        zero_on_free=cfg.zero_on_free,
        lock=_lock(machine, host, cfg, domid),
        descriptor_share=cfg.descriptor_share,
        numbers=built.numbers,
    )
    memory.pattern_is_zero = known_pattern
    fault = Fault.draw(cfg.fault, seed, domain_id)
    guest = Guest(
        memory,
        boot,
        cfg,
        request.demand,
        hold_ns=request.hold_ns,
        start_ns=at_ns,
        vcpus=request.vcpus,
        on_event=on_event,
        fault=fault,
        spare_pages=reserve_of(cfg, memory.ram_pages) if cfg.balloon.driver == "windows" else 0,
        ahead=ahead,
    )
    if host.dom0_touch_per_s:
        rng = stream(seed, "domain", domain_id, attempt, "visits")
        guest.add_stream(Visits(memory, rng, host.dom0_touch_per_s, at_ns, guest.die_by_other))
    balloon = make_balloon(cfg, built, guest, fault)
    return Resident(request, built, memory, guest, balloon, cfg.balloon.driver == "linux", settings_of(request, cfg))


def _lock(machine: Mechanism, host: HostConfig, cfg: GuestConfig, domid: int) -> Lock:
    """What holds a guest up, if anything does."""
    timed = host.costs.any or cfg.irq_per_s > 0
    served_page_ns = host.costs.served_page_ns if host.era in RECLAIM_FOR_DEBT else None
    return Lock(machine if timed else None, domid, served_page_ns=served_page_ns)
