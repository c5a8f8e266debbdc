"""Does running guests ahead change nothing whatever the host is: eras, toolstacks, a dom0 that gives memory,
controllers and their settings, crash policies, short tables, broken guests and liars, instants off every grid?

The companion of test_busy_lives.py, which looks closer at fewer things. Lives are drawn from a number here, too.
"""

from __future__ import annotations

import math
from functools import partial
from random import Random
from typing import Any

import pytest

from podcluster.config import ControllerConfig
from podcluster.controller_parameters import (
    EsxParameters,
    HypervParameters,
    MomParameters,
    ProxmoxParameters,
    QmemmanParameters,
    SqueezedParameters,
)
from podcluster.records.commands import AttachDevice, Command, EndWarmup, FailHost, SetMaxMem, SetTarget, StopDomain
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import (
    asking,
    comes_out_otherwise,
    curve,
    drawn_host,
    guest_config,
    host_config,
    host_model,
    request,
    start,
)
from tests.host.test_busy_lives import SLOW, SLOWER

MIB = PAGES_PER_MIB
END_S = 50
FAULTS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"kind": "stuck"},
    {"kind": "stuck", "once_ballooned": True},
    {"kind": "intermittent", "period_s": 5, "awake_s": 1},
    {"kind": "intermittent", "period_s": 3, "awake_s": 0.5, "once_ballooned": True},
    {"kind": "slow"},
    {"kind": "slow", "rate_pages_per_s": 900, "once_ballooned": True},
    {"kind": "lying", "factor": 3},
    {"kind": "lying", "factor": 0.2},
    {"kind": "lying", "factor": 0},
]
CONTROLLERS = [None, None, "squeezed", "qmemman", "qmemman", "esx", "mom", "mom", "hyperv", "proxmox", "selfballoon"]


def guest(kind: str, chance: Random, *, patterned: bool) -> Any:
    """A class with all that may matter drawn anew; `patterned`: one that may scrub with a pattern."""
    linux, hardened = kind == "linux", chance.random() < 0.25
    balloon: dict[str, Any] = {
        "start_s": [chance.choice([0, 0.5, 3]), 6.0],
        "rate_pages_per_s": [chance.choice([300, 2000, 10_000]), 30_000],
        "scrub": chance.random() < 0.5,
        "boot_barrier": linux and chance.random() < 0.5,
        "hotplug": linux and chance.random() < 0.3,
        "section_mib": chance.choice([4, 16]),
        "deflate_on_oom": linux and chance.random() < 0.3,
        "reserve_mib": chance.choice([0, 1, 5]),
    }
    if not linux:
        balloon |= {
            "batch_pages": chance.choice([64, 512, 3000, 8185]),
            "generation": chance.choice(["new", "old"]),
            "contiguous": chance.random() < 0.4,
        }
    installs = {
        "unpack_mib": [chance.choice([2, 10]), 12],
        "install_s": [3, 20],
        "end": chance.choice(["shuts_down", "stays", "reboots"]),
        "into": chance.choice(["linux", "windows"]),
    }
    fault = chance.choice(FAULTS)
    scrubbers = ["pattern", "none"] if patterned else ["none", "zero", "pattern"]
    return guest_config(
        kind,
        balloon=balloon,
        page_cache={
            "rate_mib_per_s": chance.choice([0, 1, 20, 50, 500]),
            "max_share_of_free": chance.choice([0.1, 0.5, 0.8, 1.0]),
            "floor_share": chance.choice([0, 0.02, 0.2]),
        },
        scrubber="zero" if hardened else chance.choice(scrubbers),
        zero_on_free=hardened,
        scrub_order=chance.choice(["ascending", "descending"]),
        scrub_streams=chance.choice([0, 1, 3]),
        late_descriptors_share=chance.choice([0, 0.5]),
        install=installs if chance.random() < 0.25 else {},
        irq_per_s=chance.choice([0, 1000.0]),
        alloc_order=chance.choice(["descending", "random"]),
        alloc_block_pages=chance.choice([64, 512]),
        dirty_all=chance.random() < 0.08,
        swap={"mib": chance.choice([0, 8, 64]), "latency_us": chance.choice([0, 100, 5000])},
        fault={**fault, "share": chance.choice([1.0, 0.5])} if fault else {},
        vcpus=chance.choice([1, 4]),
    )


