"""What the cluster sends out in a step: commands to hosts, and events of its own."""

from __future__ import annotations

from podcluster.cluster.plan import Plan
from podcluster.cluster.pool import CommandsByHost
from podcluster.records.commands import Close, Command, EndWarmup, FailHost, StartDomain, StopDomain
from podcluster.records.fates import EventKind
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import DropRoom
from podcluster.records.rows import NO_DOMAIN, EventRow
from podcluster.records.tables import Sink


class Outbox:
    """Commands are gathered by host until they are taken; events go to the sink at once."""

    def __init__(self, plan: Plan, sink: Sink) -> None:
        self._plan = plan
        self._sink = sink
        self._commands: dict[int, list[Command]] = {}

    def command(self, host_id: int, command: Command) -> None:
        """One host is to do this."""
        self._commands.setdefault(host_id, []).append(command)

    def command_all(self, command: Command) -> None:
        """Every host is to do this."""
        for spec in self._plan.specs:
            self.command(spec.host_id, command)

    def take(self) -> CommandsByHost:
        """All commands since the last time, by host, each host's in the order in which it is to do them."""
        commands, self._commands = self._commands, {}
        return {host_id: sorted(commands[host_id], key=_order) for host_id in sorted(commands)}

    def event(self, at_ns: int, host_id: int, request: MachineRequest, kind: EventKind, text: str) -> None:
        """Something happened to a machine."""
        self._sink.write("events", [EventRow(at_ns, host_id, request.domain_id, request.attempt, kind, text)])

    def host_event(self, at_ns: int, host_id: int, kind: EventKind, text: str) -> None:
        """Something happened to a host."""
        self._sink.write("events", [EventRow(at_ns, host_id, NO_DOMAIN, 0, kind, text)])


def _order(command: Command) -> tuple[int, int]:
    """Time; then the host's death before all else, stops before starts and Close last; the sort is stable, so the order
    in which things were due breaks the rest.
    """
    rank = {FailHost: 0, EndWarmup: 0, StopDomain: 1, DropRoom: 1, StartDomain: 2, Close: 4}.get(type(command), 3)
    return command.at_ns, rank
