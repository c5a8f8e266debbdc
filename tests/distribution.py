"""A pytest plugin: which tests stay together when several processes share them (`pytest --numprocesses`).

A test goes wherever there is time for it, except that a file whose tests share something that took long stays whole,
and all files with a Ray in them count as one: a Ray takes all cores, so one is enough at a time. This goes by what a
file says, since pytest-xdist's own groups (`--dist loadgroup`) are without effect in pytest 9.2, and silently so.
"""

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parent.parent
STARTS_A_RAY = re.compile(r"\b(ray_cluster|private_ray)\b")
SHARES = re.compile(r'scope="(module|package)"|^@cache$', re.MULTILINE)


@cache
def together(file: str) -> str | None:
    """The name of what the tests of a file are a part of; None if each is on its own."""
    text = (ROOT / file).read_text()
    if STARTS_A_RAY.search(text):
        return "ray"
    return file if SHARES.search(text) else None


class Scheduling(LoadScopeScheduling):
    """Hands out what belongs together as one, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid.partition("::")[0]) or nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """In place of pytest-xdist's default; any other mode that is asked for stays what it is."""
    return Scheduling(config, log) if config.getvalue("dist") == "load" else None
