"""The checks before a run, against a server that speaks the real protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from k8sflow.config import Settings
from k8sflow.errors import KubernetesError
from k8sflow.flow.decorators.image_name import mistake
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.kubernetes.findings import Finding
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.preflight import check_access
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.kubernetes.fake_api import FakeApi, fake_api

SETTINGS = Settings(kubernetes_namespace="lab", endpoint="http://s3.example.com")


@pytest.fixture
def server() -> Iterator[FakeApi]:
    """A server with the namespace ``lab`` and one node."""
    with fake_api() as server:
        server.put("namespaces", {"metadata": {"name": "lab"}})
        put_node(server, "small")
        yield server


def put_node(server: FakeApi, name: str, *, memory: str = "8Gi", **more: Any) -> None:
    server.put(
        "nodes",
        {
            "metadata": {"name": name, "labels": more.get("labels", {})},
            "spec": {"taints": more.get("taints", [])},
            "status": {"allocatable": {"cpu": "4", "memory": memory, "ephemeral-storage": "100Gi"}},
        },
    )


def check(server: FakeApi, settings: Settings = SETTINGS, **steps: PodOptions) -> list[Finding]:
    """The warnings about steps with these options."""
    jobs = {
        step: job(step, merge(options, PodOptions(image="r/i:1"), DEFAULT_OPTIONS)) for step, options in steps.items()
    }
    return check_access(settings, access=server.access, jobs=jobs)


def job(step: str, options: PodOptions) -> TaskJob:
    return TaskJob(
        name="check",
        namespace="lab",
        tasks=TaskBatch(TaskSpec("Lab", "r", TaskName(step))),
        options=options,
        runtime_image="r/i:1",
        command=("true",),
    )


def refuse(server: FakeApi, message: str, status: int = 403) -> None:
    """Let admission refuse every pod."""
    server.fail(
        "POST", "/pods", status, times=100, body={"reason": "Forbidden", "message": f'pods "x" is forbidden: {message}'}
    )


def test_all_findings_are_in_one_error(server: FakeApi) -> None:
    """A missing permission, a Secret, an image and a claim: a person corrects them in one go."""
    server.denied = {("create", "jobs")}
    settings = Settings(kubernetes_namespace="lab", credentials="secret:keys")
    with pytest.raises(KubernetesError, match="for 4 reasons") as caught:
        check(
            server,
            settings,
            load=PodOptions(persistent_volume_claims={"data": "/data"}),
            train=PodOptions(image="Example/UPPER:1", persistent_volume_claims={"data": "/data"}),
        )
    for text in (
        "missing in namespace 'lab': create jobs",
        "no Secret 'keys' in namespace 'lab', which the setting credentials names",
        "no PersistentVolumeClaim 'data' in namespace 'lab', which steps load and train name",
        "the image 'Example/UPPER:1' of step train can't exist: 'UPPER' has upper-case letters",
    ):
        assert text in caught.value.advice


def test_a_key_that_a_secret_lacks_is_named_and_no_value_is_shown(server: FakeApi) -> None:
    server.put(
        "secrets", {"metadata": {"name": "keys"}, "data": {"AWS_ACCESS_KEY_ID": "c2VjcmV0", "other": "dmFsdWU="}}
    )
    settings = Settings(kubernetes_namespace="lab", credentials="secret:keys")
    with pytest.raises(
        KubernetesError, match="Secret 'keys' in namespace 'lab' has no AWS_SECRET_ACCESS_KEY"
    ) as caught:
        check(server, settings)
    assert "It has AWS_ACCESS_KEY_ID, other." in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
    assert "secret" not in str(caught.value).replace("kubectl create secret", "").replace("Secret", "")


def test_a_queue_that_starts_no_job_is_reported_before_the_run(server: FakeApi) -> None:
    """Without Kueue, or without the LocalQueue, which not everybody may read."""
    with pytest.raises(KubernetesError, match=r"the cluster has no Kueue, .* Jobs of step train") as caught:
        check(server, train=PodOptions(queue="team"), end=PodOptions())
    assert "A Job with queue='team' is created suspended" in caught.value.cause
    server.groups["kueue.x-k8s.io"] = "v1beta1"
    with pytest.raises(KubernetesError, match="no LocalQueue 'team' in namespace 'lab', which step train names"):
        check(server, train=PodOptions(queue="team"))
    server.fail("GET", "/localqueues/team", 403, times=1)
    assert check(server, train=PodOptions(queue="team")) == []
    server.put("localqueues", {"metadata": {"name": "team"}})
    assert check(server, train=PodOptions(queue="team")) == []


def test_a_refusal_of_several_pods_is_one_finding_without_regular_expressions(server: FakeApi) -> None:
    """It names the option that sets the field."""
    rule = "a valid label must be short (e.g. 'MyValue',  or '12345', regex used for validation is '(([A-Z])?[a-z])?')"
    message = f'Job.batch "lab-x" is invalid: spec.template.spec.tolerations[0].value: Invalid value: "é": {rule}'
    server.fail("POST", "/jobs", 422, times=100, body={"reason": "Invalid", "message": message})
    wrong = PodOptions(tolerations=({"key": "a", "value": "é"},))
    with pytest.raises(KubernetesError) as caught:
        check(server, load=wrong, train=wrong, end=wrong)
    assert caught.value.summary == "the cluster refuses the pod of steps load, train and end."
    assert caught.value.cause == (
        'spec.template.spec.tolerations[0].value: Invalid value: "é": a valid label must be short'
    )
    assert caught.value.advice == "Correct the option tolerations of @kubernetes."


def test_a_quota_that_a_pod_never_fits_is_an_error_and_one_that_is_full_now_is_not(server: FakeApi) -> None:
    asked, hard = "pods=1,requests.memory=4Gi", "pods=1,requests.memory=1Gi"
    refuse(server, f"exceeded quota: small, requested: {asked}, used: pods=0,requests.memory=0, limited: {hard}")
    with pytest.raises(KubernetesError, match=r"step train can never fit the namespace's quota") as caught:
        check(server, train=PodOptions())
    assert "requests.memory=4Gi of at most 1Gi" in caught.value.cause
    server.faults.clear()
    refuse(server, "exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1")
    assert check(server, train=PodOptions()) == []


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("maximum memory usage per Container is 100Mi, but limit is 200M", "kubectl describe limitrange"),
        ('violates PodSecurity "restricted:latest": runAsNonRoot != true', "run_as_user=0"),
        ("no PriorityClass with name high was found", "kubectl get priorityclasses"),
        ('error looking up service account lab/x: serviceaccount "x" not found', "service_account=…"),
    ],
)
def test_a_refusal_by_admission_says_what_to_change(server: FakeApi, message: str, advice: str) -> None:
    """Steps whose pods differ in nothing that counts are asked about once."""
    refuse(server, message)
    with pytest.raises(KubernetesError, match="refuse the pod of steps a and b") as caught:
        check(server, a=PodOptions(), b=PodOptions(env={"X": "1"}))
    assert caught.value.cause == message
    assert advice in caught.value.advice
    assert len(server.asked("POST", "/pods")) == 1


def test_what_may_not_be_read_or_asked_is_not_checked(server: FakeApi) -> None:
    """A user with the documented Role alone can run."""
    forbidden = {"reason": "Forbidden", "message": 'User "ann" cannot create resource "pods" in API group ""'}
    for method, part in (("POST", "/pods"), ("GET", "/secrets"), ("GET", "/nodes"), ("GET", "/namespaces/lab")):
        server.fail(method, part, 403, times=100, body=forbidden)
    settings = Settings(kubernetes_namespace="lab", credentials="secret:keys")
    assert check(server, settings, train=PodOptions()) == []


def test_a_step_that_no_node_can_take_is_a_warning(server: FakeApi) -> None:
    """The cluster may add a node; each node's obstacle is counted."""
    put_node(server, "gpu", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}], memory="64Gi")
    put_node(server, "cordoned", taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])
    (warning,) = check(server, small=PodOptions(), train=PodOptions(memory="16Gi"))
    assert warning.summary == "no node of the cluster can take the pod of step train."
    assert "2 with memory=8.6 GB where it requests memory=17.2 GB; 1 with the taint gpu=yes:NoSchedule" in warning.cause
    assert check(server, train=PodOptions(memory="16Gi", tolerations=({"key": "gpu", "operator": "Exists"},))) == []
    (warning,) = check(server, train=PodOptions(node_selector={"disk": "ssd"}))
    assert "3 without disk=ssd" in warning.cause


