"""Chance-constrained packing: a host is full when its demand would exceed its memory more often than it may.

What        Demands are taken for independent and their sum for Gaussian: a host fits while mean + z x sd of the demand
            of all its domains, with the new one and all overheads, is within U [PLACE-6]. Of those that fit, the
            tightest. z is the quantile of the share of time that may be exceeded: 2.33 for 1 %.
Units       Pages; variances in MiB squared.
Source      Gaussian Percentile Approximation (SoCC 2017); chance-constrained bin packing (Management Science 2019).
Departs     [PLACE-1] holds as well. Forecasts come with the requests (docs/model.md, Placement), and nothing is learnt
            of a domain once it runs.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from podcluster.placement import weigh
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Weighed
from podcluster.records.hosts import Ask, HostView


class ChanceConstrained(Weighed):
    """Pack by demand, with a margin of `z` standard deviations."""

    search_kind = weigh.CHANCE_CONSTRAINED

    def __init__(self, rules: Rules | None = None, z: float = 2.33) -> None:
        super().__init__(replace(rules or Rules(), z=z))

    def margin(self, ask: Ask, view: HostView) -> float:
        """What would be left beyond the quantile of demand [pages]."""
        sd_mib = sqrt(view.var_mib2 + ask.var_mib2)
        quantile = (view.mean_pages + ask.mean_pages) + self.rules.pages_per_sd * sd_mib
        return (view.usable_pages - view.overhead_pages - ask.overhead_pages) - quantile

    def bears(self, ask: Ask, view: HostView) -> bool:
        """[PLACE-6]."""
        return self.margin(ask, view) >= 0

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """The tightest first."""
        return (self.margin(ask, view),)
