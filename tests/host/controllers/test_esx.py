"""ESX: the states of free memory, the tax on idle pages, and who pays; by hand."""

import pytest

from podcluster.controller_parameters import EsxParameters
from podcluster.host.controllers.esx import HARD, HIGH, LOW, SOFT, Activity, Esx, State, min_free_pages
from podcluster.host.controllers.view import Grant, MemSet
from podcluster.units import PAGES_PER_GIB
from tests.host.controllers.views import MIB, domain, host, start, stats

LAW = Esx(EsxParameters())


@pytest.mark.parametrize(("gib", "mib"), [(4, 245.8), (12, 573.4), (28, 901.1), (128, 1925.1)])
def test_min_free(gib: int, mib: float) -> None:
    """6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest: 901 MiB at 28 GiB."""
    assert min_free_pages(gib * PAGES_PER_GIB) / MIB == pytest.approx(mib, abs=0.1)


@pytest.mark.parametrize(
    ("before", "free", "level"),
    [
        (HIGH, 64, HIGH),
        (HIGH, 63, SOFT),
        (HIGH, 31, HARD),
        (HIGH, 15, LOW),
        (SOFT, 99, SOFT),  # out of soft only when all of minFree is free
        (SOFT, 100, HIGH),
        (HARD, 63, HARD),
        (HARD, 64, SOFT),
        (LOW, 31, LOW),
        (LOW, 32, HARD),
        (LOW, 100, HIGH),
    ],
)
def test_states(before: int, free: int, level: int) -> None:
    """In percent of minFree."""
    assert LAW.level(before, free, 100) == level


def fair(budget: int, *active: int, sizes: tuple[int, ...] = (1000, 1000), level: int = HARD) -> list[int]:
    """What guests of 1000 MiB in [100, 1000] with so many active MiB are to have of `budget` together [MiB]."""
    guests = [domain(i, 100, 1000, size, used=size) for i, size in enumerate(sizes)]
    state = State(level, {i: Activity(pages * MIB, 0, 0) for i, pages in enumerate(active)})
    return [round(pages / MIB) for pages in LAW.fair(guests, [one * MIB for one in sizes], state, budget * MIB)]


def test_the_tax() -> None:
    """All pay S / (A + 4 (P - A)): with 900 and 100 active, A + 4 (P - A) is one number for both."""
    assert fair(2000, 900, 100) == [1000, 1000]
    assert fair(1400, 900, 100) == [1000, 400]  # 1300 for both
    assert fair(1120, 900, 100) == [836, 284]  # 836 for both: the first has active pages alone, 100 + 4 x 184
    assert fair(200, 900, 100) == [100, 100]
    assert fair(1200, 500, 500) == [600, 600]


def test_the_cap_of_the_balloon() -> None:
    """In soft a balloon takes 65 % of a guest at most; beyond that is for hard."""
    assert fair(500, 100, 100, level=SOFT) == [350, 350]
    assert fair(500, 100, 100, level=HARD) == [250, 250]


def test_reclaiming_and_giving() -> None:
    """Below 64 % of minFree the idle guest pays until all of it is free; nobody shrinks above."""
    idle = domain(1, 100, 1000, 1000, stats=stats(1000, 900, wanted=100))
    busy = domain(2, 100, 1000, 1000, stats=stats(1000, 900, wanted=900))
    usable = 2000
    assert min_free_pages(usable * MIB) == 120 * MIB
    decision = LAW.decide(host(70, [idle, busy], usable=usable), LAW.first_state)
    assert decision.state.level == SOFT
    (told,) = decision.actions
    assert isinstance(told, MemSet)
    assert told.domid == 1
    assert abs(told.target_pages - 950 * MIB) <= 2
    assert LAW.decide(host(80, [idle, busy], usable=usable), LAW.first_state).actions == ()
    smaller = busy._replace(target_kib=900 * 1024, tot_pages=900 * MIB)
    assert LAW.decide(host(220, [idle, smaller], usable=usable), LAW.first_state).actions == (MemSet(2, 1000 * MIB),)


def test_low_lets_nobody_in() -> None:
    """A start that fits waits while free memory is low."""
    asked = [start(1, 1)]
    assert LAW.decide(host(10, [], usable=2000, starts=asked), State(HARD)).actions == (Grant(99, MIB),)
    assert LAW.decide(host(10, [], usable=2000, starts=asked), State(LOW)).actions == ()


def test_sampling() -> None:
    """A is the largest of the last sample and two averages of it: it rises at once and falls slowly."""
    state = LAW.first_state
    seen = []
    for beat, wanted in enumerate([100, 100, 100, 100, 500, 500, 500, 500, 100]):
        one = domain(1, 100, 1000, 1000, stats=stats(1000, 900, wanted=wanted))
        state = LAW.decide(host(0, [one], now_s=15 * beat), state).state
        seen.append(round(state.active[1].pages / MIB))
    assert seen == [100, 100, 100, 100, 500, 500, 500, 500, 200]  # 60 s apart; 100 + 0.5 x 400, less half of 200
