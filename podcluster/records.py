"""The words every part of podcluster exchanges: requests, views, commands, reports and the rows of the tables.

What        Plain frozen dataclasses; no behaviour beyond reading a demand curve at an instant and samples by row. The
            Parquet schemas and `docs/columns.md` are generated from the `unit` and `doc` metadata of the row classes,
            so that a column is described in one place.
Units       The last word of a name: `_pages` are 4 KiB pages and `_ns` nanoseconds, both ints; `_mib`, `_s` likewise.
Symbols     M maxmem_pages   T memory_pages (the target)   U usable_pages (RAM less Xen and dom0)
            E entry_count    C cache_count                 W(t) Demand
Invariants  Every field of a row class has a non-blank unit and doc. Columns whose names begin with `wall_` or
            `engine_` describe the run of the program; all others are a function of configuration and seed.
Departs     A domain or sample that belongs to no host has host_id -1 rather than a null, so that the column stays an
            integer in every reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Final, Literal, Protocol, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from podcluster.units import NS_PER_S

Int64Array: TypeAlias = NDArray[np.int64]

# --- fates and causes -------------------------------------------------------------------------------------------------

Fate = Literal[
    "running",
    "shut_down",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "build_failed",
    "rejected",
    "host_failed",
    "migrated",
]
FATES: Final[tuple[Fate, ...]] = (
    "running",  # alive when the run ended
    "shut_down",  # left at its departure time
    "pod_oom",  # Xen killed it: an access of its own found no page
    "pod_oom_by_other",  # the same, on another domain's access
    "guest_panic",  # balloon bug, boot barrier, no memory to boot
    "ept_violation",  # the paging pool ran dry
    "build_failed",  # the toolstack gave up; the cause says why
    "rejected",  # no host would take it
    "host_failed",
    "migrated",
)

Cause = Literal[
    "",
    "debt",  # distinct non-zero pages passed what it owns (G11): no reclaim could have helped
    "preempt",  # died below that limit: a sweep was cut off for pending work, with zero pages further down
    "wrap",  # a sweep reached the bottom, with zero pages above where it began
    "ring",  # zero pages were left that no sweep ever looks at, and the recent list no longer named
    "table_conflict",  # rfc2009: Xen was to put a superpage where a page table hung (R1); want of memory had no part
    "reclaim_short",  # died below that limit, no zero page that a check would have taken being left
    "balloon_bug",
    "boot_barrier",
    "no_memory_to_boot",
    "claim_failed",
    "no_memory",
    "dom0_short",
    "paging_pool",
    "refused",  # by the toolstack: populate-on-demand with passthrough, virtual NUMA, alternate p2m (E10)
    "memory_constraint",  # XAPI: the memory settings are not allowed (E15)
    "host_memory",  # XAPI: the host has not enough free memory (E13)
    "vms_failed_to_cooperate",  # squeezed: guests that were to give memory did not (E14)
    "rebooted",  # it shut down so as to be started again: an installer that is done
    "still_waiting",  # it left, or the run ended, before there was memory for it
    "no_host",
    "too_large",
    "lost_race",  # every host that was tried had less than an old view of it said
]
CAUSES: Final[tuple[Cause, ...]] = (
    "",
    "debt",
    "preempt",
    "wrap",
    "ring",
    "table_conflict",
    "reclaim_short",
    "balloon_bug",
    "boot_barrier",
    "no_memory_to_boot",
    "claim_failed",
    "no_memory",
    "dom0_short",
    "paging_pool",
    "refused",
    "memory_constraint",
    "host_memory",
    "vms_failed_to_cooperate",
    "rebooted",
    "still_waiting",
    "no_host",
    "too_large",
    "lost_race",
)

Origin = Literal["boot", "restart", "ha", "migration"]
ORIGINS: Final[tuple[Origin, ...]] = (
    "boot",  # asked for by the workload
    "restart",  # built again on its host after a crash
    "ha",  # started on another host, its own having failed
    "migration",  # came from another host with what it had: no boot
)

EventKind = Literal[
    "place",
    "reject",
    "lost_race",
    "build_failed",
    "build_done",
    "boot_done",
    "balloon_done",
    "balloon_gave_up",
    "balloon_refused",
    "set_target",
    "uncooperative",
    "set_max",
    "attach",
    "over_allocation",
    "low_memory",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "oom_kill",
    "shut_down",
    "destroy",
    "restart",
    "host_failed",
    "host_recovered",
    "ha_restart",
    "ha_waits",
    "evacuate",
    "enabled",
    "rebalance",
    "migrate",
    "migrate_refused",
    "migrate_done",
]
EVENT_KINDS: Final[tuple[EventKind, ...]] = (
    "place",
    "reject",
    "lost_race",
    "build_failed",
    "build_done",
    "boot_done",
    "balloon_done",
    "balloon_gave_up",
    "balloon_refused",
    "set_target",
    "uncooperative",
    "set_max",
    "attach",
    "over_allocation",
    "low_memory",
    "pod_oom",
    "pod_oom_by_other",
    "guest_panic",
    "ept_violation",
    "oom_kill",
    "shut_down",
    "destroy",
    "restart",
    "host_failed",
    "host_recovered",
    "ha_restart",
    "ha_waits",
    "evacuate",
    "enabled",
    "rebalance",
    "migrate",
    "migrate_refused",
    "migrate_done",
)

NO_DOMAIN: Final = -1
"""domain_id of events that concern no domain."""

NO_HOST: Final = -1
"""host_id of a domain that no host took, and of the samples that sum over all hosts."""


class _Sent:
    """What goes from process to process by the thousand: written and made again by its values, in order. What
    dataclasses with slots have for that looks their fields up each time, and takes two to three times as long.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        kind: Any = type(self)
        return kind, _values_of(kind)(self)


