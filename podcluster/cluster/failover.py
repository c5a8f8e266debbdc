"""High availability, before anything fails: is there a plan for so many host failures, and may a start break it?

What        `Failover.look` asks, whenever something was due, how many failures the pool bears, and says when there is
            no plan any more for those it is to bear; `Failover.guard` refuses starts, `Failover.breaks` other
            operations, that would turn a plan into none.
Units       Pages of 4 KiB; simulated time in ns.
Rules       docs/model.md D7, as `placement/ha.py` has them. Who counts: protected domains, at static maximum; the
            others take room and have no place in it. Hosts that are down or being emptied are not in the plan:
            who is protected and has such a host, or waits to be started again, is given a place before all else, and
            without one there is no plan at all.
Departs     A domain whose guest has a device passed through is not agile, and no plan is complete with it (D7.6); yet
            it is started again elsewhere as any other. What is known of the ends of domains is as old as placement's
            own knowledge: of the epochs before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from podcluster.cluster.failures import priority_of
from podcluster.cluster.outbox import Outbox
from podcluster.cluster.plan import Plan
from podcluster.cluster.rescue import static_free, static_need
from podcluster.cluster.scheduler import Scheduler
from podcluster.cluster.whereabouts import Whereabouts
from podcluster.placement.ha import Protected, breaks_plan, pack, plan_exists, tolerable
from podcluster.records.hosts import Ask, Rejected
from podcluster.records.rows import NO_HOST

Guard: TypeAlias = Callable[[int, Ask], Rejected | None]
WOULD_BREAK: Final = "HA_OPERATION_WOULD_BREAK_FAILOVER_PLAN"


class Pool(NamedTuple):
    """The hosts that are up and what they have left, who is to be protected on them, and whether all of these are."""

    free: dict[int, int]
    vms: list[Protected]
    complete: bool

    def bears(self, failures: int) -> bool:
        """Whether there is a plan for so many failures."""
        return self.complete and plan_exists(self.free, self.vms, failures)


class Known(NamedTuple):
    """What there is to plan with: what hosts that are up have left, who is to be protected on them, and, by size and
    whether it is agile, who has no host.
    """

    free: dict[int, int]
    vms: list[Protected]
    homeless: list[tuple[int, bool]]

    def pool(self) -> Pool:
        """The same with places for those who have no host, before all else."""
        free, vms = dict(self.free), list(self.vms)
        places = pack([size for size, _ in self.homeless], free)
        for (size, agile), place in zip(self.homeless, places, strict=True):
            if place is None:
                return Pool(free, vms, complete=False)
            free[place] -= size
            vms.append(Protected(place, size, agile))
        return Pool(free, vms, complete=True)


class Failover:
    """The plan of one run; without `failure.tolerate` there is none, and nothing is looked at."""

    def __init__(self, plan: Plan, scheduler: Scheduler, where: Whereabouts, out: Outbox) -> None:
        self._plan = plan
        self._failures = plan.failure.tolerate
        self._scheduler = scheduler
        self._where = where
        self._out = out
        self._protected: dict[int, bool] = {}  # by domain_id, once asked for
        self._last_ns = 0
        self._pool: Pool | None = None  # as it was then, ...
        self._tolerated = 0  # ... what it bore, ...
        self._holds = True  # ... and whether that was enough
        self.tolerated_min: int | None = None  # after the warm-up
        self.overcommitted_ns: int | None = None if self._failures is None else 0
        self.look(0)

    def guard(self) -> Guard | None:
        """What starts that are placed together are held against, one after the other (D7.7); None: nothing.

        Each that is let is booked before the next, so that the pool is looked at once for all of them.
        """
        failures = self._failures
        if failures is None or self._plan.failure.allow_overcommit:
            return None
        known: Known | None = None
        holds: bool | None = None  # whether there is a plan for that; None: it was no matter yet

        def refuse(host_id: int, ask: Ask) -> Rejected | None:
            """Why a domain may not be started on this host, if it may not; no other host is tried."""
            nonlocal known, holds
            known = known or self._known()
            started = self._with(known, host_id, ask)
            after = started.pool().bears(failures)
            if not after:
                holds = known.pool().bears(failures) if holds is None else holds
                if breaks_plan(holds, after, allow_overcommit=False):
                    text = f"{WOULD_BREAK}: started on host {host_id} it leaves no plan; host failures to be tolerated:"
                    return Rejected(f"{text} {failures}", "ha_plan")
            known, holds = started, after
            return None

        return refuse

    def holds(self) -> bool:
        """Whether there is a plan now; also where nobody asks for one."""
        return self._failures is None or self._known().pool().bears(self._failures)

    def breaks(self, before: bool) -> bool:
        """Whether what was done since the plan held, or did not, is to be refused (D7.7)."""
        return breaks_plan(before, self.holds(), allow_overcommit=self._plan.failure.allow_overcommit)

    def look(self, at_ns: int) -> None:
        """Something was done: how many failures does the pool bear now (D7.5), and is that enough?"""
        if self._failures is None:
            return
        at_ns = max(at_ns, self._last_ns)  # arrivals of an epoch are placed together, before those leave that are to
        self.end(at_ns)
        pool = self._known().pool()
        if pool != self._pool:
            self._pool = pool
            tolerated = 0
            if pool.complete:
                tolerated = tolerable(pool.free, pool.vms, cluster_stack=self._plan.failure.cluster_stack)
            self._learn(at_ns, tolerated, pool.bears(self._failures))
        if at_ns >= self._plan.warmup_ns:
            least = self._tolerated if self.tolerated_min is None else self.tolerated_min
            self.tolerated_min = min(least, self._tolerated)

    def end(self, at_ns: int) -> None:
        """Nothing was done until `at_ns`."""
        if self.overcommitted_ns is not None and not self._holds:
            self.overcommitted_ns += max(0, at_ns - max(self._last_ns, self._plan.warmup_ns))
        self._last_ns = at_ns

    def _learn(self, at_ns: int, tolerated: int, holds: bool) -> None:
        """Say what has changed, as XAPI does: that there is no plan any more, or a worse one, or one again."""
        text = f"host failures that there is a plan for: {tolerated}; to be tolerated: {self._failures}"
        if not holds and (self._holds or tolerated < self._tolerated):
            self._out.host_event(at_ns, NO_HOST, "ha_overcommitted", text)
        elif holds and not self._holds:
            self._out.host_event(at_ns, NO_HOST, "ha_planned", text)
        self._tolerated, self._holds = tolerated, holds

    def _known(self) -> Known:
        """The pool as the scheduler knows it."""
        booked = list(self._scheduler.booked())
        taken: Counter[int] = Counter()  # a domain on its way takes room on both hosts
        for _, hosts, ask in booked:
            for host_id in hosts:
                taken[host_id] += static_need(ask)
        views = self._scheduler.open_views()
        # Hosts say nothing of starts that wait for memory, the book nothing of the dead that are preserved.
        said, reserve_pages = static_free(views), self._plan.reserve_pages
        free = {
            view.host_id: min(said[view.host_id], view.usable_pages - reserve_pages - taken[view.host_id])
            for view in views
        }
        known = Known(free, [], [])
        for domain_id, hosts, ask in booked:
            if not self._is_protected(domain_id):
                continue
            size, agile = static_need(ask), self._is_agile(domain_id)
            home = next((host_id for host_id in hosts if host_id in free), None)
            if home is None:
                known.homeless.append((size, agile))
            else:
                known.vms.append(Protected(home, size, agile))
        for domain_id, lost in self._where.lost.items():
            if lost.priority == "restart":
                known.homeless.append((static_need(lost.ask), self._is_agile(domain_id)))
        return known

    def _with(self, known: Known, host_id: int, ask: Ask) -> Known:
        """The same with this start."""
        size = static_need(ask)
        free = {**known.free, host_id: known.free[host_id] - size}
        if not self._is_protected(ask.domain_id):
            return known._replace(free=free)
        return known._replace(free=free, vms=[*known.vms, Protected(host_id, size, self._is_agile(ask.domain_id))])

    def _is_protected(self, domain_id: int) -> bool:
        if domain_id not in self._protected:
            priority = priority_of(self._plan.failure, self._plan.hosts.seed, domain_id)
            self._protected[domain_id] = priority == "restart"
        return self._protected[domain_id]

    def _is_agile(self, domain_id: int) -> bool:
        guest = self._plan.hosts.guests.get(self._where.requests[domain_id].os_class)
        return guest is None or not guest.passthrough
