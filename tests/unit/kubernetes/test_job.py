"""The manifest of a task's Job."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, RUNTIME_FOLDER, PodOptions, merge
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.pod import agent_command
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.launch import OTHER_RUNTIME
from k8sflow.task.spec import TaskName, TaskSpec
from k8sflow.version import VERSION
from tests.support import pod_options

TASK = TaskSpec("BigSum", "12", TaskName("train_model", (3, 1)), attempt=2)
JOB = TaskJob(
    name="bigsum-train-model-0123456789",
    namespace="lab",
    tasks=TaskBatch(TASK),
    options=merge(PodOptions(image="k8sflow:1"), DEFAULT_OPTIONS),
    runtime_image="k8sflow:1",
    command=("python3", "-m", "k8sflow.task.host.agent", "it's; $(a) test"),
)


def made(**options: Any) -> dict[str, Any]:
    return job_manifest(replace(JOB, options=pod_options(**options).over(JOB.options)))


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = pod_of(manifest)["containers"][0]
    return container


def environment_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container_of(manifest)["env"]}


def test_the_driver_handles_failures_and_the_job_handles_disruptions() -> None:
    spec = made()["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "activeDeadlineSeconds" not in spec
    assert spec["template"]["spec"]["activeDeadlineSeconds"] == 5 * 24 * 3600


def test_the_grace_is_the_pods() -> None:
    """The agent gets the same number, and ends the step a little earlier."""
    assert pod_of(made())["terminationGracePeriodSeconds"] == 5
    assert pod_of(made(grace_seconds=600))["terminationGracePeriodSeconds"] == 600


def test_job_and_pod_carry_the_names_of_their_task() -> None:
    manifest = made(labels={"team": "a"})
    for metadata in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
        assert metadata["labels"] == {
            "team": "a",
            "app.kubernetes.io/managed-by": "k8sflow",
            "k8sflow.dev/flow": "BigSum",
            "k8sflow.dev/run": "12",
            "k8sflow.dev/step": "train_model",
            "k8sflow.dev/task": "3.1",
        }
        assert metadata["annotations"]["k8sflow.dev/attempt"] == "2"


def test_memory_is_request_and_limit_and_cores_are_only_a_request() -> None:
    assert container_of(made(cpu=2, memory=60_000))["resources"] == {
        "requests": {"cpu": "2", "memory": "60000M"},
        "limits": {"memory": "60000M"},
    }


def test_disk_and_gpus_are_limits() -> None:
    resources = container_of(made(disk=1000, gpu=2, gpu_vendor="amd"))["resources"]
    assert resources["limits"] == {"memory": "4096M", "ephemeral-storage": "1000M", "amd.com/gpu": "2"}
    assert resources["requests"]["ephemeral-storage"] == "1000M"
    assert container_of(made(gpu=0))["resources"]["limits"] == {"memory": "4096M"}


def test_the_pod_is_restricted() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    manifest = made(image="python:3.12", shared_memory=100)
    pod = pod_of(manifest)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"] + pod["initContainers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])


def test_an_image_with_the_runtime_needs_no_init_container() -> None:
    assert "initContainers" not in pod_of(made())


def test_an_image_that_is_built_on_the_runtime_needs_no_init_container() -> None:
    """The option says so, since the name can't."""
    pod = pod_of(made(image="app:1", runtime_in_image=True))
    assert "initContainers" not in pod
    assert "runtime" not in {volume["name"] for volume in pod["volumes"]}
    assert "initContainers" in pod_of(made(image="app:1", runtime_in_image="false"))


@pytest.mark.parametrize("version", [VERSION, "0.0.0"])
def test_an_agent_of_another_version_does_not_start(version: str, tmp_path: Path) -> None:
    """An image that was built on the runtime may be old; its agent would understand the driver only by luck."""
    package = tmp_path / "k8sflow"
    (package / "task/host").mkdir(parents=True)
    (package / "version.py").write_text(f"VERSION = {version!r}\n")
    (package / "task/host/agent.py").write_text("def main(): print('started')\n")
    _, *words = agent_command(PodOptions())
    moved = [word.replace(RUNTIME_FOLDER, str(tmp_path)) for word in words]
    done = subprocess.run([sys.executable, "-I", "-S", *moved], capture_output=True, text=True, check=False)
    is_ours = version == VERSION
    assert (done.returncode, done.stdout) == ((0, "started\n") if is_ours else (1, ""))
    assert done.stderr == ("" if is_ours else f"{OTHER_RUNTIME}0.0.0\n")


