"""The pod of a task: what each option of @kubernetes does to it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from k8sflow.flow.decorators.kubernetes import kubernetes
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.pod import agent_command
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import pod_options

TASKS = TaskBatch(TaskSpec("F", "1", TaskName("start")))
NONE = {"drop": ["ALL"]}
SPREAD = {"topologyKey": "zone", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
NODES = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
# A value of each option, as users write it in Python.
WRITTEN: dict[str, Any] = {
    "image": "app:1",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "runtime_in_image": True,
    "executable": "/opt/venv/bin/python",
    "namespace": "lab",
    "service_account": "trainer",
    "cpu": 2,
    "cpu_limit": 4,
    "memory": 1000,
    "memory_limit": "8Gi",
    "qos": "guaranteed",
    "disk": 1000,
    "gpu": 2,
    "gpu_vendor": "habana.ai/gaudi",
    "gpu_model": "NVIDIA-L4",
    "extended_resources": {"example.com/fpga": 2},
    "resource_claims": {"gpu": "template/a100", "disk": "claim/shared"},
    "shared_memory": 64,
    "on_oom": "double",
    "max_memory": 16000,
    "use_tmpfs": True,
    "tmpfs_size": 64,
    "tmpfs_path": "/fast",
    "tmpfs_tempdir": False,
    "persistent_volume_claims": {"data": "/data"},
    "ephemeral_volumes": {"/scratch": {"size": "100Gi", "storage_class": "fast"}},
    "empty_dirs": {"/spool": {"size": "1Gi", "medium": "memory"}},
    "image_volumes": {"registry/model:1": "/model"},
    "secrets": ["token"],
    "secret_files": {"token": "/run/token"},
    "config_maps": ["words"],
    "config_map_files": {"words": "/etc/words"},
    "env": {"A": "1"},
    "node_selector": {"disk": "ssd"},
    "compute_pool": "large",
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": NODES,
    "topology_spread": [SPREAD],
    "priority_class": "high",
    "runtime_class": "gvisor",
    "queue": "team",
    "labels": {"team": "a"},
    "annotations": {"note": "b"},
    "run_as_user": 1000,
    "security_context": {"run_as_group": 5},
    "port": 8080,
    "host_aliases": {"10.0.0.5": ["db", "db.local"]},
    "dns_policy": "default",
    "dns_config": {"searches": ["lab"]},
    "hostname_resolution_timeout": 60,
    "deadline_seconds": 60,
    "grace_seconds": 30,
    "spot": "aws",
    "pending_timeout_seconds": 60,
    "branches_per_pod": 4,
    "branches_at_a_time": 2,
    "pod_template": "pod.yaml",
}
# These act on the run, its driver, the agent or the gang of a step, and not by the pod.
ELSEWHERE = {"on_oom", "max_memory", "spot"} | {
    "namespace",
    "pending_timeout_seconds",
    "branches_per_pod",
    "branches_at_a_time",
    "hostname_resolution_timeout",
    "pod_template",
}
NEEDS: dict[str, dict[str, Any]] = {"tmpfs_path": {"use_tmpfs": True}, "tmpfs_tempdir": {"use_tmpfs": True}}
NEEDS["gpu_vendor"] = {"gpu": 1}
NEEDS["runtime_in_image"] = {"image": "app:1"}


def made(**options: Any) -> dict[str, Any]:
    defaults = merge(PodOptions(image="k8sflow:1"), DEFAULT_OPTIONS)
    found = pod_options(**options).over(defaults)
    return job_manifest(
        TaskJob(
            "job", "lab", TaskBatch(TaskSpec("F", "1", TaskName("start"))), found, "k8sflow:1", agent_command(found)
        )
    )


def pod(**options: Any) -> dict[str, Any]:
    spec: dict[str, Any] = made(**options)["spec"]["template"]["spec"]
    return spec


def container(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(**options)["containers"][0]
    return found


def folders(**options: Any) -> dict[str, dict[str, Any]]:
    """The sources of the volumes, by the folder where the container has them."""
    spec = pod(**options)
    sources = {volume.pop("name"): volume for volume in spec["volumes"]}
    return {mount["mountPath"]: sources[mount["name"]] for mount in spec["containers"][0]["volumeMounts"]}


def environment(**options: Any) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in container(**options)["env"]}


def test_every_option_has_an_example_here() -> None:
    assert list(WRITTEN) == [field.name for field in fields(PodOptions)]
    assert [option.name for option in kubernetes.options or ()] == list(WRITTEN)


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ELSEWHERE])
def test_no_option_is_accepted_and_ignored(name: str) -> None:
    needed = NEEDS.get(name, {})
    assert made(**needed, **{name: WRITTEN[name]}) != made(**needed)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_option_is_the_same_in_python_as_text_and_in_the_record(name: str) -> None:
    value = WRITTEN[name]
    options = pod_options(**{name: value})
    as_text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)
    if isinstance(value, list) and isinstance(value[0], str):
        as_text = ",".join(value)
    assert pod_options(**{name: as_text}) == options
    assert PodOptions.from_document(json.loads(json.dumps(options.to_document()))) == options


def test_short_texts_stand_for_structures() -> None:
    short = pod_options(
        empty_dirs="/spool=1Gi",
        ephemeral_volumes="/scratch=10Gi",
        topology_spread="topology.kubernetes.io/zone",
        host_aliases="10.0.0.5=db db.local",
        extended_resources="example.com/fpga=2",
        persistent_volume_claims="data=/data",
    )
    assert short.empty_dirs == {"/spool": {"sizeLimit": "1Gi"}}
    assert short.host_aliases == {"10.0.0.5": ["db", "db.local"]}
    assert short.topology_spread == (
        {"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"},
    )


def test_limits_are_apart_from_requests() -> None:
    assert container(cpu=1, cpu_limit=2, memory=500, memory_limit=1000)["resources"] == {
        "requests": {"cpu": "1", "memory": "500M"},
        "limits": {"cpu": "2", "memory": "1000M"},
    }


def test_guaranteed_pods_have_their_requests_as_limits() -> None:
    """The init container as well, or the pod would be Burstable."""
    spec = pod(qos="Guaranteed", cpu=2, image="python:3.12", gpu=1)
    for resources in (spec["containers"][0]["resources"], spec["initContainers"][0]["resources"]):
        assert all(resources["limits"][name] == amount for name, amount in resources["requests"].items())
    assert "nvidia.com/gpu" not in spec["initContainers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("options", "resource", "selector"),
    [
        ({"gpu": 1, "gpu_model": "NVIDIA-L4"}, "nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-L4"}),
        ({"gpu": 1, "gpu_vendor": "AMD", "gpu_model": "MI300X"}, "amd.com/gpu", {"amd.com/gpu.product-name": "MI300X"}),
        (
            {"gpu": 1, "gpu_vendor": "tpu", "gpu_model": "cloud.google.com/gke-tpu-accelerator=v5e"},
            "google.com/tpu",
            {"cloud.google.com/gke-tpu-accelerator": "v5e"},
        ),
        (
            {"gpu": 1, "gpu_vendor": "gpu.intel.com/xe", "compute_pool": "p"},
            "gpu.intel.com/xe",
            {"outerbounds.co/compute-pool": "p"},
        ),
    ],
)
def test_devices_of_any_vendor_by_model(options: dict[str, Any], resource: str, selector: dict[str, str]) -> None:
    spec = pod(**options)
    assert spec["containers"][0]["resources"]["limits"][resource] == "1"
    assert spec["nodeSelector"] == selector


def test_claims_of_devices_are_the_pods_and_the_containers() -> None:
    spec = pod(resource_claims={"gpu": "template/a100", "disk": "claim/shared"})
    assert spec["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "a100"},
        {"name": "disk", "resourceClaimName": "shared"},
    ]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "gpu"}, {"name": "disk"}]


def test_volumes_of_every_kind() -> None:
    found = folders(
        **{
            name: WRITTEN[name]
            for name in WRITTEN
            if name.endswith(("_files", "_volumes", "_claims")) and name != "resource_claims"
        },
        empty_dirs={"/spool": {"medium": "Memory"}},
    )
    assert found["/data"] == {"persistentVolumeClaim": {"claimName": "data"}}
    assert found["/run/token"] == {"secret": {"secretName": "token"}}
    assert found["/etc/words"] == {"configMap": {"name": "words"}}
    assert found["/model"] == {"image": {"reference": "registry/model:1"}}
    assert found["/spool"] == {"emptyDir": {"medium": "Memory"}}
    assert found["/scratch"]["ephemeral"]["volumeClaimTemplate"]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "100Gi"}},
        "storageClassName": "fast",
    }


def test_a_volume_at_tmp_replaces_the_usual_one() -> None:
    assert folders(empty_dirs={"/tmp": "10Gi"})["/tmp"] == {"emptyDir": {"sizeLimit": "10Gi"}}


def test_a_folder_in_memory_has_half_of_the_memory_and_is_for_temporary_files() -> None:
    assert folders(memory=1000, use_tmpfs=True)["/k8sflow_temp"]["emptyDir"]["sizeLimit"] == "500000000"
    assert folders(tmpfs_size=64, tmpfs_path="/fast")["/fast"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64M"}
    assert environment(use_tmpfs=True)["TMPDIR"] == "/k8sflow_temp"
    without = environment(use_tmpfs=True, tmpfs_tempdir=False)
    assert (without["K8SFLOW_TEMPDIR"], "TMPDIR" in without) == ("/k8sflow_temp", False)
    assert "/k8sflow_temp" not in folders(use_tmpfs=False, tmpfs_size=64)


def test_secrets_and_config_maps_are_named_and_never_read() -> None:
    assert container(secrets="a,b", config_maps=["c"])["envFrom"] == [
        {"configMapRef": {"name": "c"}},
        {"secretRef": {"name": "a"}},
        {"secretRef": {"name": "b"}},
    ]


def test_pods_of_a_step_are_spread_by_the_steps_labels() -> None:
    (constraint,) = pod(topology_spread="zone")["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"]["k8sflow.dev/step"] == "start"
    own = [{**SPREAD, "labelSelector": {"matchLabels": {"a": "b"}}}]
    assert pod(topology_spread=own)["topologySpreadConstraints"] == own


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"privileged": True}, {"privileged": True, "capabilities": NONE}),
        (
            {"run_as_user": 0},
            {
                "runAsUser": 0,
                "runAsNonRoot": False,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        ),
        (
            {"capabilities": {"add": ["SYS_PTRACE"]}, "allowPrivilegeEscalation": True},
            {"capabilities": {"add": ["SYS_PTRACE"]}, "allowPrivilegeEscalation": True},
        ),
    ],
)
def test_the_users_security_context_wins(written: dict[str, Any], expected: dict[str, Any]) -> None:
    assert container(security_context=written)["securityContext"] == expected


def test_a_queued_job_is_created_suspended() -> None:
    manifest = made(queue="team")
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "suspend" not in made()["spec"]


def test_the_images_python_runs_the_agent() -> None:
    assert container(executable="/opt/venv/bin/python")["command"][0] == "/opt/venv/bin/python"
    assert container()["command"][0] == "python3"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpu": 2, "cpu_limit": 1}, "cpu_limit=1 is less than the 2 that cpu requests"),
        ({"memory": 500, "memory_limit": 100}, "memory_limit=100M is less"),
        ({"qos": "Guaranteed", "cpu": 1, "cpu_limit": 2}, "needs limits that are the requests"),
        ({"memory": 500, "memory_limit": 600, "on_oom": "double"}, "memory_limit can't be set as well"),
        ({"tmpfs_path": "/fast"}, "no effect without use_tmpfs"),
        ({"use_tmpfs": False, "tmpfs_size": 5}, "no effect without use_tmpfs"),
        ({"empty_dirs": "/data=1Gi", "secret_files": "token=/data"}, "mounts the folder /data, and so does empty_dirs"),
        ({"empty_dirs": {"/k8sflow/work": "1Gi"}}, "and so does k8sflow"),
        ({"gpu": 1, "gpu_vendor": "tpu", "gpu_model": "v5e"}, "write label=value"),
        ({"security_context": {"privileged": True, "allow_privilege_escalation": False}}, "privileged"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pod_options(**options).check()


def test_the_work_of_a_template_is_in_the_pod() -> None:
    template = {"file": "pod.yaml", "lines": {}, "spec": {"terminationGracePeriodSeconds": 60}}
    options = replace(merge(PodOptions(image="i"), DEFAULT_OPTIONS), pod_template=template)
    job = TaskJob("job", "lab", TASKS, options, "i", ("x",))
    assert job_manifest(job)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
