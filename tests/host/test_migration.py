"""A domain that migrates: what leaves, what arrives, who may, who dies of it, and that nothing depends on cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from podcluster.config import ControllerConfig
from podcluster.host.model import HostModel
from podcluster.records.commands import Close, Command, FailHost, SetTarget, StopDomain
from podcluster.records.demand import Demand
from podcluster.records.migration import (
    DropRoom,
    GuestState,
    KeepRoom,
    MigrateGo,
    MigrateIn,
    MigrateOut,
    MigrateStay,
    RoomAnswer,
)
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import (
    KINDS,
    curve,
    guest_config,
    host_config,
    host_model,
    request,
    rows,
    slow_machine,
    start,
)

MIB = PAGES_PER_MIB
JOINED = ("domains", "events", "departed", "stayed", "wanted")
STEP = host_config(check="step")
WAVE = curve((0, 5), (20, 18), (40, 9), (60, 26), (80, 12))


def out(
    at_s: float, domain_id: int = 0, wait_s: float = 120, mib_per_s: float = 100, most_mib: int = 512
) -> MigrateOut:
    """An order to go."""
    return MigrateOut(s_to_ns(at_s), domain_id, s_to_ns(wait_s), int(mib_per_s * MIB), most_mib * MIB)


def sent(model: HostModel, until_s: float, *commands: Command) -> HostReport:
    """A sending host, on which whoever asks for room may go 1 ns later."""
    end_ns, begun_ns = s_to_ns(until_s), 0
    going: list[Command] = []
    parts: list[HostReport] = []
    for until_ns in sorted({*range(0, end_ns, NS_PER_S // 2), *(one.at_ns for one in commands), end_ns} - {0}):
        now = [one for one in (*commands, *going) if begun_ns < one.at_ns <= until_ns]
        parts.append(model.advance(until_ns, now))
        going = [MigrateGo(until_ns + 1, wanted.request.domain_id) for wanted in parts[-1].wanted]
        begun_ns = until_ns
    joined: dict[str, Any] = {name: tuple(one for part in parts for one in getattr(part, name)) for name in JOINED}
    return replace(parts[-1], **joined)


def moved(kind: str, **changed: Any) -> tuple[HostReport, GuestState, HostReport]:
    """A guest that is up leaves at 30 s, and goes on elsewhere from 40 s to 90 s."""
    guest = guest_config(kind, **changed)
    source = sent(host_model(guest, host=STEP), 40, start(request(0, kind, 48, 96, WAVE), 1), out(30))
    (state,) = source.departed
    target = host_model(guest, host=STEP)
    there = target.advance(s_to_ns(90), [MigrateIn(s_to_ns(40.5), state), Close(s_to_ns(90))])
    return source, state, there


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_a_domain_goes_on_elsewhere(kind: str) -> None:
    """Row migrated here and running there with the next attempt; here nothing is left, there every page is counted: the
    same data, the same balloon, nothing promised.
    """
    source, state, there = moved(kind)
    (left,), (row,) = source.domains, there.domains
    assert (left.fate, left.attempt, left.end_ns) == ("migrated", 1, state.left_ns)
    assert (row.fate, row.attempt, row.origin) == ("running", 2, "migration")
    assert row.boot_start_ns == row.boot_done_ns == row.arrival_ns == s_to_ns(40.5)
    assert source.view.free_pages == (512 - 16) * MIB and source.view.domains == 0
    assert (row.entry_count, row.cache_count) == (0, 0)
    assert row.ballooned_pages == left.ballooned_pages == sum(count for _, count in state.balloon)
    assert row.tot_pages == state.tot_pages
    assert sum(count for _, count in state.data) == left.nonzero_pages_peak - 24 - 8 * MIB
    assert [event.kind for event in source.events if event.kind.startswith("migrate")] == ["migrate"]
    assert [event.kind for event in there.events if event.kind.startswith("migrate")] == ["migrate_done"]


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_it_holds_there_what_it_would_hold_here(kind: str) -> None:
    """W and what is held since boot: a guest that moved ends with the peaks of one that stayed."""
    guest = guest_config(kind)
    stayed = host_model(guest).advance(
        s_to_ns(90), [start(request(0, kind, 48, 96, WAVE), 1), Close(s_to_ns(90))]
    ).domains[0]  # fmt: skip
    _, _, there = moved(kind)
    row = there.domains[0]
    assert row.working_pages_peak == 26 * MIB == stayed.working_pages_peak
    assert (row.swapped_pages_peak, row.oom_kills) == (stayed.swapped_pages_peak, stayed.oom_kills)
    assert row.ballooned_pages == stayed.ballooned_pages


def test_it_leaves_when_it_is_copied() -> None:
    """48 MiB at 4 MiB/s: what it owns over the rate after the order, its driver being at rest."""
    guest = guest_config("linux")
    report = sent(host_model(guest), 60, start(request(0, "linux", 48, 96, 5), 1), out(30, mib_per_s=4))
    (state,) = report.departed
    assert state.left_ns == s_to_ns(30) + 1 + state.tot_pages * NS_PER_S // (4 * MIB)


def test_copies_of_one_host_go_one_after_another() -> None:
    """Two at once over one link: the second leaves when both are copied."""
    guest = guest_config("linux")
    starts = [start(request(i, "linux", 48, 96, 5), 1) for i in (0, 1)]
    report = sent(host_model(guest), 90, *starts, out(30, 0, mib_per_s=4), out(30, 1, mib_per_s=4))
    first, second = report.departed
    assert second.left_ns - first.left_ns == second.tot_pages * NS_PER_S // (4 * MIB)


def test_it_is_brought_down_first() -> None:
    """D4.7: raised to 80 MiB before, it goes with its minimum of 48; with a slow driver after the wait, with more."""
    found: list[GuestState] = []
    for fault, wait_s in (({}, 120), ({"kind": "slow", "once_ballooned": True, "rate_pages_per_s": 64}, 7)):
        guest = guest_config("linux", fault=fault)
        orders = start(request(0, "linux", 48, 96, 5), 1), SetTarget(s_to_ns(20), 0, 80 * MIB)
        found += sent(host_model(guest), 90, *orders, out(40, wait_s=wait_s, mib_per_s=1000)).departed
    quick, slow = found
    assert quick.target_pages == slow.target_pages == 48 * MIB
    assert quick.left_ns < s_to_ns(45) < s_to_ns(47) <= slow.left_ns < s_to_ns(48)
    assert slow.tot_pages > quick.tot_pages


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_any_driver_is_waited_for_until_it_is_at_rest(kind: str) -> None:
    """D4.7, C2.6: raised to 80 MiB before, it asks for room for its 48 once its driver is there, whether that says
    `balloon-active` or not; without a wait it asks for what it has, as XAPI lets Linux go.
    """
    guest = guest_config(kind, balloon={"rate_pages_per_s": [4000, 4000]})
    asked: dict[tuple[float, float], list[int]] = {}
    for wait_s in (120, 0):
        model = host_model(guest, host=STEP)
        model.advance(s_to_ns(39), [start(request(0, kind, 48, 96, 5), 1), SetTarget(s_to_ns(20), 0, 80 * MIB)])
        for until_s, orders in ((41, [out(40, wait_s=wait_s)]), (60, [])):
            asked[wait_s, until_s] = [wanted.pages for wanted in model.advance(s_to_ns(until_s), orders).wanted]
    (at_rest,), (had,) = asked[120, 60], asked[0, 41]
    assert asked[120, 41] == asked[0, 60] == []
    assert at_rest <= 48 * MIB < 71 * MIB < had


def test_one_that_has_more_than_its_limit_is_received_whole() -> None:
    """D4.7: a guest without a driver owns more than its quota allows by now; the receiver reserves what it has, and
    then its quota is what it was.
    """
    guest = guest_config("linux_no_driver")
    orders = start(request(0, "linux_no_driver", 96, 96, 5), 1), SetTarget(s_to_ns(20), 0, 64 * MIB)
    (state,) = sent(host_model(guest), 90, *orders, out(40)).departed
    assert state.tot_pages > state.limit_pages
    target = host_model(guest, host=STEP)
    target.advance(s_to_ns(90.5), [MigrateIn(s_to_ns(90.5), state)])
    (there,) = target.look().domains
    assert (there.tot_pages, there.max_pages) == (state.tot_pages, state.limit_pages)


def test_a_controller_does_not_give_back_what_it_is_to_do_without() -> None:
    """D4.7 under squeezed, which hands out all there is: a guest that had all of its 96 MiB leaves with its 48."""
    model = host_model(guest_config("linux"), controller=ControllerConfig(name="squeezed"))
    report = sent(model, 90, start(request(0, "linux", 48, 96, 5), 1), out(60))
    (state,) = report.departed
    assert report.events[0].text.startswith("Dom1 96 of 96 MiB")
    assert state.target_pages == 48 * MIB and state.tot_pages <= 48 * MIB + 256


def test_each_stay_has_what_was_moved_in_it() -> None:
    """squeezed takes from a guest for another's sake and for its journey; where it goes on nobody moves anything."""
    guest = guest_config("linux")
    starts = [start(request(i, "linux", 48, 448, 5), 1 + 20 * i) for i in (0, 1)]
    source = host_model(guest, controller=ControllerConfig(name="squeezed"))
    report = sent(source, 120, *starts, out(90), Close(s_to_ns(120)))
    (state,) = report.departed
    assert report.host is not None
    left, other = report.domains
    assert (left.fate, other.fate) == ("migrated", "running")
    assert left.moved_pages >= left.start_pages - left.tot_pages > 0
    assert report.host.moved_pages == left.moved_pages + other.moved_pages
    there = host_model(guest).advance(s_to_ns(150), [MigrateIn(s_to_ns(120.5), state), Close(s_to_ns(150))])
    assert [row.moved_pages for row in there.domains] == [0]


