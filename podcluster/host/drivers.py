"""Which balloon driver a guest's class brings, with what it is told and what its OS keeps from it.

What        `make_balloon`, `reserve_of`.
Units       Pages of 4 KiB.
"""

from __future__ import annotations

from podcluster.config import GuestConfig
from podcluster.host.balloon import Balloon, Manner
from podcluster.host.domain import Domain
from podcluster.host.fault import Fault
from podcluster.host.guest import Guest
from podcluster.host.linux_balloon import LinuxBalloon
from podcluster.host.linux_balloon import reserve_pages as linux_reserve_pages
from podcluster.host.windows_balloon import WindowsBalloon, low_memory_pages
from podcluster.units import mib_to_pages


def reserve_of(cfg: GuestConfig, ram_pages: int) -> int:
    """What the OS keeps from its balloon: as configured, or by its own rule."""
    if cfg.balloon.reserve_mib is not None:
        return mib_to_pages(cfg.balloon.reserve_mib)
    rule = {"linux": linux_reserve_pages, "windows": low_memory_pages}.get(cfg.balloon.driver)
    return rule(ram_pages) if rule else 0


def make_balloon(cfg: GuestConfig, domain: Domain, guest: Guest, fault: Fault) -> Balloon | None:
    """The driver of a guest, joined to it; None for a class without one."""
    settings = cfg.balloon
    if settings.driver == "none":
        return None
    manner = Manner(
        pages_per_s=guest.boot.balloon_pages_per_s,
        batch_pages=settings.batch_pages,
        scrub=settings.scrub,
        reserve_pages=reserve_of(cfg, guest.memory.ram_pages),
        old=settings.generation == "old",
        contiguous=settings.contiguous,
        section_pages=mib_to_pages(settings.section_mib) if settings.hotplug else 0,
    )
    balloon: Balloon
    if settings.driver == "linux":
        linux = LinuxBalloon(guest.memory, guest, lambda: domain.pages_to_balloon_out, manner, fault)
        if settings.deflate_on_oom:
            guest.held.on_oom = linux.on_oom
        balloon = linux
    else:
        balloon = WindowsBalloon(guest.memory, guest, lambda: domain.pages_to_balloon_out_less_video, manner, fault)
    guest.add_balloon(balloon)
    return balloon
