"""Would a cluster take the files in deploy/? None is at hand: their form, their names, and what must agree."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from podcluster.cli import compose

REPOSITORY = Path(__file__).resolve().parents[1]
MANIFEST = REPOSITORY / "deploy" / "kubernetes" / "run.yaml"
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
MACHINES = REPOSITORY / "deploy" / "machines" / "cluster.yaml"

Fields = dict[str, Any]
"""By name (`!` at its end: must be there) a type, a pattern, or the fields below; a list has one, for all entries."""

TEXT, NUMBER, FLAG = str, int, bool
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # DNS-1123
QUANTITY = re.compile(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?")
STRINGS: Fields = {"*": TEXT}

# Kubernetes v1, as far as manifests here may go; an API server refuses what is misspelt.
METADATA: Fields = {"name!": NAME, "namespace": NAME, "labels": STRINGS, "annotations": STRINGS}
POD: Fields = {
    "metadata": {**METADATA, "name": NAME},
    "spec!": {
        "containers!": [
            {
                "name!": NAME,
                "image!": TEXT,
                "imagePullPolicy": re.compile("Always|IfNotPresent|Never"),
                "command": [TEXT],
                "args": [TEXT],
                "env": [{"name!": TEXT, "value": TEXT}],
                "resources": {"requests": {"*": QUANTITY}, "limits": {"*": QUANTITY}},
                "volumeMounts": [{"name!": NAME, "mountPath!": TEXT, "readOnly": FLAG, "subPath": TEXT}],
            }
        ],
        "volumes": [
            {
                "name!": NAME,
                "persistentVolumeClaim": {"claimName!": NAME, "readOnly": FLAG},
                "emptyDir": {"sizeLimit": QUANTITY, "medium": re.compile("Memory")},
            }
        ],
        "nodeSelector": STRINGS,
        "serviceAccountName": NAME,
        "terminationGracePeriodSeconds": NUMBER,
    },
}
CLAIM: Fields = {
    "apiVersion!": re.compile("v1"),
    "kind!": re.compile("PersistentVolumeClaim"),
    "metadata!": METADATA,
    "spec!": {
        "accessModes!": [re.compile("ReadWriteOnce|ReadOnlyMany|ReadWriteMany|ReadWriteOncePod")],
        "resources!": {"requests!": {"storage!": QUANTITY}},
        "storageClassName": TEXT,
    },
}

# ray.io/v1 of KubeRay 1.5, by its API reference. What earlier ones required is required here.
CLUSTER: Fields = {
    "rayVersion!": TEXT,
    "authOptions": {"mode!": re.compile("disabled|token")},
    "suspend": FLAG,
    "enableInTreeAutoscaling": FLAG,
    "headGroupSpec!": {
        "serviceType": TEXT,
        "enableIngress": FLAG,
        "labels": STRINGS,
        "resources": {"*": QUANTITY},
        "rayStartParams!": STRINGS,
        "template!": POD,
    },
    "workerGroupSpecs": [
        {
            "groupName!": NAME,
            "replicas": NUMBER,
            "minReplicas!": NUMBER,
            "maxReplicas!": NUMBER,
            "numOfHosts": NUMBER,
            "idleTimeoutSeconds": NUMBER,
            "suspend": FLAG,
            "labels": STRINGS,
            "resources": {"*": QUANTITY},
            "rayStartParams!": STRINGS,
            "template!": POD,
        }
    ],
}
JOB: Fields = {
    "apiVersion!": re.compile("ray.io/v1"),
    "kind!": re.compile("RayJob"),
    "metadata!": METADATA,
    "spec!": {
        "entrypoint!": TEXT,
        "rayClusterSpec!": CLUSTER,
        "backoffLimit": NUMBER,
        "activeDeadlineSeconds": NUMBER,
        "ttlSecondsAfterFinished": NUMBER,
        "shutdownAfterJobFinishes": FLAG,
        "suspend": FLAG,
        "jobId": TEXT,
        "runtimeEnvYAML": TEXT,
        "submissionMode": re.compile("K8sJobMode|HTTPMode|InteractiveMode|SidecarMode"),
        "submitterConfig": {"backoffLimit": NUMBER},
        "submitterPodTemplate": POD,
        "entrypointNumCpus": NUMBER,
    },
}
KINDS = {"PersistentVolumeClaim": CLAIM, "RayJob": JOB}

# What `ray up` takes for machines that are there (provider local), by ray-schema.json of Ray 2.60, which leaves it to a
# provider which fields it has.
MACHINES_FORM: Fields = {
    "cluster_name!": NAME,
    "provider!": {"type!": re.compile("local"), "head_ip!": TEXT, "worker_ips!": [TEXT]},
    "auth!": {"ssh_user!": TEXT, "ssh_private_key!": TEXT, "ssh_proxy_command": TEXT},
    "min_workers!": NUMBER,
    "max_workers!": NUMBER,
    "upscaling_speed": float,
    "idle_timeout_minutes": NUMBER,
    "file_mounts!": STRINGS,
    "rsync_exclude": [TEXT],
    "initialization_commands": list,
    "setup_commands!": [TEXT],
    "head_setup_commands!": [TEXT],
    "worker_setup_commands": list,
    "head_start_ray_commands!": [TEXT],
    "worker_start_ray_commands!": [TEXT],
}


def flaws(value: Any, form: Any, at: str) -> list[str]:
    """What is not of its form, and where."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return [f"{at} must be a mapping"]
        known = {name.rstrip("!"): below for name, below in form.items()}
        missing = [name[:-1] for name in form if name.endswith("!") and name[:-1] not in value]
        found = [f"{at}.{name} is missing" for name in missing]
        for name, below in value.items():
            if name in known or "*" in known:
                found += flaws(below, known.get(name, known.get("*")), f"{at}.{name}")
            else:
                found.append(f"{at}.{name} is not a field")
        return found
    if isinstance(form, list):
        if not isinstance(value, list) or not value:
            return [f"{at} must be a list"]
        return [flaw for k, below in enumerate(value) for flaw in flaws(below, form[0], f"{at}[{k}]")]
    if isinstance(form, re.Pattern):
        return [] if isinstance(value, str) and form.fullmatch(value) else [f"{at} must match {form.pattern}"]
    return [] if type(value) is form else [f"{at} must be of {form.__name__}"]


