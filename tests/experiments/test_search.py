"""Does the search for settings of logged crashes find all there are, and only such?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from podcluster.cli import plan
from podcluster.report.field_crashes import LOGGED

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "field_crashes" / "search.py"


@pytest.fixture(scope="module")
def search() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("search", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["qubes_7023", "memory_2048"])
def test_the_settings_in_conf_are_a_solution(search: ModuleType, name: str) -> None:
    """Each solution leaves the numbers of the log; the one that conf/crash holds is among them; none is Linux's."""
    tot, entries = LOGGED[name].tot_pages, LOGGED[name].entry_count
    assert search.LOGS[name] == (tot, entries)
    found = list(search.candidates(tot, entries))
    for one in found:
        hole = 32 if one.less_hole else 0
        assert one.memory_mib * 256 - hole + one.extra_pages == tot
        given = one.batches * search.BATCHES[one.driver]
        assert (one.maxmem_mib - one.memory_mib) * 256 - (32 - hole) - given == entries
    assert {one.driver for one in found} == {"windows"}
    config = plan([f"crash={name}"])[0][0].config
    held = (config.workload.memory_mib, config.workload.maxmem_mib, config.host.extra_ram_pages)
    assert held in {(one.memory_mib, one.maxmem_mib, one.extra_pages) for one in found}


def test_a_linux_driver_s_whole_hypercalls_are_found_where_there_are_some(search: ModuleType) -> None:
    """1024 of 2048 MiB with 24 extra pages, ten hypercalls of 512 pages done: found, with its sizes."""
    tot, entries = 1024 * 256 - 32 + 24, 1024 * 256 - 10 * 512
    assert search.Settings("linux", 1024, 2048, 24, True, 10) in list(search.candidates(tot, entries))
