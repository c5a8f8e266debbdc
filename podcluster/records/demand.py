"""What a guest wants to use over time.

What        `Demand`, read at an instant or on a grid of them.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     W(t)  a demand at an instant
Invariants  The first sample is at 0 and instants increase strictly; both arrays are int64 of one length. A copy in
            another process has the same numbers.
Why exact   W(t) is one quotient of integers, rounded down, whoever asks and however: where it would not fit in 64 bits
            it is taken in Python's integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from podcluster.records.values import Int64Array
from podcluster.units import NS_PER_S


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """W(t): the pages a guest wants to use, linear between samples and flat after the last (and before the first).

    `t_ns` is simulated time since the start of the run (not since boot, so that bursts shared by many machines stay
    shared however their boots are spread), strictly increasing, first sample at 0. Both arrays are int64 of one length.
    """

    t_ns: Int64Array
    pages: Int64Array

    @staticmethod
    def flat(pages: int) -> Demand:
        """The same demand at all times [pages]."""
        return Demand(np.zeros(1, dtype=np.int64), np.array([pages], dtype=np.int64))

    def at(self, t_ns: int) -> int:
        """W(t_ns) in pages, rounded down; exact in integers, so every caller sees the same number."""
        right = int(self.t_ns.searchsorted(t_ns, "right"))
        if right == 0:
            return int(self.pages[0])
        if right == len(self.t_ns):
            return int(self.pages[-1])
        t0, t1 = self.t_ns[right - 1 : right + 1].tolist()
        p0, p1 = self.pages[right - 1 : right + 1].tolist()
        # Python integers: (p1 - p0) * (t - t0) passes 2**63 for a guest of 256 GiB within one 300 s sample.
        return int(p0 + (p1 - p0) * (t_ns - t0) // (t1 - t0))

    def at_each(self, first_ns: int, step_ns: int, count: int) -> Int64Array:
        """`at` of `count` instants `step_ns` apart, int64[count]."""
        instants = first_ns + step_ns * np.arange(count, dtype=np.int64)
        right = np.searchsorted(self.t_ns, instants, side="right")
        low, high = np.maximum(right - 1, 0), np.minimum(right, len(self.t_ns) - 1)
        t0, p0 = self.t_ns[low], self.pages[low]
        span, rise, past = self.t_ns[high] - t0, self.pages[high] - p0, instants - t0
        flat = low == high
        # Whole seconds where all is in whole seconds, so that the product stays small.
        if not (first_ns % NS_PER_S or step_ns % NS_PER_S or (t0 % NS_PER_S).any() or (span % NS_PER_S).any()):
            span, past = span // NS_PER_S, past // NS_PER_S
        span[flat], past[flat] = 1, 0
        if int(np.abs(rise).max(initial=0)) * int(past.max(initial=0)) >= 1 << 63:
            return np.array([self.at(int(t_ns)) for t_ns in instants], dtype=np.int64)
        found: Int64Array = p0 + rise * past // span
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy elsewhere takes a quarter of the bytes where instants are a grid and sizes below 8 TiB, as nearly all
        are: what hosts are sent, and are kept with, is mostly this.
        """
        t, count = self.t_ns, len(self.t_ns)
        first_ns, last_ns = int(t[0]), int(t[-1])
        step_ns = int(t[1]) - first_ns if count > 1 else 0
        even = last_ns == first_ns + step_ns * (count - 1)
        if even and t is not grid(first_ns, step_ns, count):  # most have this very array
            even = bool((t[1:] - t[:-1] == step_ns).all())
        small = self.pages.min() >= 0 and self.pages.max() < 1 << 31
        t_ns = (first_ns, step_ns, count) if even else t
        return _demand_of, (t_ns, self.pages.astype(np.int32) if small else self.pages)


def _demand_of(t_ns: tuple[int, int, int] | Int64Array, pages: NDArray[np.integer[Any]]) -> Demand:
    """What `Demand.__reduce__` was called of."""
    return Demand(grid(*t_ns) if isinstance(t_ns, tuple) else t_ns, pages.astype(np.int64))


@lru_cache(maxsize=64)
def grid(first_ns: int, step_ns: int, count: int) -> Int64Array:
    """Instants at equal distances, one array for all who have them: nobody writes to it."""
    return first_ns + step_ns * np.arange(count, dtype=np.int64)
