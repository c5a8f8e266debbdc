"""The arrays of one machine: what the kernels work on.

What        `HostState` is what all domains of a host share, `DomainState` what one domain has of its own. Both are
            sets of arrays that kernels take and change (layout.py); neither holds an object.
Units       Frames and counts are 4 KiB pages, int64 unless an array says otherwise. A *block* is 512 gfns (2 MiB).
Symbols     h HostState   g DomainState   b index of a block   i page within a block   wi, m word and mask of a row
Blocks      Every 2 MiB of a domain has one record of nine int32 (`KIND` .. `PATTERNED`). Its six bit rows (512 bits
            each) are handles into `h.row`; rows 0 (all zero) and 1 (all one) are shared and never written, so a block
            that is uniform owns no row and every reader works without a case split. `HEAD` and `ANY` may be the same
            row while they are equal. `DETAIL` says which frames are behind a block's RAM: UP, page i has frame BASE +
            i; DOWN, BASE - i; else a handle into `h.detail`, which names the frame of each page. Without RAM it is UP.
            Under a 1 GiB entry (`gib`) the 512 block records are kept valid, so that shattering it changes one word.
Contents    A bit in `ANY`: the page has a word that is not zero; in `HEAD`: one of its first 16 words is not. Bits of
            pages that are not RAM are zero. In `PATTERNED`: a page of RAM holds the guest's scrub pattern all over, or
            a promised one is `pod_scrubbed` and will [S2, S3]. A frame that is neither mapped nor cached keeps its two
            bits of contents in `attr`. Words themselves exist only where `h.rec.words` is set (replay).
Memory      Everything is sized for the worst case in anonymous memory that costs nothing until it is touched.
"""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from podcluster.host.layout import Arrays, fields

HUGE_BYTES = 1 << 21  # of a huge page
SMALL_BYTES = 1 << 20  # an array that may as well be there as a whole

BLOCK_PAGES = 512
GIB_PAGES = 1 << 18
GIB_BLOCKS = 512
SWEEP_LIMIT = 1024  # P11
SWEEP_BATCH = 16  # P10, P11
HEAD_WORDS = 16  # P9, P10: the words that the first check reads

# Kinds of a block (record field KIND), and of a single page where a kernel returns one.
EMPTY = 0
RAM = 1
POD = 2
TABLE = 3  # the block is a table of 512 entries of 4 KiB; never the kind of a page

# Fields of a block record.
KIND = 0
BASE = 1
RAM_ROW = 2
POD_ROW = 3
HEAD = 4
ANY = 5
ODD = 6  # pages whose frame may have an attribute: a superset, looked up in `attr` when it matters
DETAIL = 7
PATTERNED = 8
BLOCK_FIELDS = 9

ZEROS = 0
ONES = 1

# Field DETAIL where a block's frames follow each other; above, a list of frames.
UP = 0
DOWN = -1

# Kinds of a 1 GiB slot (`gib`).
G_NONE = 0  # never set: no table of 1 GiB slots need exist here
G_EMPTY = 1  # emptied by a removal of the whole
G_TABLE = 2
G_POD = 3
G_RAM = 4

# Attributes of a frame (`attr`): flags, then counts of references.
SPECIAL = 1
SHADOWED_PT = 2
LOOSE = 4  # owned, but neither mapped nor cached
DROPPED = 8  # the allocation reference is gone: the frame goes home with its last extra reference
RETIRED = 16  # broken: never free again
STALE_ANY = 32  # contents of a frame that is neither mapped nor cached
STALE_HEAD = 64
STALE = STALE_ANY | STALE_HEAD
REF_SHIFT = 8  # extra references, 24 bits
REF_ONE = 1 << REF_SHIFT
REF_MASK = 0xFFFFFF << REF_SHIFT
SHADOW_SHIFT = 32  # references by shadow mappings, 24 bits
SHADOW_ONE = 1 << SHADOW_SHIFT
SHADOW_MASK = 0xFFFFFF << SHADOW_SHIFT
TYPE_SHIFT = 56  # extra references that count as uses of the frame's type, 7 bits; among the extra ones too [R7]
TYPE_ONE = 1 << TYPE_SHIFT
TYPE_MASK = 0x7F << TYPE_SHIFT

# Cache lists, and the list of frames that destruction has to find.
SUPER = 0  # entries are 2 MiB machine blocks (mfn / 512)
SINGLE = 1  # entries are frames
LOOSE_LIST = 2  # frames owned but unmapped with their allocation reference (P3, populate over RAM)
LISTS = 3
L_HEAD = 0  # chunk that holds the head segment, 0 if the list is empty
L_HEAD_AT = 1
L_TAIL = 2
L_TAIL_AT = 3
L_LENGTH = 4
BATCH = 3  # row of `lists` with the candidates of the sweep's batch in hand, as gfns
LIST_FIELDS = 16
CHUNK_SEGMENTS = 63
CHUNK_NEXT = 126
CHUNK_FIELDS = 128

