"""The scheduler of a run: what it knows of the hosts, how old that is, and who wins when two want the same memory.

What        `place` finds hosts for what arrives in an epoch. `report` takes in what the hosts said at the end of a
            step. Two indexes: the *book*, what each host would say if it were asked now, and what is *seen*, the hosts'
            reports of a stated age.
Age         0: there is one scheduler, which knows the last reports and all that it has placed since; book and seen are
            one. Above 0: each request has a scheduler of its own, as parallel starts have, which knows what hosts
            reported `view_age_ns` before the epoch began, and nothing of what others place meanwhile. Then the host
            decides: it stakes the memory or refuses (H1), and who is refused tries again without that host.
Units       ns; pages.
Symbols     U usable_pages
Down        A host that is closed is given no domains. Room is kept on a host for a domain that is on its way to it
            (`expect`), whatever the host reports, until it has landed or does not come; unless the host builds one
            again that had crashed or rebooted, and then has too little: it decides when it is asked.
Invariants  [EP-2] committed + need <= U in the book, whatever was seen.
            [PLACE-8] strict groups are kept by all that is booked by fresh views: starts, restarts, and moves.
            [EP-6] what is seen at the beginning of an epoch does not depend on how the epochs before it were merged:
                   `looks` are the instants that must be reported.
Departs     A refusal is known to the request that met it and to no other. A host that refuses looks at memory and
            ratios; of groups it knows nothing, so that starts by old views may bring members together that are to be
            apart, however strictly. A domain that is to be built again after a crash or a reboot keeps its vCPUs, its
            group and its forecast meanwhile, and afterwards, as if it were the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from podcluster.cluster.asks import Forecasts
from podcluster.cluster.plan import Plan
from podcluster.placement.batch import Batch, place_batch
from podcluster.placement.groups import Bar, Groups, place_indexed
from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView, Rejected
from podcluster.records.machines import MachineRequest
from podcluster.records.reports import HostReport

Placed = tuple[int, Ask]  # on which host


class Outcome(NamedTuple):
    """Where a request went, or why nowhere, and the hosts that refused it before."""

    answer: int | Rejected
    refused: tuple[int, ...] = ()


@dataclass
class _Step:
    """What became known at the end of a step."""

    at_ns: int
    views: list[HostView] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    gone: list[Placed] = field(default_factory=list)


@dataclass
class _Sampled:
    """What a host last sampled, and what has been placed on it since: when, target, forecast demand."""

    target_pages: int = 0
    demanded_pages: int = 0
    since: list[tuple[int, int, int]] = field(default_factory=list)


class Scheduler:
    """Places what arrives, and learns what hosts report."""

    def __init__(self, plan: Plan, policy: Policy) -> None:
        cfg = plan.placement
        self._policy = policy
        self._retries = cfg.retries
        self._age_ns = plan.view_age_ns
        self._is_built_again = plan.is_built_again
        self._forecasts = Forecasts(cfg, plan.need_pages, plan.duration_ns, plan.hosts.seed)
        views = [
            HostView(
                spec.host_id, spec.usable_pages, plan.reserve_pages, 0, spec.usable_pages, 0, 0,
                overhead_pages=plan.reserve_pages, cpus=spec.cpus,
            )
            for spec in sorted(plan.specs, key=lambda spec: spec.host_id)
        ]  # fmt: skip
        self._book = HostIndex(views, policy.rules, policy.search_kind)
        self._groups = Groups(strict=cfg.strict_groups)
        self._seen, self._seen_groups = self._book, self._groups
        if self._age_ns:
            self._seen = HostIndex(views, policy.rules, policy.search_kind)
            self._seen_groups = Groups(strict=cfg.strict_groups)
        self._one_by_one = bool(self._age_ns or cfg.affinity or cfg.anti_affinity)
        self._reported = {view.host_id: view for view in views}
        self._sampled = {view.host_id: _Sampled() for view in views} if cfg.by in ("target", "demand") else {}
        self._where: dict[int, tuple[MachineRequest, int, Ask]] = {}
        self._expected: dict[int, Placed] = {}  # by domain_id: on their way to that host, which knows nothing of it
        self._kept: set[int] = set()  # of these, those whose host has been told: its views have them
        self._crowded: set[int] = set()  # of the others, those for whom their host has no memory as it is now
        self._doubtful: set[int] = set()  # hosts whose next view counts, however it compares with the last
        self._closed: set[int] = set()
        self._step = _Step(0)
        self._unseen: deque[_Step] = deque()

    def looks(self, arrivals: Iterable[MachineRequest], epoch_ns: int) -> list[int]:
        """The instants, ascending, of which reports will be wanted [EP-6]; none where views have no age."""
        if not self._age_ns:
            return []
        begins = {(max(1, request.arrival_ns) - 1) // epoch_ns * epoch_ns for request in arrivals}
        return sorted({at_ns for begin_ns in begins if (at_ns := (begin_ns - self._age_ns) // epoch_ns * epoch_ns) > 0})

    def place(
        self,
        requests: Sequence[MachineRequest],
        begin_ns: int,
        guard: Callable[[int, Ask], Rejected | None] | None = None,
    ) -> list[Outcome]:
        """Find hosts for what arrives in the epoch that begins at `begin_ns`, in this order, and book it.

        `guard` has the last word on each choice, with all before it booked.
        """
        while self._unseen and self._unseen[0].at_ns <= begin_ns - self._age_ns:
            step = self._unseen.popleft()
            for host_id, ask in step.placed:
                self._seen.enter(host_id, ask)
                self._seen_groups.enter(host_id, ask)
            _learn(step, self._seen, self._seen_groups)
        if not requests:
            return []
        if len(self._closed) == len(self._reported):
            return [Outcome(Rejected("no host is up")) for _ in requests]
        asks = [self._forecasts.ask(request) for request in requests]
        if self._one_by_one or len(asks) == 1 or guard is not None:  # a batch costs as much as ten requests
            return [self._place_one(request, ask, guard) for request, ask in zip(requests, asks, strict=True)]
        outcomes = [Outcome(answer) for answer in place_batch(self._policy, Batch.of(asks), self._book)]
        for request, ask, (answer, _) in zip(requests, asks, outcomes, strict=True):
            if not isinstance(answer, Rejected):
                self._note(request, answer, ask)
        return outcomes

    def place_on(self, host_id: int, request: MachineRequest) -> bool:
        """Book a choice that was made elsewhere, if the host may take it [EP-2] and its group lets it [PLACE-8]."""
        ask = self._forecasts.ask(request)
        if self._groups.forbids(ask, host_id) or not self._book.fits(ask, self._book.position(host_id)):
            return False
        self._enter(host_id, ask)
        self._note(request, host_id, ask)
        return True

    @property
    def rules(self) -> Rules:
        """By what hosts are measured, and when one may take a request."""
        return self._policy.rules

    def ask(self, request: MachineRequest) -> Ask:
        """What placement is told of a machine now."""
        return self._forecasts.ask(request)

    def bar(self, ask: Ask) -> Bar:
        """From which hosts that are given domains strict groups keep a machine that is to leave its own [PLACE-8]."""
        open_ids = (host_id for host_id in self._book.host_ids if self.is_open(host_id))
        return self._groups.bar(ask, open_ids, self._host_of(ask))

    # -- hosts that are down, and domains on their way ---------------------------------------------------------------

    def open_views(self) -> list[HostView]:
        """What is known by now of the hosts that are given domains, in host_id order."""
        return self._book.views()

    def booked(self) -> Iterator[tuple[int, tuple[int, ...], Ask]]:
        """Each domain that is on a host or on its way to one: its id, its host and then that one, what was asked."""
        for domain_id, (_, host_id, ask) in self._where.items():
            goes_to = self._expected.get(domain_id)
            yield domain_id, (host_id,) if goes_to is None else (host_id, goes_to[0]), ask
        for domain_id, (host_id, ask) in self._expected.items():
            if domain_id not in self._where:
                yield domain_id, (host_id,), ask

    def is_open(self, host_id: int) -> bool:
        """Whether the host is given domains."""
        return host_id not in self._closed

    def close(self, host_id: int) -> None:
        """Give this host no more domains."""
        self._closed.add(host_id)
        self._book.close(host_id)
        self._seen.close(host_id)

    def open(self, host_id: int) -> None:
        """Give this host domains again."""
        self._closed.discard(host_id)
        self._book.open(host_id)
        self._seen.open(host_id)

    @property
    def expects(self) -> bool:
        """Whether any domain is on its way."""
        return bool(self._expected)

    def expected_on(self, domain_id: int) -> int | None:
        """The host that keeps room for a domain; None: none does."""
        return self._expected[domain_id][0] if domain_id in self._expected else None

    def expect(self, host_id: int, request: MachineRequest) -> bool:
        """Keep room on this host for a domain that is on its way, if it may take it and its group lets it."""
        ask = self._forecasts.ask(request)
        forbidden = self._groups.forbids(ask, host_id, self._host_of(ask))  # [PLACE-8]
        if forbidden or not self._book.fits(ask, self._book.position(host_id)):
            return False
        self._book.place(host_id, ask)  # [EP-2]
        self._groups.set_out(host_id, ask)
        self._expected[request.domain_id] = host_id, ask
        return True

    def keeps(self, domain_id: int) -> None:
        """The host that a domain is expected on is being told, and keeps room for it itself from the next report on."""
        self._crowded.discard(domain_id)
        self._kept.add(domain_id)

    def give_up(self, domain_id: int) -> None:
        """A domain that was expected does not come."""
        host_id, ask = self._expected.pop(domain_id)
        if domain_id in self._kept or domain_id in self._crowded:
            self._kept.discard(domain_id)
            self._crowded.discard(domain_id)
            self._doubtful.add(host_id)
            self._book.strike(host_id, ask)
        else:
            self._book.leave(host_id, ask)
        self._groups.leave(host_id, ask)
        self._groups.settle(ask)

    def land(self, request: MachineRequest) -> None:
        """A domain that was expected is there."""
        host_id, ask = self._expected.pop(request.domain_id)
        self._kept.discard(request.domain_id)
        self._groups.settle(ask)
        self._note(request, host_id, ask)

    # -- what hosts say ----------------------------------------------------------------------------------------------

    def leaves(self, domain_id: int, at_ns: int) -> None:
        """A domain is told to leave; that is known when the step has been reported."""
        if domain_id in self._where:
            self._forecasts.left(self._where[domain_id][0], at_ns)
            self.ends(domain_id)

    def ends(self, domain_id: int) -> None:
        """A domain will have left its host when the step is reported."""
        if domain_id in self._where:
            _, host_id, ask = self._where.pop(domain_id)
            self._step.gone.append((host_id, ask))

    def report(self, now_ns: int, reports: Iterable[HostReport]) -> None:
        """Take in what the hosts said, in host_id order."""
        step = self._step
        step.at_ns = now_ns
        # Their views may be as before, the book is not.
        took = {host_id for host_id, _ in (*step.placed, *self._expected.values())} | self._doubtful
        self._doubtful.clear()
        for report in reports:
            for one in report.installed:
                self._forecasts.needs(one.domain_id, one.need_pages)
            for row in report.domains:
                if not self._is_built_again(row):
                    self.ends(row.domain_id)
            view = self._with_samples(report) if self._sampled else report.view
            if report.host_id in took or _differ(view, self._reported[report.host_id]):
                self._reported[report.host_id] = view
                step.views.append(view)
        _learn(step, self._book, self._groups)
        for domain_id in self._expected:
            if domain_id not in self._kept:
                self._book_again(domain_id)
        if self._age_ns:
            self._unseen.append(step)
        self._step = _Step(now_ns)

    def _book_again(self, domain_id: int) -> None:
        """Keep room for a domain of which the host's view does not know; what else of it is booked stays."""
        host_id, ask = self._expected[domain_id]
        if self._book.free_pages(host_id) < ask.need_pages:
            # One that had ended is built again and has its memory back. When the host is asked it refuses.
            self._crowded.add(domain_id)
            return
        self._crowded.discard(domain_id)
        self._book.place(host_id, ask)
        self._book.strike(host_id, ask)

    def audit(self) -> None:
        """Check the indexes, once at the end of a run."""
        self._book.audit()
        self._seen.audit()

    def _place_one(
        self, request: MachineRequest, ask: Ask, guard: Callable[[int, Ask], Rejected | None] | None
    ) -> Outcome:
        """See, choose, claim; without the hosts that refused, until one stakes the memory or retries run out."""
        refused: list[int] = []
        while True:
            answer = place_indexed(self._policy, ask, self._seen, self._seen_groups)
            if isinstance(answer, Rejected) or self._book.fits(ask, self._book.position(answer)):
                break
            refused.append(answer)
            self._seen.close(answer)
            if len(refused) > self._retries:
                answer = Rejected(f"{len(refused)} hosts had less than was known of them", "lost_race")
                break
        for host_id in refused:
            self._seen.open(host_id)
        if guard is not None and not isinstance(answer, Rejected):
            answer = guard(answer, ask) or answer
        if not isinstance(answer, Rejected):
            self._enter(answer, ask)
            self._note(request, answer, ask)
        return Outcome(answer, tuple(refused))

    def _host_of(self, ask: Ask) -> int | None:
        """The host that a domain is on."""
        return self._where[ask.domain_id][1] if ask.domain_id in self._where else None

    def _enter(self, host_id: int, ask: Ask) -> None:
        self._book.place(host_id, ask)  # [EP-2]
        self._groups.enter(host_id, ask)

    def _note(self, request: MachineRequest, host_id: int, ask: Ask) -> None:
        """A domain is on its host, or about to be started there."""
        self._where[request.domain_id] = request, host_id, ask
        self._step.placed.append((host_id, ask))
        if self._sampled:
            added = max(1, request.arrival_ns), request.memory_pages, ask.mean_pages
            self._sampled[host_id].since.append(added)

    def _with_samples(self, report: HostReport) -> HostView:
        """The view with targets and demand as last sampled, and of what was placed since as asked and forecast."""
        known = self._sampled[report.host_id]
        if report.samples:
            last = report.samples[-1]
            known.target_pages, known.demanded_pages = last.target_pages, last.demanded_pages
            known.since = [one for one in known.since if one[0] > last.t_ns]
        return replace(
            report.view,
            target_pages=known.target_pages + sum(target for _, target, _ in known.since),
            demanded_pages=known.demanded_pages + sum(demand for _, _, demand in known.since),
        )


def _learn(step: _Step, index: HostIndex, groups: Groups) -> None:
    """Take the end of a step into what is known."""
    for view in step.views:
        index.observe(view)
    for host_id, ask in step.gone:
        index.strike(host_id, ask)
        groups.leave(host_id, ask)


def _differ(view: HostView, known: HostView) -> bool:
    """Whether a report says anything of which placement should know."""
    return (
        view.committed_pages != known.committed_pages
        or view.promised_pages != known.promised_pages
        or view.overhead_pages != known.overhead_pages
        or view.target_pages != known.target_pages
        or view.demanded_pages != known.demanded_pages
    )
