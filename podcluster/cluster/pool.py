"""Pools: where the hosts of a run are computed, behind one interface.

What        `HostShard`, some hosts in one process (a plain class: tests drive it without Ray); `Pool`, what the epochs
            see; `InlinePool`, one shard in this process. `ray_pool.py` holds shards in actors.
Memory      Hosts for which a shard has no room are packed, each between its turns. One in which nothing happens has no
            turn: the next covers its time as well [HM-1].
Units       Simulated time in ns.
Invariants  [CL-1] replies are folded in host_id order, whichever shard they came from and whenever.
            [CL-2] a shard is a function of its specs, its plan and the commands it was sent: rebuilt and sent them
                   again, or made of its packed hosts and sent those since, it is the same; so it is whichever hosts
                   took a step early.
Departs     nowhere.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from podcluster.cluster.ahead import Ahead
from podcluster.config import ControllerConfig, GuestConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.records.commands import Command
from podcluster.records.hosts import HostSpec, HostView
from podcluster.records.reports import HostReport

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
    machine_samples: bool = False  # each machine is looked at, too
    unasked_ns: int = 0  # before then nothing is asked of domains but to start, and to stop when they depart
    stride_ns: int = 0  # so far past the end of a step a guest may go of whom nothing is asked


MakeHost = Callable[[HostSpec, HostPlan], Host]


def make_host(spec: HostSpec, plan: HostPlan) -> Host:
    """Build the real host; imported here so that planning a run compiles nothing."""
    from podcluster.host.model import HostModel

    return HostModel(
        spec,
        plan.host,
        plan.guests,
        plan.seed,
        plan.telemetry_ns,
        machine_samples=plan.machine_samples,
        controller=plan.controller,
        unasked_ns=plan.unasked_ns,
        stride_ns=plan.stride_ns,
    )


Packed: TypeAlias = Mapping[int, bytes]
"""Hosts as bytes, by host_id."""
NOTHING_PACKED: Final[Packed] = MappingProxyType({})
LEVEL: Final = 1  # of compression: for a checkpoint it is done again and again


def nothing(_: Any) -> int:
    """What is known of a host of which nobody says how much memory it takes [bytes]."""
    return 0


def forget(_: Any) -> None:
    """Let go of a host that holds nothing."""


class Packing(NamedTuple):
    """How a host is made small, and made of that again, exactly [CL-2]; and when."""

    pack: Callable[[Any], Any]  # to something that can be pickled
    unpack: Callable[[Any], Host]
    resident_bytes: Callable[[Any], int] = nothing  # memory that a host takes
    let_go: Callable[[Any], None] = forget  # of a host that has been packed
    room_bytes: int | None = None  # of memory for the hosts of one shard that are not packed; None: for all


def pack_host(host: Any) -> Any:
    """The real host, small."""
    from podcluster.host.snapshot import pack

    return pack(host)


def unpack_host(packed: Any) -> Host:
    """The real host again."""
    from podcluster.host.snapshot import unpack

    return unpack(packed)


def bytes_of_host(host: Any) -> int:
    """What the real host takes."""
    return int(host.resident_bytes)


def let_go_of_host(host: Any) -> None:
    """Give the memory of the real host back."""
    host.let_go()


PACKING: Final = Packing(pack_host, unpack_host, bytes_of_host, let_go_of_host)


class _Last(NamedTuple):
    """What a host last said of itself, and how long that holds without commands."""

    view: HostView
    quiet_until_ns: int


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
        self._resident: dict[int, Host] = {}
        self._bytes: dict[int, int] = {}  # what each of these takes, ...
        self._all_bytes = 0  # ... and all of them
        self._packed: dict[int, Any] = {}  # the others
        self._last: dict[int, _Last] = {}  # of each that has said anything
        self._early: dict[int, HostReport] = {}  # of the next step, which these hosts have taken already
        self.host_ids: list[int] = []  # in order

    def add(self, specs: Iterable[HostSpec], packed: Packed = NOTHING_PACKED) -> None:
        """Take these hosts in, as they were packed or new; in host_id order over all calls."""
        for spec in sorted(specs, key=lambda spec: spec.host_id):
            self.host_ids.append(spec.host_id)
            if spec.host_id in packed:
                small, early = of_bytes(packed[spec.host_id])
                self._keep(spec.host_id, self._packing.unpack(small))
                if early is not None:
                    self._early[spec.host_id] = early
            else:
                self._keep(spec.host_id, self._make(spec, self._plan))

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every host to `until_ns`; reports in host_id order."""
        return [self._step(host_id, until_ns, commands.get(host_id, ())) for host_id in self.host_ids]

    def go_ahead(self, until_ns: int, host_ids: Iterable[int]) -> None:
        """Let these hosts take the next step before the others, and keep what they report until that is asked for. Who
        has taken it stays there.
        """
        for host_id in host_ids:
            self._early[host_id] = self._step(host_id, until_ns, ())

    def pack(self, host_ids: Iterable[int]) -> dict[int, bytes]:
        """These hosts as bytes, with what they have reported early."""
        return {host_id: to_bytes((self._small(host_id), self._early.get(host_id))) for host_id in host_ids}

    def clear(self) -> None:
        """Let go of all hosts, and give what they hold back now."""
        for host in self._resident.values():
            self._packing.let_go(host)
        for kept in (self._resident, self._bytes, self._packed, self._last, self._early):
            kept.clear()
        self.host_ids.clear()
        self._all_bytes = 0

    @property
    def residents(self) -> list[int]:
        """The hosts that are not packed."""
        return list(self._resident)

    def _step(self, host_id: int, until_ns: int, commands: Sequence[Command]) -> HostReport:
        early = self._early.pop(host_id, None)
        if early is not None:
            if commands or early.now_ns != until_ns:
                raise InvariantError(
                    f"[EP-7] a step that was taken early is as it was said to be violated: host {host_id} went to "
                    f"{early.now_ns} ns, is to go to {until_ns} ns with {len(commands)} commands"
                )
            return early
        last = self._last.get(host_id)
        if last is not None and not commands and until_ns < last.quiet_until_ns:
            return HostReport(host_id, until_ns, replace(last.view, at_ns=until_ns))
        host = self._resident.get(host_id)
        if host is None:
            host = self._packing.unpack(self._packed.pop(host_id))
        report = host.advance(until_ns, commands)
        self._last[host_id] = _Last(report.view, report.quiet_until_ns)
        self._keep(host_id, host)
        return report

    def _keep(self, host_id: int, host: Host) -> None:
        """Keep a host until its next turn: as it is where there is room for it. All take turns, so whichever is there
        may as well stay.
        """
        room_bytes = self._packing.room_bytes
        self._resident[host_id] = host
        if room_bytes is None:
            return
        host_bytes = self._packing.resident_bytes(host)
        self._all_bytes += host_bytes - self._bytes.get(host_id, 0)
        self._bytes[host_id] = host_bytes
        if self._all_bytes > room_bytes:
            self._packed[host_id] = self._packing.pack(host)
            self._all_bytes -= self._bytes.pop(host_id)
            del self._resident[host_id]
            self._packing.let_go(host)

    def _small(self, host_id: int) -> Any:
        """A host packed, whether it is already or not."""
        host = self._resident.get(host_id)
        return self._packed[host_id] if host is None else self._packing.pack(host)


