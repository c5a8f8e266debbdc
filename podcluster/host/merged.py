"""Streams of one guest, merged in order of time in one kernel call.

What        `run_merged`: batches of what a guest writes, takes into use and gives back, each at the instant of its own
            pace, for as long as nobody else's turn comes and each is of the ordinary kind.
Units       Pages of 4 KiB; ns of simulated time.
Symbols     page i of a stream is due at anchor + i num / den, rounded down [GS-1]
            strips  pairs (first gfn, pages; below 0 from the top page down): what a stage writes
            b       the guest's sets and stacks of pages (page_sets.py), c its counts: both as they are at every instant
Invariants  [LK-1] a batch begins at max(due, when the lock is free); who can begin first does, then whose instant is
                   first, then who is first in the list. What is over, or finds no entry left to populate, waits for no
                   lock.
            [LK-2] what a batch waited for Xen and took there moves its stream's anchor, if Xen took anything.
            [GM-1] to [GM-3], [G11], [G12] of guest_memory.py.
Why exact   It is the loop over batches, left before the turn of anybody who is not in the list, and before a batch that
            comes to more than pages: drops page cache, swaps, may fail.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.batches import ALL_GIVEN, B_GIVEN, B_ZEROED, DIED, HEAP_NEXT, hand_over
from podcluster.host.heap import ALL
from podcluster.host.kernel import kernel, routine
from podcluster.host.page_sets import PAGES, PageBooks, free_reach, runs_fit, set_add, set_remove
from podcluster.host.page_stacks import FIRST, RUNS, draw, draw_spare, push, room_of, runs_of
from podcluster.host.ranges import write_range
from podcluster.host.rows import next_page
from podcluster.host.state import BLOCK_PAGES, POD_ROW, DomainState, HostState
from podcluster.host.written import DATA, PATTERN

Ints = npt.NDArray[np.int64]

# One stream: its pace and how far it has come.
ANCHOR = 0
NUM = 1
DEN = 2
BATCH = 3  # pages in a batch
UPTO = 4  # pages of a stage
DONE = 5  # pages done, counted in whole batches
NEXT = 6  # when the next batch is due; in the end, when it is or could be
LATE = 7  # ns that it was held up, added up
BEGAN = 8  # when its latest batch began; or when it ended, and nothing followed
OVER = 9  # it has come to its end; NEXT says when that is, or NEVER once it has
KIND = 10
CONTENT = 11  # what a stage writes to its strips
VCPU = 12
IRQS = 13  # interrupts are enabled
STRIP = 14  # its strips: the next, pages of it that are done, the end
STRIP_DONE = 15
STRIP_END = 16
STRIP_PAGES = 17  # of all of them
KEEPS = 18  # HOLDS: what it takes stays held whatever demand says
# GIVES:
GOAL = 19  # pages to have in the balloon
SCRUBS = 20  # each page is zeroed before
UPWARDS = 21  # each batch as one ascending list
KEPT = 22  # of what is available, pages that its system does not count
LEAST = 23  # so many available at least, or the batch may fail
EXACT = 24  # or as many as it needs
UNTIL = 25  # batches that are due later are not its own to make (fault.py, guest_demand.py)
PART = 26  # pages of its latest batch
FOLLOWED = 27  # what its end leads to
# GROWS: page i is due no sooner than WANTED + (FIRST_RISE + i) RISE_NUM / RISE_DEN, rounded up, if that adds anything,
# and none after UNTIL, when the stream is over.
WANTED = 28
FIRST_RISE = 29
RISE_NUM = 30
RISE_DEN = 31  # 0: it never does
BASE = 32  # pages held before the first of its own; should there be others between, it has to look at demand anew
STREAM_FIELDS = 33

# What follows the end of a stream: something at once; or once all of its kind have ended; or nothing.
AT_ONCE = 0
BY_ALL = 1
BY_NOTHING = 2

# Kinds of streams, by what their pages are.
WRITES = 0  # a stage: its strips
KERNEL = 1  # a stage: its strips, and then pages that the kernel keeps
SCRUBBING = 2  # a stage: what of its strips is free and holds no data
HOLDS = 3  # a stage: pages that services and applications hold
GROWS = 4  # the same, as demand asks for them
DIRTIES = 5  # the same, for as long as there are any
CACHES = 6  # page cache, up to its share
GIVES = 7  # pages that go to the balloon

# What is common.
FREE = 0  # since when the lock is free
LOCKED = 1  # ns that it was held, added up
LAST = 2  # no batch but the first begins later
TURN = 3  # whose turn it is, and was
HOW = 4
GIVEN = 5  # pages of the last batch that Xen took, where it did not take all
PIECES = 6  # pairs in `pieces` then
ZEROED = 7  # pages of that batch that were zeroed
CALM = 8  # up to then what is given where nothing is owed may go to the host [BA-5]
FREED = 9  # pages that went to the host
ACTS = 10  # batches made
SKIPS = 11  # a guest without entries may be skipped, and is
INERT = 12
RESIDENT = 13
CACHE = 14
ALLOCATED = 15  # pages of the kernel that came from the allocator
HELD = 16
FLOOR = 17
RAM_PAGES = 18
KERNEL_PAGES = 19
EXTRA = 20  # the device model's pages
PEAK = 21  # most that ever held data
MARGIN = 22  # and how close it came to what is owned
OWNED = 23
PATTERN_COUNTS = 24  # Xen does not know the pattern, so that it is data
SERVED = 25  # most ns that a page takes while nothing is owed; -1: it may be any
PAID = 26  # when the debt was first seen to be 0; -1: not yet
MORE = 27  # so many more runs there must be room for in each of the books
ENTRIES = 28  # entry_count afterwards,
DEBT = 29  # and what is owed
GOING = 30  # streams followed BY_ALL that have not ended
HEAP = 31  # the first batch may touch the host's heap: it is its turn
FREED_FROM = 32  # of what went to the host: when the first did,
FREED_LAST = 33  # and the last;
FREED_MOMENT = 34  # pages times ns since the first, added up
OTHERS = 35  # when the first batch of anybody else in the list is due
COMMON = 36

# How a call ended, beside DIED, CUT_SHORT and HEAP_NEXT of batches.py: the next batch is larger than the debt, and
# neither within the CALM nor one that may.
ON_TIME = ALL_GIVEN  # all that begins by LAST is done, or a stream has come to its end
PLAIN_NEXT = 4  # the next batch comes to more than pages
BOOKS_FULL = 5  # there must be more room in `b` or in `pieces`, or another sum of what went to the host

NEVER = 1 << 62
FREED_NS = 1 << 40  # so long at most from the first page that went to the host, or came from it, to the last, ...
FREED_MOST = 1 << 61  # ... and no more than that and one act adds up, in one call
TOGETHER = 1 << 18  # pages that several batches give to the host in one act


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
    due = p[at + ANCHOR] + muldiv(page, p[at + NUM], p[at + DEN])
    if p[at + RISE_DEN]:
        rise = p[at + FIRST_RISE] + page
        if rise > 0:
            due = max(due, p[at + WANTED] - muldiv(-rise, p[at + RISE_NUM], p[at + RISE_DEN]))
    return int(due)


@routine
def _ready(p: Ints, c: Ints, at: int) -> int:
    """When the stream at `at` can begin its next act [LK-1]."""
    due = p[at + NEXT]
    if p[at + OVER] or (c[INERT] and p[at + KIND] != GIVES):
        return int(due)
    return int(max(due, c[FREE]))


@routine
def _take_turns(p: Ints, c: Ints) -> None:
    """Whose TURN it is: the stream that can begin first [LK-1]; and when the first batch of all OTHERS is due."""
    found = 0
    found_ready = NEVER
    found_due = NEVER
    first = NEVER  # of all instants, and the second
    second = NEVER
    for k in range(p.shape[0] // STREAM_FIELDS):
        due = int(p[k * STREAM_FIELDS + NEXT])
        ready = _ready(p, c, k * STREAM_FIELDS)
        if ready < found_ready or (ready == found_ready and due < found_due):
            found = k
            found_ready = ready
            found_due = due
        second = min(second, max(first, due))
        first = min(first, due)
    c[TURN] = found
    c[OTHERS] = second if found_due == first else first


@routine
def _others_next(p: Ints, k: int) -> int:
    """When the first batch of all streams but number `k` is due: nobody else can begin before."""
    first = NEVER
    for other in range(p.shape[0] // STREAM_FIELDS):
        if other != k:
            first = min(first, int(p[other * STREAM_FIELDS + NEXT]))
    return int(first)


# -- counts of the guest -----------------------------------------------------------------------------------------------


@routine
def _room(c: Ints, b: PageBooks) -> int:
    """Pages that held memory and page cache can have together."""
    return int(c[RAM_PAGES] - b.away[PAGES] - c[KERNEL_PAGES])


@routine
def free_pages(c: Ints, b: PageBooks) -> int:
    """Pages not in use and not spoken for."""
    return int(_room(c, b) - c[RESIDENT] - c[CACHE])


@routine
def in_use(c: Ints) -> int:
    """Pages out of the allocator."""
    return int(c[ALLOCATED] + c[RESIDENT] + c[CACHE])


@routine
def cache_room(c: Ints, b: PageBooks, max_share: float, floor_share: float) -> int:
    """Pages by which page cache may grow (G4)."""
    available = _room(c, b) - c[RESIDENT]
    most = np.int64(max_share * available)
    floor = np.int64(floor_share * (c[RAM_PAGES] - b.away[PAGES]))
    return int(max(0, min(most, available - floor) - c[CACHE]))


@routine
def _fill_room(c: Ints, b: PageBooks, kind: int, max_share: float, floor_share: float) -> int:
    """Pages that there are for a stream that fills memory."""
    if kind == CACHES:
        return cache_room(c, b, max_share, floor_share)
    return int(_room(c, b) - c[RESIDENT])


@routine
def _watch(c: Ints, b: PageBooks) -> None:
    """[G11]"""
    needed = b.data[PAGES] + c[EXTRA]
    c[PEAK] = max(c[PEAK], needed)
    c[MARGIN] = min(c[MARGIN], c[OWNED] - needed)


@routine
def _count_entries(g: DomainState, c: Ints) -> None:
    """[G12]"""
    if c[SKIPS] and g.rec[0].entry_count == 0:
        c[INERT] = 1


# -- what a batch is ---------------------------------------------------------------------------------------------------


@routine
def _size(c: Ints, b: PageBooks, p: Ints, at: int, max_share: float, floor_share: float) -> int:
    """Pages of the next batch; below 0 if it comes to more than pages."""
    kind = p[at + KIND]
    batch = p[at + BATCH]
    if kind == GIVES:
        need = p[at + GOAL] - b.away[PAGES]
        size = min(need, batch)
        counted = _room(c, b) - c[RESIDENT] - p[at + KEPT]
        certain = counted >= p[at + LEAST] or (p[at + EXACT] != 0 and counted >= need)
        plain = not certain or c[HELD] > c[RESIDENT] or p[at + NEXT] > p[at + UNTIL]
        return -1 if plain or size > free_pages(c, b) else int(size)
    if kind == DIRTIES or kind == CACHES:
        size = min(batch, _fill_room(c, b, kind, max_share, floor_share))
        if kind == CACHES:
            return int(min(size, free_pages(c, b)))
    else:
        size = min(batch, p[at + UPTO] - p[at + DONE])
        if kind == GROWS and c[HELD] != p[at + BASE] + p[at + DONE]:
            return -1
        if kind == KERNEL and p[at + DONE] + size > p[at + STRIP_PAGES] and _room(c, b) < c[RESIDENT]:
            return -1
    if HOLDS <= kind <= DIRTIES and (c[HELD] > c[RESIDENT] or size > _room(c, b) - c[HELD] or size > free_pages(c, b)):
        return -1
    return int(size)


@routine
def _batches_by(p: Ints, at: int, most: int, ns: int, last: int) -> int:
    """How many of the next `most` batches of the stream at `at` begin by `last`, the next in any case, if each takes
    Xen `ns` and holds up those after it by that.
    """
    batch = p[at + BATCH]
    done = p[at + DONE]
    low = np.int64(1)
    high = np.int64(most)
    while low < high:
        middle = (low + high + 1) // 2
        if _due(p, at, done + (middle - 1) * batch) + (middle - 1) * ns <= last:
            low = middle
        else:
            high = middle - 1
    return int(low)


@routine
def _with_others(c: Ints, b: PageBooks, p: Ints, at: int, size: int, max_share: float, floor_share: float) -> int:
    """The next batch of `size` pages, and all that may be made in one with it: pages.

    Where nothing is owed Xen serves each page from the cache, whenever that is, in no more than so much time: neither
    reclaim nor a death can be among them. As long as nobody else's turn can come before the last of them begins, which
    is left out, no lock is waited for, and what they take adds up.
    """
    kind = p[at + KIND]
    batch = p[at + BATCH]
    done = p[at + DONE]
    if size < batch or p[at + NEXT] < c[FREE] or done < p[at + STRIP_PAGES]:
        return size
    most = _fill_room(c, b, kind, max_share, floor_share) if kind >= DIRTIES else p[at + UPTO] - done
    most = min(most, free_pages(c, b))
    if kind != CACHES and kind != KERNEL:
        most = min(most, _room(c, b) - c[HELD])
    ns = 0 if c[INERT] else batch * c[SERVED]
    batches = _batches_by(p, at, most // batch, ns, min(min(c[LAST], p[at + UNTIL]), c[OTHERS] - 1))
    return int(max(batches - 1, 1) * batch)


@routine
def _promised_on_top(h: HostState, g: DomainState, b: PageBooks, pages: int) -> int:
    """How many of the topmost `pages` pages of the pool are promises, before the first that is not."""
    found = 0
    run = FIRST + 2 * b.pool[RUNS] - 2
    while found < pages and run >= FIRST:
        gfn = b.pool[run] + b.pool[run + 1] - 1
        while found < pages and gfn >= b.pool[run]:
            block = gfn >> 9
            low = max(b.pool[run], block << 9)
            end = next_page(h, int(g.blk[block, POD_ROW]), gfn & 511, (low & 511) - 1, -1, ALL)
            found += (gfn & 511) - end
            gfn = (block << 9) + end
            if gfn >= low:
                return int(min(found, pages))
        run -= 2
    return int(min(found, pages))


@routine
def _given_together(h: HostState, g: DomainState, c: Ints, b: PageBooks, p: Ints, at: int, size: int) -> int:
    """How many batches of the balloon, the next and those after it, are alike and come before anybody else's turn, less
    the last of them: that is made by itself, and says when the lock is free.

    All that they give back are promises, within what is owed; or nothing is owed, and for each page one goes to the
    host, which nobody else takes from or looks at meanwhile. Either way Xen takes the same time for each batch, and
    nothing but these pages changes. So each is due as much later.
    """
    batch = p[at + BATCH]
    if size < batch or p[at + NEXT] < c[FREE] or p[at + UPWARDS] or (p[at + SCRUBS] and not c[INERT]):
        return 1
    hr = h.rec[0]
    debt = g.rec[0].entry_count - g.rec[0].cache_count
    most = min(p[at + GOAL] - b.away[PAGES] - 1, _room(c, b) - c[RESIDENT] - p[at + KEPT] - p[at + LEAST] + batch)
    last = min(min(c[LAST], p[at + UNTIL]), c[OTHERS] - 1)
    if debt > 0:
        most = min(most, debt)
        if b.taken[PAGES] > in_use(c):
            return 1
    else:
        most = min(most, TOGETHER)
        last = min(min(last, c[CALM]), (c[FREED_FROM] if c[FREED] else p[at + NEXT]) + FREED_NS)
        surplus = debt < 0 and not c[INERT]
        if surplus or c[PAID] < 0 or hr.words or not hr.scrub_on_free or p[at + NEXT] > last:
            return 1
    if hr.whole_extents or p[at + NEXT] != _due(p, at, p[at + DONE]):
        return 1
    ns = hr.hypercall_ns + batch * hr.look_ns
    batches = _batches_by(p, at, min(most, free_pages(c, b)) // batch, ns, last)
    if batches < 3:
        return 1
    if debt > 0:
        batches = min(batches, _promised_on_top(h, g, b, batches * batch) // batch)
    return int(max(batches - 1, 1))


@routine
def _runs_of(c: Ints, b: PageBooks, p: Ints, at: int, size: int) -> int:
    """How many more runs there may be in any of the books after a batch of so many pages."""
    if p[at + KIND] == SCRUBBING:  # what lies between is of no other block than they
        return int(size // BLOCK_PAGES + p[at + STRIP_END] - p[at + STRIP] + 1)
    handled = runs_of(b.pool, size) + runs_of(b.taken, b.taken[PAGES] - in_use(c)) + p[at + STRIP_END] - p[at + STRIP]
    return int(min(size, handled)) + 2


@routine
def _scrub(h: HostState, g: DomainState, b: PageBooks, c: Ints, first: int, count: int, step: int, content: int) -> int:
    """Write what of the pages from `first` on is free and holds no data; pages gone through, fewer only at a death."""
    if c[INERT]:
        return count
    gone = 0
    while gone < count:
        gfn = first + gone * step
        reach = free_reach(b.data, b.away, b.reserved, gfn, step, count - gone)
        pages = abs(reach)
        if reach > 0:
            done = write_range(h, g, gfn, pages, step, content)
            if content == PATTERN and c[PATTERN_COUNTS]:
                set_add(b.data, gfn if step > 0 else gfn - done + 1, done)
            if done < pages:
                return int(gone + done)
        gone += pages
    _count_entries(g, c)
    _watch(c, b)
    return count


@routine
def _write_strips(
    h: HostState, g: DomainState, b: PageBooks, c: Ints, p: Ints, at: int, strips: Ints, pages: int
) -> int:
    """Write the next pages of a stage's strips, as many of `pages` as there are; those done, below 0 at a death."""
    content = p[at + CONTENT]
    wrote = 0
    while wrote < pages and p[at + STRIP] < p[at + STRIP_END]:
        k = 2 * p[at + STRIP]
        count = abs(strips[k + 1])
        used = p[at + STRIP_DONE]
        take = min(count - used, pages - wrote)
        step = -1 if strips[k + 1] < 0 else 1
        first = strips[k] + (count - used - 1 if step < 0 else used)
        done = take
        if p[at + KIND] == SCRUBBING:
            done = _scrub(h, g, b, c, first, take, step, content)
        else:
            if not c[INERT]:
                done = write_range(h, g, first, take, step, content)
            set_add(b.data, first if step > 0 else first - done + 1, done)
        if done < take:
            return -1
        wrote += take
        p[at + STRIP_DONE] += take
        if p[at + STRIP_DONE] == count:
            p[at + STRIP] += 1
            p[at + STRIP_DONE] = 0
    if wrote and p[at + KIND] != SCRUBBING:
        _count_entries(g, c)
        _watch(c, b)
    return int(wrote)


