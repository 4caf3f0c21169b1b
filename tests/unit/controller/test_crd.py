"""The CRD's schema matches the FlowRuns that Python writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sflow.config import Settings
from k8sflow.flow.graph import Graph
from k8sflow.kubernetes.flowrun import (
    CARRIED_SETTINGS,
    Phase,
    TaskCounts,
    camel_case,
    environment,
    flowrun_manifest,
    flowrun_name,
)
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.detached.status import final_status, running_status
from k8sflow.runtime.progress.tally import Tally
from k8sflow.storage.records import RunRecord

CHECKOUT = Path(__file__).parents[3]
CRD = yaml.safe_load((CHECKOUT / "charts/k8sflow/crds/flowruns.yaml").read_text())
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
TYPES = {"object": dict, "string": str, "integer": int}
RECORD = RunRecord(flow="Sum", run="r1", file="sum.py", parameters={}, graph=Graph("Sum"), package="ab" * 32)
SETTINGS = Settings(
    bucket="bucket/team",
    credentials="secret:keys",
    endpoint="http://127.0.0.1:9000",
    in_cluster_endpoint="http://s3.store.svc:9000",
    kubernetes_context="laptop",
    root="/home/me/.k8sflow",
)
MANIFEST = flowrun_manifest(RECORD, SETTINGS, "lab", "s3://bucket/team")


def problems(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """The parts of a value that a structural schema refuses or prunes."""
    if not isinstance(value, TYPES[schema["type"]]):
        return [f"{where} is not of type {schema['type']}"]
    found = []
    if isinstance(value, dict):
        known = schema["properties"]
        found += [f"{where}.{key} is missing" for key in schema.get("required", ()) if key not in value]
        found += [f"{where}.{key} would be pruned" for key in value if key not in known]
        for key in value.keys() & known.keys():
            found += problems(value[key], known[key], f"{where}.{key}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{where}: {value!r} doesn't match")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} is not one of them")
    if len(str(value)) > schema.get("maxLength", 10_000):
        found.append(f"{where} is too long")
    return found


def test_a_detached_run_fits_the_schema() -> None:
    assert problems(MANIFEST["spec"], SCHEMA["properties"]["spec"]) == []


@pytest.mark.parametrize("store", ["s3://bucket/team", "gs://bucket_1/team", "az://container"])
def test_a_run_in_a_bucket_of_each_cloud_fits_the_schema(store: str) -> None:
    assert problems(flowrun_manifest(RECORD, SETTINGS, "lab", store)["spec"], SCHEMA["properties"]["spec"]) == []


def test_the_settings_of_the_schema_are_those_that_are_carried() -> None:
    known = SCHEMA["properties"]["spec"]["properties"]["settings"]["properties"]
    assert sorted(known) == sorted(map(camel_case, CARRIED_SETTINGS))


def test_settings_arrive_as_pods_have_to_use_them() -> None:
    """The bucket as seen from inside the cluster; nothing specific to the laptop."""
    found = environment(MANIFEST["spec"], "lab")
    assert found == {
        "K8SFLOW_BUCKET": "bucket/team",
        "K8SFLOW_CREDENTIALS": "secret:keys",
        "K8SFLOW_ENDPOINT": "http://s3.store.svc:9000",
        "K8SFLOW_KUBERNETES_NAMESPACE": "lab",
        "K8SFLOW_KUBERNETES_RUNTIME_IMAGE": SETTINGS.kubernetes_runtime_image,
        "K8SFLOW_REGION": "us-east-1",
    }


def test_the_status_of_a_driver_fits_the_schema() -> None:
    tally, started = Tally(), "2026-01-01T00:00:00Z"
    for status in (running_status(tally, started), final_status(tally, started, RunResult(RunEnd.CANCELLED), 0.0)):
        assert problems(status, SCHEMA["properties"]["status"]) == []


def test_phases_and_counts_are_those_of_the_schema() -> None:
    status = SCHEMA["properties"]["status"]["properties"]
    assert status["phase"]["enum"] == [phase.value for phase in Phase]
    assert sorted(status["tasks"]["properties"]) == sorted(TaskCounts().to_document())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flow", "--help"),
        ("flow", "a b"),
        ("flow", "../x"),
        ("run", "-r"),
        ("run", "R1"),
        ("code", {"store": "file:///etc"}),
        ("code", {"store": "s3://bucket", "package": "../x"}),
        ("settings", {"credentials": "secret:"}),
        ("settings", {"endpoint": "file:///etc/passwd"}),
        ("settings", {"kubernetesRuntimeImage": "-x"}),
        ("driver", {"serviceAccountName": "admin"}),
        ("podSpec", {}),
    ],
)
def test_unsupported_fields_are_refused_or_pruned(key: str, value: Any) -> None:
    spec = {**MANIFEST["spec"], key: value}
    assert problems(spec, SCHEMA["properties"]["spec"])


def test_a_name_leaves_room_for_the_driver() -> None:
    name = flowrun_name("AVeryLongNameOfAFlowThatNobodyShouldWriteButSomebodyWill" * 3, "20260101-000000-000000")
    assert len(name) <= 50
    assert name == flowrun_name(
        "AVeryLongNameOfAFlowThatNobodyShouldWriteButSomebodyWill" * 3, "20260101-000000-000000"
    )


def test_the_columns_of_kubectl_get() -> None:
    columns = [c["name"] for c in CRD["spec"]["versions"][0]["additionalPrinterColumns"] if not c.get("priority")]
    assert columns == ["Flow", "Phase", "Done", "Total", "Age", "Message"]
