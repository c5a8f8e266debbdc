"""Which hypervisor a host runs: the switches that tell the eras apart.

What        `SWITCHES` names, for each era, what its populate-on-demand code does differently, as fields of the host's
            record (`state.HOST_RECORD`). The kernels ask for a switch by what it does and never for an era, so that
            one set of kernels runs them all.
Units       `RING_SLOTS` are records.
Rules       docs/model.md, "Eras".
"""

from collections.abc import Mapping
from typing import Final

from podcluster.host.state import RECENT_AFTER, RECENT_ALWAYS, RECENT_IN_DEBT

TODAY: Final = "today"
RFC2009: Final = "rfc2009"

SWITCHES: Final[Mapping[str, Mapping[str, int]]] = {
    RFC2009: {
        "fixed_tables": 1,
        "keeps_contents": 1,
        "coarse_cache": 1,
        "whole_extents": 1,
        "early_sweeps": 1,
        "blind_checks": 1,
        "promises_stay": 1,
    },
    "xen2012": {"recent": RECENT_AFTER, "sweep_yields": 0},
    "xen2015": {"recent": RECENT_ALWAYS, "sweep_yields": 1},
    TODAY: {"recent": RECENT_IN_DEBT, "sweep_yields": 1},
}
"""By era, oldest first; what is not named is 0."""

RING_SLOTS: Final[Mapping[str, int]] = {RFC2009: 1, "xen2012": 128, "xen2015": 32, TODAY: 32}
"""Length of the recent list [P7]; a host may be told another."""
