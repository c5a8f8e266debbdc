"""Configuration: every file of conf/ composes into checked dataclasses, and every rule is enforced."""

import copy
import dataclasses
import pickle
import re
import shlex
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml

from podcluster import config as schema
from podcluster.cli import SCHEMA, compose, conf_dir, groups, plan
from podcluster.config import Config
from podcluster.errors import ConfigError, InvariantError, PodclusterError

NEEDS = {
    "experiment=controllers": ["workload.path=somewhere"],
    "experiment=churn_azure": ["workload.path=somewhere"],
    "workload=one": ["workload.maxmem_mib=512"],
    "workload=alike": ["workload.memory_mib=256"],
    "workload=bitbrains": ["workload.path=somewhere"],
    "workload=azure_v1": ["workload.path=somewhere"],
    "workload=alibaba_pods": ["workload.path=somewhere"],
}
CHOICES = [f"{group}={option}" for group, options in groups().items() for option in options]
EXPERIMENTS = groups()["experiment"]

MISTAKES = [
    ("seed=-1", "seed must be between 0 and"),
    ("overcommit=0.99", "overcommit must be between 1 and 1000, got 0.99"),
    ("overcommit=nan", "overcommit must be between 1 and 1000, got nan"),
    ("overcommit=inf", "overcommit must be between 1 and 1000, got inf"),
    ("cluster.hosts=0", "cluster.hosts must be 'auto' or a whole number"),
    ("cluster.hosts=many", "cluster.hosts must be 'auto' or a whole number"),
    ("cluster.hosts=2.5", "cluster.hosts must be 'auto' or a whole number"),
    ("cluster.host_mem_gib=0", "cluster.host_mem_gib must be between 1 and"),
    ("cluster.host_cpus=0", "cluster.host_cpus must be between 1 and"),
    ("cluster.host_mem_gib=[64,0]", "cluster.host_mem_gib must be between 1 and"),
    ("cluster.host_mem_gib=[]", "cluster.host_mem_gib must be a list of 1 to 100000 hosts"),
    ("cluster.host_mem_gib=many", "cluster.host_mem_gib must be whole GiB, or a list"),
    ("cluster.host_mem_gib=1.5", "cluster.host_mem_gib must be whole GiB, or a list"),
    ("cluster.host_mem_gib=true", "cluster.host_mem_gib must be whole GiB, or a list"),
    ("cluster.host_mem_gib=[0x64]", "cluster.host_mem_gib must be whole GiB, or a list"),
    ("cluster.host_mem_gib=[2x]", "cluster.host_mem_gib must be whole GiB, or a list"),
    ("cluster.host_cpus=[64,0]", "cluster.host_cpus must be between 1 and"),
    ("cluster.host_cpus=[]", "cluster.host_cpus must be a list of 1 to 100000 hosts"),
    ("cluster.host_cpus=2.5", "cluster.host_cpus must be whole CPUs, or a list of such, each once or as NxCPUS"),
    ("cluster.host_cpus=[3x8] cluster.hosts=4", "cluster.hosts must be auto or 3, as cluster.host_cpus lists"),
    (
        "cluster.host_mem_gib=[2x64] cluster.host_cpus=[3x8]",
        "cluster.host_cpus must be one number, or one for each of the 2",
    ),
    ("cluster.epoch_s=0", "cluster.epoch_s must be between 1 and"),
    ("host.toolstack=vm", "host.toolstack must be one of xl, xapi"),
    ("host.era=2008", "host.era must be one of today"),
    ("host.xen_mib=-1", "host.xen_mib must be between 0 and"),
    ("host.dom0_mib=127", "host.dom0_mib must be between 128 and"),
    ("host.autoballoon=maybe", "host.autoballoon must be one of auto, true, false"),
    ("host.dom0_free_mib_per_s=-1", "host.dom0_free_mib_per_s must be between 0 and"),
    ("host.dom0_touch_per_s=-1", "host.dom0_touch_per_s must be 0, or between 1e-09 and"),
    ("host.shadow_multiplier=0.5", "host.shadow_multiplier must be between 1 and"),
    ("host.paging_pool_scale=-1", "host.paging_pool_scale must be between 0 and"),
    ("guest.stubdom=qemu", "guest.stubdom must be one of none, minios, linux"),
    ("host.p2m=npt", "host.p2m must be one of ept, pt"),
    ("host.paging=none", "host.paging must be one of hap, shadow"),
    ("host.extra_ram_pages=300", "host.extra_ram_pages must be between 0 and 256"),
    ("host.on_crash=rename", "host.on_crash must be one of destroy"),
    ("host.restart_delay_s=-1", "host.restart_delay_s must be between 0 and"),
    ("host.max_restarts=-1", "host.max_restarts must be between 0 and"),
    ("host.costs.look_ns=-1", "host.costs.look_ns must be between 0 and"),
    ("host.softirq_per_s=-1", "host.softirq_per_s must be 0, or between 1e-09 and"),
    ("host.softirq_per_s=nan", "host.softirq_per_s must be 0, or between 1e-09 and"),
    ("host.ring_slots=33", "host.ring_slots must be a power of two up to 4096"),
    ("host.ring_slots=8192", "host.ring_slots must be a power of two up to 4096"),
    ("guest.irq_per_s=-1", "guest.irq_per_s must be 0, or between 1e-09 and"),
    ("host.check=often", "host.check must be one of epoch, step, off"),
    ("guest.os_class='a b'", "guest.os_class must be a name"),
    ("guest.min_memory_mib=1", "guest.min_memory_mib must be between 32 and"),
    ("guest.target_fraction=0", "guest.target_fraction must be above 0 and at most 1"),
    ("guest.target_fraction=1.01", "guest.target_fraction must be above 0 and at most 1"),
    ("guest.vcpus=0", "guest.vcpus must be between 1 and 512"),
    ("guest.video_mib=-8", "guest.video_mib must be between 0 and"),
    ("guest.firmware_s=[1]", "guest.firmware_s must be a pair [low, high]"),
    ("guest.firmware_s=[2,1]", "guest.firmware_s must be [low, high] with low <= high"),
    ("guest.kernel_mib=[-1,1]", "guest.kernel_mib must be between 0 and"),
    ("guest.kernel_s=[1,inf]", "guest.kernel_s must be between 0 and 316224000, got inf"),
    ("guest.descriptor_share=1", "guest.descriptor_share must be between 2 and"),
    ("guest.services_mib=[1,2,3]", "guest.services_mib must be a pair"),
    ("guest.services_s=[-2,-1]", "guest.services_s must be between 0 and"),
    ("guest.scrubber=ones", "guest.scrubber must be one of none, zero, pattern"),
    ("+guest.weights.linux=-1", "guest.weights must be numbers >= 0"),
    ("guest.scrub_order=random", "guest.scrub_order must be one of ascending, descending"),
    ("guest.scrub_streams=-1", "guest.scrub_streams must be between 0 and 512"),
    ("guest.zero_on_free=true", "guest.scrubber must be zero where guest.zero_on_free is true"),
    ("guest.late_descriptors_share=1.1", "guest.late_descriptors_share must be between 0 and 1"),
    ("guest.install.unpack_mib=[-1,1]", "guest.install.unpack_mib must be between 0 and"),
    ("guest.install.install_s=[2,1]", "guest.install.install_s must be [low, high] with low <= high"),
    ("guest.install.end=explodes", "guest.install.end must be one of stays, shuts_down"),
    ("controller.squeezed.dom0_min_mib=64", "controller.squeezed.dom0_min_mib must be 0, or at least 128, got 64"),
    ("host.on_reboot=preserve", "host.on_reboot must be one of restart, destroy"),
    ("guest.scrub_rate_mib_per_s=[0,1]", "guest.scrub_rate_mib_per_s must be between 1 and"),
    ("guest.scrub_start_s=[-1,1]", "guest.scrub_start_s must be between 0 and"),
    ("guest.alloc_block_pages=0", "guest.alloc_block_pages must be between 1 and"),
    ("guest.alloc_order=upwards", "guest.alloc_order must be one of descending, random"),
    ("guest.swap.mib=-1", "guest.swap.mib must be between 0 and"),
    ("guest.swap.latency_us=-1", "guest.swap.latency_us must be between 0 and"),
    ("guest.swap.mib_per_s=0", "guest.swap.mib_per_s must be between 0.001 and"),
    ("guest.swap.cluster_pages=0", "guest.swap.cluster_pages must be between 1 and"),
    ("guest.swap.reuse_s=0", "guest.swap.reuse_s must be between 0.001 and"),
    ("guest.balloon.driver=bsd", "guest.balloon.driver must be one of linux, windows, none"),
    ("guest.balloon.start_s=[-1,1]", "guest.balloon.start_s must be between 0 and"),
    ("guest.balloon.rate_pages_per_s=[0,1]", "guest.balloon.rate_pages_per_s must be between 1 and"),
    ("guest.balloon.batch_pages=0", "guest.balloon.batch_pages must be between 1 and"),
    ("guest.balloon.generation=2009", "guest.balloon.generation must be one of new, old"),
    ("guest.balloon.reserve_mib=-1", "guest.balloon.reserve_mib must be between 0 and"),
    ("guest.balloon.section_mib=0", "guest.balloon.section_mib must be between 2 and 2048"),
    ("guest.balloon.section_mib=100", "guest.balloon.section_mib must be a power of two, got 100"),
    (
        "guest=windows guest.balloon.hotplug=true",
        "guest.balloon.hotplug must be false unless guest.balloon.driver is linux, got true with windows",
    ),
    (
        "guest=linux_no_driver guest.balloon.hotplug=true",
        "guest.balloon.hotplug must be false unless guest.balloon.driver is linux, got true with none",
    ),
    (
        "guest=windows guest.balloon.deflate_on_oom=true",
        "guest.balloon.deflate_on_oom must be false unless guest.balloon.driver is linux, got true with windows",
    ),
    (
        "guest.balloon.contiguous=true",
        "guest.balloon.contiguous must be false unless guest.balloon.driver is windows, got true with linux",
    ),
    (
        "guest=linux_no_driver guest.balloon.boot_barrier=true",
        "guest.balloon.boot_barrier must be false unless guest.balloon.driver is linux, got true with none",
    ),
    ("guest.balloon.batch_pages=513", "guest.balloon.batch_pages must be at most 512 with guest.balloon.driver=linux"),
    (
        "guest=linux_no_driver guest.fault.kind=stuck",
        "guest.fault.kind must be none or lying where guest.balloon.driver is none, got stuck",
    ),
    ("guest.fault.kind=broken", "guest.fault.kind must be one of none, stuck, intermittent, slow, lying"),
    ("guest.fault.share=1.1", "guest.fault.share must be between 0 and 1"),
    ("guest.fault.period_s=0", "guest.fault.period_s must be between 0.001 and"),
    ("guest.fault.awake_s=61", "guest.fault.awake_s must be between 0.001 and 60"),
    ("guest.fault.rate_pages_per_s=0", "guest.fault.rate_pages_per_s must be between 1 and"),
    ("guest.fault.factor=-1", "guest.fault.factor must be between 0 and"),
    ("guest.page_cache.rate_mib_per_s=-1", "guest.page_cache.rate_mib_per_s must be between 0 and"),
    ("guest.page_cache.floor_share=1.1", "guest.page_cache.floor_share must be between 0 and 1"),
    ("guest.page_cache.max_share_of_free=-0.1", "guest.page_cache.max_share_of_free must be between 0 and 1"),
    ("workload.family=other", "workload.family must be one of"),
    ("workload.machines=0", "workload.machines must be between 1 and"),
    ("workload.memory_mib=1", "workload.memory_mib must be between 16 and"),
    ("workload.maxmem_mib=1", "workload.maxmem_mib must be between 16 and"),
    ("workload.min_maxmem_mib=1", "workload.min_maxmem_mib must be between 16 and"),
    ("workload.boot_spread_s=-1", "workload.boot_spread_s must be between 0 and"),
    ("workload.hold_s=-2", "workload.hold_s must be between -1 and"),
    (
        "guest.balloon.rate_pages_per_s=[1e300,1e300]",
        "guest.balloon.rate_pages_per_s must be between 1 and 1000000000, got",
    ),
    (
        "guest.kernel_mib=[1e18,1e18]",
        "guest.kernel_mib must be between 0 and 1048576, got 1e+18: try guest.kernel_mib=[1048576,1048576]",
    ),
    ("guest.services_mib=[1e15,1e15]", "guest.services_mib must be between 0 and 1048576, got 1000000000000000.0"),
    ("guest.swap.latency_us=1e16", "guest.swap.latency_us must be between 0 and 60000000, got 1e+16"),
    ("workload.hold_s=99999999999", "workload.hold_s must be between -1 and 316224000, got 99999999999"),
    ("placement.lifetime_bucket_s=20000000000", "placement.lifetime_bucket_s must be between 1 and 316224000, got"),
    ("workload.resample=all", "workload.resample must be one of"),
    ("workload.start_s=-1", "workload.start_s must be between 0 and"),
    ("study.warmup_s=-1", "study.warmup_s must be from 0 to below study.duration_s (86400)"),
    ("study.warmup_s=86400", "study.warmup_s must be from 0 to below study.duration_s (86400)"),
    ("failure.rate_per_host_year=-1", "failure.rate_per_host_year must be 0, or between 1e-09 and"),
    ("failure.repair_s=0", "failure.repair_s must be between 1 and"),
    ("failure.restart_delay_s=-1", "failure.restart_delay_s must be between 0 and"),
    ("failure.retry_s=0", "failure.retry_s must be between 1 and"),
    ("failure.tolerate=-1", "failure.tolerate must be between 0 and"),
    ("failure.tolerate=3 cluster.hosts=3", "failure.tolerate must be fewer than the 3 hosts, got 3: try"),
    (
        "failure.tolerate=2 failure.cluster_stack=true cluster.hosts=4",
        "failure.tolerate must be fewer than half of the 4 hosts, got 2: try failure.tolerate=1",
    ),
    ("failure.ha=false failure.tolerate=1", "failure.ha must be true where failure.tolerate is given"),
    ("failure.best_effort_share=2", "failure.best_effort_share must be between 0 and 1"),
    ("failure.unprotected_share=-1", "failure.unprotected_share must be between 0 and 1"),
    ("migration.mib_per_s=0", "migration.mib_per_s must be between 0.01 and"),
    ("migration.wait_s=-1", "migration.wait_s must be between 0 and"),
    ("migration.rebalance_s=0", "migration.rebalance_s must be between 1 and"),
    ("migration.rebalance_gap=2", "migration.rebalance_gap must be between 0 and 1"),
    ("migration.rebalance_most=0", "migration.rebalance_most must be between 1 and"),
    ("workload.share=0", "workload.share must be above 0 and at most 1"),
    ("workload.share=1.5", "workload.share must be above 0 and at most 1"),
    ("workload.arrivals_per_day=0", "workload.arrivals_per_day must be between 0.001 and"),
    ("workload=one", "workload.maxmem_mib must be given for workload=one"),
    ("workload=alike", "workload.maxmem_mib must be given for workload=alike"),
    ("workload=bitbrains", "workload.path must be the trace's folder"),
    ("workload=azure_v1", "workload.path must be the trace's folder for workload=azure_v1"),
    ("placement.policy=worst", "placement.policy must be one of first_fit, next_fit, best_fit, worst_fit, random_fit"),
    ("placement.by=size", "placement.by must be one of dynamic_min, target, maxmem, blend, demand"),
    ("placement.maxmem_percent=101", "placement.maxmem_percent must be between 0 and 100"),
    ("placement.memory_ratio=0", "placement.memory_ratio must be between 0.001 and 1000"),
    ("placement.by=maxmem", "placement.memory_ratio must be given with placement.by=maxmem and first_fit, which"),
    ("placement=xapi placement.by=demand", "placement.memory_ratio must be given with placement.by=demand and xapi"),
    ("placement.vcpu_ratio=-1", "placement.vcpu_ratio must be between 0.001 and 1000"),
    ("placement.policy=dot_product", "placement.vcpu_ratio must be given with dot_product"),
    ("placement.affinity=['']", "placement.affinity must be names or patterns of names"),
    ("placement.anti_affinity=['']", "placement.anti_affinity must be names or patterns of names"),
    ("placement.affinity=[' ']", "placement.affinity must be names or patterns of names"),
    (
        "placement.affinity=['a*','b*','a*']",
        "placement.affinity must be patterns that differ, got ['a*', 'b*', 'a*']: ",
    ),
    ("placement.anti_affinity=['a*','a*']", "placement.anti_affinity must be patterns that differ"),
    ("placement.affinity=['db*@0']", "placement.affinity must be without hosts unless placement=xapi"),
    ("placement=xapi placement.affinity=['db*@2'] cluster.hosts=2", "placement.affinity must be of hosts 0 to 1"),
    ("placement.view_age_s=-1", "placement.view_age_s must be between 0 and"),
    ("placement.retries=-1", "placement.retries must be between 0 and"),
    ("placement.forecast=none", "placement.forecast must be one of profile, shares"),
    ("placement.mean_share=1.1", "placement.mean_share must be between 0 and 1"),
    ("placement.sd_share=nan", "placement.sd_share must be between 0 and 1"),
    ("placement.z=-1", "placement.z must be between 0 and 10"),
    ("placement.lifetimes=true", "placement.lifetimes must be one of known, observed"),
    ("placement.lifetime_error=-1", "placement.lifetime_error must be between 0 and 10"),
    ("placement.lifetime_bucket_s=0", "placement.lifetime_bucket_s must be between 1 and"),
    ("placement.bound=l3", "placement.bound must be one of l2, lp"),
    ("controller.name=balloon", "controller.name must be one of static, squeezed, qmemman"),
    ("controller.squeezed.check_s=1e300", "controller.squeezed.check_s must be between 0.1 and 316224000, got 1e+300"),
    ("controller.qmemman.cache_factor=1e300", "controller.qmemman.cache_factor must be between 1 and 1000, got 1e+300"),
    (
        "controller=squeezed cluster.host_mem_gib=8 controller.squeezed.reserve_mib=6016",
        "controller.squeezed.reserve_mib must be below what Xen and dom0 leave of a host (6016 MiB), got 6016: try",
    ),
    (
        "controller.esx.hard_share=0.65",
        "controller.esx.hard_share must be at most controller.esx.soft_share (0.64), got 0.65",
    ),
    ("controller.dead_after_s=-1", "controller.dead_after_s must be between 0 and"),
    ("engine.kind=mpi", "engine.kind must be one of auto, inline, ray"),
    ("engine.address=''", "engine.address must be 'local', 'auto' or host:port with a port from 1 to 65535"),
    (
        "engine.address=foo",
        "engine.address must be 'local', 'auto' or host:port with a port from 1 to 65535, got 'foo'",
    ),
    ("engine.address=127.0.0.1:99999", "engine.address must be 'local', 'auto' or host:port with a port from 1 to"),
    ("engine.address=:6379", "engine.address must be 'local', 'auto' or host:port with a port from 1 to 65535"),
    ("engine.actors=0", "engine.actors must be between 1 and"),
    ("engine.hosts_per_actor=0", "engine.hosts_per_actor must be between 1 and"),
    ("engine.timeout_s=0", "engine.timeout_s must be between 1 and"),
    ("engine.checkpoint_s=-1", "engine.checkpoint_s must be between 0 and 316224000, got -1"),
    ("engine.memory_mib=much", "engine.memory_mib must be auto or a whole number of MiB, got much"),
    ("study.duration_s=0", "study.duration_s must be between 1 and"),
    ("study.replications=0", "study.replications must be between 1 and"),
    ("study.telemetry_s=-1", "study.telemetry_s must be between 0 and"),
    (
        "study.machine_samples=true study.telemetry_s=0",
        "study.machine_samples must be false where study.telemetry_s is 0",
    ),
    ("study.confidence=1", "study.confidence must be at least 0.5 and below 1"),
    ("study.baseline=guest", "study.baseline must be written axis=value"),
]


