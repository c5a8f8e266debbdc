"""A memory controller at work on one host: when it looks, what it is shown, and its hands.

What        `Control` keeps the starts that wait for memory and what a controller is to be shown of each domain, lets
            the controller (a pure function, `controllers/`) decide, and carries out what it decided.
Units       Pages of 4 KiB; `target_kib` in KiB; ns of simulated time.
Looks       On multiples of the controller's period when something changed, at instants that it asked for, at once for a
            start that the cluster asks for. A look at which nothing could happen is skipped [CT-1]: an idle host costs
            nothing. At one instant the controller comes after commands and samples and before guests.
Invariants  [CT-1] [CT-2] of `controllers/view.py`.
            [CT-3] every start that was asked for ends in a build or in a refusal, with the time it waited.
Starts      A refused start is asked for again every 10 s until 60 s have passed (D4.2); where a controller never
            answers, its toolstack gives up after as long. With the controller dead a start gets its minimum at once
            (D4.2). Between two looks at one instant a granted guest is built, so nothing is ever granted twice.
Departs     A view shows nothing that awaits scrubbing, for frames are scrubbed as they are freed, or never, and nothing
            that is granted and not built, for a build takes no time (D5.2, D5.14); room for a domain of another host is
            set aside at once. A domain that crashed and is built again is put to the controller at the next multiple of
            its period. dom0 is in no view, unless squeezed is to manage it (D5.15). Claims are held within builds only,
            which take no time: no view has one. What squeezed writes to xenstore is what brings the guest's driver to
            the target: all of it for Linux, less the video RAM for Windows, whose driver leaves that out (C1.2, C2.1);
            the fudge of libxl (B1.9) is not taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from podcluster.config import ControllerConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.host import domain as toolstack
from podcluster.host.controllers import make_controller
from podcluster.host.controllers.view import (
    Action,
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
from podcluster.host.mechanism import Mechanism
from podcluster.host.resident import Resident
from podcluster.host.streams import NEVER
from podcluster.host.xl import SLACK_KIB, Dom0
from podcluster.records.fates import Cause
from podcluster.records.machines import MachineRequest
from podcluster.records.rows import NO_DOMAIN
from podcluster.units import NS_PER_S, PAGES_PER_MIB, kib_to_pages, pages_to_kib, s_to_ns

RETRY_NS: Final = 10 * NS_PER_S  # D4.2
PATIENCE_NS: Final = 60 * NS_PER_S
LOOKS_AT_AN_INSTANT: Final = 100_000  # more is a controller that does not come to an end

DOM0: Final = 0  # its domid

NOT_ENOUGH: Final = "HOST_NOT_ENOUGH_FREE_MEMORY({needed}, {free})"


class Build(Protocol):
    """Build and boot a guest."""

    def __call__(self, at_ns: int, request: MachineRequest, memory_pages: int) -> Resident | None:
        """With this target; None if the toolstack gave up."""


class TurnAway(Protocol):
    """Refuse a start for good."""

    def __call__(self, at_ns: int, request: MachineRequest, cause: Cause, text: str) -> None:
        """For this cause, which the operator reads as `text`."""


class TargetWritten(Protocol):
    """Follow up a changed target."""

    def __call__(self, at_ns: int, resident: Resident, before_pages: int, *, heap: bool, told: bool) -> None:
        """It was `before_pages`; `heap`: the domain may own other than before; `told`: its guest knows."""


class MarkUncooperative(Protocol):
    """Say that a domain does not co-operate."""

    def __call__(self, at_ns: int, resident: Resident, *, flagged: bool) -> None:
        """`memory/uncooperative` was written, or removed."""


class CatchUp(Protocol):
    """Let a guest do what nobody had to see yet."""

    def __call__(self, at_ns: int, resident: Resident) -> None:
        """All that it does before `at_ns`."""


class Hands(NamedTuple):
    """What a controller's hands do on the host."""

    catch_up: CatchUp
    build: Build
    turn_away: TurnAway
    target_written: TargetWritten
    mark_uncooperative: MarkUncooperative