def told(chance: Random, *, even: bool) -> list[Command]:
    """Machines, and what they and their host are told; `even`: starts and targets at tenths of a second."""

    def about(at_s: float) -> float:
        return at_s if even else at_s + chance.random()

    found: list[Command] = []
    shared_s = [about(chance.randint(8, 46) + chance.choice([0, 0.3])) for _ in range(4)]
    for domain_id in range(chance.randint(1, 5)):
        memory_mib = chance.choice([24, 32, 48, 64])
        maxmem_mib = memory_mib + chance.choice([0, 0, 8, 40, 64])
        at_s = about(chance.choice([0.3 * domain_id, chance.randint(0, 8), 5]))
        samples: dict[float, float] = {0: chance.randint(0, 30)}
        for _ in range(chance.randint(0, 15)):
            samples[round(chance.uniform(1, END_S), 2)] = chance.randint(0, maxmem_mib)
        machine = request(
            domain_id,
            chance.choice(["linux", "windows"]),
            memory_mib,
            maxmem_mib,
            curve(*sorted(samples.items())),
            hold_ns=chance.choice([-1, 0, 0, s_to_ns(0.7), s_to_ns(3.7)]),
            departure_ns=s_to_ns(chance.randint(25, 45)) if chance.random() < 0.25 else None,
            vcpus=chance.choice([1, 2, 4]),
        )
        found.append(start(machine, at_s + 0.1))
        if chance.random() < 0.6:
            for told_s in sorted(chance.sample(shared_s, chance.randint(1, 4))):
                pages = chance.randint(10, maxmem_mib + 4) * MIB
                found.append(SetTarget(s_to_ns(max(told_s, at_s + 1)), domain_id, pages))
        if chance.random() < 0.2:
            raised_ns, pages = s_to_ns(at_s + chance.randint(5, 25)), (maxmem_mib + chance.choice([9, 40])) * MIB
            found += [SetMaxMem(raised_ns, domain_id, pages), SetTarget(raised_ns + NS_PER_S, domain_id, pages)]
        if chance.random() < 0.15:
            found.append(AttachDevice(s_to_ns(at_s + chance.randint(5, 30)), domain_id))
        if machine.departure_ns is not None:
            found.append(StopDomain(machine.departure_ns, domain_id))
        elif chance.random() < 0.1:
            found.append(StopDomain(s_to_ns(chance.randint(20, 45)), domain_id))
    if chance.random() < 0.15:
        found.append(EndWarmup(s_to_ns(chance.randint(5, 30))))
    if chance.random() < 0.08:
        found.append(FailHost(s_to_ns(chance.randint(20, 45))))
    return sorted(found, key=lambda command: command.at_ns)


def controller(chance: Random) -> ControllerConfig | None:
    """Which one, with settings under which so small a host keeps it busy."""
    name = chance.choice(CONTROLLERS)
    if name is None:
        return None
    return ControllerConfig(
        name=name,
        dead_after_s=chance.choice([None, None, None, None, 0, 7, 20.5]),
        squeezed=SqueezedParameters(
            reserve_mib=chance.choice([0, 9, 20, 72]), check_s=chance.choice([10, 3]), stuck_s=chance.choice([5, 1])
        ),
        qmemman=QmemmanParameters(
            least_pref_mib=chance.choice([20, 200]),
            keep_free_mib=chance.choice([5, 50]),
            least_free_mib=chance.choice([2, 25]),
            least_move_mib=chance.choice([5, 150]),
            least_move_below_pref_mib=chance.choice([2, 15]),
            report_change_mib=chance.choice([1, 30]),
            give_up_mib_per_s=chance.choice([1, 100]),
        ),
        proxmox=ProxmoxParameters(most_change_mib=chance.choice([5, 100]), dead_zone_mib=chance.choice([1, 10])),
        mom=MomParameters(period_s=chance.choice([15, 3])),
        esx=EsxParameters(period_s=chance.choice([15, 3]), sample_s=chance.choice([60, 6])),
        hyperv=HypervParameters(reserve_mib=chance.choice([10, 256]), period_s=chance.choice([10, 2])),
    )


