"""Frames between the host and a domain.

What        Taking frames under quota and claims [H2, H3], dropping their allocation reference, and what a frame keeps
            when it moves: attributes, references, contents.
Units       Frames of 4 KiB.
Invariants  A page that leaves its domain forgets its flags; it is zeroed if the host scrubs or its owner was
            destroyed. A frame with extra references stays its domain's until the last of them goes.
Departs     nowhere.
"""

from podcluster.host.contents import words_clear
from podcluster.host.heap import heap_give_run, heap_is_free, heap_take, heap_take_few
from podcluster.host.kernel import kernel, routine
from podcluster.host.lists import list_push
from podcluster.host.state import (
    DROPPED,
    EINVAL,
    ENOMEM,
    LOOSE,
    LOOSE_FRAMES,
    LOOSE_LIST,
    REF_MASK,
    SPECIAL,
    STALE,
    DomainState,
    HostState,
)


@routine
def frames_take(h: HostState, g: DomainState, order: int, counted: bool) -> int:
    """Take 2**order frames from the host for the domain; -1 when quota, claims [H3] or the heap refuse.

    What the frames held before stays in their attributes: the caller maps them or clears them.
    """
    r = g.rec[0]
    hr = h.rec[0]
    count = 1 << order
    if r.dying or (counted and r.tot_pages + count > r.max_pages):
        return -1
    if hr.claims + count > hr.free and not (counted and r.claim >= count):
        return -1
    mfn = heap_take(h, order)
    if mfn < 0:
        return -1
    if counted:
        _charge(h, g, count)
    return mfn


@routine
def frames_take_few(h: HostState, g: DomainState, most: int) -> int:
    """Take single frames one after another for the domain, counted: as many as follow the first in its block, `most` at
    most, or just one where quota or claims might refuse another. The first << 10 | how many; -1 as `frames_take`.
    """
    r = g.rec[0]
    hr = h.rec[0]
    certain = r.tot_pages + most <= r.max_pages and (r.claim >= most or hr.claims + most <= hr.free)
    if r.dying or not certain or most == 1:
        mfn = frames_take(h, g, 0, True)
        return mfn << 10 | 1 if mfn >= 0 else -1
    taken = heap_take_few(h, most)
    if taken >= 0:
        _charge(h, g, taken & 1023)
    return taken


@routine
def _charge(h: HostState, g: DomainState, count: int) -> None:
    """The domain owns `count` more frames: its claim is used up first [H2]."""
    r = g.rec[0]
    used = min(r.claim, count)
    r.claim -= used
    h.rec[0].claims -= used
    r.tot_pages += count


@routine
def clear_fresh(h: HostState, mfn: int, count: int) -> bool:
    """Clear frames fresh from a host that does not scrub, on their way into the cache; whether they keep what earlier
    owners left instead [R2].
    """
    stale = False
    if not h.rec[0].scrub_on_free:
        for k in range(mfn, mfn + count):
            if h.attr[k]:
                if h.rec[0].keeps_contents:
                    stale = True
                else:
                    h.attr[k] = 0
    return stale


@routine
def frame_release(h: HostState, g: DomainState, mfn: int, stale: int) -> None:
    """Drop the allocation reference of an unmapped frame; it goes to the host unless others refer to it.

    `stale`: its contents, as attribute bits.
    """
    r = g.rec[0]
    hr = h.rec[0]
    a = h.attr[mfn]
    if r.conflicts and (a & DROPPED or heap_is_free(h, mfn)):
        return  # R1: it was in two places, and met in the other
    if a & REF_MASK:
        h.attr[mfn] = (a & ~STALE) | LOOSE | DROPPED | stale
        hr.loose += 1
        if not a & SPECIAL:
            r.loose += 1
        return
    if not a & SPECIAL:
        r.tot_pages -= 1
    frame_home(h, mfn, stale, r.dying != 0)


@routine
def frame_home(h: HostState, mfn: int, stale: int, dying: bool) -> None:
    """Return a frame to the host, zeroed if the host scrubs or its owner has been destroyed."""
    hr = h.rec[0]
    keep = stale
    if hr.scrub_on_free or dying:
        keep = 0
        words_clear(h, mfn)
    if h.attr[mfn] != keep:
        h.attr[mfn] = keep
    heap_give_run(h, mfn, 1)


@routine
def run_release(h: HostState, g: DomainState, mfn: int, count: int) -> None:
    """Release a run of frames that are zero and have no attributes."""
    if h.rec[0].words:
        for k in range(mfn, mfn + count):
            words_clear(h, k)
    g.rec[0].tot_pages -= count
    heap_give_run(h, mfn, count)


@routine
def frame_loosen(h: HostState, g: DomainState, mfn: int, stale: int) -> None:
    """A frame stays the domain's, with its allocation reference, but is neither mapped nor cached."""
    r = g.rec[0]
    h.attr[mfn] = (h.attr[mfn] & ~STALE) | LOOSE | stale
    h.rec[0].loose += 1
    if not h.attr[mfn] & SPECIAL:
        r.loose += 1
    r.irregular |= LOOSE_FRAMES
    list_push(h, g, LOOSE_LIST, mfn, 1, 1)


@kernel
def claim(h: HostState, g: DomainState, pages: int) -> int:
    """H2: stake a claim on a final size of `pages`; 0 cancels. 0, EINVAL or ENOMEM."""
    r = g.rec[0]
    hr = h.rec[0]
    if pages == 0:
        hr.claims -= r.claim
        r.claim = 0
        return 0
    if r.claim > 0 or pages <= r.tot_pages or pages > r.max_pages or r.dying:
        return EINVAL
    if pages - r.tot_pages > hr.free - hr.claims:
        return ENOMEM
    r.claim = pages - r.tot_pages
    hr.claims += r.claim
    return 0
