"""How the builder of January 2009 laid out a populate-on-demand guest.

What        [R11] Real RAM below 2 MiB and above the last 2 MiB, 2 MiB promises between, and then the target.
Units       Pages of 4 KiB.
Symbols     T target, less video RAM, as the builder counts
Invariants  With T a multiple of 512 pages and no tail the guest ends 1,056 pages below T: the builder's sum leaves the
            480 pages of low RAM out, the call that sets the target counts them, and the cache grows by superpages [R3].
            A later `mem-set` brings it to 32 pages below (the VGA hole).
Departs     nowhere.
"""

from collections.abc import Sequence

from podcluster.host.mechanism import Mechanism
from podcluster.units import SUPERPAGE_ORDER, SUPERPAGE_PAGES


def populate(machine: Mechanism, domid: int, ram: Sequence[tuple[int, int]], target_pages: int) -> bool:
    """Lay out `ram`, ascending runs of (first gfn, pages) of which the VGA hole ends the first, and set the target;
    False where real RAM could not be had.

    A cache that ends short of the target is told nobody [R3].
    """
    (_, below_vga), *rest = ram
    if machine.populate_seq(domid, 0, below_vga, 0, 1) < below_vga:
        return False
    promised = 0  # pages promised below the target, less the single ones populated from here on
    index = rest[0][0]  # of a page of RAM, the VGA hole counted and the MMIO hole not: what the target is compared with
    for at, count in rest:
        while count:
            if at % SUPERPAGE_PAGES == 0 and count >= SUPERPAGE_PAGES:
                step = count - count % SUPERPAGE_PAGES
                machine.mark_pod_extents(domid, [(at, step // SUPERPAGE_PAGES, SUPERPAGE_ORDER)])
                promised += min(max(target_pages - index, 0), step)
            else:
                step = min(count, SUPERPAGE_PAGES - at % SUPERPAGE_PAGES)
                if machine.populate_seq(domid, at, step, 0, 1) < step:
                    return False
                promised -= step
            at, count, index = at + step, count - step, index + step
    machine.set_pod_target(domid, promised)
    return True
