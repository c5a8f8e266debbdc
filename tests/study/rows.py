"""`runs` rows for tests: a plain one, with what a test is about laid over it."""

from dataclasses import fields, replace
from typing import Any

from podcluster.records import RunRow

DAY_S = 86_400

PLAIN = RunRow(
    **{
        field.name: {"int": 0, "float": 0.0, "str": ""}.get(str(field.type).split(" | ")[0], 0)
        for field in fields(RunRow)
    }
)


def run_row(**values: Any) -> RunRow:
    """A run of one host and a day in which nothing happened, but for `values`."""
    return replace(PLAIN, **{"hosts": 1, "usable_pages": 1000, "domain_s": float(DAY_S), "resample": "machines_days"} | values)
