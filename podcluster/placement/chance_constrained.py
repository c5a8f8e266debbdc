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

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podcluster.placement.index import HostIndex
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Numbers, Weighed
from podcluster.records import Ask, HostView, Int64Array
from podcluster.units import PAGES_PER_MIB


class ChanceConstrained(Weighed):
    """Pack by demand, with a margin of `z` standard deviations."""

    def __init__(self, rules: Rules | None = None, z: float = 2.33) -> None:
        super().__init__(rules)
        self._z = z

    def margin(self, ask: Ask, usable: Any, overhead: Any, mean: Any, var: Any) -> Any:
        """What would be left beyond the quantile of demand [pages]: a number, or an array of them."""
        quantile = (mean + ask.mean_pages) + self._z * PAGES_PER_MIB * np.sqrt(var + ask.var_mib2)
        return (usable - overhead - ask.overhead_pages) - quantile

    def bears(self, ask: Ask, view: HostView) -> bool:
        """[PLACE-6]."""
        return bool(self.cost(ask, view)[0] >= 0)

    def bear(self, ask: Ask, index: HostIndex, positions: Int64Array) -> NDArray[np.bool_]:
        """The same of many."""
        return np.asarray(self.costs(ask, index, positions)[0] >= 0)

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """The tightest first."""
        margin = self.margin(ask, view.usable_pages, view.overhead_pages, view.mean_pages, view.var_mib2)
        return (float(margin),)

    def costs(self, ask: Ask, index: HostIndex, positions: Int64Array) -> Sequence[Numbers]:
        """The same of many."""
        names = ("usable_pages", "overhead_pages", "mean_pages", "var_mib2")
        return [self.margin(ask, *(index.columns[name][positions] for name in names))]
