"""Rows of what hosts tell: of domains, of hosts, and of what happened.

What        `DomainRow`, `HostRow`, `EventRow`; the Parquet schemas and `docs/columns.md` are generated from the `unit`
            and `doc` of each column, so that a column is described in one place.
Units       Those of each column.
Symbols     M maxmem_pages   T memory_pages (the target)   U usable_pages   E entry_count   C cache_count
            W(t) the demand
Invariants  Every field has a non-blank unit and doc. All columns are a function of configuration and seed.
Departs     What belongs to no host has host_id -1 rather than a null, so that the column stays an integer in every
            reader; an event that concerns no domain has domain_id -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from podcluster.records.values import Sent, column

NO_DOMAIN: Final = -1
"""domain_id of events that concern no domain."""

NO_HOST: Final = -1
"""host_id of a domain that no host took, and of the samples that sum over all hosts."""


@dataclass(frozen=True, slots=True)
class DomainRow(Sent):
    """One boot attempt, key (domain_id, attempt); the counters are those at the end (at the death, if it died)."""

    domain_id: int = column("1", "Number of the domain in its run, given by the workload and kept over attempts.")
    attempt: int = column("1", "Which boot of this domain, or stay on another host, from 1.")
    origin: str = column("-", "How it came to its host: one of records.fates.ORIGINS.", label=True)
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
    fate: str = column("-", "How it ended: one of records.fates.FATES.", label=True)
    cause: str = column("-", "Why, where the fate alone does not say: one of records.fates.CAUSES.", label=True)
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
    moved_pages: int = column(
        "pages", "Sum of the changes of its tot_pages, up or down, since a controller first set its target."
    )
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
class EventRow(Sent):
    """Something that happened, in order of time, then host, then occurrence."""

    t_ns: int = column("ns", "Simulated time.")
    host_id: int = column("1", "Host; -1 when none is concerned.")
    domain_id: int = column("1", "Domain; -1 when none is concerned.")
    attempt: int = column("1", "Which boot of the domain; 0 when none is concerned.")
    kind: str = column("-", "What: one of records.fates.EVENT_KINDS.", label=True)
    text: str = column("-", "In words: a reason, a log line, a size.")