@routine
def take_fresh(h: HostState, g: DomainState, b: PageBooks, inert: bool, pages: int, pieces: Ints) -> int:
    """Take pages that nobody has written yet and write data to them, unless that changes nothing [G12]; pages written,
    fewer only if the guest died in the next.
    """
    n = draw(b.pool, pages, pieces, 0)
    for k in range(n):
        push(b.taken, pieces[2 * k], pieces[2 * k + 1], True)
    wrote = 0
    for k in range(n):
        first = pieces[2 * k]
        count = pieces[2 * k + 1]
        done = count
        if not inert:
            done = write_range(h, g, first + count - 1, count, -1, DATA)
        set_add(b.data, first + count - done, done)
        wrote += done
        if done < count:
            break
    return int(wrote)


@routine
def occupy(h: HostState, g: DomainState, b: PageBooks, c: Ints, pages: int, pieces: Ints) -> bool:
    """Take pages into use, and write data to those never written; whether the guest lives."""
    fresh = int(pages - (b.taken[PAGES] - in_use(c)))
    if fresh <= 0:
        return True
    if take_fresh(h, g, b, c[INERT] != 0, fresh, pieces) < fresh:
        return False
    _count_entries(g, c)
    _watch(c, b)
    return True


@routine
def _take(
    h: HostState, g: DomainState, b: PageBooks, c: Ints, p: Ints, at: int, size: int, strips: Ints, pieces: Ints
) -> bool:
    """The next batch of a stream that writes; whether the guest lives."""
    kind = p[at + KIND]
    wrote = _write_strips(h, g, b, c, p, at, strips, size)
    if wrote < 0:
        return False
    left = size - wrote
    if kind == DIRTIES and left == 0:  # others have left it nothing; all that is held stays so
        c[FLOOR] = c[HELD]
    if kind == WRITES or kind == SCRUBBING or left == 0:
        return True
    lives = occupy(h, g, b, c, left, pieces)
    if kind == KERNEL:
        c[ALLOCATED] += left
    elif kind == CACHES:
        c[CACHE] += left
    else:
        c[RESIDENT] += left
        if lives:
            c[HELD] += left
        if p[at + KEEPS]:
            c[FLOOR] += left
        if kind == DIRTIES:
            c[FLOOR] = c[HELD]
    return lives


