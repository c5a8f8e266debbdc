"""Does an operator see of a simulated host what the tools show of a real one?"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from podcluster.cli import compose, main
from podcluster.config import HostConfig
from podcluster.errors import ConfigError
from podcluster.host.operator import DomainLook, HostLook, beyond, q_key, report, xentop, xl_info, xl_list
from podcluster.inspect import inspect
from podcluster.units import NS_PER_S, PAGES_PER_GIB, PAGES_PER_MIB, s_to_ns
from tests.host.lives import guest_config, host_model, request, start

MIB = PAGES_PER_MIB

B1 = DomainLook(
    domid=3,
    name="b1",
    vcpus=2,
    crashed=False,
    tot_pages=262_136,
    claim_pages=0,
    max_pages=262_400,
    entry_count=522_208,
    cache_count=260_064,
    target_pages=1024 * MIB,
    static_max_pages=2048 * MIB,
)
HOST = HostLook(
    host_id=0,
    at_ns=12 * NS_PER_S,
    ram_pages=8 * PAGES_PER_GIB,
    free_pages=1000 * MIB,
    claim_pages=0,
    dom0_pages=2048 * MIB,
    domains=(B1,),
)


def test_xl_list_shows_the_target_from_birth() -> None:
    """O5: Mem is tot and claim, cache included: example B-1, of which nothing is populated, shows its 1023 MiB."""
    lines = xl_list(HOST)
    assert lines[0].split() == ["Name", "ID", "Mem", "VCPUs", "State"]
    assert lines[1].split() == ["Domain-0", "0", "2048", "r-----"]
    assert lines[2].split() == ["b1", "3", "1023", "2", "-b----"]
    claimed = replace(HOST, domains=(replace(B1, tot_pages=0, claim_pages=260_064),))
    assert xl_list(claimed)[2].split()[2] == "1015"
    crashed = replace(HOST, domains=(replace(B1, crashed=True),))
    assert xl_list(crashed)[2].split()[-1] == "----c-"


def test_xentop_shows_what_is_owned_and_the_quota() -> None:
    """O5: MEM(k) = tot, MAXMEM(k) = maxp, and their shares of 8 GiB."""
    assert xentop(HOST)[1].split() == ["b1", "-b----", "1048544", "12.5", "1049600", "12.5", "2"]


def test_xl_info_takes_claims_off() -> None:
    """O5: free_memory = free - claims; outstanding_claims = claims."""
    told = dict(line.replace(" ", "").split(":") for line in xl_info(replace(HOST, claim_pages=300 * MIB)))
    assert told == {"total_memory": "8192", "free_memory": "700", "outstanding_claims": "300"}


def test_only_the_q_key_shows_the_debt() -> None:
    """O3, O5: nr_pages, max_pages, and the line of the PoD cache; no other tool prints entries."""
    assert q_key(HOST)[1:] == [
        "(XEN)     nr_pages=262136 max_pages=262400",
        "(XEN)     PoD entries=522208 cachesize=260064",
    ]
    assert "262144 pages that its balloon must still give back" in beyond(HOST)[0]
    for cached in (5, 6):  # the surplus that Xen's first version may leave is no debt (R10)
        paid = replace(HOST, domains=(replace(B1, entry_count=5, cache_count=cached),))
        assert "debt none" in beyond(paid)[0]
    for lines in (xl_list(HOST), xentop(HOST), xl_info(HOST)):
        assert not any("522208" in line or "262144" in line for line in lines)


def test_a_look_at_a_living_host() -> None:
    """The look is the machine's own counters: at the build, once ballooned, and of the dead that are preserved."""
    guests = [guest_config("linux"), guest_config("linux_no_driver", dirty_all=True, page_cache={"rate_mib_per_s": 0})]
    model = host_model(*guests, ram_mib=512, host=HostConfig(on_crash="preserve"))
    model.advance(s_to_ns(1), [start(request(0, "linux", 64, 128), 1), start(request(1, "linux_no_driver", 48, 96), 1)])
    first = model.look()
    assert [one.domid for one in first.domains] == [1, 2]
    linux = first.domains[0]
    assert (linux.tot_pages, linux.max_pages, linux.target_pages) == (64 * MIB - 8, 65 * MIB, 64 * MIB)
    assert linux.entry_count - linux.cache_count == 64 * MIB
    model.advance(s_to_ns(60), [])
    linux, dead = model.look().domains
    assert (linux.entry_count - linux.cache_count, linux.crashed) == (0, False)
    assert (dead.crashed, dead.cache_count, dead.entry_count) == (True, 0, 48 * MIB)
    assert model.look().free_pages == model.advance(s_to_ns(61), []).view.free_pages
    text = report(model.look())
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# xl list",
        "# xentop",
        "# xl info",
        "# xl debug-keys q; xl dmesg",
        "# not shown by any tool",
    ]


ONE = ["workload=one", "workload.memory_mib=256", "workload.maxmem_mib=512", "cluster.host_mem_gib=4"]


def test_inspect_prints_a_moment_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The command: the guest's debt shrinks between two moments, and the run itself would have come there."""
    debts = []
    for at in ("1", "60"):
        assert main(["inspect", "--at", at, *ONE]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"host 0 at {at} s\n")
        (numbers,) = re.findall(r"PoD entries=(\d+) cachesize=(\d+)", text)
        debts.append(int(numbers[0]) - int(numbers[1]))
        (row,) = re.findall(r"^one .*$", text, re.MULTILINE)
        assert row.split()[1] == "1"
    assert debts == [256 * MIB, 0]


def test_inspect_knows_guests_of_a_mix() -> None:
    """Every machine is of a class of its own."""
    (look,) = inspect(compose(["workload=alike", "workload.machines=3", "workload.maxmem_mib=512", "guest=mix"]), 10)
    assert len(look.domains) == 3


def test_inspect_at_a_time_and_on_a_host_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A time outside the run or a host that is none: one line, status 2."""
    with pytest.raises(ConfigError, match=r"--at must be above 0 and at most \d+ s, got 1e\+09: try --at 120"):
        inspect(compose(ONE), 1e9)
    assert main(["inspect", "--at", "1", "--host", "7", *ONE]) == 2
    assert "--host must be one of the run's hosts, got 7" in capsys.readouterr().err
    assert main(["inspect", *ONE]) == 2
