"""Stories of squeezed, most of them its authors' own, on a small simulated Xen: obedient, slow, limited, stuck and
intermittently stuck guests, on hosts that need memory and on hosts that have some to give; for each kind of guest and
host each rule of safety is switched off, and the stories that need it fail.
"""

from collections.abc import Callable
from typing import Any

import pytest

from podcluster.controller_parameters import SqueezedParameters
from podcluster.host.controllers.squeezed import ALL_RULES, Rules, Squeezed
from podcluster.host.controllers.view import Limit, Target, Uncooperative
from tests.scenarios.small_xen import NoMemoryError, SmallXen, Vm

MIB = 1024  # KiB
SLACK = 256  # pages of a limit over its target


def squeezed(rules: Rules = ALL_RULES, reserve_mib: int = 0) -> Squeezed:
    """The daemon, with no reserve and a tolerance of some pages: the numbers of these stories are a few MiB."""
    return Squeezed(SqueezedParameters(reserve_mib=reserve_mib, tolerance_kib=32), rules)


def on_and_off(period_s: float) -> Callable[[float], bool]:
    """A driver that works for a period and is stuck for a period."""
    return lambda t: int(t / period_s) % 2 == 0


def tell(vms: list[Vm], free: int, need: int, rules: Rules = ALL_RULES, seconds: float = 300) -> SmallXen:
    """A start needs `need` KiB of a host with `free`; the host when it has been answered, or when time was up."""
    xen = SmallXen(squeezed(rules), free, vms)
    xen.ask(need, need)
    xen.run(seconds, until=lambda: xen.answered)
    return xen


# -- hosts that need memory


def sticky_story(rules: Rules = ALL_RULES) -> SmallXen:
    """A small domain with a hidden lower limit; a large one that stops and goes, and ends a page short."""
    vms = [
        Vm(1, 1000, 1500, 2000, 1500, rate_kib=100, least=1252, sloppy=True),
        Vm(2, 2500, 3500, 4500, 3500, rate_kib=500, works=on_and_off(0.3), sloppy=True),
    ]
    return tell(vms, 0, 1000, rules)


def test_a_hidden_limit_and_a_sticky_driver() -> None:
    """The limited domain is left out at its limit, the other makes up for it; and the start is let in."""
    xen = sticky_story()
    assert xen.granted == {99: 1000}
    assert xen.vms[1].actual == 1252
    assert xen.vms[1].limit < 1252  # it may give more while nobody looks, but take nothing back (D5.6)
    assert xen.vms[2].actual < 2752


def test_without_the_margin_drivers_that_end_a_page_short_fail_the_start() -> None:
    """D5.4: two pages a domain are not counted on; counting on them asks for a page too little."""
    xen = sticky_story(Rules(margin=False))
    assert xen.refused[99].cause == "vms_failed_to_cooperate"


def test_two_sticky_drivers() -> None:
    """One sticks for longer than squeezed waits, and is taken in again when it moves; the other for less."""
    vms = [
        Vm(1, 500, 3500, 4500, 3500, works=on_and_off(7)),
        Vm(2, 500, 1500, 2500, 1500, works=on_and_off(1.5)),
    ]
    xen = tell(vms, 0, 1000)
    assert xen.granted == {99: 1000}
    assert any(isinstance(one, Limit) and one.domid == 1 for _, one in xen.log)


def test_minimums_that_are_too_high() -> None:
    """500 + 500 KiB can be had and 1500 are wanted: the host's fault, nobody is blamed (D5.10)."""
    vms = [Vm(1, 1000, 1500, 2000, 1500), Vm(2, 2000, 2500, 3000, 2500)]
    refusal = tell(vms, 0, 1500).refused[99]
    assert refusal.cause == "host_memory"
    assert refusal.text == "HOST_NOT_ENOUGH_FREE_MEMORY(1500, 1000)"


def test_a_domain_stuck_above_its_minimum() -> None:
    """It is blamed by name (D5.10, E14)."""
    vms = [Vm(1, 1000, 1500, 2000, 1500), Vm(2, 2000, 2500, 3000, 2500, least=2252)]
    refusal = tell(vms, 0, 1000).refused[99]
    assert (refusal.cause, refusal.text) == ("vms_failed_to_cooperate", "VMS_FAILED_TO_COOPERATE(Dom2)")


