"""What placement is told of a request, forecasts of its demand and departure included.

What        `Forecasts.ask` makes the Ask of a machine. Demand and departure are forecast only where the policy or the
            measure looks at them.
Units       Pages of 4 KiB, ns; variances in MiB squared.
Forecasts   profile   mean and variance of the machine's own demand, at `LOOKS` instants of its stay: what is known of
                      one that has been watched before.
            shares    the same shares of maxmem for all: what is known of a stranger.
            known     its own lifetime, times an error whose logarithm is Gaussian.
            observed  the mean lifetime of those of its class that have left so far.
Departs     A machine that stays to the end of the run is forecast to leave then. Whoever stays is not among the
            observed, so that those err on the short side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import exp
from typing import Final

from podcluster.config import PlacementConfig, preferred_host
from podcluster.records.hosts import NOWHERE, Ask
from podcluster.records.machines import MachineRequest
from podcluster.rng import stream
from podcluster.units import PAGES_PER_MIB

LOOKS: Final = 288
LATEST_NS: Final = 2**62 - 1  # that the columns of placement can hold, an error of the forecast notwithstanding


class Forecasts:
    """Makes asks; remembers the lifetimes that have been observed."""

    def __init__(self, cfg: PlacementConfig, need_pages: Mapping[int, int], end_ns: int, seed: int) -> None:
        self._cfg = cfg
        self._need_pages = dict(need_pages)
        self._end_ns = end_ns
        self._seed = seed
        self._demand = cfg.policy == "chance_constrained" or cfg.by == "demand"
        self._lifetimes = cfg.policy == "lifetime_aware"
        self._observed: dict[str, tuple[int, int]] = {}  # of a class: how many have left, sum of their lifetimes

    def ask(self, request: MachineRequest) -> Ask:
        """What is to be known of this machine now."""
        need_pages = self._need_pages[request.domain_id]
        mean_pages, var_mib2 = self._demand_of(request) if self._demand else (0, 0)
        affinity, host_id = preferred_host(_group(request.name, self._cfg.affinity))
        return Ask(
            need_pages=need_pages,
            maxmem_pages=request.maxmem_pages,
            overhead_pages=need_pages - request.memory_pages,
            domain_id=request.domain_id,
            vcpus=request.vcpus,
            mean_pages=mean_pages,
            var_mib2=var_mib2,
            arrival_ns=request.arrival_ns,
            leaves_ns=self._leaves_ns(request) if self._lifetimes else 0,
            affinity=affinity if host_id is None else "",
            anti_affinity=_group(request.name, self._cfg.anti_affinity),
            preferred_host=NOWHERE if host_id is None else host_id,
        )

    def needs(self, domain_id: int, need_pages: int) -> None:
        """A machine needs other than before."""
        self._need_pages[domain_id] = need_pages

    def left(self, request: MachineRequest, at_ns: int) -> None:
        """A machine has left, as it was to."""
        count, total_ns = self._observed.get(request.os_class, (0, 0))
        self._observed[request.os_class] = count + 1, total_ns + at_ns - request.arrival_ns

    def _demand_of(self, request: MachineRequest) -> tuple[int, int]:
        """Mean [pages] and variance [MiB^2] of its demand."""
        if self._cfg.forecast == "shares":
            sd_mib = request.maxmem_pages * self._cfg.sd_share / PAGES_PER_MIB
            return int(request.maxmem_pages * self._cfg.mean_share), round(sd_mib * sd_mib)
        step_ns = max(1, (self._departure_ns(request) - request.arrival_ns) // LOOKS)
        looks = request.demand.at_each(request.arrival_ns, step_ns, LOOKS).tolist()
        mean_pages = sum(looks) // LOOKS
        # In whole numbers, which no order of summation changes.
        squares = sum((pages - mean_pages) ** 2 for pages in looks)
        return mean_pages, squares // (LOOKS * PAGES_PER_MIB**2)

    def _leaves_ns(self, request: MachineRequest) -> int:
        if self._cfg.lifetimes == "observed":
            count, total_ns = self._observed.get(request.os_class, (0, 0))
            return request.arrival_ns + max(1, total_ns // count) if count else self._end_ns
        lifetime_ns = self._departure_ns(request) - request.arrival_ns
        if self._cfg.lifetime_error:
            normal = stream(self._seed, "placement", request.domain_id, "lifetime").standard_normal()
            lifetime_ns = int(lifetime_ns * exp(self._cfg.lifetime_error * normal))
        return min(request.arrival_ns + max(1, lifetime_ns), LATEST_NS)

    def _departure_ns(self, request: MachineRequest) -> int:
        departure_ns = self._end_ns if request.departure_ns is None else min(request.departure_ns, self._end_ns)
        return max(departure_ns, request.arrival_ns)


def _group(name: str, patterns: Sequence[str]) -> str:
    """The first of the patterns that matches, whatever host it names; empty: none."""
    return next((pattern for pattern in patterns if fnmatchcase(name, preferred_host(pattern)[0])), "")
