"""What a host says at the end of an epoch.

What        `HostReport`: its view of itself, rows of what ended and happened, what there is to say of domains that
            change hosts (`migration.py`), and what machines have installed (`Installed`).
Units       Pages of 4 KiB; ns of simulated time.
Invariants  A report is of one host and one epoch. A row is in one report.
"""

from __future__ import annotations

from dataclasses import dataclass

from podcluster.records.hosts import HostView
from podcluster.records.migration import GuestState, RoomAnswer, RoomWanted
from podcluster.records.rows import DomainRow, EventRow, HostRow
from podcluster.records.samples import NO_MACHINE_SAMPLES, NO_SAMPLES, MachineSampleBlock, SampleBlock
from podcluster.records.values import Sent


@dataclass(frozen=True, slots=True)
class Installed(Sent):
    """A machine reboots into what it has installed: what it is asked for with from then on, and its need_memory."""

    domain_id: int
    os_class: str
    memory_pages: int
    need_pages: int


@dataclass(frozen=True, slots=True)
class HostReport(Sent):
    """What a host says at the end of an epoch: its view, what ended, what happened; `host` only after Close.

    `wanted` is asked for by domains that are ready to go to another host, `departed` the state of those on their way
    there, `stayed` the domain_ids of those that were to go and do not; `answers` are about domains that are to come,
    `installed` about those that are built again as something else. Before `quiet_until_ns`, without commands, the host
    only gets older.
    """

    host_id: int
    now_ns: int
    view: HostView
    domains: tuple[DomainRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    samples: SampleBlock = NO_SAMPLES
    host: HostRow | None = None
    departed: tuple[GuestState, ...] = ()
    stayed: tuple[int, ...] = ()
    wanted: tuple[RoomWanted, ...] = ()
    answers: tuple[RoomAnswer, ...] = ()
    machine_samples: MachineSampleBlock = NO_MACHINE_SAMPLES
    quiet_until_ns: int = 0
    installed: tuple[Installed, ...] = ()

    @property
    def moving(self) -> bool:
        """Whether it says anything of domains that move."""
        return bool(self.departed or self.stayed or self.wanted or self.answers)
