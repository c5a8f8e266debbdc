"""What the scheduler knows of the hosts, and its choice among them.

What        `Scheduler` holds the hosts' views as last reported and what it has placed since, offers the open ones to
            the policy, and closes those that are down.
Units       Pages of 4 KiB.
Symbols     U usable_pages
Invariants  [EP-2] a placement keeps committed + need_memory <= U and maxmem <= U of its host, counting what the same
                   epoch placed before.
Departs     A scheduler counts its own placements of the running epoch at once, though no host has reported them: real
            ones do too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from podcluster.placement.index import HostIndex
from podcluster.placement.policy import Policy
from podcluster.records import Ask, HostSpec, HostView, Rejected


class Scheduler:
    """Views, and the policy that looks at them."""

    def __init__(self, specs: Sequence[HostSpec], policy: Policy, reserve_pages: int) -> None:
        self._policy = policy
        self._reserve_pages = reserve_pages
        self._usable_pages = {spec.host_id: spec.usable_pages for spec in specs}
        self._views = {host_id: self._empty(host_id, 0) for host_id in sorted(self._usable_pages)}
        self._closed: set[int] = set()
        self._inbound: dict[
            int, tuple[int, Ask]
        ] = {}  # by domain_id: on its way to that host, which knows nothing of it
        self._index: HostIndex | None = None  # of the open hosts, made when it is needed

    def report(self, views: Iterable[HostView]) -> None:
        """Hosts have reported: what was placed is in their views."""
        for view in views:
            self._views[view.host_id] = view
        self._index = None

    def place(self, ask: Ask) -> int | Rejected:
        """Let the policy choose, and count its choice [EP-2]."""
        if len(self._closed) == len(self._views):
            return Rejected("no host is up")
        index = self._opened()
        answer = self._policy.place_indexed(ask, index)
        if not isinstance(answer, Rejected):
            index.place(answer, ask)
        return answer

    def place_on(self, host_id: int, ask: Ask) -> None:
        """Count a choice that was made elsewhere [EP-2]."""
        self._opened().place(host_id, ask)

    def expect(self, domain_id: int, host_id: int, ask: Ask) -> None:
        """Keep room on this host for a domain that is on its way, until it lands or is not expected any more."""
        self._opened().place(host_id, ask)
        self._inbound[domain_id] = host_id, ask

    @property
    def expects(self) -> bool:
        """Whether any domain is on its way."""
        return bool(self._inbound)

    def expected_on(self, domain_id: int) -> int | None:
        """The host that keeps room for a domain; None: none does."""
        return self._inbound[domain_id][0] if domain_id in self._inbound else None

    def forget(self, domain_id: int, *, landed: bool) -> None:
        """A domain is not on its way any more: it has landed, and still counts in this epoch, or it does not come."""
        host_id, ask = self._inbound.pop(domain_id)
        if not landed and host_id not in self._closed:
            self._opened().leave(host_id, ask)

    def open_views(self) -> list[HostView]:
        """What is known by now of the hosts that are open, in host_id order."""
        return self._opened().views()

    def is_open(self, host_id: int) -> bool:
        """Whether the host may be given domains."""
        return host_id not in self._closed

    def close(self, host_id: int) -> None:
        """Give this host no more domains."""
        self._settle()
        self._closed.add(host_id)

    def reopen(self, host_id: int) -> None:
        """Give this host domains again; what it has it keeps."""
        self._settle()
        self._closed.discard(host_id)

    def open_empty(self, host_id: int, at_ns: int) -> None:
        """Give domains to this host again, on which there are none."""
        self._settle()
        self._closed.discard(host_id)
        self._views[host_id] = self._empty(host_id, at_ns)

    def _opened(self) -> HostIndex:
        if self._index is None:
            self._index = HostIndex([view for host_id, view in self._views.items() if host_id not in self._closed])
            for host_id, ask in self._inbound.values():
                if host_id not in self._closed:
                    self._index.place(host_id, ask)
        return self._index

    def _settle(self) -> None:
        """Keep what has been placed since the last reports, and let the index be made anew."""
        if self._index is not None:
            for host_id, ask in self._inbound.values():
                if host_id not in self._closed:
                    self._index.leave(host_id, ask)
            self._views.update((view.host_id, view) for view in self._index.views())
            self._index = None

    def _empty(self, host_id: int, at_ns: int) -> HostView:
        usable, reserve = self._usable_pages[host_id], self._reserve_pages
        return HostView(host_id, usable, reserve, 0, usable, 0, at_ns, overhead_pages=reserve)
