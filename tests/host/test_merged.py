"""Do batches of many streams in one call come to what they come to one by one?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podcluster.host import follow, merged
from podcluster.host.batches import DIED
from podcluster.host.machine import Machine
from podcluster.host.model import make_machine
from podcluster.host.page_sets import PageBooks
from podcluster.records.commands import SetTarget
from podcluster.units import PAGES_PER_MIB, s_to_ns
from tests.host.lives import curve, guest_config, host_config, host_model, live, request, rows, start

MOST = (1 << 61) - 1


@given(a=st.integers(-(1 << 45), 1 << 45), b=st.integers(0, 1 << 45), c=st.integers(1, MOST))
@example(a=(1 << 26), b=10**12, c=3)
@example(a=-(1 << 24), b=300 * 10**9, c=1)
@example(a=-1, b=1, c=MOST)
def test_a_product_may_pass_64_bits(a: int, b: int, c: int) -> None:
    """muldiv against Python's integers, wherever the quotient is within its bounds."""
    if abs(a * b // c) < 1 << 50:
        assert merged.divided(a, b, c) == a * b // c


class Counting(Machine):
    """The real machine, which counts its calls."""

    calls: dict[str, int]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.calls = {"run_merged": 0, "follow_demand": 0, "touch_range": 0, "balloon_runs": 0}
        self.ended: list[int] = []

    def run_merged(self, dom: int, books: PageBooks, *arguments: Any) -> Any:
        self.calls["run_merged"] += 1
        found = super().run_merged(dom, books, *arguments)
        self.ended.append(found[0][merged.HOW])
        return found

    def follow_demand(self, *arguments: Any) -> Any:
        self.calls["follow_demand"] += 1
        return super().follow_demand(*arguments)

    def touch_range(self, *arguments: Any, **keywords: Any) -> int:
        self.calls["touch_range"] += 1
        return super().touch_range(*arguments, **keywords)

    def balloon_runs(self, *arguments: Any, **keywords: Any) -> Any:
        self.calls["balloon_runs"] += 1
        return super().balloon_runs(*arguments, **keywords)


def boot(kind: str, *, coalesce: bool = True, memory_mib: int = 128, **changed: Any) -> tuple[Any, Counting]:
    """Rows of one guest of 512 MiB on a host where Xen takes its time, and the machine that it lived on."""
    machines: list[Counting] = []

    def make(host: Any, ram_pages: int) -> Any:
        machines.append(make_machine(host, ram_pages, Counting))  # type: ignore[arg-type]
        return machines[-1]

    guest = guest_config(kind, page_cache={"rate_mib_per_s": 0}, **changed)
    model = host_model(guest, ram_mib=600, host=host_config(costs={}), machine=make, coalesce=coalesce)
    report = live(model, 60, start(request(0, kind, memory_mib, 512, 50)))
    return rows([report]), machines[0]


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("linux", {}),
        ("linux", {"balloon": {"boot_barrier": False}, "late_descriptors_share": 0.5}),
        ("linux", {"balloon": {"scrub": False}}),
        ("linux", {"balloon": {"scrub": False}, "alloc_order": "random", "alloc_block_pages": 64}),
        ("windows", {}),
        ("windows", {"scrub_streams": 3, "scrub_order": "descending"}),
        ("linux", {"scrubber": "pattern", "scrub_rate_mib_per_s": [20, 20], "balloon": {"boot_barrier": False}}),
        ("linux_no_driver", {"scrubber": "zero", "zero_on_free": True}),
    ],
)
def test_a_boot_in_few_calls_is_the_boot(kind: str, changed: dict[str, Any]) -> None:
    """Boots whose streams interleave: the same rows as act by act, in a fraction of the calls."""
    singly, plain = boot(kind, coalesce=False, **changed)
    fast, merging = boot(kind, **changed)
    assert fast == singly
    assert plain.calls["run_merged"] == plain.calls["follow_demand"] == 0
    assert merging.calls["run_merged"] > 0
    assert sum(merging.calls.values()) < sum(plain.calls.values())


