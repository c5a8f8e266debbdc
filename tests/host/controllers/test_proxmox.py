"""Proxmox's law at, below and above its thresholds, by hand."""

import pytest

from podcluster.controller_parameters import ProxmoxParameters
from podcluster.host.controllers.proxmox import Proxmox
from podcluster.host.controllers.view import MemSet
from tests.host.controllers.views import MIB, domain, host, start

LAW = Proxmox(ProxmoxParameters())


@pytest.mark.parametrize(
    ("goal", "sizes"),
    [
        (10, {}),  # at the edge of the dead zone
        (-10, {}),
        (11, {1: 1005, 2: 1005}),  # shares of 1000 and 11 above the minimums
        (-11, {1: 994, 2: 994}),
        (150, {1: 1075, 2: 1075}),
        (1000, {1: 1100, 2: 1100}),  # 100 MiB a cycle
        (-1000, {1: 900, 2: 900}),
    ],
)
def test_goals(goal: int, sizes: dict[int, int]) -> None:
    """Two guests of 1000 MiB in [500, 2000] with enough free: the goal is theirs in equal parts."""
    guests = [domain(i, 500, 2000, 1000, used=500) for i in (1, 2)]
    new = LAW.spread(goal * MIB, guests)
    assert {domid: pages // MIB for domid, pages in new.items()} == sizes


def test_pressure_decides_who_grows_first() -> None:
    """Free at most a quarter of the minimum: first to grow; the others are first to shrink."""
    pressed = domain(1, 400, 2000, 1000, used=900)  # 100 free, a quarter of 400
    easy = domain(2, 400, 2000, 1000, used=899)
    assert LAW.spread(50 * MIB, [pressed, easy]) == {1: 1050 * MIB}
    assert LAW.spread(-50 * MIB, [pressed, easy]) == {2: 950 * MIB}


def test_everybody_is_squeezed_where_the_easy_ones_cannot_give() -> None:
    """No progress in the first group: the guest under pressure pays."""
    pressed = domain(1, 400, 2000, 1000, used=950)
    at_least = domain(2, 1000, 2000, 1000, used=100)
    assert LAW.spread(-50 * MIB, [pressed, at_least])[1] < 1000 * MIB


def test_80_percent_of_the_host() -> None:
    """U 2000 MiB, 1600 to be used: 1000 owned and a start that waits for 500 leave 100 to grow by."""
    guest = domain(1, 500, 2000, 1000, used=950)
    decision = LAW.decide(host(400, [guest], usable=2000, starts=[start(1100, 1100)]), None)
    assert decision.actions == (MemSet(1, 900 * MIB),)  # 1600 used, 1100 wanted: 100 less, at most
    assert LAW.decide(host(995, [guest], usable=2000), None).actions == (MemSet(1, 1100 * MIB),)
    assert LAW.decide(host(405, [guest], usable=2000), None).actions == ()  # within 10 MiB of 1600
    assert LAW.decide(host(390, [guest], usable=2000), None).actions == ()


def test_a_stuck_guest_is_asked_again() -> None:
    """What counts is what it owns: the request does not move on."""
    stuck = domain(1, 500, 2000, 900, owned=1000, used=100)
    decision = LAW.decide(host(0, [stuck], usable=1000), None)
    assert decision.actions == ()  # it is asked for 900 already
    other = domain(2, 500, 2000, 1000, used=100)
    assert LAW.decide(host(0, [stuck, other], usable=2000), None).actions == (MemSet(2, 900 * MIB),)
