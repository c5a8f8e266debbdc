"""A controller at work on a host: exact however time is cut, skipping nothing but what does nothing, every start
answered.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.config import CONTROLLERS, ControllerConfig, HostConfig
from podcluster.host import control
from podcluster.host.controllers import make_controller
from podcluster.host.controllers.view import Action, Decision, Grant, Reads, Refuse, View, Wakes
from podcluster.records.commands import Close, Command, SetTarget, StopDomain
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_model, live, request, rows, start
from tests.host.test_model import END_S, commands, guest_classes

MIB = PAGES_PER_MIB
MOVING = [name for name in CONTROLLERS if name != "static"]


def controller(name: str, dead_after_s: float | None = None) -> ControllerConfig:
    """A controller for hosts of some hundred MiB: its reserves and steps are small."""
    config = ControllerConfig(name=name, dead_after_s=dead_after_s)
    config.squeezed.reserve_mib, config.squeezed.check_s = 4, 3
    config.squeezed.stuck_s, config.squeezed.uncooperative_s = 2, 5
    config.mom.period_s, config.mom.samples = 2, 3
    config.esx.period_s, config.esx.sample_s = 3, 6
    config.selfballoon.period_s = config.proxmox.period_s = config.hyperv.period_s = 2
    config.qmemman.least_pref_mib, config.qmemman.keep_free_mib, config.qmemman.least_free_mib = 16, 4, 2
    config.qmemman.least_move_mib, config.qmemman.least_move_below_pref_mib = 4, 1
    config.qmemman.least_donation_mib, config.qmemman.report_change_mib = 1, 1
    config.proxmox.dead_zone_mib, config.proxmox.most_change_mib = 1, 8
    config.hyperv.reserve_mib = 4
    return config


def whole_life(
    name: str, classes: list[Any], given: Sequence[Command], steps_s: Sequence[float] = (), **kw: Any
) -> Any:
    """All rows of a controlled host that is told these commands, advanced in these steps."""
    host = HostConfig(check=kw.pop("check", "epoch"))
    dead_s = kw.pop("dead_after_s", None)
    model = host_model(
        *classes, ram_mib=160, taken_mib=8, telemetry_s=7, host=host, controller=controller(name, dead_s), **kw
    )
    told = [*given, Close(s_to_ns(END_S))]
    reports: list[HostReport] = []
    before_ns = 0
    for until_ns in sorted({s_to_ns(step) for step in steps_s} | {s_to_ns(END_S)}):
        reports.append(model.advance(until_ns, [one for one in told if before_ns < one.at_ns <= until_ns]))
        before_ns = until_ns
    return (*rows(reports), reports[-1].host)


class Watched:
    """A controller whose views are kept."""

    def __init__(self, watched: Any, views: list[View]) -> None:
        self._watched = watched
        self._views = views

    def __getattr__(self, name: str) -> Any:
        return getattr(self._watched, name)

    def decide(self, view: View, state: Any) -> Decision:
        self._views.append(view)
        return self._watched.decide(view, state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("scrubs", [True, False])
def test_at_every_look_what_nobody_has_is_free(scrubs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """D5.2, D5.14: three starts at one instant and the end of the largest; what guests and their tables do not have is
    free at every look, so that nothing awaits scrubbing and nothing is granted and not built.
    """
    views: list[View] = []
    monkeypatch.setattr(control, "make_controller", lambda config: Watched(make_controller(config), views))
    model = host_model(
        guest_config("linux", min_memory_mib=32), ram_mib=400, taken_mib=8, controller=controller("squeezed"),
        host=HostConfig(toolstack="xapi", scrub_on_free=scrubs, check="step"),
    )  # fmt: skip
    machines = [request(i, "linux", 96, 160) for i in (0, 1, 2)]
    live(model, 60, *(start(one, 1) for one in machines), StopDomain(s_to_ns(30), 0))
    assert {len(view.domains) for view in views} == {0, 1, 2, 3}
    for view in views:
        has = sum(one.tot_pages + one.shadow_pages for one in view.domains)
        assert view.free_pages == view.usable_pages - has
        assert (view.scrub_pages, view.reserved_pages) == (0, 0)


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=15, deadline=None)
@given(classes=guest_classes(), given=commands())
def test_idle_looks_may_be_skipped(name: str, classes: list[Any], given: list[Command]) -> None:
    """CT-1, HM-1: acts singly in order of time and a look at every beat, or guests run ahead and idle looks left out:
    the same rows, audited at each step.
    """
    singly = whole_life(name, classes, given, check="step", coalesce=False)
    assert whole_life(name, classes, given, coalesce=True) == singly


def test_who_dirties_all_keeps_what_others_left_nothing_of() -> None:
    """HM-1: demand takes the last pages that were free, at the instant at which the application wanted them."""
    guest = guest_config(
        "linux",
        dirty_all=True,
        swap={"mib": 0},
        balloon={"start_s": [0.0, 6.0], "rate_pages_per_s": [300, 20000], "scrub": False, "boot_barrier": False},
        page_cache={"rate_mib_per_s": 0},
    )
    machine = request(0, "linux", 24, 24, curve((0, 17), (10, 15)), hold_ns=0)
    given: list[Command] = [start(machine, 0.1), SetTarget(s_to_ns(9.3), 0, 20 * MIB)]
    singly = whole_life("squeezed", [guest], given, check="step", coalesce=False)
    assert whole_life("squeezed", [guest], given, coalesce=True) == singly


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=10, deadline=None)
@given(
    classes=guest_classes(),
    given=commands(),
    steps_s=st.lists(st.floats(0.01, END_S - 0.01, allow_nan=False), max_size=12),
    dead_after_s=st.one_of(st.none(), st.floats(0, END_S, allow_nan=False)),
)
def test_where_a_span_is_cut_changes_nothing(
    name: str, classes: list[Any], given: list[Command], steps_s: list[float], dead_after_s: float | None
) -> None:
    """HM-1 with a controller, alive or dead: one call of `advance` or many, the same rows."""
    life = whole_life(name, classes, given, dead_after_s=dead_after_s)
    assert whole_life(name, classes, given, steps_s, dead_after_s=dead_after_s) == life


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=10, deadline=None)
@given(classes=guest_classes(), given=commands())
def test_what_a_host_moved_is_what_its_domains_moved(name: str, classes: list[Any], given: list[Command]) -> None:
    """The pages of its own row, added up again over the rows of all that lived and died there."""
    domains, *_, host = whole_life(name, classes, given)
    assert host.moved_pages == sum(row.moved_pages for row in domains)


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=10, deadline=None)
@given(classes=guest_classes(), given=commands())
def test_every_start_ends_in_one_row(name: str, classes: list[Any], given: list[Command]) -> None:
    """CT-3: what was asked for is built or refused once, with a target in its range."""
    domains, *_ = whole_life(name, classes, given)
    asked = [one.request for one in given if hasattr(one, "request")]
    assert sorted(row.domain_id for row in domains) == sorted(one.domain_id for one in asked)
    for row in domains:
        if row.fate == "build_failed":
            assert row.start_pages == 0
        else:
            assert row.memory_pages <= row.start_pages <= row.maxmem_pages


@pytest.mark.parametrize("name", ["squeezed", "qmemman"])
def test_a_guest_that_will_leave_is_never_quiet(name: str) -> None:
    """An installer that shuts itself down gives memory back long after its balloon came to rest: the clock of looks
    must not pass its end by.
    """
    guest = guest_config("linux", install={"unpack_mib": [5, 5], "install_s": [9, 9], "end": "shuts_down"})
    model = host_model(guest, ram_mib=160, taken_mib=8, controller=controller(name))
    report = live(model, 60, start(request(0, "linux", 24, 24), 0.1))
    assert [row.fate for row in report.domains] == ["shut_down"]
    assert report.view.free_pages == 152 * PAGES_PER_MIB


# -- starts that are refused (D4.2)


class Refuses:
    """A controller that refuses every start, but for those that ask from some instant on; it notes who asks when."""

    period_ns = s_to_ns(10)
    wakes: Wakes = "memory"
    reads: Reads = "domains"
    first_state = None

    def __init__(self, until_s: float) -> None:
        self.until_ns = s_to_ns(until_s)
        self.asked: list[tuple[int, float]] = []  # (domain_id, s)

    def decide(self, view: View, state: None) -> Decision:
        """No, with a word that says when it was said."""
        said: list[Action] = []
        for one in view.starts:
            self.asked.append((one.domain_id, view.now_ns / NS_PER_S))
            if view.now_ns < self.until_ns:
                said.append(Refuse(one.domain_id, "vms_failed_to_cooperate", f"no, at {view.now_ns / NS_PER_S:g} s"))
            else:
                said.append(Grant(one.domain_id, one.min_pages))
        return Decision(tuple(said), None, None)


def refused(monkeypatch: pytest.MonkeyPatch, until_s: float, *given: Command) -> tuple[Refuses, HostReport]:
    """A host whose controller refuses starts so long."""
    refuses = Refuses(until_s)
    monkeypatch.setattr("podcluster.host.control.make_controller", lambda _: refuses)
    model = host_model(guest_config("linux"), ram_mib=160, taken_mib=8, controller=controller("squeezed"))
    return refuses, live(model, 200, *given)


def test_a_refused_start_asks_again_every_10_s_and_gives_up_after_60(monkeypatch: pytest.MonkeyPatch) -> None:
    """D4.2: at 0, 10, ..., 60 s, each start by its own clock; its row has the last refusal."""
    starts = [start(request(k, "linux", 24, 24), at_s) for k, at_s in ((0, 1), (1, 4.5))]
    refuses, report = refused(monkeypatch, 300, *starts)
    for domain_id, at_s in ((0, 1), (1, 4.5)):
        assert [t for who, t in refuses.asked if who == domain_id] == [at_s + 10 * k for k in range(7)]
        row = next(row for row in report.domains if row.domain_id == domain_id)
        assert (row.fate, row.cause) == ("build_failed", "vms_failed_to_cooperate")
        assert row.end_ns == s_to_ns(at_s + 60)
        texts = [event.text for event in report.events if event.domain_id == domain_id and event.kind == "build_failed"]
        assert texts == [f"no, at {at_s + 60:g} s"]
    assert report.host is not None
    assert report.host.starts_waited_ns == 2 * s_to_ns(60)


@pytest.mark.parametrize(("until_s", "built_s"), [(0, 1), (1.5, 11), (24, 31), (61, 61)])
def test_a_refused_start_is_let_in_when_it_asks_and_not_before(
    monkeypatch: pytest.MonkeyPatch, until_s: float, built_s: float
) -> None:
    """D4.2: the last time at 60 s."""
    _, report = refused(monkeypatch, until_s, start(request(0, "linux", 24, 24), 1))
    (row,) = report.domains
    assert (row.fate, row.boot_start_ns) == ("running", s_to_ns(built_s))


def test_memory_that_comes_free_waits_for_the_next_try() -> None:
    """D4.2 with squeezed itself: a guest that cannot give leaves 3 s after a try of a start, which has its memory 7 s
    later.
    """
    model = host_model(guest_config("linux"), ram_mib=160, taken_mib=8, controller=controller("squeezed"))
    machines = [start(request(k, "linux", 100, 100), 1 + 19 * k) for k in range(2)]
    report = live(model, 200, *machines, StopDomain(s_to_ns(43), 0))
    row = next(row for row in report.domains if row.domain_id == 1)
    assert (row.fate, row.boot_start_ns) == ("running", s_to_ns(50))
