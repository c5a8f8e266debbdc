"""A simulated Xen small enough to read, for controllers to be tried on: domains whose drivers follow their targets
well, slowly, up to a limit, never, or on and off. What squeezed's own tests have, in time steps of 0.1 s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from podcluster.host.controllers.view import (
    Action,
    Controller,
    DomainView,
    Grant,
    Limit,
    MemSet,
    OwnTarget,
    Refuse,
    StartView,
    Target,
    Uncooperative,
    View,
    after,
)
from podcluster.host.guest_stats import GuestStats
from podcluster.units import NS_PER_S

STEP_NS = NS_PER_S // 10
KIB = 4  # a page
OFFSET_PAGES = 256  # of Xen's limit over the target


@dataclass
class Vm:
    """A domain [KiB] and its driver, which moves `rate_kib` a second while `works(t)`, between `least` and `most`."""

    domid: int
    low: int
    target: int
    high: int
    actual: int
    rate_kib: int = 100
    least: int = 0
    most: int = 1 << 40
    works: Callable[[float], bool] = lambda t: True
    sloppy: bool = False  # it stops a page short when it shrinks
    greedy: bool = False  # it grows whatever it is told, as far as Xen lets it
    can_balloon: bool = True
    used: int = 0  # what its guest says it uses; the rest of what it has is free
    wanted: int = 0
    limit: int = 0
    flagged: bool = False
    limits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limit = self.limit or max(self.target, self.actual)

    def wish(self, step_s: float, now_s: float) -> int:
        """How much it moves in a step, if it can have it: whole pages, to the last one at or below its target."""
        if not self.works(now_s) or not self.can_balloon:
            return 0
        most = min(self.most, self.limit) // KIB * KIB
        if self.greedy:
            return max(0, min(int(self.rate_kib * step_s), most - self.actual)) // KIB * KIB
        gap = self.target // KIB * KIB - self.actual
        if gap < 0 and self.sloppy:
            gap += KIB
        way = min(abs(gap), max(KIB, int(self.rate_kib * step_s) // KIB * KIB))
        return -min(way, max(0, self.actual - self.least)) if gap < 0 else min(way, max(0, most - self.actual))


class NoMemoryError(AssertionError):
    """A driver found that the host had not the memory that its target promises."""


class SmallXen:
    """A host [KiB] with a controller; `strict`: a domain that grows beyond what is free is an error."""

    def __init__(
        self, controller: Controller, free_kib: int, vms: list[Vm], *, usable_kib: int = 0, strict: bool = True
    ) -> None:
        self.controller = controller
        self.state = controller.first_state
        self.free = free_kib
        self.vms = {vm.domid: vm for vm in vms}
        self.usable = usable_kib or free_kib + sum(vm.actual for vm in vms)
        self.strict = strict
        self.now_ns = 0
        self.due_ns = controller.period_ns
        self.starts: list[StartView] = []
        self.granted: dict[int, int] = {}  # domain_id -> KiB
        self.refused: dict[int, Refuse] = {}
        self.log: list[tuple[float, Action]] = []
        self.least_free = free_kib

    # -- what happens ------------------------------------------------------------------------------------------------

    def ask(self, min_kib: int, max_kib: int, domain_id: int = 99) -> None:
        """Let a start ask for memory."""
        self.starts.append(StartView(domain_id, f"vm{domain_id}", min_kib // KIB, max_kib // KIB, 0, self.now_ns))
        self.due_ns = self.now_ns

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Live for so long, or until something; whether it came to that."""
        end_ns = self.now_ns + int(seconds * NS_PER_S)
        while self.now_ns <= end_ns:
            for _ in range(50):
                if self.due_ns > self.now_ns:
                    break
                self._look()
            if until():
                return True
            self.now_ns += STEP_NS
            if any([self._step(vm) for vm in self.vms.values()]):
                self.due_ns = min(self.due_ns, after(self.now_ns - 1, self.controller.period_ns))
        return until()

    @property
    def answered(self) -> bool:
        """Nobody waits any more."""
        return not self.starts

    def _step(self, vm: Vm) -> bool:
        moved = vm.wish(STEP_NS / NS_PER_S, self.now_ns / NS_PER_S)
        if moved > self.free:
            if self.strict and not vm.greedy:
                raise NoMemoryError(f"Dom{vm.domid} wants {moved} KiB of {self.free} at {self.now_ns / NS_PER_S} s")
            moved = self.free
        vm.actual += moved
        self.free -= moved
        self.least_free = min(self.least_free, self.free)
        return moved != 0

    def _look(self) -> None:
        decision = self.controller.decide(self.view(), self.state)
        self.state = decision.state
        for action in decision.actions:
            self._act(action)
        never = 1 << 62
        self.due_ns = never if decision.next_check_ns is None else decision.next_check_ns

    def _act(self, action: Action) -> None:
        self.log.append((self.now_ns / NS_PER_S, action))
        if isinstance(action, Grant | Refuse):
            self.starts = [one for one in self.starts if one.domain_id != action.domain_id]
            if isinstance(action, Grant):
                self.granted[action.domain_id] = action.target_pages * KIB
                self.free -= action.target_pages * KIB
                self.least_free = min(self.least_free, self.free)
            else:
                self.refused[action.domain_id] = action
            return
        vm = self.vms[action.domid]
        if isinstance(action, Target):
            assert action.target_kib // KIB <= vm.limit // KIB, f"target above limit, Dom{vm.domid}"
            vm.target = action.target_kib
        elif isinstance(action, Limit):
            vm.limit = (action.limit_pages - OFFSET_PAGES) * KIB
            assert vm.limit // KIB >= vm.target // KIB, f"limit below target, Dom{vm.domid}"
        elif isinstance(action, MemSet):
            vm.target = vm.limit = action.target_pages * KIB
        elif isinstance(action, OwnTarget):
            vm.target = action.total_pages * KIB
        elif isinstance(action, Uncooperative):
            vm.flagged = action.flagged

    # -- what it shows -----------------------------------------------------------------------------------------------

    def view(self) -> View:
        """The host as its controller sees it."""
        domains = [self._shown(vm) for vm in self.vms.values()]
        return View(self.now_ns, self.usable // KIB, self.free // KIB, 0, 0, domains, tuple(self.starts))

    def _shown(self, vm: Vm) -> DomainView:
        stats = None
        if vm.used:
            total = vm.actual // KIB
            used = min(vm.used // KIB, total)
            swapped = max(0, vm.used // KIB - total)
            stats = GuestStats(total, total - used, 0, used, swapped, 1 << 40, vm.wanted // KIB or vm.used // KIB)
        return DomainView(
            domid=vm.domid,
            domain_id=vm.domid,
            dynamic_min_pages=vm.low // KIB,
            dynamic_max_pages=vm.high // KIB,
            static_max_pages=vm.high // KIB,
            target_kib=vm.target,
            tot_pages=vm.actual // KIB,
            limit_pages=vm.limit // KIB + OFFSET_PAGES,
            can_balloon=vm.can_balloon,
            has_agent=True,
            memory_offset_pages=0,
            reservation_pages=vm.target // KIB,
            shadow_pages=0,
            linux=True,
            stats=stats,
        )
