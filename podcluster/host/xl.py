"""What xl and libxl compute: from a guest's configuration to numbers, what they refuse, and how dom0 is made to shrink.

What        `Numbers`, what libxl derives before anything is built; `refusal`, what it will not build at all;
            `FreeMemory`, xl's loop that shrinks dom0 until a new guest fits; `Dom0`, a dom0 that gives memory back at
            a rate. Pure: nothing here touches a machine.
Units       Pages of 4 KiB; `_kib` where the toolstack counts in KiB, `_mib` and `_s` where it does that.
Symbols     M maxmem   T memory (the target)   V video RAM
Rules       docs/model.md B1 (numbers), B1.4 (refusals), B3.1-B3.5 (need_memory, autoballoon), E6, E10.
Departs     Whatever is needed for a guest beside its own memory (paging pool, IOMMU tables, stub domain) is taken whole
            when it is built. dom0 gives memory back evenly, at `host.dom0_free_mib_per_s`, whatever it uses itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from podcluster.config import GuestConfig, HostConfig
from podcluster.errors import ConfigError
from podcluster.records.machines import MachineRequest
from podcluster.units import KIB_PER_PAGE, NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB, kib_to_pages, pages_to_kib

VGA_HOLE_PAGES: Final = 0x20
SLACK_KIB: Final = 1024  # LIBXL_MAXMEM_CONSTANT, and the fudge of XSA-153
HVM_EXTRA_KIB: Final = 2048  # LIBXL_HVM_EXTRA_MEMORY
PV_EXTRA_KIB: Final = 1024  # LIBXL_PV_EXTRA_MEMORY
NEED_ROUND_KIB: Final = 2048
MIN_DOM0_KIB: Final = 131_072  # LIBXL_MIN_DOM0_MEM
STUBDOM_KIB: Final = {"none": 0, "minios": 28 * 1024, "linux": 128 * 1024}
KIB_PER_MIB: Final = 1024

CREDIT_S: Final = 30  # how long xl goes on shrinking dom0 for one guest (B3.3)
POLL_S: Final = 2  # how often it looks at dom0 (B3.4)
ALLOWANCE_S: Final = 10  # how long dom0 may stand still

# What the operator reads (docs/model.md E6, E10).
NOT_FREED: Final = "failed to free memory for the domain"
NO_PASSTHROUGH: Final = "IOMMU required for device passthrough but not supported together with PoD"
NO_VNUMA: Final = "Cannot enable PoD and vNUMA at the same time"
NO_ALTP2M: Final = "Cannot enable PoD and ALTP2M at the same time"


# -- from configuration to numbers (B1, B3.1) --------------------------------------------------------------------------


def shadow_kib(vcpus: int, maxmem_mib: int, paging: str = "hap") -> int:
    """The paging pool (B1.5): sized by maxmem, not by memory; `paging` hap, shadow or pv."""
    return 4 * (256 * vcpus + (2 if paging == "shadow" else 1) * maxmem_mib)


def iommu_kib(maxmem_kib: int) -> int:
    """The reserve for page tables that the IOMMU does not share with the CPU: four levels of 512 entries (B1.6)."""
    entries, pages = maxmem_kib // KIB_PER_PAGE, 0
    for _ in range(4):
        entries = -(-entries // 512)
        pages += entries
    return pages * KIB_PER_PAGE


def need_memory_kib(
    target_kib: int, pool_kib: int, *, reserve_kib: int = 0, stubdom_kib: int = 0, video_kib: int = 0, pv: bool = False
) -> int:
    """Host memory that the toolstack asks for before a start, rounded up to 2 MiB (B3.1).

    `video_kib` counts beside a stub domain only: without one it is part of the target.
    """
    need_kib = target_kib + pool_kib + reserve_kib + (PV_EXTRA_KIB if pv else HVM_EXTRA_KIB)
    if stubdom_kib:
        need_kib += stubdom_kib + video_kib
    return -(-need_kib // NEED_ROUND_KIB) * NEED_ROUND_KIB


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the toolstack derives from `memory=`, `maxmem=` and the rest, before anything is built (B1, B3.1)."""

    maxmem_pages: int  # M
    memory_pages: int  # T
    video_pages: int  # V
    pod: bool  # populate on demand: T < M (B1.2)
    ram_pages: int  # gfns that are RAM to the guest: M - V less the VGA hole
    target_pages: int  # T - V: what the builder calls target_pages (B2.3)
    claim_pages: int  # of the claim (B2.2)
    pod_target_pages: int  # the PoD target: T - V less the VGA hole
    max_pages: int  # Xen's quota before the build (B1.8)
    paging_pages: int  # the HAP or shadow pool (B1.5)
    beside_pages: int  # host memory for the guest that is neither its own nor its paging pool: IOMMU, stub domain
    need_pages: int  # need_memory (B3.1)
    static_max_kib: int  # memory/static-max
    xenstore_target_kib: int  # memory/target (B1.9)

    def tables_may_run_short(self, added_pages: int = 0) -> bool:
        """Whether the paging pool is less than the most that the guest's table can take: a page for each 2 MiB and each
        GiB, and some at the edges of its ranges (A3.9). A pool of the toolstack's own size never is, unless the guest
        has added memory to itself (C1.9), for which nothing is set aside.
        """
        maxmem_pages = self.maxmem_pages + added_pages
        most = (maxmem_pages + self.video_pages) // 512 + maxmem_pages // PAGES_PER_GIB + 16
        return self.paging_pages < most

    @property
    def aside_pages(self) -> int:
        """Host memory that the guest costs beside what it owns."""
        return self.paging_pages + self.beside_pages

    @classmethod
    def of(cls, request: MachineRequest, host: HostConfig, guest: GuestConfig) -> Numbers:
        """Work out libxl's; a guest that has no memory beside its video RAM is the user's mistake."""
        video_pages = video_pages_of(request, guest)
        own_tables = guest.passthrough and not host.iommu_shares_tables
        return _numbers(
            request.maxmem_pages, request.memory_pages, video_pages, request.vcpus, guest.stubdom, own_tables,
            host.paging, host.paging_pool_scale, host.pod_target_less_hole,
        )  # fmt: skip


