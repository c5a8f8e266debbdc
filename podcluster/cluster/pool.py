"""Pools: where the hosts of a run are computed, behind one interface.

What        `HostShard`, some hosts in one process (a plain class: tests drive it without Ray); `Pool`, what the epochs
            see; `InlinePool`, one shard in this process. `ray_pool.py` holds shards in actors.
Units       Simulated time in ns.
Invariants  [CL-1] replies are folded in host_id order, whichever shard they came from and whenever.
            [CL-2] a shard is a function of its specs, its plan and the commands it was sent: rebuilt and sent them
                   again it is the same.
Departs     nowhere.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from podcluster.config import ControllerConfig, GuestConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.records import Command, HostReport, HostSpec

CommandsByHost = Mapping[int, Sequence[Command]]


class Host(Protocol):
    """A host as a pool sees it: `advance` is the only way in."""

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Carry out the commands at their times, and simulate up to and including `until_ns`."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What every host of a run is built with, beside its own spec."""

    host: HostConfig
    guests: Mapping[str, GuestConfig]
    seed: int
    telemetry_ns: int
    controller: ControllerConfig | None = None  # None: static


MakeHost = Callable[[HostSpec, HostPlan], Host]


def make_host(spec: HostSpec, plan: HostPlan) -> Host:
    """Build the real host; imported here so that planning a run compiles nothing."""
    from podcluster.host.model import HostModel

    return HostModel(spec, plan.host, plan.guests, plan.seed, plan.telemetry_ns, controller=plan.controller)


class HostShard:
    """Some hosts in one process."""

    def __init__(self, specs: Sequence[HostSpec], plan: HostPlan, make: MakeHost = make_host) -> None:
        self._hosts = {spec.host_id: make(spec, plan) for spec in sorted(specs, key=lambda spec: spec.host_id)}

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`; reports in host_id order."""
        return [host.advance(until_ns, commands.get(host_id, ())) for host_id, host in self._hosts.items()]


class Pool(Protocol):
    """The hosts of one run, wherever they live."""

    @property
    def kind(self) -> str:
        """`inline` or `ray`."""

    @property
    def actors(self) -> int:
        """Actors that hold the hosts; 0 in this process."""

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`; reports of all hosts in host_id order [CL-1]."""

    def close(self) -> None:
        """Let go of the hosts."""


class InlinePool:
    """All hosts in this process: no start-up, same bytes."""

    kind = "inline"
    actors = 0

    def __init__(self, specs: Sequence[HostSpec], plan: HostPlan, make: MakeHost = make_host) -> None:
        self._plan = plan
        self._shard = HostShard(specs, plan, make)

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`."""
        return self._shard.advance(until_ns, commands)

    def close(self) -> None:
        """Free the hosts' arrays now: guests and their streams point at each other, and a collector that counts objects
        does not see how large these are.
        """
        self._shard = HostShard((), self._plan)
        gc.collect()


def deal(specs: Sequence[HostSpec], shards: int) -> list[list[HostSpec]]:
    """Deal hosts to shards like cards: first fit fills low host_ids first, and neighbours then share the work."""
    ordered = sorted(specs, key=lambda spec: spec.host_id)
    return [ordered[first::shards] for first in range(min(shards, len(ordered)))]


def fold(reports: Sequence[HostReport], hosts: int, until_ns: int) -> list[HostReport]:
    """Put reports of all shards in host_id order [CL-1]; every host once, all at `until_ns`."""
    ordered = sorted(reports, key=lambda report: report.host_id)
    ids = [report.host_id for report in ordered]
    if len(ids) != hosts or len(set(ids)) != hosts:
        raise InvariantError(f"[CL-1] one report per host violated: {hosts} hosts, reports of {ids} (t={until_ns} ns)")
    late = [(report.host_id, report.now_ns) for report in ordered if report.now_ns != until_ns]
    if late:
        raise InvariantError(f"[CL-1] reports at {until_ns} ns violated: (host, now_ns) {late[:5]}")
    return ordered
