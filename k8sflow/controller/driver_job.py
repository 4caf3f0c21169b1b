"""The manifest of a driver's Job: a function from a FlowRun and the policy to a dictionary.

The driver derives everything from the store, so its Job may start another pod whenever one is lost. With exit code 1
the driver itself reports that the run has failed or can't continue; another attempt would have the same result.
"""

from __future__ import annotations

from k8sflow.config import variable
from k8sflow.controller.flowrun_policy import Policy
from k8sflow.interrupted import CANCELLED_EXIT_CODE
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes import labels
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.names import label_value
from k8sflow.kubernetes.pod import DEFAULT_USER, literal, pod_security, variables

CONTAINER = "driver"
PROGRAM = "/opt/venv/bin/k8sflow"
GRACE_SECONDS = 30
# The run has failed or can't be driven (1), wrong command line (2), cancelled because the FlowRun was deleted.
FINAL_EXIT_CODES = (1, 2, CANCELLED_EXIT_CODE)
_TMP = "/tmp"  # noqa: S108 - an emptyDir of its own


def driver_job(flowrun: Manifest, policy: Policy) -> Manifest:
    """The Job that runs a FlowRun's driver."""
    metadata, spec = flowrun["metadata"], flowrun["spec"]
    run = {
        # Without the run's label, by which the driver finds and deletes the Jobs and pods of tasks.
        "labels": {
            **flowruns.bucket_keys(spec).labels(),
            labels.MANAGED_BY: "k8sflow",
            labels.FLOW: label_value(spec["flow"]),
            flowruns.COMPONENT: flowruns.DRIVER_COMPONENT,
            flowruns.FLOWRUN_LABEL: metadata["name"],
        },
        "annotations": labels.run_annotations(spec["flow"], spec["run"]),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": flowruns.driver_job_name(metadata["name"]),
            "namespace": metadata["namespace"],
            **run,
            "ownerReferences": [flowruns.owner_reference(flowrun, is_controller=True)],
        },
        "spec": {
            "backoffLimit": policy.driver_restarts,
            "podFailurePolicy": {"rules": _failure_rules()},
            # Never two drivers of a run at once, even if the node of the first is unreachable.
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": policy.ttl_seconds,
            "template": {"metadata": run, "spec": _pod_spec(flowrun, policy)},
        },
    }


def _failure_rules() -> list[Manifest]:
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": list(FINAL_EXIT_CODES)},
        },
    ]


def _pod_spec(flowrun: Manifest, policy: Policy) -> Manifest:
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": policy.driver_service_account,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "enableServiceLinks": False,
        "securityContext": pod_security(DEFAULT_USER),
        "containers": [_container(flowrun, policy)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *flowruns.bucket_keys(flowrun["spec"]).volumes()],
    }
    if policy.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in policy.image_pull_secrets]
    return spec


def _container(flowrun: Manifest, policy: Policy) -> Manifest:
    driver = flowrun["spec"].get("driver") or {}
    return {
        "name": CONTAINER,
        "image": driver.get("image") or policy.image,
        "imagePullPolicy": policy.image_pull_policy,
        "command": _command(flowrun),
        "workingDir": _TMP,
        "env": _environment(flowrun, policy),
        "resources": _resources(driver.get("resources") or {}, policy),
        "volumeMounts": [{"name": "tmp", "mountPath": _TMP}, *flowruns.bucket_keys(flowrun["spec"]).mounts()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last lines of a driver that can't continue say why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _command(flowrun: Manifest) -> list[str]:
    """The driver's command line: a list, in which no value can be mistaken for an option."""
    spec = flowrun["spec"]
    words = [PROGRAM, "drive", f"--flowrun={flowrun['metadata']['name']}", "--", spec["flow"], spec["run"]]
    return [literal(word) for word in words]


def _environment(flowrun: Manifest, policy: Policy) -> list[Manifest]:
    plain = {
        "HOME": _TMP,
        # The virtual environment has its own k8sflow, which the runtime for tasks must not shadow.
        "PYTHONPATH": "",
        variable("kubernetes_runtime_image"): policy.image,
        variable("kubernetes_service_account"): policy.task_service_account,
        flowruns.SERVICE_ACCOUNTS_VARIABLE: ",".join((policy.task_service_account, *policy.task_service_accounts)),
        flowruns.OPTIONS_VARIABLE: ",".join(policy.task_options),
        **flowruns.environment(flowrun["spec"], flowrun["metadata"]["namespace"]),
    }
    return variables(plain, flowruns.bucket_keys(flowrun["spec"]))


def _resources(requested: Manifest, policy: Policy) -> Manifest:
    memory = requested.get("memory") or policy.driver_memory
    return {
        "requests": {"cpu": requested.get("cpu") or policy.driver_cpu, "memory": memory},
        "limits": {"memory": memory},
    }