def indebted(memory_mib: int, demand_pages: int = 30 * MIB) -> HostReport:
    """A guest without a driver, promised 96 MiB, that is to leave at 30 s."""
    guest = guest_config("linux_no_driver", page_cache={"rate_mib_per_s": 0})
    machine = request(0, "linux_no_driver", memory_mib, 96, Demand.flat(demand_pages))
    return sent(host_model(guest, host=STEP), 60, start(machine, 1), out(30), Close(s_to_ns(60)))


def test_a_guest_in_debt_does_not_go() -> None:
    """A6.4: dom0 maps what is promised, zero pages are taken back for it, and the receiver could not have so many pages
    as the guest was promised: it stays; one that was promised what it has goes.
    """
    report = indebted(48)
    (row,) = report.domains
    assert (row.fate, report.stayed) == ("running", (0,))
    assert row.populated_2m + row.populated_4k > row.nonzero_pages_peak // 512 and row.reclaimed_2m > 0
    (event,) = [event for event in report.events if event.kind == "migrate_refused"]
    assert event.text == f"it owes {row.entry_count - row.cache_count} pages, and keeps its promises here"
    assert len(indebted(96).departed) == 1


def test_a_guest_in_debt_may_die_of_being_copied() -> None:
    """A6.2, A6.4: one that has data in all that it owns lives until dom0 maps a page that nothing can back."""
    margin = indebted(48).domains[0].margin_pages
    (row,) = indebted(48, 30 * MIB + margin).domains
    assert (row.fate, row.cause, row.margin_pages) == ("pod_oom_by_other", "debt", -1)
    assert row.end_ns == s_to_ns(30) + 1 and row.oom_line.endswith("dom0)")
    (row,) = indebted(48, 30 * MIB + margin - 1).domains
    assert row.fate == "running"


