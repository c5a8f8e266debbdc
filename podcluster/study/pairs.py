"""What one change makes: paired differences between cells that met the same machines and the same luck.

What        A sweep that names a baseline (`study.baseline: axis=value`) compares each cell with the one that differs
            from it in that axis alone. All cells meet the same machines with the same draws [SY-2], so machine i of
            replication r here and there are a pair, and what is common to both falls out of the difference.
Units       Of each measure, in MEASURES.
Symbols     d_i difference of machine i (here less baseline)   n_r machines of replication r   R replications
            D = sum d_i / sum n_r   k+, k- machines whose value is higher, lower here   n = sum n_r
            c confidence, z the normal quantile of (1 + c) / 2
Methods     [ST-5] interval of D over replications: the ratio estimator [ST-1] of the R sums of d_i over n_r; the unit
                   is the replication, never the machine; of an event it is cut to [-1, 1]. Null with R < 2, and where
                   all replications differ by the same (so also where no pair differs at all): R equal numbers do not
                   bound what was never seen.
            [ST-6] exact sign test: of the units that differ at all, half would be higher here if the change did
                   nothing; two-sided binomial. Over replications (`sign_p`); over machines as if each were independent
                   (`sign_p_pooled`), which for crashes is McNemar's exact test. Where a run is one machine the two are
                   one.
            [ST-7] pooled interval of a difference of shares (Bonett and Price 2012, McNemar's table with one added to
                   both discordant cells): p+ = (k+ + 1) / (n + 2), p- likewise, (p+ - p-) +- z sqrt((p+ + p- - (p+ -
                   p-)^2) / (n + 2)). It is not empty where no pair differs, and takes every pair for independent.
Departs     Machines that only one of the two cells has are left out (an axis may change which take part). A machine
            that is started again after a crash is one machine: its counts are summed over attempts, its boot time is
            the first attempt's. A measure is compared over the machines that have it in both cells: boot time of
            those that came up in both, slowdown of those that came up and lived in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from podcluster.config import AxisValue, Cell
from podcluster.errors import ConfigError
from podcluster.records.summaries import PairRow
from podcluster.study.statistics import ratio_se, t_quantile
from podcluster.units import NS_PER_S, PAGES_PER_GIB

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = Mapping[str, NDArray[Any]]

REFUSED: Final = ("rejected", "build_failed")
ENDED_BADLY: Final = ("pod_oom", "pod_oom_by_other", "guest_panic", "ept_violation", "build_failed", "rejected")
KILLED_OTHERWISE: Final = ("pod_oom_by_other", "guest_panic", "ept_violation")
"""Fates that are measures under their own names."""
CAUSES_EARLY: Final = ("wrap", "ring", "preempt", "reclaim_short")


class Measure(NamedTuple):
    """What is compared of a machine: its unit, and whether it is an event that happens or not."""

    unit: str
    event: bool
    doc: str


MEASURES: Final[Mapping[str, Measure]] = {
    "died": Measure("1", True, "Xen killed it for want of populate-on-demand memory"),
    "early": Measure("1", True, "of these, with zero pages left that reclaim did not find in time (G11)"),
    "pod_oom_by_other": Measure("1", True, "Xen killed it for want of such memory on another domain's access"),
    "guest_panic": Measure("1", True, "its own kernel gave up"),
    "ept_violation": Measure("1", True, "Xen killed it for want of memory for its page tables"),
    "refused": Measure("1", True, "no host took it, or its build failed"),
    "oom_kills": Measure("1", False, "applications killed inside it"),
    "swap_s": Measure("s", False, "time it spent swapping"),
    "slowdown": Measure("1", False, "time since boot over the part of it not lost to swapping"),
    "moved_gib": Measure("GiB", False, "what its host gave it or took from it since a controller set its target"),
    "boot_s": Measure("s", False, "from the start of its build to its services up"),
    "sweeps": Measure("1", False, "emergency sweeps"),
    "sweep_looks": Measure("1", False, "gfns that they looked at"),
    "splintered_2m": Measure("1", False, "superpage entries split"),
}


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of a cell, or of several one after the other: which each is, and each measure, nan for none."""

    place: Ints  # which of the cells
    replication: Ints
    domain: Ints
    values: Mapping[str, Floats]


