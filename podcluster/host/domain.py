"""A domain as its toolstack builds, changes and destroys it.

What        From the toolstack's numbers (`xl.py`, `xapi.py`) to the guest-physical map (`Layout`), to pages on a
            machine (`build`); later changes of target and limit (`set_target`, `set_max`), devices
            (`attach_device`) and the end (`destroy`). The page mechanism is a `Mechanism`; here is only what a
            toolstack asks of it.
Units       Pages of 4 KiB; `_kib` where the toolstack counts in KiB.
Symbols     M maxmem   T memory (the target)   V video RAM   E entry_count   C cache_count   D debt, E - C
            x extra_ram_pages
Invariants  [Z1]    D = M - T after the build of a populate-on-demand guest, whatever V and the VGA hole are
                    (with `pod_target_less_hole=False`: 32 pages less).
            [B2.6]  E = M - V - 32 after the build.
            [B2.10] tot_pages of a running guest = T - 32 + x: the device model's pages are counted and are no entries.
            A build that fails leaves nothing behind: the host's free pages are what they were.
Source      docs/model.md A4, A5, B1, B2, B4, D4, D5.8, E3-E5, E7, E10; the walk is that of libxl's `meminit_hvm`.
Departs     The device model maps its video RAM at the start of the MMIO hole (gfn 0xF0000) with the ROMs behind it, or
            above all RAM where it is too large for the hole; the builder's 8 frames lie where libxl puts them (gfn
            0xFEFF8). All of these are written at once, so they always hold data and no sweep takes one. Page-table
            memory is the pool, taken whole. The 2 MiB of slack in need_memory (B3.1) are counted, never taken. A
            builder that leaves the VGA hole in the target fills the cache with no more than is promised: only a
            controller grants so nearly all of maxmem, and [POD-4] would not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from podcluster.config import GuestConfig, HostConfig
from podcluster.host import build_2009, xapi
from podcluster.host.mechanism import Mechanism
from podcluster.host.written import DATA
from podcluster.host.xl import SLACK_KIB, VGA_HOLE_PAGES, Numbers, refusal
from podcluster.records.fates import Cause
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import GuestState
from podcluster.units import (
    PAGES_PER_GIB,
    PAGES_PER_MIB,
    SUPERPAGE_ORDER,
    SUPERPAGE_PAGES,
    kib_to_pages,
    pages_to_kib,
)

Run = tuple[int, int]
"""Adjacent pages: (first gfn, count)."""

VGA_HOLE: Final = 0xA0  # gfns 0xA0-0xBF are never populated (B2.5)
ABOVE_VGA: Final = VGA_HOLE + VGA_HOLE_PAGES
MMIO_HOLE: Final = 0xF0000  # 3840 MiB, where low RAM ends at the latest (B2.1)
ABOVE_4G: Final = 0x100000
SPECIAL_FRAMES: Final = 8  # store, console, ioreq and so on, the builder's own
SPECIAL_GFN: Final = 0xFEFF8
GIB_ORDER: Final = 18
SUPERPAGES_A_CALL: Final = 4  # the builder's 8 MiB

# What the operator reads (docs/model.md E3-E5).
CLAIM_REFUSED: Final = "Could not allocate memory for HVM guest as we cannot claim memory!"
TARGET_REFUSED: Final = (
    "p2m_pod_set_cache_target: Unable to allocate page for PoD cache (target={target} cache={cache}); "
    "Could not set PoD target for HVM guest."
)
LOW_MEMORY: Final = (
    "xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory; cannot (re-)build domain: -3"
)
POOL_SHORT: Final = "no memory for the paging pool: {pages} pages wanted, {free} free"
TABLES_SHORT: Final = (
    "no page left in the paging pool of {pool} pages for the guest's table; cannot (re-)build domain: -3"
)
DEVICE_MODEL_SHORT: Final = "no memory for the device model's video RAM and ROMs: {pages} pages wanted"


def numbers_of(request: MachineRequest, host: HostConfig, guest: GuestConfig) -> Numbers:
    """What this host's toolstack derives for this guest."""
    return xapi.numbers(request, host, guest) if host.toolstack == "xapi" else Numbers.of(request, host, guest)


def need_memory_pages(request: MachineRequest, host: HostConfig, guest: GuestConfig) -> int:
    """Host memory that the toolstack asks for before it starts this guest [pages]: need_memory (B3.1), or memory and
    overhead (D3.4).
    """
    return numbers_of(request, host, guest).need_pages


