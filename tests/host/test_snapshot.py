"""Is a host that was packed and unpacked the same host: the same rows to its end, wherever it was packed?"""

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podcluster.cli import compose
from podcluster.config import CONTROLLERS, ERAS, ControllerConfig, HostConfig
from podcluster.host.model import HostModel
from podcluster.host.snapshot import Snapshot, pack, unpack
from podcluster.records.commands import (
    AttachDevice,
    Close,
    Command,
    EndWarmup,
    FailHost,
    SetMaxMem,
    SetTarget,
    StopDomain,
)
from podcluster.records.hosts import HostSpec
from podcluster.records.migration import DropRoom, KeepRoom, MigrateGo, MigrateIn, MigrateOut, MigrateStay
from podcluster.records.reports import HostReport
from podcluster.units import PAGES_PER_GIB, PAGES_PER_MIB, gib_to_pages, s_to_ns
from tests.host.lives import KINDS, curve, guest_config, host_config, host_model, request, start
from tests.host.test_control import controller
from tests.host.test_model import END_S, HOSTS, commands, guest_classes, hosts

MIB = PAGES_PER_MIB
WAVE = curve((0, 5), (20, 18), (40, 9), (60, 26), (80, 12))
REAL_CLASSES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "guest").glob("*.yaml"))
REAL_CLASSES.remove("mix")

Change = Callable[[HostModel], HostModel]


def same(model: HostModel) -> HostModel:
    """The host as it is."""
    return model


def repacked(model: HostModel) -> HostModel:
    """The host packed and unpacked."""
    return unpack(pack(model))


def life(model: HostModel, told: Sequence[Command], steps_s: Sequence[float], change: Change) -> list[str]:
    """All that a host reports, advanced in these steps and changed before each of them but the first."""
    reports: list[str] = []
    before_ns = 0
    for until_ns in sorted({s_to_ns(step) for step in steps_s}):
        model = change(model) if reports else model
        due = [one for one in told if before_ns < one.at_ns <= until_ns]
        reports.append(repr(model.advance(until_ns, due)))
        before_ns = until_ns
    return reports


def lives_alike(make: Callable[[], HostModel], told: Sequence[Command], steps_s: Sequence[float]) -> list[str]:
    """The life of a host packed at every step, which is that of one never packed."""
    never = life(make(), told, steps_s, same)
    assert life(make(), told, steps_s, repacked) == never
    return never


steps = st.lists(st.floats(0.01, END_S - 0.01, allow_nan=False), min_size=1, max_size=8)


@settings(max_examples=40)
@given(classes=guest_classes(), given=commands(), steps_s=steps, kind=hosts)
def test_random_lives_packed_at_random_moments(
    classes: list[Any], given: list[Command], steps_s: list[float], kind: str
) -> None:
    """SN-1: three classes of guests, every kind of host."""

    def make() -> HostModel:
        host = host_config(**HOSTS[kind])
        return host_model(*classes, ram_mib=160, taken_mib=8, telemetry_s=7, host=host)

    lives_alike(make, [*given, Close(s_to_ns(END_S))], [*steps_s, END_S])


@pytest.mark.parametrize("name", CONTROLLERS)
@settings(max_examples=8)
@given(classes=guest_classes(), given=commands(), steps_s=steps)
def test_random_lives_under_a_controller(
    name: str, classes: list[Any], given: list[Command], steps_s: list[float]
) -> None:
    """SN-1: what a controller remembers, and starts that wait for memory."""

    def make() -> HostModel:
        return host_model(*classes, ram_mib=160, taken_mib=8, telemetry_s=7, controller=controller(name))

    lives_alike(make, [*given, Close(s_to_ns(END_S))], [*steps_s, END_S])


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("scrubs", [True, False])
def test_lives_on_any_hypervisor(era: str, scrubs: bool) -> None:
    """SN-1: every era, on hosts that clear what is freed and on others, where free frames keep what they held."""
    classes = [guest_config(kind) for kind in KINDS]
    told: list[Command] = [
        *(start(request(i, kind, 48, 96, WAVE), 1 + i) for i, kind in enumerate(KINDS)),
        StopDomain(s_to_ns(40), 1),
        start(request(3, "linux", 48, 96, WAVE), 45),
        Close(s_to_ns(90)),
    ]
    host = host_config(era=era, scrub_on_free=scrubs)
    lives_alike(lambda: host_model(*classes, host=host), told, [*range(3, 90, 3), 90])


