"""qmemman's law at, below and above its thresholds, by hand."""

import pytest

from podcluster.controller_parameters import QmemmanParameters
from podcluster.host.controllers.qmemman import Borrowing, Handing, Member, Qmemman, State
from podcluster.host.controllers.view import Decision, Grant, MemSet, Refuse
from tests.host.controllers.views import MIB, domain, host, start

LAW = Qmemman(QmemmanParameters(overhead_factor=1))


def members(*guests: tuple[int, int]) -> list[Member]:
    """(used, size) of guests in [100, 2000] MiB."""
    return [LAW.member(domain(i, 100, 2000, size, used=used), used * MIB) for i, (used, size) in enumerate(guests, 1)]


@pytest.mark.parametrize(("used", "pref"), [(10, 200), (153, 200), (154, 200.2), (1000, 1300), (1600, 2000)])
def test_preference(used: int, pref: float) -> None:
    """1.3 times what is used, at least 200 MiB, at most the maximum."""
    (one,) = members((used, 500))
    assert one.pref == int(pref * MIB)


def test_actual_is_what_it_may_take() -> None:
    """A guest that has not grown to its target yet may do so at any time, and that is not free any more."""
    growing = domain(1, 100, 2000, 800, owned=500, used=100)
    assert LAW.member(growing, 100 * MIB).actual == 800 * MIB
    assert LAW.free(host(400, [growing])) == 100 * MIB
    shrinking = domain(1, 100, 2000, 500, owned=800, used=100)
    assert LAW.member(shrinking, 100 * MIB).actual == 800 * MIB


def test_with_plenty() -> None:
    """Prefs of 650 and 260, owned 1000 and 1000, 10 free: 1100 to share, 5 : 2; donors come first."""
    moves = LAW.balance(members((500, 1000), (200, 1000)), 10 * MIB)
    share = [650 + 1100 * 650 / 910, 260 + 1100 * 260 / 910]
    assert moves == [(2, int(0.999 * share[1] * MIB)), (1, int(0.999 * share[0] * MIB))]


def test_what_passes_a_maximum_goes_to_the_others() -> None:
    """Two with a maximum of 2000: what the larger cannot take, the smaller gets."""
    moves = dict(LAW.balance(members((1500, 1900), (200, 500)), 1500 * MIB))
    assert moves[1] == 2000 * MIB
    assert 1800 * MIB < moves[2] <= 1900 * MIB


def test_when_memory_is_short() -> None:
    """Prefs 650 of 1000, and 1300 and 650 of 600 and 300: the donor gives 350, the others share it 2 : 1."""
    moves = LAW.balance(members((500, 1000), (1000, 600), (500, 300)), 10 * MIB)
    assert moves == [
        (1, 650 * MIB),
        (2, int(0.999 * (600 * MIB + 360 * MIB * (1300 / 1950)))),
        (3, int(0.999 * (300 * MIB + 360 * MIB * (650 / 1950)))),
    ]


def test_small_donors_are_left_alone() -> None:
    """Less than 10 MiB above its preference: not worth asking."""
    moves = LAW.balance(members((500, 659), (1000, 600)), 0)
    assert [domid for domid, _ in moves] == [2]
    moves = LAW.balance(members((500, 660), (1000, 600)), 0)
    assert moves[0] == (1, 650 * MIB)


@pytest.mark.parametrize(
    ("moved", "free", "worth"),
    [(150, 50, False), (151, 50, True), (149, 51, False), (100, 101, True), (0, 34, True), (0, 35, False)],
)
def test_what_is_worth_a_move(moved: int, free: int, worth: bool) -> None:
    """More than 150 MiB in all, what is missing of Xen's 50 included; or Xen short of them by more than 15."""
    found = members((100, 1000))
    assert LAW.significant(found, [(1, (1000 - moved) * MIB)], free * MIB) == worth


def test_a_guest_below_its_preference_is_worth_less() -> None:
    """More than 15 MiB for it will do."""
    found = members((500, 600))
    assert not LAW.significant(found, [(1, 615 * MIB)], 50 * MIB)
    assert LAW.significant(found, [(1, 616 * MIB)], 50 * MIB)


def test_reports() -> None:
    """A guest speaks when its use has changed by more than 30 MiB; nothing happens in between."""
    one = domain(1, 100, 2000, 1000, used=500)
    first = LAW.decide(host(1000, [one]), LAW.first_state)
    assert first.state.used == {1: 500 * MIB}
    assert first.actions
    settled = first.state
    for used, heard in ((530, 500), (531, 531)):
        decision = LAW.decide(host(50, [domain(1, 100, 2000, 1000, used=used)]), settled)
        assert decision.state.used == {1: heard * MIB}


