"""Dot product: the host whose free memory and vCPUs point the way of the request's, so that neither is stranded.

What        The product of request and what is left, each as a share of the host's capacity, summed over memory (as
            `placement.by` measures it) and vCPUs; the largest wins. It needs a vCPU ratio: with one resource it would
            be worst fit.
Source      Tetris (SIGCOMM 2014) aligns tasks with machines so; Panigrahy et al. (2011) items with bins.
"""

from __future__ import annotations

from podcluster.errors import InvariantError
from podcluster.placement import weigh
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Weighed
from podcluster.records.hosts import Ask, HostView


class DotProduct(Weighed):
    """Align what is asked with what is left."""

    search_kind = weigh.DOT_PRODUCT

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        if rules.vcpu_ratio is None:
            raise InvariantError("[PLACE-3] a vCPU ratio for dot_product violated: none is given")

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """The larger the product, the less."""
        rules = self.rules
        # A capacity is 0 where a ratio leaves nothing.
        capacity, cpu_capacity = max(1, rules.capacity(view.usable_pages)), max(1, rules.cpu_capacity(view.cpus))
        memory = (rules.size(ask) / capacity) * (rules.room(view) / capacity)
        vcpus = (ask.vcpus / cpu_capacity) * (rules.vcpus_left(view) / cpu_capacity)
        return (-(memory + vcpus),)