@lru_cache(maxsize=256)  # asked for several times at each start, and of machines alike
def _numbers(
    maxmem_pages: int,
    memory_pages: int,
    video_pages: int,
    vcpus: int,
    stubdom: str,
    own_tables: bool,
    paging: str,
    pool_scale: float,
    pod_target_less_hole: bool,
) -> Numbers:
    """`own_tables`: it has tables for the IOMMU beside the CPU's."""
    pod = memory_pages < maxmem_pages
    target_pages = memory_pages - video_pages
    ram_pages = maxmem_pages - video_pages - VGA_HOLE_PAGES
    less_hole = VGA_HOLE_PAGES if pod_target_less_hole or not pod else 0
    pool_kib = int(shadow_kib(vcpus, maxmem_pages // PAGES_PER_MIB, paging) * pool_scale)
    reserve_kib = iommu_kib(pages_to_kib(maxmem_pages)) if own_tables else 0
    stubdom_kib = STUBDOM_KIB[stubdom]
    need_kib = need_memory_kib(
        pages_to_kib(memory_pages),
        pool_kib,
        reserve_kib=reserve_kib,
        stubdom_kib=stubdom_kib,
        video_kib=pages_to_kib(video_pages),
    )
    return Numbers(
        maxmem_pages=maxmem_pages,
        memory_pages=memory_pages,
        video_pages=video_pages,
        pod=pod,
        ram_pages=ram_pages,
        target_pages=target_pages,
        claim_pages=target_pages - less_hole,
        pod_target_pages=min(target_pages - less_hole, ram_pages),
        max_pages=kib_to_pages(pages_to_kib(memory_pages) + SLACK_KIB),
        paging_pages=kib_to_pages(pool_kib),
        beside_pages=kib_to_pages(reserve_kib + stubdom_kib),
        need_pages=kib_to_pages(need_kib),
        static_max_kib=pages_to_kib(maxmem_pages),
        xenstore_target_kib=pages_to_kib(target_pages) - (SLACK_KIB if pod else 0),
    )


def video_pages_of(request: MachineRequest, guest: GuestConfig) -> int:
    """V; a guest that has no memory beside it is the user's mistake."""
    video_pages = guest.video_mib * PAGES_PER_MIB
    if request.memory_pages - video_pages <= PAGES_PER_MIB:
        raise ConfigError(
            f"guest.video_mib must leave more than 1 MiB of the guest's memory, got {guest.video_mib} of "
            f"{request.memory_pages // PAGES_PER_MIB} MiB ({request.name}): lower guest.video_mib or raise its memory"
        )
    return video_pages


def refusal(pod: bool, guest: GuestConfig) -> str:
    """What libxl says instead of building a populate-on-demand guest with any of these; empty if it builds (B1.4)."""
    if pod and guest.passthrough:
        return NO_PASSTHROUGH
    if pod and guest.vnuma:
        return NO_VNUMA
    if pod and guest.altp2m:
        return NO_ALTP2M
    return ""


# -- making dom0 shrink (B3.2-B3.5) ------------------------------------------------------------------------------------


def default_dom0_kib(memory_kib: int) -> int:
    """dom0 without `dom0_mem=`: all memory but a sixteenth, or 128 MiB if that is less (B3.5)."""
    return memory_kib - min(memory_kib // 16, 128 * KIB_PER_MIB)


class Look(NamedTuple):
    """What xl sees of a host: free memory, scrubbing included and claims not taken off (B3.2); dom0's usage, target."""

    free_kib: int
    dom0_kib: int
    dom0_target_kib: int


class Step(NamedTuple):
    """What comes of a look: whether the memory is there, once that is decided, or the target that dom0 is to have."""

    fits: bool | None = None
    target_kib: int | None = None  # None: only time is to pass


@dataclass(slots=True)
class FreeMemory:
    """The loop of xl before it creates a guest: shrink dom0 until `need_kib` are free, or give up (B3.3, B3.4).

    It looks at once, and again 2 s after each look that decided nothing. dom0's hard limit stays.
    """

    need_kib: int
    credit_s: int = CREDIT_S
    allowance_s: int = ALLOWANCE_S
    target_kib: int | None = None  # what dom0 is on its way to
    usage_kib: int = 0  # what it had at the last look

    def see(self, look: Look) -> Step:
        """Go on by one look."""
        if self.target_kib is not None:
            self.credit_s -= POLL_S
            if look.dom0_kib > self.target_kib:
                return self._wait(look)
            self.target_kib = None
        if look.free_kib >= self.need_kib:
            return Step(fits=True)
        target_kib = look.dom0_target_kib + look.free_kib - self.need_kib
        if self.credit_s <= 0 or target_kib < MIN_DOM0_KIB:
            return Step(fits=False)
        self.target_kib, self.usage_kib, self.allowance_s = target_kib, look.dom0_kib, ALLOWANCE_S
        return Step(target_kib=target_kib)

    def _wait(self, look: Look) -> Step:
        """dom0 is not down yet."""
        if look.dom0_kib > self.usage_kib:
            return Step(fits=False)
        if look.dom0_kib == self.usage_kib:
            self.allowance_s -= POLL_S
            if self.allowance_s <= 0:
                return Step(fits=False)
        self.usage_kib = look.dom0_kib
        return Step()


@dataclass(slots=True)
class Dom0:
    """A dom0 with a balloon: what it has, what it is to have, and how fast it gets there."""

    pages: int
    target_pages: int
    pages_per_s: int
    since_ns: int = 0

    def aim(self, target_pages: int, at_ns: int) -> None:
        """Set another target."""
        self.pages = self.usage(at_ns)
        self.target_pages = target_pages
        self.since_ns = at_ns

    def usage(self, at_ns: int) -> int:
        """Pages it has at `at_ns`, if the host has them."""
        moved = (at_ns - self.since_ns) * self.pages_per_s // NS_PER_S
        if self.pages < self.target_pages:
            return min(self.target_pages, self.pages + moved)
        return max(self.target_pages, self.pages - moved)
