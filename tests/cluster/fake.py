"""A host small enough to check by hand: guests own their memory at once, and some die at a time drawn for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from podcluster import rng
from podcluster.cluster.ledger import rejection
from podcluster.cluster.pool import HostPlan
from podcluster.config import ControllerConfig, GuestConfig, HostConfig
from podcluster.records.commands import Close, Command, EndWarmup, FailHost, StartDomain, StopDomain
from podcluster.records.hosts import HostSpec, HostView
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import (
    DropRoom,
    GuestState,
    KeepRoom,
    MigrateGo,
    MigrateIn,
    MigrateOut,
    RoomAnswer,
    RoomWanted,
)
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow, EventRow, HostRow
from podcluster.records.samples import SampleBlock, SampleRow
from podcluster.units import NS_PER_S

BOOT_NS = 2 * NS_PER_S


class FakeHost:
    """One in three guests dies, up to 200 s after its start, at a time that only its domain_id and the seed decide."""

    def __init__(self, spec: HostSpec, seed: int, telemetry_ns: int) -> None:
        self.spec, self.seed, self.telemetry_ns = spec, seed, telemetry_ns
        self.now_ns = self.since_ns = 0
        self.living: dict[int, tuple[MachineRequest, int]] = {}
        self.deaths: dict[int, int] = {}
        self.rooms: dict[int, MachineRequest] = {}
        self.dead = self.started = 0
        self.area = {"maxmem_pages": 0, "memory_pages": 0}
        self.peak = {"maxmem_pages": 0, "memory_pages": 0}

    def let_go(self) -> None:
        """It has no memory to give back."""

    def advance(self, until_ns: int, commands: Sequence[Command]) -> HostReport:
        """Walk from instant to instant: deaths first, then samples, then commands."""
        assert all(self.now_ns < command.at_ns <= until_ns for command in commands), "commands lie in (now, until]"
        rows: list[DomainRow] = []
        events: list[EventRow] = []
        samples: list[SampleRow] = []
        host: HostRow | None = None
        departed: list[GuestState] = []
        stayed: list[int] = []
        wanted: list[RoomWanted] = []
        answers: list[RoomAnswer] = []
        instants = {command.at_ns for command in commands} | {until_ns}
        while self.now_ns < until_ns:
            sample_ns = (self.now_ns // self.telemetry_ns + 1) * self.telemetry_ns
            at_ns = min([*(t for t in instants if t > self.now_ns), *self.deaths.values(), sample_ns])
            for name in self.area:
                self.area[name] += self.sum(name) * (at_ns - self.now_ns)
            self.now_ns = at_ns
            for domain_id in sorted(d for d, t in self.deaths.items() if t == at_ns):
                rows.append(self.end(domain_id, "pod_oom", "debt"))
                events.append(EventRow(at_ns, self.spec.host_id, domain_id, 1, "pod_oom", "dead"))
                self.dead += 1
            if at_ns == sample_ns:
                samples.append(self.sample())
            for command in commands:
                if command.at_ns != at_ns:
                    continue
                if isinstance(command, StartDomain):
                    self.start(command.request)
                elif isinstance(command, StopDomain) and command.domain_id in self.living:
                    rows.append(self.end(command.domain_id, "shut_down", ""))
                elif isinstance(command, MigrateOut) and command.domain_id in self.living:
                    request, _ = self.living[command.domain_id]
                    wanted.append(RoomWanted(request, request.memory_pages))
                elif isinstance(command, KeepRoom):
                    self.rooms[command.request.domain_id] = command.request
                    answers.append(RoomAnswer(command.request.domain_id))
                elif isinstance(command, DropRoom):
                    self.rooms.pop(command.domain_id, None)
                elif isinstance(command, MigrateGo) and command.domain_id in self.living:
                    departed.append(state_of(self.living[command.domain_id][0], at_ns))
                    rows.append(self.end(command.domain_id, "migrated", ""))
                elif isinstance(command, MigrateOut | MigrateGo):
                    stayed.append(command.domain_id)
                elif isinstance(command, MigrateIn):
                    own = command.state.request
                    self.rooms.pop(own.domain_id, None)
                    self.start(replace(own, attempt=own.attempt + 1, origin="migration", arrival_ns=at_ns))
                elif isinstance(command, FailHost):
                    self.rooms.clear()
                    rows += [self.end(domain_id, "host_failed", "") for domain_id in sorted(self.living)]
                elif isinstance(command, EndWarmup):
                    self.since_ns, self.area = at_ns, dict.fromkeys(self.area, 0)
                    self.peak = {name: self.sum(name) for name in self.peak}
                elif isinstance(command, Close):
                    rows += [self.end(domain_id, "running", "") for domain_id in sorted(self.living)]
                    host = self.host_row()
        told = tuple(rows), tuple(events), SampleBlock.of(samples), host
        moving = tuple(departed), tuple(stayed), tuple(wanted), tuple(answers)
        return HostReport(self.spec.host_id, until_ns, self.view(), *told, *moving)

    def start(self, request: MachineRequest) -> None:
        """Own the memory at once; draw whether and when it dies."""
        draw = rng.stream(self.seed, "domain", request.domain_id, "death")
        self.living[request.domain_id] = (request, self.now_ns)
        if draw.random() < 1 / 3:
            self.deaths[request.domain_id] = self.now_ns + 1 + int(draw.integers(200 * NS_PER_S))
        self.started += 1
        self.peak = {name: max(peak, self.sum(name)) for name, peak in self.peak.items()}

    def end(self, domain_id: int, fate: str, cause: str) -> DomainRow:
        """Take a guest out, but for the end of the run, and write its row."""
        request, start_ns = self.living[domain_id]
        if fate != "running":
            del self.living[domain_id]
        self.deaths.pop(domain_id, None)
        blank = rejection(request, self.now_ns, cause)
        return replace(
            blank,
            host_id=self.spec.host_id,
            boot_start_ns=start_ns,
            fate=fate,
            tot_pages=request.memory_pages,
            boot_done_ns=start_ns + BOOT_NS if self.now_ns >= start_ns + BOOT_NS else None,
        )

    def sum(self, name: str) -> int:
        """Sum of one size of the living."""
        return sum(getattr(request, name) for request, _ in self.living.values())

    def view(self) -> HostView:
        """need_memory is memory here."""
        committed = self.sum("memory_pages")
        free = self.spec.usable_pages - committed
        host_id, usable = self.spec.host_id, self.spec.usable_pages
        rooms = sum(request.memory_pages for request in self.rooms.values())
        promised, living = self.sum("maxmem_pages"), len(self.living)
        return HostView(host_id, usable, committed + rooms, promised, free - rooms, living, self.now_ns)

    def sample(self) -> SampleRow:
        """Everything owned is populated and wanted."""
        owned, promised = self.sum("memory_pages"), self.sum("maxmem_pages")
        free = self.spec.usable_pages - owned
        host_id, living = self.spec.host_id, len(self.living)
        return SampleRow(self.now_ns, host_id, promised, owned, owned, owned, owned, 0, 0, free, living, self.dead)

    def host_row(self) -> HostRow:
        """Means are integrals over the run."""
        promised, owned = (area / (self.now_ns - self.since_ns) for area in self.area.values())
        usable = self.spec.usable_pages
        ids = (self.spec.host_id, self.spec.ram_pages, usable, self.started, self.dead, self.started)
        owned_columns = (self.peak["memory_pages"], owned) * 4  # target, owned, populated, demanded: peak and mean
        return HostRow(
            *ids, self.peak["maxmem_pages"], promised, *owned_columns, 0, usable - owned, None, 0, 0, 0, 0, 0
        )


def state_of(request: MachineRequest, at_ns: int) -> GuestState:
    """What a fake guest takes with it: its request."""
    none: tuple[tuple[int, int], ...] = ()
    return GuestState(
        request, at_ns, 0, (), request.memory_pages, 0, 0, 0, request.memory_pages, none, none, none, none, none,
        0, 0, 0, 0, 0, False, 0, False,
    )  # fmt: skip


def fake_model(
    spec: HostSpec,
    host: HostConfig,
    guests: Mapping[str, GuestConfig],
    seed: int,
    telemetry_ns: int,
    *,
    machine_samples: bool,
    controller: ControllerConfig | None,
    unasked_ns: int,
    stride_ns: int,
) -> FakeHost:
    """What takes the place of the real host's class."""
    return FakeHost(spec, seed, telemetry_ns)


def make_fake(spec: HostSpec, plan: HostPlan) -> FakeHost:
    """What a pool is given in place of the real host."""
    return FakeHost(spec, plan.seed, plan.telemetry_ns)