def test_a_death_within_a_call_is_the_death() -> None:
    """A guest without a driver that dies while its services start: the same row, the call having ended with it."""
    changed: dict[str, Any] = {"memory_mib": 32, "services_mib": [40, 40]}
    singly, _ = boot("linux_no_driver", coalesce=False, **changed)
    fast, merging = boot("linux_no_driver", **changed)
    assert fast == singly
    assert singly[0][0].fate == "pod_oom"
    assert DIED in merging.ended


def told_lower(lower_s: int, *, coalesce: bool) -> tuple[Any, int]:
    """Rows of a host with three guests whose targets fall together at `lower_s` and rise again, and the calls that it
    took.
    """
    machines: list[Counting] = []

    def make(host: Any, ram_pages: int) -> Any:
        machines.append(make_machine(host, ram_pages, Counting))  # type: ignore[arg-type]
        return machines[-1]

    slow = guest_config("linux", page_cache={"rate_mib_per_s": 0}, balloon={"rate_pages_per_s": [9000, 9000]})
    model = host_model(slow, ram_mib=2000, host=host_config(costs={}), machine=make, coalesce=coalesce)
    starts = [start(request(k, "linux", 512, 512, 50), at_s=1 + k) for k in range(3)]
    targets = ((lower_s, 200), (60, 400))
    told = [SetTarget(s_to_ns(at_s), k, mib * PAGES_PER_MIB) for at_s, mib in targets for k in range(3)]
    report = live(model, 90, *starts, *told)
    return (rows([report]), report.host), sum(machines[0].calls.values())


@pytest.mark.parametrize("lower_s", [4, 30])
def test_what_only_gives_to_the_heap_may_come_out_of_turn(lower_s: int) -> None:
    """Three guests that owe nothing, booting or up, balloon at the same time: the same rows, what was owned and free
    included, in a small part of the calls [BA-5].
    """
    (singly, plain), (fast, merging) = told_lower(lower_s, coalesce=False), told_lower(lower_s, coalesce=True)
    assert fast == singly
    assert merging < plain / 4


def sampled(*, coalesce: bool) -> tuple[Any, Counting]:
    """Rows and samples of two guests whose demand rises beyond what they have, and the machine that they lived on."""
    machines: list[Counting] = []

    def make(host: Any, ram_pages: int) -> Any:
        machines.append(make_machine(host, ram_pages, Counting))  # type: ignore[arg-type]
        return machines[-1]

    guest = guest_config("linux", page_cache={"rate_mib_per_s": 0}, swap={"mib": 64})
    model = host_model(
        guest, ram_mib=800, telemetry_s=3, machine_samples=True, host=host_config(costs={}), machine=make,
        coalesce=coalesce,
    )  # fmt: skip
    rising = curve((0, 20), (30, 20), (300, 340)), curve((0, 20), (40, 150), (60, 30), (300, 200))
    starts = [start(request(k, "linux", 256, 512, demand), at_s=1 + k) for k, demand in enumerate(rising)]
    report = live(model, 300, *starts)
    return (rows([report]), report.host, report.machine_samples), machines[0]


def test_samples_do_not_hold_up_who_follows_a_demand() -> None:
    """A hundred samples, most of which find fewer entries than the one before, in a few calls [GS-4]."""
    singly, _ = sampled(coalesce=False)
    fast, machine = sampled(coalesce=True)
    assert fast == singly
    assert any(row.oom_kills for row in fast[0][0])
    assert len({sample.entry_pages for sample in fast[0][2]}) > 30
    assert 0 < machine.calls["follow_demand"] < 10


def test_a_demand_is_followed_in_few_calls() -> None:
    """What follows the demand is called a few times a day, not once a batch; books have as many fields as said."""
    _, machine = boot("linux")
    assert 0 < machine.calls["follow_demand"] < 20
    assert (follow.BOOKS, follow.GIVEN) == (follow.SEEN + 1, follow.FIRST + 1)
