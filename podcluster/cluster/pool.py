"""Pools: where the hosts of a run are computed, behind one interface.

What        `HostShard`, some hosts in one process (a plain class: tests drive it without Ray); `Pool`, what the epochs
            see; `InlinePool`, one shard in this process. `ray_pool.py` holds shards in actors.
Units       Simulated time in ns.
Invariants  [CL-1] replies are folded in host_id order, whichever shard they came from and whenever.
            [CL-2] a shard is a function of its specs, its plan and the commands it was sent: rebuilt and sent them
                   again, or made of its packed hosts and sent those since, it is the same.
Departs     nowhere.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

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


Packed: TypeAlias = Mapping[int, bytes]
"""Hosts as bytes, by host_id."""
NOTHING_PACKED: Final[Packed] = MappingProxyType({})


class Packing(NamedTuple):
    """How a host is turned into bytes, and made of them again, exactly [CL-2]."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Host]


def pack_host(host: Any) -> bytes:
    """The real host as bytes."""
    from podcluster.host.snapshot import pack

    return pickle.dumps(pack(host), protocol=pickle.HIGHEST_PROTOCOL)


def unpack_host(packed: bytes) -> Host:
    """The real host again."""
    from podcluster.host.snapshot import unpack

    return unpack(pickle.loads(packed))


PACKING: Final = Packing(pack_host, unpack_host)


class Step(NamedTuple):
    """What a pool is sent for one step."""

    until_ns: int
    commands: CommandsByHost


class HostShard:
    """Some hosts in one process."""

    def __init__(self, plan: HostPlan, make: MakeHost = make_host, packing: Packing = PACKING) -> None:
        self._plan = plan
        self._make = make
        self._packing = packing
        self._hosts: dict[int, Host] = {}

    def add(self, specs: Iterable[HostSpec], packed: Packed = NOTHING_PACKED) -> None:
        """Take these hosts in, as they were packed or new; in host_id order over all calls."""
        for spec in sorted(specs, key=lambda spec: spec.host_id):
            if spec.host_id in packed:
                self._hosts[spec.host_id] = self._packing.unpack(packed[spec.host_id])
            else:
                self._hosts[spec.host_id] = self._make(spec, self._plan)

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`; reports in host_id order."""
        return [host.advance(until_ns, commands.get(host_id, ())) for host_id, host in self._hosts.items()]

    def pack(self, host_ids: Iterable[int]) -> dict[int, bytes]:
        """These hosts as bytes."""
        return {host_id: self._packing.pack(self._hosts[host_id]) for host_id in host_ids}

    @property
    def host_ids(self) -> list[int]:
        """The hosts that are here, in order."""
        return list(self._hosts)


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


class PackingPool(Pool, Protocol):
    """A pool whose hosts can be kept."""

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """Every host as bytes, with its host_id, as it is after the last step; in no order."""

    def rely_on(self, packed: Packed) -> None:
        """What `pack` gave is kept here: hosts that are lost later are made of it."""


class InlinePool:
    """All hosts in this process: no start-up, same bytes."""

    kind = "inline"
    actors = 0

    def __init__(
        self,
        specs: Sequence[HostSpec],
        plan: HostPlan,
        make: MakeHost = make_host,
        packing: Packing = PACKING,
        packed: Packed = NOTHING_PACKED,
    ) -> None:
        self._plan = plan
        self._shard = HostShard(plan, make, packing)
        self._shard.add(specs, packed)

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`."""
        return self._shard.advance(until_ns, commands)

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """One host at a time."""
        for host_id in self._shard.host_ids:
            yield from self._shard.pack([host_id]).items()

    def rely_on(self, packed: Packed) -> None:
        """These hosts are lost with the process, and nobody is left to ask."""

    def close(self) -> None:
        """Free the hosts' arrays now: guests and their streams point at each other, and a collector that counts objects
        does not see how large these are.
        """
        self._shard = HostShard(self._plan)
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
