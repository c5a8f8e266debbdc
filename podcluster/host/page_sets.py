"""Sets of a guest's pages in flat arrays, for kernels.

What        A *set* of gfns, by blocks of 2 MiB: one is empty, full, or has a row of 512 bits. `PageBooks` is all that
            one guest has of sets and stacks (page_stacks.py).
Units       Pages of 4 KiB; a row is eight words of 64 bits.
Form        [rows in use, pages, blocks, first free row, rows ever used; the row of each block, two to a word; rows].
            Rows NONE and FULL are shared and never written. What lies beyond the last block is in no set. Nothing here
            makes room: whoever adds or removes sees beforehand that there is some (`runs_fit`).
Why so      Memory that is taken in random pieces of some 64 pages is thousands of runs: to find one and to make way for
            it is many times the work of setting a word.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.heap import ALL, U0, span_mask
from podcluster.host.kernel import clz, ctz, kernel, popcount, routine
from podcluster.host.layout import Arrays, fields
from podcluster.host.state import BLOCK_PAGES

Ints = npt.NDArray[np.int64]

USED = 0  # rows in use, beside the shared ones
PAGES = 1
BLOCKS = 2
FREE_ROW = 3  # whose first word is the next one; 0 none
TOP_ROW = 4  # those from here on were never used
TABLE = 5  # field of the first blocks

NONE = 0  # rows of blocks of which no page is in the set,
FULL = 1  # or every one
ROW_WORDS = 8
TWO_PAGES = 2 * BLOCK_PAGES  # of the blocks whose rows are in one word,
TWO_FULL = FULL << 32 | FULL  # and that word if both are full

PLENTY = 1 << 40  # runs fit, for there is a row for every block


class PageBooks(Arrays):
    """The sets and stacks of one guest (guest_memory.py)."""

    FIELDS = fields(
        ("data", np.int64),
        ("away", np.int64),
        ("reserved", np.int64),
        ("balloon", np.int64),
        ("pool", np.int64),
        ("taken", np.int64),
    )
    data: Ints  # set: gfns that hold data
    away: Ints  # set: ballooned ones
    reserved: Ints  # set: firmware's, and the kernel's image
    balloon: Ints  # stack: ballooned ones in the order in which they went
    pool: Ints  # stack: what the allocator has not handed out, the next on top
    taken: Ints  # stack: what it has, and what was not ballooned since


@routine
def _word(a: Ints, row: int, w: int) -> int:
    """Where word `w` of a row is."""
    return int(TABLE + (a[BLOCKS] + 1) // 2 + ROW_WORDS * row + w)


@routine
def runs_fit(a: Ints) -> int:
    """How many more runs there is certainly room for, each of which may leave two blocks in part."""
    rows = (a.shape[0] - _word(a, 2, 0)) // ROW_WORDS
    return PLENTY if rows >= a[BLOCKS] else int((rows - a[USED]) // 2)


@routine
def _row(a: Ints, b: int) -> int:
    """The row of a block."""
    if b >= a[BLOCKS]:
        return NONE
    return int((a[TABLE + (b >> 1)] >> ((b & 1) << 5)) & 0xFFFFFFFF)


@routine
def _set_row(a: Ints, b: int, row: int) -> None:
    at = TABLE + (b >> 1)
    shift = (b & 1) << 5
    a[at] = (a[at] & ~(0xFFFFFFFF << shift)) | (row << shift)


@routine
def _count(a: Ints, row: int) -> int:
    """Pages in a row."""
    if row <= FULL:
        return BLOCK_PAGES * row
    pages = np.int64(0)
    for w in range(ROW_WORDS):
        pages += popcount(np.uint64(a[_word(a, row, w)]))
    return int(pages)


@routine
def _own(a: Ints, b: int, row: int) -> int:
    """A row that block `b` has for itself, as the shared one that it has."""
    new = a[FREE_ROW]
    if new:
        a[FREE_ROW] = a[_word(a, new, 0)]
    else:
        new = a[TOP_ROW]
        a[TOP_ROW] += 1
    a[USED] += 1
    at = _word(a, new, 0)
    fill = a[_word(a, row, 0)]
    for w in range(ROW_WORDS):
        a[at + w] = fill
    _set_row(a, b, new)
    return int(new)


@routine
def _share(a: Ints, b: int, row: int, shared: int) -> None:
    """Have block `b`, whose row is `row`, use a shared one."""
    if row > FULL:
        a[_word(a, row, 0)] = a[FREE_ROW]
        a[FREE_ROW] = row
        a[USED] -= 1
    _set_row(a, b, shared)


@routine
def _put(a: Ints, first: int, count: int, here: bool) -> int:
    """Put pages in, or take them out; how many were not as they are now."""
    changed = np.int64(0)
    shared = FULL if here else NONE
    while count > 0:
        b = first >> 9
        if count >= TWO_PAGES and first & (TWO_PAGES - 1) == 0 and a[TABLE + (b >> 1)] & ~TWO_FULL == 0:
            # Both blocks of a word, in one of the shared rows each.
            two = TWO_FULL * shared
            changed += BLOCK_PAGES * popcount(np.uint64(a[TABLE + (b >> 1)] ^ two))
            a[TABLE + (b >> 1)] = two
            first += TWO_PAGES
            count -= TWO_PAGES
            continue
        i = first & (BLOCK_PAGES - 1)
        n = min(count, BLOCK_PAGES - i)
        first += n
        count -= n
        row = _row(a, b)
        if row == shared:
            continue
        if n == BLOCK_PAGES:
            pages = _count(a, row)
            changed += BLOCK_PAGES - pages if here else pages
            _share(a, b, row, shared)
            continue
        if row <= FULL:
            row = _own(a, b, row)
        at = _word(a, row, 0)
        fill = ALL if here else U0
        while n > 0:
            span = min(n, 64 - (i & 63))
            mask = span_mask(i & 63, span)
            before = np.uint64(a[at + (i >> 6)])
            after = before | mask if here else before & ~mask
            changed += popcount(before ^ after)
            a[at + (i >> 6)] = np.int64(after)
            i += span
            n -= span
        w = 0
        while w < ROW_WORDS and np.uint64(a[at + w]) == fill:
            w += 1
        if w == ROW_WORDS:
            _share(a, b, row, shared)
    return int(changed)


@kernel
def set_add(a: Ints, first: int, count: int) -> int:
    """Put pages in; how many were not there."""
    added = _put(a, first, count, True)
    a[PAGES] += added
    return int(added)


@kernel
def set_remove(a: Ints, first: int, count: int) -> int:
    """Take pages out; how many were there."""
    known = int(BLOCK_PAGES * a[BLOCKS])
    removed = _put(a, first, min(count, known - first), False)
    a[PAGES] -= removed
    return int(removed)


@kernel
def add_runs(a: Ints, runs: Ints) -> None:
    """Put in what lies between pairs of the first gfn and the end."""
    for k in range(runs.shape[0] // 2):
        set_add(a, runs[2 * k], runs[2 * k + 1] - runs[2 * k])


@routine
def free_reach(data: Ints, away: Ints, reserved: Ints, gfn: int, step: int, limit: int) -> int:
    """Going on from `gfn`: how many pages are in none of the sets, or, below 0, how many are in any; `limit` at most,
    which is not 0.
    """
    gone = 0
    busy = False
    while gone < limit:
        b = gfn >> 9
        i = gfn & (BLOCK_PAGES - 1)
        x = _row(data, b)
        y = _row(away, b)
        z = _row(reserved, b)
        if x == FULL or y == FULL or z == FULL or x + y + z == NONE:
            here = x + y + z != NONE
            n = BLOCK_PAGES - i if step > 0 else i + 1
        else:
            w = i >> 6
            bits = np.uint64(data[_word(data, x, w)] | away[_word(away, y, w)] | reserved[_word(reserved, z, w)])
            here = bits & span_mask(i & 63, 1) != U0
            if here:
                bits = ~bits
            if step > 0:
                n = min(ctz(bits >> np.uint64(i & 63)), 64 - (i & 63))
            else:
                n = min(clz(bits << np.uint64(63 - (i & 63))), (i & 63) + 1)
        if gone == 0:
            busy = here
        elif here != busy:
            break
        gone += n
        gfn += n * step
    gone = min(gone, limit)
    return int(-gone if busy else gone)


@kernel
def list_free(data: Ints, away: Ints, reserved: Ints, first: int, count: int, step: int, pieces: Ints) -> int:
    """What of the pages from `first` on is in none of the sets, as (first gfn, pages) in the order in which they are
    gone through, as many as `pieces` has room for behind its first field, in which there is how many pages were gone
    through; how many.
    """
    n = 0
    gone = 0
    while gone < count and 2 * n + 2 < pieces.shape[0]:
        gfn = first + gone * step
        reach = free_reach(data, away, reserved, gfn, step, count - gone)
        pages = abs(reach)
        if reach > 0:
            pieces[2 * n + 1] = gfn if step > 0 else gfn - pages + 1
            pieces[2 * n + 2] = pages
            n += 1
        gone += pages
    pieces[0] = gone
    return n


@kernel
def list_runs(a: Ints, none: Ints, runs: Ints) -> int:
    """The first gfn and the end of each run of the set, ascending, as many as `runs` has room for; how many there are.
    `none`: a set without pages.
    """
    n = 0
    gfn = 0
    end = int(BLOCK_PAGES * a[BLOCKS])
    while gfn < end:
        reach = free_reach(a, none, none, gfn, 1, end - gfn)
        if reach < 0:
            if 2 * n + 2 <= runs.shape[0]:
                runs[2 * n] = gfn
                runs[2 * n + 1] = gfn - reach
            n += 1
        gfn += abs(reach)
    return n
