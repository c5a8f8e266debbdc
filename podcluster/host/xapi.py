"""What XAPI and xenopsd compute: memory settings, overheads, host capacity, admission, starts and migrations.

What        Pure functions on numbers, as XenServer and XCP-ng have them: `violation` (validation), `overhead_mib`,
            `Capacity` (admission), `initial_target`, `Numbers` of a domain that xenopsd builds (`numbers`), `sent` and
            `received_mib` (migration). squeezed, which moves targets, is a controller.
Units       MiB where XAPI counts in MiB (`_mib`); functions without a unit in their name take any one unit throughout.
            `numbers` counts in pages of 4 KiB.
Symbols     S static_max   v VCPUs_max   m shadow multiplier   dmin, dmax the dynamic range
Rules       docs/model.md D1-D4, E13, E15.
Departs     The XenServer domain builder is not public: it is taken to be libxl's walk with the two sizes that it is
            given (D4.5). memory/target is the target less the video RAM, as the Windows driver reads it (C2.1): whether
            XAPI takes it off is not known to us.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from podcluster.config import GuestConfig, HostConfig
from podcluster.host.xl import VGA_HOLE_PAGES, Numbers, video_pages_of
from podcluster.records.machines import MachineRequest
from podcluster.units import PAGES_PER_MIB, pages_to_kib

Kind = Literal["hvm", "pvh", "pv_in_pvh", "pv"]
Policy = Literal["static_max", "dynamic_max", "dynamic_min"]

RESERVE_MIB: Final = 64 + 8  # squeezed's: Xen's low-memory interrupt, and its own slack (D3.2)
LIMIT_OFFSET_MIB: Final = 1  # of Xen's limit over the target, HVM (D2.3)
BOOT_SAMPLES: Final = 10  # that must agree, 1 s apart (D3.1)
SCRUB_WAIT_S: Final = 64  # D4.4

# What the operator reads (docs/model.md E13, E15).
ORDER: Final = "MEMORY_CONSTRAINT_VIOLATION_ORDER: static_min <= dynamic_min <= dynamic_max <= static_max, got {}"
MAXPIN: Final = "MEMORY_CONSTRAINT_VIOLATION_MAXPIN: dynamic_min = dynamic_max = static_max, got {} ({})"
NOT_ENOUGH: Final = "HOST_NOT_ENOUGH_FREE_MEMORY: {} MiB needed, {} available"


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


def coerced(settings: Constraints) -> Constraints | None:
    """What VM creation makes of settings (D1.3): dynamics clamped into the static range; None if a pair is reversed."""
    low, dmin, dmax, high = settings
    if low > high or dmin > dmax:
        return None
    return Constraints(low, min(max(dmin, low), high), min(max(dmax, low), high), high)


def may_change_static(*, halted: bool, control_domain: bool = False) -> bool:
    """Whether the static range may be changed now (D1.4); the dynamic one always may."""
    return halted or control_domain


def may_raise_dynamic_min(free_at_dynamic_min: int, dynamic_min: int, new_dynamic_min: int) -> bool:
    """Whether a running VM's dynamic_min may go up: the host must bear all its VMs at their minimum (D1.6)."""
    return free_at_dynamic_min - (new_dynamic_min - dynamic_min) >= 0


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


def build_mib(static_max_mib: int, target_mib: int, video_mib: int, shim_mib: int = 0) -> tuple[int, int]:
    """(build_start, build_max), which the domain builder is given; the claim is build_start (D2.4)."""
    return target_mib - video_mib + shim_mib, static_max_mib - video_mib + shim_mib


# -- host capacity and admission (D3) ----------------------------------------------------------------------------------


def boot_free_mib(samples: Iterable[int]) -> int | None:
    """Free memory at the host's boot: the first sample that ends ten in a row within 1 MiB; None if none does
    (D3.1).
    """
    agreeing: list[int] = []
    for sample in samples:
        agreeing.append(sample)
        while max(agreeing) - min(agreeing) > 1:
            agreeing.pop(0)
        if len(agreeing) >= BOOT_SAMPLES:
            return sample
    return None


def host_overhead(total: int, boot_free: int, reserve: int = RESERVE_MIB) -> int:
    """What a host keeps from its VMs (D3.1, D3.2); `boot_free` is free, being scrubbed, and dom0's."""
    return total - boot_free + reserve


