"""Guest accesses to single words: what the golden traces are made of.

What        Read and write of a word at a gfn, and sequences and lists of them in one call; the mapping of a page, and
            of all that are promised in a range.
Units       gfn in frames of 4 KiB; a word is 64 bits, passed as the int64 of the same bits.
Source      docs/golden-traces.md.
"""

import numpy as np
import numpy.typing as npt

from podcluster.host.contents import word_read, word_write
from podcluster.host.kernel import kernel
from podcluster.host.p2m import entry_order, page_kind
from podcluster.host.pod import CRASHED, HOLE, NOT_RUNNING, allocating_lookup
from podcluster.host.state import POD, DomainState, HostState


@kernel
def access_word(h: HostState, g: DomainState, gfn: int, word: int, value: int, write: bool) -> int:
    """One access: 0, or HOLE, CRASHED, NOT_RUNNING. The value read is left in `rec.stream_sum`."""
    mfn = allocating_lookup(h, g, gfn)
    if mfn < 0:
        return mfn
    if write:
        word_write(h, g, gfn, mfn, word, value)
    else:
        g.rec[0].stream_sum = word_read(h, mfn, word)
    return 0


@kernel
def map_promised(h: HostState, g: DomainState, first: int, count: int, by: int) -> int:
    """Domain `by` maps the pages of a range that are promised, until none is; pages of the range gone through, fewer
    only where the next was not to be had.
    """
    r = g.rec[0]
    r.accessor = by
    gfn = first
    while gfn < first + count and r.entry_count > 0:
        if page_kind(h, g, gfn) == POD and allocating_lookup(h, g, gfn) < 0:
            break
        order = entry_order(g, gfn)
        gfn = ((gfn >> order) + 1) << order
    else:
        gfn = first + count
    r.accessor = -1
    return int(gfn - first)


@kernel
def access_list(h: HostState, g: DomainState, gfns: npt.NDArray[np.int64], word: int, value: int, write: bool) -> int:
    """Accesses in the order of `gfns`, up to the first that finds the guest dead: its status, else 0.

    `rec.stream_ok`, `stream_holes` and `stream_sum` hold the counts and the sum of the values read.
    """
    r = g.rec[0]
    ok = 0
    holes = 0
    total = 0
    status = 0
    for k in range(gfns.shape[0]):
        r.stream_sum = 0
        result = access_word(h, g, gfns[k], word, value, write)
        if result == HOLE:
            holes += 1
        elif result == CRASHED or result == NOT_RUNNING:
            status = result
            break
        else:
            ok += 1
            total += r.stream_sum
    r.stream_ok = ok
    r.stream_holes = holes
    r.stream_sum = 0 if write else total
    return status
