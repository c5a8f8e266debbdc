"""The books of a demand that kernels follow: what a call is handed, what it changes, and how it ends.

What        The fields of the two arrays that go with every call; `Curve`, the demand; `Told`, lists that a call writes,
            and room for them. `follow_demand.py` has the call itself, `follow_held.py` what is held and swapped,
            `follow_pieces.py` the pieces of a demand, `follow_quiet.py` those that are left out.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     s the books and the piece in hand, d what does not change, q the demand; W, H, piece as in guest_demand.py
Invariants  Every number is an int64: Python writes both arrays field by field, in this order, and reads `s` back.
            A list has as many entries as its field of `s` says, and no field of `d` is written by a kernel.
Why exact   There is nothing to compute here: a field is what `DemandStream`, `HeldBooks` and `GuestMemory` call by its
            name, and goes to and fro as it is.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.layout import Arrays, fields

NEVER = 1 << 62
NS = 1_000_000_000
BATCH = 512
FULL_MARGIN = 4  # entries that one act may add to a list of intervals, and some

# The books: fields of the array that a call takes, changes and leaves.
RESIDENT = 0
CACHE = 1
ENTRIES = 2  # entry_count
HELD = 3
KILLED = 4
KILLS = 5  # of applications in this call: their instants are in `kills`
SWAPPED_PEAK = 6
IN_PAGES = 7
OUT_PAGES = 8
DEVICE_FREE = 9  # since when the device has nothing to do
BUSY_FROM = 10  # its latest stretch of work; -1 none
BUSY_TO = 11
BUSY = 12  # stretches before it, in `busy`
OPEN_AT = 13  # since when R and the most that can be had are as they are while something is on swap; -1: nothing is
OPEN_IN = 14
OPEN_MOST = 15
SHORT = 16  # spans before it, in `short`
# The piece in hand.
PIECE = 17
FROM = 18
UNTIL = 19
K = 20
BASE = 21
GROWTH = 22
GROWN = 23
LATE = 24
NEXT = 25
QUIET = 26
# The lock.
FREE = 27
LOCK_HELD = 28
FAULTS = 29  # accesses may take time: not once no entry is left
INERT = 30
MORE = 31  # so many more runs there must be room for in each of the guest's sets and stacks
HOW = 32
AT = 33  # when it ended so
ACTS = 34  # since it was this stream's turn: the first is, however long it has to wait
SEEN = 35  # pairs in `seen`
BOOKS = 36

# What does not change: fields of `d`.
ROOM = 0
KERNEL = 1  # its pages
ALLOCATED = 2  # of these, from the allocator
FLOOR = 3
SWAP = 4  # pages that swap has room for
SPARE = 5  # pages kept available rather than take something back
WANTED = 6  # whether W counts yet
HELPS = 7  # whether it takes from its balloon rather than see an application killed (C1.10)
LATENCY = 8
CLUSTER = 9
HOLD = 10
PAGES_PER_S = 11
MATTERS = 12  # how many available pages somebody waits for; NEVER: nobody does
AHEAD = 13  # quiet pieces may be left out
TIMED = 14  # Xen has a clock
MAY_SKIP = 15
LAST = 16  # acts up to then
SETTLE = 17  # only make good what was left out, up to LAST
ZEROES = 18  # the guest zeroes what it frees
GRID = 19  # the host is looked at at its multiples
SERVED = 20  # most ns that a page takes Xen while nothing is owed; -1: it may be any
START = 21  # the first instant of the curve,
FIRST = 22  # and H there
GIVEN = 23

# How a call ended.
DONE = 0
DIED = 1
RELEASED = 2  # held memory shrank, and somebody may be waiting for that
BALLOON_NEXT = 3  # before a batch for which it would rather take from its balloon
BOOKS_FULL = 4  # there must be more room in the guest's books, or for pieces
LISTS_FULL = 5

Ints = npt.NDArray[np.int64]


class Curve(Arrays):
    """A demand from the instant on at which a guest is up."""

    FIELDS = fields(
        ("t", np.int64),
        ("w", np.int64),
        ("high", np.int64),
        ("lags", np.int64),
        ("td", np.int64),
        ("wd", np.int64),
    )
    t: Ints  # its instants, from the second on,
    w: Ints  # W
    high: Ints  # and H there
    lags: Ints  # pieces in which W is too fast
    td: Ints  # its samples: instants,
    wd: Ints  # and pages


class Told(Arrays):
    """What a call has put down in lists, each flat and in order, as many as the books say; the next call takes the same
    arrays.
    """

    FIELDS = fields(
        ("short", np.int64),
        ("busy", np.int64),
        ("kills", np.int64),
        ("seen", np.int64),
    )
    short: Ints  # spans in which something was on swap: what was in memory of W, the most to be had, from, to
    busy: Ints  # stretches of work of the swap device: from, to
    kills: Ints  # instants at which an application was killed
    seen: Ints  # looks at the host, and the entries that they and all after them find


WIDTHS = {"short": 4, "busy": 2, "kills": 1, "seen": 2}
"""How many numbers each of these is."""


def room_for(count: int) -> Told:
    """Room for so many of each."""
    return Told(**{name: np.empty(width * count, np.int64) for name, width in WIDTHS.items()})
