"""Rebalancing: which domains should move so that hosts are filled alike.

What        `rebalance`, from what is known of the hosts and their domains, to moves.
Units       Those of `rules.Rules`.
Symbols     U usable_pages
            share   of a host: what its domains count for, by what `placement.by` says / U
Rule        While the fullest and the emptiest host are more than `gap` apart in share, a domain goes from the one to
            the other: the largest that fits there by the rules of any start, is not barred from there by a strict group
            [PLACE-8], and leaves the sender no emptier than the receiver, so that each move brings the two closer and
            none is ever undone. No domain moves twice.
Departs     The XO load balancer sends by thresholds of free memory, from a mean over half an hour: what placement
            counts on is what was promised, so its present value does. Targets and demand, by which placement may count,
            do fluctuate, and are known of hosts alone: a domain that moves is taken to count for what a start of it
            would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from podcluster.placement.groups import FREE, Bar
from podcluster.placement.index import LOADS, taken_by
from podcluster.placement.rules import Rules
from podcluster.records.hosts import Ask, HostView


class Move(NamedTuple):
    """A domain that should go from one host to another, and their shares before."""

    domain_id: int
    sender: int
    receiver: int
    sender_share: float
    receiver_share: float


def rebalance(
    views: Sequence[HostView],
    domains: Mapping[int, Sequence[Ask]],
    rules: Rules,
    gap: float,
    most: int,
    bars: Mapping[int, Bar] | None = None,
) -> list[Move]:
    """At most `most` moves. `domains`: those that may move, by host_id; `bars` by domain_id, of those that have one.
    Equals: lowest host_id, lowest domain_id.
    """
    known = {view.host_id: view for view in views}
    capacity = {view.host_id: rules.scale * view.usable_pages for view in views}
    here = {i: sorted(domains.get(i, ()), key=lambda ask: (-rules.size(ask), ask.domain_id)) for i in known}
    bars = bars or {}
    met: set[tuple[str, int]] = set()  # whom of which group a host gets
    moves: list[Move] = []
    while len(moves) < most and len(known) > 1:
        shares = {host_id: rules.load(view) / capacity[host_id] for host_id, view in known.items()}
        sender = min(shares, key=lambda host_id: (-shares[host_id], host_id))
        receiver = min(shares, key=lambda host_id: (shares[host_id], host_id))
        if shares[sender] - shares[receiver] <= gap:
            break
        found = None
        for ask in here[sender]:
            bar = bars.get(ask.domain_id, FREE)
            if receiver in bar.host_ids or (bar.apart, receiver) in met or not rules.fits(ask, known[receiver]):
                continue
            left, there = _changed(known[sender], ask, -1), _changed(known[receiver], ask, 1)
            if rules.load(left) * capacity[receiver] >= rules.load(there) * capacity[sender]:
                found = ask
                break
        if found is None:
            break
        here[sender].remove(found)
        known[sender], known[receiver] = left, there
        if bar.apart:
            met.add((bar.apart, receiver))
        moves.append(Move(found.domain_id, sender, receiver, shares[sender], shares[receiver]))
    return moves


def _changed(view: HostView, ask: Ask, sign: int) -> HostView:
    """The host with a domain on it that was not there (1), or without one that was (-1)."""
    taken = zip(LOADS, taken_by(ask), strict=True)
    return replace(view, **{name: getattr(view, name) + sign * pages for name, pages in taken})
