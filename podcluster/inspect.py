"""`podcluster inspect --at 120 workload=one ...`: what an operator would see on a host at one moment of a run.

The run is the one that the same overrides without `--at` would make, its first replication, computed in this process up
to that moment; nothing is written. On each host (`--host N`: on that one) the report of `host/operator.py` is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from podcluster.arguments import OneLineParser
from podcluster.errors import ConfigError

if TYPE_CHECKING:
    from podcluster.cluster.pool import Host, HostPlan
    from podcluster.config import Config
    from podcluster.host.operator import HostLook
    from podcluster.records.hosts import HostSpec
    from podcluster.records.machines import Workload
    from podcluster.records.tables import Row


def main(argv: Sequence[str]) -> int:
    """Print the report of each host, or of one; 0."""
    from podcluster.host.operator import report

    options = _parse(argv)
    looks = inspect(_compose(options.overrides), options.at)
    chosen = [look for look in looks if options.host in (None, look.host_id)]
    if not chosen:
        raise ConfigError(
            f"--host must be one of the run's hosts, got {options.host}: there are {len(looks)}, counted from 0"
        )
    sys.stdout.write("\n".join(report(look) for look in chosen))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="podcluster inspect", description=__doc__, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="what the run is, as on the command line")
    parser.add_argument("--at", type=float, required=True, metavar="S", help="simulated time of the look")
    parser.add_argument("--host", type=int, metavar="N", help="this host only")
    return parser.parse_intermixed_args(list(argv))


def _compose(overrides: Sequence[str]) -> Config:
    from podcluster.cli import compose

    return compose(overrides)


def inspect(config: Config, at_s: float) -> list[HostLook]:
    """Simulate up to `at_s` and look at every host then."""
    from podcluster.cluster.plan import make_plan
    from podcluster.cluster.pool import InlinePool
    from podcluster.cluster.progress import Silent
    from podcluster.cluster.run import run
    from podcluster.host.model import HostModel
    from podcluster.placement.policy import make_policy
    from podcluster.study.runner import host_seed
    from podcluster.units import s_to_ns

    if not 0 < at_s <= config.study.duration_s:
        raise ConfigError(f"--at must be above 0 and at most {config.study.duration_s} s, got {at_s:g}: try --at 120")
    workload = first_workload(config)
    plan = make_plan(config, workload, host_seed(config.seed, 0))
    at_ns = s_to_ns(at_s)
    arrived = tuple(request for request in workload.requests if request.arrival_ns <= at_ns)
    hosts: list[HostModel] = []

    def make(spec: HostSpec, hosted: HostPlan) -> Host:
        model = HostModel(
            spec, hosted.host, hosted.guests, hosted.seed, hosted.telemetry_ns, controller=hosted.controller
        )
        hosts.append(model)
        return model

    policy = make_policy(config.placement, plan.hosts.seed)
    run(
        replace(plan, duration_ns=at_ns),
        replace(workload, requests=arrived),
        policy,
        InlinePool(plan.specs, plan.hosts, make),
        _Nowhere(),
        Silent(),
    )
    return [model.look() for model in hosts]


def first_workload(config: Config) -> Workload:
    """Who asks for memory in the first replication of the run."""
    from podcluster.io.traces import read_machines
    from podcluster.workloads import requests

    return requests(
        config.workload,
        config.guest,
        config.overcommit,
        read_machines(config.workload),
        config.seed,
        config.study.duration_s,
        classes=config.classes,
        usable_pages=config.usable_pages,
        replication=0,
        replications=config.study.replications,
    )


class _Nowhere:
    """A sink for rows that nobody reads."""

    def write(self, table: str, rows: Sequence[Row]) -> None:
        """Drop them."""
