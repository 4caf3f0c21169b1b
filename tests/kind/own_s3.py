"""A second S3 server of the test cluster, which a test may stop without disturbing other tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster import harness
from tests.cluster.s3 import S3Server
from tests.kind.conftest import Namespace
from tests.support import wait_for

_SHARED = "k8sflow-s3"


@contextmanager
def with_own_s3(namespace: Namespace) -> Iterator[Namespace]:
    """The namespace with an S3 server of its own, which is removed at the end."""
    name = f"s3-{secrets.token_hex(4)}"
    folder = f"/var/local/{name}"
    in_node = namespace.cluster.kind.in_node
    in_node("install", "--directory", "--owner=65532", "--group=65532", folder, doing="make the S3 server's folder")
    image = namespace.kubectl(
        *("--namespace", _SHARED, "get", "deployment", "s3"),
        *("--output", "jsonpath={.spec.template.spec.containers[0].image}"),
    )
    namespace.kubectl("--namespace", name, "apply", "-f", "-", stdin=yaml.safe_dump_all(_objects(name, folder, image)))
    try:
        namespace.kubectl("--namespace", name, "rollout", "status", "deployment/s3", "--timeout=90s")
        environment = {**namespace.environment, **_endpoints(namespace, name)}
        wait_for(lambda: _has_bucket(environment), 60)
        yield replace(namespace, environment=environment)
    finally:
        namespace.kubectl("delete", f"namespace/{name}", f"persistentvolume/{name}", "--timeout=60s")
        in_node("rm", "-r", folder, doing="remove the S3 server's folder")


def address_of_node(namespace: Namespace) -> str:
    """The address of the cluster's node in the network that this machine shares with it."""
    return namespace.kubectl(
        "get", "nodes", "--output", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    )


def namespace_of_s3(namespace: Namespace) -> str:
    """The namespace of the S3 server that a test's runs use."""
    host = urlsplit(namespace.environment["K8SFLOW_IN_CLUSTER_ENDPOINT"]).hostname or ""
    return host.split(".")[1]


def _objects(name: str, folder: str, image: str) -> list[dict[str, Any]]:
    """The objects of the shared server under another name, on another port, with another folder."""
    text = harness.S3_MANIFEST.read_text(encoding="utf-8").replace(harness.S3_DATA, folder).replace(_SHARED, name)
    values = {
        "@IMAGE@": image,
        "@ACCESS_KEY@": harness.ACCESS_KEY,
        "@SECRET_KEY@": harness.SECRET_KEY,
        ", nodePort: @NODE_PORT@": "",
        "@NAMESPACE@": harness.NAMESPACE,
        "@SECRET@": harness.SECRET,
    }
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(text))
    return [each for each in objects if name in {each["metadata"]["name"], each["metadata"].get("namespace")}]


def _endpoints(namespace: Namespace, name: str) -> dict[str, str]:
    port = namespace.kubectl(
        "--namespace", name, "get", "service", "s3", "--output", "jsonpath={.spec.ports[0].nodePort}"
    )
    return {
        "K8SFLOW_ENDPOINT": f"http://{address_of_node(namespace)}:{port}",
        "K8SFLOW_IN_CLUSTER_ENDPOINT": f"http://s3.{name}.svc:9000",
    }


def _has_bucket(environment: dict[str, str]) -> bool:
    server = S3Server(
        environment["K8SFLOW_ENDPOINT"], environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    )
    try:
        server.create_bucket(environment["K8SFLOW_BUCKET"])
    except OSError:
        return False
    return True
