"""What a run is made of, as plain dataclasses: the schema of `conf/`, and all that podcluster sees of a configuration.

Units       In the last word of each name: `_mib`, `_gib`, `_pages`, `_s`, `_per_s`. A `Range` is `[low, high]`, drawn
            uniformly, so that two boots differ.
Values      Live in `conf/`. A default here is the plain case, for whoever builds one in code, and equals what the plain
            files of `conf/` say (a test compares them). Nothing hides a decision: the seed, the overcommit, a guest's
            maxmem and memory have no default here.
Checks      `check()` of each class, called by `__post_init__`: ranges, then what relates fields. A mistake is a
            `ConfigError` of one line with the key's full path. The classes are mutable because Hydra composes by
            assignment; treat them as read-only afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from itertools import pairwise
from typing import Any

from podcluster.controller_parameters import (
    EsxParameters,
    HypervParameters,
    MomParameters,
    ProxmoxParameters,
    QmemmanParameters,
    SelfballoonParameters,
    SqueezedParameters,
)
from podcluster.errors import ConfigError
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB

Range = list[float]
AxisValue = bool | int | float | str

MIB_PER_GIB = 1024
MAX_SEED = 2**63 - 1
MAX_RING_SLOTS = 4096
MAX_HOSTS = 100_000
MAX_HOST_GIB = 65_536
MAX_PORT = 65_535
MAX_S = 10 * 366 * 86_400
MAX_MIB = MAX_HOST_GIB * MIB_PER_GIB
MAX_STAGE_MIB = 1024 * MIB_PER_GIB  # that one stage of a guest's life writes
MIN_RATE = 1e-9  # of events: the next of fewer would come at no instant that a number can say
# Of a number without a limit of its own, by the unit in the last word of its key; the first that fits.
MAX_BY_UNIT = {"per_s": NS_PER_S, "_s": MAX_S, "mib": MAX_MIB, "kib": 1024 * MAX_MIB}

TOOLSTACKS = ("xl", "xapi")
ERAS = ("today", "xen2015", "xen2012", "rfc2009")
P2M_KINDS = ("ept", "pt")
PAGING_KINDS = ("hap", "shadow")
AUTOBALLOON = ("auto", "true", "false")
STUBDOMS = ("none", "minios", "linux")
MIN_DOM0_MIB = 128  # libxl targets dom0 at no less (LIBXL_MIN_DOM0_MEM)
ON_CRASH = ("destroy", "restart", "preserve")
ON_REBOOT = ("restart", "destroy")
CHECKS = ("epoch", "step", "off")
BALLOON_DRIVERS = ("linux", "windows", "none")
ONLY_OF = {"boot_barrier": "linux", "deflate_on_oom": "linux", "hotplug": "linux", "contiguous": "windows"}
MAX_LINUX_BATCH = 512  # frame numbers in a page (C1.4)
BALLOON_GENERATIONS = ("new", "old")
FAULTS = ("none", "stuck", "intermittent", "slow", "lying")
SCRUBBERS = ("none", "zero", "pattern")
SCRUB_ORDERS = ("ascending", "descending")
INSTALL_ENDS = ("stays", "shuts_down", "reboots")
ALLOC_ORDERS = ("descending", "random")
FAMILIES = ("one", "alike", "synthetic", "bitbrains", "azure_v1", "alibaba_pods", "churn")
TRACES = ("bitbrains", "azure_v1", "alibaba_pods")
RESAMPLE_MODES = ("auto", "none", "machines", "machines_days")
POLICIES = (
    "first_fit",
    "next_fit",
    "best_fit",
    "worst_fit",
    "random_fit",
    "dot_product",
    "xapi",
    "chance_constrained",
    "lifetime_aware",
)
PLACE_BY = ("dynamic_min", "target", "maxmem", "blend", "demand")
COMPARES_ROOMS = ("best_fit", "worst_fit", "dot_product", "lifetime_aware")  # the policies that choose by what is left
FORECASTS = ("profile", "shares")
LIFETIMES = ("known", "observed")
PACKING_BOUNDS = ("l2", "lp")
CONTROLLERS = ("static", "squeezed", "qmemman", "mom", "proxmox", "esx", "selfballoon", "hyperv")
ENGINES = ("auto", "inline", "ray")


def _fail(key: str, rule: str, value: object, remedy: str) -> None:
    raise ConfigError(f"{key} must be {rule}, got {value}: {remedy}")


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        _fail(key, f"one of {', '.join(allowed)}", value, f"try {key}={allowed[0]}")


def _between(key: str, value: float, low: float, high: float | None = None, form: str = "{}") -> None:
    """From `low` to `high`, or to what the key's unit allows; the remedy is written in this form."""
    most = next(limit for unit, limit in MAX_BY_UNIT.items() if key.endswith(unit)) if high is None else high
    # `not (low <= value <= most)` rather than `value < low or value > most`, so that nan fails too.
    if not (low <= value <= most):
        nearest = form.format(most if value > most else low)
        _fail(key, f"between {low} and {most}", value, f"try {key}={nearest}")


def _rate(key: str, value: float, most: float = float("inf")) -> None:
    """A rate of events: 0 (never), or up to `most`, by default infinity (always)."""
    if value != 0 and not (MIN_RATE <= value <= most):
        always = " (.inf: always)" if most == float("inf") else ""
        _fail(key, f"0, or between {MIN_RATE} and {most}{always}", value, f"try {key}=0")


def _range(key: str, value: Range, low: float = 0, high: float | None = None) -> None:
    if len(value) != 2:
        _fail(key, "a pair [low, high]", value, f"give two numbers, such as '{key}=[{low},{low + 1}]'")
    for end in value:
        _between(key, end, low, high, "[{0},{0}]")
    if value[0] > value[1]:
        _fail(key, "[low, high] with low <= high", value, f"swap them: '{key}=[{value[1]},{value[0]}]'")


