"""Does a run that was kept, cut at any step and gone on with give the rows of the run that was not?"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from podcluster.cluster.agenda import Evacuation, Failure
from podcluster.cluster.ahead import Ahead
from podcluster.cluster.orders import Order
from podcluster.cluster.pool import NOTHING_PACKED, CommandsByHost, InlinePool, Packed, Packing
from podcluster.cluster.resume import KeptPool, Memory, Told
from podcluster.errors import InvariantError
from podcluster.records.reports import HostReport
from podcluster.units import NS_PER_S
from tests.cluster.fake import make_fake
from tests.cluster.story import inline, machines, physics, play, small_plan

WORKLOAD = machines()
PLAN = replace(
    small_plan(WORKLOAD, hosts=6),
    orders=(Order(700 * NS_PER_S, Evacuation(0)), Order(1200 * NS_PER_S, Failure(1))),
)
HOSTS = [spec.host_id for spec in PLAN.specs]
PACKING = Packing(pickle.dumps, pickle.loads)


class Shelf:
    """A store in memory, through pickle as on a disk."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.steps = 0
        self.hosts: Packed = NOTHING_PACKED

    def told(self) -> Iterator[Told]:
        """Each save's, in turn."""
        for part in self.kept:
            yield from pickle.loads(part)

    def packed(self) -> Packed:
        """The last."""
        return self.hosts

    def save(self, told: Sequence[Told], packed: Iterable[tuple[int, bytes]]) -> None:
        """The hosts first: that may fail."""
        self.hosts = dict(packed)
        self.kept.append(pickle.dumps(list(told)))
        self.steps += len(told)


class CutError(Exception):
    """The process dies here."""


class MortalPool(InlinePool):
    """Ends after so many steps."""

    left = 10**9

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """One step nearer."""
        self.left -= 1
        if self.left < 0:
            raise CutError
        return super().advance(until_ns, commands, ahead)


class Ticks:
    """A clock that goes on by 1 s whenever it is looked at."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def kept(shelf: Shelf, every_s: float, left: int = 10**9, clock: Callable[[], float] | None = None) -> KeptPool:
    """The story's hosts, kept on a shelf, in a process that has so many steps to live."""

    def open_pool(packed: Packed) -> MortalPool:
        pool = MortalPool(PLAN.specs, PLAN.hosts, make_fake, PACKING, packed)
        pool.left = left
        return pool

    return KeptPool(open_pool, HOSTS, "inline", shelf, every_s, clock or Ticks())


@pytest.fixture(scope="module")
def expected() -> dict[str, list[Any]]:
    """The rows of the run that was not cut."""
    rows = physics(play(PLAN, WORKLOAD, inline(PLAN))[1])
    assert {"migrated", "host_failed", "pod_oom"} <= {row["fate"] for row in rows["domains"]}
    return rows


@pytest.mark.parametrize("every_s", [0, 7, 60])
@pytest.mark.parametrize("lives", [[1], [13], [80], [40, 1, 1, 25], [5] * 30])
def test_a_run_that_is_cut_and_gone_on_with_gives_the_same_rows(
    expected: dict[str, list[Any]], every_s: float, lives: list[int]
) -> None:
    """[CK-1] [CK-2] killed after so many steps of each life; what was kept last is where the next one begins."""
    shelf = Shelf()
    for left in lives:
        with pytest.raises(CutError):
            play(PLAN, WORKLOAD, kept(shelf, every_s, left))
    outcome, sink = play(PLAN, WORKLOAD, kept(shelf, every_s))
    assert physics(sink) == expected
    assert outcome.row.engine_kind == "inline"


def test_what_is_known_is_not_computed_again() -> None:
    """All but the last step kept: the hosts of the second life step once; all of it kept: there are none."""
    still = float  # a clock that stands: every step is kept
    shelf = Shelf()
    play(PLAN, WORKLOAD, kept(shelf, 0, clock=still))
    steps = shelf.steps
    again, _ = play(PLAN, WORKLOAD, kept(shelf, 0, left=0, clock=still))
    assert again.steps == steps
    cut = Shelf()
    with pytest.raises(CutError):
        play(PLAN, WORKLOAD, kept(cut, 0, left=steps - 1, clock=still))
    assert cut.steps == steps - 1
    play(PLAN, WORKLOAD, kept(cut, 0, left=1, clock=still))


def test_saves_take_a_twentieth_of_the_time_at_most() -> None:
    """By a clock that goes on at each look: with saves of 1 s none comes within 20 s of the one before."""
    shelf = Shelf()
    play(PLAN, WORKLOAD, kept(shelf, 0))
    assert 2 < len(shelf.kept) <= shelf.steps / 18 + 1


def test_a_run_that_cannot_be_kept_goes_on(expected: dict[str, list[Any]], caplog: pytest.LogCaptureFixture) -> None:
    """A full disk is a warning, and what could not be saved is saved later."""

    class Full(Shelf):
        refused = 3

        def save(self, told: Sequence[Told], packed: Iterable[tuple[int, bytes]]) -> None:
            if self.refused:
                self.refused -= 1
                raise OSError(28, "No space left on device")
            super().save(told, packed)

    shelf = Full()
    assert physics(play(PLAN, WORKLOAD, kept(shelf, 5))[1]) == expected
    assert caplog.text.count("could not be kept ([Errno 28] No space left on device)") == 3
    assert physics(play(PLAN, WORKLOAD, kept(shelf, 5))[1]) == expected


def test_nothing_is_gathered_where_nothing_is_to_be_kept() -> None:
    """engine.checkpoint_s=0."""
    shelf = Shelf()
    play(PLAN, WORKLOAD, kept(shelf, float("inf")))
    assert shelf.steps == 0 and not shelf.kept


def test_another_run_is_noticed() -> None:
    """[CK-2] what is kept is of other steps than those that are asked for."""
    shelf = Shelf()
    with pytest.raises(CutError):
        play(PLAN, WORKLOAD, kept(shelf, 0, left=30))
    with pytest.raises(InvariantError, match=r"\[CK-2\] a run goes on as it went"):
        play(replace(PLAN, epoch_ns=7 * NS_PER_S), WORKLOAD, kept(shelf, 0))


def test_the_news_are_all_there_is_to_know() -> None:
    """Reports are whole again from their news, which of hosts that only grew older are none."""
    here, there = Memory(HOSTS), Memory(HOSTS)
    pool = inline(PLAN)
    said = 0
    for step in range(1, 50):
        reports = pool.advance(step * NS_PER_S, {})
        told = here.news(step * NS_PER_S, reports)
        said += len(told.reports)
        assert there.whole(told) == reports
    assert said == len(HOSTS)
