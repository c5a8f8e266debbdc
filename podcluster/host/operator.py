"""What the operator of a host sees: `xl list`, `xentop`, `xl info` and the `q` debug key, as one report of one moment.

What        `HostLook` and `DomainLook`, what is known of a host at an instant; functions from a look to the text that
            each tool prints; `report`, all of them and what none of them shows.
Units       Pages of 4 KiB in a look; MiB and KiB as each tool prints them.
Rules       docs/model.md O3, O5.
Departs     CPU time and states of vCPUs are not known here: a running domain is shown as blocked, and columns of time
            are left out. Lines of the `q` key that say nothing of memory are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podcluster.units import NS_PER_S, pages_to_kib, pages_to_mib


@dataclass(frozen=True, slots=True)
class DomainLook:
    """One domain at an instant [pages]."""

    domid: int
    name: str
    vcpus: int
    crashed: bool
    tot_pages: int
    claim_pages: int  # its own outstanding claim
    max_pages: int  # Xen's quota
    entry_count: int  # E
    cache_count: int  # C
    target_pages: int
    static_max_pages: int

    @property
    def state(self) -> str:
        """As `xl list` prints it."""
        return "----c-" if self.crashed else "-b----"


@dataclass(frozen=True, slots=True)
class HostLook:
    """One host at an instant [pages]; `domains` by domid, dom0 not among them."""

    host_id: int
    at_ns: int
    ram_pages: int
    free_pages: int
    claim_pages: int  # outstanding, all domains
    dom0_pages: int
    domains: tuple[DomainLook, ...]


def xl_list(look: HostLook) -> list[str]:
    """`xl list`: Mem is what a domain owns and has claimed, cache included, so a guest shows its target from birth."""
    lines = [f"{'Name':<40} {'ID':>5} {'Mem':>5} {'VCPUs':>5}\tState"]
    lines.append(f"{'Domain-0':<40} {0:>5} {pages_to_mib(look.dom0_pages):>5} {'':>5}     r-----")
    for one in look.domains:
        mib = pages_to_mib(one.tot_pages + one.claim_pages)
        lines.append(f"{one.name:<40} {one.domid:>5} {mib:>5} {one.vcpus:>5}     {one.state}")
    return lines


def xentop(look: HostLook) -> list[str]:
    """`xentop`: MEM(k) is what a domain owns, MAXMEM(k) its quota."""
    total_kib = pages_to_kib(look.ram_pages)
    lines = [f"{'NAME':>10}  STATE {'MEM(k)':>10} MEM(%) {'MAXMEM(k)':>10} MAXMEM(%) VCPUS"]
    for one in look.domains:
        mem_kib, max_kib = pages_to_kib(one.tot_pages), pages_to_kib(one.max_pages)
        lines.append(
            f"{one.name:>10} {one.state} {mem_kib:>10} {100 * mem_kib / total_kib:>6.1f} {max_kib:>10} "
            f"{100 * max_kib / total_kib:>9.1f} {one.vcpus:>5}"
        )
    return lines


def xl_info(look: HostLook) -> list[str]:
    """`xl info`: free memory is without what is claimed."""
    return [
        f"total_memory           : {pages_to_mib(look.ram_pages)}",
        f"free_memory            : {pages_to_mib(look.free_pages - look.claim_pages)}",
        f"outstanding_claims     : {pages_to_mib(look.claim_pages)}",
    ]


def q_key(look: HostLook) -> list[str]:
    """`xl debug-keys q`: the only place that shows entries and cache."""
    lines = []
    for one in look.domains:
        lines.append(f"(XEN) General information for domain {one.domid}:")
        lines.append(f"(XEN)     nr_pages={one.tot_pages} max_pages={one.max_pages}")
        lines.append(f"(XEN)     PoD entries={one.entry_count} cachesize={one.cache_count}")
    return lines


def beyond(look: HostLook) -> list[str]:
    """What no tool shows: the debt of each domain, and what could be done about it."""
    lines = []
    for one in look.domains:
        debt = one.entry_count - one.cache_count
        what = "none: safe whatever it touches" if debt <= 0 else f"{debt} pages that its balloon must still give back"
        target_mib, most_mib = pages_to_mib(one.target_pages), pages_to_mib(one.static_max_pages)
        lines.append(f"{one.name}: target {target_mib} of {most_mib} MiB, debt {what}")
    return lines


def report(look: HostLook) -> str:
    """All of it, as text."""

    def part(command: str, lines: Sequence[str]) -> str:
        return "\n".join([f"# {command}", *lines, ""])

    heading = f"host {look.host_id} at {look.at_ns / NS_PER_S:g} s"
    parts = (
        ("xl list", xl_list(look)),
        ("xentop", xentop(look)),
        ("xl info", xl_info(look)),
        ("xl debug-keys q; xl dmesg", q_key(look)),
        ("not shown by any tool", beyond(look)),
    )
    return "\n".join([heading, "", *(part(command, lines) for command, lines in parts)])
