"""What streams of one guest bring to a call that runs them together (merged.py).

What        `share`, a stream's fields.
Units       Pages of 4 KiB; ns of simulated time.
"""

from __future__ import annotations

from typing import Final

from podcluster.host.merged import AT_ONCE, NEVER
from podcluster.host.written import DATA

NO_LINE: Final = (0, 0, 0, 0)

Share = list[int]
"""The fields of one stream, as merged.py numbers them."""


def share(
    kind: int,
    *,
    anchor_ns: int,
    num: int,
    den: int,
    batch: int,
    done: int,
    next_ns: int,
    upto: int = 0,
    content: int = DATA,
    vcpu: int = 0,
    interrupts: bool = True,
    strips: tuple[int, int, int, int] = (0, 0, 0, 0),
    keeps: bool = False,
    goal: int = 0,
    scrubs: bool = False,
    upwards: bool = False,
    kept: int = 0,
    least: int = 0,
    exact: bool = False,
    until_ns: int = NEVER,
    followed: int = AT_ONCE,
    line: tuple[int, int, int, int] = NO_LINE,
    base: int = 0,
) -> Share:
    """The fields of a stream that is `done` pages along. `strips`: the next, pages of it that are done, the end, pages
    of all. `line`: when, first rise, ns, pages; no page is due before it. `base`: pages held beside its own.
    """
    return [
        anchor_ns, num, den, batch, upto, done, next_ns, 0, -1, 0, kind, content, vcpu, interrupts, *strips, keeps,
        goal, scrubs, upwards, kept, least, exact, until_ns, 0, followed, *line, base,
    ]  # fmt: skip
