"""Machines that are all alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from podcluster.config import Config
from podcluster.errors import ConfigError
from podcluster.records.machines import Workload
from podcluster.units import NS_PER_S
from podcluster.workloads import requests

MakeConfig = Callable[..., Config]


def made(config: Config, *, replication: int = 0) -> Workload:
    """The machines of a study of ten minutes."""
    return requests(config.workload, config.guest, config.overcommit, None, config.seed, 600, replication=replication)


def test_machines_differ_in_their_number_and_nothing_else(make_config: MakeConfig) -> None:
    """Three of them at once: numbered from 0, one size; memory times overcommit, as the decimal number written."""
    asked = ("workload=alike", "workload.machines=3", "workload.memory_mib=1000", "overcommit=1.1")
    found = made(make_config(*asked)).requests
    assert [request.domain_id for request in found] == [0, 1, 2]
    assert {(request.memory_pages // 256, request.maxmem_pages // 256) for request in found} == {(1000, 1100)}
    assert {request.arrival_ns for request in found} == {0}
    assert len({request.name for request in found}) == 3


def test_either_size_follows_from_the_other(make_config: MakeConfig) -> None:
    """maxmem alone: memory is maxmem/R; both: as given, whatever R."""
    one = ("workload=alike", "workload.machines=1", "overcommit=2")
    for given, sizes in (
        (("workload.maxmem_mib=1024",), (512, 1024)),
        (("workload.memory_mib=300", "workload.maxmem_mib=400"), (300, 400)),
    ):
        (request,) = made(make_config(*one, *given)).requests
        assert (request.memory_pages // 256, request.maxmem_pages // 256) == sizes


def test_boots_are_spread_anew_in_each_replication(make_config: MakeConfig) -> None:
    """In order of arrival, each within the spread; one that would boot after the end is left out, counted."""
    asked = ("workload=alike", "workload.machines=50", "workload.memory_mib=256", "workload.boot_spread_s=900")
    first, second = (made(make_config(*asked), replication=number) for number in (0, 1))
    for one in (first, second):
        times = [request.arrival_ns for request in one.requests]
        assert times == sorted(times) and times[-1] < 600 * NS_PER_S
        assert len(times) + sum(one.left_out.values()) == 50
    assert [r.arrival_ns for r in first.requests] != [r.arrival_ns for r in second.requests]


def test_a_promise_no_host_can_keep_is_one_line(make_config: MakeConfig) -> None:
    """Key, rule, value, remedy."""
    config = make_config("workload=alike", "workload.memory_mib=256", "overcommit=2")
    with pytest.raises(ConfigError, match=r"workload\.maxmem_mib must be at most the 300 MiB"):
        requests(config.workload, config.guest, 2.0, None, 1, 60, usable_pages=300 * 256)
