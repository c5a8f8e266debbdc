"""Self-ballooning: the step towards the goal, the floor, and whom it does not concern; by hand."""

import pytest

from podcluster.controller_parameters import SelfballoonParameters
from podcluster.host.controllers.selfballoon import Selfballoon, floor_pages
from podcluster.host.controllers.view import Grant, Limit, OwnTarget
from tests.host.controllers.views import MIB, domain, host, start, stats

LAW = Selfballoon(SelfballoonParameters())


@pytest.mark.parametrize(
    ("total", "used", "swapped", "size"),
    [
        (1000, 300, 0, 937.5),  # goal 300 + 200: an eighth of 500 down, to 240,000 pages
        (500, 300, 0, 500),  # there
        (400, 300, 0, 500),  # up at once
        (400, 400, 600, 1200),  # what is on swap is committed too
        (900, 900, 1500, 2000),  # never beyond its RAM
        (400, 10, 0, 376.25),  # goal 210; above the floor of 360
        (365, 10, 0, 360),  # the floor of a guest of 2048 MiB: 296 + 1/32
    ],
)
def test_the_step(total: int, used: int, swapped: int, size: float) -> None:
    """A guest that booted with 2000 MiB (2048 where the floor matters)."""
    ram = 2048 if total in (365,) else 2000
    told = LAW.target(stats(total, used, swapped=swapped), ram * MIB)
    if total == 400 and used == 10:
        assert told == max(int(size * MIB), floor_pages(ram * MIB))
    else:
        assert told == size * MIB


def test_the_curve() -> None:
    """Its pieces, at and below their ends."""
    mib = [floor_pages(ram * MIB) / MIB for ram in (64, 127, 128, 511, 512, 2047, 2048, 8192)]
    assert mib == [40, 71.5, 72, 167.75, 168, 104 + 2047 / 8, 360, 552]


def test_each_for_itself() -> None:
    """A Linux guest moves its own target; Windows does not, nor who is not up; limits are left at the maximum."""
    linux = domain(1, 100, 2000, 1000, used=300)
    windows = domain(2, 100, 2000, 1000, used=300, linux=False)
    silent = domain(3, 100, 2000, 1000, limit_pages=1000 * MIB)
    decision = LAW.decide(host(0, [linux, windows, silent]), None)
    slack = 256
    limits = tuple(Limit(i, 2000 * MIB + slack) for i in (1, 2, 3))
    assert decision.actions == (*limits, OwnTarget(1, 240_000))


def test_starts_get_what_is_free() -> None:
    """And wait where that is less than their minimum."""
    assert LAW.decide(host(500, [], starts=[start(100, 1000, 20)]), None).actions == (Grant(99, 480 * MIB),)
    assert LAW.decide(host(110, [], starts=[start(100, 1000, 20)]), None).actions == ()
