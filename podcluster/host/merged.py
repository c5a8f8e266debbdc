"""Streams of one guest, merged in order of time in one kernel call.

What        `run_merged`: batches of what a guest writes, takes into use and gives back, each at the instant of its own
            pace, for as long as nobody else's turn comes.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     page i of a stream is due at anchor + i num / den, rounded down [GS-1]
            strips  pairs (first gfn, pages; below 0 from the top page down; NOTHING: pages that count and are no write)
            pool    runs (first gfn, pages) that the allocator hands out next, each from its top page down
Invariants  [LK-1] a batch begins at max(due, when the lock is free); who can begin first does, then whose instant is
                   first, then who is first in the list.
            [LK-2] what a batch waited for Xen and took there moves its stream's anchor, if Xen took anything.
Why exact   It is the loop over batches, left before the turn of anybody who is not in the list.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.batches import hand_over
from podcluster.host.kernel import kernel, routine
from podcluster.host.ranges import write_range
from podcluster.host.state import DomainState, HostState
from podcluster.host.written import DATA

Ints = npt.NDArray[np.int64]

# One stream: its pace and how far it has come.
ANCHOR = 0
NUM = 1
DEN = 2
BATCH = 3  # pages in a batch
UPTO = 4  # as far as it may go in this call
DONE = 5  # pages done, in whole batches
NEXT = 6  # when the next batch is due; in the end, when it is or could be
LATE = 7  # ns that it was held up, added up
BEGAN = 8  # when its latest batch began
PART = 9  # pages of the batch in which the guest died, written or zeroed
GIVES = 10  # 1: what it takes from the pool it gives to Xen
CONTENT = 11  # what it writes to its strips
SCRUBS = (
    12  # one that gives: each page is zeroed before; one that does not: its strips less what others take from now on
)
UPWARDS = 13  # each batch as one ascending list
VCPU = 14
IRQS = 15  # interrupts are enabled
STRIP = 16  # its strips: the next, pages of it that are done, the end
STRIP_DONE = 17
STRIP_END = 18
DRAWN = 19  # pages it took from the pool
STREAM_FIELDS = 20

# What is common.
FREE = 0  # since when the lock is free
HELD = 1  # ns that it was held, added up
LAST = 2  # no batch but the first begins later
SKIPS = 3  # a guest without entries may be skipped [G12]
FIRST = 4  # whose turn it is
HOW = 5
LOGGED = 6  # entries of the log
POOL_AT = 7
POOL_DONE = 8  # pages of run POOL_AT that are gone
CRASHED = 9  # the stream in whose batch the guest died, or Xen took less than it was given
GIVEN = 10  # pages of that batch that it took
CALM = 11  # what is given beyond the debt may go to the host
FREED = 12  # entries of `freed`
COMMON = 13

# How a call ended.
ON_TIME = 0  # all that begins by LAST is done, or a stream has come to its end
DIED = 1
INERT = 2  # no entry is left: what is written from here on is nothing to Xen [G12]
CUT_SHORT = 3  # a hypercall did less than it was asked
HEAP_NEXT = 4  # the next batch is larger than the debt, and not CALM

NOTHING = -1
LOG_FIELDS = 3  # (stream, first gfn, pages) of what was taken from the pool, in order
FREED_FIELDS = 2  # (when, pages) of what went to the host


@routine
def muldiv(a: int, b: int, c: int) -> int:
    """floor(a b / c) for 0 <= b, 0 < c < 2**61 and a quotient below 2**50 in size; the product may pass 2**63.

    The quotient of floats is off by one or two at most; what is then left over is exact modulo 2**64.
    """
    q = np.int64(np.float64(a) * np.float64(b) / np.float64(c))
    rest = a * b - q * c
    while rest < 0:
        q -= 1
        rest += c
    while rest >= c:
        q += 1
        rest -= c
    return int(q)


@kernel
def divided(a: int, b: int, c: int) -> int:
    """`muldiv`, for tests."""
    return int(muldiv(a, b, c))


@routine
def _due(p: Ints, at: int, page: int) -> int:
    """When this page of the stream at `at` is due."""
    return int(p[at + ANCHOR] + muldiv(page, p[at + NUM], p[at + DEN]))


@routine
def _whose_turn(p: Ints, free: int) -> int:
    """The stream that can begin first [LK-1]."""
    found = 0
    found_ready = np.int64(1) << 62
    found_due = np.int64(1) << 62
    for k in range(p.shape[0] // STREAM_FIELDS):
        due = p[k * STREAM_FIELDS + NEXT]
        ready = max(due, free)
        if ready < found_ready or (ready == found_ready and due < found_due):
            found = k
            found_ready = ready
            found_due = due
    return int(found)


@routine
def _untaken(c: Ints, log: Ints, first: int, pages: int, step: int) -> int:
    """Pages from `first` on that are alike: so many that nobody has taken from the pool, or less than 0: so many that
    somebody has.
    """
    ahead = pages
    for k in range(c[LOGGED]):
        low = log[LOG_FIELDS * k + 1]
        high = low + log[LOG_FIELDS * k + 2]
        if low <= first < high:
            return int(-min(pages, high - first if step > 0 else first - low + 1))
        away = low - first if step > 0 else first - high + 1
        if 0 < away < ahead:
            ahead = away
    return int(ahead)


@routine
def _scrub_free(
    h: HostState, g: DomainState, c: Ints, log: Ints, first: int, pages: int, step: int, content: int
) -> int:
    """Write the pages from `first` on that nobody has taken; pages gone through."""
    gone = 0
    while gone < pages:
        n = _untaken(c, log, first + gone * step, pages - gone, step)
        if n > 0:
            done = write_range(h, g, first + gone * step, n, step, content)
            if done < n:
                return int(gone + done)
        gone += abs(n)
    return int(gone)


@routine
def _write_strips(h: HostState, g: DomainState, c: Ints, p: Ints, at: int, strips: Ints, log: Ints, pages: int) -> int:
    """Write the next pages of a stream's strips, as many of `pages` as there are; those done, less than 0 if it died:
    -1 - done.
    """
    wrote = 0
    while wrote < pages and p[at + STRIP] < p[at + STRIP_END]:
        k = 2 * p[at + STRIP]
        first = strips[k]
        count = abs(strips[k + 1])
        used = p[at + STRIP_DONE]
        take = min(count - used, pages - wrote)
        if first != NOTHING:
            down = strips[k + 1] < 0
            begin = first + count - used - 1 if down else first + used
            if p[at + SCRUBS]:
                done = _scrub_free(h, g, c, log, begin, take, -1 if down else 1, p[at + CONTENT])
            else:
                done = write_range(h, g, begin, take, -1 if down else 1, p[at + CONTENT])
            if done < take:
                return int(-1 - (wrote + done))
        wrote += take
        p[at + STRIP_DONE] += take
        if p[at + STRIP_DONE] == count:
            p[at + STRIP] += 1
            p[at + STRIP_DONE] = 0
    return int(wrote)


@routine
def _draw(c: Ints, pool: Ints, pieces: Ints, pages: int) -> int:
    """Take the next `pages` pages of the pool as (gfn, count) pairs, runs that lie right below each other as one; how
    many pairs.
    """
    n = 0
    while pages > 0:
        k = 2 * c[POOL_AT]
        left = pool[k + 1] - c[POOL_DONE]
        take = min(left, pages)
        first = pool[k] + left - take
        if n > 0 and first + take == pieces[2 * n - 2]:
            pieces[2 * n - 2] = first
            pieces[2 * n - 1] += take
        else:
            pieces[2 * n] = first
            pieces[2 * n + 1] = take
            n += 1
        pages -= take
        c[POOL_DONE] += take
        if take == left:
            c[POOL_AT] += 1
            c[POOL_DONE] = 0
    return int(n)


@routine
def _log(c: Ints, log: Ints, stream: int, first: int, count: int) -> None:
    """Note a run, as one with the last where it lies right below it."""
    k = LOG_FIELDS * (c[LOGGED] - 1)
    if k >= 0 and log[k] == stream and first + count == log[k + 1]:
        log[k + 1] = first
        log[k + 2] += count
        return
    k += LOG_FIELDS
    log[k] = stream
    log[k + 1] = first
    log[k + 2] = count
    c[LOGGED] += 1


@routine
def _take(
    h: HostState, g: DomainState, c: Ints, p: Ints, k: int, strips: Ints, pool: Ints, pieces: Ints, log: Ints
) -> bool:
    """The next batch of a stream that writes: its strips, then pages taken into use; whether the guest lives."""
    at = k * STREAM_FIELDS
    size = min(p[at + BATCH], p[at + UPTO] - p[at + DONE])
    wrote = _write_strips(h, g, c, p, at, strips, log, size)
    if wrote < 0:
        p[at + PART] = -1 - wrote
        return False
    n = _draw(c, pool, pieces, size - wrote)
    for i in range(n):
        first = pieces[2 * i]
        count = pieces[2 * i + 1]
        done = write_range(h, g, first + count - 1, count, -1, DATA)
        p[at + DRAWN] += done
        wrote += done
        if done:
            _log(c, log, k, first + count - done, done)
        if done < count:
            p[at + PART] = wrote
            return False
    return True


@routine
def _give(
    h: HostState, g: DomainState, c: Ints, p: Ints, k: int, pool: Ints, pieces: Ints, out: Ints, log: Ints
) -> int:
    """The next batch of a stream that gives: ALL_GIVEN (0), or how it ended otherwise."""
    at = k * STREAM_FIELDS
    size = min(p[at + BATCH], p[at + UPTO] - p[at + DONE])
    pool_at = c[POOL_AT]
    pool_done = c[POOL_DONE]
    n = _draw(c, pool, pieces, size)
    out[:] = 0
    how = hand_over(h, g, pieces, n, p[at + UPWARDS] != 0, p[at + SCRUBS] != 0, out)
    given = size if how == 0 else out[3]
    if how != 0:
        p[at + PART] = out[2]
        c[GIVEN] = given
        c[POOL_AT] = pool_at
        c[POOL_DONE] = pool_done
        return int(how)
    p[at + DRAWN] += size
    for i in range(n):
        _log(c, log, k, pieces[2 * i], pieces[2 * i + 1])
    return 0


@kernel
def run_merged(
    h: HostState,
    g: DomainState,
    c: Ints,
    p: Ints,
    strips: Ints,
    pool: Ints,
    pieces: Ints,
    out: Ints,
    log: Ints,
    freed: Ints,
) -> None:
    """Run the streams `p` in order of time; `c`, `p`, `log` and `freed` say how far they came.

    `pieces` has room for as many pairs as the pool has runs, and one; `log` for that many runs at least. It ends early
    where `freed` is full.
    """
    r = g.rec[0]
    k = c[FIRST]
    acts = 0
    c[HOW] = ON_TIME
    while LOG_FIELDS * (c[LOGGED] + pieces.shape[0] // 2) <= log.shape[0] and FREED_FIELDS * c[FREED] < freed.shape[0]:
        if acts:
            k = _whose_turn(p, c[FREE])
        at = k * STREAM_FIELDS
        due = p[at + NEXT]
        began = max(due, c[FREE])
        if (acts and began > c[LAST]) or p[at + DONE] >= p[at + UPTO]:
            return
        debt = r.entry_count - r.cache_count
        if p[at + GIVES] and not c[CALM] and debt < min(p[at + BATCH], p[at + UPTO] - p[at + DONE]):
            c[HOW] = HEAP_NEXT
            return
        acts += 1
        p[at + BEGAN] = began
        r.now_ns = began
        r.vcpu = p[at + VCPU]
        r.irqs_on = p[at + IRQS]
        how = 0
        if p[at + GIVES]:
            owned = r.tot_pages
            how = _give(h, g, c, p, k, pool, pieces, out, log)
            if how:
                how = DIED if how == 2 else CUT_SHORT
            if r.tot_pages < owned:
                freed[FREED_FIELDS * c[FREED]] = began
                freed[FREED_FIELDS * c[FREED] + 1] = owned - r.tot_pages
                c[FREED] += 1
        elif not _take(h, g, c, p, k, strips, pool, pieces, log):
            how = DIED
        end = r.now_ns
        if end != began:
            c[HELD] += end - began
            c[FREE] = end
        if how:
            c[HOW] = how
            c[CRASHED] = k
            p[at + NEXT] = max(began, _due(p, at, p[at + DONE]))
            return
        if end != began:
            p[at + ANCHOR] += end - due
            p[at + LATE] += end - due
        p[at + DONE] += min(p[at + BATCH], p[at + UPTO] - p[at + DONE])
        p[at + NEXT] = max(began, _due(p, at, p[at + DONE]))
        if c[SKIPS] and r.entry_count == 0:
            c[HOW] = INERT
            return