def machines_of(domains: Columns) -> Machines:
    """The machines of one cell from the columns of its `domains`."""
    ints = {name: _numbers(domains, name) for name in ("replication", "domain_id", "attempt")}
    order = np.lexsort((ints["attempt"], ints["domain_id"], ints["replication"]))
    domain = ints["domain_id"][order].astype(np.int64)
    replication = ints["replication"][order].astype(np.int64)
    if not len(order):
        none = np.empty(0, dtype=np.int64)
        return Machines(none, none, none, {name: np.empty(0) for name in MEASURES})
    new = np.append(True, (np.diff(domain) != 0) | (np.diff(replication) != 0))
    first = np.flatnonzero(new)
    fate, cause = domains["fate"][order], domains["cause"][order]

    def total(values: NDArray[np.bool_] | Floats) -> Floats:
        return np.add.reduceat(values.astype(np.float64), first)

    def column(name: str) -> Floats:
        return _numbers(domains, name)[order]

    killed = fate == "pod_oom"
    lived = (total(np.isin(fate, ENDED_BADLY)) == 0) & np.isfinite(column("boot_done_ns"))[first]
    attempts = np.diff(np.append(first, len(order)))
    # What was computed before hosts told so of each domain says nothing of it.
    moved_pages = column("moved_pages") if "moved_pages" in domains else np.full(len(order), np.nan)
    boot_s = (column("boot_done_ns") - column("boot_start_ns"))[first] / NS_PER_S
    values = {
        "died": np.minimum(total(killed), 1.0),
        "early": np.minimum(total(killed & np.isin(cause, CAUSES_EARLY)), 1.0),
        **{name: np.minimum(total(fate == name), 1.0) for name in KILLED_OTHERWISE},
        "refused": np.minimum(total(np.isin(fate, REFUSED)), 1.0),
        "oom_kills": total(column("oom_kills")),
        "swap_s": total(column("swap_ns")) / NS_PER_S,
        "slowdown": np.where(lived, total(column("slowdown")) / attempts, np.nan),
        "moved_gib": total(moved_pages) / PAGES_PER_GIB,
        "boot_s": boot_s,
        "sweeps": total(column("sweeps")),
        "sweep_looks": total(column("sweep_looks")),
        "splintered_2m": total(column("splintered_2m")),
    }
    return Machines(np.zeros(len(first), dtype=np.int64), replication[first], domain[first], values)


def _numbers(table: Columns, name: str) -> Floats:
    """A column of numbers, nan where it is null."""
    values = table[name]
    if values.dtype == object:
        values = np.array([np.nan if value is None else value for value in values])
    return values.astype(np.float64)


def together(cells: Sequence[Machines]) -> Machines:
    """Several cells as one: each machine stays itself, and replication r of all of them is one unit."""
    return Machines(
        np.repeat(np.arange(len(cells)), [len(one.domain) for one in cells]),
        np.concatenate([one.replication for one in cells]),
        np.concatenate([one.domain for one in cells]),
        {name: np.concatenate([one.values[name] for one in cells]) for name in MEASURES},
    )


class Difference(NamedTuple):
    """A paired difference with all that is known of it; None where a method says nothing."""

    replications: int
    machines: int
    baseline_value: float
    value: float
    difference: float
    low: float | None
    high: float | None
    sign_p: float
    machines_higher: int
    machines_lower: int
    low_pooled: float | None
    high_pooled: float | None
    sign_p_pooled: float


def sign_test(higher: int, lower: int) -> float:
    """Two-sided exact probability of a split at least as uneven [ST-6]; McNemar's exact test for a pair of events."""
    units = higher + lower
    if not units or higher == lower:
        return 1.0
    from scipy.special import bdtr

    return min(1.0, 2.0 * float(bdtr(min(higher, lower), units, 0.5)))


