"""What pages hold: two bits for every page, and the words themselves where they are kept.

What        The content bits of mapped pages (any word not zero; one of the first 16 not zero), and the hash of words
            that lets reads return what was written (golden traces).
Units       Pages of 4 KiB; i is a page of block b, wi and m a word of a row and a mask in it; a word is 64 bits.
Invariants  HEAD is a subset of ANY is a subset of RAM_ROW. While HEAD and ANY are equal they are one row. A word
            counts only in its page's present generation: clearing a page begins the next one.
            PATTERNED is a subset of HEAD and POD_ROW: the pattern is not zero.
Departs     A page holds the pattern if it was written with it as a whole, and not since; pages that hold it in their
            first 128 bytes alone are plain data. Not kept where words are.
"""

import numpy as np

from podcluster.host.heap import U1
from podcluster.host.kernel import kernel, routine
from podcluster.host.rows import page_bit, row_give, row_own, row_write
from podcluster.host.state import (
    ANY,
    HEAD,
    HEAD_WORDS,
    ONES,
    PATTERNED,
    RAM_ROW,
    STALE_ANY,
    STALE_HEAD,
    ZEROS,
    DomainState,
    HostState,
)


@routine
def contents_set(h: HostState, g: DomainState, b: int, wi: int, m: np.uint64, data: bool) -> None:
    """The pages of mask `m` now hold data in their heads (and so in all), or zeroes."""
    both = g.blk[b, HEAD] == g.blk[b, ANY]
    row_write(h, g, b, HEAD, wi, m, data)
    if both:
        g.blk[b, ANY] = g.blk[b, HEAD]
    else:
        row_write(h, g, b, ANY, wi, m, data)


@routine
def contents_uniform(h: HostState, g: DomainState, b: int, row: int) -> None:
    """All pages of block `b` hold data (`row` ONES) or nothing but zeroes (ZEROS)."""
    head = g.blk[b, HEAD]
    any_row = g.blk[b, ANY]
    row_give(h, head)
    if any_row != head:
        row_give(h, any_row)
    g.blk[b, HEAD] = row
    g.blk[b, ANY] = row


@routine
def pattern_set(h: HostState, g: DomainState, b: int, wi: int, m: np.uint64, on: bool) -> None:
    """The pages of mask `m` now hold, or promise, the scrub pattern all over, or do not."""
    row_write(h, g, b, PATTERNED, wi, m, on)


@routine
def pattern_uniform(h: HostState, g: DomainState, b: int, row: int) -> None:
    """All pages of block `b` hold, or promise, the scrub pattern (`row` ONES), or none does (ZEROS)."""
    row_give(h, int(g.blk[b, PATTERNED]))
    g.blk[b, PATTERNED] = row


@routine
def head_passes(h: HostState, g: DomainState, b: int, wi: int) -> np.uint64:
    """RAM pages whose first 128 bytes are zero, or the pattern where one is registered [S2]."""
    passes = ~h.row[g.blk[b, HEAD], wi]
    if g.rec[0].scrub_pattern:
        passes |= h.row[g.blk[b, PATTERNED], wi]
    return np.uint64(h.row[g.blk[b, RAM_ROW], wi] & passes)


@routine
def holds_pattern(h: HostState, g: DomainState, b: int, i: int) -> bool:
    """Whether RAM page `i` is filled with a registered pattern [S1]."""
    return bool(g.rec[0].scrub_pattern and page_bit(h, int(g.blk[b, PATTERNED]), i))


@routine
def contents_set_bits(h: HostState, g: DomainState, b: int, i: int, any_bit: bool, head_bit: bool) -> None:
    """Set the two content bits of one page, which may differ from each other."""
    if any_bit == head_bit:
        contents_set(h, g, b, i >> 6, U1 << np.uint64(i & 63), any_bit)
        return
    # Only ANY: the two rows part company here.
    head = int(g.blk[b, HEAD])
    if head == g.blk[b, ANY] and head > ONES:
        copy = row_own(h, ZEROS)
        for wi in range(8):
            h.row[copy, wi] = h.row[head, wi]
        g.blk[b, ANY] = copy
    m = U1 << np.uint64(i & 63)
    row_write(h, g, b, ANY, i >> 6, m, True)
    row_write(h, g, b, HEAD, i >> 6, m, False)


@routine
def stale_bits(h: HostState, g: DomainState, b: int, i: int) -> int:
    """Contents of a page as the attribute bits of a frame that is not mapped."""
    bits = 0
    if page_bit(h, int(g.blk[b, ANY]), i):
        bits |= STALE_ANY
    if page_bit(h, int(g.blk[b, HEAD]), i):
        bits |= STALE_HEAD
    return bits


@routine
def words_clear(h: HostState, mfn: int) -> None:
    """Zero all words of a frame: what was kept of them belongs to an older generation."""
    if h.rec[0].words:
        h.page_words[mfn] = ((h.page_words[mfn] >> 32) + 1) << 32


@routine
def _word_slot(h: HostState, mfn: int, word: int) -> int:
    """Slot of a word in the hash: where it is, or the empty one where it would go."""
    size = h.words.shape[0]
    key = mfn * 512 + word + 1
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64(mixed >> np.uint64(20)) & (size - 1)
    while h.words[at, 0] != 0 and h.words[at, 0] != key:
        at = (at + 1) & (size - 1)
    return int(at)


@routine
def word_read(h: HostState, mfn: int, word: int) -> int:
    """Value of a word, as the int64 of the same bits."""
    at = _word_slot(h, mfn, word)
    if h.words[at, 0] != 0 and h.words[at, 1] == h.page_words[mfn] >> 32:
        return int(h.words[at, 2])
    return 0


@routine
def word_write(h: HostState, g: DomainState, gfn: int, mfn: int, word: int, value: int) -> None:
    """Write a word of the RAM page at `gfn` and keep its two content bits."""
    old = word_read(h, mfn, word)
    if old != value:
        at = _word_slot(h, mfn, word)
        if h.words[at, 0] == 0:
            h.words[at, 0] = mfn * 512 + word + 1
            h.rec[0].word_count += 1
        h.words[at, 1] = h.page_words[mfn] >> 32
        h.words[at, 2] = value
        change = (1 if old == 0 else 0) - (1 if value == 0 else 0)
        h.page_words[mfn] += change << 16
        if word < HEAD_WORDS:
            h.page_words[mfn] += change
    counts = h.page_words[mfn] & 0xFFFFFFFF
    contents_set_bits(h, g, gfn >> 9, gfn & 511, counts >> 16 != 0, counts & 0xFFFF != 0)


@kernel
def words_rehash(h: HostState, larger: HostState) -> None:
    """Move the words that still count into the empty hash of the same host with more room; sizes are powers of two."""
    size = larger.words.shape[0]
    kept = 0
    for at in range(h.words.shape[0]):
        key = h.words[at, 0]
        if key == 0 or h.words[at, 1] != h.page_words[(key - 1) >> 9] >> 32:
            continue
        mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
        to = np.int64(mixed >> np.uint64(20)) & (size - 1)
        while larger.words[to, 0] != 0:
            to = (to + 1) & (size - 1)
        larger.words[to, 0] = key
        larger.words[to, 1] = h.words[at, 1]
        larger.words[to, 2] = h.words[at, 2]
        kept += 1
    h.rec[0].word_count = kept
