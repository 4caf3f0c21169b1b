"""The agent, as in a pod, with a bucket of each cloud: its settings come from the variables that the pod's Job has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.executors.agent_arguments import environment as pod_environment
from k8sflow.flow.outcome import Outcome
from k8sflow.roots import bucket_of
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore
from tests.s3server import KEYS
from tests.unit.task.host.agent_runs import ended, prepare, start_agent

BODY = "print('in a pod')\nfrom k8sflow import parallel_map\nself.x = sum(parallel_map(lambda x: x, [1, 2, 3]))"


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_a_task_keeps_its_result_and_its_output_in_the_bucket(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """A pod has only the variables that its Job names, and the keys of the Secret."""
    store: ObjectStore = request.getfixturevalue(f"{kind}_store")
    keys = dict(KEYS) if kind == "s3" else request.getfixturevalue("azure_server") if kind == "azure" else {}
    settings = Settings(bucket=bucket_of(store.url))
    if kind == "s3":
        settings = replace(settings, endpoint=request.getfixturevalue("s3_server").endpoint)
    inside = pod_environment(settings)
    runner, command = prepare(tmp_path, BODY)
    for key in runner.store.list_keys(""):
        store.put(key, [runner.store.get(key)])
    command = [f"--store={store.url}" if word.startswith("--store=") else word for word in command]

    code, result, output = ended(tmp_path, start_agent(tmp_path, command, **inside, **keys))

    assert (code, result.outcome) == (0, Outcome.SUCCEEDED), output
    run_store = RunStore(store, "F", "r1")
    commit = run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(store, "F").load(commit.artifacts["x"], "x") == 6
    assert run_store.read_log("start", "0", 0, "stdout") == b"in a pod\n"
    assert runner.run_store.read_commit("start", "0") is None
