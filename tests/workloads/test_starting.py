"""Memory and boot time of a machine: the rule of `overcommit`, to the MiB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podcluster.cli import compose
from podcluster.config import Config, GuestConfig
from podcluster.units import NS_PER_S
from podcluster.workloads import requests
from podcluster.workloads.starting import boot_ns, memory_mib

PLAIN_GUEST = compose(["guest=linux"]).guest


@pytest.fixture
def guest(make_config: Callable[..., Config]) -> GuestConfig:
    """The plain Linux guest, least memory 256 MiB."""
    return make_config("guest=linux").guest


@pytest.mark.parametrize(
    ("maxmem", "overcommit", "memory"),
    [
        (4096, 1, 4096),
        (4096, 1.5, 2730),
        (1100, 1.1, 1000),  # 1100/1.1 is 999.99... in binary
        (512, 2, 256),
        (512, 3, 256),  # the least memory
        (200, 3, 200),  # never above maxmem
    ],
)
def test_memory_is_the_floor_of_maxmem_over_r(guest: GuestConfig, maxmem: int, overcommit: float, memory: int) -> None:
    """Known pairs, at the least memory and below it."""
    assert memory_mib(maxmem, guest, overcommit) == memory


def test_target_fraction_overrides_r(guest: GuestConfig) -> None:
    """0.29 of 4096 is 1187.84; R no longer matters, the least memory does."""
    guest.target_fraction = 0.29
    assert memory_mib(4096, guest, 1.0) == memory_mib(4096, guest, 3.0) == 1187
    assert memory_mib(600, guest, 1.0) == 256
    guest.target_fraction = 1.0
    assert memory_mib(600, guest, 3.0) == 600


@given(maxmem=st.integers(16, 600_000), overcommit=st.floats(1, 100), least=st.integers(32, 1024))
def test_memory_stays_between_the_least_and_maxmem(maxmem: int, overcommit: float, least: int) -> None:
    """[WL-1] for any size and R."""
    memory = memory_mib(maxmem, replace(PLAIN_GUEST, min_memory_mib=least), overcommit)
    assert min(least, maxmem) <= memory <= maxmem
    assert memory == maxmem or memory <= max(Fraction(least), maxmem / Fraction(str(overcommit)))


@pytest.mark.parametrize("family", ["one", "synthetic"])
@pytest.mark.parametrize(("hold_s", "hold_ns"), [(-1, -1), (0, 0), (3600, 3600 * NS_PER_S)])
def test_held_memory_follows_hold_s(make_config: Callable[..., Config], family: str, hold_s: int, hold_ns: int) -> None:
    """Each request carries it in ns; -1 stays -1 (since boot)."""
    config = make_config(f"workload={family}", f"workload.hold_s={hold_s}", "workload.maxmem_mib=512")
    made = requests(config.workload, config.guest, 1.0, None, 1, 3600)
    assert {request.hold_ns for request in made.requests} == {hold_ns}


def test_boots_fill_the_spread_and_zero_is_a_storm() -> None:
    """1000 boots over 600 s: all within, mean within 4 standard errors of 300 s, same order when widened."""
    boots = [boot_ns(1, 0, domain_id, 600) for domain_id in range(1000)]
    assert all(0 <= at < 600 * NS_PER_S for at in boots)
    assert abs(sum(boots) / 1000 / NS_PER_S - 300) <= 4 * 600 / 12**0.5 / 1000**0.5
    assert {boot_ns(1, 0, domain_id, 0) for domain_id in range(100)} == {0}
    wider = [boot_ns(1, 0, domain_id, 6000) for domain_id in range(1000)]
    assert sorted(range(1000), key=boots.__getitem__) == sorted(range(1000), key=wider.__getitem__)
    assert boots != [boot_ns(1, 1, domain_id, 600) for domain_id in range(1000)]
