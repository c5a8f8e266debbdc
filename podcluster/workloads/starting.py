"""What a machine starts with: how much memory, and when it boots.

Units       Sizes in MiB as operators write them, then in pages; times in ns.
Symbols     R overcommit   M maxmem
Invariants  [WL-1] min(guest.min_memory_mib, M) <= memory <= M
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from podcluster.config import GuestConfig, WorkloadConfig
from podcluster.errors import ConfigError
from podcluster.rng import stream
from podcluster.units import NS_PER_S

TOO_LATE: Final = "booting only after the end of the run (workload.boot_spread_s)"


def memory_mib(maxmem_mib: int, guest: GuestConfig, overcommit: float) -> int:
    """The target of a guest with this maxmem [MiB]: floor(M/R), or floor(M * guest.target_fraction) where that is set.

    At least guest.min_memory_mib, never above M [WL-1].
    """
    # As the decimal number the user wrote, not its nearest binary one: floor(1100/1.1) is 1000 and not 999.
    if guest.target_fraction is None:
        share = maxmem_mib / Fraction(str(overcommit))
    else:
        share = maxmem_mib * Fraction(str(guest.target_fraction))
    return min(maxmem_mib, max(int(share), guest.min_memory_mib))


def hold_ns(cfg: WorkloadConfig) -> int:
    """How long memory stays held after its last use [ns]; -1 for since boot."""
    return cfg.hold_s * NS_PER_S if cfg.hold_s >= 0 else -1


def require_some(made: int, cfg: WorkloadConfig, duration_s: int) -> None:
    """Refuse a run in which no machine boots before the end."""
    if not made:
        raise ConfigError(
            f"workload.boot_spread_s must let some machine boot within the run, got {cfg.boot_spread_s} in a run of "
            f"{duration_s} s: lower it or raise study.duration_s"
        )


def boot_ns(seed: int, replication: int, domain_id: int, spread_s: int) -> int:
    """When this domain boots [ns]: uniform over [0, spread_s), 0 for a storm.

    Its place within the spread does not depend on the spread, so the order of boots stays when it is widened.
    """
    place = stream(seed, "workload", "replication", replication, "domain", domain_id, "boot").random()
    return int(place * spread_s * NS_PER_S)
