"""qmemman, the memory manager of Qubes: every guest gets what it prefers, and a share of the rest in proportion to it.

What        Guests report what they use; each report of a change is a reason to balance. Donors are told first, and
            acceptors only as their memory comes free. A start borrows from the donors in proportion to what they can
            spare.
Units       Pages of 4 KiB.
Symbols     used     what a guest reported last       actual   max(owned, target): what it has or may take at any time
            pref     clamp(1.3 used, 200 MiB, dynamic_max)    need   pref - actual; below 0 it is a donor
            free     host free memory / 1.00781 less what targets promise and is not taken yet
Law         available = free - 50 MiB - sum of need. Above 0: everybody is to have 0.999 (pref + available pref / sum of
            pref), and what passes somebody's maximum is spread evenly over the others. Otherwise donors that can spare
            10 MiB go down to pref, and acceptors get 0.999 (actual + share), the share being of what donors free and
            what is free, in proportion to pref. Moves of 150 MiB in all and less are not made, unless a guest below
            its pref is to get more than 15 MiB, or Xen is short of its 50 MiB by as much.
Starts      At dynamic_min (`memory`), seen at the next poll. Each 0.1 s: with need + 25 MiB free, the start goes ahead;
            else donors are told to give 1.05 times their part. It is refused where the donors have less than what is
            missing, and where fewer than 100 MB/s came in over 3 s.
Reads       used = MemTotal - MemFree - Buffers - Cached + SwapUsed: kernel, services and applications, in memory and on
            swap; buffers are page cache to podcluster. A guest reports when that has changed by more than 30 MiB.
Guests      A donor that has not moved at all when an acceptor waits for its memory is left out until it gives or needs
            memory; one that is slow holds up the acceptor for 0.5 s, which then gets what there is. A guest that lies
            about what it uses gets 1.3 times its lie, up to its maximum. One that never reports is never touched.
Departs     dom0 has a fixed size, so nothing is balanced with it. A target is `xl mem-set`'s; qmemman takes 16 MiB off
            for video RAM and the rest where that takes off the video RAM there is. In its own source what donors free
            counts against the acceptors when memory is short; here it counts for them, as its comments say. dynamic_min
            is a floor for targets here; Qubes knows only the 200 MiB of pref.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from podcluster.controller_parameters import QmemmanParameters
from podcluster.host.controllers.view import (
    KIB_A_PAGE,
    Action,
    Decision,
    DomainView,
    Grant,
    MemSet,
    Reads,
    Refuse,
    StartView,
    View,
    Wakes,
    after,
)
from podcluster.units import PAGES_PER_MIB, s_to_ns

ROUNDING = 0.999  # of every share, so that rounding never gives more than there is

Request = tuple[int, int]
"""(domid, target [pages])."""


class Member(NamedTuple):
    """A guest that has reported."""

    domid: int
    actual: int
    target: int
    owned: int
    pref: int
    least: int
    most: int

    @property
    def need(self) -> int:
        """Below 0: what it can spare."""
        return self.pref - self.actual


class Handing(NamedTuple):
    """A balance under way: acceptors that wait for the donors' memory."""

    acceptors: tuple[Request, ...]
    donors: tuple[Request, ...]
    tries: int  # waits that are left
    before: Mapping[int, int]  # what the donors had when they were told


class Borrowing(NamedTuple):
    """A start under way."""

    domain_id: int
    free: tuple[int, ...] = ()  # of the last looks
    before: Mapping[int, int] = {}


class State(NamedTuple):
    """What is remembered between looks."""

    used: Mapping[int, int] = {}  # as reported last, by domid
    left_out: frozenset[int] = frozenset()  # donors that did not give
    domids: frozenset[int] = frozenset()
    news: bool = False  # something was reported, or somebody went, since the last balance
    work: Handing | Borrowing | None = None


