"""The RFC's guest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from podcluster.config import Config
from podcluster.errors import ConfigError
from podcluster.workloads import requests


def test_the_guest_of_the_rfc(make_config: Callable[..., Config]) -> None:
    """maxmem=512 memory=256 boots at once and wants little."""
    config = make_config("workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512")
    made = requests(config.workload, config.guest, 1.0, None, 1, 3600)
    (request,) = made.requests
    assert (request.memory_pages, request.maxmem_pages, request.arrival_ns) == (256 * 256, 512 * 256, 0)
    assert 0 < request.demand.at(0) == request.demand.at(10**15) < 256 * 256
    assert not made.left_out


def test_memory_follows_overcommit_where_it_is_not_given(make_config: Callable[..., Config]) -> None:
    """Only maxmem: memory is maxmem/R. Only memory: maxmem is the same."""
    config = make_config("workload=one", "workload.memory_mib=null", "workload.maxmem_mib=1024")
    assert requests(config.workload, config.guest, 2.0, None, 1, 60).requests[0].memory_pages == 512 * 256
    config = make_config("workload=one", "workload.memory_mib=512", "workload.maxmem_mib=null")
    assert requests(config.workload, config.guest, 2.0, None, 1, 60).requests[0].maxmem_pages == 512 * 256


def test_a_guest_no_host_can_hold_is_one_line(make_config: Callable[..., Config]) -> None:
    """Key, rule, value, remedy."""
    config = make_config("workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512")
    with pytest.raises(ConfigError, match=r"workload\.maxmem_mib must be at most the 100 MiB .* got 512: lower it"):
        requests(config.workload, config.guest, 1.0, None, 1, 60, usable_pages=100 * 256)
