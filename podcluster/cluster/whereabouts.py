"""Where the machines of a run are, as far as the cluster knows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from podcluster.cluster.rescue import Lost
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import Installed


@dataclass(slots=True)
class Whereabouts:
    """Machines by domain_id, and hosts."""

    requests: dict[int, MachineRequest]  # what they are asked for with by now
    host_of: dict[int, int] = field(default_factory=dict)  # host_id of those that a host took
    landings: dict[int, int] = field(default_factory=dict)  # when those land that are between two hosts [ns]
    lost: dict[int, Lost] = field(default_factory=dict)  # those to be started again, their host having failed
    ended: set[int] = field(default_factory=set)  # those that are on no host any more
    down: dict[int, int] = field(default_factory=dict)  # by host_id: when it failed [ns]

    def is_on(self, domain_id: int, host_id: int) -> bool:
        """Whether a domain is, as far as is known, on this host, and not on its way."""
        away = domain_id in self.lost or domain_id in self.landings or domain_id in self.ended
        return self.host_of[domain_id] == host_id and not away

    def reboots(self, into: Installed) -> None:
        """A machine is what it has installed from here on."""
        asked = self.requests[into.domain_id]
        self.requests[into.domain_id] = replace(asked, os_class=into.os_class, memory_pages=into.memory_pages)
