"""The kind cluster: created, found again, checked, removed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cores, nodeimage
from tests.cluster.console import step
from tests.cluster.engine import NETWORK, Engine
from tests.cluster.errors import ClusterError
from tests.cluster.places import Places
from tests.cluster.process import attempt, run, tail

NAME = "k8sflow-test"
NODE = f"{NAME}-control-plane"
NODE_PORT = 30900
SERVICE_SUBNET = "10.96.0.0/16"  # kind's default
INOTIFY_INSTANCES = 1024  # systemd, containerd and the kubelet of a node need many; 128 are soon used up
READY_WITHIN_SECONDS = 180.0
POLL_SECONDS = 0.25
CGROUP_V2 = Path("/sys/fs/cgroup/cgroup.controllers")
TO_THE_SECOND = len("2000-01-01T00:00:00")

# Differences from kind's defaults, with reasons; everything else is as on any kind cluster.
KUBEADM_PATCHES = (
    """
kind: ClusterConfiguration
etcd:
  local:
    extraArgs:
      # a throw-away cluster does not need its writes to survive a power cut
      unsafe-no-fsync: "true"
controllerManager:
  extraArgs:
    # the default, 20 requests a second, holds up many Jobs at once
    kube-api-qps: "200"
    kube-api-burst: "300"
""",
    """
kind: KubeletConfiguration
maxPods: 200
failCgroupV1: false
kubeAPIQPS: 200
kubeAPIBurst: 300
""",
)


@dataclass(frozen=True)
class Kind:
    """The one cluster of the harness, seen through kind, docker and kubectl.

    Args:
        engine: The engine that its node runs in.
        kind: Path of kind.
        kubectl: Path of kubectl.
        kubeconfig: File that kind writes, of this cluster alone.
    """

    engine: Engine
    kind: Path
    kubectl: Path
    kubeconfig: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return variables for kind, docker and kubectl."""
        return {
            **self.engine.environment,
            "KUBECONFIG": str(self.kubeconfig),
            "KIND_EXPERIMENTAL_PROVIDER": "docker",
            "KIND_EXPERIMENTAL_DOCKER_NETWORK": NETWORK,
        }

    def state(self) -> str:
        """Return the state of the node's container, as docker reports it; empty if there is none."""
        return self._inspect("{{.State.Status}}")

    def _inspect(self, template: str) -> str:
        command = ["docker", "container", "inspect", "--format", template, NODE]
        return attempt(command, environment=self.environment).stdout.strip()

    def create(self, image: str, port: int) -> None:
        """Create the cluster from scratch."""
        self.delete()
        _raise_inotify_limit()
        cores.prepare(_cores_folder())
        config = json.dumps(configuration(image, port))
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [self.kind, "create", "cluster", "--config=-", f"--kubeconfig={self.kubeconfig}"]
        with step("kind cluster"):
            done = attempt(command, environment=self.environment, stdin=config, timeout_seconds=600)
        if done.returncode != 0:
            self.delete()
            raise ClusterError(
                "kind can't make the cluster.",
                cause=tail(done.stderr),
                advice="Try `make cluster-down cluster`. An engine of your own must allow privileged containers.",
            )
        self.wait_ready(READY_WITHIN_SECONDS)

    def start(self) -> bool:
        """Report if the node came back, after it was started again if necessary."""
        if self.state() != "running":
            attempt(["docker", "start", NODE], environment=self.environment)
        attempt([self.kind, "export", "kubeconfig", "--name", NAME], environment=self.environment)
        with suppress(ClusterError):
            self.wait_ready(READY_WITHIN_SECONDS / 2)
            return True
        return False

    def delete(self) -> None:
        """Remove the cluster, its volumes and its network; do nothing if there is none."""
        attempt([self.kind, "delete", "cluster", "--name", NAME], environment=self.environment, timeout_seconds=120)
        attempt(["docker", "container", "rm", "--force", "--volumes", NODE], environment=self.environment)
        attempt(["docker", "network", "rm", NETWORK], environment=self.environment)
        self.kubeconfig.unlink(missing_ok=True)

    def problem(self) -> str:
        """Return the problem with the API server or the node; empty if there is none."""
        asked = self.run_kubectl("get", "node", NODE, "--output", "json", "--request-timeout", "5s")
        if asked[0] != 0:
            return f"the API server does not answer: {asked[1].strip()}"
        node = json.loads(asked[1])
        ready = [found for found in node["status"]["conditions"] if found["type"] == "Ready"]
        # the kubelet's messages from before the node was killed and started again don't count
        since = self._inspect("{{.State.StartedAt}}")[:TO_THE_SECOND]
        if any(found["status"] == "True" and found["lastHeartbeatTime"] >= since for found in ready):
            return ""
        return f"node {NODE} is not Ready"

    def dns_problem(self) -> str:
        """Return the reason why pods can't find Services by name; empty if they can."""
        code, replicas = self.run_kubectl(
            *("get", "deployment", "coredns", "--namespace", "kube-system"),
            *("--output", "jsonpath={.status.readyReplicas}", "--request-timeout", "5s"),
        )
        return "" if code == 0 and replicas not in {"", "0"} else "the cluster's DNS is not ready"

    def wait_ready(self, seconds: float) -> None:
        """Wait until the API answers, the node is Ready, and pods of the namespace default can be created."""
        wait_for(self.problem, "node Ready", seconds)
        wait_for(self._account_problem, "service account", seconds)

    def _account_problem(self) -> str:
        made = self.run_kubectl("get", "serviceaccount", "default")[0] == 0
        return "" if made else "the controllers have not made the service account yet"

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> tuple[int, str]:
        """Return the exit code of kubectl, and its output, or its error if it failed."""
        done = attempt([self.kubectl, *arguments], environment=self.environment, stdin=stdin)
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr

    def apply(self, manifest: str) -> None:
        """Create or change objects, waiting for an API server that is being started again."""

        def refused() -> str:
            arguments = ("apply", "--server-side", "--force-conflicts", "--filename", "-")
            code, text = self.run_kubectl(*arguments, stdin=manifest)
            return text.strip() if code != 0 else ""

        wait_for(refused, "objects of the test cluster")

    def refuse_lost_packets(self) -> None:
        """Refuse connections to a Service's address that kube-proxy has no rule for at that moment.

        They would leave the node, and whatever is outside might accept them and never answer.
        """
        rule = ("FORWARD", "--destination", SERVICE_SUBNET, "--jump", "REJECT")
        script = f"iptables -w -C {' '.join(rule)} 2>/dev/null || iptables -w -I {' '.join(rule)}"
        self.in_node("sh", "-c", script, doing="refuse connections to Services without endpoints")

    def in_node(self, *command: str, doing: str) -> str:
        """Return the output of a program that runs in the node."""
        return run(["docker", "exec", NODE, *command], doing=doing, environment=self.environment)