@cache
def _values_of(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of all fields."""
    return attrgetter(*(one.name for one in fields(kind)))


# --- what a workload asks for -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """W(t): the pages a guest wants to use, linear between samples and flat after the last (and before the first).

    `t_ns` is simulated time since the start of the run (not since boot, so that bursts shared by many machines stay
    shared however their boots are spread), strictly increasing, first sample at 0. Both arrays are int64 of one length.
    """

    t_ns: Int64Array
    pages: Int64Array

    @staticmethod
    def flat(pages: int) -> Demand:
        """The same demand at all times [pages]."""
        return Demand(np.zeros(1, dtype=np.int64), np.array([pages], dtype=np.int64))

    def at(self, t_ns: int) -> int:
        """W(t_ns) in pages, rounded down; exact in integers, so every caller sees the same number."""
        right = int(self.t_ns.searchsorted(t_ns, "right"))
        if right == 0:
            return int(self.pages[0])
        if right == len(self.t_ns):
            return int(self.pages[-1])
        t0, t1 = self.t_ns[right - 1 : right + 1].tolist()
        p0, p1 = self.pages[right - 1 : right + 1].tolist()
        # Python integers: (p1 - p0) * (t - t0) passes 2**63 for a guest of 256 GiB within one 300 s sample.
        return int(p0 + (p1 - p0) * (t_ns - t0) // (t1 - t0))

    def at_each(self, first_ns: int, step_ns: int, count: int) -> Int64Array:
        """`at` of `count` instants `step_ns` apart, int64[count]."""
        instants = first_ns + step_ns * np.arange(count, dtype=np.int64)
        right = np.searchsorted(self.t_ns, instants, side="right")
        low, high = np.maximum(right - 1, 0), np.minimum(right, len(self.t_ns) - 1)
        t0, p0 = self.t_ns[low], self.pages[low]
        span, rise, past = self.t_ns[high] - t0, self.pages[high] - p0, instants - t0
        flat = low == high
        # Whole seconds where all is in whole seconds, so that the product stays small.
        if not (first_ns % NS_PER_S or step_ns % NS_PER_S or (t0 % NS_PER_S).any() or (span % NS_PER_S).any()):
            span, past = span // NS_PER_S, past // NS_PER_S
        span[flat], past[flat] = 1, 0
        if int(np.abs(rise).max(initial=0)) * int(past.max(initial=0)) >= 1 << 63:
            return np.array([self.at(int(t_ns)) for t_ns in instants], dtype=np.int64)
        found: Int64Array = p0 + rise * past // span
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy elsewhere takes a quarter of the bytes where instants are a grid and sizes below 8 TiB, as nearly all
        are: what hosts are sent, and are kept with, is mostly this.
        """
        first_ns, step_ns = int(self.t_ns[0]), int(np.diff(self.t_ns[:2]).sum())
        grid = (np.diff(self.t_ns) == step_ns).all()
        small = self.pages.min() >= 0 and self.pages.max() < 1 << 31
        t_ns = (first_ns, step_ns, len(self.t_ns)) if grid else self.t_ns
        return _demand_of, (t_ns, self.pages.astype(np.int32) if small else self.pages)


def _demand_of(t_ns: tuple[int, int, int] | Int64Array, pages: NDArray[np.integer[Any]]) -> Demand:
    """What `Demand.__reduce__` was called of."""
    return Demand(_grid(*t_ns) if isinstance(t_ns, tuple) else t_ns, pages.astype(np.int64))


@lru_cache(maxsize=64)
def _grid(first_ns: int, step_ns: int, count: int) -> Int64Array:
    """Instants at equal distances, once for all who share them."""
    return first_ns + step_ns * np.arange(count, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class MachineRequest(_Sent):
    """One machine the workload wants started: sizes in pages, times in ns of simulated time.

    `memory_pages` is the target it starts with (dynamic_min), at most `maxmem_pages`; `departure_ns` None means it
    stays to the end of the run. `attempt` counts boots of the same domain from 1, and its stays on other hosts;
    `origin` says how it came to this one. `hold_ns` is how long memory stays held after its last use, -1 for as long
    as the guest lives.
    """

    domain_id: int
    attempt: int
    name: str
    os_class: str
    vcpus: int
    maxmem_pages: int
    memory_pages: int
    arrival_ns: int
    departure_ns: int | None
    demand: Demand
    hold_ns: int = -1
    origin: Origin = "boot"


@dataclass(frozen=True, slots=True, eq=False)
class MachineTable:
    """Machines and their memory use as read from a trace: columns of numpy, no file format in sight.

    Machine i has `machine_id[i]`, `vcpus[i]`, `maxmem_kib[i]` (as recorded) and the samples
    `offsets[i]:offsets[i + 1]` of `t_s` (seconds from `epoch_s`, strictly increasing within a machine) and `used_kib`
    (0 <= used <= maxmem). `source` names the trace in notes and figures; `notes` say in one line each what was clamped,
    filled or dropped on the way in.
    """

    source: str
    epoch_s: int
    end_s: int
    machine_id: Int64Array
    vcpus: Int64Array
    maxmem_kib: Int64Array
    offsets: Int64Array
    t_s: Int64Array
    used_kib: Int64Array
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LifeTable:
    """Machines that come and go, as read from a trace that says nothing of what memory they use.

    Machine i arrives `arrival_s[i]` seconds from `epoch_s`, in order, together with all of its `batch[i]`; it lives
    for at least `least_life_s[i]` and at most `most_life_s[i]`, or, where not `leaves[i]`, beyond `end_s`.
    """

    source: str
    epoch_s: int
    end_s: int
    machine_id: Int64Array
    batch: Int64Array
    vcpus: Int64Array
    maxmem_kib: Int64Array
    arrival_s: Int64Array
    least_life_s: Int64Array
    most_life_s: Int64Array
    leaves: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """The machines of one run in order of arrival, with what was left out of the source and why.

    `resample` is the scheme actually used (`none`, `machines`, `machines_days`); `conditional_on` names the data that
    every number of this run is conditional on, or is empty where the machines are drawn.
    """

    requests: tuple[MachineRequest, ...]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    resample: str = "none"
    conditional_on: str = ""


# --- placement --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One machine of the cluster [pages]; `usable_pages` (U) is RAM less Xen's own and dom0's; `cpus` it has."""

    host_id: int
    ram_pages: int
    usable_pages: int
    cpus: int = 0


@dataclass(frozen=True, slots=True)
class HostView(_Sent):
    """What a scheduler knows of a host, as of `at_ns` [pages].

    `committed_pages` is the sum of need_memory (B3.1) of the domains there, `overhead_pages` what of it is not their
    memory, both with what the toolstack keeps free (D3.2); `promised_pages` the sum of their maxmem, `free_pages` what
    the host's heap has free. A host says so much itself. What follows in the second half the scheduler adds from its
    own book: CPUs and vCPUs, present targets and demand as last sampled, sums of what its forecast says of the domains
    (mean demand, and its variance in MiB squared), and when the last of them is to leave (0: nobody is there).
    """

    host_id: int
    usable_pages: int
    committed_pages: int
    promised_pages: int
    free_pages: int
    domains: int
    at_ns: int
    overhead_pages: int = 0
    cpus: int = 0
    vcpus: int = 0
    target_pages: int = 0
    demanded_pages: int = 0
    mean_pages: int = 0
    var_mib2: int = 0
    leaves_ns: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What placement needs to know of a request [pages]: need_memory, maxmem, and what of the need is not memory.

    The second half is for the policies and rules that look at it: vCPUs, forecast demand (mean, and variance in MiB
    squared), forecast departure, and the groups of which it is a member (empty: of none).
    """

    need_pages: int
    maxmem_pages: int
    overhead_pages: int = 0
    domain_id: int = 0
    vcpus: int = 0
    mean_pages: int = 0
    var_mib2: int = 0
    arrival_ns: int = 0
    leaves_ns: int = 0
    affinity: str = ""
    anti_affinity: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """No host took a request: why in words for the user, and as the cause its row carries."""

    reason: str
    cause: Cause = "no_host"


# --- commands to a host -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class StartDomain(_Sent):
    """Build and boot this machine at `at_ns`."""

    at_ns: int
    request: MachineRequest


@dataclass(frozen=True, slots=True)
class StopDomain:
    """Shut the domain down at `at_ns`."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True, eq=False)
class GuestState:
    """What goes with a domain that migrates: plain numbers, and runs of gfns (first, count), of no host in particular.

    `boot` is what was drawn for its boot, in the order of `guest_boot.Boot`; `data` are the gfns of RAM that hold data,
    `balloon` those that the balloon holds, in order; `pool` and `taken` what the guest's allocator has to give, and
    gave. `held` of services and applications are `resident` pages in memory and the rest on swap.
    """

    request: MachineRequest
    left_ns: int
    up_ns: int
    boot: tuple[int, ...]
    target_pages: int
    xenstore_target_kib: int
    static_max_kib: int
    limit_pages: int
    tot_pages: int
    data: tuple[tuple[int, int], ...]
    balloon: tuple[tuple[int, int], ...]
    pool: tuple[tuple[int, int], ...]
    taken: tuple[tuple[int, int], ...]
    kernel_allocated: int
    resident: int
    cache: int
    held: int
    floor: int
    killed: bool
    swap_free_ns: int
    driver_faulty: bool


@dataclass(frozen=True, slots=True)
class MigrateOut:
    """Bring a domain down to its dynamic minimum, for `wait_ns` at most, and ask for room for what it then has: that is
    in the report of the epoch (D4.7). It stays if that is more than the `most_pages` that the receiver can give. Told
    to go, it is copied at `pages_per_s` and let go of: its state is in the report of the epoch in which that is done.
    """

    at_ns: int
    domain_id: int
    wait_ns: int
    pages_per_s: int
    most_pages: int


@dataclass(frozen=True, slots=True)
class MigrateGo:
    """There is room where this domain is to go: copy it."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class MigrateStay:
    """There is none: let this domain stay as it is."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True, eq=False)
class KeepRoom:
    """Make room for a domain that runs on another host and has `pages` there; what comes of it is in a report."""

    at_ns: int
    request: MachineRequest
    pages: int


@dataclass(frozen=True, slots=True)
class DropRoom:
    """A domain for which room was to be made does not come."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True, eq=False)
class MigrateIn:
    """Let a domain go on here that comes from another host, in the room that was kept for it, if any was."""

    at_ns: int
    state: GuestState


@dataclass(frozen=True, slots=True)
class SetTarget:
    """`xl mem-set`: ask for a new target [pages] at `at_ns`."""

    at_ns: int
    domain_id: int
    target_pages: int


@dataclass(frozen=True, slots=True)
class SetMaxMem:
    """`xl mem-max`: set a new limit and static-max [pages] at `at_ns`."""

    at_ns: int
    domain_id: int
    maxmem_pages: int


@dataclass(frozen=True, slots=True)
class AttachDevice:
    """`xl pci-attach`: pass a device of the host's through at `at_ns`."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class FailHost:
    """The host dies at `at_ns` with all that runs on it or waits there; it stands empty until it is switched on again,
    which is for the cluster to know.
    """

    at_ns: int


@dataclass(frozen=True, slots=True)
class EndWarmup:
    """Means and peaks of the host's row begin anew at `at_ns`."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Close:
    """The run ends at `at_ns`: report a row for everything still running and one for the host."""

    at_ns: int


Command: TypeAlias = (
    StartDomain
    | StopDomain
    | SetTarget
    | SetMaxMem
    | AttachDevice
    | MigrateOut
    | MigrateGo
    | MigrateStay
    | KeepRoom
    | DropRoom
    | MigrateIn
    | FailHost
    | EndWarmup
    | Close
)


# --- rows -------------------------------------------------------------------------------------------------------------


def column(unit: str, doc: str, *, label: bool = False, arrow: str = "") -> Any:
    """A dataclass field that is a table's column: `unit` ("1" for pure numbers, "-" for text) and a one-line `doc`.

    `label` marks text of few distinct values (stored as a dictionary); `arrow` overrides the stored type, which
    otherwise follows the annotation (int -> int64, float -> float64, str -> string, `| None` -> nullable).
    """
    return field(metadata={"unit": unit, "doc": doc, "label": label, "arrow": arrow})


@dataclass(frozen=True, slots=True)
class DomainRow(_Sent):
    """One boot attempt, key (domain_id, attempt); the counters are those at the end (at the death, if it died)."""

    domain_id: int = column("1", "Number of the domain in its run, given by the workload and kept over attempts.")
    attempt: int = column("1", "Which boot of this domain, or stay on another host, from 1.")
    origin: str = column("-", "How it came to its host: one of records.ORIGINS.", label=True)
    name: str = column("-", "Name of the machine in its source.")
    host_id: int = column("1", "Host it was started on; -1 when no host took it.")
    os_class: str = column("-", "Guest class: a file in conf/guest.", label=True)
    vcpus: int = column("1", "Virtual CPUs.")
    maxmem_pages: int = column("pages", "Most memory the guest can ever see (M; xl.cfg maxmem, xapi static-max).")
    memory_pages: int = column("pages", "Target it was asked for with (T; xl.cfg memory, dynamic-min).")
    start_pages: int = column("pages", "Target it was built with: memory, or more from a controller; 0: never built.")
    arrival_ns: int = column("ns", "When it was asked for.")
    boot_start_ns: int | None = column("ns", "When its build began; null when it was rejected.")
    boot_done_ns: int | None = column("ns", "When its services were up; null when it never got there.")
    boot_delay_ns: int | None = column("ns", "Boot time beyond that of the same guest never held up for memory.")
    end_ns: int = column("ns", "When it ended, or the end of the run.")
    fate: str = column("-", "How it ended: one of records.FATES.", label=True)
    cause: str = column("-", "Why, where the fate alone does not say: one of records.CAUSES.", label=True)
    oom_line: str = column("-", "The out-of-memory line exactly as Xen logs it, or empty.")
    tot_pages: int = column("pages", "Pages it owned (Xen's tot_pages).")
    entry_count: int = column("pages", "gfns marked populate-on-demand and not yet backed (E).")
    cache_count: int = column("pages", "Pages in its populate-on-demand cache (C).")
    nonzero_pages_peak: int = column(
        "pages",
        "Peak of distinct pages that hold data and are not ballooned, by the guest's own count; video RAM and ROMs, "
        "which it owns too, and the page it died writing are among them.",
    )
    margin_pages: int = column(
        "pages",
        "Least over time of tot_pages less distinct non-zero pages: what was left before it must have died (G11).",
    )
    working_pages_peak: int = column("pages", "Peak of W(t), what it wanted to use.")
    ballooned_pages: int = column("pages", "Pages its balloon holds.")
    balloon_gave_up: int = column("1", "Times the balloon driver stopped short of its target.")
    populated_4k: int = column("1", "Demand populates of one page.")
    populated_2m: int = column("1", "Demand populates of a superpage.")
    reclaimed_4k: int = column("1", "Single zero pages taken back.")
    reclaimed_2m: int = column("1", "Zero superpages taken back.")
    splintered_2m: int = column("1", "Superpage entries split because the cache held no superpage.")
    sweeps: int = column("1", "Emergency sweeps for zero pages.")
    sweep_looks: int = column("1", "gfns that emergency sweeps looked at, whatever was there.")
    hypervisor_ns: int = column("ns", "Time that Xen spent on its accesses and hypercalls, its lock held.")
    debt_ns: int = column("ns", "Time from its build until its entries were no more than its cache (E = C).")
    swap_ns: int = column("ns", "Time lost to swapping: it waited for its swap device, or for pages it missed.")
    swap_in_pages: int = column("pages", "Pages that came in from swap because they were wanted; readahead aside.")
    swap_out_pages: int = column("pages", "Pages that went out to swap.")
    swapped_pages_peak: int = column("pages", "Peak of pages in its swap.")
    oom_kills: int = column("1", "Applications killed inside the guest for want of memory.")
    slowdown: float = column("1", "Time since boot over the part of it not lost to swapping; 1 is no slowdown.")


@dataclass(frozen=True, slots=True)
class HostRow:
    """One host in one run; means are over simulated time."""

    host_id: int = column("1", "Host.")
    ram_pages: int = column("pages", "Memory of the machine.")
    usable_pages: int = column("pages", "U: RAM less Xen's own and dom0's.")
    domains_started: int = column("1", "Boot attempts that began here.")
    domains_died: int = column("1", "Of these, how many Xen or their own kernel killed, or failed to build.")
    domains_peak: int = column("1", "Most domains at once.")
    promised_pages_peak: int = column("pages", "Peak of the sum of maxmem.")
    promised_pages_mean: float = column("pages", "Mean of the sum of maxmem.")
    target_pages_peak: int = column("pages", "Peak of the sum of targets.")
    target_pages_mean: float = column("pages", "Mean of the sum of targets.")
    owned_pages_peak: int = column("pages", "Peak of the sum of tot_pages.")
    owned_pages_mean: float = column("pages", "Mean of the sum of tot_pages.")
    populated_pages_peak: int = column("pages", "Peak of gfns backed by a frame.")
    populated_pages_mean: float = column("pages", "Mean of gfns backed by a frame.")
    demanded_pages_peak: int = column("pages", "Peak of demanded_pages on the grid of samples.")
    demanded_pages_mean: float = column("pages", "Mean of demanded_pages on the grid of samples.")
    free_pages_min: int = column("pages", "Least free memory in the heap.")
    free_pages_mean: float = column("pages", "Mean free memory in the heap.")
    superpage_share: float | None = column("1", "Share of populated pages under 2 MiB or larger entries at the end.")
    controller_actions: int = column("1", "Targets, limits and flags that a memory controller wrote.")
    target_changes: int = column("1", "Targets written, by a controller or by a command.")
    moved_pages: int = column("pages", "Sum of the changes of tot_pages, up or down, that a controller asked for.")
    uncooperative: int = column("1", "Times that a controller marked a domain as not co-operating.")
    starts_waited_ns: int = column("ns", "Time that starts waited for memory, those in vain included.")


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One instant of one host, or of all (host_id -1)."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host; -1 is the sum over all hosts.")
    promised_pages: int = column("pages", "Sum of maxmem of the domains there.")
    target_pages: int = column("pages", "Sum of their targets.")
    owned_pages: int = column("pages", "Sum of their tot_pages.")
    populated_pages: int = column("pages", "gfns backed by a frame.")
    demanded_pages: int = column("pages", "What guests want: sum of W(t); while one boots, what it has taken.")
    cache_pages: int = column("pages", "Pages in populate-on-demand caches.")
    entry_pages: int = column("pages", "gfns marked populate-on-demand and not yet backed.")
    free_pages: int = column("pages", "Free memory in the heap.")
    domains_running: int = column("1", "Domains alive.")
    deaths: int = column("1", "Domains dead since the start of the run.")


@dataclass(frozen=True, slots=True)
class MachineSampleRow:
    """One instant of one machine."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host that it is on.")
    domain_id: int = column("1", "Machine, with a domain there that lives.")
    target_pages: int = column("pages", "Its target.")
    owned_pages: int = column("pages", "Its tot_pages.")
    demanded_pages: int = column("pages", "What it wants: W(t); while it boots, what it has taken.")


def _names(row: type[Any]) -> tuple[str, ...]:
    return tuple(item.name for item in fields(row))


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock(Sequence[Any]):
    """Many rows of numbers by column: a long run has millions, which never are objects on their way.

    `columns` is int64[column, row], a line for each field of ROW. As a sequence it is the rows one by one, for who
    looks at a few.
    """

    ROW: ClassVar[type[Any]]
    NAMES: ClassVar[tuple[str, ...]]  # of its fields, in order
    columns: Int64Array

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """These rows."""
        names = cls.NAMES
        listed = [[getattr(row, name) for name in names] for row in rows]
        return cls(np.array(listed, dtype=np.int64).reshape(-1, len(names)).T.copy())

    @classmethod
    def join(cls, blocks: Iterable[Self]) -> Self:
        """Their rows, one block after another."""
        columns = [block.columns for block in blocks]
        return cls(np.concatenate(columns, axis=1) if columns else np.zeros((len(cls.NAMES), 0), dtype=np.int64))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.columns,)  # as `_Sent`

    def column(self, name: str) -> Int64Array:
        """One column, int64[rows]."""
        found: Int64Array = self.columns[self.NAMES.index(name)]
        return found

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and np.array_equal(self.columns, other.columns)

    def __hash__(self) -> int:
        return hash(self.columns.tobytes())

    def __len__(self) -> int:
        return int(self.columns.shape[1])

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self.columns[:, index])
        return self.ROW(*self.columns[:, index].tolist())


