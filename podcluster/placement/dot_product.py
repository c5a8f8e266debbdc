"""Dot product: the host whose free memory and vCPUs point the way of the request's, so that neither is stranded.

What        The product of request and what is left, each as a share of the host's capacity, summed over memory (as
            `placement.by` measures it) and vCPUs; the largest wins. It needs a vCPU ratio: with one resource it would
            be worst fit.
Source      Tetris (SIGCOMM 2014) aligns tasks with machines so; Panigrahy et al. (2011) items with bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from podcluster.errors import InvariantError
from podcluster.placement.index import HostIndex
from podcluster.placement.rules import Rules
from podcluster.placement.weighed import Numbers, Weighed
from podcluster.records import Ask, HostView, Int64Array


def alignment(size: int, vcpus: int, room: Any, capacity: Any, vcpus_left: Any, cpu_capacity: Any) -> Any:
    """Request times what is left, in shares of capacity: a number, or an array of them."""
    capacity, cpu_capacity = np.maximum(1, capacity), np.maximum(1, cpu_capacity)  # 0 where a ratio leaves nothing
    return (size / capacity) * (room / capacity) + (vcpus / cpu_capacity) * (vcpus_left / cpu_capacity)


class DotProduct(Weighed):
    """Align what is asked with what is left."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        if rules.vcpu_ratio is None:
            raise InvariantError("[PLACE-3] a vCPU ratio for dot_product violated: none is given")

    def cost(self, ask: Ask, view: HostView) -> tuple[float, ...]:
        """The larger the product, the less."""
        rules = self.rules
        capacity, cpu_capacity = rules.capacity(view.usable_pages), rules.cpu_capacity(view.cpus)
        left = rules.vcpus_left(view)
        return (-alignment(rules.size(ask), ask.vcpus, rules.room(view), capacity, left, cpu_capacity),)

    def costs(self, ask: Ask, index: HostIndex, positions: Int64Array) -> Sequence[Numbers]:
        """The same of many."""
        rooms = index.rooms(positions)
        capacities = index.capacities[positions]
        cpu_capacities = index.cpu_capacities[positions]
        left = cpu_capacities - index.columns["vcpus"][positions]
        return [-alignment(self.rules.size(ask), ask.vcpus, rooms, capacities, left, cpu_capacities)]
