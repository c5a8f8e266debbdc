"""Do balloons that take from the heap by turns, in one call, get what they get batch by batch?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.host.model import make_machine
from podcluster.host.takers import Taker, Turns, taker
from podcluster.host.traced import TracedMachine
from podcluster.records.commands import SetTarget
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import guest_config, host_config, host_model, live, request, rows, start

BLOCK = 512
PAGES = 4 * BLOCK
COSTS = {"hypercall_ns": 700, "populate_4k_ns": 11}


def ballooned_out(runs_of: Sequence[Sequence[tuple[int, int]]]) -> TracedMachine:
    """A host of domains of 8 MiB, each of which has given these runs back."""
    machine = TracedMachine(len(runs_of) * PAGES + 3 * BLOCK + 37, costs=COSTS)
    for dom, runs in enumerate(runs_of):
        machine.create(dom, maxmem_pages=PAGES, max_pages=PAGES)
        assert machine.populate_seq(dom, 0, 4, 9, 1) == 4
        for run in runs:
            machine.balloon_range(dom, *run)
    return machine


@st.composite
def holes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Runs of a domain's pages that do not meet, in any order."""
    cuts = sorted(draw(st.sets(st.integers(0, PAGES), min_size=2, max_size=12)))
    found = [(a, b - a) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    return draw(st.permutations(found))


@settings(deadline=None)
@given(
    runs_of=st.lists(holes(), min_size=1, max_size=4),
    rates=st.lists(st.integers(1000, 1_000_000), min_size=4, max_size=4),
    starts=st.lists(st.integers(0, 10**7), min_size=4, max_size=4),
    batch=st.sampled_from([100, BLOCK, 700]),
    last_ns=st.integers(0, 3 * 10**7),
    least=st.integers(0, 2 * BLOCK),
    quotas=st.lists(st.integers(0, PAGES), min_size=4, max_size=4),
)
def test_frames_go_to_whose_turn_it_is(
    runs_of: list[list[tuple[int, int]]],
    rates: list[int],
    starts: list[int],
    batch: int,
    last_ns: int,
    least: int,
    quotas: list[int],
) -> None:
    """A few balloons with holes all over, against single batches in order of time: the same tables, to the frame."""
    together, singly = ballooned_out(runs_of), ballooned_out(runs_of)
    doms = range(len(runs_of))
    needs = [sum(count for _, count in runs) for runs in runs_of]
    takers = [
        taker(
            next_ns=starts[k], free_ns=0, anchor_ns=starts[k], done=0, pages_per_s=rates[k], batch=batch,
            need=needs[k], most=quotas[k], until_ns=last_ns + k, runs=[n for run in runs_of[k] for n in run],
        )
        for k in doms
    ]  # fmt: skip
    taken = together.take_in_turns(doms, takers, least)

    stacks = [list(reversed(runs)) for runs in runs_of]
    anchors, dues, done, expected = list(starts), list(starts), [0] * len(needs), []
    while any(needs):
        at_ns, k = min((dues[k], k) for k in doms if needs[k])
        asked = min(batch, needs[k])
        if at_ns > last_ns or asked > min(quotas[k], singly.free_pages - least):
            break
        singly.set_clock(k, at_ns)
        left = asked
        while left:
            first, count = stacks[k].pop()
            n = min(count, left)
            if n < count:
                stacks[k].append((first, count - n))
            assert singly.populate_range(k, first + count - n, n, descending=True) == n
            left -= n
        expected.append((at_ns, asked))
        anchors[k] += singly.clock(k) - at_ns
        done[k] += batch
        needs[k] -= asked
        quotas[k] -= asked
        dues[k] = max(at_ns, anchors[k] + done[k] * NS_PER_S // rates[k])
    pages, moment = sum(n for _, n in expected), sum(at_ns * n for at_ns, n in expected)
    assert (taken.batches, taken.pages, taken.moment) == (len(expected), pages, moment)
    if expected:
        assert (taken.first_ns, taken.last_ns) == (expected[0][0], expected[-1][0])
    for k in doms:
        assert together.state_record(k) == singly.state_record(k)
        assert together.counters(k) == singly.counters(k)
        assert together.nonzero_pages(k) == singly.nonzero_pages(k)
    together.audit()


class Watched(TracedMachine):
    """The real machine, which notes how many batches came of each call."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.batches: list[int] = []
        self.singly = 0

    def take_in_turns(self, doms: Sequence[int], takers: Sequence[Taker], least_pages: int) -> Turns:
        found = super().take_in_turns(doms, takers, least_pages)
        self.batches.append(found.batches)
        return found

    def populate_range(self, *arguments: Any, **keywords: Any) -> int:
        self.singly += 1
        return super().populate_range(*arguments, **keywords)


def told_lower_and_higher(
    kind: str, *, coalesce: bool, late: int, memory_mib: int = 512, **changed: Any
) -> tuple[Any, Watched]:
    """Rows of a host with three guests whose targets fall together and rise again, `late` more having come meanwhile;
    and its machine.
    """
    machines: list[Watched] = []

    def make(host: Any, ram_pages: int) -> Any:
        machines.append(make_machine(host, ram_pages, Watched))  # type: ignore[arg-type]
        return machines[-1]

    guest = guest_config(kind, **changed)
    model = host_model(guest, ram_mib=1900, host=host_config(costs={}), machine=make, coalesce=coalesce)
    starts = [start(request(k, kind, memory_mib, 512, 50), at_s=1 + k if k < 3 else 60 + k) for k in range(3 + late)]
    told = [SetTarget(s_to_ns(at_s), k, mib * PAGES_PER_MIB) for at_s, mib in ((30, 200), (90, 500)) for k in range(3)]
    report = live(model, 150, *starts, *told)
    return (rows([report]), report.host), machines[0]


NO_CACHE: dict[str, Any] = {"page_cache": {"rate_mib_per_s": 0}}


@pytest.mark.parametrize(
    ("kind", "late", "changed"),
    [
        ("linux", 0, NO_CACHE),
        ("linux", 1, NO_CACHE),
        ("windows", 0, NO_CACHE),
        ("linux", 0, {}),
        ("linux", 1, {}),
        ("linux", 1, {"memory_mib": 400}),  # of the promises some are left
        ("windows", 0, {"memory_mib": 300, "page_cache": {"rate_mib_per_s": 500}}),
        ("windows", 0, {}),
        ("linux", 0, {"page_cache": {"rate_mib_per_s": 20}}),
        ("linux", 0, {"page_cache": {"rate_mib_per_s": 3000, "max_share_of_free": 0.3}}),
        ("linux", 0, {"page_cache": {"rate_mib_per_s": 150, "floor_share": 0.2}, "alloc_order": "random"}),
        ("linux", 0, {**NO_CACHE, "balloon": {"rate_pages_per_s": [3000, 9000]}}),
        ("linux", 0, {**NO_CACHE, "fault": {"kind": "intermittent", "period_s": 5, "awake_s": 1}}),
        ("linux", 0, {**NO_CACHE, "balloon": {"deflate_on_oom": True}}),
    ],
)
def test_taking_by_turns_changes_nothing(kind: str, late: int, changed: dict[str, Any]) -> None:
    """Three guests whose balloons deflate at the same time, with what may come in between: too little memory, page
    cache, big batches, slow and dozing drivers.
    """
    singly, plain = told_lower_and_higher(kind, coalesce=False, late=late, **changed)
    fast, turns = told_lower_and_higher(kind, coalesce=True, late=late, **changed)
    assert fast == singly
    assert plain.batches == []
    assert turns.singly < plain.singly / 2
    assert sum(turns.batches) > 3 * len(turns.batches)