class SampleBlock(RowBlock):
    """Samples of hosts."""

    __slots__ = ()
    ROW = SampleRow
    NAMES = _names(SampleRow)


class MachineSampleBlock(RowBlock):
    """Samples of machines."""

    __slots__ = ()
    ROW = MachineSampleRow
    NAMES = _names(MachineSampleRow)


NO_SAMPLES: Final = SampleBlock.join(())
NO_MACHINE_SAMPLES: Final = MachineSampleBlock.join(())


@dataclass(frozen=True, slots=True)
class EventRow(_Sent):
    """Something that happened, in order of time, then host, then occurrence."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host; -1 when none is concerned.")
    domain_id: int = column("1", "Domain; -1 when none is concerned.")
    attempt: int = column("1", "Which boot of the domain; 0 when none is concerned.")
    kind: str = column("-", "What: one of records.EVENT_KINDS.", label=True)
    text: str = column("-", "In words: a reason, a log line, a size.")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One replication of one cell."""

    hosts: int = column("1", "Hosts in the cluster.")
    ram_pages: int = column("pages", "Memory of all hosts.")
    usable_pages: int = column("pages", "U: usable memory of all hosts.")
    duration_ns: int = column("ns", "Simulated time.")
    warmup_ns: int = column(
        "ns",
        "Warm-up: boot attempts of before are not counted here, and means and peaks are of the time after it.",
    )
    resample: str = column("-", "How machines were drawn: none, machines, machines_days.", label=True)
    conditional_on: str = column("-", "Data that every number here is conditional on; empty when drawn.", label=True)
    machines_left_out: int = column("1", "Machines of the source that took no part.")
    requests: int = column("1", "Machines asked for.")
    restarts: int = column(
        "1", "Starts beyond these: after a crash by host.on_crash=restart, after a reboot by host.on_reboot."
    )
    host_failures: int = column("1", "Hosts that failed.")
    ha_restarts: int = column("1", "Starts beyond these: of domains whose host had failed.")
    migrations: int = column("1", "Domains that came from another host with what they had.")
    boots_started: int = column("1", "Builds begun.")
    boots_done: int = column("1", "Guests that came up.")
    static_ratio_mean: float = column("1", "Mean over time of sum of maxmem / U: what was promised.")
    static_ratio_max: float = column("1", "Maximum over time of sum of maxmem / U.")
    placed_ratio: float = column(
        "1", "Maximum over time of sum of maxmem / U, machines that died counted until they were to leave."
    )
    target_ratio_mean: float = column("1", "Mean over time of sum of targets / U.")
    target_ratio_max: float = column("1", "Maximum over time of sum of targets / U.")
    commit_ratio_mean: float = column("1", "Mean over time of owned / U; never above 1.")
    commit_ratio_max: float = column("1", "Maximum over time of owned / U; never above 1.")
    demand_ratio_mean: float = column("1", "Mean over time of what guests want / U.")
    demand_ratio_max: float = column("1", "Maximum over time of what guests want / U.")
    hosts_used_max: int = column("1", "Maximum over time of hosts that were not empty.")
    hosts_bound: int = column(
        "1", "Hosts that no packing of the domains there at the fullest instant could do without (L1, L2; LP if asked)."
    )
    packing_density_mean: float | None = column("1", "Committed memory of hosts that were not empty, over their U.")
    empty_hosts_mean: float = column("1", "Mean over time of the share of hosts that were empty.")
    stranded_mean: float = column(
        "1", "Mean over time of uncommitted memory on hosts without vCPUs left for the smallest machine, over U."
    )
    lost_races: int = column("1", "Placements that a host refused, having less than an old view of it said.")
    fate_running: int = column("1", "Boot attempts still running at the end.")
    fate_shut_down: int = column("1", "Boot attempts that left at their time, or by themselves.")
    fate_pod_oom: int = column("1", "Boot attempts that Xen killed for want of populate-on-demand memory.")
    fate_pod_oom_by_other: int = column("1", "The same, killed on another domain's access.")
    fate_guest_panic: int = column("1", "Boot attempts whose own kernel gave up.")
    fate_ept_violation: int = column("1", "Boot attempts that ran out of page-table memory.")
    fate_build_failed: int = column("1", "Boot attempts whose build the toolstack gave up.")
    fate_rejected: int = column("1", "Requests no host took.")
    fate_host_failed: int = column("1", "Boot attempts lost with their host.")
    fate_migrated: int = column("1", "Boot attempts that moved to another host.")
    domain_s: float = column("s", "Sum over boot attempts of the time from build to end.")
    after_warmup_s: float = column("s", "Time after the warm-up of all domains, those of before it included.")
    crashes: int = column("1", "Domains that Xen killed after the warm-up for want of populate-on-demand memory.")
    debt_s: float = column("s", "Sum over boot attempts of the time until their entries were no more than their cache.")
    boot_delay_ns_mean: float | None = column("ns", "Mean boot delay of the guests that came up.")
    swap_ns: int = column("ns", "Sum over boot attempts of the time spent swapping.")
    swap_share: float = column("1", "Time spent swapping over all domain time.")
    swapped_domains: int = column("1", "Boot attempts that swapped at all.")
    oom_kills: int = column("1", "Applications killed inside guests.")
    balloon_gave_up: int = column("1", "Times a balloon driver stopped short.")
    target_changes: int = column("1", "Targets written, by controllers or by commands.")
    moved_pages: int = column("pages", "Sum of the changes of tot_pages, up or down, that controllers asked for.")
    uncooperative: int = column("1", "Times that a controller marked a domain as not co-operating.")
    starts_waited_ns: int = column("ns", "Time that starts waited for memory, those in vain included.")
    sweeps: int = column("1", "Emergency sweeps for zero pages.")
    margin_pages_min: int | None = column("pages", "Least margin of a boot attempt that had a guest.")
    wall_s: float = column("s", "Wall time of the simulation.")
    engine_kind: str = column("-", "Where the hosts lived: inline or ray.", label=True)
    engine_actors: int = column("1", "Actors that held them; 0 in this process.")


