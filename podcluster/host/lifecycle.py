"""Domains come and go: starts, refusals, builds, crashes, restarts, ends.

What        `Lifecycle`, the toolstack's side of a host: what it was asked for and what it still owes.
Units       Pages of 4 KiB; ns of simulated time.
Invariants  [HM-5] a domain that is built again after a crash or a reboot is a new domain with the next attempt: a build
                   like any other, at its own instant, with its full debt (G14).
Departs     A build and a destruction take no simulated time. A host that has failed comes back with dom0 as large as it
            was, where xl shrinks it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from podcluster.config import GuestConfig, HostConfig
from podcluster.errors import InvariantError
from podcluster.host import domain as toolstack
from podcluster.host import xapi
from podcluster.host.agenda import TOOLSTACK, Agenda
from podcluster.host.attention import Attention
from podcluster.host.control import Control
from podcluster.host.failures import death
from podcluster.host.host_audit import HostAudit
from podcluster.host.mechanism import Mechanism
from podcluster.host.own import Starts, Turn
from podcluster.host.power_on import power_on, resume
from podcluster.host.recorder import Recorder
from podcluster.host.resident import Resident, Residents, Room
from podcluster.host.xl import NOT_FREED
from podcluster.records.fates import Cause, EventKind, Fate
from podcluster.records.hosts import HostSpec
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import GuestState, RoomAnswer
from podcluster.records.reports import Installed
from podcluster.units import NS_PER_S, PAGES_PER_MIB, pages_to_mib, s_to_ns


class Lifecycle:
    """The domains of one host, from their start to their end."""

    def __init__(
        self,
        spec: HostSpec,
        host: HostConfig,
        guests: Mapping[str, GuestConfig],
        seed: int,
        machine: Mechanism,
        residents: Residents,
        *,
        agenda: Agenda,
        recorder: Recorder,
        audit: HostAudit,
        attention: Attention,
        control: Control | None,
        starts: Starts | None,
        kept_free_pages: int,
        ahead: bool,
    ) -> None:
        """`starts`: where dom0 may have to make room first; `ahead`: whether guests may be run ahead of each other."""
        self._spec = spec
        self._cfg = host
        self._guests = guests
        self._seed = seed
        self._machine = machine
        self._residents = residents
        self._agenda = agenda
        self._recorder = recorder
        self._audit = audit
        self._attention = attention
        self._control = control
        self._starts = starts
        self._ahead = ahead
        self._next_domid = 1
        self._restarts: dict[int, tuple[int, MachineRequest]] = {}  # domain_id -> stamp, what is built after its end
        self._crashes: Counter[int] = Counter()  # by domain_id
        self._incoming: dict[int, GuestState] = {}  # by domain_id: let in, or waiting for it
        self._rooms_wanted: dict[int, int] = {}  # by domain_id: pages that a domain of another host has
        self._answers: list[RoomAnswer] = []
        self._installed: list[Installed] = []
        self.committed_pages = self.overhead_pages = kept_free_pages  # what placement counts on, and all but memory

    # -- starts ------------------------------------------------------------------------------------------------------

    def start(self, at_ns: int, request: MachineRequest, *, at_once: bool = True) -> None:
        """Start a guest, or let it take its turn where dom0 may have to make room first; placement counts it from here
        at its memory.
        """
        if request.domain_id in self._residents.domid_of:
            raise InvariantError(f"[HM-4] domain {request.domain_id} runs already (host {self._spec.host_id})")
        need_pages = self._need_pages(request)
        available_pages = self._spec.usable_pages - self.committed_pages
        refused = toolstack.not_admitted(request, available_pages, self._cfg, self._guests[request.os_class])
        self._commit(request, need_pages)
        if refused is not None:
            self.turn_away(at_ns, request, refused.cause, refused.text)
        elif self._starts is not None:
            self._starts.ask(at_ns, Turn(request.domain_id, request, need_pages, partial(self._decided, request)))
        else:
            self._let_in(at_ns, request, at_once=at_once)

    def _let_in(self, at_ns: int, request: MachineRequest, *, at_once: bool) -> None:
        """Build a guest, or ask the controller what it gets."""
        if self._control is None:
            self.build(at_ns, request, request.memory_pages)
        else:
            overhead_pages = self._need_pages(request) - request.memory_pages
            self._control.ask(at_ns, request, overhead_pages, at_once=at_once)

    def _decided(self, request: MachineRequest, at_ns: int, fits: bool) -> None:
        """What came of a start that had to wait for dom0."""
        if fits:
            self._let_in(at_ns, request, at_once=False)
        else:
            self.turn_away(at_ns, request, "dom0_short", NOT_FREED)

    def _need_pages(self, request: MachineRequest) -> int:
        return toolstack.need_memory_pages(request, self._cfg, self._guests[request.os_class])

    def build(self, at_ns: int, request: MachineRequest, memory_pages: int) -> Resident | None:
        """Build and boot a guest with this target."""
        state = self._incoming.pop(request.domain_id, None)
        if state is not None:
            return self._resume(at_ns, request, state)
        if request.domain_id in self._rooms_wanted:
            self._set_aside(at_ns, request)
            return None
        cfg = self._guests[request.os_class]
        domid, self._next_domid = self._next_domid, self._next_domid + 1
        asked = request if memory_pages == request.memory_pages else replace(request, memory_pages=memory_pages)
        built = toolstack.build(self._machine, domid, asked, self._cfg, cfg)
        if isinstance(built, toolstack.BuildFailed):
            self.turn_away(at_ns, request, built.cause, built.text, domid=domid)
            return None

        event = self._events_of(request, domid)
        resident = power_on(
            self._machine, self._cfg, cfg, request, built, self._seed, at_ns, ahead=self._ahead, on_event=event
        )
        self._move_in(at_ns, resident)
        event(
            at_ns, "build_done", f"Dom{domid} {pages_to_mib(memory_pages)} of {pages_to_mib(request.maxmem_pages)} MiB"
        )
        self._acted(resident)
        return resident

    def _resume(self, at_ns: int, asked: MachineRequest, state: GuestState) -> Resident | None:
        """Let a guest from another host go on here; `asked` is what it was let in with."""
        request = replace(asked, memory_pages=state.request.memory_pages)
        self._commit(asked, -self._need_pages(asked))
        self._commit(request, self._need_pages(request))
        cfg = self._guests[request.os_class]
        domid, self._next_domid = self._next_domid, self._next_domid + 1
        built = toolstack.restore(self._machine, domid, state, self._cfg, cfg)
        if isinstance(built, toolstack.BuildFailed):
            self.turn_away(at_ns, request, built.cause, built.text, domid=domid)
            return None
        event = self._events_of(request, domid)
        resident = resume(
            self._machine, self._cfg, cfg, request, built, state, self._seed, at_ns, ahead=self._ahead, on_event=event
        )
        self._move_in(at_ns, resident)
        away_s = (at_ns - state.left_ns) / NS_PER_S
        event(at_ns, "migrate_done", f"Dom{domid} with {pages_to_mib(state.tot_pages)} MiB, {away_s:.3f} s away")
        self._acted(resident)
        return resident

    def _events_of(self, request: MachineRequest, domid: int) -> Callable[[int, EventKind, str], None]:
        def event(t_ns: int, kind: EventKind, text: str) -> None:
            self._recorder.event(t_ns, request, domid, kind, text)

        return event

    def _move_in(self, at_ns: int, resident: Resident) -> None:
        """A domain is there, with its guest."""
        domid = resident.domain.domid
        self._residents.running[domid] = resident
        self._residents.domid_of[resident.request.domain_id] = domid
        self._attention.unsettle(domid)
        self._recorder.built(at_ns, resident)
        self._recorder.heap_changed(at_ns, resident)

    def _acted(self, resident: Resident) -> None:
        self._recorder.acted(resident)
        self._audit.acted(resident.domain.domid)
        self._agenda.put_guest(resident)

    def set_range(self, resident: Resident, pages: int) -> str:
        """Let a domain's dynamic range be this one size, where its toolstack has ranges; why it is not, or nothing. Who
        starts after that finds the host charged with it (D3.4).
        """
        if self._cfg.toolstack != "xapi":
            return ""
        settings = xapi.pinned(resident.settings, pages)
        refused = xapi.refusal(settings, self._cfg)
        if not refused and pages - resident.domain.numbers.video_pages <= PAGES_PER_MIB:
            refused = f"memory target {pages_to_mib(pages)} MiB leaves nothing beside video RAM"
        before = resident.request
        free_pages = max(0, self._spec.usable_pages - self.committed_pages)
        refused = refused or xapi.short(pages - before.memory_pages, free_pages)
        if refused:
            return refused
        resident.settings, resident.request = settings, replace(before, memory_pages=pages)
        self._commit(before, -self._need_pages(before))
        self._commit(resident.request, self._need_pages(resident.request))
        return ""

    # -- domains of other hosts --------------------------------------------------------------------------------------

    def keep_room(self, at_ns: int, own: MachineRequest, pages: int) -> None:
        """Make room for a domain that has so many pages elsewhere, as for a start that asks for them (D3.4, D4.1)."""
        self._rooms_wanted[own.domain_id] = pages
        self.start(at_ns, _arriving(at_ns, own, pages))

    def _set_aside(self, at_ns: int, request: MachineRequest) -> None:
        """There is room: keep it until the domain comes."""
        numbers = toolstack.numbers_of(request, self._cfg, self._guests[request.os_class])
        pages = numbers.aside_pages + self._rooms_wanted[request.domain_id]
        handle = self._machine.set_aside(pages)
        if handle < 0:
            text = f"{pages} pages wanted, {self._machine.free_pages} free"
            self.turn_away(at_ns, request, "no_memory", text)
            return
        del self._rooms_wanted[request.domain_id]
        self._residents.rooms[request.domain_id] = Room(request, handle, pages)
        self._recorder.room_changed(at_ns)
        self._answers.append(RoomAnswer(request.domain_id))

    def drop_room(self, at_ns: int, domain_id: int) -> None:
        """A domain does not come for which room was, or was to be, made."""
        room = self._residents.rooms.pop(domain_id, None)
        if room is not None:
            self._machine.release(room.handle)
            self._recorder.room_changed(at_ns)
            self._commit(room.request, -self._need_pages(room.request))
        elif self._rooms_wanted.pop(domain_id, None) is not None:
            asked = self._starts.withdraw(domain_id) if self._starts is not None else None
            if asked is None:
                assert self._control is not None
                asked = self._control.withdraw(at_ns, domain_id)
            self._commit(asked, -self._need_pages(asked))

    def take(self) -> dict[str, Any]:
        """What came of making room, and who has installed what, since this was last asked: fields of a report."""
        found: dict[str, list[Any]] = {"answers": self._answers, "installed": self._installed}
        self._answers, self._installed = [], []
        return {name: tuple(those) for name, those in found.items() if those}

    def land(self, at_ns: int, state: GuestState) -> None:
        """A domain comes from another host, into the room that is kept for it; where none is, it is let in as a start
        is that asks for what it owns.
        """
        own = state.request
        room = self._residents.rooms.pop(own.domain_id, None)
        if room is None:
            self._incoming[own.domain_id] = state
            self.start(at_ns, _arriving(at_ns, own, state.tot_pages))
            return
        self._machine.release(room.handle)
        asked = replace(room.request, arrival_ns=at_ns)
        resident = self._resume(at_ns, asked, state)
        if resident is not None and self._control is not None:
            overhead_pages = self._need_pages(asked) - asked.memory_pages
            self._control.built(resident, asked.memory_pages, overhead_pages)

    def turn_away(self, at_ns: int, request: MachineRequest, cause: Cause, text: str, *, domid: int = 0) -> None:
        """A start came to nothing, or there is no room for a domain of another host, which stays there."""
        self._incoming.pop(request.domain_id, None)
        self._commit(request, -self._need_pages(request))
        if self._rooms_wanted.pop(request.domain_id, None) is not None:
            self._answers.append(RoomAnswer(request.domain_id, text))
            return
        self._recorder.not_built(at_ns, request, domid, cause, text)

    def _commit(self, request: MachineRequest, need_pages: int) -> None:
        """Charge the host with what a domain needs, or give it back (below 0)."""
        memory_pages = request.memory_pages if need_pages > 0 else -request.memory_pages
        self.committed_pages += need_pages
        self.overhead_pages += need_pages - memory_pages

    # -- ends --------------------------------------------------------------------------------------------------------

    def stop(self, at_ns: int, domain_id: int) -> None:
        """Stop a machine, whatever has become of it. One that is not here has ended by itself before anybody knew."""
        if domain_id in self._restarts:
            self._agenda.call_off(self._restarts.pop(domain_id)[0])
        elif self._withdraw(at_ns, domain_id):
            pass
        elif self._control and domain_id in self._control.waiting:
            asked = self._control.withdraw(at_ns, domain_id)
            self.turn_away(at_ns, asked, "still_waiting", "left at its time, while it waited for memory")
        elif domain_id in self._residents.preserved:
            self._destroy(self._residents.preserved.pop(domain_id), at_ns)
        elif domain_id in self._residents.domid_of:
            resident = self._residents.running[self._residents.domid_of[domain_id]]
            self._recorder.event(at_ns, resident.request, resident.domain.domid, "shut_down", "left at its time")
            self._retire(resident, at_ns, "shut_down", "")

    def _withdraw(self, at_ns: int, domain_id: int) -> bool:
        """Stop a machine whose start still waits for its turn; whether there is one."""
        request = self._starts.withdraw(domain_id) if self._starts is not None else None
        if request is None:
            return False
        self._commit(request, -self._need_pages(request))
        self._recorder.event(at_ns, request, TOOLSTACK, "shut_down", "left before its start had its turn")
        self._recorder.ended(at_ns, request, None, None, "shut_down", "")
        return True

    def end_by_itself(self, resident: Resident) -> None:
        """Xen, or its own kernel, has ended a guest; what becomes of one that crashed is for `host.on_crash` to say."""
        end, request, domain = resident.guest.end, resident.request, resident.domain
        assert end is not None
        if end.fate == "shut_down":
            reboots = end.cause == "rebooted"
            text = "reboots: it is installed" if reboots else "by itself"
            self._recorder.event(end.at_ns, request, domain.domid, "shut_down", text)
            self._retire(resident, end.at_ns, end.fate, end.cause)
            if reboots and self._cfg.on_reboot == "restart":
                again = self._as_installed(resident)
                need_pages = self._need_pages(again)
                self._installed.append(Installed(again.domain_id, again.os_class, again.memory_pages, need_pages))
                self._restart(again, end.at_ns, "reboot")
            return
        oom = resident.memory.oom
        line = self._machine.oom_line(oom) if oom else ""
        kind, text = death(end.fate, end.cause, domain.domid, line, domain.numbers.paging_pages)
        self._recorder.event(end.at_ns, request, domain.domid, kind, text)
        self._recorder.died()
        preserve = self._cfg.on_crash == "preserve"
        self._retire(resident, end.at_ns, end.fate, end.cause, preserve=preserve)
        self._crashes[request.domain_id] += 1
        most = self._cfg.max_restarts
        if self._cfg.on_crash == "restart" and (most is None or self._crashes[request.domain_id] <= most):
            self._restart(request, end.at_ns, "crash")

    def _as_installed(self, resident: Resident) -> MachineRequest:
        """What a toolstack asks for when an installer reboots: what it has installed, at the target that it has now
        (B1.10); a controller is asked anew.
        """
        request = resident.request
        into = self._guests[request.os_class].install.into
        memory_pages = request.memory_pages if self._control else resident.domain.target_pages
        return replace(request, os_class=into, memory_pages=memory_pages)

    def _restart(self, request: MachineRequest, end_ns: int, after: str) -> None:
        """Build a domain that ended at `end_ns` again, a little later: its whole target must be free again, and its
        debt is whole again (G14).
        """
        at_ns = end_ns + s_to_ns(self._cfg.restart_delay_s)
        again = replace(request, attempt=request.attempt + 1, arrival_ns=at_ns, origin="restart")

        def build(now_ns: int) -> None:
            del self._restarts[request.domain_id]
            text = f"attempt {again.attempt}, {self._cfg.restart_delay_s:g} s after its {after}"
            self._recorder.event(now_ns, again, TOOLSTACK, "restart", text)
            self.start(now_ns, again, at_once=False)

        self._restarts[request.domain_id] = self._agenda.later(at_ns, build), again

    def _retire(self, resident: Resident, at_ns: int, fate: Fate, cause: str, *, preserve: bool = False) -> None:
        """Write a domain's row, and give back all that it had unless it is to be preserved."""
        domid, request = resident.domain.domid, resident.request
        self._recorder.ended(at_ns, request, resident, resident.guest.boot_start_ns, fate, cause)
        del self._residents.running[domid]
        del self._residents.domid_of[request.domain_id]
        self._attention.retired(at_ns, domid)
        self._recorder.retired(domid)
        self._audit.retired(domid)
        if preserve:
            self._residents.preserved[request.domain_id] = resident
        else:
            self._destroy(resident, at_ns)

    def _destroy(self, resident: Resident, at_ns: int) -> None:
        """Give back all that a domain had."""
        self._agenda.reach(at_ns)
        toolstack.destroy(self._machine, resident.domain)
        self._commit(resident.request, -self._need_pages(resident.request))
        self._recorder.destroyed(at_ns, resident)
        self._audit.destroyed()

    def let_go(self, at_ns: int, resident: Resident) -> GuestState:
        """A domain leaves for another host: what goes with it; here nothing of it is left."""
        domain, balloon = resident.domain, resident.balloon
        state = GuestState(
            request=resident.request,
            left_ns=at_ns,
            target_pages=domain.target_pages,
            xenstore_target_kib=domain.xenstore_target_kib,
            static_max_kib=domain.static_max_kib,
            limit_pages=domain.limit_pages,
            driver_faulty=balloon is not None and balloon.faulty,
            **resident.guest.pack(at_ns),
        )
        self._retire(resident, at_ns, "migrated", "")
        return state

    def fail(self, at_ns: int) -> None:
        """The host dies, and with it all that runs, waits for memory or is about to be built again: a row for each."""
        for resident in list(self._residents.running.values()):
            self._retire(resident, at_ns, "host_failed", "")
        for domain_id in list(self._residents.preserved):
            self._destroy(self._residents.preserved.pop(domain_id), at_ns)
        for stamp, request in self._restarts.values():
            self._agenda.call_off(stamp)
            self._recorder.ended(at_ns, request, None, None, "host_failed", "")
        self._restarts.clear()
        self._incoming.clear()
        for domain_id in [*self._residents.rooms, *self._rooms_wanted]:
            self.drop_room(at_ns, domain_id)
        waiting = [self._starts.withdraw(one.domain_id) for one in self._starts.waiting] if self._starts else []
        if self._control is not None:
            waiting += [self._control.withdraw(at_ns, domain_id) for domain_id in list(self._control.waiting)]
        for asked in waiting:
            assert asked is not None
            self._commit(asked, -self._need_pages(asked))
            self._recorder.ended(at_ns, asked, None, None, "host_failed", "")

    def close(self, at_ns: int) -> None:
        """The run ends: what comes of starts that still wait."""
        for domain_id in list(self._rooms_wanted):
            self.drop_room(at_ns, domain_id)
        if self._control is not None:
            for domain_id in list(self._control.waiting):
                asked = self._control.withdraw(at_ns, domain_id)
                self.turn_away(at_ns, asked, "still_waiting", "the run ended while it waited for memory")
        for request in self._starts.waiting if self._starts is not None else ():
            self._recorder.ended(at_ns, request, None, None, "running", "")


def _arriving(at_ns: int, own: MachineRequest, pages: int) -> MachineRequest:
    """What a domain that has so many pages on its host is let in with on another."""
    memory_pages = min(max(own.memory_pages, pages), own.maxmem_pages)
    return replace(own, attempt=own.attempt + 1, origin="migration", arrival_ns=at_ns, memory_pages=memory_pages)
