"""Balloons of several guests that take pages from the host's heap, each batch in its turn.

What        `take_in_turns`: the frames that batches of several balloons get, in order of time, as long as nobody else's
            turn comes and nobody is refused; `map_taken`, what one of the domains got, in its table; `take_back`, in
            the books of its guest, where page cache grows meanwhile.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     taker   a balloon that deflates: its fields below, and its runs (first gfn, pages), each from its top page
                    down
            taken   (top gfn, lowest frame, pages, where the taker's next is, 0 none): gfns downwards on frames upwards
Invariants  [BA-1], [LK-1] and [LK-2] for each taker; a hypercall a run, as by itself.
Why exact   It is the loop over batches. Which frames come next depends on the order in which they are taken and not on
            who takes them, and the tables of domains have nothing in common: so those may follow one by one. Page
            cache takes none of Xen's time where the guest has no promises left, or where it had all that it might have:
            its room then grows by no more than each batch, and what a batch brings is the next to be handed out. So it
            may follow, too, batch by batch, each at its instant.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host import merged
from podcluster.host.heap import heap_take_few
from podcluster.host.kernel import kernel, routine
from podcluster.host.merged import FREED_MOST, FREED_NS, NEVER, cache_room, free_pages, in_use, muldiv, occupy
from podcluster.host.page_sets import PAGES, PageBooks, runs_fit
from podcluster.host.page_stacks import room_of, runs_of
from podcluster.host.page_stacks import take_back as put_in_pool
from podcluster.host.ranges import fill_holes
from podcluster.host.state import DomainState, HostState

Ints = npt.NDArray[np.int64]
NS = 1_000_000_000

# One taker.
NEXT = 0  # when its next batch is due
FREE = 1  # since when its lock is free
ANCHOR = 2
DONE = 3  # pages since the anchor, in whole batches
PAGES_PER_S = 4
BATCH = 5
NEED = 6  # pages that it still asks for
MOST = 7  # pages that its quota allows
RUN = 8  # its runs: the next, pages of it that are gone
RUN_DONE = 9
TOOK = 10  # pages so far, ...
BATCHES = 11  # ... in so many batches, ...
FIRST = 12  # ... which began then ...
BEGAN = 13  # ... and last then
HELD = 14  # ns that its lock was held
LATE = 15  # ns that it was held up
FIRST_PIECE = 16  # where what it got begins among `taken`; 0 nothing
LAST_PIECE = 17
TAKER_FIELDS = 18

TAKEN_FIELDS = 4

# What `take_in_turns` leaves in `out`.
T_BATCHES = 0
T_FIRST = 1  # when the first of them began,
T_LAST = 2  # and the last;
T_PAGES = 3
T_MOMENT = 4  # pages times ns since the first, added up
T_FIELDS = 5


@routine
def _whose_turn(p: Ints) -> int:
    """The taker whose next batch can begin first, or -1."""
    found = -1
    found_ready = np.int64(NEVER)
    for k in range(p.shape[0] // TAKER_FIELDS):
        at = k * TAKER_FIELDS
        ready = max(p[at + NEXT], p[at + FREE])
        if p[at + NEED] > 0 and ready < found_ready:
            found = k
            found_ready = ready
    return int(found)


@routine
def _count_batch(p: Ints, at: int, began: int, asked: int, ns: int) -> None:
    """A batch of so many pages that took Xen `ns`: when the taker's next is due [LK-2]."""
    if ns:
        late = began + ns - p[at + NEXT]
        p[at + FREE] = began + ns
        p[at + HELD] += ns
        p[at + ANCHOR] += late
        p[at + LATE] += late
    p[at + DONE] += p[at + BATCH]
    p[at + NEXT] = max(began, p[at + ANCHOR] + muldiv(p[at + DONE], NS, p[at + PAGES_PER_S]))
    p[at + NEED] -= asked
    p[at + MOST] -= asked
    p[at + TOOK] += asked


