"""The keys and the server of the bucket in pods, for each kind of bucket."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k8sflow import config, roots
from k8sflow.config import Settings
from k8sflow.controller.driver_job import driver_job
from k8sflow.errors import ConfigurationError
from k8sflow.executors.agent_arguments import environment
from k8sflow.executors.bucket import open_bucket, server_of
from k8sflow.flow.decorators.pod_variables import check_names
from k8sflow.flow.graph import Graph
from k8sflow.kubernetes import flowrun as flowruns
from k8sflow.kubernetes.bucket_address import check_address
from k8sflow.kubernetes.bucket_keys import FOLDER, BucketKeys
from k8sflow.kubernetes.job import job_manifest
from k8sflow.kubernetes.references import Reference, references
from k8sflow.storage.records import RunRecord
from tests.unit.controller.objects import POLICY, flowrun
from tests.unit.kubernetes.test_job import JOB

GOOGLE = Settings(bucket="gs://bucket/p", credentials="secret:google", endpoint="http://s3:9000")


def _spec(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = job_manifest(replace(JOB, keys=BucketKeys.of(settings)))["spec"]["template"]["spec"]
    return found


def test_the_key_of_a_service_account_of_google_is_a_file() -> None:
    spec = _spec(GOOGLE)
    (container,) = spec["containers"]
    assert {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{FOLDER}/key.json"} in container["env"]
    assert {"name": "bucket-key", "mountPath": FOLDER, "readOnly": True} in container["volumeMounts"]
    assert not [each for each in container["env"] if each["name"].startswith("AWS_")]
    assert {Reference("secrets", "google"), Reference("secrets", "google", "key.json")} <= references(spec)


def test_with_workload_identity_a_pod_gets_no_keys() -> None:
    spec = _spec(replace(GOOGLE, credentials="service-account"))
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in str(spec)
    assert "bucket-key" not in str(spec)


def test_the_users_own_credentials_win() -> None:
    """A step sets them for the libraries of the cloud, and its agent uses the same."""
    options = replace(JOB.options, env={"GOOGLE_APPLICATION_CREDENTIALS": "/mine.json"})
    manifest = job_manifest(replace(JOB, options=options, keys=BucketKeys.of(GOOGLE)))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    named = [each for each in container["env"] if each["name"] == "GOOGLE_APPLICATION_CREDENTIALS"]
    assert named == [{"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/mine.json"}]


def test_pods_reach_google_or_the_emulator_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the endpoint of S3, which may be set for other runs."""
    monkeypatch.delenv(roots.EMULATOR_OF_GOOGLE, raising=False)
    found = environment(GOOGLE)
    assert found["K8SFLOW_BUCKET"] == "gs://bucket/p"
    assert not {"K8SFLOW_ENDPOINT", roots.EMULATOR_OF_GOOGLE} & found.keys()
    assert server_of(GOOGLE) == roots.SERVER_OF_GOOGLE
    assert server_of(GOOGLE, in_cluster=True) == "Google Cloud Storage"
    monkeypatch.setenv(roots.EMULATOR_OF_GOOGLE, "gcs.test:4443")
    assert environment(GOOGLE)[roots.EMULATOR_OF_GOOGLE] == "http://gcs.test:4443"


def test_an_emulator_on_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(roots.EMULATOR_OF_GOOGLE, "127.0.0.1:4443")
    (found,) = asyncio.run(check_address(None, GOOGLE))  # type: ignore[arg-type]  it is not asked
    assert "(variable STORAGE_EMULATOR_HOST)" in found.summary
    assert "STORAGE_EMULATOR_HOST" in found.advice