@dataclass(kw_only=True)
class ClusterConfig:
    """How many hosts there are, how large, and how often they meet."""

    hosts: str = "auto"  # a number, or "auto": as many as the workload needs
    host_mem_gib: Any = 128  # RAM of one host; or a list with a size for each host, or groups: [16x128, 4x256]
    host_cpus: Any = 64  # CPUs of one host, or a list of the same form, which only placement.vcpu_ratio looks at
    epoch_s: int = 10  # hosts run alone for this long, then report and take commands

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        if self.hosts != "auto" and not (
            self.hosts.isascii() and self.hosts.isdigit() and 1 <= int(self.hosts) <= MAX_HOSTS
        ):
            rule = f"'auto' or a whole number from 1 to {MAX_HOSTS}"
            _fail("cluster.hosts", rule, self.hosts, "try cluster.hosts=auto")
        for gib in set(self.host_sizes_gib or [self.host_mem_gib]):
            _between("cluster.host_mem_gib", gib, 1, MAX_HOST_GIB)
        for cpus in set(self.host_cpus_listed or [self.host_cpus]):
            _between("cluster.host_cpus", cpus, 1, 100_000)
        sizes, cpus_listed = self.host_sizes_gib, self.host_cpus_listed
        for key, listed in (("host_mem_gib", sizes), ("host_cpus", cpus_listed)):
            if listed is not None and self.hosts not in ("auto", str(len(listed))):
                _fail("cluster.hosts", f"auto or {len(listed)}, as cluster.{key} lists", self.hosts, "leave it out")
        if sizes is not None and cpus_listed is not None and len(sizes) != len(cpus_listed):
            rule = f"one number, or one for each of the {len(sizes)} hosts that cluster.host_mem_gib lists"
            remedy = f"list {len(sizes)}, groups as NxCPUS, or try cluster.host_cpus={max(cpus_listed)}"
            _fail("cluster.host_cpus", rule, len(cpus_listed), remedy)
        _between("cluster.epoch_s", self.epoch_s, 1, 86_400)

    @property
    def host_sizes_gib(self) -> list[int] | None:
        """RAM of each host where they are listed, in the order of host_id; None where all are alike."""
        return _listed("cluster.host_mem_gib", self.host_mem_gib, "GiB", 128)

    @property
    def host_cpus_listed(self) -> list[int] | None:
        """CPUs of each host where they are listed, in the order of host_id; None where all are alike."""
        return _listed("cluster.host_cpus", self.host_cpus, "CPUs", 64)

    @property
    def host_count(self) -> int | None:
        """The number of hosts asked for; None for auto."""
        listed = self.host_sizes_gib or self.host_cpus_listed
        if listed is not None:
            return len(listed)
        return None if self.hosts == "auto" else int(self.hosts)

    def mem_gib_of(self, hosts: int) -> list[int]:
        """RAM of each of so many hosts, in the order of host_id."""
        return self.host_sizes_gib or [int(self.host_mem_gib)] * hosts

    def cpus_of(self, hosts: int) -> list[int]:
        """CPUs of each of so many hosts, in the order of host_id."""
        return self.host_cpus_listed or [int(self.host_cpus)] * hosts


def _listed(key: str, given: Any, unit: str, usual: int) -> list[int] | None:
    """A number for each host, where they are listed, each once or in groups as NxNUMBER; None: all are alike."""
    if isinstance(given, int) and not isinstance(given, bool):
        return None
    groups = f"'{key}=[16x{usual},4x{2 * usual}]'"
    numbers: list[int] = []
    for item in given if isinstance(given, list) else [given]:
        count, _, number = str(item).rpartition("x")
        digits = [text.isascii() and text.isdigit() for text in (count or "1", number)]
        if not all(digits) or (count and not 1 <= int(count) <= MAX_HOSTS) or not isinstance(given, list):
            rule = f"whole {unit}, or a list of such, each once or as Nx{unit.upper()}"
            _fail(key, rule, item, f"try {key}={usual} or {groups}")
        numbers += [int(number)] * int(count or "1")
    if not 1 <= len(numbers) <= MAX_HOSTS:
        _fail(key, f"a list of 1 to {MAX_HOSTS} hosts", len(numbers), f"try {groups}")
    return numbers


@dataclass(kw_only=True)
class CostConfig:
    """Time that the hypervisor takes, in ns of simulated time (G6); 0: none."""

    look_ns: int = 100  # a gfn looked up in the guest's table
    check_nonzero_ns: int = 100  # the first 128 bytes of a frame read
    check_zero_ns: int = 1000  # a frame unmapped, flushed and read whole
    populate_4k_ns: int = 3000  # a demand populate of one page
    populate_2m_ns: int = 3000  # of a superpage
    zero_4k_ns: int = 400  # a frame cleared, or filled with a pattern
    splinter_ns: int = 20_000  # an entry cut into 512
    hypercall_ns: int = 1000  # a hypercall, without what it does

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        for name, value in vars(self).items():
            _between(f"host.costs.{name}", value, 0, NS_PER_S)

    @property
    def any(self) -> bool:
        """Whether anything that Xen does takes time."""
        return any(vars(self).values())

    @property
    def served_page_ns(self) -> int:
        """Most that one page can take that the cache holds, no reclaim being due: two larger entries cut, and it."""
        return 2 * self.splinter_ns + max(self.populate_4k_ns, self.populate_2m_ns)


