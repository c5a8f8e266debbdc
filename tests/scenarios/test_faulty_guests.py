"""What becomes of stuck, slow, intermittent and lying guests under each controller: docs/model.md section 4, cell by
cell, on whole hosts and on small ones; each assertion fails where the controller does not meet the fault.
"""

from typing import Any

import pytest

from podcluster.host.domain import ABOVE_VGA, VGA_HOLE
from podcluster.records.reports import HostReport
from podcluster.units import PAGES_PER_MIB
from tests.host.lives import request, start
from tests.scenarios.test_controllers import linux, row_of, told

MIB = PAGES_PER_MIB

# -- guests that lie ---------------------------------------------------------------------------------------------------


def alone(name: str, *, lies: bool) -> HostReport:
    """A guest that uses 120 of up to 400 MiB, and says it were twice as much if it lies."""
    fault: dict[str, Any] = {"kind": "lying", "factor": 2.0} if lies else {}
    return told(name, start(request(0, "linux", 40, 400, 120), 1), guest=linux(fault=fault))


@pytest.mark.parametrize("name", ["squeezed", "selfballoon"])
def test_whom_no_lie_reaches(name: str) -> None:
    """squeezed never asks, and a self-ballooning kernel does not ask itself: all rows are those of an honest guest."""
    assert alone(name, lies=True) == alone(name, lies=False)


def test_a_selfballooning_kernel_knows_what_it_uses() -> None:
    """H6: the target of a guest that says 240 MiB where it is 120 is made of the 120 and a tenth of its RAM."""
    row = row_of(alone("selfballoon", lies=True), 0)
    video_pages = 8 * MIB + ABOVE_VGA - VGA_HOLE
    has_pages = row.maxmem_pages - video_pages - row.ballooned_pages
    goal_pages = 120 * MIB + row.maxmem_pages // 10  # above its floor, 40 MiB and a quarter
    # Steps of an eighth of what is left come to an end where that is less than a page.
    assert 0 <= has_pages - goal_pages < 8