def told(decision: Decision) -> list[tuple[int, int]]:
    """(domid, pages) of the targets in a decision that has no other actions."""
    assert all(isinstance(one, MemSet) for one in decision.actions)
    return [(one.domid, one.target_pages) for one in decision.actions if isinstance(one, MemSet)]


def test_acceptors_wait_for_donors() -> None:
    """Told at once: the donor. The acceptor gets its part when it is free, or after 0.5 s what there is."""
    donor, taker = domain(1, 100, 2000, 1000, used=300), domain(2, 100, 2000, 500, used=600)
    first = LAW.decide(host(50, [donor, taker]), LAW.first_state)
    ((domid, size),) = told(first)
    assert domid == 1
    assert isinstance(first.state.work, Handing)
    (wanted,) = first.state.work.acceptors
    given = donor._replace(tot_pages=size, target_kib=size * 4)
    done = LAW.decide(host(50 + 1000 - size // MIB, [given, taker]), first.state)
    assert told(done) == [wanted]
    state = first.state
    told_not_done = donor._replace(target_kib=size * 4)
    for look in range(5):
        decision = LAW.decide(host(90, [told_not_done, taker]), state)
        state = decision.state
        assert bool(decision.actions) == (look == 4)
    assert decision.actions == (MemSet(2, 540 * MIB),)
    assert state.left_out == {1}  # it has not moved at all


def test_a_start_borrows() -> None:
    """Donors can spare 350 and 740 MiB; a start that misses 500 (with Xen's 50) takes 1.05 times their parts."""
    guests = [domain(1, 100, 2000, 1000, used=500), domain(2, 100, 2000, 1000, used=200)]
    state = State({1: 500 * MIB, 2: 200 * MIB}, domids=frozenset({1, 2}))
    asked = [start(500, 1500, 50)]
    decision = LAW.decide(host(100, guests, starts=asked), state)
    part = 500 / (350 + 740) * 1.05
    assert told(decision) == [(1, int((1000 - 350 * part) * MIB)), (2, int((1000 - 740 * part) * MIB))]
    assert isinstance(decision.state.work, Borrowing)
    enough = LAW.decide(host(575, guests, starts=asked), decision.state)
    assert enough.actions[-1] == Grant(99, 500 * MIB)
    assert LAW.decide(host(574, guests, starts=asked), state).actions[-1] != Grant(99, 500 * MIB)


def test_a_start_that_nobody_can_serve() -> None:
    """The donors have less than what is missing: refused at once."""
    guests = [domain(1, 100, 2000, 1000, used=700)]
    state = State({1: 700 * MIB}, domids=frozenset({1}))
    (refusal,) = LAW.decide(host(100, guests, starts=[start(500, 1500)]), state).actions
    assert isinstance(refusal, Refuse)
    assert refusal.cause == "host_memory"


def test_a_start_that_is_served_too_slowly() -> None:
    """Less than 300 MiB in 3 s: given up, though there is progress."""
    size, free, state = 1900, 100, State({1: 100 * MIB}, domids=frozenset({1}))
    target = size
    for look in range(60):
        guest = domain(1, 100, 2000, target, owned=size, used=100)
        decision = LAW.decide(host(free, [guest], now_s=look / 10, starts=[start(1000, 1000)]), state)
        state = decision.state
        if any(isinstance(one, Refuse) for one in decision.actions):
            break
        target = min(pages for _, pages in told(decision)) // MIB
        size, free = size - 9, free + 9  # 90 MiB/s
    assert look == 30


def test_who_reports_while_others_are_served_is_not_forgotten() -> None:
    """A report during a balance under way is the reason for the next one, at the look after the last of it."""
    donor, taker = domain(1, 100, 2000, 1000, used=300), domain(2, 100, 2000, 500, used=600)
    waits = LAW.decide(host(50, [donor, taker]), LAW.first_state)
    donor = donor._replace(target_kib=390 * 1024)
    needs = domain(2, 100, 2000, 500, used=700)
    heard = LAW.decide(host(90, [donor, needs]), waits.state)
    assert heard.actions == ()
    given = donor._replace(tot_pages=390 * MIB)
    ended = LAW.decide(host(660, [given, needs]), heard.state)
    assert isinstance(heard.state.work, Handing)
    assert told(ended) == list(heard.state.work.acceptors)
    ((_, size),) = told(ended)
    has = needs._replace(target_kib=size * 4, tot_pages=size)
    assert ended.next_check_ns == LAW.period_ns
    balanced = LAW.decide(host(660 + 500 - size // MIB, [given, has]), ended.state)
    assert told(balanced)
    assert not balanced.state.news