@dataclass(slots=True)
class Waiting:
    """A start that waits for memory."""

    request: MachineRequest
    view: StartView
    next_ns: int  # its toolstack asks again then
    cause: Cause = "host_memory"  # why it was refused last
    text: str = ""


@dataclass(slots=True)
class Books:
    """What the controller is shown of a domain beside what the domain itself says."""

    target_kib: int
    limit_pages: int
    offset_pages: int
    reservation_pages: int


def kept_free_pages(host: HostConfig, controller: ControllerConfig | None) -> int:
    """What placement leaves free of a host for its toolstack or its controller, whose reserves are one (D3.2)."""
    squeezed = controller is not None and controller.name == "squeezed"
    own = controller.squeezed.reserve_mib * PAGES_PER_MIB if controller is not None and squeezed else 0
    return max(toolstack.reserve_pages(host), own)


class Control:
    """One host's controller."""

    hands: Hands  # given before its first look

    def __init__(self, config: ControllerConfig, machine: Mechanism, usable_pages: int, dom0: Dom0 | None) -> None:
        """`dom0`: where it is one of the domains that the controller moves (D5.15)."""
        self._controller = make_controller(config)
        self._state = self._controller.first_state
        self._machine = machine
        self._usable_pages = usable_pages
        self._gives_up = config.name not in ("squeezed", "qmemman")  # these two answer every start themselves
        self._writes_as_xapi = config.name == "squeezed"
        self._dead_ns = NEVER if config.dead_after_s is None else s_to_ns(config.dead_after_s)
        self.dom0 = dom0
        self._dom0_min_pages = config.squeezed.dom0_min_mib * PAGES_PER_MIB
        self._dom0_max_pages = dom0.pages if dom0 is not None else 0
        self._books: dict[int, Books] = {}  # by domid
        if dom0 is not None:
            limit_pages = dom0.pages + kib_to_pages(SLACK_KIB)
            self._books[DOM0] = Books(pages_to_kib(dom0.pages), limit_pages, offset_pages=0, reservation_pages=0)
        self._waiting: dict[int, Waiting] = {}  # by domain_id, in order of asking
        self.due_ns = self._dead_ns  # the next look
        self.period_ns = self._controller.period_ns
        self.wakes = self._controller.wakes
        self._reads = self._controller.reads
        self.actions = 0
        self.uncooperative = 0
        self.waited_ns = 0

    # -- when --------------------------------------------------------------------------------------------------------

    def wake(self, at_ns: int) -> None:
        """Look at `at_ns` at the latest."""
        if at_ns < self.due_ns:
            self.due_ns = at_ns

    def dead(self, at_ns: int) -> bool:
        """It is gone."""
        return at_ns >= self._dead_ns

    # -- starts and ends ---------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> Mapping[int, Waiting]:
        """Starts that wait, by domain_id."""
        return self._waiting

    def ask(self, at_ns: int, request: MachineRequest, overhead_pages: int, *, at_once: bool) -> None:
        """A start wants memory; the controller looks at once, or at the next multiple of its period."""
        view = StartView(
            request.domain_id, request.name, request.memory_pages, request.maxmem_pages, overhead_pages, at_ns
        )
        self._waiting[request.domain_id] = Waiting(request, view, at_ns)
        self.wake(at_ns if at_once else after(at_ns, self.period_ns))

    def withdraw(self, at_ns: int, domain_id: int) -> MachineRequest:
        """A start is not wanted any more."""
        one = self._waiting.pop(domain_id)
        self.waited_ns += at_ns - one.view.asked_ns
        return one.request

    def built(self, resident: Resident, memory_pages: int, overhead_pages: int) -> None:
        """A domain is there. What squeezed calibrates when the driver shows up, it could as well now: what a domain
        owns does not change before (D5).
        """
        domain = resident.domain
        if self._writes_as_xapi:
            domain.xenstore_target_kib = self._xenstore_kib(resident, pages_to_kib(memory_pages))
        self._books[domain.domid] = Books(
            target_kib=pages_to_kib(memory_pages),
            limit_pages=domain.numbers.max_pages,
            offset_pages=self._machine.tot_pages(domain.domid) - memory_pages,
            reservation_pages=memory_pages + overhead_pages,
        )

    def told(self, resident: Resident) -> None:
        """Somebody else has set a domain's target."""
        books = self._books.get(resident.domain.domid)
        if books is not None:
            books.target_kib = pages_to_kib(resident.domain.target_pages)
            books.limit_pages = resident.domain.target_pages + kib_to_pages(SLACK_KIB)

    def gone(self, domid: int) -> None:
        """A domain is no more."""
        self._books.pop(domid, None)

    # -- a look ------------------------------------------------------------------------------------------------------

    def look(self, at_ns: int, residents: Mapping[int, Resident], owned_of: Mapping[int, int]) -> None:
        """Decide and act, until there is nothing left to do at this instant."""
        for _ in range(LOOKS_AT_AN_INSTANT):
            if self.dead(at_ns):
                self._without(at_ns)
                return
            view = self._view(at_ns, residents, owned_of)
            decision = self._controller.decide(view, self._state)
            self._state = decision.state
            for action in decision.actions:
                self._act(at_ns, action, residents)
            next_ns = NEVER if decision.next_check_ns is None else decision.next_check_ns
            if decision.actions and next_ns > at_ns:
                next_ns = min(next_ns, after(at_ns, self.period_ns))
            self._give_up(at_ns)
            self.due_ns = min(next_ns, self._dead_ns, *(self._next_of(one, at_ns) for one in self._waiting.values()))
            if next_ns > at_ns:
                return
        raise InvariantError(f"[CT-1] a look comes to an end violated: {at_ns} ns, {self._state}")

    def _next_of(self, one: Waiting, at_ns: int) -> int:
        """When a waiting start matters by itself: its next try, or the end of its patience."""
        if one.next_ns > at_ns:
            return one.next_ns
        return one.view.asked_ns + PATIENCE_NS if self._gives_up else NEVER

    def _without(self, at_ns: int) -> None:
        """Nobody is there to ask: everybody gets the minimum (D4.2)."""
        self.due_ns = NEVER
        for domain_id in list(self._waiting):
            self._grant(at_ns, Grant(domain_id, self._waiting[domain_id].view.min_pages))

    def _give_up(self, at_ns: int) -> None:
        """Toolstacks that nobody answered lose patience."""
        if not self._gives_up:
            return
        for domain_id, one in list(self._waiting.items()):
            if at_ns - one.view.asked_ns >= PATIENCE_NS:
                needed = pages_to_kib(one.view.min_pages + one.view.overhead_pages)
                text = NOT_ENOUGH.format(needed=needed, free=pages_to_kib(self._machine.free_pages))
                self.hands.turn_away(at_ns, self.withdraw(at_ns, domain_id), one.cause, text)

    def _view(self, at_ns: int, residents: Mapping[int, Resident], owned_of: Mapping[int, int]) -> View:
        domains = [] if self.dom0 is None else [self._dom0_view(self.dom0)]
        for domid, resident in residents.items():
            books, guest = self._books[domid], resident.guest
            _, least_pages, most_pages, static_max_pages = resident.dynamic
            can_balloon = resident.can_balloon
            domains.append(
                DomainView(
                    domid,
                    resident.request.domain_id,
                    least_pages,
                    most_pages,
                    static_max_pages,
                    books.target_kib,
                    owned_of[domid],
                    books.limit_pages,
                    can_balloon,
                    resident.balloon is not None and guest.boot_done_ns is not None,
                    books.offset_pages,
                    books.reservation_pages,
                    resident.domain.numbers.paging_pages,
                    resident.linux,
                    None if self._reads == "domains" else guest.stats(at_ns, honest=self._reads == "guests"),
                )
            )
        starts = [one.view for one in self._waiting.values() if one.next_ns <= at_ns]
        return View(at_ns, self._usable_pages, self._machine.free_pages, 0, 0, domains, starts)

    def _dom0_view(self, dom0: Dom0) -> DomainView:
        """dom0, whose driver is always there and which never has more than it booted with."""
        books = self._books[DOM0]
        return DomainView(
            DOM0,
            NO_DOMAIN,
            self._dom0_min_pages,
            self._dom0_max_pages,
            self._dom0_max_pages,
            books.target_kib,
            dom0.pages,
            books.limit_pages,
            can_balloon=True,
            has_agent=True,
            memory_offset_pages=0,
            reservation_pages=0,
            shadow_pages=0,
            linux=True,
            stats=None,
        )

    # -- its hands ---------------------------------------------------------------------------------------------------

    def _act(self, at_ns: int, action: Action, residents: Mapping[int, Resident]) -> None:
        if isinstance(action, Grant):
            self._grant(at_ns, action)
            return
        if isinstance(action, Refuse):
            self._refuse(at_ns, action)
            return
        self.actions += 1
        if action.domid == DOM0:
            self._act_on_dom0(at_ns, action)
            return
        resident, books = residents[action.domid], self._books[action.domid]
        domain = resident.domain
        self.hands.catch_up(at_ns, resident)
        if isinstance(action, Limit):
            toolstack.set_limit(self._machine, domain, action.limit_pages)
            books.limit_pages = action.limit_pages
        elif isinstance(action, Uncooperative):
            self.uncooperative += action.flagged
            self.hands.mark_uncooperative(at_ns, resident, flagged=action.flagged)
        else:
            before_pages, before_kib = domain.target_pages, domain.xenstore_target_kib
            resident.moved = True
            if isinstance(action, Target):
                self._write(resident, books, action.target_kib, self._xenstore_kib(resident, action.target_kib))
            elif isinstance(action, OwnTarget):
                # The kernel tells its own driver. That driver reads xenstore here, so that is where it is written.
                out_pages = max(0, domain.layout.ram_pages - action.total_pages)
                target_kib = domain.numbers.static_max_kib - pages_to_kib(out_pages)
                self._write(resident, books, target_kib, target_kib)
            else:
                # The limit is set even where the target cannot be (B4.2).
                toolstack.set_target(self._machine, domain, action.target_pages)
                books.limit_pages = action.target_pages + kib_to_pages(SLACK_KIB)
                books.target_kib = pages_to_kib(domain.target_pages)
            told = domain.xenstore_target_kib != before_kib
            self.hands.target_written(at_ns, resident, before_pages, heap=isinstance(action, MemSet), told=told)

    def _act_on_dom0(self, at_ns: int, action: Action) -> None:
        """Nothing but its target moves it: its limit is never reached, and nobody reads its flag."""
        assert self.dom0 is not None
        books = self._books[DOM0]
        if isinstance(action, Target):
            books.target_kib = action.target_kib
            self.dom0.aim(kib_to_pages(action.target_kib), at_ns)
        elif isinstance(action, Limit):
            books.limit_pages = action.limit_pages

    @staticmethod
    def _write(resident: Resident, books: Books, target_kib: int, xenstore_kib: int) -> None:
        """Tell a guest its target without a word to Xen."""
        books.target_kib = target_kib
        resident.domain.target_pages = kib_to_pages(target_kib)
        resident.domain.xenstore_target_kib = xenstore_kib

    def _xenstore_kib(self, resident: Resident, target_kib: int) -> int:
        return target_kib - (0 if resident.linux else pages_to_kib(resident.domain.numbers.video_pages))

    def _grant(self, at_ns: int, action: Grant) -> None:
        overhead_pages = self._waiting[action.domain_id].view.overhead_pages
        request = self.withdraw(at_ns, action.domain_id)
        resident = self.hands.build(at_ns, request, action.target_pages)
        if resident is not None:
            self.built(resident, action.target_pages, overhead_pages)

    def _refuse(self, at_ns: int, action: Refuse) -> None:
        one = self._waiting[action.domain_id]
        one.cause, one.text = action.cause, action.text
        one.next_ns = at_ns + RETRY_NS
        if one.next_ns - one.view.asked_ns > PATIENCE_NS:
            self.hands.turn_away(at_ns, self.withdraw(at_ns, action.domain_id), action.cause, action.text)
