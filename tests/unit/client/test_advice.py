"""Advice about ``@resources``: only what is far off, and never from a memory that was measured in part."""

from __future__ import annotations

import pytest

from k8sflow.client.advice import FlowUse, Requested, StepUse
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.graph import Graph
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.records import RunRecord
from k8sflow.storage.usage import Usage, together

MB = 10**6


def _end(memory_mb: int, cpu: float = 1.0, seconds: float = 10.0, *, is_partial: bool = False) -> TaskEnd:
    return TaskEnd(0, 1e9, 1e9 + seconds, usage=Usage(memory_mb * MB, cpu, 5, 7, is_partial))


def _use(memory_mb: int | None, cores: float | None, *ends: TaskEnd) -> StepUse:
    found = StepUse("train", Requested(memory_mb and memory_mb * MB, cores))
    for end in ends:
        found.add([end])
    return found


def test_too_much_memory_is_said_with_an_amount_that_leaves_room() -> None:
    assert _use(4096, 1, _end(100), _end(212)).advice == [
        "asked for 4,096 MB, used 212 MB at most in 2 runs: @resources(memory=384) would do"
    ]


def test_too_little_memory_is_said_before_a_task_runs_out_of_it() -> None:
    (line,) = _use(1000, None, _end(950)).advice
    assert "which is nearly all: @resources(memory=1280) would leave some room" in line


@pytest.mark.parametrize(("asked", "used"), [(1000, 600), (1000, 899), (128, 20), (None, 20)])
def test_a_request_that_fits_is_not_mentioned(asked: int | None, used: int) -> None:
    assert _use(asked, None, _end(used)).advice == []


def test_the_largest_of_several_processes_says_nothing_about_too_much() -> None:
    (line,) = _use(4096, None, _end(212, is_partial=True), _end(100)).advice
    assert line.endswith(
        "used 212 MB or more in 2 runs: its tasks had several processes, whose memory was not added up"
    )


def test_idle_cores_are_said_unless_the_tasks_were_short() -> None:
    assert _use(None, 8, _end(1, cpu=12.0), _end(1, cpu=30.0, seconds=1)).advice == [
        "asked for 8 cores, used 1.2 at most in 2 runs: @resources(cpu=2) would do"
    ]
    assert _use(None, 8, _end(1, cpu=0.1, seconds=1)).advice == []
    assert _use(None, 2, _end(1, cpu=15.0)).advice == []


def test_the_request_is_that_of_the_latest_run() -> None:
    """A branch in a shared pod requests what ``@resources`` says; the pod's memory is that of several."""
    record = RunRecord(
        "F", "r", "flow.py", {}, Graph("F"),
        pods={"pod": PodOptions(cpu="2", memory="4Gi"), "shared": PodOptions(memory="64Gi", branches_per_pod=9)},
        batch={"job": BatchOptions(cpu="4", memory="8192M")},
        resources={"local": {"memory": "100M"}, "shared": {"memory": "1Gi"}, "pod": {"memory": "1M"}},
    )  # fmt: skip
    assert Requested.of(record, "pod") == Requested(4 << 30, 2.0)
    assert Requested.of(record, "shared") == Requested(1 << 30, None)
    assert Requested.of(record, "job") == Requested(8192 * MB, 4.0)
    assert Requested.of(record, "local") == Requested(100 * MB, None)
    assert Requested.of(record, "other") == Requested()


def test_steps_that_the_latest_run_no_longer_has_are_left_out() -> None:
    use = FlowUse({"train": StepUse("train", Requested())})
    use.add(RunRecord("F", "r", "flow.py", {}, Graph("F")), {"old": [_end(1)], "train": [_end(2)]})
    assert {step: found.memory_bytes for step, found in use.steps.items()} == {"train": 2 * MB}


def test_usage_adds_up() -> None:
    """Memory is the largest peak; what is unknown of one task does not hide the others."""
    assert together([Usage(1, 2.0, 3, 4), None, Usage(5, 0.5, None, 1, is_partial=True)]) == Usage(5, 2.5, 3, 5, True)
    assert together([None]) is None