class Qmemman:
    """The manager with its constants."""

    wakes: Wakes = "use"
    reads: Reads = "reports"
    first_state = State()

    def __init__(self, parameters: QmemmanParameters) -> None:
        self._p = p = parameters
        self.period_ns = s_to_ns(p.poll_s)
        self._keep = p.keep_free_mib * PAGES_PER_MIB
        self._least = p.least_free_mib * PAGES_PER_MIB
        self._looks = max(1, round(p.give_up_s / p.poll_s))

    def decide(self, view: View, state: State) -> Decision:
        """Go on with what is under way; else a start; else balance, if there is a reason to.

        Off its beat it sleeps: what it waits for is counted in polls.
        """
        if view.now_ns % self.period_ns:
            return Decision((), state, after(view.now_ns, self.period_ns))
        reported, news = self._reports(view.domains, state)
        domids = frozenset(one.domid for one in view.domains)
        # Who reports while something is under way has to wait for its balance, and is not forgotten.
        news = news or state.news or bool(state.domids - domids)
        state = state._replace(used=reported, domids=domids, left_out=state.left_out & domids, news=news)
        members = [self.member(one, reported[one.domid]) for one in view.domains if one.domid in reported]
        free = self.free(view)
        actions: list[Action] = []
        if isinstance(state.work, Handing):
            actions, work, state = self._hand(members, free, state.work, state)
            state = state._replace(work=work)
        elif view.starts:
            actions, state = self._lend(members, free, view.starts[0], state)
        elif news:
            actions, state = self._balance(members, free, state._replace(news=False))
        busy = state.work is not None or state.news or bool(view.starts) or bool(actions)
        return Decision(tuple(actions), state, after(view.now_ns, self.period_ns) if busy else None)

    # -- what it sees ------------------------------------------------------------------------------------------------

    def _reports(self, domains: Sequence[DomainView], state: State) -> tuple[dict[int, int], bool]:
        """What guests have told by now, and whether any of it is new."""
        least = self._p.report_change_mib * PAGES_PER_MIB
        reported: dict[int, int] = {}
        news = False
        for one in domains:
            if one.stats is None or not one.can_balloon:
                continue
            used = one.stats.used_pages + one.stats.swapped_pages
            before = state.used.get(one.domid)
            if before is None or abs(used - before) > least:
                news = True
                before = used
            reported[one.domid] = before
        return reported, news

    def member(self, one: DomainView, used: int) -> Member:
        """A guest as the manager reckons."""
        target = one.target_kib // KIB_A_PAGE
        pref = max(min(int(used * self._p.cache_factor), one.dynamic_max_pages), self._p.least_pref_mib * PAGES_PER_MIB)
        actual = max(one.tot_pages, target)
        return Member(one.domid, actual, target, one.tot_pages, pref, one.dynamic_min_pages, one.dynamic_max_pages)

    def free(self, view: View) -> int:
        """Free memory that no target has promised to anybody."""
        promised = sum(max(0, one.target_kib // KIB_A_PAGE - one.tot_pages) for one in view.domains if one.can_balloon)
        return int(view.free_pages / self._p.overhead_factor) - promised

    # -- balancing ---------------------------------------------------------------------------------------------------

    def balance(self, members: Sequence[Member], spare: int) -> list[Request]:
        """The law: donors first. `spare` is free memory less what Xen keeps."""
        if not members:
            return []
        available = spare - sum(one.need for one in members)
        if available > 0:
            wanted = self._with_plenty(members, available)
        else:
            wanted = self._when_short(members, spare)
        pairs = [(one, max(one.least, min(target, one.most))) for one, target in wanted]
        donors = [(one.domid, target) for one, target in pairs if target < one.actual]
        return donors + [(one.domid, target) for one, target in pairs if target >= one.actual]

    def _with_plenty(self, members: Sequence[Member], available: int) -> list[tuple[Member, int]]:
        total = sum(one.pref for one in members)
        targets = [int(ROUNDING * (one.pref + available * one.pref / total)) for one in members]
        over = sum(max(0, target - one.most) for one, target in zip(members, targets, strict=True))
        targets = [min(target, one.most) for one, target in zip(members, targets, strict=True)]
        for _ in members:
            open_to = [i for i, one in enumerate(members) if targets[i] < one.most]
            if over <= 0 or not open_to:
                break
            bonus, over = int(ROUNDING * over / len(open_to)), 0
            for i in open_to:
                over += max(0, targets[i] + bonus - members[i].most)
                targets[i] = min(targets[i] + bonus, members[i].most)
        return list(zip(members, targets, strict=True))

    def _when_short(self, members: Sequence[Member], spare: int) -> list[tuple[Member, int]]:
        least = self._p.least_donation_mib * PAGES_PER_MIB
        donors = [one for one in members if -one.need >= least]
        acceptors = [one for one in members if one.need >= 0 and one.actual < one.most]
        squeezed = spare - sum(one.need for one in donors)
        told = [(one, one.pref) for one in donors]
        if squeezed < 0 or not acceptors:
            return told
        total = sum(one.pref for one in acceptors)
        return told + [
            (one, min(int(ROUNDING * (one.actual + squeezed * one.pref / total)), one.most)) for one in acceptors
        ]

    def significant(self, members: Sequence[Member], requests: Sequence[Request], free: int) -> bool:
        """Whether it is worth the moves."""
        p = self._p
        below_pref = p.least_move_below_pref_mib * PAGES_PER_MIB
        if self._keep - free > below_pref:
            return True
        by_domid = {one.domid: one for one in members}
        moved = 0
        for domid, target in requests:
            one = by_domid[domid]
            change = target - one.target
            moved += abs(change)
            if one.target < one.pref and change > below_pref:
                return True
        return moved + abs(free - self._keep) > p.least_move_mib * PAGES_PER_MIB

    def _balance(self, members: Sequence[Member], free: int, state: State) -> tuple[list[Action], State]:
        back = frozenset(
            one.domid for one in members if one.actual <= one.target + self._keep // 2 or one.actual < one.pref
        )
        state = state._replace(left_out=state.left_out - back)
        taking_part = [one for one in members if one.domid not in state.left_out]
        requests = self.balance(taking_part, free - self._keep)
        if not self.significant(taking_part, requests, free):
            return [], state
        target_of = {one.domid: one.target for one in members}
        actual_of = {one.domid: one.actual for one in members}
        donors = tuple(one for one in requests if one[1] < actual_of[one[0]])
        acceptors = tuple(one for one in requests if one[1] >= actual_of[one[0]] and one[1] != target_of[one[0]])
        actions: list[Action] = [MemSet(*one) for one in donors if one[1] != target_of[one[0]]]
        before = {domid: actual_of[domid] for domid, _ in donors}
        more, work, state = self._hand(members, free, Handing(acceptors, donors, self._p.tries, before), state)
        return actions + more, state._replace(work=work)

    def _hand(
        self, members: Sequence[Member], free: int, work: Handing, state: State
    ) -> tuple[list[Action], Handing | None, State]:
        """Give to the acceptors in turn as memory comes free; after the last try give what there is and stop."""
        by_domid = {one.domid: one for one in members}
        actions: list[Action] = []
        acceptors = [one for one in work.acceptors if one[0] in by_domid]
        while acceptors:
            domid, target = acceptors[0]
            more = target - by_domid[domid].actual
            if free - more < 0.9 * self._keep:
                break
            free -= more
            actions.append(MemSet(domid, target))
            del acceptors[0]
            work = work._replace(tries=self._p.tries)
        if not acceptors:
            return actions, None, state
        if work.tries > 0:
            return actions, work._replace(acceptors=tuple(acceptors), tries=work.tries - 1), state
        stuck = frozenset(
            domid
            for domid, target in work.donors
            if domid in by_domid
            and by_domid[domid].owned > target + self._keep // 4
            and by_domid[domid].actual == work.before[domid]
        )
        one = by_domid[acceptors[0][0]]
        rest = min(one.most, max(one.least, one.actual + free - self._keep))
        if rest > one.actual:
            actions.append(MemSet(one.domid, rest))
        return actions, None, state._replace(left_out=state.left_out | stuck)

    # -- starts ------------------------------------------------------------------------------------------------------

    def _lend(self, members: Sequence[Member], free: int, start: StartView, state: State) -> tuple[list[Action], State]:
        need = start.min_pages + start.overhead_pages
        if isinstance(state.work, Borrowing) and state.work.domain_id == start.domain_id:
            work = state.work
        else:
            work = Borrowing(start.domain_id)
            state = state._replace(left_out=frozenset())
        done = state._replace(work=None)
        if free >= need + self._least:
            # What was promised to others and not taken yet must not eat into it.
            caught = [one for one in members if one.owned < one.target]
            actions: list[Action] = [MemSet(one.domid, max(one.owned, one.least)) for one in caught]
            return [*actions, Grant(start.domain_id, start.min_pages)], done
        expected = int(self._p.give_up_mib_per_s * self._p.give_up_s) * PAGES_PER_MIB
        slow = len(work.free) >= self._looks and free < work.free[-self._looks] + expected
        stuck = frozenset(one.domid for one in members if work.before.get(one.domid) == one.actual)
        left_out = state.left_out | stuck
        donors = [one for one in members if one.need < 0 and one.domid not in left_out]
        missing = need + self._keep - free
        spare = -sum(one.need for one in donors)
        if slow or spare < missing:
            text = f"not enough memory to start domain: {need} pages wanted, {free} free"
            return [Refuse(start.domain_id, "host_memory", text)], done._replace(left_out=left_out)
        told = [
            (one.domid, max(one.least, int(one.actual + one.need * missing / spare * self._p.start_margin)))
            for one in donors
        ]
        work = Borrowing(
            start.domain_id,
            (*work.free, free)[-self._looks :],
            {domid: next(one.actual for one in donors if one.domid == domid) for domid, _ in told},
        )
        return [MemSet(*one) for one in told], state._replace(work=work, left_out=left_out)