@dataclass(frozen=True, slots=True)
class CellRow:
    """One cell of a sweep over its replications.

    Of each rate: `_numerator` and `_denominator` summed over replications and their ratio; a confidence interval
    `_low`, `_high` over replications (null with fewer than two); `_upper` the exact one-sided upper bound;
    `_low_pooled`, `_high_pooled` an interval that takes every trial for independent (Wilson for a proportion, exact
    Poisson for a rate over time); `_design_effect` the variance over replications over what that independence gives.
    """

    replications: int = column("1", "Replications the cell has.")
    confidence: float = column("1", "Confidence level of every interval and bound of this row.")
    resample: str = column("-", "How machines were drawn: none, machines, machines_days.", label=True)
    conditional_on: str = column("-", "Data that every number here is conditional on; empty when drawn.", label=True)
    hosts_mean: float = column("1", "Mean number of hosts.")
    usable_pages_mean: float = column("pages", "Mean usable memory of all hosts.")
    requests: int = column("1", "Machines asked for, all replications.")
    boots_started: int = column("1", "Builds begun, all replications.")
    domain_days: float = column("day", "Domain time after the warm-up, all replications.")
    static_ratio: float = column(
        "1",
        "Realised sum of maxmem / U of the machines placed, dead or alive (placed_ratio): mean over replications.",
    )
    static_ratio_low: float | None = column("1", "Lower end of its interval over replications.")
    static_ratio_high: float | None = column("1", "Upper end of its interval over replications.")
    target_ratio: float = column("1", "Sum of targets / U: mean over time, then over replications.")
    commit_ratio: float = column("1", "Owned / U: mean over time, then over replications.")
    demand_ratio: float = column("1", "What guests want / U: mean over time, then over replications.")
    demand_ratio_max: float = column("1", "Maximum over time and replications of what guests want / U.")
    crash_per_boot: float | None = column("1", "pod_oom / boots started, all replications.")
    crash_per_boot_numerator: int = column("1", "Boot attempts that ended in pod_oom.")
    crash_per_boot_denominator: int = column("1", "Boots started.")
    crash_per_boot_low: float | None = column("1", "Lower end of the interval over replications.")
    crash_per_boot_high: float | None = column("1", "Upper end of the interval over replications.")
    crash_per_boot_upper: float | None = column("1", "Exact one-sided upper bound (Clopper-Pearson).")
    crash_per_boot_low_pooled: float | None = column("1", "Lower end of the pooled Wilson interval.")
    crash_per_boot_high_pooled: float | None = column("1", "Upper end of the pooled Wilson interval.")
    crash_per_boot_design_effect: float | None = column("1", "Variance over replications over the binomial variance.")
    crash_per_domain_day: float | None = column("1/day", "pod_oom per domain-day, all replications.")
    crash_per_domain_day_numerator: int = column("1", "Boot attempts that ended in pod_oom after the warm-up.")
    crash_per_domain_day_denominator: float = column("day", "Domain-days after the warm-up.")
    crash_per_domain_day_low: float | None = column("1/day", "Lower end of the interval over replications.")
    crash_per_domain_day_high: float | None = column("1/day", "Upper end of the interval over replications.")
    crash_per_domain_day_upper: float | None = column("1/day", "Exact one-sided upper bound (Poisson).")
    crash_per_domain_day_low_pooled: float | None = column("1/day", "Lower end of the pooled Poisson interval.")
    crash_per_domain_day_high_pooled: float | None = column("1/day", "Upper end of the pooled Poisson interval.")
    crash_per_domain_day_design_effect: float | None = column("1", "Variance over replications over Poisson's.")
    start_refused: float | None = column("1", "(rejected + build_failed) / starts asked for, all replications.")
    start_refused_numerator: int = column("1", "Boot attempts rejected or not built.")
    start_refused_denominator: int = column(
        "1", "Starts asked for: machines, and restarts after a crash, a reboot or a host's failure."
    )
    start_refused_low: float | None = column("1", "Lower end of the interval over replications.")
    start_refused_high: float | None = column("1", "Upper end of the interval over replications.")
    start_refused_upper: float | None = column("1", "Exact one-sided upper bound (Clopper-Pearson).")
    start_refused_low_pooled: float | None = column("1", "Lower end of the pooled Wilson interval.")
    start_refused_high_pooled: float | None = column("1", "Upper end of the pooled Wilson interval.")
    start_refused_design_effect: float | None = column("1", "Variance over replications over the binomial variance.")
    swap_share: float = column("1", "Time spent swapping over domain time: mean over replications.")
    swap_share_low: float | None = column("1", "Lower end of the interval over replications.")
    swap_share_high: float | None = column("1", "Upper end of the interval over replications.")
    swapped_domains: int = column("1", "Boot attempts that swapped at all, all replications.")
    oom_kills: int = column("1", "Applications killed inside guests, all replications.")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One measure of one cell of a sweep against the same of its baseline: the cell that differs in one axis alone.

    Both cells met the same machines with the same draws. A measure is a mean over the machines that have it in both;
    `low`, `high` and `sign_p` take the replication for the unit, what ends in `_pooled` takes every machine for one.
    """

    baseline_cell: str = column("-", "Name of the cell it is compared with.", label=True)
    measure: str = column("-", "What is compared, of a machine: one of study.pairs.MEASURES.", label=True)
    unit: str = column("-", "Unit of the values and of their difference.", label=True)
    replications: int = column("1", "Replications in which some machine has the measure in both cells.")
    machines: int = column("1", "Machines that have it in both cells, all replications.")
    confidence: float = column("1", "Confidence level of the intervals of this row.")
    baseline_value: float = column("as unit", "Mean over these machines in the baseline.")
    value: float = column("as unit", "Mean over the same machines here.")
    difference: float = column("as unit", "Value less baseline_value.")
    low: float | None = column("as unit", "Lower end of its interval over replications; null where they all agree.")
    high: float | None = column("as unit", "Upper end of its interval over replications; null where they all agree.")
    sign_p: float = column("1", "Exact two-sided sign test over the replications that differ; 1 where none does.")
    machines_higher: int = column("1", "Machines whose value is higher here.")
    machines_lower: int = column("1", "Machines whose value is lower here.")
    low_pooled: float | None = column("as unit", "Lower end of the pooled interval (Bonett-Price); events only.")
    high_pooled: float | None = column("as unit", "Upper end of the pooled interval (Bonett-Price); events only.")
    sign_p_pooled: float = column("1", "The sign test over machines; of an event this is McNemar's exact test.")


Row: TypeAlias = DomainRow | HostRow | SampleRow | MachineSampleRow | EventRow | RunRow | CellRow | PairRow


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table of a result: its row class, the columns its stored order sorts by, and whether it has replications.

    `of_sweep`: it relates cells to each other, so that only a sweep has it, and only where it asks for it.
    """

    row: type[Any]
    key: tuple[str, ...]
    per_replication: bool
    doc: str
    of_sweep: bool = False


