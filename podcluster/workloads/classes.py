"""Which operating system a machine runs: the one there is, or of a mix one drawn for it.

Invariants  [WL-3] the draw is named by replication and domain alone: with more machines, another overcommit or another
            policy, each keeps its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate

from podcluster.config import GuestConfig
from podcluster.rng import stream

ClassOf = Callable[[int], GuestConfig]
"""The class of a domain, by its domain_id."""


def always(guest: GuestConfig) -> ClassOf:
    """The same for all."""
    return lambda _: guest


def class_of(guest: GuestConfig, classes: Mapping[str, GuestConfig], seed: int, replication: int) -> ClassOf:
    """`guest` for all, or, where it has weights, one of `classes` (by os_class) for each."""
    if not classes:
        return always(guest)
    weights = [share for share in guest.weights.values() if share]
    total = sum(weights)
    # Weights and classes are in one order: the second follows from the first.
    ends = list(zip(accumulate(weights), classes.values(), strict=True))

    def drawn(domain_id: int) -> GuestConfig:
        at = total * stream(seed, "workload", "replication", replication, "domain", domain_id, "class").random()
        return next((cfg for end, cfg in ends if at < end), ends[-1][1])

    return drawn
