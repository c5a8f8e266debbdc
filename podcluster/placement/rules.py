"""When a host may take a request, and by what both are measured.

What        `Rules.fits` is the one rule of every policy. `Rules.size` and `Rules.room` measure a request and what a
            host has left, by what `placement.by` says; policies that compare hosts compare their rooms. For those that
            do not, sizes matter by their limit alone, so that the configuration wants a ratio there.
Units       Pages; a blend is in hundredths of a page, so that it stays an integer.
Symbols     U usable_pages
Invariants  [PLACE-1] committed + need <= U, whatever hosts are compared by
            [PLACE-2] maxmem <= U
            [PLACE-3] vCPUs <= vcpu_ratio x CPUs, where a ratio is given
            [PLACE-4] sum of sizes <= memory_ratio x U, where a ratio is given
            [PLACE-6] is of one policy alone (`chance_constrained.py`); where it holds, who is rejected is told of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any, Final

from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.units import PAGES_PER_MIB, pages_to_mib

BY: Final = ("dynamic_min", "target", "maxmem", "blend", "demand")
HUNDRED: Final = 100
NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Rules:
    """What a run places by.

    `by`: need_memory at dynamic_min; present targets; maxmem; `maxmem_percent` of maxmem and the rest of dynamic_min;
    demand as last sampled, or as forecast where no sample has seen it yet. All count overheads. `z`: standard
    deviations of demand that are to be within U, too [PLACE-6].
    """

    by: str = "dynamic_min"
    maxmem_percent: int = 50
    memory_ratio: Fraction | None = None
    vcpu_ratio: Fraction | None = None
    z: float | None = None

    @property
    def scale(self) -> int:
        """Units of size in a page."""
        return HUNDRED if self.by == "blend" else 1

    @property
    def pages_per_sd(self) -> float:
        """Pages that a MiB of standard deviation counts for [PLACE-6]."""
        return (self.z or 0.0) * PAGES_PER_MIB

    def size(self, ask: Any) -> Any:
        """What a request counts for: an int of an Ask, an array of a Batch."""
        if self.by == "maxmem":
            return ask.maxmem_pages + ask.overhead_pages
        if self.by == "blend":
            largest = ask.maxmem_pages + ask.overhead_pages
            return self.maxmem_percent * largest + (HUNDRED - self.maxmem_percent) * ask.need_pages
        if self.by == "demand":
            return ask.mean_pages + ask.overhead_pages
        return ask.need_pages

    def load(self, view: HostView) -> int:
        """What the domains of a host count for, and what its toolstack keeps free."""
        if self.by == "maxmem":
            return view.promised_pages + view.overhead_pages
        if self.by == "blend":
            largest = view.promised_pages + view.overhead_pages
            return self.maxmem_percent * largest + (HUNDRED - self.maxmem_percent) * view.committed_pages
        if self.by == "demand":
            return view.demanded_pages + view.overhead_pages
        if self.by == "target":
            return view.target_pages + view.overhead_pages
        return view.committed_pages

    def capacity(self, usable_pages: int) -> int:
        """What a host of U may count for."""
        return int(self.scale * usable_pages * (1 if self.memory_ratio is None else self.memory_ratio))

    def room(self, view: HostView) -> int:
        """What a host has left; below 0 where more is promised than its capacity, and no ratio forbids it."""
        return self.capacity(view.usable_pages) - self.load(view)

    def limit(self, view: HostView) -> int:
        """Most that a request may count for there [PLACE-4]."""
        return NO_LIMIT if self.memory_ratio is None else self.room(view)

    def cpu_capacity(self, cpus: int) -> int:
        """VCPUs that a host of so many CPUs may have."""
        return NO_LIMIT if self.vcpu_ratio is None else int(cpus * self.vcpu_ratio)

    def vcpus_left(self, view: HostView) -> int:
        """Most vCPUs that a request may have there [PLACE-3]."""
        return NO_LIMIT if self.vcpu_ratio is None else self.cpu_capacity(view.cpus) - view.vcpus

    def fits(self, ask: Ask, view: HostView) -> bool:
        """Whether this host may take the request: [PLACE-1] to [PLACE-4]."""
        return (
            view.committed_pages + ask.need_pages <= view.usable_pages
            and ask.maxmem_pages <= view.usable_pages
            and ask.vcpus <= self.vcpus_left(view)
            and self.size(ask) <= self.limit(view)
        )

    def rejection(self, ask: Ask, most_usable_pages: int, most_free_pages: int) -> Rejected:
        """Say why no host fits, given the largest U and the largest uncommitted memory there is."""
        if ask.maxmem_pages > most_usable_pages:
            return Rejected(
                f"maxmem of {pages_to_mib(ask.maxmem_pages)} MiB is more than any host can give "
                f"({pages_to_mib(most_usable_pages)} MiB)",
                "too_large",
            )
        demand = ""
        if self.z is not None and ask.need_pages <= most_free_pages:
            demand = (
                f", but with the demand there its own (mean {pages_to_mib(ask.mean_pages)} MiB, sd "
                f"{sqrt(ask.var_mib2):.0f} MiB) is beyond each host with room at mean + {self.z:g} sd [PLACE-6]"
            )
        other = self.vcpu_ratio is not None or self.memory_ratio is not None
        return Rejected(
            f"needs {pages_to_mib(ask.need_pages)} MiB; the host with most has {pages_to_mib(max(0, most_free_pages))} "
            f"MiB uncommitted{demand}{', or not the vCPUs or the room that its ratios allow' if other else ''}"
        )

    def rejected_by(self, ask: Ask, views: Sequence[HostView]) -> Rejected:
        """Say why none of `views` fits."""
        return self.rejection(
            ask,
            max((view.usable_pages for view in views), default=0),
            max((view.usable_pages - view.committed_pages for view in views), default=0),
        )
