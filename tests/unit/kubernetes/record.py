"""Records what Kubernetes says about pods that fail or can't start: ``python -m tests.unit.kubernetes.record``.

Each case is made in a namespace of its own on the test cluster. The documents, less what no reader needs, are in
``recorded``; the tests read them there.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recorded"
_DEADLINE_SECONDS = 60.0
Document = dict[str, Any]


def python(code: str) -> list[str]:
    """A command that runs some Python."""
    return ["python3", "-c", code]


def pod(command: list[str], *, image: str = "", spec: Document | None = None, **container: Any) -> Document:
    """A pod like that of a task."""
    image = image or os.environ["K8SFLOW_TEST_PLAIN_IMAGE"]
    task = {"name": "task", "image": image, "command": command, "imagePullPolicy": "IfNotPresent", **container}
    own = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "automountServiceAccountToken": False}
    return {"spec": {**own, "containers": [task], **(spec or {})}}


SLEEP = python("import time; time.sleep(300)")
WRITE = python("open('/scratch/x', 'wb').write(b'x' * 20_000_000); import time; time.sleep(300)")
INIT = {"name": "k8sflow-runtime", "command": python("raise SystemExit('cp: cannot stat /opt/k8sflow')")}
PODS: dict[str, Document] = {
    "out-of-memory": {"command": python("bytearray(400_000_000)"), "resources": {"limits": {"memory": "50M"}}},
    "exit-code": {"command": python("raise SystemExit(3)")},
    "signal": {"command": python("import ctypes; ctypes.string_at(0)")},
    "deadline": {"command": SLEEP, "spec": {"activeDeadlineSeconds": 3}},
    "image-missing": {"command": SLEEP, "image": "registry.invalid/no/such:image"},
    "image-name": {"command": SLEEP, "image": "A:B:C"},
    "bad-command": {"command": ["no-such-program"]},
    "unschedulable-cpu": {"command": SLEEP, "resources": {"requests": {"cpu": "500"}}},
    "unschedulable-gpu": {"command": SLEEP, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
    "unschedulable-selector": {"command": SLEEP, "spec": {"nodeSelector": {"disk": "ssd"}}},
    "unschedulable-claim": {
        "command": SLEEP,
        "spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "nothing"}}]},
    },
    "secret-missing": {"command": SLEEP, "envFrom": [{"secretRef": {"name": "nothing"}}]},
    "volume-missing": {
        "command": SLEEP,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "spec": {"volumes": [{"name": "v", "secret": {"secretName": "nothing"}}]},
    },
    "root-refused": {"command": SLEEP, "securityContext": {"runAsNonRoot": True, "runAsUser": 0}},
    "evicted-disk": {
        "command": WRITE,
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        "spec": {"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]},
    },
    "evicted-by-api": {"command": SLEEP},
    "preempted": {
        "command": SLEEP,
        "ports": [{"containerPort": 80, "hostPort": 31999}],
        "spec": {"priorityClassName": "k8sflow-record-low"},
    },
    "init-failed": {"command": SLEEP, "spec": {"initContainers": [INIT]}},
}
JOBS: dict[str, tuple[Document | None, Document]] = {
    "quota-used-up": (
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}},
        {},
    ),
    "quota-too-small": (
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
         "spec": {"hard": {"requests.memory": "10Mi"}}},
        {"resources": {"requests": {"memory": "200M"}}},
    ),
    "quota-needs-a-limit": (
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
         "spec": {"hard": {"limits.cpu": "10"}}},
        {},
    ),
    "limit-range": (
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
         "spec": {"limits": [{"type": "Container", "max": {"memory": "100Mi"}}]}},
        {"resources": {"limits": {"memory": "200M"}}},
    ),
    "pod-security": (None, {"securityContext": {"runAsUser": 0}}),
    "service-account-missing": (None, {"spec": {"serviceAccountName": "nothing"}}),
    "priority-class-missing": (None, {"spec": {"priorityClassName": "nothing"}}),
    "policy": (
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
         "metadata": {"name": "k8sflow-record"},
         "spec": {"policyName": "k8sflow-record", "validationActions": ["Deny"],
                  "matchResources": {"namespaceSelector": {"matchLabels": {"k8sflow-record": "policy"}}}}},
        {},
    ),
}  # fmt: skip
SHARED: list[Document] = [
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "k8sflow-record-low"},
     "value": -1000},
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
     "metadata": {"name": "k8sflow-record"},
     "spec": {"failurePolicy": "Fail",
              "matchConstraints": {"resourceRules": [
                  {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
              "validations": [{"expression": "'team' in object.metadata.labels",
                               "message": "every pod needs the label team"}]}},
]  # fmt: skip


def kubectl(*arguments: str, stdin: Document | None = None) -> str:
    """The output of kubectl; an error where it fails."""
    text = None if stdin is None else json.dumps(stdin)
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=True).stdout


def create(namespace: str, document: Document) -> None:
    """Creates an object."""
    kubectl("-n", namespace, "create", "-f", "-", stdin=document)


def ended(namespace: str, name: str) -> Document | None:
    """A pod that has ended or says why it waits; None while it may still start."""
    found: Document = json.loads(kubectl("-n", namespace, "get", "pod", name, "-o", "json"))
    status = found["status"]
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    waiting = [one["state"].get("waiting", {}).get("reason") for one in statuses]
    is_unscheduled = any(one.get("reason") == "Unschedulable" for one in status.get("conditions", ()))
    says_why = any(reason not in {None, "ContainerCreating", "PodInitializing"} for reason in waiting)
    is_over = status["phase"] in {"Failed", "Succeeded"} and not any("running" in one["state"] for one in statuses)
    return found if is_over or says_why or is_unscheduled else None


def trimmed(found: Document) -> Document:
    """The parts of a pod's document that are read."""
    spec, status = found["spec"], found["status"]
    dropped = {"hostIP", "hostIPs", "podIP", "podIPs", "qosClass", "observedGeneration"}
    inner = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for one in inner:
        for key in ("containerID", "imageID", "allocatedResources", "resources", "user", "volumeMounts"):
            one.pop(key, None)
        for state in one["state"].values():
            state.pop("containerID", None)
        one["image"] = one["image"].rpartition("/")[2]
    containers = [{"name": c["name"], "image": c["image"]} for c in spec["containers"]]
    return {
        "metadata": {key: found["metadata"][key] for key in ("name", "deletionTimestamp") if key in found["metadata"]},
        "spec": {"containers": containers, **({"nodeName": spec["nodeName"]} if "nodeName" in spec else {})},
        "status": {key: value for key, value in status.items() if key not in dropped},
    }


