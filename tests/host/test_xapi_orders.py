"""What an operator orders of running domains where the toolstack is XAPI: ranges, what the host bears, what never
changes.
"""

from __future__ import annotations

from podcluster.config import ControllerConfig, HostConfig
from podcluster.host import xapi
from podcluster.host.model import HostModel
from podcluster.records.commands import SetMaxMem, SetTarget, StopDomain
from podcluster.records.migration import MigrateGo, MigrateOut
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S, PAGES_PER_MIB, mib_to_pages, s_to_ns
from tests.host.lives import guest_config, host_config, host_model, request, start

MIB = PAGES_PER_MIB
GUEST = guest_config("linux", min_memory_mib=32)
XAPI = host_config(toolstack="xapi", check="step")
OVERHEAD = xapi.overhead_mib(160, 2)


def two_guests(host: HostConfig = XAPI, controller: str = "static") -> HostModel:
    """Guests of 64 of 160 MiB, up, on a host that could bear 64 MiB more at their minima."""
    usable_mib = 72 + 2 * (64 + OVERHEAD) + 64
    model = host_model(
        GUEST, ram_mib=usable_mib + 16, taken_mib=16, host=host, controller=ControllerConfig(name=controller)
    )
    model.advance(s_to_ns(60), [start(request(i, "linux", 64, 160), 1 + i) for i in (0, 1)])
    return model


def target(model: HostModel, at_s: float, domain_id: int, mib: int) -> tuple[list[str], HostReport]:
    """What is said of an order to have this much, and the host a minute later."""
    report = model.advance(s_to_ns(at_s + 60), [SetTarget(s_to_ns(at_s + 1), domain_id, mib * MIB)])
    return [event.text for event in report.events if event.kind == "set_target"], report


def test_a_target_is_raised_as_far_as_the_host_bears_all_minima() -> None:
    """D1.6: 64 MiB are left for both together, to the page, whatever is free; what one gives up the other may have."""
    model = two_guests()
    assert target(model, 60, 0, 129)[0] == ["HOST_NOT_ENOUGH_FREE_MEMORY: 65 MiB needed, 64 available"]
    assert model.look().domains[0].target_pages == 64 * MIB
    told, report = target(model, 120, 0, 128)
    assert told == ["64 to 128 MiB"] and report.view.committed_pages == report.view.usable_pages
    assert target(model, 180, 1, 65)[0] == ["HOST_NOT_ENOUGH_FREE_MEMORY: 1 MiB needed, 0 available"]
    assert target(model, 240, 0, 100)[0] == ["128 to 100 MiB"]
    told, report = target(model, 300, 1, 92)
    assert told == ["64 to 92 MiB"] and report.view.committed_pages == report.view.usable_pages
    report = model.advance(s_to_ns(400), [StopDomain(s_to_ns(390), i) for i in (0, 1)])
    assert report.view.committed_pages == report.view.overhead_pages == 72 * MIB


def test_a_target_outside_the_static_range_is_refused() -> None:
    """D1.1, D1.2: and any below static_max where dynamic memory is switched off."""
    model = two_guests()
    for at_s, mib in ((60, 31), (120, 161)):
        (text,), report = target(model, at_s, 0, mib)
        assert text.startswith("MEMORY_CONSTRAINT_VIOLATION_ORDER: ") and f"dynamic_max={mib} " in text
        assert report.view.committed_pages == (72 + 2 * (64 + OVERHEAD)) * MIB
    assert target(model, 180, 0, 32)[0] == ["64 to 32 MiB"]
    pinned = host_config(toolstack="xapi", restrict_dmc=True)
    model = host_model(GUEST, host=pinned)
    model.advance(s_to_ns(60), [start(request(0, "linux", 96, 96), 1)])
    assert target(model, 60, 0, 64)[0][0].startswith("MEMORY_CONSTRAINT_VIOLATION_MAXPIN: ")


def test_a_target_that_leaves_nothing_beside_video_ram_is_refused() -> None:
    """A class whose least is less than its video RAM of 64 MiB: of 65 MiB no more than one is left."""
    guest = guest_config("linux", min_memory_mib=32, video_mib=64)
    model = host_model(guest, host=XAPI)
    model.advance(s_to_ns(60), [start(request(0, "linux", 96, 160), 1)])
    assert target(model, 60, 0, 65)[0] == ["memory target 65 MiB leaves nothing beside video RAM"]


def test_a_static_maximum_stays_while_a_domain_runs() -> None:
    """D1.4: mem-max is refused, quota and static-max stay; xl, which knows no such rule, changes both."""
    for host, refused in ((XAPI, True), (host_config(check="step"), False)):
        model = two_guests(host)
        before = model.look().domains[0]
        report = model.advance(s_to_ns(70), [SetMaxMem(s_to_ns(61), 0, 200 * MIB)])
        (event,) = [event for event in report.events if event.kind == "set_max"]
        after = model.look().domains[0]
        assert event.text == (xapi.NOT_HALTED if refused else "200 MiB")
        assert (after.max_pages == before.max_pages) == refused
        assert (after.static_max_pages == before.static_max_pages) == refused


def test_squeezed_leaves_a_range_of_one_size_alone() -> None:
    """D5.4: what an operator has set is all there is to give; where the toolstack is xl it hands out the rest again."""
    for host, stays in ((XAPI, True), (host_config(check="step"), False)):
        model = two_guests(host, "squeezed")
        before = model.look().domains[0].target_pages
        assert before > 80 * MIB
        target(model, 60, 0, 80)
        assert (model.look().domains[0].target_pages == 80 * MIB) == stays
        if stays:
            assert model.look().domains[1].target_pages > before, "the other has got some of it"


def test_what_was_set_goes_with_a_domain_that_moves() -> None:
    """D4.7: dynamic_min is what an operator made it."""
    model = two_guests()
    target(model, 60, 0, 90)
    out = MigrateOut(s_to_ns(121), 0, s_to_ns(120), mib_to_pages(1000), 512 * MIB)
    (wanted,) = model.advance(s_to_ns(180), [out]).wanted
    (state,) = model.advance(s_to_ns(240), [MigrateGo(s_to_ns(181), wanted.request.domain_id)]).departed
    assert state.target_pages == state.request.memory_pages == 90 * MIB
    assert state.left_ns > 181 * NS_PER_S
