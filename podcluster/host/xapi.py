"""What XAPI and xenopsd compute: memory settings, overheads, host capacity, admission, starts and migrations.

What        Pure functions on numbers, as XenServer and XCP-ng have them: `violation` (validation), `pinned`,
            `overhead_mib`, `short` (admission), `initial_target`, `Numbers` of a domain that xenopsd builds
            (`numbers`), `sent` and `received` (migration). squeezed, which moves targets, is a controller.
Units       MiB where XAPI counts in MiB (`_mib`), pages of 4 KiB where the name says so (`_pages`); functions without a
            unit in their name take any one unit throughout. `numbers` counts in pages.
Symbols     S static_max   v VCPUs_max   m shadow multiplier   dmin, dmax the dynamic range
Rules       docs/model.md D1-D4, E13, E15.
Departs     The XenServer domain builder is not public: it is taken to be libxl's walk with the two sizes that it is
            given (D4.5). memory/target is the target less the video RAM, as the Windows driver reads it (C2.1): whether
            XAPI takes it off is not known to us.
            A machine is created when it is started, with the settings that it is started with: nothing is clamped
            (D1.3), and what static_min forbids is refused. What a host keeps is known beforehand, so that its free
            memory is not sampled at its boot (D3.1). Frames are scrubbed as they are freed, so that before a build
            there is nothing to wait for: it begins, or is given up at once (D4.4). No domain moves within its host
            (D4.7).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from podcluster.config import GuestConfig, HostConfig
from podcluster.host.xl import VGA_HOLE_PAGES, Numbers, video_pages_of
from podcluster.records.machines import MachineRequest
from podcluster.units import PAGES_PER_MIB, pages_to_kib, pages_to_mib

Kind = Literal["hvm", "pvh", "pv_in_pvh", "pv"]

RESERVE_MIB: Final = 64 + 8  # squeezed's: Xen's low-memory interrupt, and its own slack (D3.2)
LIMIT_OFFSET_MIB: Final = 1  # of Xen's limit over the target, HVM (D2.3)

# What the operator reads (docs/model.md E13, E15).
ORDER: Final = "MEMORY_CONSTRAINT_VIOLATION_ORDER: static_min <= dynamic_min <= dynamic_max <= static_max, got {}"
MAXPIN: Final = "MEMORY_CONSTRAINT_VIOLATION_MAXPIN: dynamic_min = dynamic_max = static_max, got {} ({})"
NOT_ENOUGH: Final = "HOST_NOT_ENOUGH_FREE_MEMORY: {} MiB needed, {} available"
NOT_HALTED: Final = "VM_BAD_POWER_STATE: static_max may be changed while halted, got running"  # D1.4


# -- settings (D1) -----------------------------------------------------------------------------------------------------


class Constraints(NamedTuple):
    """A VM's memory settings, in any one unit."""

    static_min: int
    dynamic_min: int
    dynamic_max: int
    static_max: int

    @property
    def text(self) -> str:
        """As a message shows them."""
        return " ".join(f"{name}={value}" for name, value in self._asdict().items())


def violation(settings: Constraints, *, pinned_because: str = "") -> str:
    """Why XAPI refuses these settings, in its words, or nothing (D1.1, D1.2).

    `pinned_because`: why this VM must not have dynamic memory (feature off, control domain, nested virtualisation).
    """
    if not settings.static_min <= settings.dynamic_min <= settings.dynamic_max <= settings.static_max:
        return ORDER.format(settings.text)
    if pinned_because and not settings.dynamic_min == settings.dynamic_max == settings.static_max:
        return MAXPIN.format(settings.text, pinned_because)
    return ""


def pinned(settings: Constraints, size: int) -> Constraints:
    """The same with dynamic range [size, size]: what becomes of them where an operator sets a target."""
    return settings._replace(dynamic_min=size, dynamic_max=size)


# -- overhead (D2) -----------------------------------------------------------------------------------------------------


