"""No controller: targets stay where the toolstack put them, and starts get what is configured as memory.

What        The baseline of every comparison.
Departs     nowhere.
"""

from __future__ import annotations

from podcluster.host.controllers.view import Decision, Reads, View, Wakes
from podcluster.host.streams import NEVER


class Static:
    """Does nothing."""

    period_ns = NEVER
    wakes: Wakes = "memory"
    reads: Reads = "domains"
    first_state = None

    def decide(self, view: View, state: None) -> Decision:
        """Nothing."""
        return Decision((), state, None)
