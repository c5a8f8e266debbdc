"""What may be wrong with a guest: its balloon does not move, or not always, or hardly; or its word is false.

What        `Fault`, drawn once per domain: a guest that is built again has what it had.
Units       ns of simulated time; pages per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from podcluster.config import FaultConfig
from podcluster.host.streams import NEVER
from podcluster.rng import stream
from podcluster.units import s_to_ns


@dataclass(frozen=True, slots=True)
class Fault:
    """One guest's fault; `kind` as in `guest.fault.kind`."""

    kind: str = "none"
    once_ballooned: bool = False
    period_ns: int = 1
    awake_span_ns: int = 1
    slow_pages_per_s: int = 0
    factor: float = 1.0

    @classmethod
    def draw(cls, cfg: FaultConfig, seed: int, domain_id: int) -> Fault:
        """Whether this domain is among the share that has it."""
        if cfg.kind == "none" or stream(seed, "domain", domain_id, "fault").random() >= cfg.share:
            return SOUND
        return cls(
            cfg.kind,
            cfg.once_ballooned,
            s_to_ns(cfg.period_s),
            s_to_ns(cfg.awake_s),
            cfg.rate_pages_per_s,
            cfg.factor,
        )

    @property
    def stuck(self) -> bool:
        """Its balloon never moves."""
        return self.kind == "stuck"

    def rate(self, pages_per_s: int) -> int:
        """How fast its balloon goes that should go at `pages_per_s`."""
        return min(pages_per_s, self.slow_pages_per_s) if self.kind == "slow" else pages_per_s

    def awake_ns(self, at_ns: int, start_ns: int) -> int:
        """When its balloon, started at `start_ns`, can act that wants to at `at_ns`."""
        if self.kind != "intermittent":
            return at_ns
        into_ns = (at_ns - start_ns) % self.period_ns
        return at_ns if into_ns < self.awake_span_ns else at_ns - into_ns + self.period_ns

    def asleep_ns(self, at_ns: int, start_ns: int) -> int:
        """From when on it cannot, if it can at `at_ns`."""
        if self.kind != "intermittent" or self.awake_span_ns >= self.period_ns:
            return NEVER
        return at_ns - (at_ns - start_ns) % self.period_ns + self.awake_span_ns

    def said(self, pages: int) -> int:
        """What it says where the truth is `pages`."""
        return int(self.factor * pages) if self.kind == "lying" else pages


SOUND: Final = Fault()
