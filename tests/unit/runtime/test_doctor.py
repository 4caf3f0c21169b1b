"""``k8sflow doctor``: a bucket that works and ones that don't, and a cluster with and without rights to read it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from k8sflow.cli.main import main
from k8sflow.config import Settings
from k8sflow.errors import StorageError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.runtime.doctor import cluster, machine, on_batch
from k8sflow.runtime.doctor.checklist import ChecklistRow, Status
from k8sflow.runtime.doctor.examine import examine
from k8sflow.runtime.doctor.in_pod import trials_in_pod
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.probe import Trial, trials
from k8sflow.storage.s3 import S3Store
from tests.unit.executors.fake_batch import FakeBatch
from tests.unit.kubernetes.fake_api import FakeApi, fake_api

SETTINGS = Settings(kubernetes_namespace="lab", endpoint="https://s3.example.com", credentials="secret:keys")
KEYS = {"AWS_ACCESS_KEY_ID": "aWQ=", "AWS_SECRET_ACCESS_KEY": "c2VjcmV0"}


class NoConditions(MemoryStore):
    """A store that ignores If-None-Match, as some S3 servers do."""

    def put_new(self, key: str, data: bytes) -> bool:
        self.put(key, [data])
        return True


class ReadOnly(MemoryStore):
    """A store whose keys may read only."""

    def put(self, key: str, parts: Any) -> None:
        raise StorageError("the server denies these keys access.", advice="Allow s3:PutObject.")


@pytest.mark.s3
def test_a_bucket_that_works_passes_every_trial_and_is_left_empty(s3_store: S3Store) -> None:
    assert [(trial.name, trial.failure) for trial in trials(s3_store)] == [
        ("list", ""),
        ("write", ""),
        ("read", ""),
        ("conditional write", ""),
        ("delete", ""),
    ]
    assert list(s3_store.list_keys("k8sflow-doctor/")) == []


def test_a_server_without_conditional_writes_is_found_and_the_object_is_deleted() -> None:
    store = NoConditions()
    last = list(trials(store))[-1]
    assert last.name == "conditional write"
    assert "two pods of one task" in last.failure
    assert list(store.list_keys("")) == []


def test_a_trial_that_fails_is_the_last_one() -> None:
    found = list(trials(ReadOnly()))
    assert [trial.name for trial in found] == ["list", "write"]
    assert found[-1].advice == "Allow s3:PutObject."


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as server:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        server.put("namespaces", {"metadata": {"name": "lab", "labels": labels}})
        server.put("secrets", {"metadata": {"name": "keys"}, "data": KEYS})
        yield server


def rows(server: FakeApi, settings: Settings = SETTINGS) -> dict[str, ChecklistRow]:
    """The rows about the cluster, by their titles."""

    async def collect() -> list[ChecklistRow]:
        async with KubernetesApi(server.access, patience_seconds=0.2) as api:
            return [row async for row in cluster.rows(api, settings)]

    return {row.title: row for row in asyncio.run(collect())}


def test_a_cluster_that_can_be_used(server: FakeApi) -> None:
    """Every check passes, and no value of a Secret is in the text."""
    quota = {"metadata": {"name": "most"}, "status": {"hard": {"pods": "10"}, "used": {"pods": "3"}}}
    server.put("resourcequotas", quota)
    found = rows(server)
    controller = found.pop("controller")
    assert {row.status for row in found.values()} == {Status.OK}
    assert found["namespace"].text == "lab, with Pod Security 'restricted'"
    assert found["quotas"].text == "most: pods 3 of 10"
    assert found["bucket keys"].text == "Secret keys has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    assert controller.status is Status.SKIPPED
    assert not any(value in str(found) for value in KEYS.values())


def test_what_a_user_may_not_read_is_skipped(server: FakeApi) -> None:
    server.denied = {("create", "pods"), ("get", "secrets")}
    for part in ("/namespaces/lab/secrets", "/resourcequotas", "/deployments"):
        server.fail("GET", part, 403, times=9, body={"reason": "Forbidden", "message": "cannot get"})
    found = rows(server)
    assert found["quotas"].status is Status.SKIPPED
    assert found["admission"].text == "a dry run of a pod needs the permission to create pods"
    assert found["bucket keys"].text == "Secret keys, which may not be read here"


def test_failures_have_advice(server: FakeApi) -> None:
    """A missing permission, a full quota, an image that can't exist, an endpoint that is the pod itself."""
    server.denied = {("create", "jobs")}
    quota = {"metadata": {"name": "most"}, "status": {"hard": {"pods": "3"}, "used": {"pods": "3"}}}
    server.put("resourcequotas", quota)
    settings = replace(SETTINGS, endpoint="http://localhost:9000", kubernetes_image="No/Image")
    found = rows(server, settings)
    assert "verbs: [create]" in found["permissions"].advice
    assert found["quotas"].status is Status.WARNING
    assert found["image names"].status is found["pods' endpoint"].status is Status.FAILED
    assert "K8SFLOW_IN_CLUSTER_ENDPOINT" in found["pods' endpoint"].advice


