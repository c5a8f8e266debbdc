"""Units and their conversions: everywhere else counts are 4 KiB pages and integer nanoseconds, converted at borders.

Units       A page is 4 KiB. A superpage is an order-9 extent, 2 MiB.
Rounding    Towards fewer pages, as Xen's tools do (KiB values are divided by 4 and rounded down).
"""

PAGE_BYTES = 4096
KIB_PER_PAGE = 4
PAGES_PER_MIB = 256
PAGES_PER_GIB = 262_144
SUPERPAGE_PAGES = 512
SUPERPAGE_ORDER = 9
NS_PER_S = 10**9


def mib_to_pages(mib: float) -> int:
    """Pages in `mib` MiB; a fraction of a page is dropped."""
    return int(mib * PAGES_PER_MIB)


def gib_to_pages(gib: float) -> int:
    """Pages in `gib` GiB; a fraction of a page is dropped."""
    return int(gib * PAGES_PER_GIB)


def kib_to_pages(kib: int) -> int:
    """Whole pages in `kib` KiB."""
    return kib // KIB_PER_PAGE


def pages_to_mib(pages: int) -> int:
    """Whole MiB in `pages`."""
    return pages // PAGES_PER_MIB


def pages_to_kib(pages: int) -> int:
    """KiB of `pages`, exact."""
    return pages * KIB_PER_PAGE


def s_to_ns(seconds: float) -> int:
    """Nanoseconds in `seconds`, to the nearest one."""
    return round(seconds * NS_PER_S)
