"""Access to the test cluster: bare Jobs, the CPU time of the node, and when pods and Jobs changed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAMESPACE = os.environ.get("K8SFLOW_KUBERNETES_NAMESPACE", "default")
IMAGE = os.environ.get("K8SFLOW_KUBERNETES_RUNTIME_IMAGE", "")
BUCKET = os.environ.get("K8SFLOW_BUCKET", "")
SECRET = os.environ.get("K8SFLOW_CREDENTIALS", "").partition(":")[2]
NODE = os.environ.get("K8SFLOW_BENCH_NODE", "k8sflow-test-control-plane")
REQUESTS = {"cpu": "100m", "memory": "200M"}
LABEL = "k8sflow-bench"
WITH = "kubernetes:cpu=0.1,memory=200"
_WAIT = "--timeout=600s"


def require() -> None:
    """End the benchmark if the environment names no cluster."""
    if not IMAGE:
        raise SystemExit(
            'These benchmarks run on the test cluster: `make cluster`, then eval "$(python3 -m tests.cluster env)".'
        )


def kubectl(*arguments: str, text: str = "") -> str:
    """Run kubectl in the namespace, and return what it prints."""
    done = subprocess.run(
        ["kubectl", "-n", NAMESPACE, *arguments], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"kubectl {' '.join(arguments)} failed with {done.returncode}:\n{done.stderr}")
    return done.stdout


def s3_from_everywhere() -> str:
    """The URL of the S3 server at the node, which this machine and pods can reach; Metaflow has one for both."""
    address = kubectl("get", "node", NODE, "-o", "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}")
    return f"http://{address}:{urlsplit(os.environ['K8SFLOW_ENDPOINT']).port}"


def bare_jobs(count: int, batch: str = "") -> None:
    """Create this many Jobs at once that start Python and do nothing, and wait until all are Complete.

    Args:
        count: How many.
        batch: The value of their label.
    """
    batch = batch or uuid.uuid4().hex[:8]
    items = [bare_job(f"bare-{uuid.uuid4().hex[:8]}", {LABEL: batch}) for _ in range(count)]
    kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    kubectl("wait", "--for=condition=complete", "job", "-l", f"{LABEL}={batch}", _WAIT)


def bare_jobs_in_a_row(count: int, batch: str = "") -> None:
    """Create this many Jobs, each when the one before it is Complete."""
    for _ in range(count):
        bare_jobs(1, batch)


def remove_bare_jobs() -> None:
    """Delete the bare Jobs of all benchmarks."""
    kubectl("delete", "job", "-l", LABEL, "--wait=false")


def bare_job(name: str, label: dict[str, str]) -> dict[str, Any]:
    """A Job that starts Python and does nothing."""
    container = {
        "name": "bare",
        "image": IMAGE,
        "command": ["python3", "-c", "pass"],
        "resources": {"requests": REQUESTS, "limits": {"memory": REQUESTS["memory"]}},
    }
    pod = {"restartPolicy": "Never", "containers": [container]}
    template = {"metadata": {"labels": label}, "spec": pod}
    metadata = {"name": name, "labels": label}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": template},
    }


def node_cgroup() -> Path:
    """The cgroup on this machine in which the node accounts for CPU time (cgroup v1 or v2)."""
    inspected = subprocess.run(
        ["docker", "inspect", "--format", "{{.State.Pid}}", NODE], capture_output=True, text=True, check=True
    )
    lines = Path(f"/proc/{inspected.stdout.strip()}/cgroup").read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if "cpuacct" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/cpuacct{path}")
        if not controllers and Path(f"/sys/fs/cgroup{path}").is_dir():
            return Path(f"/sys/fs/cgroup{path}")
    raise SystemExit(f"This machine shows no cgroup of the node {NODE}.")


def _cpu_seconds(cgroup: Path) -> float:
    """CPU time of all processes that a cgroup has, or has had."""
    usage = cgroup / "cpuacct.usage"
    if usage.exists():
        return int(usage.read_text()) / 1e9
    return int((cgroup / "cpu.stat").read_text().split()[1]) / 1e6


@contextlib.contextmanager
def pod_cpu_seconds() -> Iterator[dict[str, float]]:
    """CPU time of the cgroups of pods, by the pod's uid, kept when they are removed: all containers and their start."""
    root, found, ended = node_cgroup(), dict[str, float](), threading.Event()

    def read() -> None:
        while not ended.wait(0.02):
            for folder in root.glob("kubelet*/kubepods*/*/pod*"):
                with contextlib.suppress(OSError):  # it was removed just now
                    found[folder.name[3:]] = _cpu_seconds(folder)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


@dataclass
class Timeline:
    """When a watch reported each change of a pod or a Job.

    Args:
        created: Name to the second at which it was first seen.
        exited: Name of a pod to the second at which its container was first seen to have ended.
        succeeded: Name of a pod to the second at which its phase was first Succeeded.
        uids: Name to uid.
    """

    created: dict[str, float] = field(default_factory=dict)
    exited: dict[str, float] = field(default_factory=dict)
    succeeded: dict[str, float] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)

    def take(self, item: dict[str, Any], at: float) -> None:
        """Add a change."""
        name, status = item["metadata"]["name"], item.get("status", {})
        self.created.setdefault(name, at)
        self.uids[name] = item["metadata"]["uid"]
        if any("terminated" in container.get("state", {}) for container in status.get("containerStatuses", [])):
            self.exited.setdefault(name, at)
        if status.get("phase") == "Succeeded":
            self.succeeded.setdefault(name, at)


@contextlib.contextmanager
def watching(path: str, selector: str) -> Iterator[Timeline]:
    """The changes of the pods (``api/v1/…/pods``) or Jobs that a selector finds, from now on."""
    url = f"/{path}?watch=1&labelSelector={selector}"
    process = subprocess.Popen(["kubectl", "get", "--raw", url], stdout=subprocess.PIPE, text=True)
    timeline = Timeline()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            timeline.take(json.loads(line)["object"], time.perf_counter())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield timeline
    finally:
        time.sleep(1)  # the last changes are on their way
        process.terminate()
        process.wait()
        thread.join()


def pods() -> str:
    """The path of the namespace's pods."""
    return f"api/v1/namespaces/{NAMESPACE}/pods"


def jobs() -> str:
    """The path of the namespace's Jobs."""
    return f"apis/batch/v1/namespaces/{NAMESPACE}/jobs"