def to_bytes(small: Any) -> bytes:
    """What can be pickled, as bytes; of a packed host most is what machines ask for, and not compressed yet."""
    return zlib.compress(pickle.dumps(small, pickle.HIGHEST_PROTOCOL), LEVEL)


def of_bytes(packed: bytes) -> Any:
    """What `to_bytes` was given."""
    return pickle.loads(zlib.decompress(packed))


class Pool(Protocol):
    """The hosts of one run, wherever they live."""

    @property
    def kind(self) -> str:
        """`inline` or `ray`."""

    @property
    def actors(self) -> int:
        """Actors that hold the hosts; 0 in this process."""

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step every host to `until_ns`; reports of all hosts in host_id order [CL-1]. `ahead` is what is known of the
        step after it, which hosts that it leaves free may take at once [EP-7].
        """

    def close(self) -> None:
        """Let go of the hosts."""


class PackingPool(Pool, Protocol):
    """A pool whose hosts can be kept."""

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """Every host as bytes, with its host_id, as it is after the last step, or after the next with its report of
        that; in no order.
        """

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
        self._shard = HostShard(plan, make, packing)
        self._shard.add(specs, packed)

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step every host to `until_ns`; there is nobody to wait for."""
        return self._shard.advance(until_ns, commands)

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """One host at a time."""
        for host_id in self._shard.host_ids:
            yield from self._shard.pack([host_id]).items()

    def rely_on(self, packed: Packed) -> None:
        """These hosts are lost with the process, and nobody is left to ask."""

    def close(self) -> None:
        """Let go of the hosts."""
        self._shard.clear()


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
