"""What a placement policy is, and the ones there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, Protocol

from podcluster.config import PlacementConfig
from podcluster.placement.best_fit import BestFit
from podcluster.placement.chance_constrained import ChanceConstrained
from podcluster.placement.dot_product import DotProduct
from podcluster.placement.first_fit import FirstFit
from podcluster.placement.index import HostIndex, Terms
from podcluster.placement.lifetime_aware import LifetimeAware
from podcluster.placement.next_fit import NextFit
from podcluster.placement.random_fit import RandomFit
from podcluster.placement.rules import Rules
from podcluster.placement.worst_fit import WorstFit
from podcluster.placement.xapi import Xapi
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.units import s_to_ns


class Policy(Protocol):
    """Choose a host for one domain, by what is known of the hosts and nothing else but a cursor."""

    cursor: int  # host_id of the last placement, for next fit
    rules: Rules
    terms: Terms

    @property
    def search_kind(self) -> int | None:
        """Of search.py or weigh.py, where the policy is one search; None: it draws."""

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """Name the host_id that takes it. `views` are in host_id order; this is the definition of the policy."""

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same choice from an index that is kept up to date."""


Make = Callable[[PlacementConfig, Rules, int], Policy]
POLICIES: Final[dict[str, Make]] = {
    "first_fit": lambda cfg, rules, seed: FirstFit(rules),
    "next_fit": lambda cfg, rules, seed: NextFit(rules),
    "best_fit": lambda cfg, rules, seed: BestFit(rules),
    "worst_fit": lambda cfg, rules, seed: WorstFit(rules),
    "random_fit": lambda cfg, rules, seed: RandomFit(rules, seed),
    "dot_product": lambda cfg, rules, seed: DotProduct(rules),
    "xapi": lambda cfg, rules, seed: Xapi(rules, seed, coordinator_bias=cfg.coordinator_bias),
    "chance_constrained": lambda cfg, rules, seed: ChanceConstrained(rules, cfg.z),
    "lifetime_aware": lambda cfg, rules, seed: LifetimeAware(rules, s_to_ns(cfg.lifetime_bucket_s)),
}


def rules_of(cfg: PlacementConfig) -> Rules:
    """The rules that a configuration asks for; ratios are the decimal numbers that the user wrote."""
    return Rules(
        by=cfg.by,
        maxmem_percent=cfg.maxmem_percent,
        memory_ratio=None if cfg.memory_ratio is None else Fraction(str(cfg.memory_ratio)),
        vcpu_ratio=None if cfg.vcpu_ratio is None else Fraction(str(cfg.vcpu_ratio)),
    )


def make_policy(placement: PlacementConfig | str, seed: int = 0) -> Policy:
    """The policy that a configuration asks for (a name: with its keys as they are in code); `seed` of its draws."""
    cfg = PlacementConfig(policy=placement) if isinstance(placement, str) else placement
    return POLICIES[cfg.policy](cfg, rules_of(cfg), seed)
