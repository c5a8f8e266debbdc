"""Small tables for figures and summaries, as dicts of arrays."""

from typing import Any

import numpy as np

from podcluster.units import NS_PER_S, PAGES_PER_GIB

HOUR_NS = 3600 * NS_PER_S


def samples(hours: int = 24, gib: float = 1000.0) -> dict[str, Any]:
    """A cluster that fills in the first hour, and one host of it."""
    t_ns = np.arange(1, 4 * hours + 1) * HOUR_NS // 4
    ramp = np.minimum(t_ns / HOUR_NS, 1.0) * gib * PAGES_PER_GIB
    count = len(t_ns)
    columns = {"promised": 1.5, "owned": 0.95, "demanded": 0.3}
    table: dict[str, Any] = {
        "host_id": np.repeat([-1, 0], count),
        "replication": np.zeros(2 * count, dtype=np.int64),
        "t_ns": np.tile(t_ns, 2),
    }
    for name, share in columns.items():
        table[f"{name}_pages"] = np.concatenate([ramp * share, ramp * share / 2]).astype(np.int64)
    return table


def domains(fates: dict[str, int], hours: int = 24) -> dict[str, Any]:
    """So many of each fate, ending one after the other."""
    names = [fate for fate, count in fates.items() for _ in range(count)]
    return {
        "fate": np.array(names, dtype=object),
        "replication": np.zeros(len(names), dtype=np.int64),
        "end_ns": np.linspace(HOUR_NS, hours * HOUR_NS, len(names)).astype(np.int64),
    }


def cells(ratios: list[float], crashes: list[int], *, boots: int = 100, replications: int = 5) -> dict[str, Any]:
    """Cells of a sweep at these static ratios, with so many crashes among their boots."""
    rate = np.array(crashes) / boots
    missing = np.array([None] * len(ratios), dtype=object)
    low, high = (np.array([p * part if p else None for p in rate], dtype=object) for part in (0.8, 1.2))
    x = np.array(ratios)
    return {
        "static_ratio": x,
        "static_ratio_low": x - 0.02,
        "static_ratio_high": x + 0.02,
        "crash_per_boot": rate,
        "crash_per_boot_low": low if replications > 1 else missing,
        "crash_per_boot_high": high if replications > 1 else missing,
        "crash_per_boot_upper": rate + 0.03,
        "swap_share": rate / 10,
        "swap_share_low": missing,
        "swap_share_high": missing,
        "confidence": np.full(len(ratios), 0.95),
        "replications": np.full(len(ratios), replications),
        "boots_started": np.full(len(ratios), boots),
    }
