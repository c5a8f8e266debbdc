"""Do the tables of starts and evacuations count every attempt once, from the right instant, by the right axes?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from podcluster.report import evacuated, starts
from podcluster.units import NS_PER_S

COLUMNS = (
    "controller",
    "replication",
    "domain_id",
    "attempt",
    "origin",
    "arrival_ns",
    "boot_done_ns",
    "end_ns",
    "fate",
)


def domains(*rows: tuple[Any, ...]) -> dict[str, Any]:
    """A table of boot attempts, times in seconds."""
    table: dict[str, Any] = {"cell": np.array([row[0] for row in rows], dtype=object)}
    for name, values in zip(COLUMNS, zip(*rows, strict=True), strict=True):
        scale = NS_PER_S if name.endswith("_ns") else 1
        scaled = [value * scale if isinstance(value, int) else value for value in values]
        table[name] = np.array(scaled, dtype=np.int64 if all(isinstance(one, int) for one in scaled) else object)
    return table


ROWS = domains(
    ("static", 0, 1, 1, "boot", 10, 30, 100, "host_failed"), ("static", 0, 1, 2, "ha", 220, 250, 900, "running"),
    ("static", 0, 2, 1, "boot", 10, None, 40, "build_failed"), ("static", 1, 1, 1, "boot", 5, 45, 900, "running"),
    ("squeezed", 0, 1, 1, "boot", 10, 110, 900, "running"), ("squeezed", 1, 1, 1, "boot", 0, 60, 900, "running"),
)  # fmt: skip


def test_boots_count_from_when_they_were_asked_for() -> None:
    """Three of static, one of which never came up; two of squeezed; who was started again is no boot."""
    static, squeezed = starts.starts_of(ROWS, ["controller"], 0.95)
    assert (static.values, static.asked, static.failed, static.replications) == (("static",), 3, 1, 2)
    assert static.share == pytest.approx(1 / 3) and static.low is not None
    assert static.up_s.tolist() == [20, 40] and static.quantile(0.5) == 30
    assert (squeezed.asked, squeezed.failed, squeezed.low, squeezed.high) == (2, 0, None, None)
    words = starts.in_words([static, squeezed], ["controller"], 0.95).splitlines()
    assert words[0].startswith("| controller | starts | never up (95%) |")
    assert words[3] == "| squeezed | 2 | 0 | 80 | 98 |"


def test_restarts_count_from_the_failure_of_their_host() -> None:
    """Lost at 100 s, up again at 250: 150 s away."""
    (found,) = starts.starts_of(ROWS, ["controller"], 0.95, origin="ha")
    assert (found.values, found.asked, found.up_s.tolist()) == (("static",), 1, [150])


def test_who_was_away_how_long_is_a_bar_from_the_failure_on() -> None:
    """The one restart, up 150 s after the failure: its median, how many came back, and the instants that are marked."""
    found = starts.starts_of(ROWS, ["controller"], 0.95, origin="ha")
    none = found[0]._replace(values=("squeezed",), up_s=np.empty(0), failed=1, share=1.0)
    figure = starts.away_figure([*found, none], ["controller"], marks={"the host is back": 800.0}, note="a note")
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [np.asarray(dot.get_xydata()).tolist() for dot in dots] == [[[150, 0]]]
    words = [item.get_text() for item in axes.texts]
    assert words == ["1 of 1 back, half in 150 s", "0 of 1 back", "the host is back"]
    assert axes.get_xlim()[1] > 800 and [item.get_text() for item in axes.get_yticklabels()] == ["static", "squeezed"]


def test_an_evacuation_sorts_who_went_and_who_did_not() -> None:
    """Two gone, the last 30 s after the order, one of them lost; one each without room, in debt and so on."""
    texts = [
        ("evacuate", "no more", 100), ("migrate", "5 MiB", 110), ("migrate", "5 MiB", 130),
        ("migrate_refused", "no other host has room for it", 100), ("migrate_refused", "it owes 5 pages", 100),
        ("migrate_refused", "it has 9 pages", 100), ("migrate_refused", "it is not up yet", 100), ("place", "", 1),
        ("migrate_refused", "host 2 has no room for it: VMS_FAILED_TO_COOPERATE(Dom1)", 120),
    ]  # fmt: skip
    events = {
        "controller": np.array(["static"] * len(texts), dtype=object),
        "replication": np.zeros(len(texts), dtype=np.int64),
        "kind": np.array([kind for kind, _, _ in texts], dtype=object),
        "text": np.array([text for _, text, _ in texts], dtype=object),
        "t_ns": np.array([s * NS_PER_S for _, _, s in texts], dtype=np.int64),
        "host_id": np.zeros(len(texts), dtype=np.int64),
    }
    dead = domains(
        ("static", 0, 1, 1, "boot", 10, 30, 100, "pod_oom_by_other"),
        ("static", 0, 2, 2, "migration", 10, None, 100, "build_failed"),
        ("static", 0, 3, 1, "boot", 10, None, 40, "pod_oom"), ("static", 0, 4, 1, "boot", 10, None, 40, "pod_oom"),
    )  # fmt: skip
    dead["host_id"] = np.array([0, 0, 0, 1])  # who died on another host is no part of it
    (found,) = evacuated.evacuations(events, dead, ["controller"])
    ends = {"away": 1, "no room": 1, "in debt": 1, "too large": 1, "not up": 1, "not taken": 1, "lost": 1, "died": 1}
    ends["died before"] = 1
    assert found.ends == ends
    assert (found.last_s, found.replications) == (30.0, 1)
    assert (
        evacuated.in_words([found], ["controller"]).splitlines()[2]
        == "| static | 9 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 1 | 30 |"
    )
    figure = evacuated.evacuation_figure([found], ["controller"])
    assert len(figure.axes[0].containers) == len(evacuated.ENDS)
    assert [item.get_text() for item in figure.axes[0].texts] == ["30", "last gone\nafter [s]"]