def documents() -> dict[str, Any]:
    """The manifest's, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFEST.read_text())}


def pods(cluster: Any) -> dict[str, Any]:
    """The pod of the head, and of each group of workers."""
    groups = {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"]["template"]["spec"], **groups}


def mebibytes(quantity: str) -> float:
    """A quantity of memory."""
    number, unit = re.fullmatch(r"([\d.]+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"Mi": 1, "Gi": 1024}[unit]


def test_every_field_is_one_that_is_known_and_has_its_type() -> None:
    """Of KubeRay's and Kubernetes' own; what they require is there."""
    found = documents()
    assert set(found) == set(KINDS)
    assert [flaw for kind, one in found.items() for flaw in flaws(one, KINDS[kind], kind)] == []


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("backoffLimit:", "backOffLimit:", "RayJob.spec.backOffLimit is not a field"),
        ('num-cpus: "0"', "num-cpus: 0", "RayJob.spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus must be of"),
        ("mode: token", "mode: tokens", "RayJob.spec.rayClusterSpec.authOptions.mode must match disabled|token"),
        ("minReplicas: 4", "", "RayJob.spec.rayClusterSpec.workerGroupSpecs[0].minReplicas is missing"),
        ("storage: 20Gi", "storage: 20GB", "PersistentVolumeClaim.spec.resources.requests.storage must match"),
    ],
)
def test_a_slip_does_not_go_unnoticed(old: str, new: str, flaw: str) -> None:
    """A name that is misspelt, a number for a string, a value that is none, a field too few."""
    text = MANIFEST.read_text()
    assert text.count(old) == 1
    changed = [one for one in yaml.safe_load_all(text.replace(old, new))]
    (found,) = [flaw for one in changed for flaw in flaws(one, KINDS[one["kind"]], one["kind"])]
    assert found.startswith(flaw)


def test_what_is_mounted_is_there_and_holds_the_results() -> None:
    """Volumes by name; the claim is of the manifest, and the head's alone, since one node at a time may have it; the
    run's folder lies on it.
    """
    found = documents()
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    for name, pod in pods(cluster).items():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert all(len(volume) == 2 for volume in volumes.values()), "a name and one kind"
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} == set(volumes)
        claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v]
        assert claims == ([found["PersistentVolumeClaim"]["metadata"]["name"]] if name == "head" else [])
    head = pods(cluster)["head"]["containers"][0]
    (results,) = [mount["mountPath"] for mount in head["volumeMounts"] if mount["name"] == "runs"]
    (folder,) = re.findall(r"hydra\.run\.dir=(\S+)", found["RayJob"]["spec"]["entrypoint"])
    assert folder.startswith(f"{results}/")


def test_the_command_is_a_run_on_the_cluster_that_it_is_a_job_of() -> None:
    """Its overrides are of the configuration; the same Ray as in the lock file; hosts on workers alone."""
    spec = documents()["RayJob"]["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    config = compose([word for word in words if not word.startswith("hydra.")])
    assert (program, config.engine.kind, config.engine.address) == ("podcluster", "ray", "auto")
    cluster = spec["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (REPOSITORY / "requirements.lock").read_text()
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"], "no autoscaler sees the actors"


def test_pods_get_what_they_ask_for() -> None:
    """No limit is below its request; memory is limited at what is asked for, so that Ray and podcluster count on it."""
    for pod in pods(documents()["RayJob"]["spec"]["rayClusterSpec"]).values():
        for container in pod["containers"]:
            asked, most = container["resources"]["requests"], container["resources"]["limits"]
            assert mebibytes(asked["memory"]) == mebibytes(most["memory"])
            assert float(most.get("cpu", asked["cpu"])) >= float(asked["cpu"])


def test_the_image_is_made_of_what_there_is() -> None:
    """What is copied exists, the kernels' modules do, and the pods' image is the one that is built."""
    text = DOCKERFILE.read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert [source for source in sources if not (REPOSITORY / source).exists()] == []
    for module in re.findall(r"python -m (\S+)", text):
        assert (REPOSITORY / (module.replace(".", "/") + ".py")).is_file()
    (image,) = re.findall(r"docker build -f deploy/Dockerfile -t (\S+) \.", text)
    images = {one["image"] for pod in pods(documents()["RayJob"]["spec"]["rayClusterSpec"]).values()
              for one in pod["containers"]}  # fmt: skip
    assert images == {image}


# -- machines ----------------------------------------------------------------------------------------------------------


def machines() -> Any:
    """The file for `ray up`."""
    return yaml.safe_load(MACHINES.read_text())


def started(commands: list[str]) -> dict[str, str]:
    """The options of the `ray start` among these commands."""
    (line,) = [one for one in commands if " start " in one]
    words = shlex.split(line.rpartition(";")[2])
    assert words[0] == "RAY_AUTH_MODE=token" and words[1].endswith("/bin/ray") and words[2] == "start"
    return {name: value for name, _, value in (word.partition("=") for word in words[3:])}


def test_every_field_for_machines_is_one_that_is_known() -> None:
    """And has its type."""
    assert flaws(machines(), MACHINES_FORM, "cluster") == []


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("worker_ips:", "workers_ips:", "cluster.provider.worker_ips is missing"),
        ("type: local", "type: locale", "cluster.provider.type must match local"),
        ("min_workers: 2", 'min_workers: "2"', "cluster.min_workers must be of int"),
        ("head_start_ray_commands:", "head_start_commands:", "cluster.head_start_ray_commands is missing"),
    ],
)
def test_a_slip_in_the_file_for_machines_does_not_go_unnoticed(old: str, new: str, flaw: str) -> None:
    """A name that is misspelt, a value that is none, a string for a number."""
    text = MACHINES.read_text()
    assert text.count(old) == 1
    assert flaws(yaml.safe_load(text.replace(old, new)), MACHINES_FORM, "cluster")[0].startswith(flaw)


def ask_ray(text: str) -> subprocess.CompletedProcess[str]:
    """Let Ray prepare and check a file for `ray up`, as it does first of all."""
    code = (
        "import sys, yaml; from ray.autoscaler._private.util import prepare_config, validate_config; "
        "validate_config(prepare_config(yaml.safe_load(sys.stdin)))"
    )
    return subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, timeout=120)


def test_ray_takes_the_file_for_machines() -> None:
    """By its own check, which finds a field that there is not."""
    text = MACHINES.read_text()
    assert ask_ray(text).returncode == 0
    wrong = ask_ray(text.replace("file_mounts:", "files_mounts:"))
    assert wrong.returncode != 0 and "files_mounts" in wrong.stderr


def test_workers_find_the_head_and_all_of_them_are_wanted() -> None:
    """One port, no hosts on the head, as many workers as have addresses, which are nobody's as long as nobody has
    filled them in.
    """
    found = machines()
    head, worker = started(found["head_start_ray_commands"]), started(found["worker_start_ray_commands"])
    assert set(head) == {"--head", "--port", "--num-cpus", "--autoscaling-config"} and head["--num-cpus"] == "0"
    assert worker == {"--address": f"$RAY_HEAD_IP:{head['--port']}"}
    workers = found["provider"]["worker_ips"]
    assert found["min_workers"] == found["max_workers"] == len(set(workers)), "no autoscaler sees the actors"
    assert all(address.startswith("192.0.2.") for address in [found["provider"]["head_ip"], *workers])


def test_machines_get_what_there_is() -> None:
    """The lock file, the same Ray, kernels of modules that exist; and the page on clusters names the file."""
    found = machines()
    text = "\n".join([*found["setup_commands"], *found["head_setup_commands"]])
    assert found["file_mounts"]["~/podcluster"] == "." and "--requirement requirements.lock" in text
    (ray,) = re.findall(r"ray\[default\]==([\d.]+)", text)
    assert f"\nray=={ray}\n" in (REPOSITORY / "requirements.lock").read_text()
    modules = re.findall(r"python -m (podcluster\S+)", text)
    assert modules == re.findall(r"python -m (podcluster\S+)", DOCKERFILE.read_text())
    assert f"../{MACHINES.relative_to(REPOSITORY)}" in (REPOSITORY / "docs" / "cluster.md").read_text()