def one_stuck_one_hungry(rules: Rules = ALL_RULES) -> SmallXen:
    """One domain is to give and is stuck, another is to get what it should give, and a start waits."""
    vms = [Vm(1, 5000, 7000, 7000, 7000, works=lambda t: False), Vm(2, 5000, 6000, 11000, 6000)]
    return tell(vms, 0, 1000, rules)


def test_the_stuck_one_is_given_up_before_the_hungry_one_is_fed() -> None:
    """D5.5: nobody grows while anybody is to shrink; after 5 s the second is told to shrink instead."""
    xen = one_stuck_one_hungry()
    assert xen.granted == {99: 1000}
    told = [(at, one.target_kib) for at, one in xen.log if isinstance(one, Target) and one.domid == 2]
    assert all(kib < 6000 for _, kib in told)
    assert 5 < told[0][0] <= 7


def test_without_two_phases_memory_runs_out() -> None:
    """D5.5 off: the hungry one is told to grow at once, and there is nothing to grow into."""
    with pytest.raises(NoMemoryError):
        one_stuck_one_hungry(Rules(two_phases=False))


def test_without_stuck_detection_a_start_waits_for_ever() -> None:
    """D5.6 off: five minutes later squeezed still hopes for the stuck one."""
    xen = one_stuck_one_hungry(Rules(stuck_detection=False))
    assert not xen.answered
    assert (xen.granted, xen.refused) == ({}, {})


def one_greedy(rules: Rules = ALL_RULES) -> SmallXen:
    """A slow domain gives what a start needs; another would take it, if Xen let it."""
    vms = [
        Vm(1, 1000, 2000, 2000, 2000, rate_kib=50),
        Vm(2, 2000, 2000, 8000, 2000, greedy=True, limit=8000),
    ]
    return tell(vms, 500, 1000, rules)


def test_a_limit_holds_a_greedy_domain() -> None:
    """D5.8: from the first round on Xen's limit lies at the target of every domain that balloons."""
    xen = one_greedy()
    assert xen.granted == {99: 1000}
    assert xen.vms[2].actual <= xen.vms[2].limit < 2500  # its share of what was free, and no more


def test_without_hard_limits_the_greedy_one_takes_it() -> None:
    """D5.8 off: it eats what the other frees, and the start is refused in its name."""
    xen = one_greedy(Rules(hard_limits=False))
    assert "Dom2" in xen.refused[99].text


def test_a_page_now_and_then_is_progress() -> None:
    """D5.16: a driver that gives 4 KiB every 4 s is never stuck, and holds a start up that others could serve."""
    crawling = Vm(1, 1000, 2000, 2000, 2000, rate_kib=1, works=lambda t: int(t * 10) % 40 == 0)
    xen = tell([crawling, Vm(2, 1000, 4000, 4000, 4000)], 0, 1000, seconds=60)
    assert not xen.answered
    assert tell([Vm(1, 1000, 2000, 2000, 2000, works=lambda t: False), Vm(2, 1000, 4000, 4000, 4000)], 0, 1000).granted


def test_who_cannot_balloon_is_neither_asked_nor_limited() -> None:
    """D5.8, D5.10: a domain without a driver keeps target and limit, and is not blamed."""
    mute = Vm(1, 1000, 2000, 2000, 2000, can_balloon=False, limit=3000)
    xen = tell([mute, Vm(2, 1000, 2000, 2000, 2000)], 0, 1500)
    assert xen.refused[99].cause == "host_memory"
    assert (mute.target, mute.limit) == (2000, 3000)


# -- hosts that have some to give


def test_what_is_free_is_handed_out_in_proportion_to_ranges() -> None:
    """D5.13: at the first check all but the reserve goes out; everybody has the same share of its range."""
    vms = [Vm(1, 1000, 1000, 2000, 1000, rate_kib=1000), Vm(2, 2000, 2000, 5000, 2000, rate_kib=1000)]
    xen = SmallXen(squeezed(), 2000, vms)
    xen.run(9)
    assert not xen.log  # nothing before the check at 10 s but the one at 0
    xen.run(15)
    assert [vm.actual for vm in vms] == [1496, 3488]  # gamma (2000 - 0)/4000, less two pages a domain


