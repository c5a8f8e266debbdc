"""squeezed, the balancing daemon of XAPI: every guest is given the same share of its dynamic range.

What        A policy (`share_out`), a watch for stuck drivers, and runs of rounds a second apart that free memory for a
            start or hand out what is free. The daemon sees what domains own and whether their drivers are up; it never
            asks a guest how it fares.
Units       KiB, as the daemon counts; ns of simulated time.
Symbols     G       goal: free memory wanted, the reserve included
            gamma   share of its range that every domain gets
            actual  tot_pages less the domain's memory offset
Rules       D5.1-D5.16 by number beside the code. `Rules` switches a safety rule off: the scenario tests fail then.
Guests      One that is stuck or slow to begin is left out after 5 s without progress (D5.6) and its share is asked of
            the others; while it is left out it may give but not take. One that moves a page every 5 s is never stuck,
            and holds up the run. One that cannot balloon is not asked, not blamed and not limited. What guests say of
            their memory is never read, so a lying guest is like any other.
Departs     In a run it never waits for scrubbing (D5.2) and finds nothing reserved and not transferred yet (D5.2,
            D5.14): frames are scrubbed as they are freed, or not at all, and what it grants is built in the same
            instant, so that its host shows none of either. Client sessions, with which reservations would go, and their
            logins are not modelled. The daemon's checks lie on multiples of 10 s of the host's clock. An exact 0 ms
            passes within a round. Its floating-point gamma is kept, so that targets are those of the daemon to the KiB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

from podcluster.controller_parameters import SqueezedParameters
from podcluster.host.controllers.view import (
    KIB_A_PAGE,
    Action,
    Decision,
    Grant,
    Limit,
    Reads,
    Refuse,
    StartView,
    Target,
    Uncooperative,
    View,
    Wakes,
    after,
    clamp,
)
from podcluster.host.xapi import LIMIT_OFFSET_MIB, initial_target
from podcluster.units import PAGES_PER_MIB, s_to_ns

KIB_A_MIB: Final = 1024
XEN_OFFSET_PAGES: Final = LIMIT_OFFSET_MIB * PAGES_PER_MIB
SCRUB_PAGES: Final = 1024  # fewer than these awaiting scrubbing do not hold up a look (D5.2)
DOM0: Final = 0


class Rules(NamedTuple):
    """The safety rules, each of which can be switched off."""

    two_phases: bool = True  # D5.5
    stuck_detection: bool = True  # D5.6
    hard_limits: bool = True  # D5.8
    margin: bool = True  # D5.4: a driver may stop a page short, so two pages are not counted on


ALL_RULES: Final = Rules()


class Member(NamedTuple):
    """A domain that has booted [KiB]."""

    domid: int
    min_kib: int
    max_kib: int
    target_kib: int
    actual_kib: int
    can_balloon: bool
    limit_pages: int = 0
    offset_pages: int = 0


class Progress(NamedTuple):
    """What the watch for stuck drivers remembers of a domain within one run."""

    actual_kib: int
    since_ns: int  # when it was last seen moving the right way, or first seen
    stuck: bool


class Run(NamedTuple):
    """A run of rounds, for a start or to balance."""

    start: int | None  # the domain it frees memory for; None: to balance
    goal_kib: int  # G
    enough_kib: int  # free memory with which a start can begin
    next_ns: int
    progress: Mapping[int, Progress] = {}
    inactive: Set[int] = frozenset()


class State(NamedTuple):
    """What the daemon remembers between looks."""

    run: Run | None = None
    cooperative_ns: Mapping[int, int] = {}  # when a domain was last seen on target (D5.7)
    flagged: frozenset[int] = frozenset()
    settled: bool = False  # nothing was out of place at the last look


class Ended(NamedTuple):
    """How a round left its run: `None` for `success` means that it goes on."""

    actions: list[Action]
    run: Run
    success: bool | None
    blamed: tuple[int, ...]


def share_out(free_kib: int, goal_kib: int, members: Sequence[Member], margin_kib: int) -> list[int]:
    """New targets [KiB]: dynamic_min + trunc(gamma range), one gamma for all (D5.4)."""
    surplus_kib, total_kib = free_kib - goal_kib, 0
    ranges = []
    for one in members:
        min_kib = one.min_kib
        freeable_kib = one.actual_kib - min_kib - margin_kib  # what it is sure to give when it is sent to its minimum
        if freeable_kib > 0:
            surplus_kib += freeable_kib
        range_kib = one.max_kib - min_kib if one.max_kib > min_kib else 0
        total_kib += range_kib
        ranges.append((min_kib, range_kib))
    gamma = 0.0 if surplus_kib <= 0 else 1.0 if surplus_kib >= total_kib else surplus_kib / total_kib
    return [min_kib + math.trunc(gamma * range_kib) for min_kib, range_kib in ranges]


def write(one: Member, target_kib: int, *, limits: bool = True) -> list[Action]:
    """Target and limit of a domain: limit first when raising, target first when lowering (D5.8)."""
    limit_pages = target_kib // KIB_A_PAGE + XEN_OFFSET_PAGES + one.offset_pages
    if target_kib == one.target_kib and limit_pages == one.limit_pages:
        return []
    aim: list[Action] = [Target(one.domid, target_kib)] if target_kib != one.target_kib else []
    if limit_pages > one.limit_pages:
        return [Limit(one.domid, limit_pages), *aim]
    return [*aim, Limit(one.domid, limit_pages)] if limits and limit_pages < one.limit_pages else aim


class Squeezed:
    """The daemon with its constants."""

    wakes: Wakes = "memory"
    reads: Reads = "domains"

    def __init__(self, parameters: SqueezedParameters, rules: Rules = ALL_RULES) -> None:
        self._rules = rules
        self._reserve_kib = parameters.reserve_mib * KIB_A_MIB
        self._tolerance_kib = parameters.tolerance_kib
        self._inaccuracy_kib = parameters.inaccuracy_kib
        self._margin_kib = 2 * parameters.inaccuracy_kib if rules.margin else 0
        self._round_ns = s_to_ns(parameters.round_s)
        self._scrub_poll_ns = s_to_ns(parameters.scrub_poll_s)
        self._stuck_ns = s_to_ns(parameters.stuck_s)
        self._uncooperative_ns = s_to_ns(parameters.uncooperative_s)
        self.period_ns = s_to_ns(parameters.check_s)
        self.first_state = State()

    def decide(self, view: View, state: State) -> Decision:
        """A round of the run there is; else the next start (D5.3: one at a time); else the check of balance."""
        now_ns = view.now_ns
        if state.run is not None and now_ns < state.run.next_ns:
            return Decision((), state, state.run.next_ns)
        if view.scrub_pages >= SCRUB_PAGES:
            return Decision((), state, now_ns + self._scrub_poll_ns)
        free_kib, members = self.host(view)
        astray = self._astray(members)
        actions, seen_ns, flagged = self._watch_cooperation(now_ns, members, astray, state)
        run, checks = state.run, False
        if run is None and view.starts:
            run = self._begin(free_kib, members, view.starts[0], now_ns)
            if run.goal_kib <= free_kib and not astray:  # the short-cut (D5.12)
                state = State(None, seen_ns, flagged)
                return self._finish(view, free_kib, actions, state, Ended([], run, True, ()))
        elif run is None:
            if now_ns % self.period_ns:
                state = State(None, seen_ns, flagged, state.settled)
                return Decision(tuple(actions), state, after(now_ns, self.period_ns))
            run, checks = Run(None, self._reserve_kib, self._reserve_kib, now_ns), True
        ended = self.round(free_kib, members, run, now_ns)
        if checks and not any(isinstance(action, Target) for action in ended.actions):
            # Memory is balanced: the policy would leave every target as it is (D5.3).
            waiting = any(one.domid not in flagged for one in astray)  # to see whether they are to be flagged
            state = State(None, seen_ns, flagged, settled=not waiting)
            return Decision(tuple(actions), state, after(now_ns, self.period_ns) if waiting else None)
        if run.start is not None and all(one.domain_id != run.start for one in view.starts):
            ended = ended._replace(success=False)  # who wanted it has gone
        if ended.success is None:
            state = State(ended.run, seen_ns, flagged)
            return Decision((*actions, *ended.actions), state, ended.run.next_ns)
        return self._finish(view, free_kib, actions, State(None, seen_ns, flagged), ended)

    def host(self, view: View) -> tuple[int, list[Member]]:
        """Free memory as the daemon counts it, and the domains that have booted (D5.1, D5.2)."""
        spoken_for = view.reserved_pages
        members = []
        for one in view.domains:
            if not (one.can_balloon or one.has_agent):
                spoken_for += max(0, one.reservation_pages - one.tot_pages - one.shadow_pages)
                continue
            members.append(
                Member(
                    one.domid,
                    one.dynamic_min_pages * KIB_A_PAGE,
                    one.dynamic_max_pages * KIB_A_PAGE,
                    one.target_kib,
                    (one.tot_pages - one.memory_offset_pages) * KIB_A_PAGE,
                    one.can_balloon,
                    one.limit_pages,
                    one.memory_offset_pages,
                )
            )
        return (view.free_pages + view.scrub_pages - spoken_for) * KIB_A_PAGE, members

    # -- one round ---------------------------------------------------------------------------------------------------

    def round(self, free_kib: int, members: Sequence[Member], run: Run, now_ns: int) -> Ended:
        """Watch, share out, write; over when all active domains are where they are to stay (D5.9)."""
        progress: dict[int, Progress] = {}
        active, stuck, inactive = [], [], set()
        for one in members:
            its = progress[one.domid] = self._progress(one, run.progress.get(one.domid), now_ns)
            if one.can_balloon and not its.stuck:
                active.append(one)
                continue
            inactive.add(one.domid)
            if one.can_balloon:
                stuck.append(one)
        targets = share_out(free_kib, run.goal_kib, active, self._margin_kib)
        pairs = list(zip(active, targets, strict=True))
        freeing = [(one, new) for one, new in pairs if new < one.actual_kib - self._inaccuracy_kib]
        chosen = freeing if freeing and self._rules.two_phases else pairs  # D5.5
        over = all(new == one.target_kib for one, new in chosen) and not self._astray(active)
        new_of = {} if over else {one.domid: new for one, new in chosen}
        for one in stuck:
            if one.domid not in run.inactive:  # given up on in this round (D5.6)
                new_of[one.domid] = clamp(min(one.target_kib, one.actual_kib), one.min_kib, one.max_kib)
        actions: list[Action] = []
        for one in members:
            if one.can_balloon:
                actions += write(one, new_of.get(one.domid, one.target_kib), limits=self._rules.hard_limits)
        run = Run(run.start, run.goal_kib, run.enough_kib, now_ns + self._round_ns, progress, inactive)
        if not over:
            return Ended(actions, run, None, ())
        if run.start is None:
            success = free_kib - self._reserve_kib < self._tolerance_kib  # D5.13
        else:
            success = free_kib >= run.enough_kib
        return Ended(actions, run, success, tuple(one.domid for one in stuck))

    def _progress(self, one: Member, before: Progress | None, now_ns: int) -> Progress:
        """Stuck after 5 s off target without a movement the right way; any such movement mends it (D5.6)."""
        actual_kib = one.actual_kib
        if before is None:
            return Progress(actual_kib, now_ns, False)
        moved = actual_kib - before.actual_kib
        wanted = one.target_kib - actual_kib
        if abs(wanted) <= self._inaccuracy_kib:
            return Progress(actual_kib, before.since_ns, before.stuck) if moved else before
        if moved * wanted > 0:
            return Progress(actual_kib, now_ns, False)
        late = self._rules.stuck_detection and now_ns - before.since_ns > self._stuck_ns
        return Progress(actual_kib, before.since_ns, before.stuck or late)

    def _astray(self, members: Sequence[Member]) -> list[Member]:
        """Those off target that could be on it."""
        off_kib = self._inaccuracy_kib
        return [one for one in members if one.can_balloon and abs(one.actual_kib - one.target_kib) > off_kib]

    # -- runs --------------------------------------------------------------------------------------------------------

    def _begin(self, free_kib: int, members: Sequence[Member], start: StartView, now_ns: int) -> Run:
        """Free what a ghost of the start would be given, were it there with nothing of its own (D5.11)."""
        least_kib = (start.min_pages + start.overhead_pages) * KIB_A_PAGE
        most_kib = (start.max_pages + start.overhead_pages) * KIB_A_PAGE
        ghost = Member(-1, least_kib, most_kib, least_kib, 0, True)
        able = [one for one in members if one.can_balloon]
        ideal_kib = share_out(free_kib, self._reserve_kib, [ghost, *able], self._margin_kib)[0]
        return Run(start.domain_id, ideal_kib + self._reserve_kib, least_kib + self._reserve_kib, now_ns)

    def _finish(self, view: View, free_kib: int, actions: list[Action], state: State, ended: Ended) -> Decision:
        """The run is over: answer its start; what to do next is seen at the next look."""
        run = ended.run
        actions = [*actions, *ended.actions]
        start = next((one for one in view.starts if one.domain_id == run.start), None)
        if start is not None:
            actions.append(self._answer(view, free_kib, start, run, ended))
        more = start is not None or bool(view.starts)
        return Decision(tuple(actions), state, view.now_ns if more else after(view.now_ns, self.period_ns))

    def _answer(self, view: View, free_kib: int, start: StartView, run: Run, ended: Ended) -> Action:
        if ended.success:
            overhead_pages = start.overhead_pages
            least_pages, most_pages = start.min_pages + overhead_pages, start.max_pages + overhead_pages
            granted_pages = clamp((free_kib - self._reserve_kib) // KIB_A_PAGE, least_pages, most_pages)
            return Grant(start.domain_id, initial_target(start.max_pages, granted_pages, overhead_pages))
        blamed = [domid for domid in ended.blamed if domid != DOM0]
        if blamed:  # D5.10, E14
            names = ", ".join(f"Dom{domid}" for domid in blamed)
            return Refuse(start.domain_id, "vms_failed_to_cooperate", f"VMS_FAILED_TO_COOPERATE({names})")
        text = f"HOST_NOT_ENOUGH_FREE_MEMORY({run.goal_kib}, {free_kib})"
        return Refuse(start.domain_id, "host_memory", text)

    # -- the flag ----------------------------------------------------------------------------------------------------

    def _watch_cooperation(
        self, now_ns: int, members: Sequence[Member], astray: Sequence[Member], state: State
    ) -> tuple[list[Action], Mapping[int, int], frozenset[int]]:
        """Flag who has been off target for more than 20 s, over all runs; take the flag from who is back (D5.7). What
        to write, when each was last seen on target, and who is flagged.
        """
        # Where nothing was out of place and nothing happened since, every check that was skipped would have found the
        # same: the last of them counts.
        skipped_ns = (now_ns - 1) // self.period_ns * self.period_ns
        last_ns = {one.domid: now_ns for one in members}
        for one in astray:
            seen_ns = state.cooperative_ns.get(one.domid, now_ns)
            if state.settled and one.domid not in state.flagged:
                seen_ns = max(seen_ns, skipped_ns)
            last_ns[one.domid] = min(seen_ns, now_ns)
        late = frozenset(one.domid for one in astray if now_ns - last_ns[one.domid] > self._uncooperative_ns)
        changed = (late ^ state.flagged) & last_ns.keys()
        return [Uncooperative(domid, domid in late) for domid in sorted(changed)], last_ns, late
