"""What a memory controller sees of its host, and what it may do: the words that all controllers share.

What        `View` with a `DomainView` a domain and a `StartView` a guest that waits to be built; the actions;
            `Decision`, what a controller makes of a view; `Controller`, which each of them is. A controller is a pure
            function: what it remembers goes in and comes out as `state`, clock and host are not within its reach.
Units       Pages of 4 KiB, `_kib` where a controller counts in KiB; ns of simulated time.
Invariants  [CT-1] a controller that asks to be looked at only when something changes (`next_check_ns` None) would do
                   nothing, and remember nothing new, at any look before that: its idle looks may be skipped.
            [CT-2] actions are carried out in the order given, at one instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from podcluster.host.guest_stats import GuestStats
from podcluster.records.fates import Cause

KIB_A_PAGE: Final = 4


class DomainView(NamedTuple):
    """One domain."""

    domid: int
    domain_id: int
    dynamic_min_pages: int
    dynamic_max_pages: int
    static_max_pages: int
    target_kib: int  # as the controller set it last, or as the domain was started
    tot_pages: int  # what it owns
    limit_pages: int  # Xen's max_pages
    can_balloon: bool  # its driver is up (`control/feature-balloon`)
    has_agent: bool  # its services are up, with drivers that say so
    memory_offset_pages: int  # tot_pages less target when it first showed a driver: constant (D5)
    reservation_pages: int  # what it was started with, its overhead included (D5.1)
    shadow_pages: int  # its paging pool
    linux: bool  # whose balloon driver it has
    stats: GuestStats | None  # what is known of its inside (`Controller.reads`); None until anything is


class StartView(NamedTuple):
    """A guest that waits for memory, in order of asking."""

    domain_id: int
    name: str
    min_pages: int  # dynamic_min
    max_pages: int  # dynamic_max
    overhead_pages: int  # on top of what the guest is given
    asked_ns: int


class View(NamedTuple):
    """A host at one instant, all that came before done."""

    now_ns: int
    usable_pages: int  # U: RAM less Xen and dom0
    free_pages: int
    scrub_pages: int  # freed and not scrubbed yet; not among the free
    reserved_pages: int  # granted to starts and not built yet
    domains: Sequence[DomainView]
    starts: Sequence[StartView]


class Target(NamedTuple):
    """Write a domain's target, and nothing else: `memory/target` [KiB]."""

    domid: int
    target_kib: int


class Limit(NamedTuple):
    """Set Xen's max_pages of a domain."""

    domid: int
    limit_pages: int


class MemSet(NamedTuple):
    """As the toolstack changes a target; with xl limit, populate-on-demand target, then `memory/target` (B4.1)."""

    domid: int
    target_pages: int


class OwnTarget(NamedTuple):
    """The guest's kernel itself wants to have this much RAM; nobody else knows."""

    domid: int
    total_pages: int


class Uncooperative(NamedTuple):
    """Write or remove `memory/uncooperative` (D5.7)."""

    domid: int
    flagged: bool


class Grant(NamedTuple):
    """Build this guest now, with this target."""

    domain_id: int
    target_pages: int


class Refuse(NamedTuple):
    """There is no memory for this guest; its toolstack may ask again."""

    domain_id: int
    cause: Cause
    text: str


Action: TypeAlias = Target | Limit | MemSet | OwnTarget | Uncooperative | Grant | Refuse

Wakes = Literal["memory", "use", "guests"]
"""What changes a controller's mind: what domains own and whether they can balloon; or what services and applications of
their guests hold; or anything that guests do.
"""


Reads = Literal["domains", "reports", "guests"]
"""What a controller knows of guests: nothing but what their domains own; what they say of themselves, true or not; or,
where it is their own kernels, what is so.
"""


class Decision(NamedTuple):
    """What a controller makes of a view."""

    actions: tuple[Action, ...]
    state: Any
    next_check_ns: int | None  # look again then at the latest; None: when something changes [CT-1]


class Controller(Protocol):
    """Who moves targets on one host."""

    @property
    def period_ns(self) -> int:
        """Its looks lie on the multiples of this, but for those it asks for itself."""

    @property
    def wakes(self) -> Wakes:
        """What wakes it."""

    @property
    def reads(self) -> Reads:
        """What it knows of guests."""

    @property
    def first_state(self) -> Any:
        """What it remembers before its first look."""

    def decide(self, view: View, state: Any) -> Decision:
        """What to do, as a function of what it sees and remembers."""


def after(now_ns: int, period_ns: int) -> int:
    """The next multiple of a period, past `now_ns`."""
    return (now_ns // period_ns + 1) * period_ns


def clamp(value: int, low: int, high: int) -> int:
    """Within [low, high]; `low` where they cross."""
    return max(low, min(high, value))