def configuration(image: str, port: int) -> dict[str, object]:
    """Return kind's configuration of the cluster: one node, the S3 server's port on this machine."""
    mapping = {"containerPort": NODE_PORT, "hostPort": port, "listenAddress": "127.0.0.1"}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": NAME,
        "networking": {"apiServerAddress": "127.0.0.1"},
        "nodes": [
            {
                "role": "control-plane",
                "image": image,
                "extraPortMappings": [mapping],
                "extraMounts": _extra_mounts(image),
            }
        ],
        "kubeadmConfigPatches": list(KUBEADM_PATCHES),
    }


def _extra_mounts(image: str) -> list[dict[str, object]]:
    """Show more cores if its kubelet can start with them: on cgroup v1 that needs a node image built here."""
    can = CGROUP_V2.exists() or image != nodeimage.PULLED
    return cores.mounts(_cores_folder()) if can else []


def _cores_folder() -> Path:
    return Places.of_user().cluster / "cores"


def wait_for(problem: Callable[[], str], what: str, seconds: float = READY_WITHIN_SECONDS) -> None:
    """Ask repeatedly until there is no problem, showing the current one.

    Raises:
        ClusterError: There still was one after ``seconds``.
    """
    deadline = time.monotonic() + seconds
    with step(what) as progress:
        while found := problem():
            progress.detail = found
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the test cluster is not ready after {seconds:.0f} s: {found}.",
                    cause="the machine may be too busy, or the cluster is broken.",
                    advice="Try again; `make cluster-down cluster` creates it again.",
                )
            time.sleep(POLL_SECONDS)
        progress.detail = ""


def _raise_inotify_limit() -> None:
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text()) < INOTIFY_INSTANCES and os.geteuid() == 0:
        limit.write_text(str(INOTIFY_INSTANCES))