def sections(config: object, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a configuration by its key."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= sections(value, f"{prefix}{field.name}.")
        else:
            found[f"{prefix}{field.name}"] = value
    return found


@pytest.mark.parametrize("choice", CHOICES)
def test_every_file_of_conf_composes(choice: str) -> None:
    """Each option of each group gives a Config of plain, checked dataclasses."""
    config = compose([choice, *NEEDS.get(choice, []), "hydra.mode=RUN"])  # of a sweep, what its cells have in common
    assert type(config) is Config
    assert all(type(value) in (int, float, bool, str, list, dict, type(None)) for value in sections(config).values())


def test_no_file_of_conf_is_left_out() -> None:
    """The choices above, and config.yaml that joins them, are all the files there are."""
    files = {path.relative_to(conf_dir()).with_suffix("").as_posix() for path in conf_dir().rglob("*.yaml")}
    assert files == {choice.replace("=", "/") for choice in CHOICES} | {"config"}


def test_defaults_in_code_are_those_of_conf() -> None:
    """Whoever builds a section in code without naming a value gets what the plain command line gets."""
    composed = compose()
    for name, section in vars(composed).items():
        if not dataclasses.is_dataclass(section):
            continue
        for prefix, part in [(name, section), *((f"{name}.{k}", v) for k, v in vars(section).items())]:
            if dataclasses.is_dataclass(part):
                for field in dataclasses.fields(part):
                    if field.default is not dataclasses.MISSING:
                        assert getattr(part, field.name) == field.default, f"{prefix}.{field.name}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_say_their_name_and_command(name: str) -> None:
    """The first comment of an experiment is the command that runs it; it plans, under the experiment's name."""
    lines = (conf_dir() / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    command = re.sub(r":.*", "", lines[1].removeprefix("# "))
    program, *arguments = shlex.split(command)
    assert program == "podcluster"
    assert f"experiment={name}" in arguments
    assert "-m" not in arguments, "a sweep is one by itself"
    cells, _ = plan(arguments)
    assert {cell.config.experiment for cell in cells} == {name}
    assert (len(cells) > 1) == (name != "smoke")


@pytest.mark.parametrize("path", sorted((conf_dir() / "guest").glob("*.yaml")), ids=lambda path: path.stem)
def test_numbers_of_guests_say_how_sure_we_are(path: Path) -> None:
    """Every number of a guest stands beside its source or the admission that there is none."""
    for line in path.read_text().splitlines():
        key, _, rest = line.partition(":")
        if key.startswith("#") or not rest:
            continue
        value, _, comment = rest.partition("#")
        if isinstance(yaml.safe_load(value), int | float | list) and not isinstance(yaml.safe_load(value), bool):
            assert re.match(r" [HML]\b", comment), line


@pytest.mark.parametrize(("mistake", "answer"), MISTAKES, ids=[mistake for mistake, _ in MISTAKES])
def test_ranges_are_enforced(mistake: str, answer: str) -> None:
    """A value outside its range is refused in one line: key, rule, value, remedy."""
    with pytest.raises(ConfigError) as caught:
        compose(re.split(r" (?=[a-z_.]+=)", mistake))
    text = str(caught.value)
    assert text.startswith(answer)
    assert re.search(r", got .+: .+", text)
    assert "\n" not in text


def test_every_key_with_a_range_has_a_mistake_above() -> None:
    """The table above covers every checked key, so that a check cannot be lost unseen."""
    source = Path(schema.__file__).read_text()
    checked = set(re.findall(r'_(?:fail|one_of|between|range|rate)\(\s*"([a-z0-9_.]+)"', source))
    tried = {answer.split(" ")[0] for _, answer in MISTAKES}
    assert checked - tried == set()


def test_every_number_has_an_upper_limit() -> None:
    """Only what may happen always may be as large as a float can be."""
    plain, unlimited = compose(), set()
    for key, kind in SCHEMA.items():
        pair = kind == list[float]
        if not pair and not {int, float} & {kind, *(get_args(kind) if get_origin(kind) is not dict else ())}:
            continue
        *names, last = key.split(".")
        sections_above: list[Any] = [copy.deepcopy(plain)]
        for name in names:
            sections_above.append(getattr(sections_above[-1], name))
        setattr(sections_above[-1], last, [1e300, 1e300] if pair else 1e300)
        try:
            for section in reversed(sections_above):
                if hasattr(section, "check"):
                    section.__post_init__()
            unlimited.add(key)
        except ConfigError as error:
            assert str(error).startswith(f"{key} must be ")
    assert unlimited == {"host.softirq_per_s", "guest.irq_per_s"}


def test_the_hypervisor_of_2009_knows_no_pattern() -> None:
    """S1 is written for the checks of later eras."""
    with pytest.raises(ConfigError, match=r"host.scrubbed_pod must be false with host.era=rfc2009, got True: try "):
        compose(["host.era=rfc2009", "host.scrubbed_pod=true"])
    compose(["host.era=xen2012", "host.scrubbed_pod=true"])


def test_in_a_mix_an_option_holds_for_those_that_heed_it() -> None:
    """A mix, and what an installer reboots into, may have options and faults that one class alone would not heed."""
    options = [*(f"guest.balloon.{name}=true" for name in schema.ONLY_OF), "guest.fault.kind=stuck"]
    mix = compose(["guest=mix", "guest.weights={linux:1,linux_no_driver:1,windows:1}", *options])
    assert all(one.balloon.hotplug and one.fault.kind == "stuck" for one in mix.guests.values())
    compose(["guest=installer", "guest.install.end=reboots", *options])
    compose(["guest=linux_no_driver", "guest.fault.kind=lying"])
    with pytest.raises(ConfigError, match=r"^guest.balloon.batch_pages must be at most 512 with "):
        compose(["guest=mix", "guest.balloon.batch_pages=8185"])
    compose(["guest=mix", "guest.weights={windows:1,windows_old:1}", "guest.balloon.batch_pages=8185"])


def test_target_above_maxmem_is_refused() -> None:
    """memory <= maxmem, as xl wants it, with both numbers in the answer."""
    with pytest.raises(ConfigError, match=r"workload.memory_mib must be <= workload.maxmem_mib, got 513 > 512: "):
        compose(["workload=one", "workload.memory_mib=513", "workload.maxmem_mib=512"])
    compose(["workload=one", "workload.memory_mib=512", "workload.maxmem_mib=512"])


def test_a_number_of_hosts_beside_a_list_of_them_must_agree() -> None:
    """cluster.hosts may be left out or say the same."""
    with pytest.raises(ConfigError, match=r"^cluster.hosts must be auto or 3, as cluster.host_mem_gib lists, got 4: "):
        compose(["cluster.host_mem_gib=[2x64,128]", "cluster.hosts=4"])
    for hosts in ("auto", "3"):
        assert compose(["cluster.host_mem_gib=[2x64,128]", f"cluster.hosts={hosts}"]).cluster.host_count == 3


def test_actors_and_hosts_per_actor_exclude_each_other() -> None:
    """Two answers to one question are refused."""
    with pytest.raises(ConfigError, match=r"engine.actors must be null where engine.hosts_per_actor is given"):
        compose(["engine.actors=1", "engine.hosts_per_actor=1"])


def test_a_host_too_small_for_its_dom0_is_refused() -> None:
    """RAM less Xen and dom0 must leave something: at 2 GiB, Xen takes 80 MiB and dom0 may take up to 1967."""
    with pytest.raises(
        ConfigError,
        match=r"^host.dom0_mib plus Xen's own memory must be < cluster.host_mem_gib, got 1968 \+ 80 >= 2048",
    ):
        compose(["cluster.host_mem_gib=2", "host.dom0_mib=1968"])
    assert compose(["cluster.host_mem_gib=2", "host.dom0_mib=1967"]).usable_pages == 256


def test_what_dom0_leaves_to_guests() -> None:
    """B3.5: without dom0_mem= dom0 has all but 128 MiB, and xl shrinks it to 128 at the least; fixed, it stays."""
    host = ["cluster.host_mem_gib=4", "host.xen_mib=96", "host.dom0_mib=null"]
    auto, never = compose(host), compose([*host, "host.autoballoon=false"])
    assert (auto.host.autoballoons, auto.host.dom0_mib_at_boot(4000), auto.usable_pages) == (True, 3872, 3872 * 256)
    assert (never.host.autoballoons, never.usable_pages) == (False, 128 * 256)
    assert auto.host.dom0_mib_at_boot(1600) == 1500
    shrinks = compose(["cluster.host_mem_gib=4", "host.xen_mib=96", "host.autoballoon=true"])
    assert (shrinks.host.autoballoons, shrinks.usable_pages) == (True, 3872 * 256)


def test_a_dom0_that_squeezed_manages() -> None:
    """D5.15: what guests can never have is its minimum; two that move it, and a minimum beyond it, are mistakes."""
    host = ["cluster.host_mem_gib=4", "host.xen_mib=96", "host.dom0_mib=2000", "controller.squeezed.dom0_min_mib=1024"]
    assert compose([*host, "controller=squeezed"]).usable_pages == (4000 - 1024) * 256
    assert compose([*host, "controller=static"]).usable_pages == 2000 * 256, "another controller never sees it"
    with pytest.raises(ConfigError, match=r"^host.autoballoon must be false with controller=squeezed, got true"):
        compose([*host, "controller=squeezed", "host.autoballoon=true"])
    with pytest.raises(
        ConfigError, match=r"^controller.squeezed.dom0_min_mib must be <= dom0's .*, got 1024 > 1000 MiB"
    ):
        compose([*host, "controller=squeezed", "host.dom0_mib=1000"])


def test_usable_memory_of_the_default_host() -> None:
    """U of a 128 GiB host: RAM less RAM/128 + 64 MiB for Xen and 2048 MiB for dom0."""
    config = compose()
    assert config.cluster.mem_gib_of(2) == [128, 128]
    assert config.usable_pages == (131_072 - (1024 + 64) - 2048) * 256
    assert compose(["host.xen_mib=512"]).usable_pages == (131_072 - 512 - 2048) * 256


def test_equal_configurations_have_equal_names() -> None:
    """The digest depends on every value and on nothing else."""
    first = compose(["seed=3"])
    assert first.digest() == compose(["overcommit=1.5", "seed=3"]).digest()
    assert re.fullmatch(r"[0-9a-f]{12}", first.digest())
    names = {first.digest()}
    for key, value in sections(first).items():
        changed = copy.deepcopy(first)
        *path, name = key.split(".")
        section: Any = changed
        for part in path:
            section = getattr(section, part)
        setattr(section, name, "x" if value is None else [*value, 1.0] if isinstance(value, list) else f"{value}x")
        names.add(changed.digest())
    assert len(names) == 1 + len(sections(first))


@pytest.mark.parametrize("kind", [PodclusterError, ConfigError, InvariantError])
def test_errors_travel_between_processes(kind: type[PodclusterError]) -> None:
    """An error that an actor raises arrives as what it was."""
    error = pickle.loads(pickle.dumps(kind("a must be b, got c: d")))
    assert type(error) is kind
    assert str(error) == "a must be b, got c: d"


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["controller=mom", "host.autoballoon=true"], "must be false with controller=mom, got true: "),
        (
            ["controller=esx", "host.dom0_mib=null"],
            "must be false \\(or host.dom0_mib be given\\) with controller=esx, got auto",
        ),
        (
            ["host.toolstack=xapi", "host.autoballoon=true"],
            "must be false with host.toolstack=xapi, got true: ",
        ),
        (
            ["host.toolstack=xapi", "host.dom0_mib=null"],
            "\\(or host.dom0_mib be given\\) with host.toolstack=xapi, got auto",
        ),
    ],
)
def test_dom0_shrinks_for_starts_under_xl_alone(overrides: list[str], text: str) -> None:
    """B3 is xl's, which asks dom0 for what a start needs; a controller, or XAPI, wants more to be free than that."""
    with pytest.raises(ConfigError, match=rf"^host\.autoballoon .*{text}"):
        compose(overrides)