def test_a_hidden_upper_limit() -> None:
    """What one domain cannot take, another gets (squeezed's own scenario h)."""
    vms = [Vm(1, 1000, 1500, 2000, 1500, most=1500), Vm(2, 1000, 1500, 2000, 1500)]
    xen = SmallXen(squeezed(), 400, vms)
    xen.run(60)
    assert vms[0].actual == 1500
    assert vms[1].actual > 1700
    assert xen.free < 400


def test_what_a_start_needs_is_taken_and_given_back() -> None:
    """A start is let in and ends; the memory goes back to who had it, in the same shares. No rule of safety is needed:
    both only give, and then both only take.
    """
    vms = [Vm(1, 1000, 2000, 2000, 2000), Vm(2, 1000, 2000, 2000, 2000)]
    xen = tell(vms, 0, 1000)
    assert xen.granted
    assert [vm.actual for vm in vms] == [1492, 1492]
    xen.free += 1000
    xen.due_ns = xen.now_ns + 1
    xen.run(60)
    assert [vm.actual for vm in vms] == [1992, 1992]


# -- starts


def test_the_short_cut() -> None:
    """D5.12: enough is free and all are where they are to be: no round, no target touched."""
    xen = tell([Vm(1, 1000, 1000, 1000, 1000)], 3000, 2000, seconds=0.2)
    assert xen.granted == {99: 2000}
    assert [type(one).__name__ for _, one in xen.log] == ["Grant"]


def test_a_range_gets_its_share() -> None:
    """D5.11: the start is a ghost among the others; on an empty host it gets everything, on a full one its minimum."""
    empty = SmallXen(squeezed(), 9000, [])
    empty.ask(1000, 8000)
    assert empty.run(5, until=lambda: empty.answered)
    assert empty.granted == {99: 8000}
    full = SmallXen(squeezed(), 1000, [Vm(1, 4000, 4000, 4000, 4000)])
    full.ask(1000, 8000)
    assert full.run(5, until=lambda: full.answered)
    assert full.granted == {99: 1000}
    # Surplus 4000 - 8 over ranges 3000 + 4000: gamma 0.570, so the ghost is due 2000 + 1710, and the other is sent to
    # 4000 + 282, which is page 1070.
    between = SmallXen(squeezed(), 0, [Vm(1, 4000, 8000, 8000, 8000, rate_kib=1000)])
    between.ask(2000, 5000)
    assert between.run(30, until=lambda: between.answered)
    assert between.vms[1].target == 4282
    assert between.granted == {99: 8000 - 4280}


def test_a_start_that_needs_all_there_is_to_the_page_can_wait_for_ever() -> None:
    """D5.4, D5.9: within two pages of its minimum a domain counts as having nothing to give, so that what it gives back
    there looks like a surplus: told up and down by a page each second, no round is the last. The daemon's own rule.
    """
    xen = tell([Vm(1, 4000, 8000, 8000, 8000, rate_kib=1000)], 0, 3996)
    assert not xen.answered
    assert tell([Vm(1, 4000, 8000, 8000, 8000, rate_kib=1000)], 0, 3980).granted


def test_starts_are_served_one_by_one() -> None:
    """D5.3: in the order of asking, each from what the one before left."""
    xen = SmallXen(squeezed(), 0, [Vm(1, 1000, 4000, 4000, 4000, rate_kib=500)])
    xen.ask(1000, 1000, domain_id=7)
    xen.ask(2500, 2500, domain_id=8)
    assert xen.run(60, until=lambda: xen.answered)
    assert xen.granted == {7: 1000}
    assert xen.refused[8].cause == "host_memory"


