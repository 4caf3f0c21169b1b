"""Failures of images and namespaces, made on the real cluster, and what is said about them: as text and as data."""

from __future__ import annotations

import json
import platform
import secrets
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import images
from tests.kind.conftest import Namespace
from tests.kind.terminal import Terminal

KUBERNETES = ("--with", "kubernetes")
# A registry with one image that needs a password, and one for other machines only:
# https://distribution.github.io/distribution/spec/api/
REGISTRY = """
import hashlib, http.server, json, sys
platform = {"os": "linux", "architecture": sys.argv[2]}
manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + "0" * 64, "size": 2,
            "platform": platform}
INDEX = "application/vnd.oci.image.index.v1+json"
index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]}).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_open = not self.path.startswith("/v2/private/")
        body = index if "/manifests/" in self.path and is_open else b"{}"
        self.send_response(200 if is_open else 401)
        if not is_open:
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
        self.send_header("Content-Type", INDEX if body is index else "application/json")
        self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
    do_HEAD = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
OTHER_ARCHITECTURE = "s390x"
EM_S390 = 22


@contextmanager
def other_namespace(namespace: Namespace, *labels: str) -> Iterator[Namespace]:
    """Another namespace with the Secret of the bucket's keys."""
    name = f"{namespace.name}-{secrets.token_hex(3)}"
    other = replace(namespace, name=name, environment={**namespace.environment, "K8SFLOW_KUBERNETES_NAMESPACE": name})
    other.kubectl("create", "namespace", name)
    if labels:
        other.kubectl("label", "namespace", name, *labels)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    literals = [f"--from-literal={key}={namespace.environment[key]}" for key in keys]
    other.kubectl("create", "secret", "generic", "k8sflow-s3", *literals)
    try:
        yield other
    finally:
        other.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def registry(namespace: Namespace) -> Iterator[str]:
    """The address of a registry on the node: containerd uses TLS with any other."""
    port = str(20_000 + secrets.randbelow(9_000))
    command = ["python3", "-c", REGISTRY, port, OTHER_ARCHITECTURE]
    container = {"name": "registry", "image": namespace.cluster.plain_image, "command": command}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "registry"},
        "spec": {"hostNetwork": True, "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    with other_namespace(namespace, "pod-security.kubernetes.io/enforce=privileged") as space:
        space.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        space.kubectl("wait", "pod/registry", "--for=condition=Ready", "--timeout=90s")
        yield f"127.0.0.1:{port}"


def cancelled(running: Terminal) -> None:
    running.interrupt()
    assert running.wait(60).code == 130, running.text


def test_an_image_that_needs_a_password_is_reported_while_it_waits(namespace: Namespace, registry: str) -> None:
    """The registry answers 401; an image that isn't there has another message."""
    run, image = f"p{secrets.token_hex(6)}", f"{registry}/private/app:1"
    running = namespace.start("trouble.py", "--run-id", run, "--with", f"kubernetes:image={image}")
    running.seen(rf"\[start/0\] waits: the image {image} can't be pulled: the registry refuses it")
    running.seen("image_pull_secrets=")
    described = namespace.command("trouble.py", "kubernetes", "describe", f"{run}/start/0", "--json").wait(60)
    (found,) = json.loads(described.text)
    assert found["diagnosis"]["outcome"] == "bad_image"
    assert "the registry refuses it" in found["diagnosis"]["summary"]
    cancelled(running)


def test_an_image_for_other_machines_ends_the_run(namespace: Namespace, registry: str) -> None:
    """Its index has none for the node's architecture, which no time heals."""
    run, image = f"o{secrets.token_hex(6)}", f"{registry}/foreign/app:1"
    done = namespace.run("trouble.py", "--run-id", run, "--with", f"kubernetes:image={image}")
    assert done.code == 1, done.text
    assert "failed (bad image)" in done.text
    assert f"the image {image} can't be pulled: it has no variant for the node's architecture" in done.text
    assert "run again" not in done.text


def test_a_program_for_other_machines_ends_the_run(namespace: Namespace, tmp_path: Path) -> None:
    """The image is named for this architecture, and its Python is for another one: exec fails in the node."""
    big_endian = struct.pack(">16sHHIQQQIHHHHHH", b"\x7fELF\x02\x02\x01", 2, EM_S390, 1, 0, 0, 0, 0, 64, 56, 0, 0, 0, 0)
    assert platform.machine() != OTHER_ARCHITECTURE
    (tmp_path / "python3").write_bytes(big_endian)
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {namespace.cluster.plain_image}\nUSER 0\nCOPY python3 /usr/local/bin/python3\n"
    )
    recipe = images.Recipe("k8sflow-test/foreign", {name: tmp_path / name for name in ("Dockerfile", "python3")})
    image = images.ensure(recipe, namespace.cluster.kind.engine)
    namespace.cluster.load_image(image)
    done = namespace.run("trouble.py", "--with", f"kubernetes:image={image}")
    assert done.code == 1, done.text
    assert "failed (bad image)" in done.text
    assert "for another architecture than the node's" in done.text
    assert "run again" not in done.text


def test_a_namespace_that_is_deleted_ends_the_run(namespace: Namespace) -> None:
    """Its name is in the message; nothing waits for what can't come back."""
    with other_namespace(namespace) as space:
        running = space.start("fan.py", "--seconds", "60", "--width", "2", *KUBERNETES)
        running.seen(r"\[work/0\] tick 1$")
        running.seen(r"\[work/1\] tick 1$")
        space.kubectl("delete", "namespace", space.name, "--wait=false")
        done = running.wait(120)
        assert done.code == 1, done.text
        assert f"he namespace {space.name!r} is being deleted" in done.text, done.text
        assert "kubectl auth can-i" not in done.text
        assert "Traceback" not in done.text
