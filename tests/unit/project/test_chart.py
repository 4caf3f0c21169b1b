"""The chart's page of runs, as helm renders it; tests/kind runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sflow.runtime.namespace_settings import ACCEPTED
from tests.cluster import programs
from tests.cluster.places import CHECKOUT, Places

pytestmark = pytest.mark.slow
STORE = "ui.store=s3://bucket/runs"
ON = ("ui.enabled=true", STORE, "ui.behindLogin=true")


@pytest.fixture(scope="module")
def helm() -> Path:
    """The program, which is built where it is missing."""
    return programs.ensure(programs.HELM, Places.of_user()) / "helm"


def render(helm: Path, *values: str) -> subprocess.CompletedProcess[str]:
    arguments = [word for value in values for word in ("--set", value)]
    command = [helm, "template", "k8sflow", CHECKOUT / "charts" / "k8sflow", "--namespace", "k8sflow"]
    command += ["--kube-version", "1.29.0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def objects(helm: Path, *values: str) -> dict[str, dict[str, Any]]:
    """The objects of the page of runs, by their kinds."""
    done = render(helm, *values)
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each]
    return {each["kind"]: each for each in found if each["metadata"]["name"] == "k8sflow-ui"}


def test_it_is_off_by_default(helm: Path):
    assert objects(helm) == {}


def test_its_pod_has_no_rights_and_only_the_given_keys(helm: Path):
    """Under Pod Security "restricted"; the keys are those of a Secret of its own."""
    found = objects(helm, *ON, "ui.credentialsSecret=read-only", "ui.endpoint=http://s3:9000", "ui.region=eu-1")
    assert found.keys() == {"ServiceAccount", "Deployment", "Service"}
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    environment = {each["name"]: each for each in container["env"]}
    assert environment["K8SFLOW_ENDPOINT"]["value"] == "http://s3:9000"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment[name]["valueFrom"]["secretKeyRef"] == {"name": "read-only", "key": name}
    assert {"--behind-login", "--datastore=s3://bucket/runs", "--allowed-host=localhost"} <= {*container["command"]}
    assert "--edit-tags" not in container["command"]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()


def test_an_ingress_has_the_login_of_the_cluster(helm: Path):
    """And its name is one of the server's."""
    login = r"ui.ingress.annotations.nginx\.ingress\.kubernetes\.io/auth-url=https://login.example.com/auth"
    found = objects(
        helm,
        *(*ON, "ui.ingress.enabled=true", "ui.ingress.host=runs.example.com", "ui.ingress.tlsSecret=runs-tls", login),
        "ui.allowedFrom[0].namespaceSelector.matchLabels.name=ingress",
    )
    assert found["Ingress"]["metadata"]["annotations"].popitem()[1] == "https://login.example.com/auth"
    assert found["Ingress"]["spec"]["tls"] == [{"hosts": ["runs.example.com"], "secretName": "runs-tls"}]
    assert found["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "--allowed-host=runs.example.com" in container["command"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("ui.enabled=true", "ui.behindLogin=true"), "ui.store is missing"),
        (("ui.enabled=true", STORE), "who may see the runs?"),
        ((*ON, "ui.tokenSecret=token"), "who may see the runs?"),
        ((*ON, "ui.ingress.enabled=true"), "ui.ingress.host is missing"),
        ((*ON, "ui.stores=x"), "stores"),
        (("ui.enabled=true", "ui.behindLogin=true", "ui.store=/runs"), "ui.store|ui/store"),
    ],
)
def test_a_mistake_is_explained(helm: Path, values: tuple[str, ...], said: str):
    done = render(helm, *values)
    assert done.returncode != 0
    assert any(each in done.stderr for each in said.split("|")), done.stderr


def test_the_settings_of_the_chart_are_those_that_a_namespace_may_have() -> None:
    schema = json.loads((CHECKOUT / "charts" / "k8sflow" / "values.schema.json").read_text())
    assert schema["properties"]["settings"]["propertyNames"]["enum"] == sorted(ACCEPTED)