class Vm(NamedTuple):
    """A VM as admission sees it, in any one unit."""

    dynamic_min: int
    dynamic_max: int
    static_max: int
    overhead: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """A host as admission sees it: what it can give, and who is resident or scheduled to be (D3.3)."""

    total: int
    overhead: int
    vms: Sequence[Vm] = ()

    def free(self, policy: Policy) -> int:
        """What is left if every VM has what `policy` says; balloons are not asked (D3.3, D3.4)."""
        taken = sum(int(getattr(vm, policy)) + vm.overhead for vm in self.vms)
        return max(0, self.total - self.overhead - taken)

    def admits(self, vm: Vm, kind: Kind = "hvm") -> bool:
        """Whether `vm`, not among `vms`, may be started here (D3.4)."""
        least = vm.static_max if kind == "pv_in_pvh" else vm.dynamic_min
        return self.free("dynamic_min") >= least + vm.overhead


# -- starting and moving (D4) ------------------------------------------------------------------------------------------


def initial_target(dynamic_max: int, reservation: int, overhead: int) -> int:
    """What a VM starts with, of what squeezed reserved for it (D4.3)."""
    return min(dynamic_max, reservation - overhead)


def scrub_verdict(free: int, scrubbing: int, needed: int, waited_s: int) -> Literal["build", "wait", "give_up"]:
    """What xenopsd does before it builds (D4.4): it looks each second, and not longer than there is hope."""
    if free >= needed:
        return "build"
    return "wait" if scrubbing > 0 and waited_s < SCRUB_WAIT_S else "give_up"


def sent(settings: Constraints, target: int, *, same_host: bool) -> Constraints:
    """Settings while a VM migrates: pinned to dynamic_min, or on the same host to what it has (D4.7)."""
    size = target if same_host else settings.dynamic_min
    return replace_dynamic(settings, size)


def replace_dynamic(settings: Constraints, size: int) -> Constraints:
    """The same with dynamic range [size, size]."""
    return settings._replace(dynamic_min=size, dynamic_max=size)


def received(tot: int, limit: int, limit_offset: int = LIMIT_OFFSET_MIB) -> int:
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


def refusal(request: MachineRequest, host: HostConfig, guest: GuestConfig) -> str:
    """Why XAPI does not start it, in its words and in MiB, or nothing (E15).

    With the feature off, a memory below maxmem is a range that is not pinned.
    """
    mib = Constraints(*(pages // PAGES_PER_MIB for pages in settings_of(request, guest)))
    return violation(mib, pinned_because="dynamic memory control is restricted" if host.restrict_dmc else "")


def overhead_pages(request: MachineRequest, host: HostConfig) -> int:
    """What the VM costs beside its target [pages], S rounded up to MiB (D2)."""
    static_max_mib = -(-request.maxmem_pages // PAGES_PER_MIB)
    return overhead_mib(static_max_mib, request.vcpus, host.shadow_multiplier) * PAGES_PER_MIB


def numbers(request: MachineRequest, host: HostConfig, guest: GuestConfig, target_pages: int | None = None) -> Numbers:
    """What xenopsd builds with; `target_pages` is the initial target (D4.3), None its memory.

    It is admitted for memory + overhead (D3.4), whatever it starts with.
    """
    target_pages = request.memory_pages if target_pages is None else target_pages
    started = replace(request, memory_pages=target_pages)
    video_pages = video_pages_of(started, guest)
    static_max_mib = -(-request.maxmem_pages // PAGES_PER_MIB)
    overhead = overhead_pages(request, host)
    pool_mib = shadow_mib(static_max_mib, request.vcpus, host.shadow_multiplier)
    pod = target_pages < request.maxmem_pages
    less_hole = VGA_HOLE_PAGES if host.pod_target_less_hole or not pod else 0
    return Numbers(
        maxmem_pages=request.maxmem_pages,
        memory_pages=target_pages,
        video_pages=video_pages,
        pod=pod,
        ram_pages=request.maxmem_pages - video_pages - VGA_HOLE_PAGES,
        target_pages=target_pages - video_pages,
        claim_pages=target_pages - video_pages,
        pod_target_pages=target_pages - video_pages - less_hole,
        max_pages=target_pages + overhead + LIMIT_OFFSET_MIB * PAGES_PER_MIB,
        paging_pages=int(pool_mib * PAGES_PER_MIB * host.paging_pool_scale),
        beside_pages=0,
        need_pages=request.memory_pages + overhead,
        static_max_kib=pages_to_kib(request.maxmem_pages),
        xenstore_target_kib=pages_to_kib(target_pages - video_pages),
    )
