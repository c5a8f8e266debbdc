"""What becomes of a machine that installs itself and reboots: the installed system, built like any other."""

from typing import Any

from podcluster.cli import compose
from podcluster.cluster.plan import make_plan
from podcluster.cluster.pool import InlinePool
from podcluster.cluster.progress import Silent
from podcluster.cluster.run import run
from podcluster.config import GuestConfig
from podcluster.placement.policy import make_policy
from podcluster.records.commands import Command, SetTarget, StopDomain
from podcluster.records.reports import HostReport
from podcluster.records.rows import DomainRow
from podcluster.units import NS_PER_S, PAGES_PER_MIB, s_to_ns
from podcluster.workloads import requests
from tests.cluster.story import ListSink
from tests.host.lives import guest_config, host_config, host_model, live, request, start
from tests.host.test_control import controller

MIB = PAGES_PER_MIB
NO_CACHE = {"rate_mib_per_s": 0}
INSTALL = {"unpack_mib": [10, 10], "install_s": [20, 20], "end": "reboots", "into": "linux"}


def classes(**installed: Any) -> list[GuestConfig]:
    """An installer without a driver, and Linux, which it installs."""
    installer = guest_config("linux_no_driver", install=INSTALL, page_cache=NO_CACHE)
    return [installer, guest_config("linux", page_cache=NO_CACHE, **installed)]


def story(*told: Command, guests: list[GuestConfig] | None = None, until_s: float = 90, **host: Any) -> HostReport:
    """One machine of 96 MiB with a target of 64 MiB that installs itself."""
    model = host_model(*(guests or classes()), host=host_config(**{"check": "step", **host}))
    return live(model, until_s, start(request(0, "linux_no_driver", 64, 96), 1), *told)


def attempts(report: HostReport) -> list[DomainRow]:
    return sorted(report.domains, key=lambda row: row.attempt)


def test_an_installer_reboots_into_what_it_installed() -> None:
    """Two attempts of one machine: the first leaves to be started again, the second is Linux, 2 s later."""
    first, second = attempts(story())
    assert (first.attempt, first.os_class, first.fate, first.cause) == (1, "linux_no_driver", "shut_down", "rebooted")
    assert (first.ballooned_pages, first.entry_count - first.cache_count) == (0, 32 * MIB)
    assert (second.attempt, second.os_class, second.fate, second.cause) == (2, "linux", "running", "")
    assert second.boot_start_ns == second.arrival_ns == first.end_ns + 2 * NS_PER_S
    # All it was promised is owed again, and this time there is a driver to hand it back.
    assert (second.memory_pages, second.maxmem_pages) == (64 * MIB, 96 * MIB)
    assert second.ballooned_pages >= 32 * MIB and second.entry_count == second.cache_count


def test_the_host_says_what_it_builds_next() -> None:
    """B1.10: class, target and need_memory, by which the host is committed then; nothing where what reboots is gone."""
    for target_mib in (64, 80):
        report = story(SetTarget(s_to_ns(5), 0, target_mib * MIB))
        (told,) = report.installed
        assert (told.domain_id, told.os_class, told.memory_pages) == (0, "linux", target_mib * MIB)
        assert told.need_pages == report.view.committed_pages
    assert story(on_reboot="destroy").installed == ()


def test_without_the_policy_the_machine_is_gone() -> None:
    """The same with `host.on_reboot=destroy`: one attempt, and all memory is free."""
    report = story(on_reboot="destroy")
    assert [(row.attempt, row.fate, row.cause) for row in report.domains] == [(1, "shut_down", "rebooted")]
    assert (report.view.free_pages, report.view.committed_pages) == ((512 - 16) * MIB, 0)


def test_a_reboot_keeps_the_target_that_was_set_meanwhile() -> None:
    """B1.10: the running target is read back whole, the fudge of the build added, so a reboot takes nothing off."""
    first, second = attempts(story(SetTarget(s_to_ns(5), 0, 80 * MIB)))
    assert (first.memory_pages, second.memory_pages) == (64 * MIB, 80 * MIB)
    assert attempts(story())[1].memory_pages == 64 * MIB


def test_a_controller_is_asked_anew() -> None:
    """Under squeezed the installed system gets what it asked for at first, and whatever else is free by then."""
    config = controller("squeezed")
    other = start(request(1, "linux", 64, 64), 35)  # while the machine is down
    host = host_config(check="step", restart_delay_s=20)
    model = host_model(*classes(), ram_mib=160, taken_mib=8, host=host, controller=config)
    report = live(model, 90, start(request(0, "linux_no_driver", 64, 96), 1), other)
    first, second = (row for row in attempts(report) if row.domain_id == 0)
    assert (first.start_pages, first.cause, second.os_class, second.fate) == (96 * MIB, "rebooted", "linux", "running")
    assert second.memory_pages == 64 * MIB
    assert 64 * MIB <= second.start_pages < 96 * MIB


def test_a_machine_stopped_between_two_attempts_stays_down() -> None:
    """A departure in the 20 s of the pause takes the second attempt back."""
    end_ns = attempts(story())[0].end_ns
    report = story(StopDomain(end_ns + 10 * NS_PER_S, 0), restart_delay_s=20)
    assert [row.attempt for row in report.domains] == [1]
    assert report.view.domains == 0


def test_a_reboot_is_no_crash() -> None:
    """`host.max_restarts=1`: the installed system crashes, is built once more, crashes again, and that is that."""
    dies = [classes()[0], guest_config("linux", dirty_all=True, page_cache=NO_CACHE, balloon={"driver": "none"})]
    told = attempts(story(guests=dies, until_s=300, on_crash="restart", max_restarts=1))
    assert [(row.os_class, row.fate) for row in told] == [
        ("linux_no_driver", "shut_down"),
        ("linux", "pod_oom"),
        ("linux", "pod_oom"),
    ]


def test_an_installer_that_dies_installs_again() -> None:
    """Killed while it unpacks, it has installed nothing: its next attempt is the installer once more."""
    greedy = guest_config("linux_no_driver", install={**INSTALL, "unpack_mib": [90, 90]}, page_cache=NO_CACHE)
    told = attempts(story(guests=[greedy, classes()[1]], on_crash="restart"))
    assert len(told) > 2
    assert {row.os_class for row in told} == {"linux_no_driver"}
    assert {row.fate for row in told[:-1]} == {"pod_oom"}


def test_a_run_follows_a_machine_through_its_installation() -> None:
    """EP-3 with a reboot, from the command line to the rows: the class that is installed is composed by itself."""
    overrides = ["workload=one", "workload.memory_mib=2048", "workload.maxmem_mib=2048", "guest=installer"]
    config = compose([*overrides, "guest.install.end=reboots", "guest.install.into=linux_old"])
    assert set(config.guests) == {"installer", "linux_old"}
    workload = requests(
        config.workload, config.guest, 1.5, None, 1, 1800, usable_pages=config.usable_pages, replication=0
    )
    plan = make_plan(config, workload, 1)
    sink = ListSink()
    outcome = run(plan, workload, make_policy("first_fit"), InlinePool(plan.specs, plan.hosts), sink, Silent())
    told = [(row.attempt, row.os_class, row.fate) for row in sink.tables["domains"]]
    assert told == [(1, "installer", "shut_down"), (2, "linux_old", "running")]
    assert (outcome.row.requests, outcome.row.restarts, outcome.row.boots_started) == (1, 1, 2)
