"""What streams of one guest bring to a call that runs them together (merged.py).

What        `Part`, what batches of a stream come to; `Share`, its pace, its part and how it came out; `Joins`, a stream
            that takes part.
Units       Pages of 4 KiB; ns of simulated time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from podcluster.host import merged
from podcluster.host.written import DATA, PATTERN


@dataclass(frozen=True, slots=True)
class Part:
    """What batches of a stream write: strips (merged.py), and then pages that are taken into use."""

    strips: Sequence[int]
    content: int = DATA
    free_only: bool = False  # what others take meanwhile is left alone
    takes: int = 0
    claims: bool = False  # what it takes is held or page cache, and so no longer free
    wrote: Callable[[int], None] = lambda _: None  # told how many pages were taken into use


@dataclass(slots=True)
class Share:
    """A stream's part in a call of merged.py, and how it came out."""

    fields: list[int]
    part: Part

    @property
    def gives(self) -> bool:
        """What it takes from the pool it gives to Xen."""
        return bool(self.fields[merged.GIVES])

    @property
    def claimed(self) -> int:
        """Of what is free, pages that it may take."""
        return self.part.takes if self.part.claims else 0

    @property
    def is_pattern(self) -> bool:
        """It writes a scrub pattern."""
        return self.part.content == PATTERN


def share(
    *,
    anchor_ns: int,
    num: int,
    den: int,
    done: int,
    upto: int,
    next_ns: int,
    part: Part,
    batch: int,
    vcpu: int = 0,
    interrupts: bool = True,
    gives: bool = False,
    scrubs: bool = False,
    upwards: bool = False,
) -> Share:
    """A share of a stream that is `done` pages along and may go up to page `upto`."""
    fields = [
        anchor_ns, num, den, batch, upto, done, next_ns, 0, -1, 0, gives, part.content, scrubs, upwards, vcpu,
        interrupts, 0, 0, 0, 0,
    ]  # fmt: skip
    return Share(fields, part)


class Joins(Protocol):
    """A stream whose batches may be made together with those of others."""

    @property
    def rank(self) -> int:
        """As of a stream."""

    def join(self, last_ns: int, claimed: int) -> Share | None:
        """Its part, of batches due by `last_ns`; None if each has to be made by itself. Others may take `claimed` pages
        of what is free.
        """

    def leave(self, one: Share, how: int, given: int) -> None:
        """How it came out (merged.py); `given`: pages that Xen took of a batch cut short."""


Ahead = Callable[[int, int], Part | None]
"""`(first page number, pages)`: what they come to; None where each batch has to be made by itself."""