@pytest.mark.parametrize("kind", REAL_CLASSES)
def test_classes_as_they_are_configured(kind: str) -> None:
    """SN-1: two guests of each class of conf/guest, from power on through the boot to a life under a changed target."""
    config = compose(["guest=mix", f"guest.weights={{{kind}: 1}}", "cluster.host_mem_gib=16"])
    spec = HostSpec(0, gib_to_pages(16), config.usable_pages_of(16))

    def make() -> HostModel:
        return HostModel(spec, config.host, config.guests, 1, s_to_ns(60), controller=config.controller)

    wave = curve((0, 300), (100, 1500), (200, 700), (300, 1900))
    told: list[Command] = [
        start(request(0, kind, 2048, 4096, wave), 0.5),
        start(request(1, kind, 3072, 4096, 1000), 2),
        SetTarget(s_to_ns(150), 0, 2300 * MIB),
        Close(s_to_ns(400)),
    ]
    lives_alike(make, told, [1, 3, 7, 11, 20, 33, 60, 90, 151, 250, 400])


CASES: dict[str, tuple[HostConfig, list[Command], dict[str, Any]]] = {
    "starts that wait for dom0": (
        host_config(dom0_mib=None, dom0_free_mib_per_s=7),
        [start(request(i, "linux", 48, 96, WAVE), 1 + i) for i in range(4)],
        {"taken_mib": 0, "ram_mib": 400},
    ),
    "dom0 maps pages": (
        host_config(dom0_touch_per_s=20),
        [start(request(0, "linux_no_driver", 48, 96, WAVE), 1), start(request(1, "windows", 48, 96, WAVE), 1)],
        {},
    ),
    "guests built again after a crash": (
        host_config(on_crash="restart", restart_delay_s=15),
        [start(request(0, "linux_no_driver", 20, 96, 40), 1)],
        {},
    ),
    "guests kept after a crash": (
        host_config(on_crash="preserve"),
        [start(request(0, "linux_no_driver", 20, 96, 40), 1)],
        {},
    ),
    "guests that leave": (
        host_config(),
        [
            *(start(request(i, kind, 48, 96, WAVE), 1) for i, kind in enumerate(KINDS)),
            *(MigrateOut(s_to_ns(30), i, s_to_ns(20), 2 * MIB, 512 * MIB) for i in range(3)),
            *(MigrateGo(s_to_ns(52), i) for i in range(3)),
        ],
        {},
    ),
    "a host that fails": (
        host_config(),
        [
            *(start(request(i, kind, 48, 96, WAVE), 1 + 10 * i) for i, kind in enumerate(KINDS)),
            FailHost(s_to_ns(25)),
            start(request(7, "linux", 48, 96, WAVE), 30),
        ],
        {},
    ),
    "what an operator changes": (
        host_config(),
        [
            start(request(0, "linux", 48, 96, WAVE), 1),
            SetMaxMem(s_to_ns(20), 0, 80 * MIB),
            AttachDevice(s_to_ns(25), 0),
            EndWarmup(s_to_ns(33)),
            SetTarget(s_to_ns(50), 0, 60 * MIB),
        ],
        {"telemetry_s": 3},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_a_host_has_in_hand(case: str) -> None:
    """SN-1: packed each 3 s, while things wait, are on their way or have failed."""
    host, told, keywords = CASES[case]
    classes = [guest_config(kind) for kind in KINDS]
    lives_alike(
        lambda: host_model(*classes, host=host, **keywords), [*told, Close(s_to_ns(90))], [*range(3, 90, 3), 90]
    )


@pytest.mark.parametrize("kind", ["stuck", "slow", "intermittent", "lying"])
def test_faulty_guests(kind: str) -> None:
    """SN-1: what a guest gets wrong, under a daemon that notices."""
    guest = guest_config("linux", fault={"kind": kind, "period_s": 10})
    told: list[Command] = [*(start(request(i, "linux", 32, 96, WAVE), 1 + i) for i in range(3)), Close(s_to_ns(90))]
    lives_alike(lambda: host_model(guest, ram_mib=220, controller=controller("squeezed")), told, [*range(4, 90, 4), 90])


def test_a_guest_from_another_host() -> None:
    """SN-1: one that has just arrived, and one that is let in later."""
    guest = guest_config("windows")
    source = host_model(guest)
    order = MigrateOut(s_to_ns(30), 0, s_to_ns(120), 100 * MIB, 512 * MIB)
    source.advance(s_to_ns(40), [start(request(0, "windows", 48, 96, WAVE), 1), order])
    (state,) = source.advance(s_to_ns(50), [MigrateGo(s_to_ns(41), 0)]).departed
    told: list[Command] = [MigrateIn(s_to_ns(50.5), state), Close(s_to_ns(90))]
    for name in ("static", "squeezed"):
        control = controller(name)
        lives_alike(partial(host_model, guest, controller=control), told, [50, 51, 52, 60, 90])
        asked: list[Command] = [KeepRoom(s_to_ns(20), state.request, state.tot_pages), *told]
        lives_alike(partial(host_model, guest, controller=control), asked, [19, 21, 50, 51, 52, 60, 90])


@pytest.mark.parametrize("answer", [MigrateGo, MigrateStay])
def test_a_guest_that_waits_for_room_elsewhere(answer: type[MigrateGo] | type[MigrateStay]) -> None:
    """SN-1: between question and answer, and while it is copied."""
    guest = guest_config("linux")
    order = MigrateOut(s_to_ns(30), 0, s_to_ns(120), 2 * MIB, 512 * MIB)
    told: list[Command] = [start(request(0, "linux", 48, 96, WAVE), 1), order, answer(s_to_ns(40), 0)]
    lives_alike(lambda: host_model(guest), [*told, Close(s_to_ns(90))], [29, 31, 39, 41, 50, 90])


def test_a_host_that_has_yet_to_make_room() -> None:
    """SN-1: the controller has told its guests to, and a domain of another host waits for it."""
    guest = guest_config("linux")
    own = request(7, "linux", 48, 96, WAVE)
    told: list[Command] = [*(start(request(i, "linux", 32, 96, WAVE), 1 + i) for i in range(2))]
    told += [KeepRoom(s_to_ns(50), own, 48 * MIB), DropRoom(s_to_ns(75), 7), Close(s_to_ns(90))]
    lives_alike(
        lambda: host_model(guest, ram_mib=220, controller=controller("squeezed")), told, [*range(49, 80, 2), 90]
    )


def booted() -> HostModel:
    """A host with three guests, half a minute old."""
    model = host_model(*map(guest_config, KINDS), telemetry_s=7)
    model.advance(s_to_ns(30), [start(request(i, kind, 48, 96, WAVE), 1 + i) for i, kind in enumerate(KINDS)])
    return model


def ended(model: HostModel) -> str:
    """What becomes of it."""
    return repr(model.advance(s_to_ns(90), [Close(s_to_ns(90))]))


def test_packing_leaves_a_host_alone_and_one_snapshot_makes_many() -> None:
    """The host that was packed, and two made of one snapshot, each with arrays of its own, end alike."""
    model = booted()
    snapshot = pack(model)
    assert ended(unpack(snapshot)) == ended(unpack(snapshot)) == ended(model)


def test_configurations_are_not_copied() -> None:
    """What many hosts share stays one object, whether snapshots stay in memory or are pickled together."""
    model, host = booted(), host_config()
    other = host_model(guest_config(), host=host, controller=ControllerConfig(name="squeezed"))
    assert unpack(pack(other))._cfg is host
    snapshots: list[Snapshot] = pickle.loads(pickle.dumps([pack(other), pack(other), pack(model)]))
    first, second, third = map(unpack, snapshots)
    assert first._cfg is second._cfg is not third._cfg


def test_a_snapshot_is_good_in_another_process(tmp_path: Path) -> None:
    """Written to a file here and read there, where none of its objects was ever made."""
    model = booted()
    (tmp_path / "snapshot").write_bytes(pickle.dumps(pack(model)))
    code = (
        "import pickle, sys; from podcluster.host.snapshot import unpack; "
        "from podcluster.records.commands import Close; model = unpack(pickle.load(open(sys.argv[1], 'rb'))); "
        f"print(model.advance({s_to_ns(90)}, [Close({s_to_ns(90)})]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "snapshot")], capture_output=True, text=True, check=True
    )
    assert found.stdout == ended(model) + "\n"


def test_an_empty_host_is_small() -> None:
    """128 GiB without guests."""
    config = compose(["cluster.host_mem_gib=128"])
    spec = HostSpec(0, 128 * PAGES_PER_GIB, config.usable_pages_of(128))
    model = HostModel(spec, config.host, config.guests, 1)
    assert len(pack(model).content) < 4096


def test_hosts_are_small() -> None:
    """Five Linux guests that are up, on 128 GiB: less than 16 KiB in all."""
    config = compose(["guest=linux", "cluster.host_mem_gib=128"])
    spec = HostSpec(0, 128 * PAGES_PER_GIB, config.usable_pages_of(128))
    model = HostModel(spec, config.host, config.guests, 1)
    model.advance(s_to_ns(300), [start(request(i, "linux", 6144, 9216, 1000), 1) for i in range(5)])
    assert len(pack(model).content) < 16384


def test_reports_compare() -> None:
    """What these tests stand on: a host told something else reports something else."""
    model, other = booted(), booted()
    report: HostReport = other.advance(s_to_ns(31), [SetTarget(s_to_ns(30.5), 0, 40 * MIB)])
    assert report.host is None
    assert ended(model) != ended(other)
