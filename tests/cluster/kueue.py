"""Kueue beside the test cluster: its CRDs in the cluster, its controller as a process of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster import host, programs
from tests.cluster.harness import Cluster
from tests.cluster.locks import held
from tests.cluster.process import run

_VERSION = "v1beta2"
# Kueue reads the certificate of its metrics only here; the process sees a folder of its own there.
_CERTIFICATES = "kueue/metrics/certs"
_END_SECONDS = 10


@contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Run Kueue's controller, with the one integration that k8sflow needs, and remove it and its CRDs at the end.

    Without its webhooks: k8sflow suspends its Jobs itself.

    Args:
        cluster: The test cluster.
        folder: An empty folder for its configuration and its log.
    """
    with held(cluster.places.root / "lock"):
        program = programs.ensure(programs.KUEUE, cluster.places) / "kueue"
    crds = folder / "crds.yaml"
    crds.write_text(yaml.safe_dump_all(_crds()), encoding="utf-8")
    kubectl = [cluster.kubectl, "--kubeconfig", cluster.environment["KUBECONFIG"]]
    run([*kubectl, "apply", "--server-side", "-f", crds], doing="create Kueue's CRDs")
    run([*kubectl, "wait", "--for=condition=Established", "--timeout=60s", "-f", crds], doing="wait for Kueue's CRDs")
    process = _start(program, cluster, folder)
    try:
        yield
    finally:
        # With the controller, which takes its finalizers off.
        for what in (["workloads.kueue.x-k8s.io", "--all", "--all-namespaces"], ["-f", crds]):
            run([*kubectl, "delete", "--timeout=60s", *what], doing="remove Kueue from the cluster")
        process.terminate()
        process.wait(_END_SECONDS)


def _crds() -> list[dict[str, object]]:
    """Return the CRDs of the module in the one version that the controller uses, which needs no conversion."""
    listed = run(
        [host.go(), "list", "-m", "-json", "sigs.k8s.io/kueue"],
        doing="find Kueue's module",
        folder=programs.TOOLS / programs.KUEUE.module,
        environment={"GOWORK": "off"},
    )
    found = []
    for file in sorted((Path(json.loads(listed)["Dir"]) / "config/components/crd/bases").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text(encoding="utf-8"))
        crd["spec"].pop("conversion", None)
        crd["spec"]["versions"] = [version for version in crd["spec"]["versions"] if version["name"] == _VERSION]
        found.append(crd)
    return found


def _start(program: Path, cluster: Cluster, folder: Path) -> subprocess.Popen[bytes]:
    certificates = folder / "etc" / _CERTIFICATES
    certificates.mkdir(parents=True)
    run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=kueue",
         "-keyout", certificates / "tls.key", "-out", certificates / "tls.crt"],
        doing="make a certificate",
    )  # fmt: skip
    (folder / "etc/hosts").write_bytes(Path("/etc/hosts").read_bytes())
    configuration = {
        "apiVersion": f"config.kueue.x-k8s.io/{_VERSION}",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{_free_port()}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"port": _free_port(), "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job"]},
        "featureGates": {"VisibilityOnDemand": False},
    }
    (folder / "kueue.yaml").write_text(json.dumps(configuration), encoding="utf-8")
    script = 'mount --bind "$1" /etc && exec "$2" --config="$3"'
    command = ["sh", "-c", script, "sh", folder / "etc", program, folder / "kueue.yaml"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["unshare", "--mount", "--user", "--map-root-user", *command],
            env={**os.environ, "KUBECONFIG": cluster.environment["KUBECONFIG"]},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
