"""Do random first touches, through the kernels, fill a guest as the closed form says? (G13)"""

import numpy as np
import pytest

from podcluster.config import HostConfig
from podcluster.host import domain as toolstack
from podcluster.host.domain import Domain
from podcluster.host.machine import Machine
from podcluster.host.written import DATA
from podcluster.units import PAGES_PER_MIB
from tests.host.lives import guest_config, request
from tests.statistical.replicas import check

FIRST, PAGES = 0x1000, 8192  # 32 MiB of RAM


def fresh_machine(memory_mib: int) -> Machine:
    """A guest of 64 MiB that owns `memory_mib`, on a machine of its own."""
    machine = Machine(80 * PAGES_PER_MIB)
    built = toolstack.build(machine, 1, request(0, "linux", memory_mib, 64), HostConfig(), guest_config("linux"))
    assert isinstance(built, Domain)
    return machine


@pytest.mark.parametrize("memory_mib", [48, 64])
@pytest.mark.parametrize("touches", [PAGES // 2, PAGES, 2 * PAGES])
def test_pages_touched_after_n_uniform_touches(memory_mib: int, touches: int) -> None:
    """G13: M (1 - (1 - 1/M)^n) distinct pages hold data; with populate on demand or all memory from the start."""

    def one(rng: np.random.Generator) -> float:
        machine = fresh_machine(memory_mib)
        before = machine.nonzero_pages(1)
        gfns = FIRST + rng.integers(0, PAGES, touches)
        assert machine.touch_list(1, gfns, content=DATA) == touches
        return machine.nonzero_pages(1) - before

    check(f"pages {memory_mib} {touches}", one, PAGES * (1 - (1 - 1 / PAGES) ** touches))


def test_superpages_populated_after_n_uniform_touches() -> None:
    """G13 a level up: of B superpages promised, B (1 - (1 - 1/B)^n) are populated, each by its first touch."""
    blocks, touches = PAGES // 512, 20

    def one(rng: np.random.Generator) -> float:
        machine = fresh_machine(48)
        machine.touch_list(1, FIRST + rng.integers(0, PAGES, touches), content=DATA)
        counters = machine.counters(1)
        assert counters.populated_4k == counters.reclaimed_2m == 0
        return counters.populated_2m

    check("superpages", one, blocks * (1 - (1 - 1 / blocks) ** touches))
