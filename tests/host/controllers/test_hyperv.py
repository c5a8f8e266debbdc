"""Hyper-V's law: demand and buffer, a smaller buffer, no buffer and less; by hand."""

import pytest

from podcluster.controller_parameters import HypervParameters
from podcluster.host.controllers.hyperv import Hyperv
from podcluster.host.controllers.view import Grant, MemSet
from tests.host.controllers.views import MIB, domain, host, start, stats

LAW = Hyperv(HypervParameters(reserve_mib=0))


@pytest.mark.parametrize(
    ("budget", "due"),
    [
        (1800, [600, 1200]),  # 1.2 x 500 and 1.2 x 1000
        (1799, [600, 1199]),  # a buffer a little smaller
        (1650, [550, 1100]),  # a tenth
        (1500, [500, 1000]),  # none
        (1250, [400, 850]),  # of 1000 above the minimums, 750 are there: 100 + 0.75 x 400, 400 + 0.75 x 600
        (1000, [300, 700]),
        (500, [100, 400]),  # the minimums
        (0, [100, 400]),
    ],
)
def test_the_law(budget: int, due: list[int]) -> None:
    """Demands of 500 and 1000 MiB, minimums of 100 and 400."""
    guests = [domain(1, 100, 2000, 800, used=500), domain(2, 400, 2000, 1100, used=1000)]
    for pages, mib in zip(LAW.due(guests, budget * MIB), due, strict=True):
        assert abs(mib * MIB - pages) <= MIB


def test_ranges_and_swap() -> None:
    """Demand counts what is on swap; what is due stays within the range."""
    swapping = domain(1, 100, 2000, 500, stats=stats(500, 500, swapped=500))
    assert LAW.due([swapping], 5000 * MIB) == [1200 * MIB]
    assert LAW.due([swapping._replace(dynamic_max_pages=700 * MIB)], 5000 * MIB) == [700 * MIB]
    idle = domain(1, 300, 2000, 500, used=10)
    assert LAW.due([idle], 5000 * MIB) == [300 * MIB]


def test_memory_moves_before_it_is_given() -> None:
    """Shrinking comes first; growth is told no more than what is free already."""
    giving = domain(1, 100, 2000, 1000, used=500)
    taking = domain(2, 100, 2000, 500, used=800)
    view = host(60, [giving, taking])
    assert LAW.decide(view, None).actions == (MemSet(1, 600 * MIB), MemSet(2, 560 * MIB))


def test_a_start_takes_from_the_buffers() -> None:
    """What waits is not in the budget; what fits is let in."""
    guests = [domain(1, 100, 2000, 600, used=500)]
    waits = LAW.decide(host(0, guests, starts=[start(50, 500)]), None)
    assert waits.actions == (MemSet(1, 550 * MIB),) or waits.actions[0] == MemSet(1, 550 * MIB - 1)
    assert LAW.decide(host(60, guests, starts=[start(50, 500, 10)]), None).actions[0] == Grant(99, 50 * MIB)


def test_a_stuck_guest_costs_those_who_want_more() -> None:
    """It owns 1000 and is to have 600: nothing is free, so nobody gets anything."""
    stuck = domain(1, 100, 2000, 600, owned=1000, used=500)
    hungry = domain(2, 100, 2000, 500, used=750)
    assert LAW.decide(host(0, [stuck, hungry]), None).actions == ()
