"""The manifests have only fields that each supported version of Kubernetes has, by its OpenAPI document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k8sflow.controller.driver_job import driver_job
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.kubernetes import server_check
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.job import TaskJob, job_manifest
from k8sflow.kubernetes.preflight import OLDEST_VERSION
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import pod_options
from tests.unit.controller.objects import POLICY, flowrun
from tests.unit.kubernetes.api_versions import VERSIONS, unknown_fields
from tests.unit.kubernetes.test_pod import WRITTEN

# What these options ask for came later; the server check refuses them on an older cluster.
NEWER = ("image_volumes", "resource_claims")
WRITABLE = {name: value for name, value in WRITTEN.items() if name not in NEWER} | {"gpu_model": "model=gaudi2"}
TASK = TaskSpec("Demo", "r1", TaskName("train", (1,)))
JOB = TaskJob(
    name="demo",
    namespace="lab",
    tasks=TaskBatch(TASK),
    options=merge(pod_options(**WRITABLE), DEFAULT_OPTIONS),
    runtime_image="k8sflow:1",
    command=("python3",),
    owner={"apiVersion": "v1", "kind": "ConfigMap", "name": "demo", "uid": "1"},
    environment={"K8SFLOW_BUCKET": "b"},
    keys=BucketKeys("keys"),
)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_of_a_task_has_only_known_fields(version: str) -> None:
    """With every option but the newer ones, and with none, and as an Indexed Job."""
    wide = TaskBatch.of([replace(TASK, name=TaskName("train", (index,))) for index in range(30)])
    indexed = job_manifest(replace(JOB, tasks=wide, parallelism=10))
    assert "backoffLimitPerIndex" in indexed["spec"]
    assert unknown_fields(indexed, version) == []
    plain = replace(JOB, options=merge(PodOptions(image="k8sflow:1"), DEFAULT_OPTIONS), owner=None)
    assert unknown_fields(job_manifest(JOB), version) == []
    assert unknown_fields(job_manifest(plain), version) == []


@pytest.mark.parametrize("name", NEWER)
def test_a_version_without_the_fields_of_an_option_is_refused(name: str) -> None:
    """It would run the pod without them, or refuse it with words that nobody understands."""
    options = merge(pod_options(image="k8sflow:1", **{name: WRITTEN[name]}), DEFAULT_OPTIONS)
    unknown = {version: unknown_fields(job_manifest(replace(JOB, options=options)), version) for version in VERSIONS}
    first = next(version for version, fields in unknown.items() if not fields)
    since, _ = server_check._FEATURES[name]
    assert first != VERSIONS[0]
    assert since >= tuple(map(int, first.split(".")))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_of_a_driver_has_only_known_fields(version: str) -> None:
    flow_run = flowrun(flow="Sum")
    assert unknown_fields(driver_job(flow_run, replace(POLICY, image_pull_secrets=("keys",))), version) == []


def test_the_recorded_versions_are_those_that_are_supported() -> None:
    """The oldest version that is accepted has the fields of the oldest recorded one, as far as k8sflow uses them."""
    assert (OLDEST_VERSION, VERSIONS[0], VERSIONS[-1]) == ((1, 29), "1.30", "1.36")


@pytest.mark.parametrize(
    ("path", "first"),
    [
        (("volumes", 0, "image", "reference"), "1.31"),
        (("containers", 0, "resources", "claims", 0, "request"), "1.31"),
        (("resources", "limits"), "1.32"),
        (("containers", 0, "restartPolicyRules"), "1.34"),
    ],
)
def test_a_field_is_unknown_to_versions_before_it(path: tuple[Any, ...], first: str) -> None:
    """So that a new option which needs one fails here."""
    value: Any = {}
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    manifest = {"kind": "Job", "spec": {"template": {"spec": value}}}
    known = [version for version in VERSIONS if not unknown_fields(manifest, version)]
    assert known == VERSIONS[VERSIONS.index(first) :]


def test_keys_of_labels_are_not_taken_for_fields() -> None:
    metadata = {"labels": {"any.key/here": "x"}, "annotations": {"another": "y"}}
    assert unknown_fields({"kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}}, "1.30") == []
    assert unknown_fields({"kind": "ConfigMap", "metdata": {}}, "1.30") == ["ConfigMap.metdata"]