def test_worked_example() -> None:
    """D5: 500 MiB free, VM1 1024-2048 and VM2 2048-4096 MiB, a start of 2000 MiB: targets to the KiB, 72 MiB left."""
    vms = [
        Vm(1, 1024 * MIB, 2048 * MIB, 2048 * MIB, 2048 * MIB, rate_kib=200 * MIB),
        Vm(2, 2048 * MIB, 4096 * MIB, 4096 * MIB, 4096 * MIB, rate_kib=200 * MIB),
    ]
    xen = SmallXen(squeezed(reserve_mib=72), 500 * MIB, vms)
    xen.ask(2000 * MIB, 2000 * MIB)
    assert xen.run(60, until=lambda: xen.answered)
    assert xen.granted == {99: 2000 * MIB}
    assert [vm.target for vm in vms] == [1_560_570, 3_121_141]
    assert 72 * MIB <= xen.free <= 72 * MIB + 24  # two pages a domain more than asked for, and what rounding leaves
    assert [round(vm.actual / MIB, 1) for vm in vms] == [1524.0, 3048.0]


# -- the flag, and what is known to be wrong


def test_the_flag_comes_after_20_s_and_goes_with_the_target() -> None:
    """D5.7: counted over all runs; removed when the domain is back on target."""
    vms = [Vm(1, 1000, 2000, 2000, 2000, works=lambda t: t > 60), Vm(2, 1000, 4000, 4000, 4000, rate_kib=1000)]
    xen = tell(vms, 0, 1500)
    assert xen.granted
    xen.run(120)
    flags = [(at, one) for at, one in xen.log if isinstance(one, Uncooperative)]
    assert [one for _, one in flags] == [Uncooperative(1, True), Uncooperative(1, False)]
    assert 20 < flags[0][0] <= 31  # squeezed looks at its checks and in its rounds
    assert 60 < flags[1][0] < 80


def test_a_stuck_domain_makes_the_others_swing() -> None:
    """CA-115733, D5.16: each run forgets who was stuck, so each check moves the targets of all again."""
    stuck = Vm(1, 1000, 1000, 3000, 1000, works=lambda t: False)
    vms = [stuck, Vm(2, 1000, 3000, 3000, 3000, rate_kib=1000), Vm(3, 1000, 3000, 3000, 3000, rate_kib=1000)]
    xen = SmallXen(squeezed(), 0, vms)
    xen.run(300)
    swings = [one.target_kib for _, one in xen.log if isinstance(one, Target) and one.domid == 2]
    assert len(swings) > 20
    assert max(swings) - min(swings) > 600
    stuck.works = lambda t: True
    xen.run(60)
    before = len(xen.log)
    xen.run(300)
    assert len(xen.log) == before


# -- each story with each rule of safety switched off


def let_in(within_s: float, vms: list[Vm], free: int, need: int, rules: Rules) -> bool:
    """A start gets what it needs, in time, and nobody is told to take what is not there."""
    return tell(vms, free, need, rules, seconds=within_s).granted == {99: need}


def handed_out(after_s: float, vms: list[Vm], free: int, sizes: tuple[int, int], rules: Rules) -> bool:
    """Of what a host has to give, its guests have as much after a while, but for some pages, and nobody is told to take
    what is not there.
    """
    xen = SmallXen(squeezed(rules), free, vms)
    xen.run(after_s)
    return all(abs(vm.actual - size) <= 24 for vm, size in zip(vms, sizes, strict=True))


def never(t: float) -> bool:
    """A driver that is stuck."""
    return False


def naps(t: float) -> bool:
    """A driver that works for a second of each minute."""
    return t % 60 < 1


def hungry(domid: int, **driver: Any) -> Vm:
    """One that has its minimum of 1000 of 3000 KiB, and takes more as fast as it can."""
    return Vm(domid, 1000, 1000, 3000, 1000, **{"rate_kib": 500, **driver})


def rich(domid: int, **driver: Any) -> Vm:
    """One that has all of 1000 to 3000 KiB."""
    return Vm(domid, 1000, 3000, 3000, 3000, **{"rate_kib": 500, **driver})


