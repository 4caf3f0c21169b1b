"""The Job of a driver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from k8sflow import config
from k8sflow.controller.driver_job import driver_job
from k8sflow.kubernetes import labels
from tests.unit.controller.objects import POLICY, flowrun


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return found


def variables(job: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(job)["env"] if "value" in item}


def test_no_name_in_the_command_can_be_mistaken_for_an_option() -> None:
    command = container(driver_job(flowrun(flow="Sum"), POLICY))["command"]
    assert command == ["/opt/venv/bin/k8sflow", "drive", "--flowrun=sum-run-1", "--", "Sum", "r1"]


def test_the_driver_reads_the_settings_that_the_run_was_started_with() -> None:
    """The environment restores the settings in the FlowRun."""
    found = config.load(config.Path("/"), variables(driver_job(flowrun(), POLICY)))
    assert (found.bucket, found.credentials, found.endpoint) == ("bucket/team", "secret:keys", "http://s3:9000")
    assert (found.region, found.kubernetes_namespace) == ("eu-1", "lab")
    assert found.kubernetes_service_account == "k8sflow-task"


def test_the_runtime_of_tasks_is_the_controllers_own_image_by_default() -> None:
    said = flowrun(settings={"kubernetesRuntimeImage": "registry/k8sflow:9"})
    name = "K8SFLOW_KUBERNETES_RUNTIME_IMAGE"
    assert variables(driver_job(flowrun(), POLICY))[name] == "k8sflow:1"
    assert variables(driver_job(said, POLICY))[name] == "registry/k8sflow:9"


def test_the_driver_does_not_delete_itself() -> None:
    """Cancelling deletes everything that the run's selector matches; the driver must survive to report the end."""
    job = driver_job(flowrun(), POLICY)
    selector = labels.run_labels("Sum", "r1")
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert not selector.items() <= metadata["labels"].items()
        assert metadata["annotations"] == labels.run_annotations("Sum", "r1")


def test_the_keys_of_the_bucket_are_references() -> None:
    env = container(driver_job(flowrun(), POLICY))["env"]
    secret = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in env if "valueFrom" in item}
    assert secret == {key: {"name": "keys", "key": key} for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert not [item for item in container(driver_job(flowrun(settings={}), POLICY))["env"] if "valueFrom" in item]


def test_the_driver_gets_the_service_accounts_that_tasks_may_use() -> None:
    policy = replace(POLICY, task_service_accounts=("gpu",), task_options=("secrets", "pod_template"))
    found = variables(driver_job(flowrun(), policy))
    assert found["K8SFLOW_ALLOWED_SERVICE_ACCOUNTS"] == "k8sflow-task,gpu"
    assert found["K8SFLOW_ALLOWED_OPTIONS"] == "secrets,pod_template"


def test_the_flowrun_owns_the_job_without_blocking_its_own_deletion() -> None:
    (owner,) = driver_job(flowrun(), POLICY)["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "k8sflow.dev/v1alpha1",
        "kind": "FlowRun",
        "name": "sum-run-1",
        "uid": "uid-of-sum-run-1",
        "controller": True,
        "blockOwnerDeletion": False,
    }


def test_a_driver_that_gave_up_is_not_restarted_and_an_eviction_does_not_count() -> None:
    spec = driver_job(flowrun(), POLICY)["spec"]
    ignored, final = spec["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert final["action"] == "FailJob"
    assert final["onExitCodes"]["values"] == [1, 2, 130]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (5, "Failed")


def test_the_pod_passes_pod_security_restricted() -> None:
    job = driver_job(flowrun(), POLICY)
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(job)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [set(volume) for volume in pod["volumes"]] == [{"name", "emptyDir"}]


def test_resources_are_the_flowruns_else_the_policys() -> None:
    assert container(driver_job(flowrun(), POLICY))["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"memory": "512Mi"},
    }
    asked = flowrun(driver={"resources": {"cpu": "2", "memory": "1Gi"}, "image": "k8sflow:2"})
    assert container(driver_job(asked, POLICY))["resources"] == {
        "requests": {"cpu": "2", "memory": "1Gi"},
        "limits": {"memory": "1Gi"},
    }
    assert container(driver_job(asked, POLICY))["image"] == "k8sflow:2"
