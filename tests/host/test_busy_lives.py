"""Does running guests ahead change nothing where everything is on the move: balloons up and down at the same instants,
page cache in the way, demand that jumps, swap, slow drivers, a Xen that takes its time, a controller?

Lives are drawn from a number, so that those that once came out otherwise stay here by theirs.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from podcluster.config import ControllerConfig, CostConfig
from podcluster.records.commands import Command, SetMaxMem, SetTarget, StopDomain
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from tests.host.lives import (
    comes_out_otherwise,
    curve,
    drawn_host,
    guest_config,
    host_config,
    host_model,
    live,
    request,
    rows,
    start,
)

MIB = PAGES_PER_MIB
END_S = 40
SLOW: dict[str, Any] = {"costs": {name: 30 * ns for name, ns in vars(CostConfig()).items()}, "softirq_per_s": 300.0}
SLOWER: dict[str, Any] = {"costs": {name: 3 * ns for name, ns in vars(CostConfig()).items()}}
HOSTS: list[dict[str, Any]] = [
    {},
    {"softirq_per_s": math.inf},
    {"costs": {}},
    SLOW,
    SLOWER,
    {"costs": {}},
    SLOW,
    SLOWER,
]
CONTROLLERS = [None, "squeezed", "qmemman", "esx", "mom", "hyperv", "proxmox", "selfballoon"]


def guest(kind: str, chance: Random, *, hardened: bool, busy: bool) -> Any:
    """A class with what matters to the order of acts drawn anew; `busy`: rather one whose balloon moves fast."""
    linux = kind == "linux"
    balloon: dict[str, Any] = {
        "start_s": [chance.choice([0, 0.5, 6]), 6.0],
        "rate_pages_per_s": [chance.choice([1000, 4000, 20_000] if busy else [300, 2000, 10_000]), 30_000],
        "scrub": chance.random() < 0.5,
        "boot_barrier": linux and chance.random() < 0.5,
        "hotplug": linux and chance.random() < 0.4,
        "section_mib": chance.choice([4, 16]),
        "deflate_on_oom": linux and chance.random() < 0.2,
    }
    if not linux:
        balloon["batch_pages"] = chance.choice([64, 512, 3000])
    installs = {"unpack_mib": [5, 5], "install_s": [3, 30], "end": chance.choice(["shuts_down", "stays"])}
    return guest_config(
        kind,
        balloon=balloon,
        page_cache={
            "rate_mib_per_s": chance.choice([0, 1, 3, 20, 50, 500]),
            "max_share_of_free": chance.choice([0.1, 0.3, 0.5, 0.8, 1.0]),
            "floor_share": chance.choice([0, 0.02, 0.2]),
        },
        scrubber="zero" if hardened else chance.choice(["none", "zero", "pattern"]),
        zero_on_free=hardened,
        late_descriptors_share=chance.choice([0, 0.5]),
        install=installs if chance.random() < 0.3 else {},
        irq_per_s=chance.choice([0, 1000.0]),
        alloc_order=chance.choice(["descending", "random"]),
        alloc_block_pages=chance.choice([64, 512]),
        dirty_all=chance.random() < 0.05,
        swap={"mib": chance.choice([0, 8, 64])},
        fault=chance.choice([{}, {}, {}, {}, {"kind": "intermittent", "period_s": 5, "awake_s": 1}, {"kind": "slow"}]),
    )


def told(chance: Random, *, busy: bool) -> list[Command]:
    """Machines and their targets; `busy`: all go down and up together, thrice."""
    found: list[Command] = []
    shared_s = [chance.randint(8, 36) + chance.choice([0, 0.3]) for _ in range(4)]
    for domain_id in range(chance.randint(2, 5) if busy else chance.randint(1, 4)):
        memory_mib = chance.choice([40, 48, 64] if busy else [24, 32, 48, 64])
        maxmem_mib = memory_mib + chance.choice([0, 0, 8] if busy else [0, 0, 0, 8, 40])
        at_s = 0.3 * domain_id if busy else chance.randint(0, 6)
        samples: dict[float, float] = {0: chance.randint(0, 30)}
        for _ in range(chance.randint(0, 20)):
            samples[round(chance.uniform(1, END_S), 2)] = chance.randint(0, maxmem_mib - 6 * busy)
        machine = request(
            domain_id,
            chance.choice(["linux", "windows"]),
            memory_mib,
            maxmem_mib,
            curve(*sorted(samples.items())),
            hold_ns=chance.choice([-1, 0, 0, s_to_ns(0.7), s_to_ns(3.7)]),
            departure_ns=s_to_ns(chance.randint(25, 39)) if chance.random() < 0.2 else None,
        )
        found.append(start(machine, at_s + 0.1))
        if busy:
            for down_s in (12, 22, 32):
                up_s = down_s + chance.choice([4, 4, 4.3])
                found.append(SetTarget(s_to_ns(down_s), domain_id, chance.randint(18, 32) * MIB))
                found.append(SetTarget(s_to_ns(up_s), domain_id, chance.randint(32, maxmem_mib) * MIB))
        else:
            for told_s in sorted(chance.sample(shared_s, chance.randint(1, 4))):
                found.append(SetTarget(s_to_ns(max(told_s, at_s + 1)), domain_id, chance.randint(18, maxmem_mib) * MIB))
        if chance.random() < 0.2:
            raised_ns, pages = s_to_ns(at_s + chance.randint(5, 20)), (maxmem_mib + chance.choice([9, 40])) * MIB
            found += [SetMaxMem(raised_ns, domain_id, pages), SetTarget(raised_ns + NS_PER_S, domain_id, pages)]
        if machine.departure_ns is not None:
            found.append(StopDomain(machine.departure_ns, domain_id))
    return sorted(found, key=lambda command: command.at_ns)


def differs(number: int) -> bool:
    """Whether the life of this number comes out otherwise when guests run ahead, in one go or cut anywhere."""
    chance = Random(number)
    busy, hardened = chance.random() < 0.5, chance.random() < 0.3
    classes = [guest(kind, chance, hardened=hardened, busy=busy) for kind in ("linux", "windows")]
    commands = told(chance, busy=busy)
    host, ram_mib, grid_s = chance.choice(HOSTS), chance.choice([110, 160, 260, 320]), chance.choice([0, 0.5, 7])
    steps_s = [chance.uniform(0.01, END_S - 0.1) for _ in range(chance.choice([0, 5, 30]))]
    name = chance.choice(CONTROLLERS)
    controller = ControllerConfig(name=name) if name is not None else None

    make = drawn_host(classes, host, controller, ram_mib=ram_mib, taken_mib=8, grid_s=grid_s)
    return comes_out_otherwise(make, commands, steps_s, END_S)


# An installer, or demand, that takes back what its balloon holds: the host's heap, at its instant.
FROM_BALLOON = [52, 238, 301, 368, 722, 1066]
# Demand that grows while the lock is held, beside page cache, to the end of its piece.
AT_ITS_END = [1312]


@pytest.mark.parametrize("number", [*FROM_BALLOON, *AT_ITS_END, *range(40)])
def test_running_busy_guests_ahead_changes_nothing(number: int) -> None:
    """HM-1."""
    assert not differs(number)


def test_who_would_take_from_its_balloon_waits_for_its_turn_at_the_heap() -> None:
    """A driver that waits to give more, in a guest whose demand would rather take back what it gave (C1.10): as long as
    nobody looks at the heap the one may act out of turn, and the other may not.
    """
    guest = guest_config(
        "linux",
        balloon={"deflate_on_oom": True, "scrub": False},
        swap={"mib": 0},
        page_cache={"rate_mib_per_s": 0},
    )
    machine = request(0, "linux", 64, 64, curve((0, 20), (20, 20), (60, 60)))
    found = []
    for coalesce in (False, True):
        model = host_model(guest, ram_mib=160, host=host_config(costs={}), coalesce=coalesce)
        report = live(model, 60, start(machine), SetTarget(s_to_ns(21.3), 0, 24 * MIB))
        found.append((rows([report]), report.host))
    assert found[0] == found[1]
    assert found[0][0][0][0].ballooned_pages == 8276
