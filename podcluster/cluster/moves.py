"""Domains that go to another host while they run: who, to which host, and whether that has room.

What        `Moves` empties hosts, follows orders, fills hosts alike, and goes between sender and receiver; what becomes
            of a domain in the end, the host's reports say (`run.py`).
Units       Pages of 4 KiB; simulated time in ns.
Order       A sender is told to bring a domain down (`MigrateOut`) and says when that is done (`RoomWanted`). In the
            epoch after it the receiver is asked (`KeepRoom`) and answers (`RoomAnswer`), and in the next the domain
            goes (`MigrateGo`) or stays (`MigrateStay`).
Refused     What would leave no failover plan is not done (D7.7): a domain stays, a host goes on taking domains.
Invariants  [EP-2] room is kept on the receiver from the order on, in the scheduler's book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from podcluster.cluster.agenda import Agenda, Answered, CalledOff, Migration, Rebalancing
from podcluster.cluster.failover import WOULD_BREAK, Failover
from podcluster.cluster.outbox import Outbox
from podcluster.cluster.plan import Plan
from podcluster.cluster.scheduler import Scheduler
from podcluster.cluster.whereabouts import Whereabouts
from podcluster.placement.groups import FREE, Bar
from podcluster.placement.ha import evacuation
from podcluster.placement.rebalance import rebalance
from podcluster.records.hosts import Ask
from podcluster.records.machines import MachineRequest
from podcluster.records.migration import KeepRoom, MigrateGo, MigrateOut, MigrateStay, RoomAnswer, RoomWanted
from podcluster.units import mib_to_pages, s_to_ns


class Moves:
    """Those of one run."""

    def __init__(
        self,
        plan: Plan,
        scheduler: Scheduler,
        agenda: Agenda,
        where: Whereabouts,
        out: Outbox,
        failover: Failover,
    ) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._failover = failover
        self._agenda = agenda
        self._where = where
        self._out = out
        self._evacuated: set[int] = set()  # hosts that are given no more domains
        self._rooms: dict[int, int] = {}  # domain_id -> host_id that was asked for room
        self._unanswered: set[int] = set()  # domain_ids of these
        self._stayed: set[int] = set()  # domain_ids of those that could not leave when they were to
        self.rebalance_next(0)

    def evacuate(self, at_ns: int, host_id: int) -> None:
        """Give a host no more domains, and send those it has elsewhere, at their dynamic minimum (D7.8)."""
        if host_id in self._where.down or host_id in self._evacuated:
            return
        planned = self._failover.holds()
        self._scheduler.close(host_id)
        if self._failover.breaks(planned):
            self._scheduler.open(host_id)
            self._out.host_event(at_ns, host_id, "evacuate_refused", WOULD_BREAK)
            return
        self._evacuated.add(host_id)
        self._out.host_event(at_ns, host_id, "evacuate", "no more domains, those out")
        there = [
            self._where.requests[domain_id]
            for domain_id in sorted(self._where.host_of)
            if self._where.is_on(domain_id, host_id)
        ]
        asks = [self._scheduler.ask(request) for request in there]
        bars = [self._scheduler.bar(ask) for ask in asks]
        places = evacuation(host_id, self._left_pages(), [ask.need_pages for ask in asks], bars)
        going: list[tuple[MachineRequest, int]] = []
        for request, place, bar in zip(there, places, bars, strict=True):
            if self._scheduler.expected_on(request.domain_id) is not None:
                continue
            which = "no other host that its group allows" if bar.host_ids else "no other host"
            refused = f"{which} has room for it"
            if place is not None:
                refused = self._refused_by(place, request, refused)
            if place is None or refused:
                self._out.event(at_ns, host_id, request, "migrate_refused", refused)
            else:
                going.append((request, place))
        self._send(at_ns, host_id, going)

    def migrate(self, at_ns: int, item: Migration) -> None:
        """One domain is to go to a host, if that has room and its group lets it."""
        request = self._where.requests[item.domain_id]
        host_id = self._where.host_of.get(item.domain_id)
        if host_id is None or host_id == item.host_id or not self._where.is_on(item.domain_id, host_id):
            return
        if self._scheduler.expected_on(item.domain_id) is not None:
            return
        barred = item.host_id in self._scheduler.bar(self._scheduler.ask(request)).host_ids
        no_room = f"its group keeps it off host {item.host_id}" if barred else f"host {item.host_id} has no room for it"
        refused = self._refused_by(item.host_id, request, no_room)
        if refused:
            self._out.event(at_ns, host_id, request, "migrate_refused", refused)
            return
        self._send(at_ns, host_id, [(request, item.host_id)])

    def rebalance(self, at_ns: int) -> None:
        """Send domains from the fullest host to the emptiest, until they are close enough. Who had to stay once is left
        alone.
        """
        migration = self._plan.migration
        views = self._scheduler.open_views()
        domains: dict[int, list[Ask]] = {view.host_id: [] for view in views}
        bars: dict[int, Bar] = {}
        for domain_id, host_id in self._where.host_of.items():
            expected = self._scheduler.expected_on(domain_id) is not None
            free_to_go = not expected and domain_id not in self._stayed and self._where.is_on(domain_id, host_id)
            if host_id in domains and free_to_go:
                ask = self._scheduler.ask(self._where.requests[domain_id])
                domains[host_id].append(ask)
                bar = self._scheduler.bar(ask)
                if bar != FREE:
                    bars[domain_id] = bar
        gap, most = migration.rebalance_gap, migration.rebalance_most
        going: dict[int, list[tuple[MachineRequest, int]]] = {}
        for move in rebalance(views, domains, self._scheduler.rules, gap, most, bars):
            request = self._where.requests[move.domain_id]
            # A host may be full of those that have yet to leave it.
            if not self._refused_by(move.receiver, request, "no room"):
                going.setdefault(move.sender, []).append((request, move.receiver))
                text = (
                    f"to host {move.receiver}: {move.sender_share:.3f} counted on here, {move.receiver_share:.3f} there"
                )
                self._out.event(at_ns, move.sender, request, "rebalance", text)
        for host_id in sorted(going):
            self._send(at_ns, host_id, going[host_id])
        self.rebalance_next(at_ns)

    def rebalance_next(self, at_ns: int) -> None:
        """Look again in a while, if at all."""
        rebalance_s = self._plan.migration.rebalance_s
        if rebalance_s is not None and at_ns + s_to_ns(rebalance_s) <= self._plan.duration_ns:
            self._agenda.add(at_ns + s_to_ns(rebalance_s), Rebalancing())

    def _refused_by(self, host_id: int, request: MachineRequest, no_room: str) -> str:
        """Why this host keeps no room for a domain, `no_room` where it has none; empty: it does."""
        planned = self._failover.holds()
        if not self._scheduler.is_open(host_id) or not self._scheduler.expect(host_id, request):
            return no_room
        if self._failover.breaks(planned):
            self._scheduler.give_up(request.domain_id)
            return WOULD_BREAK
        return ""

    def _send(self, at_ns: int, host_id: int, going: Sequence[tuple[MachineRequest, int]]) -> None:
        """Let these leave a host for those that expect them; what a receiver has left besides is for all who come."""
        migration = self._plan.migration
        pages_per_s = max(1, mib_to_pages(migration.mib_per_s))
        left = self._left_pages()
        guests = Counter(place for _, place in going)
        for request, place in going:
            most_pages = request.memory_pages + left[place] // guests[place]
            order = MigrateOut(at_ns, request.domain_id, s_to_ns(migration.wait_s), pages_per_s, most_pages)
            self._out.command(host_id, order)

    def _left_pages(self) -> dict[int, int]:
        """What each host that takes domains has left, as placement counts."""
        return {view.host_id: view.usable_pages - view.committed_pages for view in self._scheduler.open_views()}

    def ask_room(self, at_ns: int, wanted: RoomWanted) -> None:
        """Ask the receiver of a domain that is ready to be copied for room, unless it takes nobody any more."""
        domain_id = wanted.request.domain_id
        host_id = self._scheduler.expected_on(domain_id)
        if host_id is None:
            self._out.command(self._where.host_of[domain_id], MigrateStay(at_ns, domain_id))
        elif not self._scheduler.is_open(host_id):
            self._refused(at_ns, domain_id, host_id, "it takes no domains any more")
        else:
            self._scheduler.keeps(domain_id)
            self._rooms[domain_id] = host_id
            self._unanswered.add(domain_id)
            self._out.command(host_id, KeepRoom(at_ns, wanted.request, wanted.pages))

    def answered(self, at_ns: int, answer: RoomAnswer) -> None:
        """A receiver keeps room for a domain, which goes, or does not, and it stays where it is."""
        domain_id = answer.domain_id
        if domain_id not in self._unanswered:  # it was called off
            return
        self._unanswered.discard(domain_id)
        if answer.refused:
            self._refused(at_ns, domain_id, self._rooms.pop(domain_id), answer.refused)
        else:
            self._out.command(self._where.host_of[domain_id], MigrateGo(at_ns, domain_id))

    def _refused(self, at_ns: int, domain_id: int, receiver_id: int, why: str) -> None:
        """There is no room for a domain that was to be copied."""
        self._scheduler.give_up(domain_id)
        self._stayed.add(domain_id)
        host_id = self._where.host_of[domain_id]
        self._out.command(host_id, MigrateStay(at_ns, domain_id))
        text = f"host {receiver_id} has no room for it: {why}"
        self._out.event(at_ns, host_id, self._where.requests[domain_id], "migrate_refused", text)

    def had_to_stay(self, domain_id: int, until_ns: int) -> None:
        """A domain could not leave."""
        self._stayed.add(domain_id)
        self.stays(domain_id, until_ns)

    def stays(self, domain_id: int, until_ns: int) -> None:
        """A domain does not go, or is no more: nobody keeps room for it."""
        if self._scheduler.expected_on(domain_id) is not None:
            self._scheduler.give_up(domain_id)
        if domain_id in self._rooms:
            self._unanswered.discard(domain_id)
            self._agenda.add(until_ns + 1, CalledOff(domain_id, self._rooms.pop(domain_id)), domain_id)

    def receiver_failed(self, at_ns: int, host_id: int) -> None:
        """A host does not answer any more who it was asked for."""
        for domain_id in sorted(self._unanswered):
            if self._rooms[domain_id] == host_id:
                self._agenda.add(at_ns + 1, Answered(RoomAnswer(domain_id, "it has failed")), domain_id)

    def room_of(self, domain_id: int) -> int:
        """Which host was asked for room for a domain that lands now."""
        return self._rooms.pop(domain_id)

    def recovered(self, host_id: int) -> None:
        """A host is back, whatever it was to be emptied for."""
        self._evacuated.discard(host_id)

    def enable(self, at_ns: int, host_id: int) -> None:
        """Give a host domains again."""
        if host_id in self._evacuated and host_id not in self._where.down:
            self._evacuated.discard(host_id)
            self._scheduler.open(host_id)
            self._out.host_event(at_ns, host_id, "enabled", "domains are welcome")
