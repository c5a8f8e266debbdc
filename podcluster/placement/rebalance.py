"""Rebalancing: which domains should move so that hosts are filled alike.

What        `rebalance`, from what placement counts on each host and what its domains need, to moves.
Units       Any one unit of memory.
Symbols     share   of a host: what placement counts on it / what it can have
Rule        While the fullest and the emptiest host are more than `gap` apart in share, a domain goes from the one to
            the other: the largest that fits there, is not barred from there by a strict group [PLACE-8], and leaves the
            sender no emptier than the receiver, so that each move brings the two closer and none is ever undone. No
            domain moves twice.
Departs     The XO load balancer sends by thresholds of free memory, from a mean over half an hour: what placement
            counts on does not fluctuate, so its present value does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from podcluster.placement.groups import FREE, Bar


class Filled(NamedTuple):
    """A host, what it can have, and how much of that placement counts on."""

    host_id: int
    usable: int
    committed: int


class Move(NamedTuple):
    """A domain that should go from one host to another, and their shares before."""

    domain_id: int
    sender: int
    receiver: int
    sender_share: float
    receiver_share: float


def rebalance(
    hosts: Iterable[Filled],
    domains: Mapping[int, Sequence[tuple[int, int]]],
    gap: float,
    most: int,
    bars: Mapping[int, Bar] | None = None,
) -> list[Move]:
    """At most `most` moves. `domains`: (domain_id, need) by host_id; `bars` by domain_id, of those that have one.
    Equals: lowest host_id, lowest domain_id.
    """
    filled = list(hosts)
    usable = {host.host_id: host.usable for host in filled}
    committed = {host.host_id: host.committed for host in filled}
    here = {host_id: sorted(domains.get(host_id, ()), key=lambda one: (-one[1], one[0])) for host_id in usable}
    bars = bars or {}
    taken: set[tuple[str, int]] = set()  # by whom of which name a host is taken
    moves: list[Move] = []
    while len(moves) < most and len(usable) > 1:
        shares = {host_id: committed[host_id] / usable[host_id] for host_id in usable}
        sender = min(shares, key=lambda host_id: (-shares[host_id], host_id))
        receiver = min(shares, key=lambda host_id: (shares[host_id], host_id))
        if shares[sender] - shares[receiver] <= gap:
            break
        room, of_sender, of_receiver = usable[receiver] - committed[receiver], usable[sender], usable[receiver]
        found = None
        for domain_id, need in here[sender]:
            bar = bars.get(domain_id, FREE)
            if receiver in bar.host_ids or (bar.apart, receiver) in taken:
                continue
            left, there = committed[sender] - need, committed[receiver] + need
            if need <= room and left * of_receiver >= there * of_sender:
                found = domain_id, need
                break
        if found is None:
            break
        here[sender].remove(found)
        domain_id, need = found
        committed[sender] -= need
        committed[receiver] += need
        apart = bars.get(domain_id, FREE).apart
        if apart:
            taken.add((apart, receiver))
        moves.append(Move(domain_id, sender, receiver, shares[sender], shares[receiver]))
    return moves
