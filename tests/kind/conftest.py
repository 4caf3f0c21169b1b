"""A real cluster for every test here, and a separate namespace for each module."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, ensure
from tests.kind.terminal import User, inherited

FLOWS = Path(__file__).parent / "flows"
CLUSTER_WIDE = {"test_controller", "test_queue", "test_ui"}


@dataclass(frozen=True)
class Namespace(User):
    """A fresh namespace under Pod Security "restricted", with the Secret of the bucket's keys."""

    name: str
    cluster: Cluster

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of kubectl."""
        done = subprocess.run(
            [self.cluster.kubectl, "--namespace", self.name, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind that a selector finds."""
        found = self.kubectl("get", kind, "-o", "json", *(["-l", selector] if selector else []))
        items: list[dict[str, Any]] = json.loads(found)["items"]
        return items


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, created if there is none."""
    return ensure()


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A fresh namespace, deleted after the module's tests."""
    name = f"test-{secrets.token_hex(4)}"
    environment = {**inherited(), **cluster.environment, "K8SFLOW_KUBERNETES_NAMESPACE": name}
    space = Namespace(environment, FLOWS, name, cluster)
    space.kubectl("create", "namespace", name)
    space.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    keys = [f"--from-literal={key}={environment[key]}" for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    space.kubectl("create", "secret", "generic", "k8sflow-s3", *keys)
    yield space
    space.leave()
    space.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def client(namespace: Namespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Any]:
    """Return a reader of runs like a user's on this machine: ``client("BigSum/…")``."""
    return namespace.reader(monkeypatch, tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a module's tests in one worker, and run tests that stop parts of the cluster last, then all of it.

    Modules that change what belongs to the whole cluster, such as its CRDs, share a worker.
    """
    for item in [item for item in items if item.path.parent == Path(__file__).parent]:
        module = item.path.stem
        item.add_marker(pytest.mark.xdist_group("cluster-wide" if module in CLUSTER_WIDE else module))
    items.sort(key=lambda item: (item.get_closest_marker("destructive") is not None, item.path.stem == "test_cluster"))