RING_EMPTY = -1
RING_SUPER = 1 << 62

# What the recent list is for (`h.rec.recent`; the later, the larger).
RECENT_NONE = 0  # there is none [R6]
RECENT_AFTER = 1  # superpages, in debt; what falls out is looked at after the populate (xen2012)
RECENT_IN_DEBT = 2  # P7, P8
RECENT_ALWAYS = 3  # P8 whatever the debt (xen2015)

# Why an equation of a regular life no longer holds for a domain (`rec.irregular`).
TARGET_LOWERED = 1
RAM_OVER_POD = 2
EXTRA_REFERENCES = 4
RAM_ABOVE_TARGET = 8
LOOSE_FRAMES = 16
SPECIAL_PAGES = 32  # a page became special, or a special one was cached
TABLE_CONFLICT = 64  # R1: frames may be mapped and cached at once, or promised and not counted

ENOMEM = -12
EBUSY = -16
EINVAL = -22

ORDERS = 19


COSTS = (
    "look_ns",
    "check_nonzero_ns",
    "check_zero_ns",
    "populate_4k_ns",
    "populate_2m_ns",
    "zero_4k_ns",
    "splinter_ns",
    "hypercall_ns",
)
"""What the hypervisor does that takes simulated time (G6)."""


def _record(*names: str) -> np.dtype[Any]:
    return np.dtype([(name, "<i8") for name in names])


DOMAIN_RECORD = _record(
    "tot_pages",  # owned, special pages left out
    "cache_count",  # frames in the PoD cache
    "entry_count",  # frames of outstanding `pod` entries
    "max_pages",  # quota
    "target",  # last PoD target set, 0 before the first
    "ballooned_to",  # B: gfns that are RAM or promised, kept by the operations and not by counting
    "max_guest",  # highest gfn touched by a demand populate
    "reclaim_single",  # where the next sweep starts, 0: at max_guest
    "reclaim_super",  # where the next superpage sweep starts, 0: below max_guest [R8]
    "mrp_idx",  # next slot of the recent list
    "crashed",
    "dying",
    "shadow",  # paging kind
    "ept",  # table kind
    "sp_1g",  # orders that the table may use
    "sp_2m",
    "blocks",  # block records there are
    "top_gfn",  # highest gfn ever mapped
    "populated_4k",
    "populated_2m",
    "reclaimed_4k",
    "reclaimed_2m",
    "splintered_2m",
    "sweeps",
    "sweep_looks",  # gfns that they looked at
    "super_sweeps",
    "claim",  # outstanding claim
    "built",  # set by the builder: from here on the debt is not negative
    "beside",  # RAM that the builder put beside the target: video RAM, ROMs
    "irregular",
    "loose",  # frames owned, counted in tot_pages, neither mapped nor cached
    "odd_cached",  # an upper bound of the cached frames with attributes
    "table_generation",  # moves with every change of the table
    "cache_generation",  # moves with every change of a list
    "generation",  # moves with every call that may change anything
    "conflicts",  # how often a 2 MiB entry was to be set where a table hangs [R1]
    "conflicts_told",
    "locked",  # the table lock was never released [R5]
    "grants",  # entries of `grants`
    "accessor",  # whose accesses these are: -1 the guest's own, else another domain's [R6]
    "oom",  # what the last operation has to report
    "oom_by",  # the accessor then
    "oom_tot",
    "oom_entries",
    "nomem",
    "nomem_target",
    "nomem_cache",
    "asserted",
    "now_ns",  # simulated time of the vCPU that acts (G6)
    "entry_ns",  # when it entered Xen
    "softirq_bin_ns",  # arrivals of work (pending.py): mean time between them, or never, or always
    "irq_bin_ns",
    "pending_key",
    "vcpu",  # which one that is (G7)
    "irqs_on",  # whether it has interrupts enabled
    "scrub_pattern",  # 1: the toolstack has registered a scrub pattern [S1]
    "sweep_from",  # the gfn at which the last sweep began, and the one at which it stopped (0: at the bottom)
    "sweep_to",
    "sweep_wrapped",  # it went on at the top
    "stream_ok",  # what a sequence of accesses returns beside its status
    "stream_holes",
    "stream_sum",
    "stream_pod",
)

