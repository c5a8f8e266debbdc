"""What a balloon brings to a call in which several take from the host's heap by turns (turns.py).

What        `Taker`, its pace and its runs, and how it came out; `Turns`, what all of them came to.
Units       Pages of 4 KiB; ns of simulated time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from podcluster.host import turns


class Turns(NamedTuple):
    """What batches of several balloons came to."""

    batches: int
    first_ns: int  # when the first of them began,
    last_ns: int  # and the last
    pages: int
    moment: int  # pages times when, added up


@dataclass(slots=True)
class Taker:
    """A balloon's part in the call, and how it came out."""

    fields: list[int]
    before: Sequence[int]  # the same, as they were
    runs: Sequence[int]  # first gfn, pages
    until_ns: int  # no batch of anybody begins later

    @property
    def pages(self) -> int:
        """Pages that it took."""
        return self.fields[turns.TOOK]

    @property
    def first_ns(self) -> int:
        """When its first batch began."""
        return self.fields[turns.FIRST]

    @property
    def last_ns(self) -> int:
        """When its last batch began."""
        return self.fields[turns.BEGAN]


def taker(
    *,
    next_ns: int,
    free_ns: int,
    anchor_ns: int,
    done: int,
    pages_per_s: int,
    batch: int,
    need: int,
    most: int,
    until_ns: int,
    runs: Sequence[int],
) -> Taker:
    """One that is `done` pages along since its anchor, and asks for `need`."""
    results = [0] * (turns.TAKER_FIELDS - turns.RUN)
    fields = [next_ns, free_ns, anchor_ns, done, pages_per_s, batch, need, most, *results]
    return Taker(fields, tuple(fields), runs, until_ns)