@routine
def _give(
    h: HostState, g: DomainState, b: PageBooks, c: Ints, p: Ints, at: int, size: int, pieces: Ints, out: Ints
) -> int:
    """The next batch of the balloon, or several: how it ended."""
    n = draw_spare(b.taken, in_use(c), size, pieces)
    pages = np.int64(0)
    for k in range(n):
        pages += pieces[2 * k + 1]
    n = draw(b.pool, int(size - pages), pieces, n)
    out[:] = 0
    zeroes = p[at + SCRUBS] != 0 and not c[INERT]  # [G12]
    how = hand_over(h, g, pieces, n, p[at + UPWARDS] != 0, zeroes, out)
    c[PIECES] = n
    c[GIVEN] = out[B_GIVEN]
    c[ZEROED] = out[B_ZEROED]
    if how == DIED:
        return int(how)
    c[OWNED] = g.rec[0].tot_pages
    if c[PAID] < 0 and g.rec[0].entry_count <= g.rec[0].cache_count:
        c[PAID] = p[at + BEGAN]
    _count_entries(g, c)
    if how == ALL_GIVEN:
        for k in range(n):
            first = pieces[2 * k]
            count = pieces[2 * k + 1]
            set_remove(b.data, first, count)
            set_add(b.away, first, count)
            push(b.balloon, first, count, True)
        _watch(c, b)
    return int(how)