@kernel
def take_in_turns(h: HostState, p: Ints, runs: Ints, last: int, least: int, taken: Ints, out: Ints) -> None:
    """Take frames for the takers `p` as long as batches begin by `last` and leave `least` pages free; `out` says what
    they came to. It ends early where `taken` is full, or their sum.
    """
    hr = h.rec[0]
    pieces = 1  # number 0 is no piece
    out[:T_FIELDS] = 0
    while out[T_MOMENT] <= FREED_MOST:
        k = _whose_turn(p)
        if k < 0:
            break
        at = k * TAKER_FIELDS
        began = max(p[at + NEXT], p[at + FREE])
        asked = min(p[at + NEED], p[at + BATCH])
        if began > last or asked > min(p[at + MOST], hr.free - hr.claims - least):
            break
        if TAKEN_FIELDS * (pieces + asked) > taken.shape[0]:
            break
        if out[T_BATCHES] == 0:
            out[T_FIRST] = began
        if began - out[T_FIRST] > FREED_NS:
            break
        left = asked
        ns = asked * hr.populate_4k_ns
        while left > 0:
            run = 2 * p[at + RUN]
            rest = runs[run + 1] - p[at + RUN_DONE]
            here = min(rest, left)
            gfn = runs[run] + rest - 1
            ns += hr.hypercall_ns
            left -= here
            if here == rest:
                p[at + RUN] += 1
                p[at + RUN_DONE] = 0
            else:
                p[at + RUN_DONE] += here
            while here > 0:
                got = heap_take_few(h, min(here, (gfn & 511) + 1))
                to = TAKEN_FIELDS * pieces
                taken[to] = gfn
                taken[to + 1] = got >> 10
                taken[to + 2] = got & 1023
                taken[to + 3] = 0
                if p[at + FIRST_PIECE]:
                    taken[TAKEN_FIELDS * p[at + LAST_PIECE] + 3] = pieces
                else:
                    p[at + FIRST_PIECE] = pieces
                p[at + LAST_PIECE] = pieces
                pieces += 1
                gfn -= got & 1023
                here -= got & 1023
        _count_batch(p, at, began, asked, ns)
        if p[at + BATCHES] == 0:
            p[at + FIRST] = began
        p[at + BATCHES] += 1
        p[at + BEGAN] = began
        out[T_BATCHES] += 1
        out[T_LAST] = began
        out[T_PAGES] += asked
        out[T_MOMENT] += asked * (began - out[T_FIRST])


@kernel
def map_taken(h: HostState, g: DomainState, taken: Ints, piece: int) -> None:
    """Map what a taker got, from this piece of `taken` on, as RAM."""
    g.rec[0].generation += 1
    while piece:
        i = TAKEN_FIELDS * piece
        fill_holes(h, g, taken[i], taken[i + 2], -1, taken[i + 1])
        piece = taken[i + 3]


@kernel
def take_back(
    h: HostState,
    g: DomainState,
    b: PageBooks,
    p: Ints,
    pages: int,
    c: Ints,
    s: Ints,
    pieces: Ints,
    max_share: float,
    floor_share: float,
) -> None:
    """Put what the taker `p` got back among the pages that its guest hands out, batch by batch up to `pages` pages, and
    let page cache, the stream `s` of merged.py with what is common in `c`, grow meanwhile: it goes on as soon as there
    is room. It ends early where the books are full.
    """
    hr = h.rec[0]
    c[merged.HOW] = merged.ON_TIME
    while p[TOOK] < pages:
        began = max(p[NEXT], p[FREE])
        at = s[merged.NEXT] if c[merged.INERT] else max(s[merged.NEXT], p[FREE])
        grows = at < began or (at == began and s[merged.NEXT] < p[NEXT])
        if grows:
            size = min(min(s[merged.BATCH], cache_room(c, b, max_share, floor_share)), free_pages(c, b))
            more = runs_of(b.pool, size - (b.taken[PAGES] - in_use(c))) + 2
        else:
            size = min(p[NEED], p[BATCH])
            runs = runs_of(b.balloon, size)
            more = runs + 1
        fit = min(min(runs_fit(b.data), room_of(b.taken)), min(runs_fit(b.away), room_of(b.pool)))
        if more > min(fit, pieces.shape[0] // 2):
            c[merged.MORE] = more
            c[merged.HOW] = merged.BOOKS_FULL
            return
        if grows:
            occupy(h, g, b, c, size, pieces)
            c[merged.CACHE] += size
            s[merged.DONE] += s[merged.BATCH]
            due = s[merged.ANCHOR] + muldiv(s[merged.DONE], s[merged.NUM], s[merged.DEN])
            s[merged.NEXT] = max(at, due) if cache_room(c, b, max_share, floor_share) else NEVER
            continue
        put_in_pool(b.pool, b.balloon, b.away, size, size)
        c[merged.OWNED] += size
        _count_batch(p, 0, began, size, size * hr.populate_4k_ns + runs * hr.hypercall_ns)
        if s[merged.NEXT] == NEVER and cache_room(c, b, max_share, floor_share):
            s[merged.LATE] += began - s[merged.ANCHOR]
            s[merged.ANCHOR] = began
            s[merged.NEXT] = began
            s[merged.DONE] = 0
