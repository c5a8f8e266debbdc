"""What is drawn for one boot of a guest.

What        `Boot`: one draw from each range of the guest's class.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  Each draw has a stream of its own, named by seed, domain, attempt and what is drawn, so that a new one moves
            no other, and nothing of one attempt outlives it (G14).
"""

from __future__ import annotations

from dataclasses import dataclass

from podcluster.config import GuestConfig, Range
from podcluster.rng import stream
from podcluster.units import mib_to_pages, s_to_ns


@dataclass(frozen=True, slots=True)
class Boot:
    """What was drawn for one boot."""

    firmware_ns: int
    kernel_pages: int
    kernel_ns: int
    services_pages: int
    services_ns: int
    write_pages_per_s: int
    scrub_start_ns: int
    balloon_start_ns: int
    balloon_pages_per_s: int

    @classmethod
    def draw(cls, cfg: GuestConfig, seed: int, domain_id: int, attempt: int) -> Boot:
        """Draw from the ranges of `cfg`."""

        def between(name: str, ends: Range) -> float:
            return float(stream(seed, "domain", domain_id, attempt, name).uniform(ends[0], ends[1]))

        return cls(
            firmware_ns=s_to_ns(between("firmware", cfg.firmware_s)),
            kernel_pages=mib_to_pages(between("kernel_size", cfg.kernel_mib)),
            kernel_ns=s_to_ns(between("kernel", cfg.kernel_s)),
            services_pages=mib_to_pages(between("services_size", cfg.services_mib)),
            services_ns=s_to_ns(between("services", cfg.services_s)),
            write_pages_per_s=max(1, mib_to_pages(between("scrub_rate", cfg.scrub_rate_mib_per_s))),
            scrub_start_ns=s_to_ns(between("scrub_start", cfg.scrub_start_s)),
            balloon_start_ns=s_to_ns(between("balloon_start", cfg.balloon.start_s)),
            balloon_pages_per_s=max(1, int(between("balloon_rate", cfg.balloon.rate_pages_per_s))),
        )