@pytest.mark.parametrize(
    ("endpoint", "inside", "cause"),
    [
        ("http://127.0.0.1:9000", None, "this address is the pod itself"),
        ("http://[::1]:9000", None, "this address is the pod itself"),
        ("https://s3.example.com", "http://localhost:1", "this address is the pod itself"),
        ("http://127.0.0.1:9000", "http://s3.store.svc:9000", "no Service 's3'"),
        ("http://127.0.0.1:9000", "http://web.store.svc.cluster.local:9", "doesn't have port 9; its ports: 80"),
        ("http://127.0.0.1:9000", "s3.example.com:9000", "not a URL"),
        ("http://127.0.0.1:9000", "http://web.store.svc", ""),
        ("http://127.0.0.1:9000", "https://s3.example.com", ""),
        (None, None, ""),
    ],
)
def test_an_endpoint_that_pods_cant_reach_is_named(
    server: FakeApi, endpoint: str | None, inside: str | None, cause: str
) -> None:
    server.put("services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    settings = Settings(kubernetes_namespace="lab", endpoint=endpoint, in_cluster_endpoint=inside)
    if not cause:
        assert check(server, settings) == []
        return
    with pytest.raises(KubernetesError, match="pods can't reach the bucket at") as caught:
        check(server, settings)
    assert cause in caught.value.cause
    assert "K8SFLOW_IN_CLUSTER_ENDPOINT" in caught.value.advice


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "image",
    [
        "python",
        "python:3.12-slim",
        "ghcr.io/a/b:v1",
        "localhost:5000/x_y/z:1",
        f"a/b@{DIGEST}",
        f"a/b:1@{DIGEST}",
        "Host.io/a",
    ],
)
def test_an_image_that_can_exist(image: str) -> None:
    assert mistake(image) == ""


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("Python:3", "upper-case"),
        ("a/b:", "its tag ''"),
        ("a/b:ü", "its tag"),
        ("a/b@sha256:123", "its digest"),
        ("https://ghcr.io/a/b", "scheme"),
        ("a b", "not written as"),
        ("a/b;$(reboot)", "not written as"),
        ("x" * 256, "more than 255"),
        ("", "not written as"),
    ],
)
def test_an_image_that_cant_exist(image: str, why: str) -> None:
    assert why in mistake(image)
