"""Does the answer stop at the first unsafe cell, name what stopped it, and never take an unknown bound for good?"""

from typing import Any

import numpy as np
import pytest

from podcluster.report.answer import in_words, reach_of
from tests.report.tables import cells

LIMITS = {"most_crash": 0.01, "most_swap": 0.01}


def table(crash_upper: list[float], swap: list[float], swap_high: list[float | None]) -> dict[str, Any]:
    """Cells at 1, 2, 3 ... with these bounds."""
    count = len(crash_upper)
    found = cells([float(ratio) for ratio in range(1, count + 1)], [0] * count)
    found["crash_per_boot_upper"] = np.array(crash_upper)
    found["swap_share"] = np.array(swap)
    found["swap_share_high"] = np.array(swap_high, dtype=object)
    return found


@pytest.mark.parametrize(
    ("crash_upper", "swap_high", "ratio", "limit"),
    [
        ([0.001, 0.01, 0.001], [0.0, 0.01, 0.0], 3.0, ""),
        ([0.001, 0.011, 0.001], [0.0, 0.0, 0.0], 1.0, "crashes"),
        ([0.001, 0.001, 0.001], [0.0, 0.0, 0.011], 2.0, "swap"),
        ([0.001, 0.02, 0.001], [0.0, 0.02, 0.0], 1.0, "crashes and swap"),
        ([0.5, 0.001, 0.001], [0.0, 0.0, 0.0], None, "crashes"),
        ([0.001, np.nan, 0.001], [0.0, 0.0, 0.0], 1.0, "crashes"),
    ],
)
def test_a_series_is_safe_up_to_the_cell_before_the_first_unsafe_one(
    crash_upper: list[float], swap_high: list[float | None], ratio: float | None, limit: str
) -> None:
    """At, above and beyond the limits; a safe cell above an unsafe one does not count; no bound is no safety."""
    (reach,) = reach_of(table(crash_upper, [0.0] * 3, swap_high), (), **LIMITS)
    assert (reach.ratio, reach.limit) == (ratio, limit)


def test_without_an_interval_the_share_itself_is_compared() -> None:
    """One replication: swap_share_high is null."""
    (reach,) = reach_of(table([0.0] * 3, [0.0, 0.005, 0.5], [None] * 3), (), **LIMITS)
    assert (reach.ratio, reach.limit, reach.swap_high) == (2.0, "swap", 0.005)


def test_each_series_is_judged_alone_and_shown_with_its_n() -> None:
    """Two guests in one table: two lines, each with its bounds, boots and replications."""
    both = table([0.0, 0.5, 0.0, 0.0], [0.0] * 4, [0.0] * 4)
    both["guest"] = np.array(["windows", "windows", "linux", "linux"], dtype=object)
    reaches = reach_of(both, ("guest",), **LIMITS)
    assert [(reach.name, reach.ratio) for reach in reaches] == [("guest linux", 4.0), ("guest windows", 1.0)]
    words = in_words(reaches, confidence=0.95, **LIMITS)
    assert "| guest windows | **1.00** | 0 | 0 | 100 boots in 5 replications | crashes |" in words
    assert "at most 1% of boots crash (exact one-sided 95% bound)" in words