def test_who_does_not_go() -> None:
    """Not up yet, already gone, never there, or shut down before it is copied: they stay, and are named."""
    guest = guest_config("linux")
    report = sent(
        host_model(guest), 60, start(request(0, "linux", 48, 96, 5), 1), start(request(1, "linux", 48, 96, 5), 29.5),
        start(request(2, "linux", 48, 96, 5), 1), out(30, 1), out(30, 2, mib_per_s=2), out(30, 7),
        StopDomain(s_to_ns(40), 2),
    )  # fmt: skip
    assert sorted(report.stayed) == [1, 2, 7] and report.departed == ()
    assert [event.domain_id for event in report.events if event.kind == "migrate_refused"] == [1]


def test_who_has_more_than_the_receiver_can_give_stays() -> None:
    """A guest without a driver keeps its 96 MiB whatever it is told: a receiver with 95 MiB for it does not get it."""
    guest = guest_config("linux_no_driver")
    up = start(request(0, "linux_no_driver", 96, 96, 5), 1)
    report = sent(host_model(guest), 60, up, out(30, most_mib=95))
    assert report.stayed == (0,) and report.departed == ()
    (event,) = [event for event in report.events if event.kind == "migrate_refused"]
    assert event.text == f"it has {96 * MIB - 8} pages, and the receiver no more than {95 * MIB} for it"
    assert len(sent(host_model(guest), 60, up, out(30, most_mib=96)).departed) == 1


