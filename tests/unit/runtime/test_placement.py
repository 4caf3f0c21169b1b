"""The executors of steps, and their policies for failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.policy import Catch, InfrastructureRetry, RetryPolicy, StepPolicy
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from tests.support import load_flow, write_flow

SOURCE = """
    from k8sflow import catch, retry, timeout
    class F(FlowSpec):
        @timeout(minutes=1)
        @step
        def start(self):
            self.items = [1]
            self.next(self.work, foreach="items")
        @retry(times=0)
        @kubernetes(deadline_seconds=30)
        @step
        def work(self): self.next(self.join)
        @timeout(seconds=0.5)
        @kubernetes(deadline_seconds=30)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


def placement(folder: Path, *with_: str) -> Placement:
    """The placement of the flow above."""
    flow = load_flow(write_flow(folder, SOURCE))
    return Placement.of(compile_flow(flow), with_, Settings())


def test_a_timeout_sets_the_deadline_of_the_pod(tmp_path: Path) -> None:
    """Later than the agent's, so that the image may take its time; the user's own deadline is never made longer."""
    pods = placement(tmp_path, "kubernetes").pods
    assert {step: options.deadline_seconds for step, options in pods.items()} == {
        "start": 670,
        "work": 30,
        "join": 30,
        "end": None,
    }


def test_with_is_for_the_steps_that_say_nothing(tmp_path: Path) -> None:
    """And catch passes over the steps whose way only they know."""
    found = placement(tmp_path, "retry:times=2", "catch:var=e", "kubernetes")
    waits = RetryPolicy(2, 120.0)
    assert dict(found.policies) == {
        "start": StepPolicy(waits, 60.0),
        "work": StepPolicy(catch=Catch("e")),
        "join": StepPolicy(waits, 0.5, Catch("e")),
        "end": StepPolicy(waits, catch=Catch("e")),
    }
    here = placement(tmp_path / "here", "retry:times=2").policies
    assert here["end"] == StepPolicy(RetryPolicy(2, 1.0, 2.0, 60.0))
    assert here["join"] == StepPolicy(waits, 0.5)


@pytest.mark.parametrize(("with_", "expected"), [((), False), (("kubernetes",), True)])
def test_pods_have_to_find_each_other_where_a_parallel_step_runs_in_them(
    tmp_path: Path, with_: tuple[str, ...], expected: bool
) -> None:
    """The run then needs the right to make a Service; a driver that takes it over finds the same."""
    source = """
        from k8sflow import parallel
        class F(FlowSpec):
            @step
            def start(self): self.next(self.train, num_parallel=2)
            @parallel
            @step
            def train(self): self.next(self.join)
            @step
            def join(self, inputs): self.next(self.end)
            @step
            def end(self): pass
    """
    definition = compile_flow(load_flow(write_flow(tmp_path, source)))
    found = Placement.of(definition, with_, Settings())
    assert found.has_gangs is expected
    record = RunRecord("F", "r1", "flow.py", {}, definition.graph, pods=found.pods)
    assert Placement.of_record(record, Settings()).has_gangs is expected
    if with_:  # each has a pod of its own, also where branches share pods
        shared = Placement.of(definition, ("kubernetes:branches_per_pod=4",), Settings()).pods
        assert (shared["train"].branches_per_pod, shared["join"].branches_per_pod) == (None, 4)


def test_the_settings_become_a_part_of_the_record(tmp_path: Path) -> None:
    """So that every driver of the run decides alike; the defaults are left out."""
    flow = compile_flow(load_flow(write_flow(tmp_path, SOURCE)))
    settings = Settings(infrastructure_retries="1", infrastructure_pauses_seconds="3,4.5")
    policies = Placement.of(flow, ("kubernetes:on_oom=double,memory=1Gi",), settings).policies
    expected = StepPolicy(infrastructure=InfrastructureRetry(1, (3.0, 4.5)), more_memory=("2Gi", "4Gi", "8Gi"))
    assert policies["end"] == expected
    assert StepPolicy.from_document(json.loads(json.dumps(expected.to_document()))) == expected
