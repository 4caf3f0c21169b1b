"""A second node of the test cluster, which a test may remove: another container of the node's image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import loading
from tests.cluster.engine import NETWORK
from tests.cluster.kind import NAME, NODE, Kind
from tests.cluster.process import attempt, run
from tests.kind.conftest import Namespace
from tests.support import wait_for

WORKER = f"{NAME}-worker"
LABEL = "k8sflow-test/worker"
_SOCKET = "/run/containerd/containerd.sock"
_CONFIGURATION = "/kind/kubeadm.conf"
# As kind starts its nodes: https://github.com/kubernetes-sigs/kind/blob/main/pkg/cluster/internal/providers/docker/provision.go
_OPTIONS = (
    *("--privileged", "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"),
    *("--tmpfs=/tmp", "--tmpfs=/run", "--volume=/var", "--cgroupns=private", "--env=container=docker"),
    *(f"--network={NETWORK}", f"--name={WORKER}", f"--hostname={WORKER}"),
)


@contextmanager
def second_node(namespace: Namespace) -> Iterator[str]:
    """A node with the k8sflow image, which takes only pods that tolerate it; whatever is left of it is removed."""
    kind = namespace.cluster.kind
    remove(namespace)
    try:
        _start(kind)
        _join(kind)
        # kubeadm ends once the kubelet has its certificate; the kubelet registers its node some time later.
        namespace.kubectl("wait", f"node/{WORKER}", "--for=create", "--timeout=120s")
        namespace.kubectl("wait", f"node/{WORKER}", "--for=condition=Ready", "--timeout=120s")
        _load(kind, namespace.cluster.image)
        yield WORKER
    finally:
        remove(namespace)


def remove(namespace: Namespace) -> None:
    """Take the machine away, and then the node out of the cluster."""
    environment = namespace.cluster.kind.environment
    attempt(["docker", "container", "rm", "--force", "--volumes", WORKER], environment=environment)
    namespace.kubectl("delete", "node", WORKER, "--ignore-not-found")


def _start(kind: Kind) -> None:
    """Start a container with the mounts of the control plane's node: it may be shown more cores than there are."""
    inspect = ["docker", "container", "inspect", NODE]
    (node,) = json.loads(run(inspect, doing="look at the node", environment=kind.environment))
    binds = [f"--volume={bind}" for bind in node["HostConfig"]["Binds"] or ()]
    command = ["docker", "run", "--detach", *_OPTIONS, *binds, node["Config"]["Image"]]
    run(command, doing="start another node", environment=kind.environment)


def _join(kind: Kind) -> None:
    token = kind.in_node("kubeadm", "token", "create", "--ttl=10m", doing="make a token").strip()
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    inspect = ["docker", "container", "inspect", f"--format={template}", WORKER]
    address = run(inspect, doing="find the node's address", environment=kind.environment).strip()
    join = {
        "apiVersion": "kubeadm.k8s.io/v1beta3",
        "kind": "JoinConfiguration",
        "skipPhases": ["preflight"],
        "discovery": {
            "bootstrapToken": {"apiServerEndpoint": f"{NODE}:6443", "token": token, "unsafeSkipCAVerification": True}
        },
        "nodeRegistration": {
            "criSocket": f"unix://{_SOCKET}",
            "taints": [{"key": LABEL, "effect": "NoSchedule"}],
            "kubeletExtraArgs": {"node-ip": address, "node-labels": f"{LABEL}=yes"},
        },
    }
    _in_worker(kind, "sh", "-c", f"cat >{_CONFIGURATION}", stdin=json.dumps(join))
    wait_for(lambda: attempt(_exec("test", "-S", _SOCKET), environment=kind.environment).returncode == 0, 60)
    _in_worker(kind, "kubeadm", "join", f"--config={_CONFIGURATION}")


def _load(kind: Kind, image: str) -> None:
    """Copy an image from node to node."""
    ctr = " ".join(loading.CTR)
    export = f"docker exec {NODE} {ctr} images export - {loading.full_name(image)}"
    load = f"docker exec --interactive {WORKER} {ctr} images import --snapshotter=overlayfs -"
    run(["sh", "-c", f"{export} | {load}"], doing="copy an image to another node", environment=kind.environment)


def _in_worker(kind: Kind, *command: str, stdin: str | None = None) -> str:
    done = attempt(_exec(*command), environment=kind.environment, stdin=stdin, timeout_seconds=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _exec(*command: str) -> list[str]:
    return ["docker", "exec", "--interactive", WORKER, *command]
