"""Search among hosts in logarithmic time: the first, the tightest, the roomiest that fits, for one request or many.

What        Two structures over the same hosts, kept up to date commitment by commitment. A tree of maxima in the order
            of hosts finds the first host that has enough of everything. A list of hosts in order of (room, position),
            cut into blocks, finds the tightest and the roomiest. `choose` asks for one request, `fill` places many;
            both also ask `weigh.py`, which needs neither structure.
Units       Those of `fields.py`.
Symbols     host       per host, what it has left (`fields.py`)
            tree       heap order, node k has children 2k and 2k + 1; `dims` maxima each: uncommitted memory and, where
                       ratios limit them, size and vCPUs
            block      per slot: how many hosts, most uncommitted memory among them, their rooms, their positions
            directory  blocks in use, free slots, the slots in order of room, the stack of free slots
Invariants  [PLACE-5] each host is in one block, blocks and their contents ascend by (room, position), no block is empty
            and no two neighbours are both below a quarter full, so a block holds at least an eighth on average.
Departs     Blocks of 64 in a list that is shifted when one is split or joined: not logarithmic in theory (n/64 words
            move, once in dozens of commitments), and faster than a balanced tree for any number of hosts there is.
            Blocks without the memory are passed over whole; hosts that lack only vCPUs, or room under a ratio of
            another measure, are looked at one by one.
"""

import numpy as np

from podcluster.placement.fields import FIELDS, FREE, LEAVES, LIMIT, LOADS, NOBODY, ROOM, VCPUS, WIDTH, fits
from podcluster.placement.kernel import Int64s, kernel, routine
from podcluster.placement.weigh import heaviest

LIMITED_DIMS = 3  # FREE, LIMIT, VCPUS; else FREE alone

BLOCK = 64
QUARTER = BLOCK // 4
COUNT, MOST, ROOMS, POSITIONS = 0, 1, 2, 2 + BLOCK
STRIDE = 2 + 2 * BLOCK
BLOCKS, SPARE, ORDER = 0, 1, 2

FIRST, NEXT, BEST, WORST = 0, 1, 2, 3  # and those of `weigh.py`
LOWEST = -(1 << 62)


# -- made anew ---------------------------------------------------------------------------------------------------------


def new_tree(host: Int64s, dims: int) -> Int64s:
    """The tree of maxima over these hosts; leaves past the last host are never sufficient."""
    fields = host.reshape(-1, FIELDS)
    leaves = 1 << max(0, (len(fields) - 1).bit_length())
    tree = np.full((2 * leaves, dims), LOWEST, dtype=np.int64)
    tree[leaves : leaves + len(fields)] = fields[:, FREE : FREE + dims]
    while leaves > 1:
        leaves //= 2
        below = tree[2 * leaves : 4 * leaves]
        tree[leaves : 2 * leaves] = np.maximum(below[0::2], below[1::2])
    return tree.reshape(-1)


def new_blocks(host: Int64s) -> tuple[Int64s, Int64s]:
    """These hosts in blocks three quarters full, and the directory."""
    fields = host.reshape(-1, FIELDS)
    order = np.argsort(fields[:, ROOM], kind="stable")
    slots = len(fields) // (BLOCK // 8) + 4  # [PLACE-5]
    block = np.zeros((slots, STRIDE), dtype=np.int64)
    starts = range(0, len(fields), 3 * QUARTER)
    for slot, first in enumerate(starts):
        here = order[first : first + 3 * QUARTER]
        block[slot, COUNT], block[slot, MOST] = len(here), fields[here, FREE].max()
        block[slot, ROOMS : ROOMS + len(here)] = fields[here, ROOM]
        block[slot, POSITIONS : POSITIONS + len(here)] = here
    directory = np.zeros(ORDER + 2 * slots, dtype=np.int64)
    directory[BLOCKS], directory[SPARE] = len(starts), slots - len(starts)
    directory[ORDER : ORDER + len(starts)] = np.arange(len(starts))
    directory[ORDER + slots : ORDER + slots + slots - len(starts)] = np.arange(len(starts), slots)
    return block.reshape(-1), directory


def flaw(host: Int64s, tree: Int64s, block: Int64s, directory: Int64s, dims: int) -> str | None:
    """What is wrong with the structures over these hosts [PLACE-5], in words; None: nothing."""
    if len(tree) and not np.array_equal(tree[dims:], new_tree(host, dims)[dims:]):
        return "the tree holds the maxima of its hosts"
    if not len(block):
        return None
    fields = host.reshape(-1, FIELDS)
    slots = directory[ORDER : ORDER + directory[BLOCKS]]
    counts = block.reshape(-1, STRIDE)[slots, COUNT]
    parts = [block[slot * STRIDE + POSITIONS :][:count] for slot, count in zip(slots, counts, strict=True)]
    listed = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    if not np.array_equal(listed, np.argsort(fields[:, ROOM], kind="stable")):
        return "blocks list every host once, in order of room"
    if any(block[slot * STRIDE + MOST] != fields[part, FREE].max() for slot, part in zip(slots, parts, strict=True)):
        return "a block knows the most uncommitted memory in it"
    if (counts < 1).any() or (np.maximum(counts[:-1], counts[1:]) < QUARTER).any():
        return "no block is empty and no two neighbours are below a quarter"
    return None


