"""What hosts and cluster say to each other about a domain that goes from one host to another.

What        In the order in which it is said: `MigrateOut` to the sender, which reports `RoomWanted` once the domain is
            ready; `KeepRoom` to the receiver, which reports a `RoomAnswer`, or `DropRoom` if nothing comes; `MigrateGo`
            to the sender, or `MigrateStay`; the `GuestState` is in the sender's report, and goes to the receiver in
            `MigrateIn`.
Units       Pages of 4 KiB; ns of simulated time; runs are (first gfn, pages).
Invariants  All of it is plain data, of no host and no process in particular: a domain goes on anywhere from its state
            alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from podcluster.records.machines import MachineRequest


@dataclass(frozen=True, slots=True)
class MigrateOut:
    """Bring a domain down to its dynamic minimum, for `wait_ns` at most, and ask for room for what it then has: that is
    in the report of the epoch (D4.7). It stays if that is more than the `most_pages` that the receiver can give. Told
    to go, it is copied at `pages_per_s` and let go of: its state is in the report of the epoch in which that is done.
    """

    at_ns: int
    domain_id: int
    wait_ns: int
    pages_per_s: int
    most_pages: int


@dataclass(frozen=True, slots=True, eq=False)
class RoomWanted:
    """A domain is ready to be copied, and has so many pages."""

    request: MachineRequest
    pages: int


@dataclass(frozen=True, slots=True, eq=False)
class KeepRoom:
    """Make room for a domain that runs on another host and has `pages` there; what comes of it is in a report."""

    at_ns: int
    request: MachineRequest
    pages: int


@dataclass(frozen=True, slots=True)
class RoomAnswer:
    """What came of making room for a domain of another host: why there is none, or empty."""

    domain_id: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class DropRoom:
    """A domain for which room was to be made does not come."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class MigrateGo:
    """There is room where this domain is to go: copy it."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True)
class MigrateStay:
    """There is none: let this domain stay as it is."""

    at_ns: int
    domain_id: int


@dataclass(frozen=True, slots=True, eq=False)
class GuestState:
    """What goes with a domain that migrates: plain numbers, and runs of gfns (first, count), of no host in particular.

    `boot` is what was drawn for its boot, in the order of `guest_boot.Boot`; `data` are the gfns of RAM that hold data,
    `balloon` those that the balloon holds, in order; `pool` and `taken` what the guest's allocator has to give, and
    gave; `hotplugged` is RAM that was added since it booted. `held` of services and applications are `resident` pages
    in memory and the rest on swap.
    """

    request: MachineRequest
    left_ns: int
    up_ns: int
    boot: tuple[int, ...]
    target_pages: int
    xenstore_target_kib: int
    static_max_kib: int
    limit_pages: int
    tot_pages: int
    data: tuple[tuple[int, int], ...]
    balloon: tuple[tuple[int, int], ...]
    hotplugged: tuple[tuple[int, int], ...]
    pool: tuple[tuple[int, int], ...]
    taken: tuple[tuple[int, int], ...]
    kernel_allocated: int
    resident: int
    cache: int
    held: int
    floor: int
    killed: bool
    swap_free_ns: int
    driver_faulty: bool


@dataclass(frozen=True, slots=True, eq=False)
class MigrateIn:
    """Let a domain go on here that comes from another host, in the room that was kept for it, if any was."""

    at_ns: int
    state: GuestState