def shadow_mib(static_max_mib: int, vcpus: int, multiplier: float = 1.0) -> int:
    """The paging pool: 2 pages a MiB of S, even with HAP (D2.1)."""
    return max(1, int(-(-(256 * vcpus + 2 * static_max_mib) // 256) * multiplier))


def overhead_mib(static_max_mib: int, vcpus: int, multiplier: float = 1.0, kind: Kind = "hvm") -> int:
    """What a VM costs beside its target, paid in full by a squeezed one too (D2.2, D2.5)."""
    internal = 0 if kind == "pv" else 1
    external = 1
    per_vcpu = -(-38 * vcpus // 256)
    shim = 23 + static_max_mib // 90 if kind == "pv_in_pvh" else 0
    return internal + external + shadow_mib(static_max_mib, vcpus, multiplier) + per_vcpu + shim


def build_sizes(static_max: int, target: int, video: int, shim: int = 0) -> tuple[int, int]:
    """(build_start, build_max), which the domain builder is given; the claim is build_start (D2.4)."""
    return target - video + shim, static_max - video + shim


# -- admission (D3) ----------------------------------------------------------------------------------------------------


def short(needed_pages: int, available_pages: int) -> str:
    """What XAPI says where there is less than is needed, or nothing (E13).

    Of a start dynamic_min and overhead must fit beside those of all others, whatever balloons hold (D3.4), and its
    target and overhead must be free before it is built (D4.4); of a dynamic_min that is raised, the difference (D1.6).
    """
    if needed_pages <= available_pages:
        return ""
    return NOT_ENOUGH.format(pages_to_mib(needed_pages), max(0, pages_to_mib(available_pages)))


# -- starting and moving (D4) ------------------------------------------------------------------------------------------


def initial_target(dynamic_max: int, reservation: int, overhead: int) -> int:
    """What a VM starts with, of what squeezed reserved for it (D4.3)."""
    return min(dynamic_max, reservation - overhead)


def sent(settings: Constraints) -> Constraints:
    """Settings while a VM migrates to another host (D4.7)."""
    return pinned(settings, settings.dynamic_min)


def received(tot: int, limit: int, limit_offset: int) -> int:
    """What the receiver of a migration reserves: the sender's limit less its offset, at least what the VM has
    (D4.7).
    """
    return max(tot, limit - limit_offset)


# -- a domain that xenopsd builds (D2.3, D2.4, D4.3, D4.5) -------------------------------------------------------------


def settings_of(request: MachineRequest, guest: GuestConfig) -> Constraints:
    """Its four settings in pages: dynamic_min is its memory, dynamic_max and static_max its maxmem, static_min the
    least that its class boots in.
    """
    static_min = min(guest.min_memory_mib * PAGES_PER_MIB, request.maxmem_pages)
    return Constraints(static_min, request.memory_pages, request.maxmem_pages, request.maxmem_pages)


def refusal(settings: Constraints, host: HostConfig) -> str:
    """Why XAPI does not allow these settings [pages], in its words and in MiB, or nothing (E15).

    With the feature off, a memory below maxmem is a range that is not pinned.
    """
    mib = Constraints(*map(pages_to_mib, settings))
    return violation(mib, pinned_because="dynamic memory control is restricted" if host.restrict_dmc else "")


def overhead_pages(request: MachineRequest, host: HostConfig) -> int:
    """What the VM costs beside its target [pages], S rounded up to MiB (D2)."""
    static_max_mib = -(-request.maxmem_pages // PAGES_PER_MIB)
    return overhead_mib(static_max_mib, request.vcpus, host.shadow_multiplier) * PAGES_PER_MIB


def numbers(request: MachineRequest, host: HostConfig, guest: GuestConfig) -> Numbers:
    """What xenopsd builds with; the memory asked for is the initial target (D4.3)."""
    video_pages = video_pages_of(request, guest)
    build_start, build_max = build_sizes(request.maxmem_pages, request.memory_pages, video_pages)
    static_max_mib = -(-request.maxmem_pages // PAGES_PER_MIB)
    overhead = overhead_pages(request, host)
    pool_mib = shadow_mib(static_max_mib, request.vcpus, host.shadow_multiplier)
    pod = build_start < build_max
    ram_pages = build_max - VGA_HOLE_PAGES
    less_hole = VGA_HOLE_PAGES if host.pod_target_less_hole or not pod else 0
    return Numbers(
        maxmem_pages=request.maxmem_pages,
        memory_pages=request.memory_pages,
        video_pages=video_pages,
        pod=pod,
        ram_pages=ram_pages,
        target_pages=build_start,
        claim_pages=build_start,
        pod_target_pages=min(build_start - less_hole, ram_pages),
        max_pages=request.memory_pages + overhead + LIMIT_OFFSET_MIB * PAGES_PER_MIB,
        paging_pages=int(pool_mib * PAGES_PER_MIB * host.paging_pool_scale),
        beside_pages=0,
        need_pages=request.memory_pages + overhead,
        static_max_kib=pages_to_kib(request.maxmem_pages),
        xenstore_target_kib=pages_to_kib(build_start),
    )
