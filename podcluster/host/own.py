"""What a host has for itself: Xen's memory and dom0's, dom0's visits to its guests, and Xen's alarm when memory is low.

What        `OwnMemory`, the frames of Xen and dom0, of which xl or squeezed may take some for a guest; `Starts`, what
            waits its turn while dom0 shrinks: starts, and raises of a target under the first toolstack; `Visits`, dom0
            mapping pages of one guest; `LowMemory`, Xen's interrupt.
Units       Pages of 4 KiB; ns of simulated time.
Rules       docs/model.md A6, B3.2-B3.6, D5.15, E2, E6, E16.
Departs     dom0 gives memory back evenly, and takes it as evenly; what it has given is free when xl looks, each 2 s, or
            squeezed does. xl lowers dom0's target and never raises it (B3.3); squeezed does both. Its visits are a
            Poisson process over all RAM of a guest, one page each, and take no time of the guest's vCPUs. Which frames
            dom0 has is of no account: it gives all and takes fewer, or more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from podcluster.config import HostConfig
from podcluster.errors import InvariantError
from podcluster.host.guest_memory import GuestMemory
from podcluster.host.mechanism import Mechanism
from podcluster.host.streams import NEVER, VISITS
from podcluster.host.xl import POLL_S, Dom0, FreeMemory, Look
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest
from podcluster.units import NS_PER_S, PAGES_PER_MIB, kib_to_pages, mib_to_pages, pages_to_kib, pages_to_mib

POLL_NS: Final = POLL_S * NS_PER_S
DOM0: Final = 0
LOW_MEMORY_PAGES: Final = 16_384  # low_mem_virq_limit, 64 MiB (E16)


class OwnMemory:
    """The frames that Xen and dom0 have."""

    def __init__(self, machine: Mechanism, spec: HostSpec, host: HostConfig, floor_mib: int | None) -> None:
        """Take them from a new machine; what guests can never have is RAM less `usable_pages`. `floor_mib`: what dom0
        may be brought down to, by whoever moves it.
        """
        self._machine = machine
        fixed_pages = spec.ram_pages - spec.usable_pages
        self.dom0: Dom0 | None = None
        self._handle = 0
        if floor_mib is not None:
            fixed_pages = max(0, fixed_pages - floor_mib * PAGES_PER_MIB)
            pages = host.dom0_mib_at_boot(pages_to_mib(spec.ram_pages - fixed_pages)) * PAGES_PER_MIB
            self.dom0 = Dom0(pages, pages, mib_to_pages(host.dom0_free_mib_per_s))
            self._handle = self._take(pages, spec)
        self.pages = fixed_pages + (self.dom0.pages if self.dom0 else 0)
        if fixed_pages:
            self._take(fixed_pages, spec)

    def _take(self, pages: int, spec: HostSpec) -> int:
        handle = self._machine.set_aside(pages)
        if handle < 0:
            raise InvariantError(f"[HM-2] Xen and dom0 fit in RAM violated: {pages} pages of {spec}")
        return handle

    def settle(self, at_ns: int) -> bool:
        """Let the frames that dom0 has given back by now be free, and take those that it has got, as far as there are
        any; whether there were.
        """
        dom0 = self.dom0
        assert dom0 is not None
        had, wanted = dom0.pages, dom0.usage(at_ns)
        if wanted == had:
            return False
        usage = min(wanted, had + self._machine.free_pages)
        dom0.pages, dom0.since_ns = usage, at_ns
        if usage == had:
            return False
        self._machine.release(self._handle)
        self._handle = self._machine.set_aside(usage)
        self.pages += usage - had
        return True


class Turn(NamedTuple):
    """Something that needs free memory: a start of `request`, or anything else of a domain (None)."""

    domain_id: int
    request: MachineRequest | None
    need_pages: int
    decided: Callable[[int, bool], None]  # at, whether it fits


class Starts:
    """Starts under xl's lock: one after another, each once dom0 has made room for it (B3.3, B3.6)."""

    def __init__(
        self,
        own: OwnMemory,
        *,
        free_pages: Callable[[], int],
        later: Callable[[int, Callable[[int], None]], int],
        freed: Callable[[int], None],
    ) -> None:
        """`later(at, act)` lets the host act then; `freed(at)`: more is free than before."""
        self._own = own
        self._free_pages = free_pages
        self._later = later
        self._freed = freed
        self._queue: deque[Turn] = deque()
        self._loop: FreeMemory | None = None
        self._ticking = False

    def ask(self, at_ns: int, turn: Turn) -> None:
        """Decide on this when it is its turn."""
        self._queue.append(turn)
        if self._loop is None:
            self._go_on(at_ns)

    def withdraw(self, domain_id: int) -> MachineRequest | None:
        """Take a start back that has not had its turn yet; None if there is none."""
        for i, turn in enumerate(self._queue):
            if turn.domain_id == domain_id and turn.request is not None:
                del self._queue[i]
                if i == 0:
                    self._loop = None  # the next begins at the next tick
                return turn.request
        return None

    @property
    def waiting(self) -> list[MachineRequest]:
        """Starts that have not had their turn."""
        return [turn.request for turn in self._queue if turn.request is not None]

    def _go_on(self, at_ns: int) -> None:
        """Look, decide what can be decided, and come back in 2 s while there is anything to wait for."""
        if self._own.settle(at_ns):
            self._freed(at_ns)
        while self._queue:
            turn = self._queue[0]
            if self._loop is None:
                self._loop = FreeMemory(pages_to_kib(turn.need_pages))
            verdict = self._look(at_ns)
            if verdict is None:
                break
            self._loop = None
            self._queue.popleft()
            turn.decided(at_ns, verdict)
        dom0 = self._own.dom0
        assert dom0 is not None
        if not self._ticking and (self._queue or (dom0.pages > dom0.target_pages and dom0.pages_per_s)):
            self._ticking = True
            self._later(at_ns + POLL_NS, self._tick)

    def _tick(self, at_ns: int) -> None:
        self._ticking = False
        self._go_on(at_ns)

    def _look(self, at_ns: int) -> bool | None:
        """Let the loop of the first in line see the host: its verdict, or None if it waits."""
        dom0, loop = self._own.dom0, self._loop
        assert dom0 is not None and loop is not None
        look = Look(pages_to_kib(self._free_pages()), pages_to_kib(dom0.pages), pages_to_kib(dom0.target_pages))
        step = loop.see(look)
        if step.target_kib is not None:
            dom0.aim(kib_to_pages(step.target_kib), at_ns)
        return step.fits


