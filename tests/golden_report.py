"""A pytest plugin: how many golden traces this session replayed through the kernels, as one of its last lines.

A trace counts once per collection, and only if it was replayed to its end without a difference.
"""

from collections.abc import Generator
from typing import Any

import pytest

PROJECT, SHARED = "the project's selection", "shared"
PROJECT_2009, SHARED_2009 = "the project's selection of 2009", "shared of 2009"
COLLECTIONS = (PROJECT, SHARED, PROJECT_2009, SHARED_2009)
_REPLAYED = pytest.StashKey[dict[str, set[str]]]()
_SIZES = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPLAYED] = dict[str, set[str]]({collection: set() for collection in COLLECTIONS})
    config.stash[_SIZES] = dict.fromkeys(COLLECTIONS, 0)


def count(config: pytest.Config, collection: str, name: str, size: int) -> None:
    """Say that trace `name` of a collection of `size` traces was replayed and agreed."""
    config.stash[_REPLAYED][collection].add(name)
    config.stash[_SIZES][collection] = size


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands what it counted to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["golden"] = [
            (collection, sorted(names), session.config.stash[_SIZES][collection])
            for collection, names in session.config.stash[_REPLAYED].items()
        ]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker of pytest-xdist counted."""
    for collection, names, size in getattr(node, "workeroutput", {}).get("golden", []):
        for name in names:
            count(node.config, collection, name, size)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    yield  # outermost, so that the line comes after every other summary
    replayed, sizes = terminalreporter.config.stash[_REPLAYED], terminalreporter.config.stash[_SIZES]
    if sizes[PROJECT_2009] or sizes[SHARED_2009]:
        shared = f"{len(replayed[SHARED_2009])} of {sizes[SHARED_2009] or 'the 60 (not here)'}"
        terminalreporter.write_line(
            f"golden traces of 2009: {len(replayed[PROJECT_2009])} of {sizes[PROJECT_2009]} "
            f"of the project's selection, {shared} of the shared set"
        )
    if sizes[PROJECT] or sizes[SHARED]:
        terminalreporter.write_line(
            f"golden traces: {len(replayed[PROJECT])} of {sizes[PROJECT]} of the project's selection, "
            f"{len(replayed[SHARED])} of {sizes[SHARED] or 'the 197 (not here)'} of the shared set"
        )
