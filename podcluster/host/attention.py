"""When a host's controller is to look, and how far guests may run before it may have to.

What        `Attention`: what wakes the controller, and its next look. A host without a controller pays it none.
Units       ns of simulated time.
Invariants  [CT-1] of `controllers/view.py`: a look that is left out would have done nothing. Page by page
            (`coalesce=False`) the controller looks at every beat of its period, so as to show that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from podcluster.host.agenda import Agenda
from podcluster.host.control import Control
from podcluster.host.controllers.view import after
from podcluster.host.own import OwnMemory
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Resident, Residents
from podcluster.host.streams import NEVER


class Shown(NamedTuple):
    """What a guest shows of itself: its driver, that it is up, and to those who watch use what it says it uses, and
    when that may change next; to others 0.
    """

    can_balloon: bool
    up: bool
    used_pages: int
    next_use_ns: int

    @classmethod
    def by(cls, resident: Resident, wakes: str) -> Shown:
        """A guest now."""
        guest = resident.guest
        can_balloon, up = resident.can_balloon, guest.boot_done_ns is not None
        if wakes != "use":
            return NO_USE[can_balloon][up]
        return cls(can_balloon, up, guest.said_used_pages, guest.next_use_ns)


NO_USE: Final = tuple(tuple(Shown(can_balloon, up, 0, 0) for up in (False, True)) for can_balloon in (False, True))
"""What guests can show to those who do not watch use, by what the first two say."""


class Attention:
    """What a controller is woken by."""

    def __init__(
        self,
        control: Control | None,
        residents: Residents,
        *,
        agenda: Agenda,
        recorder: Recorder,
        own: OwnMemory,
        every_beat: bool,
    ) -> None:
        """`every_beat`: look even where nothing has happened."""
        self._control = control
        self._recorder = recorder
        self._own = own
        self._residents = residents
        self._agenda = agenda
        self._every_beat = every_beat
        self._unquiet: set[int] = set()  # domids of guests that may by themselves do what wakes a controller
        if control is not None:
            control.wake(control.period_ns)  # what it sees of an empty host may be something to remember

    @property
    def next_ns(self) -> int:
        """How far guests may be run before the controller may have to look: to the look that is due, or to the first
        that something happening before it may call for. Nothing that wakes it happens before the next act of all.
        """
        control = self._control
        if control is None:
            return NEVER
        if control.wakes == "guests" or self._agenda.has_own:
            return min(control.due_ns, after(self._agenda.next_ns, control.period_ns))
        if control.wakes == "memory":
            next_ns = self._agenda.next_ns if self._unquiet else NEVER
        else:
            next_ns = min(
                (
                    one.guest.next_ns if domid in self._unquiet else one.guest.next_use_ns
                    for domid, one in self._residents.running.items()
                ),
                default=NEVER,
            )
        return min(control.due_ns, after(next_ns, control.period_ns))

    def look(self, at_ns: int) -> None:
        """Let the controller look, if it is to, all that came before being done."""
        control = self._control
        assert control is not None
        if control.due_ns > at_ns:
            return
        self._agenda.reach(at_ns)
        if control.dom0 is not None and self._own.settle(at_ns):
            self._recorder.free_changed(at_ns)
        control.look(at_ns, self._residents.running, self._recorder.owned_of)
        if self._every_beat and not control.dead(at_ns):
            control.wake(after(at_ns, control.period_ns))

    def wake(self, at_ns: int) -> None:
        """Something happened that a controller looks at on the next beat of its period."""
        if self._control is not None:
            self._control.wake(after(at_ns, self._control.period_ns))

    def unsettle(self, domid: int) -> None:
        """A guest is new, or has been told a target."""
        self._unquiet.add(domid)

    def shown(self, resident: Resident) -> Shown | None:
        """What a guest shows before it acts; None where nobody looks."""
        return Shown.by(resident, self._control.wakes) if self._control is not None else None

    def acted(self, at_ns: int, resident: Resident, before: Shown | None, *, heap: bool) -> None:
        """A guest has acted: it owns other than before (`heap`), or shows other than before."""
        control = self._control
        if control is None or before is None:
            return
        wakes = control.wakes
        if wakes == "use":
            now = Shown.by(resident, wakes)
            if now[:3] != before[:3]:
                # Of acts that are run together the first may be page cache growing, which wakes nobody.
                self.wake(max(at_ns, before.next_use_ns) if before.next_use_ns < NEVER else at_ns)
        elif heap or wakes == "guests" or Shown.by(resident, wakes) != before:
            self.wake(at_ns)
        domid = resident.domain.domid
        if domid in self._unquiet and resident.quiet:
            self._unquiet.discard(domid)

    def retired(self, at_ns: int, domid: int) -> None:
        """A guest runs no more."""
        self._unquiet.discard(domid)
        if self._control is not None:
            self._control.gone(domid)
            self.wake(at_ns)