@dataclass(kw_only=True)
class HostConfig:
    """One Xen host: its toolstack, what Xen and dom0 keep for themselves, and how the hypervisor maps guests."""

    toolstack: str = "xl"
    era: str = "today"  # whose hypervisor: today | xen2015 | xen2012 | rfc2009 (a page-table p2m without 1 GiB entries)
    xen_mib: int | None = None  # Xen's own memory; None: RAM/128 + 64 MiB
    dom0_mib: int | None = 2048  # dom0's memory (dom0_mem= on Xen's command line); None: all but min(1/16, 128 MiB)
    autoballoon: str = "auto"  # auto | true | false: xl shrinks dom0 for new guests; auto: unless dom0_mib is given
    dom0_free_mib_per_s: float = 100  # how fast dom0 gives memory back when it is to shrink, and takes it
    dom0_touch_per_s: float = 0  # pages of each guest that dom0 maps, at random, per second
    restrict_dmc: bool = False  # xapi: no dynamic memory, so memory below maxmem is refused
    shadow_multiplier: float = 1.0  # xapi: HVM_shadow_multiplier
    paging_pool_scale: float = 1.0  # the paging pool, as a share of what the toolstack would take
    iommu_shares_tables: bool = True  # else a guest with passthrough needs memory for tables of the IOMMU's own
    p2m: str = "ept"  # ept | pt: how a superpage splits
    paging: str = "hap"  # hap | shadow: pool size (B1.5); shadow is p2m=pt without 1 GiB entries (T1)
    superpages_1g: bool = True
    superpages_2m: bool = True
    scrub_on_free: bool = True
    extra_ram_pages: int = 24  # video RAM aside, counted pages that the device model adds to a guest (17 to 30 in logs)
    pod_target_less_hole: bool = True  # the builder takes the 32 pages of the VGA hole off the PoD target
    claim_mode: bool = True  # xl.conf claim_mode: stake the memory before the build
    on_crash: str = "destroy"  # destroy | restart: builds it again, with its full debt | preserve: keeps its memory
    on_reboot: str = "restart"  # restart: builds it again | destroy: what reboots is gone
    restart_delay_s: float = 2  # from a crash or a reboot to the build that follows it
    max_restarts: int | None = None  # of one domain that crashes; None: for ever, as xl
    costs: CostConfig = field(default_factory=CostConfig)
    softirq_per_s: float = 0  # other work that arrives for a vCPU's CPU while Xen serves it (G7); .inf: always some
    ring_slots: int | None = None  # records in the recent list (P7); None: as the era says
    sweep_wraps: bool = False  # not Xen: a sweep that reaches the bottom empty-handed goes on at the top
    scrubbed_pod: bool = False  # not Xen: the toolstack registers the guest's scrub pattern (S1)
    check: str = "epoch"  # epoch: sums of all domains and a recount of one in turn, everything at the end; step | off

    def __post_init__(self) -> None:
        self.check_ranges()

    def check_ranges(self) -> None:
        """Check ranges; raise ConfigError. (`check` is a field here, as users know it: `host.check=step`.)"""
        _one_of("host.toolstack", self.toolstack, TOOLSTACKS)
        _one_of("host.era", self.era, ERAS)
        if self.xen_mib is not None:
            _between("host.xen_mib", self.xen_mib, 0)
        if self.dom0_mib is not None:
            _between("host.dom0_mib", self.dom0_mib, MIN_DOM0_MIB)
        self.autoballoon = self.autoballoon.lower()  # a plain true on the command line arrives as True
        _one_of("host.autoballoon", self.autoballoon, AUTOBALLOON)
        _between("host.dom0_free_mib_per_s", self.dom0_free_mib_per_s, 0)
        _rate("host.dom0_touch_per_s", self.dom0_touch_per_s, 100_000)
        _between("host.shadow_multiplier", self.shadow_multiplier, 1, 1000)
        _between("host.paging_pool_scale", self.paging_pool_scale, 0, 1000)
        _one_of("host.p2m", self.p2m, P2M_KINDS)
        _one_of("host.paging", self.paging, PAGING_KINDS)
        _between("host.extra_ram_pages", self.extra_ram_pages, 0, 256)  # the 1 MiB that libxl leaves above the target
        _one_of("host.on_crash", self.on_crash, ON_CRASH)
        _one_of("host.on_reboot", self.on_reboot, ON_REBOOT)
        _between("host.restart_delay_s", self.restart_delay_s, 0)
        if self.max_restarts is not None:
            _between("host.max_restarts", self.max_restarts, 0, 1_000_000)
        _rate("host.softirq_per_s", self.softirq_per_s)
        if self.scrubbed_pod and self.era == "rfc2009":
            raise ConfigError("host.scrubbed_pod must be false with host.era=rfc2009, got True: try host.era=today")
        slots = self.ring_slots
        if slots is not None and (not 1 <= slots <= MAX_RING_SLOTS or slots & (slots - 1)):
            _fail("host.ring_slots", f"a power of two up to {MAX_RING_SLOTS}", slots, "try host.ring_slots=32")
        _one_of("host.check", self.check, CHECKS)

    def xen_mib_of(self, host_mem_gib: int) -> int:
        """MiB that Xen keeps on a host of `host_mem_gib` GiB: as given, or RAM/128 + 64."""
        if self.xen_mib is not None:
            return self.xen_mib
        return host_mem_gib * MIB_PER_GIB // 128 + 64

    @property
    def autoballoons(self) -> bool:
        """Whether xl shrinks dom0 to fit a new guest (B3.3)."""
        return self.autoballoon == "true" or (self.autoballoon == "auto" and self.dom0_mib is None)

    def dom0_mib_at_boot(self, left_mib: int) -> int:
        """MiB that dom0 starts with, of what Xen leaves: as given, or all but a sixteenth or 128 MiB (B3.5)."""
        return left_mib - min(left_mib // 16, 128) if self.dom0_mib is None else self.dom0_mib

    def dom0_mib_least(self, left_mib: int, controller: ControllerConfig) -> int:
        """MiB that dom0 can be brought down to: what guests can never have."""
        least_mib = self.dom0_floor_mib(controller)
        return self.dom0_mib_at_boot(left_mib) if least_mib is None else least_mib

    def dom0_floor_mib(self, controller: ControllerConfig | None) -> int | None:
        """MiB below which nobody may bring dom0, xl (B3.5) or squeezed (D5.15); None where nobody moves it."""
        if self.autoballoons:
            return MIN_DOM0_MIB
        return controller.squeezed.dom0_min_mib if controller is not None and controller.manages_dom0 else None


@dataclass(kw_only=True)
class BalloonConfig:
    """A balloon driver: what hands the gap between maxmem and memory back to Xen."""

    driver: str  # linux | windows | none: whose rules it follows
    start_s: Range  # from the kernel's start to the driver's first page [s]
    rate_pages_per_s: Range  # pages handed back per second
    batch_pages: int  # pages per hypercall
    scrub: bool  # writes each page before handing it back (and so populates it first)
    boot_barrier: bool  # user space waits until the first target is reached
    generation: str = "new"  # new | old: when it gives up (Linux, C1.7), what it calls slow (Windows, C2.5)
    reserve_mib: float | None = None  # memory that the OS keeps from the balloon; None: the OS's own rule
    deflate_on_oom: bool = False  # takes pages back where an application would be killed (C1.10); linux
    contiguous: bool = False  # prefers whole 2 MiB of free memory (C2.4); windows
    hotplug: bool = False  # adds memory to the guest where its target is above all that there is (C1.9); linux
    section_mib: int = 128  # of which it adds whole ones

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _one_of("guest.balloon.driver", self.driver, BALLOON_DRIVERS)
        _one_of("guest.balloon.generation", self.generation, BALLOON_GENERATIONS)
        if self.reserve_mib is not None:
            _between("guest.balloon.reserve_mib", self.reserve_mib, 0)
        _range("guest.balloon.start_s", self.start_s)
        _range("guest.balloon.rate_pages_per_s", self.rate_pages_per_s, 1)
        _between("guest.balloon.batch_pages", self.batch_pages, 1, PAGES_PER_GIB)
        _between("guest.balloon.section_mib", self.section_mib, 2, 2048)
        if self.section_mib & (self.section_mib - 1):
            _fail("guest.balloon.section_mib", "a power of two", str(self.section_mib), "x86-64 has 128")


@dataclass(kw_only=True)
class SwapConfig:
    """A swap device: its room, and what a request costs. It serves one request at a time."""

    mib: int  # room; 0: none, then an application is killed instead
    latency_us: float  # of one request
    mib_per_s: float
    cluster_pages: int = 8  # pages that one request moves: readahead on the way in
    reuse_s: float = 60  # a guest at full speed comes back to each page of its working set once in this time

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _between("guest.swap.mib", self.mib, 0)
        _between("guest.swap.latency_us", self.latency_us, 0, 60_000_000)
        _between("guest.swap.mib_per_s", self.mib_per_s, 0.001)
        _between("guest.swap.cluster_pages", self.cluster_pages, 1, 4096)
        _between("guest.swap.reuse_s", self.reuse_s, 0.001)


@dataclass(kw_only=True)
class FaultConfig:
    """What is wrong with a guest, and with how many of its class; drawn per domain, the same at every boot of it."""

    kind: str = "none"  # none | stuck | intermittent | slow: of the balloon; lying: of what the guest says of itself
    share: float = 1.0  # of the guests of this class
    once_ballooned: bool = False  # the balloon's faults set in when its first target is reached, not before
    period_s: float = 60  # intermittent: it moves during the first awake_s of each period
    awake_s: float = 1
    rate_pages_per_s: int = 64  # slow
    factor: float = 2.0  # lying: says it uses and wants this times what it does

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _one_of("guest.fault.kind", self.kind, FAULTS)
        _between("guest.fault.share", self.share, 0, 1)
        _between("guest.fault.period_s", self.period_s, 0.001)
        _between("guest.fault.awake_s", self.awake_s, 0.001, self.period_s)
        _between("guest.fault.rate_pages_per_s", self.rate_pages_per_s, 1)
        _between("guest.fault.factor", self.factor, 0, 1000)


@dataclass(kw_only=True)
class PageCacheConfig:
    """The growth of page cache into free memory; rate 0 switches it off."""

    rate_mib_per_s: float = 20
    floor_share: float = 0.1  # grows only while free memory is above this share of what the guest has
    max_share_of_free: float = 0.7  # and up to this share of what is free

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _between("guest.page_cache.rate_mib_per_s", self.rate_mib_per_s, 0)
        _between("guest.page_cache.floor_share", self.floor_share, 0, 1)
        _between("guest.page_cache.max_share_of_free", self.max_share_of_free, 0, 1)


@dataclass(kw_only=True)
class InstallConfig:
    """An installer: what it unpacks into memory once it is up, how long that takes, and what it does then."""

    unpack_mib: Range = field(default_factory=lambda: [0, 0])  # 0: installs nothing, and stays
    install_s: Range = field(default_factory=lambda: [0, 0])
    end: str = "stays"  # stays | shuts_down | reboots: at the end of the installation
    into: str = ""  # the guest class that reboots into: a file of conf/guest

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _range("guest.install.unpack_mib", self.unpack_mib, 0, MAX_STAGE_MIB)
        _range("guest.install.install_s", self.install_s)
        _one_of("guest.install.end", self.end, INSTALL_ENDS)
        if self.reboots and not self.into:
            raise ConfigError(
                "guest.install.into must name a guest class where guest.install.end=reboots, got nothing: "
                "try guest.install.into=linux"
            )

    @property
    def installs(self) -> bool:
        """There is something to install."""
        return self.unpack_mib[1] > 0

    @property
    def reboots(self) -> bool:
        """It reboots into what it has installed."""
        return self.installs and self.end == "reboots"


@dataclass(kw_only=True)
class GuestConfig:
    """What one class of operating system does with its memory, from firmware to shutdown."""

    os_class: str  # the name that rows carry
    min_memory_mib: int = 256  # `overcommit` never gives a guest less
    target_fraction: float | None = None  # memory as a share of maxmem, in place of 1/overcommit
    vcpus: int = 2  # where the workload does not say
    video_mib: int = 8  # video RAM, taken off both memory and maxmem by the builder
    firmware_s: Range  # from the end of the build to the kernel's start [s]
    kernel_mib: Range  # kernel, initramfs and what they allocate, written with data
    kernel_s: Range  # time that takes [s]
    descriptor_share: int = 64  # page descriptors take maxmem/this, whatever the target
    services_mib: Range  # what services touch before the guest counts as booted
    services_s: Range  # time that takes [s]
    late_descriptors_share: float = 0  # of the page descriptors, written after the kernel's stage, by all vCPUs
    scrubber: str = "none"  # none | zero | pattern: what a start-of-day scrubber writes over all that is free
    scrub_order: str = "ascending"  # ascending | descending
    scrub_streams: int = 1  # scrubbing vCPUs, each with every so manieth 2 MiB of memory; 0: all there are
    scrub_rate_mib_per_s: Range  # of one scrubbing vCPU, and of writing memory that the guest is given the first time
    scrub_start_s: Range  # from the kernel's start; where zero_on_free, from the end of its stage [s]
    zero_on_free: bool = False  # zeroes what is freed; its scrubber is done before the balloon begins
    alloc_block_pages: int = 512  # the allocator takes untouched memory in blocks of this many pages
    alloc_order: str = "descending"  # descending | random: in which order it takes them
    passthrough: bool = False  # a device of the host's is passed through, or may be: needs real memory
    vnuma: bool = False  # virtual NUMA nodes: need real memory
    altp2m: bool = False  # alternate p2m: needs real memory
    stubdom: str = "none"  # none | minios | linux: the device model has a domain of its own
    dirty_all: bool = False  # a stream that writes data to every page once booted
    irq_per_s: float = 0  # interrupts for a vCPU while the guest has them enabled (G7); .inf: always one
    swap: SwapConfig
    balloon: BalloonConfig
    page_cache: PageCacheConfig
    fault: FaultConfig = field(default_factory=FaultConfig)
    install: InstallConfig = field(default_factory=InstallConfig)
    weights: dict[str, float] = field(default_factory=dict)  # of a mix: what share of machines has which class

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        if not self.os_class or not self.os_class.replace("_", "").replace("-", "").isalnum():
            _fail(
                "guest.os_class", "a name of letters, digits, - and _", repr(self.os_class), "try guest.os_class=linux"
            )
        _between("guest.min_memory_mib", self.min_memory_mib, 32)
        if self.target_fraction is not None and not 0 < self.target_fraction <= 1:
            _fail(
                "guest.target_fraction", "above 0 and at most 1", self.target_fraction, "try guest.target_fraction=0.5"
            )
        _between("guest.vcpus", self.vcpus, 1, 512)
        _between("guest.video_mib", self.video_mib, 0, 1024)
        _range("guest.firmware_s", self.firmware_s)
        _range("guest.kernel_mib", self.kernel_mib, 0, MAX_STAGE_MIB)
        _range("guest.kernel_s", self.kernel_s)
        _between("guest.descriptor_share", self.descriptor_share, 2, PAGES_PER_GIB)
        _range("guest.services_mib", self.services_mib, 0, MAX_STAGE_MIB)
        _range("guest.services_s", self.services_s)
        _between("guest.late_descriptors_share", self.late_descriptors_share, 0, 1)
        if self.weights and not (min(self.weights.values()) >= 0 and 0 < sum(self.weights.values()) < float("inf")):
            _fail(
                "guest.weights",
                "numbers >= 0, one of them above 0",
                json.dumps(self.weights),
                "try 'guest.weights={linux:3,windows:1}'",
            )
        _one_of("guest.scrubber", self.scrubber, SCRUBBERS)
        _one_of("guest.scrub_order", self.scrub_order, SCRUB_ORDERS)
        _between("guest.scrub_streams", self.scrub_streams, 0, 512)
        if self.zero_on_free and self.scrubber != "zero":
            _fail(
                "guest.scrubber",
                "zero where guest.zero_on_free is true",
                self.scrubber,
                "a kernel that zeroes what is freed zeroed all of memory at boot: add guest.scrubber=zero",
            )
        _range("guest.scrub_rate_mib_per_s", self.scrub_rate_mib_per_s, 1)
        _range("guest.scrub_start_s", self.scrub_start_s)
        _between("guest.alloc_block_pages", self.alloc_block_pages, 1, PAGES_PER_GIB)
        _one_of("guest.alloc_order", self.alloc_order, ALLOC_ORDERS)
        _rate("guest.irq_per_s", self.irq_per_s)
        _one_of("guest.stubdom", self.stubdom, STUBDOMS)
        if not self.weights and self.balloon.driver == "linux" and self.balloon.batch_pages > MAX_LINUX_BATCH:
            _fail(
                "guest.balloon.batch_pages",
                f"at most {MAX_LINUX_BATCH} with guest.balloon.driver=linux",
                self.balloon.batch_pages,
                f"try guest.balloon.batch_pages={MAX_LINUX_BATCH}",
            )

    def check_alone(self) -> None:
        """Check what no balloon driver would heed if all guests are of this class; raise ConfigError."""
        driver = self.balloon.driver
        for name, only in ONLY_OF.items():
            if getattr(self.balloon, name) and driver != only:
                key = f"guest.balloon.{name}"
                _fail(key, f"false unless guest.balloon.driver is {only}", f"true with {driver}", f"try {key}=false")
        if driver == "none" and self.fault.kind not in ("none", "lying"):
            rule = "none or lying where guest.balloon.driver is none"
            _fail("guest.fault.kind", rule, self.fault.kind, "a fault of a balloon needs one: try guest=linux")


@dataclass(kw_only=True)
class WorkloadConfig:
    """Which machines are asked for, when, and what memory they want over time."""

    family: str  # one | alike | synthetic | bitbrains | azure_v1 | alibaba_pods | churn
    path: str | None = None  # a trace's folder, for families that read one
    machines: int = 60  # how many (alike, synthetic)
    memory_mib: int | None = None  # xl.cfg memory= (one, alike); None: maxmem/overcommit
    maxmem_mib: int | None = None  # xl.cfg maxmem= (one, alike); None: memory (one), memory*overcommit (alike)
    min_maxmem_mib: int = 512  # smaller machines of a trace are left out, counted
    boot_spread_s: int = 600  # boots are spread over this long; 0 is a storm
    hold_s: int = -1  # memory stays held this long after its last use; -1: since boot
    resample: str = "auto"  # auto | none | machines | machines_days: what a replication draws from the trace
    start_s: int = 0  # where in the trace simulated time begins
    share: float = 1.0  # of a trace's requests for machines, taken by tenant (azure_v1, alibaba_pods)
    arrivals_per_day: float = 1000  # machines that come (churn)
    orders: list[str] = field(default_factory=list)  # what the operator types: "60 mem-set 0 512" (s, domain, MiB)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges and what each family needs; raise ConfigError."""
        _one_of("workload.family", self.family, FAMILIES)
        _between("workload.machines", self.machines, 1, 10_000_000)
        if self.memory_mib is not None:
            _between("workload.memory_mib", self.memory_mib, 16)
        if self.maxmem_mib is not None:
            _between("workload.maxmem_mib", self.maxmem_mib, 16)
        if self.memory_mib is not None and self.maxmem_mib is not None and self.memory_mib > self.maxmem_mib:
            raise ConfigError(
                f"workload.memory_mib must be <= workload.maxmem_mib, got {self.memory_mib} > {self.maxmem_mib}: "
                "lower memory_mib (the target) or raise maxmem_mib"
            )
        if self.family in ("one", "alike") and self.memory_mib is None and self.maxmem_mib is None:
            _fail(
                "workload.maxmem_mib",
                f"given for workload={self.family}",
                "null",
                "try workload.memory_mib=256 workload.maxmem_mib=512",
            )
        if self.family in TRACES and not self.path:
            _fail("workload.path", f"the trace's folder for workload={self.family}", self.path, "add workload.path=DIR")
        _between("workload.min_maxmem_mib", self.min_maxmem_mib, 16)
        _between("workload.boot_spread_s", self.boot_spread_s, 0)
        _between("workload.hold_s", self.hold_s, -1)
        _one_of("workload.resample", self.resample, RESAMPLE_MODES)
        _between("workload.start_s", self.start_s, 0)
        if not 0 < self.share <= 1:
            _fail("workload.share", "above 0 and at most 1", self.share, "try workload.share=0.01")
        _between("workload.arrivals_per_day", self.arrivals_per_day, 0.001, 10_000_000)


def preferred_host(pattern: str) -> tuple[str, int | None]:
    """A pattern of `placement.affinity` without the host that it names, and that host: `db*@3`."""
    names, at, host_id = pattern.rpartition("@")
    return (names, int(host_id)) if at and names and host_id.isdecimal() else (pattern, None)


@dataclass(kw_only=True)
class PlacementConfig:
    """Which host a domain goes to."""

    policy: str
    coordinator_bias: bool = True  # xapi: the pool's master is chosen less often
    by: str = "dynamic_min"  # dynamic_min | target | maxmem | blend | demand: what domains count for
    maxmem_percent: int = 50  # by=blend: of maxmem, the rest of dynamic_min
    memory_ratio: float | None = None  # most that a host's domains may count for, in U; None: [PLACE-1] alone limits
    vcpu_ratio: float | None = None  # most vCPUs per CPU; None: no limit
    affinity: list[str] = field(default_factory=list)  # patterns of names: together; xapi: 'db*@3' prefers host 3
    anti_affinity: list[str] = field(default_factory=list)  # and of each of these apart
    strict_groups: bool = False  # rejected, or left where it is, rather than against its group's rule
    view_age_s: int = 0  # a scheduler knows what hosts reported this long ago; 0: all that was placed
    retries: int = 3  # other hosts that are tried for what a host has refused
    forecast: str = "profile"  # profile | shares: where mean and sd of a machine's demand are from
    mean_share: float = 0.5  # forecast=shares: mean demand, in maxmem
    sd_share: float = 0.2  # its standard deviation, in maxmem
    z: float = 2.33  # chance_constrained: standard deviations above the mean that must fit
    lifetimes: str = "known"  # known | observed: where a machine's departure is forecast from
    lifetime_error: float = 0.0  # known: sd of the natural logarithm of forecast over true lifetime
    lifetime_bucket_s: int = 3600  # lifetime_aware: lifetimes are told apart by so much
    bound: str = "l2"  # l2 | lp: the lower bound on hosts that a run states

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _one_of("placement.policy", self.policy, POLICIES)
        _one_of("placement.by", self.by, PLACE_BY)
        _between("placement.maxmem_percent", self.maxmem_percent, 0, 100)
        if self.memory_ratio is not None:
            _between("placement.memory_ratio", self.memory_ratio, 0.001, 1000)
        elif self.by != "dynamic_min" and self.policy not in COMPARES_ROOMS:
            rule = f"given with placement.by={self.by} and {self.policy}, which compares no rooms"
            _fail("placement.memory_ratio", rule, "null", "try placement.memory_ratio=1")
        if self.vcpu_ratio is not None:
            _between("placement.vcpu_ratio", self.vcpu_ratio, 0.001, 1000)
        elif self.policy == "dot_product":
            _fail("placement.vcpu_ratio", "given with dot_product", "null", "try placement.vcpu_ratio=4")
        for key, patterns in (("affinity", self.affinity), ("anti_affinity", self.anti_affinity)):
            if not all(pattern.strip() for pattern in patterns):
                _fail(f"placement.{key}", "names or patterns of names", patterns, f"try 'placement.{key}=[db*]'")
            if len(set(patterns)) < len(patterns):
                _fail(f"placement.{key}", "patterns that differ", patterns, "take out the second of equals")
        hosts = [preferred_host(pattern)[1] for pattern in self.affinity]
        if self.policy != "xapi" and any(host_id is not None for host_id in hosts):
            _fail("placement.affinity", "without hosts unless placement=xapi", self.affinity, "add placement=xapi")
        _between("placement.view_age_s", self.view_age_s, 0, 86_400)
        _between("placement.retries", self.retries, 0, 1000)
        _one_of("placement.forecast", self.forecast, FORECASTS)
        _between("placement.mean_share", self.mean_share, 0, 1)
        _between("placement.sd_share", self.sd_share, 0, 1)
        _between("placement.z", self.z, 0, 10)
        _one_of("placement.lifetimes", self.lifetimes, LIFETIMES)
        _between("placement.lifetime_error", self.lifetime_error, 0, 10)
        _between("placement.lifetime_bucket_s", self.lifetime_bucket_s, 1)
        _one_of("placement.bound", self.bound, PACKING_BOUNDS)


@dataclass(kw_only=True)
class FailureConfig:
    """Hosts that fail, when they are back, and what high availability does for the domains they took with them."""

    rate_per_host_year: float = 0  # of each host, at any time alike
    repair_s: float | None = 3600  # from a failure until the host is back, empty; None: never
    ha: bool = True  # protected domains are started again on other hosts
    restart_delay_s: float = 120  # from a failure until they are: it must be noticed, and the host fenced
    retry_s: float | None = 20  # those for whom there is no room are tried again this often; None: never
    tolerate: int | None = None  # host failures that there is to be a plan for (D7); None: nobody plans
    allow_overcommit: bool = False  # starts go on that leave no such plan
    cluster_stack: bool = False  # hosts vote: fewer than half of them may fail, whatever is planned
    best_effort_share: float = 0  # of domains: started again after all others, where there is room
    unprotected_share: float = 0  # of domains: not started again

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _rate("failure.rate_per_host_year", self.rate_per_host_year, 100_000)
        if self.repair_s is not None:
            _between("failure.repair_s", self.repair_s, 1)
        _between("failure.restart_delay_s", self.restart_delay_s, 0)
        if self.retry_s is not None:
            _between("failure.retry_s", self.retry_s, 1)
        if self.tolerate is not None:
            _between("failure.tolerate", self.tolerate, 0, MAX_HOSTS)
            if not self.ha:
                _fail("failure.ha", "true where failure.tolerate is given", "false", "add failure.ha=true")
        _between("failure.best_effort_share", self.best_effort_share, 0, 1)
        _between("failure.unprotected_share", self.unprotected_share, 0, 1)
        if self.best_effort_share + self.unprotected_share > 1:
            _fail(
                "failure.best_effort_share",
                "at most 1 together with failure.unprotected_share",
                f"{self.best_effort_share} + {self.unprotected_share}",
                "lower one of them",
            )


@dataclass(kw_only=True)
class MigrationConfig:
    """Live migration: of a host that is emptied, of one domain, or so that hosts are filled alike."""

    mib_per_s: float = 1000  # of the link of a sending host, whose copies go one after another
    wait_s: float = 120  # most that a domain is waited for on its way down to its dynamic minimum
    rebalance_s: float | None = None  # between looks at how full hosts are; none: domains stay where they are
    rebalance_gap: float = 0.1  # how far apart they may be, by what placement.by counts, in shares of U
    rebalance_most: int = 4  # domains sent at one look

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _between("migration.mib_per_s", self.mib_per_s, 0.01)
        _between("migration.wait_s", self.wait_s, 0)
        if self.rebalance_s is not None:
            _between("migration.rebalance_s", self.rebalance_s, 1)
        _between("migration.rebalance_gap", self.rebalance_gap, 0, 1)
        _between("migration.rebalance_most", self.rebalance_most, 1, 1_000_000)


@dataclass(kw_only=True)
class ControllerConfig:
    """Who moves targets while guests run; `static` leaves them at memory. Each has its constants in a section of its
    own, whoever is chosen.
    """

    name: str = "static"
    dead_after_s: float | None = None  # it is gone from here on: nothing moves, starts get their minimum
    squeezed: SqueezedParameters = field(default_factory=SqueezedParameters)
    qmemman: QmemmanParameters = field(default_factory=QmemmanParameters)
    mom: MomParameters = field(default_factory=MomParameters)
    proxmox: ProxmoxParameters = field(default_factory=ProxmoxParameters)
    esx: EsxParameters = field(default_factory=EsxParameters)
    selfballoon: SelfballoonParameters = field(default_factory=SelfballoonParameters)
    hyperv: HypervParameters = field(default_factory=HypervParameters)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _one_of("controller.name", self.name, CONTROLLERS)
        if 0 < self.squeezed.dom0_min_mib < MIN_DOM0_MIB:
            _fail(
                "controller.squeezed.dom0_min_mib",
                f"0, or at least {MIN_DOM0_MIB}",
                self.squeezed.dom0_min_mib,
                "try controller.squeezed.dom0_min_mib=1024",
            )
        if self.dead_after_s is not None:
            _between("controller.dead_after_s", self.dead_after_s, 0)
        for name in CONTROLLERS:
            section = getattr(self, name, None)
            for parameter in fields(section) if section is not None else ():
                limits = parameter.metadata
                key = f"controller.{name}.{parameter.name}"
                _between(key, getattr(section, parameter.name), limits["at_least"], limits["at_most"])
        for above, below in pairwise(("clear_share", "soft_share", "hard_share", "low_share")):
            most, share = getattr(self.esx, above), getattr(self.esx, below)
            if share > most:
                key = f"controller.esx.{below}"
                _fail(key, f"at most controller.esx.{above} ({most})", share, f"try {key}={most}")

    @property
    def manages_dom0(self) -> bool:
        """dom0 is one of those whose targets it moves."""
        return self.name == "squeezed" and self.squeezed.dom0_min_mib > 0


def host_and_port(address: str) -> tuple[str, int] | None:
    """What host:port or ray://host:port names; None where it is neither."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    there = (
        host and port.isascii() and port.isdigit() and len(port) <= len(str(MAX_PORT)) and 1 <= int(port) <= MAX_PORT
    )
    return (host, int(port)) if there else None


@dataclass(kw_only=True)
class EngineConfig:
    """Where the hosts are computed; never what comes out."""

    kind: str = "auto"  # auto | inline | ray
    address: str = "local"  # local, or a running Ray cluster's host:port; auto: the cluster that this is a job of
    actors: int | None = None  # None: the CPUs there are, at most one per host
    hosts_per_actor: int | None = None
    timeout_s: int = 600  # longest wait for a reply of an actor; then it is taken for dead
    checkpoint_s: float = 60  # of wall time, between two checkpoints, from which a killed run goes on; 0: none
    memory_mib: str = "auto"  # that a run may take, all its processes together; "auto": what is free on this machine

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _one_of("engine.kind", self.kind, ENGINES)
        if self.address not in ("local", "auto") and host_and_port(self.address) is None:
            rule = f"'local', 'auto' or host:port with a port from 1 to {MAX_PORT}"
            _fail("engine.address", rule, repr(self.address), "try engine.address=local")
        if self.actors is not None:
            _between("engine.actors", self.actors, 1, 10_000)
        if self.hosts_per_actor is not None:
            _between("engine.hosts_per_actor", self.hosts_per_actor, 1, MAX_HOSTS)
        if self.actors is not None and self.hosts_per_actor is not None:
            _fail("engine.actors", "null where engine.hosts_per_actor is given", self.actors, "give one of the two")
        _between("engine.timeout_s", self.timeout_s, 1)
        _between("engine.checkpoint_s", self.checkpoint_s, 0)
        self.memory_mib = self.memory_mib.lower()
        if self.memory_mib != "auto" and not (self.memory_mib.isascii() and self.memory_mib.isdigit()):
            _fail("engine.memory_mib", "auto or a whole number of MiB", self.memory_mib, "try engine.memory_mib=8192")

    @property
    def memory_bytes(self) -> int | None:
        """`memory_mib` in bytes; None where it is auto."""
        return None if self.memory_mib == "auto" else int(self.memory_mib) * 1024**2


@dataclass(kw_only=True)
class StudyConfig:
    """How long, how often, and what is written."""

    duration_s: int = 86400  # simulated time
    warmup_s: int = 0  # of it, at the beginning, not counted in rates, means and peaks
    replications: int = 1  # runs of each cell, with seeds of their own
    telemetry_s: int = 300  # cadence of the samples table; 0: none
    machine_samples: bool = False  # and of the machine_samples table, which has every machine that lives
    confidence: float = 0.95  # of every interval
    baseline: str | None = None  # "axis=value" of a sweep: each cell is compared with the one there (table `pairs`)
    figure: bool = True

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges; raise ConfigError."""
        _between("study.duration_s", self.duration_s, 1)
        if not 0 <= self.warmup_s < self.duration_s:
            rule = f"from 0 to below study.duration_s ({self.duration_s})"
            _fail("study.warmup_s", rule, self.warmup_s, "try study.warmup_s=0")
        _between("study.replications", self.replications, 1, 1_000_000)
        _between("study.telemetry_s", self.telemetry_s, 0)
        if self.machine_samples and not self.telemetry_s:
            _fail(
                "study.machine_samples",
                "false where study.telemetry_s is 0",
                "true",
                "set study.telemetry_s, the cadence",
            )
        if not 0.5 <= self.confidence < 1:
            _fail("study.confidence", "at least 0.5 and below 1", self.confidence, "try study.confidence=0.95")
        if self.baseline is not None and "=" not in self.baseline:
            _fail("study.baseline", "written axis=value", self.baseline, "try 'study.baseline=\"overcommit=1\"'")


@dataclass(kw_only=True)
class Config:
    """One cell: everything that results are a function of, and `engine`, which they are not."""

    seed: int
    overcommit: float  # R: a guest's memory is floor(maxmem/R) MiB, at least guest.min_memory_mib
    cluster: ClusterConfig
    host: HostConfig
    guest: GuestConfig
    workload: WorkloadConfig
    placement: PlacementConfig
    controller: ControllerConfig
    engine: EngineConfig
    study: StudyConfig
    failure: FailureConfig = field(default_factory=FailureConfig)
    migration: MigrationConfig = field(default_factory=MigrationConfig)
    experiment: str | None = None  # the file of conf/experiment that this came from
    classes: dict[str, GuestConfig] = field(default_factory=dict)  # of a mix, by os_class; from conf/guest, by itself
    installed: dict[str, GuestConfig] = field(default_factory=dict)  # what installers reboot into; likewise by itself

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check ranges, then what relates sections; raise ConfigError."""
        _between("seed", self.seed, 0, MAX_SEED)
        _between("overcommit", self.overcommit, 1, 1000)
        if not self.guest.weights and not self.guest.install.reboots:  # else another class may heed what this does not
            self.guest.check_alone()
        hosts = self.cluster.host_count
        preferred = [host_id for _, host_id in map(preferred_host, self.placement.affinity) if host_id is not None]
        if hosts is not None and any(host_id >= hosts for host_id in preferred):
            raise ConfigError(
                f"placement.affinity must be of hosts 0 to {hosts - 1}, got {max(preferred)}: raise cluster.hosts"
            )
        tolerate = self.failure.tolerate
        if hosts is not None and tolerate is not None:
            most = (hosts - 1) // 2 if self.failure.cluster_stack else hosts - 1
            if tolerate > most:
                few = "fewer than half of" if self.failure.cluster_stack else "fewer than"
                _fail("failure.tolerate", f"{few} the {hosts} hosts", tolerate, f"try failure.tolerate={most}")
        least_gib = min(self._sizes_gib)
        ram_mib = least_gib * MIB_PER_GIB
        xen_mib = self.host.xen_mib_of(least_gib)
        dom0_mib = self.host.dom0_mib_at_boot(ram_mib - xen_mib)
        if self.host.autoballoons:
            self._check_autoballoon()
        if self.controller.manages_dom0 and dom0_mib < self.controller.squeezed.dom0_min_mib:
            raise ConfigError(
                "controller.squeezed.dom0_min_mib must be <= dom0's memory, got "
                f"{self.controller.squeezed.dom0_min_mib} > {dom0_mib} MiB: raise host.dom0_mib"
            )
        dom0_mib = max(dom0_mib, self.host.dom0_mib_least(ram_mib - xen_mib, self.controller))
        if xen_mib + dom0_mib >= ram_mib:
            raise ConfigError(
                f"host.dom0_mib plus Xen's own memory must be < cluster.host_mem_gib, got {dom0_mib} + {xen_mib} >= "
                f"{ram_mib} MiB: lower host.dom0_mib or raise cluster.host_mem_gib"
            )
        if self.controller.name == "squeezed":
            left_mib = self.usable_pages_of(least_gib) // PAGES_PER_MIB
            if self.controller.squeezed.reserve_mib >= left_mib:
                rule = f"below what Xen and dom0 leave of a host ({left_mib} MiB)"
                remedy = "try controller.squeezed.reserve_mib=72"
                _fail("controller.squeezed.reserve_mib", rule, self.controller.squeezed.reserve_mib, remedy)

    def _check_autoballoon(self) -> None:
        """That nobody else frees memory for starts: xl asks dom0 for what a start needs, and a controller, or XAPI,
        wants more to be free than that (D3.2).
        """
        other = f"controller={self.controller.name}" if self.controller.name != "static" else ""
        if self.host.toolstack == "xapi":
            other = "host.toolstack=xapi"
        if other:
            sized = "" if self.host.autoballoon == "true" else " (or host.dom0_mib be given)"
            raise ConfigError(
                f"host.autoballoon must be false{sized} with {other}, got {self.host.autoballoon}: dom0 shrinks for "
                "starts under xl alone, try host.autoballoon=false host.dom0_mib=2048"
            )

    @property
    def _sizes_gib(self) -> list[int]:
        return self.cluster.host_sizes_gib or [self.cluster.host_mem_gib]

    @property
    def usable_pages(self) -> int:
        """U of the largest host: no machine can have more [pages]."""
        return max(self.usable_pages_of(gib) for gib in set(self._sizes_gib))

    def usable_pages_of(self, host_mem_gib: int) -> int:
        """U: RAM of a host less Xen and the least that dom0 can be brought down to [pages]."""
        left_mib = host_mem_gib * MIB_PER_GIB - self.host.xen_mib_of(host_mem_gib)
        return (left_mib - self.host.dom0_mib_least(left_mib, self.controller)) * PAGES_PER_MIB

    @property
    def guests(self) -> dict[str, GuestConfig]:
        """The guest classes that machines may have, now or once they are installed, by `os_class`."""
        return {**self.installed, **(self.classes or {self.guest.os_class: self.guest})}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as they are written into the metadata of results."""
        found: dict[str, Any] = plain(asdict(self))
        return found

    def digest(self) -> str:
        """Name this configuration in 12 hex digits; equal configurations have equal names."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return sha256(text.encode()).hexdigest()[:12]


def plain(value: Any) -> Any:
    """Nested plain values with infinity, which JSON does not know, as the text `.inf`."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return ".inf" if value == float("inf") else value


@dataclass(kw_only=True)
class Cell:
    """One cell of a study: the typed values that set it apart from its neighbours, and its configuration."""

    config: Config
    axes: dict[str, AxisValue] = field(default_factory=dict)