TABLES: Final[Mapping[str, TableSpec]] = {
    "cells": TableSpec(CellRow, (), False, "One cell of a sweep, over its replications."),
    "runs": TableSpec(RunRow, (), True, "One replication of one cell."),
    "hosts": TableSpec(HostRow, ("host_id",), True, "One host in one run."),
    "domains": TableSpec(DomainRow, ("domain_id", "attempt"), True, "One boot attempt."),
    "samples": TableSpec(SampleRow, ("t_ns", "host_id"), True, "A time series, at the cadence asked for."),
    "machine_samples": TableSpec(
        MachineSampleRow,
        ("t_ns", "host_id", "domain_id"),
        True,
        "A time series of every machine that lives, at the cadence of samples, where it is asked for.",
    ),
    "events": TableSpec(EventRow, ("t_ns", "host_id"), True, "What happened when."),
    "pairs": TableSpec(PairRow, (), False, "One measure of a cell against its baseline (`study.baseline`).", True),
}
"""The sink adds `cell` and (but for cells) `replication` in front of each row, and a sweep's axes behind it; stored
rows are sorted by cell, replication and `key`, rows of equal key staying in the order they were written."""

BLOCKS: Final[Mapping[str, type[RowBlock]]] = {"samples": SampleBlock, "machine_samples": MachineSampleBlock}
"""Tables whose rows come in blocks."""