def host(chance: Random, *, patterned: bool, gives: bool) -> dict[str, Any]:
    """Settings of a host; `gives`: its dom0 is as large as all that nobody else has, and gives it up for a start."""
    era = chance.choice(["today", "today", "today", "xen2015", "xen2012", "rfc2009"])
    found: dict[str, Any] = {
        **chance.choice([{}, {"costs": {}}, SLOW, SLOWER, {"softirq_per_s": math.inf}]),
        "era": era,
        "scrubbed_pod": patterned and era != "rfc2009",
        "p2m": chance.choice(["ept", "pt"]),
        "paging": chance.choice(["hap", "hap", "shadow"]),
        "superpages_2m": chance.random() < 0.85,
        "scrub_on_free": chance.random() < 0.8,
        "on_crash": chance.choice(["destroy", "restart", "restart", "preserve"]),
        "max_restarts": chance.choice([None, 1, 3]),
        "restart_delay_s": chance.choice([0, 2, 0.5]),
        "on_reboot": chance.choice(["restart", "destroy"]),
        "dom0_touch_per_s": chance.choice([0, 0, 0, 0.5, 5, 50]),
        "paging_pool_scale": chance.choice([1, 1, 1, 0.01, 0.1, 0.5]),
        "ring_slots": chance.choice([None, None, 1, 4, 32]),
        "sweep_wraps": chance.random() < 0.2,
        "claim_mode": chance.random() < 0.8,
        "pod_target_less_hole": chance.random() < 0.8,
    }
    if gives:
        found |= {"dom0_mib": None, "dom0_free_mib_per_s": chance.choice([2, 20, 100])}
    elif chance.random() < 0.25:
        found["toolstack"] = "xapi"
    return found


def differs(number: int, *, asked: bool = True) -> bool:
    """Whether the life of this number comes out otherwise when guests run ahead, in one go or cut anywhere. If not
    `asked`, nothing is asked of its domains, so that they go far.
    """
    chance = Random(number)
    patterned = chance.random() < 0.2
    manager = controller(chance)
    gives = manager is None and chance.random() < 0.4
    settings = host(chance, patterned=patterned, gives=gives)
    classes = [guest(kind, chance, patterned=patterned) for kind in ("linux", "windows")]
    commands = told(chance, even=chance.random() < 0.3)
    ram_mib = chance.choice([110, 160, 260, 320]) + 72 * (settings.get("toolstack") == "xapi") + 192 * gives
    grid_s = chance.choice([0, 0.5, 7])
    steps_s = [chance.uniform(0.01, END_S - 0.1) for _ in range(chance.choice([5, 30]))]
    make = drawn_host(classes, settings, manager, ram_mib=ram_mib, taken_mib=8 + 192 * gives, grid_s=grid_s)
    if not asked:
        theirs = asking(commands)
        commands = [one for one in commands if one not in theirs]
    return comes_out_otherwise(make, commands, steps_s, END_S)


# qmemman, whose polls were shifted by a start, and which took liars to say what they hold; mom, which remembers what it
# sees of an empty host. Several batches of demand at one instant, past another's turn, as the last entry went.
# The least margin, of a guest whose toolstack took cached pages and that wrote nothing new afterwards.
CAME_OUT_OTHERWISE = [288, 292, 436, 728, 15475, 25579]
# A grant of all but 30 pages, to a builder that leaves the VGA hole in the target. An act that was ready before what
# had been done, as nobody waited for the lock any more.
BROKE_A_RULE = [11671, 11989]


@pytest.mark.parametrize("number", [*CAME_OUT_OTHERWISE, *BROKE_A_RULE, *range(40)])
def test_running_guests_ahead_changes_nothing_on_any_host(number: int) -> None:
    """HM-1, CT-1."""
    assert not differs(number)


# qmemman looked again and again before an act that begins no sooner than the lock was free as the last entry went.
NEVER_ENDED = [31849]


@pytest.mark.parametrize("number", [*NEVER_ENDED, *range(40)])
def test_running_guests_past_the_end_of_a_call_changes_nothing(number: int) -> None:
    """HM-1."""
    assert not differs(number, asked=False)


def test_a_guest_does_not_run_past_what_its_host_is_about_to_tell_it() -> None:
    """A target that is raised when dom0 has shrunk for it (`balloon.free()` of the RFC), two samples a second: the
    guest has swapped in what that lets it, and no less.
    """
    guest = guest_config(
        "linux",
        swap={"mib": 64},
        page_cache={"rate_mib_per_s": 0},
        balloon={"scrub": False, "boot_barrier": False},
    )
    settings = host_config(era="rfc2009", dom0_mib=None, dom0_free_mib_per_s=100)
    machine = request(0, "linux", 48, 48, curve((0, 10), (12, 20), (28, 20), (40, 44), (60, 10)), hold_ns=0)
    targets = [SetTarget(s_to_ns(at_s), 0, mib * MIB) for at_s, mib in ((15, 24), (27, 48))]
    assert not comes_out_otherwise(
        partial(host_model, guest, ram_mib=452, taken_mib=200, telemetry_s=0.5, host=settings),
        [start(machine), *targets],
        [28.9, 29.1],
        60,
    )