def test_a_host_without_room_cannot_take_it() -> None:
    """The receiving host lacks the memory: build_failed with its next attempt, and everything given back."""
    guest = guest_config("linux")
    (state,) = sent(host_model(guest), 40, start(request(0, "linux", 48, 96, 5), 1), out(30)).departed
    small = host_model(guest, ram_mib=50)
    free = small.advance(s_to_ns(10), []).view.free_pages
    report = small.advance(s_to_ns(60), [MigrateIn(s_to_ns(41), state)])
    (row,) = report.domains
    assert (row.fate, row.cause, row.attempt, row.origin) == ("build_failed", "no_memory", 2, "migration")
    assert report.view.free_pages == free and report.view.committed_pages == 0


def test_it_runs_on_until_there_is_an_answer() -> None:
    """It asks for what it owns at 30 s; without an answer it is there at 40 s, a refusal leaves it there, and it can be
    sent again.
    """
    guest = guest_config("linux")
    model = host_model(guest, host=STEP)
    report = model.advance(s_to_ns(40), [start(request(0, "linux", 48, 96, 5), 1), out(30)])
    (wanted,) = report.wanted
    assert (wanted.request.domain_id, wanted.pages) == (0, model.look().domains[0].tot_pages)
    assert not report.departed and not report.stayed
    report = model.advance(s_to_ns(50), [MigrateStay(s_to_ns(45), 0)])
    assert (report.departed, report.stayed, report.wanted, report.view.domains) == ((), (), (), 1)
    report = model.advance(s_to_ns(70), [out(60)])
    assert len(report.wanted) == 1
    report = model.advance(s_to_ns(90), [MigrateGo(s_to_ns(75), 0), Close(s_to_ns(90))])
    assert [row.fate for row in report.domains] == ["migrated"] and len(report.departed) == 1
    assert model.advance(s_to_ns(95), [MigrateGo(s_to_ns(92), 0)]).stayed == (0,)


def test_who_has_grown_while_it_waited_stays() -> None:
    """Raised by 8 MiB between question and answer, it has more than there is room for."""
    guest = guest_config("linux")
    model = host_model(guest, host=STEP)
    model.advance(s_to_ns(40), [start(request(0, "linux", 48, 96, 5), 1), out(30)])
    report = model.advance(s_to_ns(60), [SetTarget(s_to_ns(41), 0, 56 * MIB), MigrateGo(s_to_ns(59), 0)])
    assert report.stayed == (0,) and report.departed == ()
    (event,) = [event for event in report.events if event.kind == "migrate_refused"]
    assert "the receiver no more than" in event.text