# --- reports of a host, and where rows go -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class RoomWanted:
    """A domain is ready to be copied, and has so many pages."""

    request: MachineRequest
    pages: int


@dataclass(frozen=True, slots=True)
class RoomAnswer:
    """What came of making room for a domain of another host: why there is none, or empty."""

    domain_id: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class HostReport(_Sent):
    """What a host says at the end of an epoch: its view, what ended, what happened; `host` only after Close.

    `wanted` is asked for by domains that are ready to go to another host, `departed` the state of those on their way
    there, `stayed` the domain_ids of those that were to go and do not; `answers` are about domains that are to come.
    """

    host_id: int
    now_ns: int
    view: HostView
    domains: tuple[DomainRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    samples: SampleBlock = NO_SAMPLES
    host: HostRow | None = None
    departed: tuple[GuestState, ...] = ()
    stayed: tuple[int, ...] = ()
    wanted: tuple[RoomWanted, ...] = ()
    answers: tuple[RoomAnswer, ...] = ()
    machine_samples: MachineSampleBlock = NO_MACHINE_SAMPLES

    @property
    def moving(self) -> bool:
        """Whether it says anything of domains that move."""
        return bool(self.departed or self.stayed or self.wanted or self.answers)


class Sink(Protocol):
    """Where rows go: `table` is a key of TABLES, the rows are of its row class; samples are a RowBlock."""

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Take these rows, in this order."""