def test_an_old_controller_is_a_warning(server: FakeApi) -> None:
    deployment = {
        "metadata": {
            "name": "k8sflow-controller",
            "namespace": "ops",
            "labels": {"app.kubernetes.io/name": "k8sflow", "app.kubernetes.io/version": "0.0.1"},
        },
        "spec": {"template": {"spec": {"containers": [{"image": "k8sflow:0.0.1"}]}}},
        "status": {"readyReplicas": 1},
    }
    server.put("deployments", deployment)
    server.groups["k8sflow.dev"] = "v1alpha1"
    controller = rows(server)["controller"]
    assert controller.status is Status.WARNING
    assert "version 0.0.1" in controller.text


def _run_in_pod(server: FakeApi, message: str) -> list[Trial]:
    """Ends the pod of the doctor's Job with a message, as a kubelet would report it."""

    async def work() -> list[Trial]:
        async with KubernetesApi(server.access, patience_seconds=0.2) as api:
            asked = asyncio.ensure_future(trials_in_pod(api, SETTINGS, 30))
            (name,) = await asyncio.to_thread(server.wait, lambda: server.names("jobs"))
            ended = {"exitCode": 0, "reason": "Completed", "message": message}
            status = {"phase": "Succeeded", "containerStatuses": [{"name": "task", "state": {"terminated": ended}}]}
            labels = {"batch.kubernetes.io/job-name": name}
            pod = {"metadata": {"name": f"{name}-x", "labels": labels}, "spec": {"containers": []}, "status": status}
            await asyncio.to_thread(server.put, "pods", pod)
            return await asked

    return asyncio.run(work())


def test_the_pods_trials_are_read_and_its_job_is_deleted(server: FakeApi) -> None:
    message = json.dumps([{"name": "list", "failure": "", "advice": "", "milliseconds": 3}])
    assert _run_in_pod(server, message) == [Trial("list", milliseconds=3)]
    assert server.names("jobs") == []


def test_the_settings_files_and_variables_are_named(tmp_path: Path) -> None:
    (tmp_path / "k8sflow.toml").write_text('bucket = "b"\n')
    found = list(machine.rows(Settings(bucket="b"), tmp_path, {"K8SFLOW_ENDPOINT": "http://secret"}))
    text = next(row.text for row in found if row.title == "settings")
    assert text == f"from {tmp_path / 'k8sflow.toml'}; K8SFLOW_ENDPOINT"


def test_without_settings_the_doctor_fails_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON too, and the exit code says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["doctor"], terminal_width=80)
    assert done.exit_code == 1
    assert "FAIL  kubeconfig" in done.output
    assert "2 of 5 checks failed." in done.output
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert [row["title"] for row in found if row["status"] == "failed"] == ["kubeconfig", "from here"]


BATCH = Settings(batch_queue="q", batch_job_role="arn:aws:iam::123456789012:role/jobs", batch_image="app:1")


def queue_of(kind: str, **more: Any) -> FakeBatch:
    """AWS Batch with one queue."""
    server = FakeBatch()
    environment = {"state": "ENABLED", "status": "VALID", "computeResources": {"type": kind, "maxvCpus": 16}}
    server.compute = [{**environment, **more}]
    return server


def test_a_job_queue_that_can_be_used() -> None:
    found = {row.title: row for row in on_batch.rows(BATCH, queue_of("SPOT"))}
    assert {row.status for row in found.values()} == {Status.OK}
    assert found["job queue"].text == "q in us-east-1: EC2, spot, 16 vCPUs at most"
    assert found["default job"].text == "1 vCPU and 4096 MiB fit"


@pytest.mark.parametrize(
    ("settings", "server", "title", "words"),
    [
        (replace(BATCH, batch_job_role=None), queue_of("EC2"), "roles", "no IAM role is set"),
        (BATCH, queue_of("EC2", state="DISABLED"), "job queue", "no compute environment of the job queue q"),
        (BATCH, queue_of("FARGATE"), "default job", "Fargate needs an execution role"),
    ],
)
def test_what_aws_batch_lacks_is_reported(settings: Settings, server: FakeBatch, title: str, words: str) -> None:
    found = {row.title: row for row in on_batch.rows(settings, server)}
    assert found[title].status is Status.FAILED
    assert words in found[title].text
    assert found[title].advice


def test_a_queue_that_doesnt_exist_is_a_failure() -> None:
    server = queue_of("EC2")
    server.queue_document = None
    found = {row.title: row for row in on_batch.rows(BATCH, server)}
    assert "there is no job queue 'q'" in found["job queue"].text


def test_runs_on_aws_batch_need_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_batch, "rows", lambda _: iter([on_batch.SECTION.ok("job queue")]))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = {row.title: row for row in examine(BATCH, tmp_path, with_pod=True, timeout_seconds=1)}
    assert found["kubeconfig"].status is Status.SKIPPED
    assert found["job queue"].status is Status.OK