HOST_RECORD = _record(
    "frames",  # machine frames there are
    "free",
    "free_2m",  # machine blocks of 2 MiB that are free altogether
    "blocks",
    "claims",  # outstanding, all domains
    "scrub_on_free",
    "preempt",  # 1: whenever the hypervisor polls for pending work, there is some
    "words",  # 1: words of pages are kept
    "sweep_wraps",  # 1: a sweep goes on at the top (not Xen)
    *COSTS,
    "orders",  # orders with a free block, a bit each
    "level0",  # words of the four levels of an order's bit map
    "level1",
    "level2",
    "level3",
    "order_words",
    "row_free",  # head of the list of rows given back, 0: none
    "row_top",  # rows ever taken
    "rows_used",
    "detail_free",
    "detail_top",
    "details_used",
    "chunk_free",
    "chunk_top",
    "chunks_used",
    "word_count",  # slots taken in `words`
    "loose",  # loose and retired frames
    # Which hypervisor this is: switches by what they do (eras.py).
    "recent",  # RECENT_NONE .. RECENT_ALWAYS
    "sweep_yields",  # a sweep stops when the CPU is wanted [P11]
    "fixed_tables",  # a table of 4 KiB entries stays, and a 2 MiB set on it fails [R1]
    "keeps_contents",  # frames are not cleared on their way into the cache [R2]
    "coarse_cache",  # the cache grows and shrinks by superpages [R3, R4]
    "whole_extents",  # an extent is marked and given back whole, and once [R5, R10]
    "early_sweeps",  # a sweep begins when a list is empty, not when the cache is [R6, R8, R9]
    "blind_checks",  # zero checks see type counts and grants and no other reference [R7]
    "promises_stay",  # RAM over `pod` entries leaves entry_count [R12]
)


class HostState(Arrays):
    """What the domains of a host share."""

    FIELDS = fields(
        ("rec", HOST_RECORD),
        ("heap_bits", np.uint64),
        ("heap_rows", np.uint64, (8,)),
        ("heap_masks", np.int32),
        ("attr", np.int64),
        ("row", np.uint64, (8,)),
        ("detail", np.int32, (BLOCK_PAGES,)),
        ("chunk", np.int32, (CHUNK_FIELDS,)),
        ("page_words", np.int64),
        ("words", np.int64, (3,)),
    )
    rec: npt.NDArray[Any]  # HOST_RECORD[1]
    heap_bits: npt.NDArray[np.uint64]  # four-level bit maps of the free blocks, one after another by order
    heap_rows: npt.NDArray[np.uint64]  # [machine block, 8] free frames, where the block is partly free
    heap_masks: npt.NDArray[np.int32]  # [machine block] orders 0-8 with a free block inside; HEAP_ALL: free altogether
    attr: npt.NDArray[np.int64]  # [frame]
    row: npt.NDArray[np.uint64]  # [handle, 8]
    detail: npt.NDArray[np.int32]  # [handle, 512] frames
    chunk: npt.NDArray[np.int32]  # [handle, 128] segments of the lists: (first, signed length) x 63, next
    page_words: npt.NDArray[np.int64]  # [frame] generation << 32 | words not zero << 16 | of them in the head
    words: npt.NDArray[np.int64]  # [slot, 3] key + 1, generation, value: hash of the words that are not zero


class DomainState(Arrays):
    """What a domain has of its own."""

    FIELDS = fields(
        ("rec", DOMAIN_RECORD),
        ("blk", np.int32, (BLOCK_FIELDS,)),
        ("gib", np.int32),
        ("ring", np.int64),
        ("lists", np.int64, (LIST_FIELDS,)),
        ("grants", np.int64),
    )
    rec: npt.NDArray[Any]  # DOMAIN_RECORD[1]
    blk: npt.NDArray[np.int32]  # [block, 8]
    gib: npt.NDArray[np.int32]  # [GiB] kind of the 1 GiB slot
    ring: npt.NDArray[np.int64]  # [slots] recent list: gfn, | RING_SUPER for a superpage, RING_EMPTY
    lists: npt.NDArray[np.int64]  # [4, 16] where the segments of each list are; the last row is a sweep's scratch
    grants: npt.NDArray[np.int64]  # gfns that another domain maps by a grant, as many as `rec.grants` says


