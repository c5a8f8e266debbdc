"""What a placement policy is, and the ones there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from podcluster.errors import ConfigError
from podcluster.placement.best_fit import BestFit
from podcluster.placement.first_fit import FirstFit
from podcluster.placement.index import HostIndex
from podcluster.placement.xapi import Xapi
from podcluster.records import Ask, HostView, Rejected


class Policy(Protocol):
    """Choose a host for one domain, by what is known of the hosts; nothing is remembered between calls."""

    def place(self, ask: Ask, views: Sequence[HostView]) -> int | Rejected:
        """Name the host_id that takes it. `views` are in host_id order; this is the definition of the policy."""

    def place_indexed(self, ask: Ask, index: HostIndex) -> int | Rejected:
        """The same choice from an index that is kept up to date; packers take time logarithmic in the hosts."""


POLICIES: Final[dict[str, Callable[[], Policy]]] = {"first_fit": FirstFit, "best_fit": BestFit, "xapi": Xapi}


def make_policy(name: str, seed: int = 0, *, coordinator_bias: bool = True) -> Policy:
    """The policy that `placement.policy=name` asks for; `seed` of its draws, if it draws."""
    if name not in POLICIES:
        raise ConfigError(
            f"placement.policy must be one of {', '.join(POLICIES)}, got {name}: try placement.policy=first_fit"
        )
    if name == "xapi":
        return Xapi(seed, coordinator_bias=coordinator_bias)
    return POLICIES[name]()
