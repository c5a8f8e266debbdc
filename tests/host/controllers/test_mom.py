"""MoM's law at, below and above its thresholds, by hand."""

import pytest

from podcluster.controller_parameters import MomParameters
from podcluster.host.controllers.mom import Mom
from podcluster.host.controllers.view import Grant, MemSet
from tests.host.controllers.views import MIB, domain, host, start

LAW = Mom(MomParameters())


@pytest.mark.parametrize(
    ("free_share", "used", "size"),
    [
        (0.19, 400, 950),  # down by 5 %
        (0.20, 400, 1050),  # at the threshold: up by 5 %
        (0.21, 400, 1050),
        (0.10, 900, 1000),  # used + 0.10 x 1000 is all of it
        (0.10, 860, 960),  # so far and no further: 860 + 100
        (0.05, 980, 980),  # goal 0 at the critical share: used and not a page more
        (0.04, 980, 970),  # below it: 10 MiB into the guest's swap
        (0.25, 990, 1050),  # whatever it uses
    ],
)
def test_the_law(free_share: float, used: int, size: int) -> None:
    """A guest of 1000 MiB in [256, 2000]."""
    one = domain(1, 256, 2000, 1000)
    assert LAW.target(one, 1000 * MIB, used * MIB, free_share) == size * MIB


def test_growth_ends_at_the_maximum() -> None:
    """From 1000 MiB to 1020 and not to 1050."""
    assert LAW.target(domain(1, 256, 1020, 1000), 1000 * MIB, 400 * MIB, 0.25) == 1020 * MIB


def test_the_floor_and_small_steps() -> None:
    """Never below dynamic_min; 0.25 % is not worth it, a page more is."""
    one = domain(1, 980, 2000, 1000)
    assert LAW.target(one, 1000 * MIB, 0, 0.1) == 980 * MIB
    assert LAW.target(one._replace(dynamic_min_pages=1000 * MIB - 640), 1000 * MIB, 0, 0.1) == 1000 * MIB
    assert LAW.target(one._replace(dynamic_min_pages=1000 * MIB - 641), 1000 * MIB, 0, 0.1) == 1000 * MIB - 641


def test_averages() -> None:
    """It acts on the mean of its samples: a host that fills up is under pressure some beats later."""
    full = host(0, [domain(1, 256, 2000, 1000, used=400)], usable=1000)
    roomy = host(500, [domain(1, 256, 2000, 1000, used=400)], usable=1000)
    state = LAW.first_state
    for _ in range(10):
        state = LAW.decide(roomy, state).state
    told = []
    for _ in range(7):
        decision = LAW.decide(full, state)
        state = decision.state
        told.append(decision.actions[0])
    # Ten samples of 0.5; the mean of n zeroes and 10 - n of them passes 0.20 with the seventh zero.
    assert told == [MemSet(1, 1050 * MIB)] * 6 + [MemSet(1, 950 * MIB)]


def test_waiting_starts_are_pressure() -> None:
    """What a start needs is not free to the law; it is let in when its minimum is."""
    guest = domain(1, 256, 2000, 1000, used=400)
    decision = LAW.decide(host(300, [guest], usable=1300, starts=[start(400, 800)]), LAW.first_state)
    assert decision.actions == (MemSet(1, 950 * MIB),)
    decision = LAW.decide(host(700, [guest], usable=1300, starts=[start(400, 800, 10)]), LAW.first_state)
    assert decision.actions[0] == Grant(99, (690 - 260) * MIB)  # beyond a fifth of the host


def test_who_says_nothing_is_left_alone() -> None:
    """No report, or no driver: no target."""
    silent = domain(1, 256, 2000, 1000)
    broken = domain(2, 256, 2000, 1000, used=100, can_balloon=False)
    assert LAW.decide(host(0, [silent, broken]), LAW.first_state).actions == ()
