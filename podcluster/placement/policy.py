"""What a placement policy is, and the ones there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from podcluster.errors import ConfigError
from podcluster.placement.best_fit import BestFit
from podcluster.placement.first_fit import FirstFit
from podcluster.placement.index import HostIndex
from podcluster.records import HostView, Rejected


class Policy(Protocol):
    """Choose a host for one domain, by what is known of the hosts; nothing is remembered between calls."""

    def place(self, request_pages: int, request_maxmem_pages: int, views: Sequence[HostView]) -> int | Rejected:
        """Name the host_id that takes it. `views` are in host_id order; this is the definition of the policy."""

    def place_indexed(self, request_pages: int, request_maxmem_pages: int, index: HostIndex) -> int | Rejected:
        """The same choice from an index that is kept up to date, in time logarithmic in the hosts."""


POLICIES: Final[dict[str, Callable[[], Policy]]] = {"first_fit": FirstFit, "best_fit": BestFit}


def make_policy(name: str) -> Policy:
    """The policy that `placement.policy=name` asks for."""
    if name not in POLICIES:
        raise ConfigError(
            f"placement.policy must be one of {', '.join(POLICIES)}, got {name}: try placement.policy=first_fit"
        )
    return POLICIES[name]()