def sparse_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike, *, stacked: bool = False) -> npt.NDArray[Any]:
    """Zeroes of `shape` that cost no memory until they are written, in pages of 4 KiB and not in huge ones; of small
    arrays most is written, and memory that others had costs less to clear than the system takes to give some.

    `stacked`: it is written from its beginning on, so that huge ones beyond the first HUGE_BYTES no more than double
    what it costs; the system takes many times as long to give the same memory in small ones.
    """
    kind = np.dtype(dtype)
    count = math.prod(shape)
    size = max(count * kind.itemsize, 1)
    if size < SMALL_BYTES:
        return np.zeros(shape, kind)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    zeroes = np.frombuffer(memory, dtype=kind, count=count)
    if stacked and hasattr(mmap, "MADV_HUGEPAGE"):
        huge = HUGE_BYTES + -zeroes.ctypes.data % HUGE_BYTES
        if huge + HUGE_BYTES <= size:
            memory.madvise(mmap.MADV_HUGEPAGE, huge)
    return zeroes.reshape(shape)


def bitmap_levels(blocks: int) -> tuple[int, int, int, int]:
    """Words in the four levels of a bit map over `blocks` bits."""
    level0 = -(-max(blocks, 1) // 64)
    level1 = -(-level0 // 64)
    level2 = -(-level1 // 64)
    return level0, level1, level2, -(-level2 // 64)


def new_host_state(frames: int, *, scrub_on_free: bool, words: bool, gfn_blocks: int) -> HostState:
    """A host of `frames` frames, none of them free yet, with rows for `gfn_blocks` blocks of guest memory."""
    blocks = -(-frames // BLOCK_PAGES)
    levels = bitmap_levels(blocks)
    rec = np.zeros(1, HOST_RECORD)
    rec["frames"] = frames
    rec["blocks"] = blocks
    rec["scrub_on_free"] = scrub_on_free
    rec["words"] = words
    for name, size in zip(("level0", "level1", "level2", "level3"), levels, strict=True):
        rec[name] = size
    rec["order_words"] = sum(levels)
    rec["row_top"] = 2  # ZEROS and ONES
    rec["detail_top"] = 1  # 0 is UP
    rec["chunk_top"] = 1  # 0 means "no chunk"
    state = HostState(
        rec=rec,
        heap_bits=sparse_zeros((ORDERS * sum(levels),), np.uint64),
        heap_rows=sparse_zeros((blocks, 8), np.uint64),
        heap_masks=sparse_zeros((blocks,), np.int32),
        attr=sparse_zeros((frames,), np.int64),
        row=sparse_zeros((row_capacity(gfn_blocks), 8), np.uint64),
        detail=sparse_zeros((detail_capacity(gfn_blocks), BLOCK_PAGES), np.int32, stacked=True),
        # Every segment holds at least one frame of this host; a list wastes parts of two chunks at most.
        chunk=sparse_zeros((frames // CHUNK_SEGMENTS + 8 * 4096, CHUNK_FIELDS), np.int32),
        page_words=sparse_zeros((frames if words else 1,), np.int64),
        words=sparse_zeros((1 << 14 if words else 1, 3), np.int64),
    )
    state.row[ONES] = np.uint64(0xFFFFFFFFFFFFFFFF)
    return state


def row_capacity(gfn_blocks: int) -> int:
    """Rows that `gfn_blocks` blocks can own at most (six each), and the two shared ones."""
    return 2 + 6 * gfn_blocks


def detail_capacity(gfn_blocks: int) -> int:
    """Frame lists that `gfn_blocks` blocks can own at most."""
    return 1 + gfn_blocks


def grown(array: npt.NDArray[Any], length: int, used: int) -> npt.NDArray[Any]:
    """`array`, which is written from its beginning on, made `length` long with its first `used` entries kept."""
    larger = sparse_zeros((length, *array.shape[1:]), array.dtype, stacked=True)
    larger[:used] = array[:used]
    return larger


def new_domain_state(room: int, ring_slots: int) -> DomainState:
    """A domain with room for `room` blocks of address space (a multiple of 512), all of it unmapped."""
    return DomainState(
        rec=np.zeros(1, DOMAIN_RECORD),
        blk=sparse_zeros((room, BLOCK_FIELDS), np.int32),
        gib=np.zeros(-(-room // GIB_BLOCKS), np.int32),
        ring=np.zeros(ring_slots, np.int64),
        lists=np.zeros((LISTS + 1, LIST_FIELDS), np.int64),
        grants=np.zeros(1, np.int64),
    )


def renew_domain_state(state: DomainState, blocks: int, ring_start: int) -> None:
    """Make it a domain of `blocks` blocks that has not lived yet; its table is empty, as destruction leaves it.

    `ring_start` is what the slots of its recent list hold at first.
    """
    for array in (state.rec, state.gib, state.lists):
        array.view(np.uint8).fill(0)
    state.ring.fill(ring_start)
    state.rec["blocks"] = blocks
    state.rec["accessor"] = -1