def test_the_runtime_is_copied_into_an_image_that_lacks_it() -> None:
    pod = pod_of(made(image="python:3.12"))
    (init,) = pod["initContainers"]
    assert init["image"] == "k8sflow:1"
    assert init["command"][0] == "cp"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["runtime"] == "/opt/k8sflow"
    assert init["volumeMounts"] == [{"name": "runtime", "mountPath": init["command"][-1]}]


@given(st.integers(1, 64), st.integers(16, 10**6), st.integers(0, 8))
def test_the_init_container_never_raises_the_requests_of_the_pod(cpu: int, memory: int, gpu: int) -> None:
    pod = pod_of(made(image="python:3.12", cpu=cpu, memory=memory, gpu=gpu))
    task, init = pod["containers"][0]["resources"], pod["initContainers"][0]["resources"]
    for kind in ("requests", "limits"):
        for name, amount in init[kind].items():
            assert quantity.parse(amount) <= quantity.parse(task[kind][name])
    assert not any("gpu" in name for name in init["limits"])


def test_the_container_gets_its_resources_from_the_downward_api() -> None:
    environment = environment_of(made(cpu=0.5))
    reference = {"containerName": "task", "resource": "requests.cpu", "divisor": "1"}
    assert environment["K8SFLOW_CPUS"] == {"resourceFieldRef": reference}
    assert environment["K8SFLOW_MEMORY_BYTES"]["resourceFieldRef"]["resource"] == "limits.memory"


def test_the_container_gets_its_number_of_gpus() -> None:
    """As a value: the downward API has no devices."""
    assert environment_of(made(gpu=4))["K8SFLOW_GPUS"] == "4"
    assert "K8SFLOW_GPUS" not in environment_of(made())


def test_keys_come_from_the_secret_and_are_not_in_the_manifest() -> None:
    manifest = job_manifest(replace(JOB, keys=BucketKeys("bucket-keys")))
    environment = environment_of(manifest)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment[key] == {"secretKeyRef": {"name": "bucket-keys", "key": key}}
    assert "AWS_ACCESS_KEY_ID" not in environment_of(made())


def test_the_users_variables_win_over_the_runs() -> None:
    """The agent adds the user's PYTHONPATH to the image's."""
    options = PodOptions(env={"A": "user", "HOME": "/home/me", "PYTHONPATH": "/app/src"}).over(JOB.options)
    environment = environment_of(job_manifest(replace(JOB, options=options, environment={"A": "run", "B": "run"})))
    assert (environment["A"], environment["B"], environment["HOME"]) == ("user", "run", "/home/me")
    assert environment["K8SFLOW_PYTHONPATH"] == "/app/src"
    assert "PYTHONPATH" not in environment


def test_no_shell_interprets_the_command() -> None:
    container = container_of(made())
    assert [word.replace("$$", "$") for word in container["command"]] == list(JOB.command)
    assert "args" not in container
    assert container["workingDir"] == "/k8sflow/work"


def test_root_is_only_on_request() -> None:
    security = pod_of(made(run_as_user=0))["securityContext"]
    assert (security["runAsUser"], security["runAsNonRoot"]) == (0, False)


def test_every_option_is_in_the_manifest() -> None:
    pod = pod_of(
        made(
            image="app:1",
            image_pull_policy="Always",
            image_pull_secrets=["reg"],
            service_account="trainer",
            node_selector={"disk": "ssd"},
            tolerations=[{"key": "gpu", "operator": "Exists"}],
            shared_memory="1Gi",
            deadline_seconds=60,
        )
    )
    assert pod["containers"][0]["image"] == "app:1"
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["imagePullSecrets"] == [{"name": "reg"}]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}} in pod["volumes"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    assert pod["activeDeadlineSeconds"] == 60


@pytest.mark.parametrize("owner", [None, {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"}])
def test_the_owner_is_the_runs(owner: dict[str, str] | None) -> None:
    manifest = job_manifest(replace(JOB, owner=owner))
    assert manifest["metadata"].get("ownerReferences") == (None if owner is None else [owner])
    assert json.loads(json.dumps(manifest)) == manifest