# -- the tree of maxima ------------------------------------------------------------------------------------------------


@routine
def _set_leaf(host: Int64s, tree: Int64s, dims: int, position: int) -> None:
    """Take what a host has left into the tree."""
    node = len(tree) // (2 * dims) + position
    for d in range(dims):
        tree[node * dims + d] = host[position * FIELDS + FREE + d]
    node >>= 1
    while node:
        changed = False
        for d in range(dims):
            left, right = tree[2 * node * dims + d], tree[(2 * node + 1) * dims + d]
            most = left if left > right else right
            if tree[node * dims + d] != most:
                tree[node * dims + d] = most
                changed = True
        if not changed:
            return
        node >>= 1


@routine
def _first_from(
    host: Int64s, tree: Int64s, dims: int, start: int, need: int, maxmem: int, size: int, vcpus: int
) -> int:
    """The first position >= start that fits, or NOBODY: down where all maxima suffice, else on to the right."""
    leaves = len(tree) // (2 * dims)
    if start >= leaves:
        return NOBODY
    node = leaves + start
    while True:
        at = node * dims
        if tree[at] >= need and (dims == 1 or (tree[at + 1] >= size and tree[at + 2] >= vcpus)):
            if node < leaves:
                node *= 2
                continue
            if fits(host, node - leaves, need, maxmem, size, vcpus):
                return node - leaves
        # Past every subtree that ends here, then to its right neighbour; past the root there is none.
        while node & 1:
            node >>= 1
        if node == 0:
            return NOBODY
        node += 1


# -- the list of blocks ------------------------------------------------------------------------------------------------


@routine
def _block_of(block: Int64s, directory: Int64s, room: int, position: int) -> int:
    """The last block whose first host is at or below (room, position); the first block where none is."""
    low, high = 0, directory[BLOCKS]
    while low + 1 < high:
        middle = (low + high) >> 1
        base = directory[ORDER + middle] * STRIDE
        first = block[base + ROOMS]
        if first < room or (first == room and block[base + POSITIONS] <= position):
            low = middle
        else:
            high = middle
    return low


@routine
def _rank(block: Int64s, base: int, room: int, position: int) -> int:
    """How many hosts of a block are below (room, position)."""
    low, high = 0, block[base + COUNT]
    while low < high:
        middle = (low + high) >> 1
        value = block[base + ROOMS + middle]
        if value < room or (value == room and block[base + POSITIONS + middle] < position):
            low = middle + 1
        else:
            high = middle
    return low


@routine
def _recount(host: Int64s, block: Int64s, base: int) -> None:
    """Find the most uncommitted memory of a block anew."""
    most = LOWEST
    for k in range(block[base + COUNT]):
        free = host[block[base + POSITIONS + k] * FIELDS + FREE]
        if free > most:
            most = free
    block[base + MOST] = most


@routine
def _drop_block(directory: Int64s, b: int) -> None:
    """Take a block out of the order and keep its slot for another."""
    last = directory[BLOCKS] - 1
    slot = directory[ORDER + b]
    for k in range(b, last):
        directory[ORDER + k] = directory[ORDER + k + 1]
    directory[BLOCKS] = last
    slots = (len(directory) - ORDER) // 2
    directory[ORDER + slots + directory[SPARE]] = slot
    directory[SPARE] += 1


@routine
def _new_block(directory: Int64s, b: int) -> int:
    """Put a spare slot at place `b` of the order."""
    slots = (len(directory) - ORDER) // 2
    directory[SPARE] -= 1
    slot = directory[ORDER + slots + directory[SPARE]]
    for k in range(directory[BLOCKS], b, -1):
        directory[ORDER + k] = directory[ORDER + k - 1]
    directory[ORDER + b] = slot
    directory[BLOCKS] += 1
    return int(slot * STRIDE)


@routine
def _move_tail(host: Int64s, block: Int64s, source: int, first: int, target: int) -> None:
    """Append the hosts of a block from `first` on to another block."""
    count = block[target + COUNT]
    for k in range(first, block[source + COUNT]):
        block[target + ROOMS + count] = block[source + ROOMS + k]
        block[target + POSITIONS + count] = block[source + POSITIONS + k]
        count += 1
    block[target + COUNT] = count
    block[source + COUNT] = first
    _recount(host, block, source)
    _recount(host, block, target)