def events(namespace: str, name: str, kind: str) -> list[Document]:
    """The events about an object."""
    about = f"involvedObject.kind={kind},involvedObject.name={name}"
    found = json.loads(kubectl("-n", namespace, "get", "events", "-o", "json", "--field-selector", about))["items"]
    keys = ("type", "reason", "message", "eventTime", "lastTimestamp")
    about = {"kind": kind, "name": name}
    return [{"metadata": {}, "involvedObject": about, **{key: one.get(key) for key in keys}} for one in found]


def refusals(namespace: str) -> list[Document]:
    """The events about pods that could not be created."""
    return [event for event in events(namespace, "demo", "Job") if event["reason"] == "FailedCreate"]


def record_pods(namespace: str) -> None:
    """Makes all pods at once, and records each when it says something."""
    open_cases = {}
    for name, case in PODS.items():
        document = pod(**case)
        for init in document["spec"].get("initContainers", ()):
            init["image"] = os.environ["K8SFLOW_TEST_PLAIN_IMAGE"]
        create(namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **document})
        open_cases[name] = time.monotonic()
    for name in ("evicted-by-api", "preempted"):
        kubectl("-n", namespace, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted-by-api"}}
    held = {"metadata": {"finalizers": ["k8sflow.dev/record"]}}  # else the pods disappear before they are read
    for name in ("evicted-by-api", "preempted"):
        kubectl("-n", namespace, "patch", "pod", name, "--type=merge", "-p", json.dumps(held))
    kubectl(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/evicted-by-api/eviction", "-f", "-", stdin=eviction
    )
    better = pod(SLEEP, ports=[{"containerPort": 80, "hostPort": 31999}])
    create(namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "better"}, **better})
    end = time.monotonic() + _DEADLINE_SECONDS
    while open_cases and time.monotonic() < end:
        for name in list(open_cases):
            is_slow = name == "volume-missing" and time.monotonic() - open_cases[name] > 10
            found = ended(namespace, name)
            if found is None and is_slow:
                found = json.loads(kubectl("-n", namespace, "get", "pod", name, "-o", "json"))
            if found is not None:
                del open_cases[name]
                write(name, {"pod": trimmed(found), "events": events(namespace, name, "Pod")})
        time.sleep(0.5)
    for name in ("evicted-by-api", "preempted"):
        kubectl("-n", namespace, "patch", "pod", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert not open_cases, f"nothing was said about {', '.join(open_cases)}"


def record_job(name: str, extra: Document | None, case: Document) -> None:
    """Makes a Job whose pod is refused, in a namespace of its own, and records its events."""
    namespace = f"record-{secrets.token_hex(3)}"
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, f"k8sflow-record={name}", "pod-security.kubernetes.io/enforce=privileged")
    try:
        if name == "pod-security":
            kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
        if extra is not None:
            create(namespace, extra)
            time.sleep(2)  # quotas and policies come into force after a moment
        template = pod(SLEEP, **case)
        spec = {"parallelism": 2 if name == "quota-used-up" else 1, "template": template}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "demo"}, "spec": spec}
        create(namespace, job)
        end = time.monotonic() + _DEADLINE_SECONDS
        while not (found := refusals(namespace)) and time.monotonic() < end:
            time.sleep(0.5)
        write(name, {"events": found})
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def write(name: str, document: Document) -> None:
    """Writes what was recorded."""
    text = json.dumps(document, indent=1, sort_keys=True)
    text = text.replace(os.environ["K8SFLOW_TEST_PLAIN_IMAGE"], "app:1")
    (FOLDER / f"{name}.json").write_text(text + "\n")


def main() -> None:
    """Records every case."""
    FOLDER.mkdir(exist_ok=True)
    namespace = f"record-{secrets.token_hex(3)}"
    kubectl("create", "namespace", namespace)
    for document in SHARED:
        create(namespace, document)
    try:
        record_pods(namespace)
        for name, (extra, case) in JOBS.items():
            record_job(name, extra, case)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
        kubectl("delete", "priorityclass", "k8sflow-record-low", "--ignore-not-found")
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            kubectl("delete", kind, "k8sflow-record", "--ignore-not-found")


if __name__ == "__main__":
    main()
