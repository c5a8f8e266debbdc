"""What a host is told to do.

What        `Command`, each with the instant at which it is to be done. Those of a domain that changes hosts are in
            `migration.py`.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     M maxmem_pages   T target_pages
Invariants  A domain that the host has is named by its number; one that it is to have comes with its request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from podcluster.records.machines import MachineRequest
from podcluster.records.migration import DropRoom, KeepRoom, MigrateGo, MigrateIn, MigrateOut, MigrateStay
from podcluster.records.values import Sent


@dataclass(frozen=True, slots=True, eq=False)
class StartDomain(Sent):
    """Build and boot this machine at `at_ns`."""

    at_ns: int
    request: MachineRequest


@dataclass(frozen=True, slots=True)
class StopDomain:
    """Shut the domain down at `at_ns`."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class SetTarget:
    """`xl mem-set`: ask for a new target [pages] at `at_ns`."""

    at_ns: int
    domain_id: int
    target_pages: int


@dataclass(frozen=True, slots=True)
class SetMaxMem:
    """`xl mem-max`: set a new limit and static-max [pages] at `at_ns`."""

    at_ns: int
    domain_id: int
    maxmem_pages: int


@dataclass(frozen=True, slots=True)
class AttachDevice:
    """`xl pci-attach`: pass a device of the host's through at `at_ns`."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class FailHost:
    """The host dies at `at_ns` with all that runs on it or waits there; it stands empty until it is switched on again,
    which is for the cluster to know.
    """

    at_ns: int


@dataclass(frozen=True, slots=True)
class EndWarmup:
    """Means and peaks of the host's row begin anew at `at_ns`."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Close:
    """The run ends at `at_ns`: report a row for everything still running and one for the host."""

    at_ns: int


Command: TypeAlias = (
    StartDomain
    | StopDomain
    | SetTarget
    | SetMaxMem
    | AttachDevice
    | MigrateOut
    | MigrateGo
    | MigrateStay
    | KeepRoom
    | DropRoom
    | MigrateIn
    | FailHost
    | EndWarmup
    | Close
)