class Visits:
    """dom0, a device model or a tool maps pages of a guest at random, which populates them (A6, E2)."""

    rank = VISITS

    def __init__(
        self,
        memory: GuestMemory,
        rng: np.random.Generator,
        per_s: float,
        start_ns: int,
        on_death: Callable[[int], None],
    ) -> None:
        self._memory = memory
        self._rng = rng
        self._per_s = per_s
        self._on_death = on_death
        self.next_ns = self._after(start_ns)

    def _after(self, at_ns: int) -> int:
        return at_ns + 1 + int(self._rng.exponential(1 / self._per_s) * NS_PER_S)

    def touches_heap(self) -> bool:
        """Never: populating takes from the domain's own cache."""
        return False

    def enters_xen(self) -> bool:
        """While there is anything to populate."""
        return self._memory.lock.faults

    def run(self, last_ns: int, *, single: bool) -> None:
        """One page of RAM, whichever; no more once no entry is left (G12)."""
        memory = self._memory
        if memory.inert:
            self.next_ns = NEVER
            return
        at_ns = memory.lock.enter(self.next_ns, interrupts=False)
        memory.map_for(self._gfn(int(self._rng.integers(memory.ram_pages))), DOM0)
        memory.lock.leave()
        if memory.crashed:
            self._on_death(at_ns)
            return
        self.next_ns = self._after(self.next_ns)

    def _gfn(self, number: int) -> int:
        """RAM page number so and so."""
        for first, count in self._memory.ram:
            if number < count:
                return first + number
            number -= count
        raise InvariantError(f"[GM-1] page number {number} is RAM violated")


class LowMemory:
    """Xen's low-memory interrupt: raised when free memory, claims taken off, falls to a threshold, which then halves
    (E16). It doubles again, up to where it began, once there is twice as much as it was raised at.
    """

    def __init__(self, available_pages: int) -> None:
        self.threshold = LOW_MEMORY_PAGES
        self.crossed(available_pages)  # a host that begins low has nobody to tell

    def crossed(self, available_pages: int) -> list[int]:
        """The thresholds that were reached just now [pages], highest first."""
        found = []
        while self.threshold and available_pages <= self.threshold:
            found.append(self.threshold)
            self.threshold //= 2
        while self.threshold < LOW_MEMORY_PAGES and available_pages >= 4 * max(1, self.threshold):
            self.threshold = max(1, 2 * self.threshold)
        return found