@pytest.mark.parametrize("controller", ["static", "squeezed", "qmemman"])
def test_room_is_kept_for_who_comes(controller: str) -> None:
    """What a domain owns is set aside, committed, and its own when it lands; a domain of the host's meets the rest."""
    guest = guest_config("linux")
    source = host_model(guest, host=STEP)
    up = start(request(0, "linux", 48, 96, WAVE), 1)
    (wanted,) = source.advance(s_to_ns(40), [up, out(30)]).wanted
    (state,) = source.advance(s_to_ns(60), [MigrateGo(s_to_ns(41), 0)]).departed
    target = host_model(guest, host=STEP, controller=ControllerConfig(name=controller))
    before = target.advance(s_to_ns(40), []).view
    report = target.advance(s_to_ns(50), [KeepRoom(s_to_ns(41), wanted.request, wanted.pages)])
    assert report.answers == (RoomAnswer(0),)
    assert before.free_pages - report.view.free_pages >= wanted.pages
    assert report.view.committed_pages > before.committed_pages and report.domains == ()
    report = target.advance(s_to_ns(90), [MigrateIn(s_to_ns(60.5), state), Close(s_to_ns(90))])
    (row,) = report.domains
    assert (row.fate, row.attempt, row.origin) == ("running", 2, "migration")
    if controller != "squeezed":  # which lets it grow into what nobody else has
        unasked = host_model(guest, controller=ControllerConfig(name=controller))
        there = unasked.advance(s_to_ns(90), [MigrateIn(s_to_ns(60.5), state)])
        assert report.view.free_pages == there.view.free_pages
    else:
        assert row.tot_pages > wanted.pages


@pytest.mark.parametrize("controller", ["static", "squeezed"])
def test_room_that_is_not_wanted_is_free_again(controller: str) -> None:
    """Called off while it is kept, or while it waits to be made; or gone with the host: as if nobody had asked."""
    guest = guest_config("linux")
    (wanted,) = host_model(guest).advance(s_to_ns(40), [start(request(0, "linux", 48, 96, 5), 1), out(30)]).wanted
    ask = KeepRoom(s_to_ns(2), wanted.request, wanted.pages)
    for end in (DropRoom(s_to_ns(5), 0), FailHost(s_to_ns(5))):
        host = host_model(guest, host=STEP, controller=ControllerConfig(name=controller))
        before = host.advance(s_to_ns(1), []).view
        after = host.advance(s_to_ns(60), [ask, end, Close(s_to_ns(60))])
        assert (after.view.free_pages, after.view.committed_pages) == (before.free_pages, before.committed_pages)
        assert after.domains == () and after.host is not None and after.host.domains_started == 0


def test_dom0_makes_room_for_who_comes() -> None:
    """B3.3: dom0, which has all but 128 MiB, is brought down first, 100 MiB a second: an answer when it is done, none
    to who is called off meanwhile, and a host that dies meanwhile has nobody's row to write.
    """
    guest = guest_config("linux")
    own = request(0, "linux", 1024, 1024, 5)
    ask = KeepRoom(s_to_ns(2), own, 1024 * MIB)
    config = host_config(check="step", dom0_mib=None, dom0_free_mib_per_s=100)

    def host() -> HostModel:
        return host_model(guest, ram_mib=4096, host=config)

    model = host()
    before = model.advance(s_to_ns(1), []).view
    report = model.advance(s_to_ns(4), [ask])
    assert report.answers == () and report.view.committed_pages > before.committed_pages
    report = model.advance(s_to_ns(60), [])
    assert report.answers == (RoomAnswer(0),)
    for end in (DropRoom(s_to_ns(4), 0), FailHost(s_to_ns(4))):
        report = host().advance(s_to_ns(60), [ask, end, Close(s_to_ns(60))])
        assert report.answers == () and report.domains == ()
        assert report.view.committed_pages == before.committed_pages
    report = host().advance(s_to_ns(4), [ask, Close(s_to_ns(4))])
    assert report.answers == () and report.domains == ()


