"""A run's record keeps its types; in the store it is the document that it always was."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.decorators.policy import Catch, RetryPolicy, StepPolicy
from k8sflow.storage.artifacts import ArtifactRef
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from tests.sources import foreach
from tests.support import load_flow, write_flow

PODS = PodOptions(memory="800M", image_pull_secrets=("keys",), tolerations=({"key": "gpu"},), labels={"team": "a"})
POLICY = StepPolicy(RetryPolicy(2, pause_seconds=3.0), timeout_seconds=60, catch=Catch("failed"))


def _record(folder: Path) -> RunRecord:
    return RunRecord(
        "F",
        "r1",
        "flow.py",
        {"n": ArtifactRef("ab", 2, "pickle", "builtins.int", "aa==")},
        compile_flow(load_flow(write_flow(folder, foreach()))).graph,
        {"work": PODS},
        tags=("x",),
        policies={"work": POLICY},
        modules=("flow",),
        flow_decorators={"project": {"name": "p"}},
    )


def test_a_record_comes_back_from_the_store_with_its_types(tmp_path: Path) -> None:
    """Graph, pod options and policies, as they were."""
    record, run_store = _record(tmp_path), RunStore(MemoryStore(), "F", "r1")
    run_store.create(record)
    assert run_store.read() == record


def test_the_record_of_a_traced_run_says_so(tmp_path: Path) -> None:
    record, run_store = replace(_record(tmp_path), is_traced=True), RunStore(MemoryStore(), "F", "r1")
    run_store.create(record)
    assert run_store.read().is_traced


def test_the_stored_document_has_not_changed(tmp_path: Path) -> None:
    """It is that of a record whose fields were JSON types, in the same order: earlier versions read it."""
    record, store = _record(tmp_path), MemoryStore()
    RunStore(store, "F", "r1").create(record)
    flat: dict[str, Any] = {
        **asdict(replace(record, graph=None, pods={}, policies={})),  # type: ignore[arg-type]
        "parameters": {name: ref.to_document() for name, ref in record.parameters.items()},
        "graph": record.graph.to_document(),
        "pods": {"work": {name: value for name, value in asdict(PODS).items() if value is not None}},
        "policies": {"work": asdict(POLICY)},
    }
    for name in ("is_traced", "batch", "resources", "cache", "as_metaflow", "environments"):
        del flat[name]  # only a record that needs them has them
    expected = json.dumps({"format": 1, **flat}, ensure_ascii=False, separators=(",", ":"))
    assert bytes(store.get("F/runs/r1/run.json")).decode() == expected


def test_a_record_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    """As the first versions wrote it."""
    graph = _record(tmp_path).graph
    document = {"flow": "F", "run": "r1", "file": "flow.py", "parameters": {}, "graph": graph.to_document()}
    assert RunRecord.from_document(json.loads(json.dumps(document))) == RunRecord("F", "r1", "flow.py", {}, graph)
