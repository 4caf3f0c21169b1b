"""The page of runs that the chart installs, reached as a person without an Ingress does: by a forwarded port."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.kind.conftest import Namespace
from tests.kind.terminal import DEADLINE_SECONDS
from tests.kind.test_controller import CHART, Controller
from tests.pages import Answer

TOKEN = "a-token-of-a-secret"


@dataclass(frozen=True)
class Forwarded:
    """The Service on a port of this machine."""

    port: int

    def ask(self, path: str, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request("GET", path, headers=headers)
            found = connection.getresponse()
            return Answer(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def ui(namespace: Namespace) -> Iterator[Controller]:
    """The installed chart with the page of runs, which has keys and a token of its own."""
    environment = namespace.environment
    keys = [f"--from-literal={key}={environment[key]}" for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    namespace.kubectl("create", "secret", "generic", "read-only", *keys)
    namespace.kubectl("create", "secret", "generic", "runs-token", f"--from-literal=token={TOKEN}")
    values = {
        "enabled": True,
        "store": f"s3://{environment['K8SFLOW_BUCKET']}",
        "endpoint": environment["K8SFLOW_IN_CLUSTER_ENDPOINT"],
        "credentialsSecret": "read-only",
        "tokenSecret": "runs-token",
    }
    repository, _, tag = namespace.cluster.image.rpartition(":")
    image = ("--set", f"image.repository={repository}", "--set", f"image.tag={tag}")
    release = Controller(namespace)
    chosen = ("--set-json", f"ui={json.dumps(values)}", "--wait", "--timeout", "120s")
    release.helm("install", "runs", str(CHART), *image, *chosen)
    yield release
    release.helm("uninstall", "runs", "--ignore-not-found", "--wait")


@pytest.fixture
def forwarded(namespace: Namespace, ui: Controller) -> Iterator[Forwarded]:
    """The Service by kubectl's port-forward."""
    command = [namespace.cluster.kubectl, "--namespace", namespace.name, "port-forward", "service/runs-ui", ":80"]
    with subprocess.Popen(command, env=namespace.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ", process.stdout.readline())
        assert found is not None
        yield Forwarded(int(found[1]))
        process.terminate()


def test_a_run_in_the_bucket_is_shown(namespace: Namespace, forwarded: Forwarded) -> None:
    """To people with the token alone, under the server's names alone."""
    run = namespace.run("shapes.py", "--with", "kubernetes").run
    flow, _, name = run.partition("/")
    assert forwarded.ask("/").status == 403
    assert forwarded.ask(f"/open/{TOKEN}/", Host="evil.example").status == 403
    opened = forwarded.ask(f"/open/{TOKEN}/")
    assert opened.status == 200
    cookie = str(opened.headers["set-cookie"]).partition(";")[0]
    assert name in forwarded.ask(f"/?flow={flow}", Cookie=cookie).text
    page = forwarded.ask(f"/runs/{run}", Cookie=cookie)
    assert 'data-status="succeeded"' in page.text


def test_its_pod_carries_no_token_of_the_cluster(namespace: Namespace, ui: Controller) -> None:
    """It was admitted under "restricted", is ready, and prints no secret."""
    (pod,) = namespace.objects("pods", "app.kubernetes.io/component=ui")
    (status,) = pod["status"]["containerStatuses"]
    assert status["ready"]
    assert status["restartCount"] == 0
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["tmp"]
    printed = namespace.kubectl("logs", "deployment/runs-ui")
    assert "http://0.0.0.0:8080/open/TOKEN/" in printed
    assert TOKEN not in printed
