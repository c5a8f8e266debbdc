"""A domain with its guest, on one host, and all of a host.

What        `Resident`, what the host's clock and its controller know of one domain; `Residents`, who is there, and for
            whom there is room; `Room`.
Units       Pages of 4 KiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from podcluster.host.balloon import Balloon
from podcluster.host.domain import Domain
from podcluster.host.guest import Guest
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.streams import NEVER
from podcluster.host.xapi import Constraints, sent
from podcluster.records.machines import MachineRequest


@dataclass(slots=True)
class Resident:
    """A domain with its guest, on this host."""

    request: MachineRequest
    domain: Domain
    memory: GuestMemory
    guest: Guest
    balloon: Balloon | None
    linux: bool  # whose balloon driver it has
    settings: Constraints  # of its memory [pages]; `dynamic` is what holds now
    queued: int = 0  # stamp of its entry in the queue; older entries are void
    due_ns: int = 0  # when it acts next, as of then;
    takes_ns: int = 0  # before when it certainly takes nothing from the host's heap;
    unseen_ns: int = 0  # before when it leaves the heap alone, and shows nothing new to who looks at what domains own
    moved: bool = False  # a controller has changed its target
    moved_pages: int = 0  # up or down, since then
    leaving: bool = False  # it is about to migrate
    _stays: bool = field(init=False)  # its guest is not going to leave, and takes nothing from its balloon by itself

    def __post_init__(self) -> None:
        self._stays = not self.guest.leaves_by_itself and not self.guest.helps_itself

    @property
    def dynamic(self) -> Constraints:
        """Its settings, with the range in which a controller may move its target (D4.7)."""
        return sent(self.settings) if self.leaving else self.settings

    @property
    def can_balloon(self) -> bool:
        """Its driver has said that it is there (`control/feature-balloon`)."""
        return self.balloon is not None and self.balloon.up

    @property
    def quiet(self) -> bool:
        """Nothing that it does by itself touches the host's heap or tells a controller anything: it is up, Xen has
        nothing left to find for it, or finds it in the cache, its balloon is where it was told to be and stays there,
        and it is not going to leave.
        """
        up = self.guest.boot_done_ns is not None and self._stays
        return up and self._served and (self.balloon is None or self.balloon.idle)

    @property
    def _served(self) -> bool:
        """What it touches is there, or in its cache: it owes nothing, and Xen does not reclaim all the same."""
        memory = self.memory
        return memory.entry_count == 0 or (memory.debt <= 0 and memory.lock.served_page_ns is not None)

    def queue(self, stamp: int, lags_ns: int) -> int:
        """It is entered in the queue, to act when it says, or as late as by `lags_ns` if nobody sees it before; what it
        says now holds until it acts or is told something, for then it is entered anew.
        """
        next_ns = self.guest.next_ns
        self.queued, self.due_ns, self.takes_ns = stamp, next_ns, self._takes_ns(next_ns)
        if next_ns >= lags_ns:
            self.unseen_ns = next_ns
            return next_ns
        self.unseen_ns = self._unseen_ns(next_ns)
        return min(self.unseen_ns, lags_ns)

    def _takes_ns(self, next_ns: int) -> int:
        """Before when it takes nothing from the host's heap, and does not end: as long as its boot does not fail, while
        it owes nothing, so that no access can find the cache empty, and its balloon only gives.
        """
        guest, balloon = self.guest, self.balloon
        safe = self._stays and self.memory.debt <= 0 and not self.memory.short_of_tables
        if not safe or guest.end is not None or not (balloon is None or balloon.gives):
            return next_ns
        return guest.boots_until_ns(balloon.progress_ns if balloon is not None else 0)

    def _unseen_ns(self, next_ns: int) -> int:
        """Before when only its own memory changes, by accesses that are served from its cache."""
        balloon = self.balloon
        if not self._served or (balloon is not None and balloon.waits_for_memory):
            return next_ns
        balloons_ns = balloon.next_ns if balloon is not None else NEVER
        return max(next_ns, min(self.takes_ns, self.guest.shows_ns, balloons_ns))


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of this host that is kept for a domain of another: what it is let in with, and the frames set aside."""

    request: MachineRequest
    handle: int
    pages: int


@dataclass(frozen=True, slots=True)
class Residents:
    """The domains on one host."""

    running: dict[int, Resident] = field(default_factory=dict)  # by domid
    preserved: dict[int, Resident] = field(default_factory=dict)  # by domain_id: crashed, and kept with all they own
    rooms: dict[int, Room] = field(default_factory=dict)  # by domain_id: for those that are to come
    domid_of: dict[int, int] = field(default_factory=dict)  # domain_id of those that run -> domid

    @property
    def standing(self) -> tuple[Resident, ...]:
        """All that own memory."""
        return (*self.running.values(), *self.preserved.values())