def reserve_pages(host: HostConfig) -> int:
    """Host memory that the toolstack keeps free, whoever asks [pages]: squeezed's reserve (D3.2)."""
    return xapi.RESERVE_MIB * PAGES_PER_MIB if host.toolstack == "xapi" else 0


@dataclass(frozen=True, slots=True)
class Layout:
    """The guest-physical map: RAM in ascending ranges, and what the device model and the builder add beside it."""

    ram: tuple[Run, ...]
    video: Run
    roms: Run
    special: Run
    ram_pages: int = field(init=False)
    """Pages that are RAM to the guest."""
    extra: tuple[Run, ...] = field(init=False)
    """Counted pages beside RAM that do exist, in the order they are populated: ROMs right behind video RAM."""
    extra_pages: int = field(init=False)
    """Pages in `extra`."""

    def __post_init__(self) -> None:
        (at, video), (_, roms) = self.video, self.roms
        extra = tuple(run for run in (self.special, (at, video + roms)) if run[1])
        # Once for all guests that are laid out alike; frozen as the rest.
        object.__setattr__(self, "ram_pages", sum(count for _, count in self.ram))
        object.__setattr__(self, "extra", extra)
        object.__setattr__(self, "extra_pages", sum(count for _, count in extra))

    @classmethod
    def of(cls, numbers: Numbers, extra_ram_pages: int) -> Layout:
        """Place M - V below the VGA hole, up to the MMIO hole, and from 4 GiB up (B2.1)."""
        return _layout(numbers.maxmem_pages - numbers.video_pages, numbers.video_pages, extra_ram_pages)