@routine
def _insert(host: Int64s, block: Int64s, directory: Int64s, room: int, position: int) -> None:
    """Put a host where its room says."""
    if directory[BLOCKS] == 0:
        base = _new_block(directory, 0)
        block[base + COUNT] = 0
        block[base + MOST] = LOWEST
    b = _block_of(block, directory, room, position)
    base = directory[ORDER + b] * STRIDE
    if block[base + COUNT] == BLOCK:
        upper = _new_block(directory, b + 1)
        block[upper + COUNT] = 0
        _move_tail(host, block, base, BLOCK // 2, upper)
        base = directory[ORDER + _block_of(block, directory, room, position)] * STRIDE
    rank = _rank(block, base, room, position)
    for k in range(block[base + COUNT], rank, -1):
        block[base + ROOMS + k] = block[base + ROOMS + k - 1]
        block[base + POSITIONS + k] = block[base + POSITIONS + k - 1]
    block[base + ROOMS + rank] = room
    block[base + POSITIONS + rank] = position
    block[base + COUNT] += 1
    free = host[position * FIELDS + FREE]
    if free > block[base + MOST]:
        block[base + MOST] = free


@routine
def _remove(host: Int64s, block: Int64s, directory: Int64s, room: int, position: int) -> None:
    """Take a host out, and join its block to a neighbour where both have become small."""
    b = _block_of(block, directory, room, position)
    base = directory[ORDER + b] * STRIDE
    rank = _rank(block, base, room, position)
    count = block[base + COUNT] - 1
    for k in range(rank, count):
        block[base + ROOMS + k] = block[base + ROOMS + k + 1]
        block[base + POSITIONS + k] = block[base + POSITIONS + k + 1]
    block[base + COUNT] = count
    if count == 0:
        _drop_block(directory, b)
        return
    if host[position * FIELDS + FREE] == block[base + MOST]:
        _recount(host, block, base)
    if count >= QUARTER:
        return
    if b > 0:
        before = directory[ORDER + b - 1] * STRIDE
        if block[before + COUNT] + count <= 3 * QUARTER:
            _move_tail(host, block, base, 0, before)
            _drop_block(directory, b)
            return
    if b + 1 < directory[BLOCKS]:
        after = directory[ORDER + b + 1] * STRIDE
        if block[after + COUNT] + count <= 3 * QUARTER:
            _move_tail(host, block, after, 0, base)
            _drop_block(directory, b + 1)


@routine
def _tightest(
    host: Int64s, block: Int64s, directory: Int64s, low: int, need: int, maxmem: int, size: int, vcpus: int
) -> int:
    """Of the hosts with room >= low the first in order of (room, position) that fits, or NOBODY."""
    if directory[BLOCKS] == 0:
        return NOBODY
    b = _block_of(block, directory, low, -1)
    k = _rank(block, directory[ORDER + b] * STRIDE, low, -1)
    while b < directory[BLOCKS]:
        base = directory[ORDER + b] * STRIDE
        if block[base + MOST] >= need:
            while k < block[base + COUNT]:
                position = block[base + POSITIONS + k]
                if fits(host, position, need, maxmem, size, vcpus):
                    return int(position)
                k += 1
        b += 1
        k = 0
    return NOBODY


@routine
def _roomiest(host: Int64s, block: Int64s, directory: Int64s, need: int, maxmem: int, size: int, vcpus: int) -> int:
    """The host that fits with most room, the lowest position among equals, or NOBODY."""
    for b in range(directory[BLOCKS] - 1, -1, -1):
        base = directory[ORDER + b] * STRIDE
        if block[base + MOST] >= need:
            for k in range(block[base + COUNT] - 1, -1, -1):
                if fits(host, block[base + POSITIONS + k], need, maxmem, size, vcpus):
                    return _tightest(host, block, directory, block[base + ROOMS + k], need, maxmem, size, vcpus)
    return NOBODY


@routine
def _most_free(host: Int64s, tree: Int64s, block: Int64s, directory: Int64s, dims: int) -> int:
    """The largest uncommitted memory of a host."""
    if len(tree):
        return int(tree[dims])
    most = LOWEST
    if not len(block):
        for at in range(FREE, len(host), FIELDS):
            if host[at] > most:
                most = host[at]
        return most
    for b in range(directory[BLOCKS]):
        here = block[directory[ORDER + b] * STRIDE + MOST]
        if here > most:
            most = here
    return most


# -- what Python calls -------------------------------------------------------------------------------------------------


@routine
def _change(
    host: Int64s,
    tree: Int64s,
    block: Int64s,
    directory: Int64s,
    dims: int,
    position: int,
    free: int,
    limit: int,
    vcpus: int,
    room: int,
) -> None:
    at = position * FIELDS
    if len(block):
        _remove(host, block, directory, host[at + ROOM], position)
    host[at + FREE], host[at + LIMIT], host[at + VCPUS], host[at + ROOM] = free, limit, vcpus, room
    if len(block):
        _insert(host, block, directory, room, position)
    if len(tree):
        _set_leaf(host, tree, dims, position)


@kernel
def change(
    host: Int64s,
    tree: Int64s,
    block: Int64s,
    directory: Int64s,
    dims: int,
    position: int,
    free: int,
    limit: int,
    vcpus: int,
    room: int,
) -> None:
    """Say what a host has left now."""
    _change(host, tree, block, directory, dims, position, free, limit, vcpus, room)


@routine
def _search(
    host: Int64s,
    tree: Int64s,
    block: Int64s,
    directory: Int64s,
    dims: int,
    kind: int,
    cursor: int,
    low: int,
    need: int,
    maxmem: int,
    size: int,
    vcpus: int,
) -> int:
    if kind == BEST:
        return _tightest(host, block, directory, low, need, maxmem, size, vcpus)
    if kind == WORST:
        return _roomiest(host, block, directory, need, maxmem, size, vcpus)
    found = _first_from(host, tree, dims, cursor if kind == NEXT else 0, need, maxmem, size, vcpus)
    if found == NOBODY and kind == NEXT:
        found = _first_from(host, tree, dims, 0, need, maxmem, size, vcpus)
    return found


@kernel
def choose(
    host: Int64s,
    tree: Int64s,
    block: Int64s,
    directory: Int64s,
    dims: int,
    table: Int64s,
    capacity: Int64s,
    kind: int,
    cursor: int,
    low: int,
    need: int,
    maxmem: int,
    size: int,
    vcpus: int,
    overhead: int,
    mean: int,
    var: int,
    arrives: int,
    leaves: int,
    bucket: int,
    pages_per_sd: float,
) -> int:
    """The position that a policy (FIRST, NEXT from `cursor`, ...) names, or NOBODY.

    `low`: no host with less room can fit (LOWEST where that is not known).
    """
    if kind > WORST:
        return heaviest(
            host,
            table,
            capacity,
            kind,
            need,
            maxmem,
            size,
            vcpus,
            overhead,
            mean,
            var,
            arrives,
            leaves,
            bucket,
            pages_per_sd,
        )
    return _search(host, tree, block, directory, dims, kind, cursor, low, need, maxmem, size, vcpus)


@kernel
def fill(
    host: Int64s,
    tree: Int64s,
    block: Int64s,
    directory: Int64s,
    dims: int,
    table: Int64s,
    capacity: Int64s,
    kind: int,
    cursor: int,
    bounded: bool,
    unlimited: int,
    bucket: int,
    pages_per_sd: float,
    needs: Int64s,
    maxmems: Int64s,
    sizes: Int64s,
    vcpus: Int64s,
    overheads: Int64s,
    means: Int64s,
    vars_: Int64s,
    arrivals: Int64s,
    leaves: Int64s,
    loads: Int64s,
    positions: Int64s,
    most: Int64s,
) -> int:
    """Choose and commit request after request; returns the cursor. `positions`: where each went, or NOBODY, and then
    `most`: the largest uncommitted memory at that moment. What a request adds to its host in `loads` (a row of
    `LOADS` each) is added to the first columns of that host, and the last departure there follows.

    `bounded`: a host's room is at least the size of what fits there. A limit of `unlimited` or above stays.
    """
    for k in range(len(needs)):
        need, size = needs[k], sizes[k]
        if kind > WORST:
            found = heaviest(
                host, table, capacity, kind, need, maxmems[k], size, vcpus[k], overheads[k], means[k], vars_[k],
                arrivals[k], leaves[k], bucket, pages_per_sd,
            )  # fmt: skip
        else:
            low = size if bounded else LOWEST
            found = _search(host, tree, block, directory, dims, kind, cursor, low, need, maxmems[k], size, vcpus[k])
        positions[k] = found
        if found == NOBODY:
            most[k] = _most_free(host, tree, block, directory, dims)
            continue
        cursor = found
        for j in range(LOADS):
            table[found * WIDTH + j] += loads[k * LOADS + j]
        if leaves[k] > table[found * WIDTH + LEAVES]:
            table[found * WIDTH + LEAVES] = leaves[k]
        at = found * FIELDS
        limit, left = host[at + LIMIT], host[at + VCPUS]
        _change(
            host,
            tree,
            block,
            directory,
            dims,
            found,
            host[at + FREE] - need,
            limit if limit >= unlimited else limit - size,
            left if left >= unlimited else left - vcpus[k],
            host[at + ROOM] - size,
        )
    return cursor