def bonett_price(higher: int, lower: int, pairs: int, confidence: float) -> tuple[float, float]:
    """Interval of a difference of paired shares [ST-7], cut to [-1, 1]."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    up, down = (higher + 1) / (pairs + 2), (lower + 1) / (pairs + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (pairs + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def difference(
    here: Floats, baseline: Floats, replication: Ints, confidence: float, *, event: bool
) -> Difference | None:
    """Compare one measure of the same machines here and at the baseline; None where no machine has it in both."""
    both = np.isfinite(here) & np.isfinite(baseline)
    if not both.any():
        return None
    here, baseline, replication = here[both], baseline[both], replication[both]
    change = here - baseline
    _, unit = np.unique(replication, return_inverse=True)
    sums = np.bincount(unit, weights=change)
    counts = np.bincount(unit)
    value, se = ratio_se(sums.tolist(), counts.tolist())
    low = high = None
    if se is not None and not _all_equal(sums / counts):
        half = t_quantile(0.5 + confidence / 2, len(sums) - 1) * se
        most = 1.0 if event else math.inf
        low, high = max(-most, value - half), min(most, value + half)
    higher, lower, pairs = int((change > 0).sum()), int((change < 0).sum()), len(change)
    low_pooled = high_pooled = None
    if event:
        low_pooled, high_pooled = bonett_price(higher, lower, pairs, confidence)
    return Difference(
        replications=len(sums),
        machines=pairs,
        baseline_value=float(baseline.mean()),
        value=float(here.mean()),
        difference=value,
        low=low,
        high=high,
        sign_p=sign_test(int((sums > 0).sum()), int((sums < 0).sum())),
        machines_higher=higher,
        machines_lower=lower,
        low_pooled=low_pooled,
        high_pooled=high_pooled,
        sign_p_pooled=sign_test(higher, lower),
    )


def _all_equal(values: Floats) -> bool:
    return bool((values == values[0]).all())


def compare(here: Machines, baseline: Machines, confidence: float) -> Iterator[tuple[str, Difference]]:
    """Each measure of MEASURES that some machine has in both, in their order."""
    names = _names(here, baseline)
    _, at, there = np.intersect1d(names[0], names[1], assume_unique=True, return_indices=True)
    for name, measure in MEASURES.items():
        found = difference(
            here.values[name][at],
            baseline.values[name][there],
            here.replication[at],
            confidence,
            event=measure.event,
        )
        if found is not None:
            yield name, found


def _names(*sides: Machines) -> list[Ints]:
    """One number for each machine, the same on all sides."""
    columns = [(one.place, one.replication, one.domain) for one in sides]
    most = [1 + int(np.concatenate(same).max(initial=0)) for same in zip(*columns, strict=True)]
    return [(place * most[1] + replication) * most[2] + domain for place, replication, domain in columns]


def pair_rows(baseline_cell: str, here: Machines, baseline: Machines, confidence: float) -> list[PairRow]:
    """The `pairs` rows of one cell."""
    return [
        PairRow(baseline_cell=baseline_cell, measure=name, unit=MEASURES[name].unit, confidence=confidence,
                **found._asdict())
        for name, found in compare(here, baseline, confidence)
    ]  # fmt: skip


# -- which cells are compared ------------------------------------------------------------------------------------------


def partners(cells: Sequence[Cell]) -> dict[int, int]:
    """For each cell that is to be compared the one it is compared with, by their places; empty without a baseline.

    Raise ConfigError where `study.baseline` names no axis of this sweep, or no value of it.
    """
    text = cells[0].config.study.baseline
    if text is None or not cells[0].axes:
        return {}
    name, _, wanted = text.partition("=")
    if name not in cells[0].axes:
        swept = ", ".join(cells[0].axes)
        raise ConfigError(f"study.baseline must name an axis of the sweep ({swept}), got {text}: sweep {name}=... too")
    values = [as_text(cell.axes[name]) for cell in cells]
    if wanted not in values:
        there = ", ".join(dict.fromkeys(values))
        raise ConfigError(f"study.baseline must be one of the values of {name} ({there}), got {wanted}: add it there")
    places = {_beside(cell, name): at for at, cell in enumerate(cells) if values[at] == wanted}
    return {at: places[_beside(cell, name)] for at, cell in enumerate(cells) if values[at] != wanted}


def as_text(value: AxisValue) -> str:
    """An axis' value as one writes it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _beside(cell: Cell, name: str) -> tuple[AxisValue, ...]:
    return tuple(value for axis, value in cell.axes.items() if axis != name)