@lru_cache
def _layout(mem_pages: int, video: int, extra_ram_pages: int) -> Layout:
    """The layout of a guest with so much memory beside its video RAM."""
    low_end = min(mem_pages, MMIO_HOLE)
    ram = [(0, VGA_HOLE), (ABOVE_VGA, low_end - ABOVE_VGA)]
    if mem_pages > low_end:
        ram.append((ABOVE_4G, mem_pages - low_end))
    special = min(extra_ram_pages, SPECIAL_FRAMES)
    roms = extra_ram_pages - special
    at = MMIO_HOLE
    if at + video + roms > SPECIAL_GFN:
        top = ABOVE_4G + max(mem_pages - low_end, 0)
        at = -(-top // SUPERPAGE_PAGES) * SUPERPAGE_PAGES
    return Layout(tuple(ram), (at, video), (at + video, roms), (SPECIAL_GFN, special))


def without(ram: Iterable[Run], kept: Iterable[Run]) -> list[Run]:
    """RAM less runs that are kept, all ascending."""
    left = []
    for first, count in ram:
        end = first + count
        for begin, pages in kept:
            if first < begin + pages and begin < end:
                if first < begin:
                    left.append((first, begin - first))
                first = begin + pages
        if first < end:
            left.append((first, end - first))
    return left


def lowest_gap(taken: Iterable[Run], pages: int, align: int) -> int:
    """First gfn of the lowest room for so many pages between runs, or above all of them, at a multiple of `align`."""
    at = 0
    for first, count in sorted(taken):
        if at + pages <= first:
            break
        at = max(at, -(-(first + count) // align) * align)
    return at


@dataclass(frozen=True, slots=True)
class Extents:
    """`count` adjacent extents of one order."""

    first: int
    count: int
    order: int


@lru_cache
def extents(layout: Layout) -> tuple[Extents, ...]:
    """The builder's walk, low to high (B2.5), in as few steps as its fallback to smaller extents allows.

    Whole aligned GiBs are one extent each; otherwise superpages where gfn and remainder allow, single pages for the
    rest.
    """
    plan = [Extents(0, VGA_HOLE, 0)]
    for first, count in layout.ram[1:]:
        at, end = first, first + count
        while at < end:
            step = min(end, (at | PAGES_PER_GIB - 1) + 1) - at
            if step == PAGES_PER_GIB:
                order = GIB_ORDER
            elif at % SUPERPAGE_PAGES:
                order = 0
                step = min(step, -at % SUPERPAGE_PAGES)
            elif step >= SUPERPAGE_PAGES:
                order = SUPERPAGE_ORDER
                step -= step % SUPERPAGE_PAGES
            else:
                order = 0
            last = plan[-1]
            if (
                last.order == order == GIB_ORDER
            ):  # smaller ones stay apart: the builder's calls of four begin anew in each GiB
                plan[-1] = Extents(last.first, last.count + 1, order)
            else:
                plan.append(Extents(at, step >> order, order))
            at += step
    return tuple(plan)


@dataclass(slots=True)
class Domain:
    """A domain that exists: what the toolstack remembers of it. `domid` is Xen's number, of this host alone.

    What a driver is to balloon out it reads from static-max as it was at the build: both drivers read it once (C1.2).
    """

    domid: int
    numbers: Numbers
    layout: Layout
    pool: int  # handle of the paging pool and of what else lies beside it
    target_pages: int  # T as last set
    xenstore_target_kib: int
    static_max_kib: int  # memory/static-max as last set
    limit_pages: int  # Xen's quota as last set
    toolstack: str = "xl"

    @property
    def pages_to_balloon_out(self) -> int:
        """Linux: static-max - target, whatever the firmware hid (C1.2); below 0 what it is to have beyond all that it
        booted with (C1.9).
        """
        return kib_to_pages(self.numbers.static_max_kib - self.xenstore_target_kib)

    @property
    def pages_to_balloon_out_less_video(self) -> int:
        """Windows: (static-max - videoram) - min(target, that) (C2.1)."""
        without_video = kib_to_pages(self.numbers.static_max_kib) - self.numbers.video_pages
        return without_video - min(kib_to_pages(self.xenstore_target_kib), without_video)


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """The toolstack gave up, and everything is released: the cause, and what the operator reads."""

    cause: Cause
    text: str


def not_admitted(
    request: MachineRequest, available_pages: int, host: HostConfig, guest: GuestConfig
) -> BuildFailed | None:
    """What XAPI checks before a start: its settings (E15), and its need beside that of all others (D3.4, E13).

    xl has no such checks.
    """
    if host.toolstack != "xapi":
        return None
    text = xapi.refusal(xapi.settings_of(request, guest), host)
    if text:
        return BuildFailed("memory_constraint", text)
    text = xapi.short(need_memory_pages(request, host, guest), available_pages)
    return BuildFailed("host_memory", text) if text else None


def build(
    machine: Mechanism, domid: int, request: MachineRequest, host: HostConfig, guest: GuestConfig
) -> Domain | BuildFailed:
    """Build a domain as libxl does, in its order of events (B2.2, B2.10); no simulated time passes. XAPI begins only
    where target and overhead are free (D4.4).
    """
    numbers = numbers_of(request, host, guest)
    refused = refusal(numbers.pod, guest)
    if refused:
        return BuildFailed("refused", refused)
    short = xapi.short(numbers.need_pages, machine.free_pages) if host.toolstack == "xapi" else ""
    if short:
        return BuildFailed("host_memory", short)
    layout = Layout.of(numbers, host.extra_ram_pages)
    pool = _create(machine, domid, numbers, numbers.max_pages, host)
    if isinstance(pool, BuildFailed):
        return pool
    if host.era == "rfc2009" and numbers.pod:
        laid_out = build_2009.populate(machine, domid, layout.ram, numbers.target_pages)
        failure = None if laid_out else BuildFailed("no_memory", LOW_MEMORY)
    else:
        failure = _populate(machine, domid, numbers, layout, claim=host.claim_mode)
    if failure is None:
        failure = _device_model(machine, domid, layout)
    if failure is None and numbers.tables_may_run_short() and machine.table_pages(domid) > numbers.paging_pages:
        failure = BuildFailed("paging_pool", TABLES_SHORT.format(pool=numbers.paging_pages))
    if failure is not None:
        _undo(machine, domid)
        machine.release(pool)
        return failure
    machine.end_build(domid)
    return Domain(
        domid=domid,
        numbers=numbers,
        layout=layout,
        pool=pool,
        target_pages=numbers.memory_pages,
        xenstore_target_kib=numbers.xenstore_target_kib,
        static_max_kib=numbers.static_max_kib,
        limit_pages=numbers.max_pages,
        toolstack=host.toolstack,
    )


def _create(machine: Mechanism, domid: int, numbers: Numbers, max_pages: int, host: HostConfig) -> int | BuildFailed:
    """An empty domain, and the handle of what is set aside for its tables and video RAM; or neither."""
    machine.create(
        domid,
        maxmem_pages=numbers.maxmem_pages,
        max_pages=max_pages,
        paging=host.paging,
        p2m="pt" if host.paging == "shadow" else host.p2m,
        sp_1g=host.superpages_1g,
        sp_2m=host.superpages_2m,
    )
    pool = machine.set_aside(numbers.aside_pages)
    if pool < 0:
        text = POOL_SHORT.format(pages=numbers.aside_pages, free=machine.free_pages)
        _undo(machine, domid)
        return BuildFailed("paging_pool", text)
    return pool


def _undo(machine: Mechanism, domid: int) -> None:
    """A domain came to nothing."""
    machine.destroy(domid)
    machine.forget(domid)


def restore(
    machine: Mechanism, domid: int, state: GuestState, host: HostConfig, guest: GuestConfig
) -> Domain | BuildFailed:
    """Make a domain for one that comes from another host: the pages it has there and no others, as single pages, and
    nothing promised (A6.4). Until all of it is here its quota is what the receiver reserves (D4.7), then what it was.
    """
    numbers = numbers_of(state.request, host, guest)
    layout = Layout.of(numbers, host.extra_ram_pages)
    offset_pages = xapi.LIMIT_OFFSET_MIB * PAGES_PER_MIB
    reserved_pages = xapi.received(state.tot_pages, state.limit_pages, offset_pages)
    pool = _create(machine, domid, numbers, reserved_pages + offset_pages, host)
    if isinstance(pool, BuildFailed):
        return pool
    failure = None if _receive(machine, domid, layout, state) else BuildFailed("no_memory", LOW_MEMORY)
    failure = failure or _device_model(machine, domid, layout)
    if failure is not None:
        _undo(machine, domid)
        machine.release(pool)
        return failure
    machine.set_max_pages(domid, state.limit_pages)
    machine.end_build(domid)
    return Domain(
        domid=domid,
        numbers=numbers,
        layout=layout,
        pool=pool,
        target_pages=state.target_pages,
        xenstore_target_kib=state.xenstore_target_kib,
        static_max_kib=state.static_max_kib,
        limit_pages=state.limit_pages,
        toolstack=host.toolstack,
    )


def _receive(machine: Mechanism, domid: int, layout: Layout, state: GuestState) -> bool:
    """Memory for all RAM that is not in the balloon, what the guest has added included, and its contents."""
    for run in state.hotplugged:
        machine.extend(domid, *run)
    for first, count in without(sorted((*layout.ram, *state.hotplugged)), sorted(state.balloon)):
        if machine.populate_range(domid, first, count) != count:
            return False
    for first, count in state.data:
        machine.touch_range(domid, first, count, content=DATA)
    return True


def _populate(machine: Mechanism, domid: int, numbers: Numbers, layout: Layout, *, claim: bool) -> BuildFailed | None:
    """Claim, set the target, populate, cancel the claim (B2.2)."""
    if claim and machine.claim(domid, numbers.claim_pages) != 0:
        return BuildFailed("claim_failed", CLAIM_REFUSED)
    try:
        if not numbers.pod:
            return None if _populate_ram(machine, domid, layout) else BuildFailed("no_memory", LOW_MEMORY)
        # The cache is allocated here, in full: a PoD guest needs its whole target free before it has a single entry.
        if machine.set_pod_target(domid, numbers.pod_target_pages) != 0:
            short = machine.take_notes().get("nomem", {"target": numbers.pod_target_pages, "cache": 0})
            return BuildFailed("no_memory", TARGET_REFUSED.format(target=short["target"], cache=short["cache"]))
        machine.mark_pod_extents(domid, [(some.first, some.count, some.order) for some in extents(layout)])
        return None
    finally:
        machine.claim(domid, 0)


def _populate_ram(machine: Mechanism, domid: int, layout: Layout) -> bool:
    """Real memory everywhere; a larger extent that cannot be had is tried in smaller ones (B2.8)."""
    return all(_populate_extents(machine, domid, some) for some in extents(layout))


def _populate_extents(machine: Mechanism, domid: int, some: Extents) -> bool:
    first, left = some.first, some.count
    while left:
        done = machine.populate_seq(domid, first, left, some.order, 1)
        first, left = first + (done << some.order), left - done
        if not left:
            return True
        if some.order == 0:
            return False
        if some.order == GIB_ORDER:
            # The builder goes through this GiB in rounds of superpages, and tries the next GiB as one again.
            if not _populate_extents(machine, domid, Extents(first, SUPERPAGE_PAGES, SUPERPAGE_ORDER)):
                return False
            first, left = first + PAGES_PER_GIB, left - 1
        else:
            # What is left of this call of up to four goes in single pages; the next call tries superpages again.
            rest = min(left, SUPERPAGES_A_CALL - (some.count - left) % SUPERPAGES_A_CALL)
            if not _populate_extents(machine, domid, Extents(first, rest * SUPERPAGE_PAGES, 0)):
                return False
            first, left = first + rest * SUPERPAGE_PAGES, left - rest
    return True


def _device_model(machine: Mechanism, domid: int, layout: Layout) -> BuildFailed | None:
    """The builder's frames, then video RAM and ROMs: ordinary counted pages from the host's heap, written at once
    (B2.10).
    """
    for first, count in layout.extra:
        if machine.populate_range(domid, first, count) != count:
            return BuildFailed("no_memory", DEVICE_MODEL_SHORT.format(pages=layout.extra_pages))
    for first, count in layout.extra:
        machine.touch_range(domid, first, count, content=DATA)
    return None


def destroy(machine: Mechanism, domain: Domain) -> None:
    """Tear a domain down and release its paging pool (P14)."""
    machine.destroy(domain.domid)
    machine.forget(domain.domid)
    machine.release(domain.pool)


def set_target(machine: Mechanism, domain: Domain, target_pages: int) -> str:
    """Set a running domain's target as its toolstack does; the failure's text, or an empty one."""
    return (squeezed_set if domain.toolstack == "xapi" else mem_set)(machine, domain, target_pages)


def mem_set(machine: Mechanism, domain: Domain, target_pages: int) -> str:
    """`xl mem-set`: hard limit, PoD target, then xenstore (B4.1); the failure's text, or an empty one.

    On failure the new limit and a partly grown cache stay, and the guest is told nothing (B4.2, E7).
    """
    numbers = domain.numbers
    if not numbers.video_pages < target_pages <= kib_to_pages(domain.static_max_kib):
        return f"memory target {pages_to_kib(target_pages)} KiB is not between video RAM and static-max"
    slack_pages = kib_to_pages(SLACK_KIB)
    set_limit(machine, domain, target_pages + slack_pages)
    if machine.set_pod_target(domain.domid, target_pages - numbers.video_pages + slack_pages) != 0:
        machine.take_notes()
        return f"xc_domain_set_pod_target memkb={pages_to_kib(target_pages)} failed"
    domain.target_pages = target_pages
    domain.xenstore_target_kib = pages_to_kib(target_pages - numbers.video_pages)
    return ""


def squeezed_set(machine: Mechanism, domain: Domain, target_pages: int, memory_offset_pages: int = 0) -> str:
    """squeezed: limit = target + 1 MiB + memory_offset, and xenstore; raising sets the limit first, lowering the target
    (D5.8). The PoD target stays what it was at the build (D4.5).
    """
    numbers = domain.numbers
    if not numbers.video_pages < target_pages <= numbers.maxmem_pages:
        return f"memory target {pages_to_kib(target_pages)} KiB is not between video RAM and static-max"
    domain.target_pages = target_pages
    domain.xenstore_target_kib = pages_to_kib(target_pages - numbers.video_pages)
    set_limit(machine, domain, target_pages + kib_to_pages(SLACK_KIB) + memory_offset_pages)
    return ""


def set_limit(machine: Mechanism, domain: Domain, pages: int) -> None:
    """Set Xen's quota, even below what is owned (A5.1)."""
    machine.set_max_pages(domain.domid, pages)
    domain.limit_pages = pages


def attach_device(machine: Mechanism, domain: Domain) -> str:
    """Pass a device through to a running domain: refused while it has entries or cache (B4.6); why, or nothing."""
    entries = machine.entry_count(domain.domid)
    cached = entries - machine.debt_pages(domain.domid)
    if entries or cached:
        return f"device not assigned: {entries} populate-on-demand entries and {cached} pages of cache are left"
    return ""


def set_max(machine: Mechanism, domain: Domain, maxmem_pages: int) -> str:
    """Set a running domain's maxmem as its toolstack does; why it does not, or nothing."""
    # XAPI changes the static range of nobody who runs, whatever the size (D1.4).
    return xapi.NOT_HALTED if domain.toolstack == "xapi" else mem_max(machine, domain, maxmem_pages)


def mem_max(machine: Mechanism, domain: Domain, maxmem_pages: int) -> str:
    """`xl mem-max`: hard limit and static-max, nothing else: the guest is not told, PoD not touched (B4.4).

    Refused below the target in xenstore; may pass the maxmem that the guest was built with. The failure's text, or an
    empty one.
    """
    if pages_to_kib(maxmem_pages) < domain.xenstore_target_kib:
        return (
            f"memory_static_max must be greater than or equal to memory_target: "
            f"{pages_to_kib(maxmem_pages)} KiB is below the target of {domain.xenstore_target_kib} KiB"
        )
    set_limit(machine, domain, maxmem_pages + kib_to_pages(SLACK_KIB))
    domain.static_max_kib = pages_to_kib(maxmem_pages)
    return ""