@routine
def _ends_quietly(p: Ints, c: Ints, at: int) -> bool:
    """Whether nothing follows the end of the stream at `at` yet; then it is put down."""
    followed = p[at + FOLLOWED]
    if followed == AT_ONCE or (followed == BY_ALL and c[GOING] == 1):
        return False
    if followed == BY_ALL:
        c[GOING] -= 1
    p[at + BEGAN] = p[at + NEXT]
    p[at + NEXT] = NEVER
    return True


@routine
def _note_freed(c: Ints, pages: int, at: int) -> None:
    """So many pages have gone to the host."""
    if c[FREED] == 0:
        c[FREED_FROM] = at
    c[FREED] += pages
    c[FREED_LAST] = at
    c[FREED_MOMENT] += pages * (at - c[FREED_FROM])


@routine
def _is_freed_full(c: Ints, at: int) -> bool:
    """Whether what goes to the host from here on has to be another sum."""
    return bool(c[FREED] > 0 and (c[FREED_MOMENT] > FREED_MOST or at - c[FREED_FROM] > FREED_NS))


@kernel
def run_merged(
    h: HostState,
    g: DomainState,
    b: PageBooks,
    c: Ints,
    p: Ints,
    strips: Ints,
    pieces: Ints,
    out: Ints,
    max_share: float,
    floor_share: float,
) -> None:
    """Run the streams `p` in order of time; all arguments but `strips` say how far they came.

    A batch of the balloon that was cut short is no longer in the stacks, and in no set: its pages are in `pieces`.
    """
    r = g.rec[0]
    k = c[TURN]
    at = k * STREAM_FIELDS
    c[OTHERS] = _others_next(p, k)
    fit = 0  # so many more runs certainly fit in each of the books
    c[ACTS] = 0
    c[HOW] = ON_TIME
    while True:
        if c[ACTS] and max(p[at + NEXT], c[FREE]) >= c[OTHERS]:
            _take_turns(p, c)
            k = c[TURN]
            at = k * STREAM_FIELDS
        kind = p[at + KIND]
        due = p[at + NEXT]
        if due >= NEVER or (c[ACTS] and _ready(p, c, at) > c[LAST]):
            break
        if p[at + OVER]:
            if _ends_quietly(p, c, at):
                continue
            break
        size = _size(c, b, p, at, max_share, floor_share)
        if size < 0:
            c[HOW] = PLAIN_NEXT
            break
        debt = r.entry_count - r.cache_count
        if kind == GIVES and debt < size and (debt > 0 or max(due, c[FREE]) > c[CALM]):
            if c[ACTS] or not c[HEAP]:
                c[HOW] = HEAP_NEXT
                break
        batches = 1
        if kind == GIVES:
            batches = _given_together(h, g, c, b, p, at, size)
            size *= batches
        elif (c[INERT] or (debt <= 0 and c[SERVED] >= 0)) and kind != SCRUBBING:
            size = _with_others(c, b, p, at, size, max_share, floor_share)
        if kind != SCRUBBING or p[at + CONTENT] == PATTERN:
            more = _runs_of(c, b, p, at, size)
            if more > fit:
                fit = min(min(runs_fit(b.data), room_of(b.taken)), min(runs_fit(b.away), room_of(b.balloon)))
                fit = min(fit, pieces.shape[0] // 2)
            if more > fit or (kind == GIVES and _is_freed_full(c, max(due, c[FREE]))):
                c[MORE] = more
                c[HOW] = BOOKS_FULL
                break
            fit -= more
        c[ACTS] += 1
        began = max(due, c[FREE])
        p[at + BEGAN] = began
        p[at + PART] = size
        r.now_ns = began
        r.vcpu = p[at + VCPU]
        r.irqs_on = p[at + IRQS]
        how = ON_TIME
        if kind == GIVES:
            owned = r.tot_pages
            batch = p[at + BATCH]
            how = _give(h, g, b, c, p, at, size, pieces, out)
            r.now_ns += (batches - 1) * h.rec[0].hypercall_ns
            if r.tot_pages < owned:
                each = (owned - r.tot_pages) // batches
                ns = (r.now_ns - began) // batches
                for one in range(batches):
                    _note_freed(c, each, began if one == 0 else _due(p, at, p[at + DONE] + one * batch) + one * ns)
        elif not _take(h, g, b, c, p, at, size, strips, pieces):
            how = DIED
        end = r.now_ns
        if end != began:
            c[LOCKED] += end - began
            c[FREE] = end
        if how != ON_TIME:
            c[HOW] = how
            p[at + NEXT] = max(began, _due(p, at, p[at + DONE]))
            break
        if end != began:
            p[at + ANCHOR] += end - due
            p[at + LATE] += end - due
        done = p[at + DONE] + size
        if kind >= DIRTIES:
            p[at + DONE] += max(size, p[at + BATCH])
        else:
            p[at + DONE] = done
        p[at + NEXT] = max(began, _due(p, at, p[at + DONE]))
        if kind == GIVES:
            if b.away[PAGES] == p[at + GOAL]:
                p[at + OVER] = 1
                p[at + NEXT] = max(began, _due(p, at, done))
        elif kind >= DIRTIES:
            if _fill_room(c, b, kind, max_share, floor_share) == 0:
                p[at + NEXT] = NEVER
        elif done == p[at + UPTO] or _due(p, at, done) > p[at + UNTIL]:
            p[at + OVER] = 1
            if kind == GROWS:
                p[at + NEXT] = max(began, p[at + UNTIL])
    c[OWNED] = r.tot_pages
    c[ENTRIES] = r.entry_count
    c[DEBT] = r.entry_count - r.cache_count