def test_the_driver_of_a_detached_run_has_the_same_bucket_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(roots.EMULATOR_OF_GOOGLE, "http://gcs.test:4443")
    record = RunRecord("F", "r1", "flow.py", {}, Graph("F"), package="0" * 64)
    made = flowruns.flowrun_manifest(record, GOOGLE, "lab", "gs://bucket/p")
    made["metadata"]["uid"] = "u"
    spec = driver_job(made, POLICY)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    plain = {each["name"]: each["value"] for each in container["env"]}
    assert plain[roots.EMULATOR_OF_GOOGLE] == "http://gcs.test:4443"
    assert plain["GOOGLE_APPLICATION_CREDENTIALS"] == f"{FOLDER}/key.json"
    assert "K8SFLOW_ENDPOINT" not in plain
    assert [each["name"] for each in spec["volumes"]] == ["tmp", "bucket-key"]
    found = config.load(Path("/"), plain)
    assert (found.bucket_url, found.credentials, found.s3_bucket) == ("gs://bucket/p", "secret:google", None)


@pytest.mark.parametrize("bucket", ["s3://bucket/p", "bucket/p"])
def test_the_bucket_may_be_a_url(bucket: str) -> None:
    found = config.load(Path("/"), {"K8SFLOW_BUCKET": bucket})
    assert (found.bucket, found.bucket_url, found.s3_bucket) == ("bucket/p", "s3://bucket/p", "bucket/p")


def test_the_bucket_of_the_root_is_that_of_runs_on_kubernetes() -> None:
    assert config.load(Path("/"), {"K8SFLOW_ROOT": "gs://bucket/p/"}).bucket_url == "gs://bucket/p"


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"the setting bucket \(K8SFLOW_BUCKET\) is 'ftp://bucket'"):
        Settings(bucket="ftp://bucket")


def test_jobs_on_aws_batch_have_no_credentials_of_google() -> None:
    with pytest.raises(ConfigurationError, match=r"a run on AWS Batch needs a bucket of S3, .* is gs://bucket/p"):
        open_bucket(GOOGLE, system="AWS Batch")


AZURE = Settings(bucket="az://bucket/p", credentials="secret:azure")
ADDRESS = "https://acc.blob.core.windows.net"


def test_the_connection_string_of_azure_is_a_variable() -> None:
    (container,) = _spec(AZURE)["containers"]
    name = "AZURE_STORAGE_CONNECTION_STRING"
    assert {"name": name, "valueFrom": {"secretKeyRef": {"name": "azure", "key": name}}} in container["env"]


def test_pods_of_a_workload_identity_of_azure_have_its_label() -> None:
    """The driver's too, and without the Secret only."""
    label = "azure.workload.identity/use"
    by_identity = BucketKeys.of(replace(AZURE, credentials="service-account"))
    template = job_manifest(replace(JOB, keys=by_identity))["spec"]["template"]
    assert template["metadata"]["labels"][label] == "true"
    assert label not in job_manifest(replace(JOB, keys=BucketKeys.of(AZURE)))["spec"]["template"]["metadata"]["labels"]
    code = {"store": "az://bucket/p", "package": "0" * 64}
    driver = driver_job(flowrun(code=code, settings={}), POLICY)["spec"]["template"]
    assert driver["metadata"]["labels"][label] == "true"


def test_pods_know_the_account_of_azure_and_nobody_writes_its_key_into_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"AccountName=acc;AccountKey=c2VjcmV0;BlobEndpoint={ADDRESS}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    found = environment(AZURE)
    assert found["AZURE_STORAGE_SERVICE_ENDPOINT"] == ADDRESS
    assert "c2VjcmV0" not in str(found)
    assert server_of(AZURE) == ADDRESS
    with pytest.raises(ValueError, match="AZURE_STORAGE_KEY would be readable in the Job"):
        check_names(["AZURE_STORAGE_KEY"])


def test_the_driver_of_a_detached_run_knows_the_account_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acc")
    record = RunRecord("F", "r1", "flow.py", {}, Graph("F"), package="0" * 64)
    made = flowruns.flowrun_manifest(record, AZURE, "lab", "az://bucket/p")
    plain = flowruns.environment(made["spec"], "lab")
    assert plain["AZURE_STORAGE_SERVICE_ENDPOINT"] == ADDRESS
    assert config.load(Path("/"), plain).bucket_url == "az://bucket/p"


def test_without_an_account_of_azure_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SERVICE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="no storage account of Azure is set"):
        open_bucket(AZURE)
