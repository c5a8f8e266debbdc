"""`podcluster compact workload=... [KEY=VALUE ...]`: on how few hosts could all of these machines stand at once?

The machines are those that the same overrides would ask for, in the first replication; all of them are taken as there
together, whenever they come and go. For each of `--orders` random orders of them, bisection finds the fewest hosts of
`cluster.host_mem_gib` on which `placement.policy` places all (cluster compaction, Verma et al., CLUSTER 2014), and as
`placement.strict_groups` says. Printed are the distribution over orders, and the lower bound (`placement.bound`) that
no packing can beat. Nothing is simulated or written.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from podcluster.arguments import OneLineParser
from podcluster.errors import ConfigError

if TYPE_CHECKING:
    from podcluster.config import Config

ORDERS = 20


class Compacted(NamedTuple):
    """Hosts by how many orders need so many, of so many machines; None: no number of hosts is enough."""

    machines: int
    hosts: Counter[int | None]
    bound: int


def main(argv: Sequence[str]) -> int:
    """Print the distribution; 0."""
    from podcluster.cli import compose

    options = _parse(argv)
    if options.orders < 1:
        raise ConfigError(f"--orders must be at least 1, got {options.orders}: try --orders {ORDERS}")
    config = compose(options.overrides)
    found = compact(config, options.orders)
    sys.stdout.write(f"{found.machines} machines by {config.placement.policy}, in {options.orders} orders\n")
    for hosts, orders in sorted(found.hosts.items(), key=lambda one: (one[0] is None, one[0] or 0)):
        if hosts is None:
            sys.stdout.write(f"  in {orders} no number of hosts is enough\n")
        else:
            over = f", {hosts / found.bound:.3f} of it" if found.bound else ""
            sys.stdout.write(f"  {hosts:6d} hosts in {orders}{over}\n")
    sys.stdout.write(f"no packing needs fewer than {found.bound} hosts (placement.bound={config.placement.bound})\n")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="podcluster compact", description=__doc__, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what the run is, as on the command line")
    parser.add_argument("--orders", type=int, default=ORDERS, metavar="N", help=f"of the same machines ({ORDERS})")
    return parser.parse_intermixed_args(list(argv))


def compact(config: Config, orders: int) -> Compacted:
    """Compact the machines of a configuration in so many orders."""
    from podcluster.cluster.asks import Forecasts
    from podcluster.cluster.plan import make_plan
    from podcluster.inspect import first_workload
    from podcluster.placement.bounds import bounds
    from podcluster.placement.metrics import compaction
    from podcluster.placement.policy import make_policy
    from podcluster.study.runner import host_seed

    cluster = config.cluster
    for key, listed in (("host_mem_gib", cluster.host_sizes_gib), ("host_cpus", cluster.host_cpus_listed)):
        if listed:
            raise ConfigError(
                f"cluster.{key} must be one size for podcluster compact, got {len(listed)}: how few hosts are "
                f"enough is a question about equal ones, try cluster.{key}={max(listed)}"
            )
    workload, seed = first_workload(config), host_seed(config.seed, 0)
    plan = make_plan(config, workload, seed)
    policy = make_policy(config.placement, seed)
    forecasts = Forecasts(config.placement, plan.need_pages, plan.duration_ns, seed)
    asks = [forecasts.ask(request) for request in workload.requests]
    usable_pages, cpus = config.usable_pages, cluster.host_cpus
    counts = compaction(
        asks, usable_pages, policy, orders, config.seed, plan.reserve_pages, cpus,
        strict=config.placement.strict_groups,
    )  # fmt: skip
    vectors, capacities = [[ask.need_pages] for ask in asks], [usable_pages - plan.reserve_pages]
    if config.placement.vcpu_ratio is not None:
        vectors = [[ask.need_pages, ask.vcpus] for ask in asks]
        capacities.append(policy.rules.cpu_capacity(cpus))
    bound = bounds(vectors, capacities, lp=config.placement.bound == "lp").hosts
    return Compacted(len(asks), Counter(counts), bound)