STORIES: dict[str, tuple[Callable[[Rules], bool], set[str]]] = {
    # A start needs 500 KiB; of the guests, one has much and one has little, so that one is to grow.
    "shrinking, obedient": (lambda rules: let_in(30, [hungry(1), rich(2)], 0, 500, rules), {"two_phases"}),
    "shrinking, slow": (lambda rules: let_in(60, [rich(1, rate_kib=20), hungry(2)], 0, 500, rules), {"two_phases"}),
    "shrinking, limited": (
        lambda rules: let_in(60, [rich(1, least=2800), rich(2)], 0, 500, rules),
        {"stuck_detection"},
    ),
    "shrinking, stuck": (
        lambda rules: let_in(60, [rich(1, works=never), hungry(2), rich(3)], 0, 500, rules),
        {"two_phases", "stuck_detection"},
    ),
    "shrinking, intermittent": (
        lambda rules: let_in(30, [rich(1, works=naps), rich(2)], 0, 1000, rules),
        {"stuck_detection"},
    ),
    "shrinking, a page short": (
        lambda rules: let_in(60, [rich(1, sloppy=True), rich(2, sloppy=True)], 0, 500, rules),
        {"margin"},
    ),
    "shrinking, greedy": (
        lambda rules: let_in(60, [rich(1, rate_kib=50), hungry(2, greedy=True, limit=3000)], 0, 500, rules),
        {"hard_limits"},
    ),
    # Something is free, 400 KiB but where that would do for all that is told too early.
    "growing, obedient": (lambda rules: handed_out(60, [hungry(1), hungry(2)], 400, (1200, 1200), rules), set()),
    "growing, one too large": (
        lambda rules: handed_out(60, [hungry(1), rich(2)], 40, (2020, 2020), rules),
        {"two_phases"},
    ),
    "growing, slow": (
        lambda rules: handed_out(90, [rich(1, rate_kib=20), hungry(2)], 400, (2200, 2200), rules),
        {"two_phases"},
    ),
    "growing, limited": (
        lambda rules: handed_out(19, [hungry(1, most=1100), hungry(2)], 400, (1100, 1300), rules),
        {"stuck_detection"},
    ),
    "growing, stuck": (
        lambda rules: handed_out(19, [hungry(1, works=never), hungry(2)], 400, (1000, 1400), rules),
        {"stuck_detection"},
    ),
    "growing, stuck and too large": (
        lambda rules: handed_out(60, [rich(1, works=never), hungry(2)], 400, (3000, 1400), rules),
        {"two_phases", "stuck_detection"},
    ),
    "growing, intermittent": (
        lambda rules: handed_out(50, [rich(1, works=naps), hungry(2)], 400, (3000, 1400), rules),
        {"two_phases", "stuck_detection"},
    ),
    "growing, a page short": (
        lambda rules: handed_out(60, [rich(1, sloppy=True), hungry(2)], 0, (2000, 2000), rules),
        {"margin"},
    ),
    "growing, greedy": (
        # It could have taken more before, but does not before the first check.
        lambda rules: handed_out(
            60,
            [hungry(1, rate_kib=20), hungry(2, greedy=True, limit=3000, works=lambda t: t > 10.1)],
            400,
            (1200, 1200),
            rules,
        ),
        {"hard_limits"},
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_each_rule_of_safety_has_its_stories(name: str) -> None:
    """D5.4 to D5.8: with all rules each story ends well. With one switched off, those end badly that need it, in time
    or memory, and no others. Obedient guests that all grow need none: nobody waits for what another gives.
    """
    story, needs = STORIES[name]

    def ends_well(rules: Rules) -> bool:
        try:
            return story(rules)
        except NoMemoryError:
            return False

    assert ends_well(ALL_RULES)
    assert {rule for rule in Rules._fields if not ends_well(ALL_RULES._replace(**{rule: False}))} == needs


def test_all_kinds_of_guests_have_their_stories() -> None:
    """On hosts of both kinds; each rule is needed on each kind."""
    for host in ("shrinking", "growing"):
        assert {
            f"{host}, {kind}" for kind in ("obedient", "slow", "limited", "stuck", "intermittent")
        } <= STORIES.keys()
        assert set().union(*(needs for name, (_, needs) in STORIES.items() if name.startswith(host))) == set(
            Rules._fields
        )