@pytest.mark.parametrize("controller", ["static", "squeezed"])
def test_who_finds_no_room_stays_and_is_told_why(controller: str) -> None:
    """A host with 50 MiB, at once or after the toolstack's patience: an answer with a reason, no row, nothing kept."""
    guest = guest_config("linux")
    (wanted,) = host_model(guest).advance(s_to_ns(40), [start(request(0, "linux", 48, 96, 5), 1), out(30)]).wanted
    small = host_model(guest, ram_mib=50, host=STEP, controller=ControllerConfig(name=controller))
    before = small.advance(s_to_ns(1), []).view
    asked = [KeepRoom(s_to_ns(2), wanted.request, wanted.pages)]
    report = small.advance(s_to_ns(600), [*asked, Close(s_to_ns(600))])
    (answer,) = report.answers
    assert answer.domain_id == 0 and answer.refused and report.domains == ()
    assert (report.view.free_pages, report.view.committed_pages) == (before.free_pages, before.committed_pages)


def life(kind: str) -> tuple[list[Command], list[Command]]:
    """Two guests of which one leaves and comes back to the other host's like; what each host is told but MigrateIn."""
    return (
        [
            start(request(0, kind, 48, 96, WAVE), 1),
            start(request(1, kind, 48, 96, WAVE), 5),
            out(30),
            MigrateGo(s_to_ns(35), 0),
            Close(s_to_ns(90)),
        ],
        [start(request(2, kind, 48, 96, WAVE), 3), Close(s_to_ns(90))],
    )


def both(kind: str, cuts: Sequence[float], **keywords: Any) -> tuple[Any, ...]:
    """Rows of both hosts, time being cut there."""
    guest = guest_config(kind)
    hosts = [host_model(guest, telemetry_s=7, **keywords) for _ in range(2)]
    told = life(kind)
    reports: list[list[HostReport]] = [[], []]
    begun_ns = 0
    landing: list[Command] = []
    for until_ns in map(s_to_ns, sorted({*cuts, 33, 40, 90})):
        for which, host in enumerate(hosts):
            now = [one for one in told[which] if begun_ns < one.at_ns <= until_ns]
            now += [one for one in landing if which and begun_ns < one.at_ns <= until_ns]
            reports[which].append(host.advance(until_ns, sorted(now, key=lambda one: one.at_ns)))
        landing += [KeepRoom(s_to_ns(34), one.request, one.pages) for one in reports[0][-1].wanted]
        landing += [MigrateIn(s_to_ns(41), state) for state in reports[0][-1].departed]
        begun_ns = until_ns
    assert any(row.origin == "migration" for row in rows(reports[1])[0])
    return tuple(rows(some) for some in reports) + tuple(some[-1].host for some in reports)


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_where_time_is_cut_changes_nothing(kind: str) -> None:
    """[HM-1] with a migration in it, on both hosts."""
    whole = both(kind, ())
    for cuts in ([30, 31], [29.9, 30.2, 30.4, 41], range(1, 90)):
        assert both(kind, cuts) == whole


@pytest.mark.parametrize("kind", ["linux", "windows"])
def test_running_guests_ahead_changes_nothing(kind: str) -> None:
    """[HM-1] every act singly in order of time gives the same rows."""
    assert both(kind, (), coalesce=False) == both(kind, ())


@pytest.mark.parametrize("kind", KINDS[:1])
def test_the_slow_machine_agrees(kind: str) -> None:
    """The same lives on the slow model of the page mechanism."""
    assert both(kind, (), machine=slow_machine, coalesce=False) == both(kind, ())
