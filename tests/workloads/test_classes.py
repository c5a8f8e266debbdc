"""Does a mix of operating systems give each machine a class of its own, by the weights, whatever else changes?"""

from collections import Counter
from pathlib import Path

import pytest

from podcluster.cli import compose, plan
from podcluster.config import Config
from podcluster.errors import ConfigError
from podcluster.records.machines import Workload
from podcluster.workloads import requests


def drawn(config: Config, replication: int = 0) -> Workload:
    return requests(
        config.workload,
        config.guest,
        config.overcommit,
        None,
        config.seed,
        config.study.duration_s,
        classes=config.classes,
        replication=replication,
    )


def test_machines_are_drawn_by_weight() -> None:
    """Of 4000 machines as many as the weights say, within four standard errors; each with its class's least memory."""
    config = compose(["guest=mix", "guest.weights={linux:3,windows:1}", "workload.machines=4000", "overcommit=64"])
    made = drawn(config).requests
    windows = Counter(request.os_class for request in made)["windows"] / len(made)
    assert abs(windows - 0.25) < 4 * (0.25 * 0.75 / len(made)) ** 0.5
    assert set(config.guests) == {"linux", "windows"}
    for request in made:
        least = config.classes[request.os_class].min_memory_mib * 256
        assert request.memory_pages >= min(least, request.maxmem_pages)


def test_a_machine_keeps_its_class() -> None:
    """WL-3: whatever the overcommit and however many there are; another replication draws anew."""
    few = drawn(compose(["guest=mix", "workload.machines=50", "overcommit=1.5"]))
    more = drawn(compose(["guest=mix", "workload.machines=200", "overcommit=3"]))
    classes = {request.domain_id: request.os_class for request in more.requests}
    assert all(classes[request.domain_id] == request.os_class for request in few.requests)
    other = drawn(compose(["guest=mix", "workload.machines=50"]), replication=1)
    assert [one.os_class for one in other.requests] != [one.os_class for one in few.requests]


def test_what_is_set_for_guests_holds_for_every_class() -> None:
    """An override of a guest's key, and a file for its swap, reach all classes; weight 0 brings no class."""
    config = compose(["guest=mix", "guest.page_cache.rate_mib_per_s=7", "swap=none", "guest.weights.windows=0"])
    assert "windows" not in config.classes
    assert {one.page_cache.rate_mib_per_s for one in config.classes.values()} == {7}
    assert {one.swap.mib for one in config.classes.values()} == {0}
    assert {one.os_class for one in config.classes.values()} == set(config.classes)


def test_weights_can_be_an_axis() -> None:
    """A sweep over one weight, and one over whole mixes; results are named by what was drawn from."""
    cells, _ = plan(["guest=mix", "guest.weights.windows=0,50"], multirun=True)
    assert [cell.axes["guest.weights.windows"] for cell in cells] == [0, 50]
    assert len({cell.config.digest() for cell in cells}) == 2
    cells, _ = plan(["guest=mix", "guest.weights={linux:1},{windows:1}"], multirun=True)
    assert [list(cell.config.classes) for cell in cells] == [["linux"], ["windows"]]


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["guest.weights={linux:0}"], r"^guest.weights must be numbers >= 0, one of them above 0, got .*: try "),
        (["guest.weights={linux:-1}"], r"^guest.weights must be numbers >= 0, one of them above 0, got .*: try "),
        (
            ["guest.weights={lnux:1}"],
            r"^guest.weights must name guests of .*, got lnux: did you mean linux\?$",
        ),
        (["+guest.weights.mix=1"], r"^guest.weights must name different guests that are no mix, got mix: take it out$"),
    ],
)
def test_mistakes_of_a_mix(overrides: list[str], answer: str) -> None:
    """One line: key, rule, value, remedy."""
    with pytest.raises(ConfigError, match=answer):
        compose(["guest=mix", *overrides])


def test_an_experiment_may_choose_a_workload_that_needs_more(tmp_path: Path) -> None:
    """Classes of a mix beside an experiment whose workload has a key that must be given: it is, once for all."""
    config = compose(["experiment=churn_azure", "guest=mix", "overcommit=2", f"workload.path={tmp_path}"])
    assert set(config.classes) == {name for name, share in config.guest.weights.items() if share}
    assert config.workload.path == str(tmp_path)


def test_a_mix_goes_with_any_workload() -> None:
    """A class is composed without the workload, which may want keys of its own beside it."""
    config = compose(["guest=mix", "workload=one", "workload.maxmem_mib=512"])
    assert len(config.guests) == 6


def test_what_installers_reboot_into_is_composed_with_them() -> None:
    """In a mix only what installs reboots, whatever the command line says of all; what else it says holds for both."""
    said = ["guest.install.end=reboots", "guest.page_cache.rate_mib_per_s=7"]
    config = compose(["guest=mix", "guest.weights={windows:2,installer:1}", *said])
    assert set(config.classes) == {"windows", "installer"}
    assert set(config.guests) == {"windows", "installer", "linux"}
    assert [name for name, one in config.guests.items() if one.install.reboots] == ["installer"]
    assert config.guests["linux"].page_cache.rate_mib_per_s == 7
    assert "linux" not in {request.os_class for request in drawn(config).requests}


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["guest.install.into=''"], r"^guest.install.into must name a guest class .*, got nothing: try "),
        (["guest.install.into=mix"], r"^guest.install.into must be no mix and no installer, got mix: try linux$"),
        (["guest.install.into=installer"], r"^guest.install.into must be no mix and no installer, got installer: try"),
        (["guest.install.into=lnux"], r"^guest must be one of .*, got lnux: did you mean guest=linux\?$"),
    ],
)
def test_mistakes_of_a_reboot(overrides: list[str], answer: str) -> None:
    """One line: key, rule, value, remedy."""
    with pytest.raises(ConfigError, match=answer):
        compose(["guest=installer", "guest.install.end=reboots", *overrides])


def test_a_single_class_has_no_mix() -> None:
    """Every machine is of the class asked for."""
    config = compose(["guest=windows"])
    assert config.guests == {"windows": config.guest}
    assert {request.os_class for request in drawn(config).requests} == {"windows"}
