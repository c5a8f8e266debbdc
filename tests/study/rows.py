"""`runs` rows for tests: a plain one, with what a test is about laid over it."""

from dataclasses import fields
from typing import Any

from podcluster.records.summaries import RunRow
from podcluster.units import NS_PER_S

DAY_S = 86_400

_PLAIN: dict[str, Any] = {
    field.name: {"int": 0, "float": 0.0, "str": ""}[str(field.type).split(" | ")[0]] for field in fields(RunRow)
} | {
    "hosts": 1,
    "usable_pages": 1000,
    "duration_ns": DAY_S * NS_PER_S,
    "domain_s": float(DAY_S),
    "resample": "machines_days",
    "failures_tolerated_min": None,
    "overcommitted_ns": None,
}


def run_row(**values: Any) -> RunRow:
    """A run of one host and a day in which nothing happened, but for `values`; without a warm-up and without a plan."""
    row = _PLAIN | values
    return RunRow(**row | {"after_warmup_s": row["domain_s"], "crashes": row["fate_pod_oom"]} | values)
