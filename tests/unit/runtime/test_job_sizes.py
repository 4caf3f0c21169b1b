"""The jobs of the steps that run on AWS Batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError, RunError
from k8sflow.executors.by_name import BATCH, KUBERNETES, LOCAL
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.runtime.commands.create import check_executors
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.request import RunRequest
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.tags import system_tags
from tests.support import load_flow, write_flow

HEAD = "from k8sflow import FlowSpec, batch, environment, kubernetes, parallel, resources, step, timeout\n"
SOURCE = """
    class F(FlowSpec):
        @step
        def start(self): self.next(self.here)
        @kubernetes
        @step
        def here(self): self.next(self.large)
        @batch(queue="big", cpu=8, env={"A": "own"})
        @environment(vars={"A": "1", "B": "2"})
        @resources(cpu=4, memory=9000, gpu=1, disk=500, on_oom="double")
        @timeout(minutes=1)
        @step
        def large(self): self.next(self.end)
        @step
        def end(self): pass
"""
ROLE = "arn:aws:iam::123456789012:role/jobs"
SETTINGS = Settings(batch_queue="main", batch_image="app:1", batch_job_role=ROLE)


def placement(folder: Path, *with_: str, source: str = SOURCE, settings: Settings = SETTINGS) -> Placement:
    """The placement of a flow."""
    return Placement.of(compile_flow(load_flow(write_flow(folder, source, head=HEAD))), with_, settings)


def test_a_decorator_at_a_step_holds_against_with(tmp_path: Path) -> None:
    """The rest of the flow goes where --with says, or stays here."""
    steps = ("start", "here", "large", "end")
    alone = placement(tmp_path)
    assert [alone.executor_of(step) for step in steps] == [LOCAL, KUBERNETES, BATCH, LOCAL]
    added = placement(tmp_path / "with", "batch")
    assert [added.executor_of(step) for step in steps] == [BATCH, KUBERNETES, BATCH, BATCH]
    assert added.outlives("start")
    assert not alone.outlives("start")


def test_the_options_of_a_job(tmp_path: Path) -> None:
    """The step's own hold, then --with, then the settings; a timeout sets the deadline, later than the agent's."""
    found = placement(tmp_path, "batch:cpu=2,aws_batch_tags=team=a").batch["large"]
    assert (found.queue, found.cpu, found.memory, found.gpu) == ("big", "8", "9000M", 1)
    assert (found.image, found.iam_role, found.deadline_seconds) == ("app:1", ROLE, 670)
    assert found.env == {"A": "own", "B": "2"}
    assert found.aws_batch_tags == {"team": "a"}


def test_more_memory_after_a_task_ran_out_of_it(tmp_path: Path) -> None:
    assert placement(tmp_path).policies["large"].more_memory == ("18000M", "36000M", "72000M")


def test_an_existing_definition_has_its_own_image_and_roles(tmp_path: Path) -> None:
    """The settings don't apply to it."""
    found = placement(tmp_path, "batch:job_definition=mine").batch["start"]
    assert (found.job_definition, found.queue, found.image, found.iam_role) == ("mine", "main", None, None)
    with pytest.raises(FlowDefinitionError, match="shared_memory belongs to the job definition mine"):
        placement(tmp_path / "with", "batch:job_definition=mine", "resources:shared_memory=64")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("@kubernetes\n        @batch", "the step has @kubernetes and @batch"),
        ("@batch(swappiness=3)", "its job on AWS Batch can't be made: swappiness has no effect without max_swap"),
        (
            '@batch\n        @environment(vars={"AWS_SECRET_ACCESS_KEY": "x"})',
            "@environment can't set one of its variables on AWS Batch",
        ),
    ],
)
def test_what_cant_be_is_reported_at_the_step(tmp_path: Path, line: str, words: str) -> None:
    source = f"""
    class F(FlowSpec):
        {line}
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
    """
    with pytest.raises(FlowDefinitionError, match="nothing was run") as caught:
        placement(tmp_path, source=source)
    assert words in str(caught.value)


def test_only_one_of_the_systems_can_be_added(tmp_path: Path) -> None:
    with pytest.raises(FlowDefinitionError, match="--with names @kubernetes and @batch"):
        placement(tmp_path, "kubernetes", "batch")


def test_the_steps_whose_tasks_run_together_are_known(tmp_path: Path) -> None:
    source = """
    class F(FlowSpec):
        @step
        def start(self): self.next(self.work, num_parallel=2)
        @parallel
        @step
        def work(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
    """
    assert placement(tmp_path, "batch", source=source).together == {"work"}
    assert placement(tmp_path / "here", source=source).together == frozenset()


def test_a_recorded_run_keeps_its_jobs(tmp_path: Path) -> None:
    """The settings of the process that takes over apply where the record says nothing."""
    graph = compile_flow(load_flow(write_flow(tmp_path, SOURCE, head=HEAD))).graph
    jobs = {"large": BatchOptions(queue="big", host_volumes=("/data",), env={"A": "1"})}
    run_store = RunStore(MemoryStore(), "F", "r1")
    run_store.create(RunRecord("F", "r1", "flow.py", {}, graph, batch=jobs))
    record = run_store.read()
    assert record.batch == jobs
    assert "runtime:batch" in system_tags(record)
    found = Placement.of_record(record, SETTINGS).batch["large"]
    assert (found.queue, found.host_volumes, found.cpu, found.image) == ("big", ("/data",), "1", "app:1")


def test_a_detached_run_has_no_steps_on_aws_batch(tmp_path: Path) -> None:
    definition = compile_flow(load_flow(write_flow(tmp_path, SOURCE, head=HEAD)))
    request = RunRequest(definition.flow, definition, SETTINGS, is_detached=True)
    with pytest.raises(RunError, match="would run on AWS Batch") as caught:
        check_executors(request, definition, Placement.of(definition, ("batch",), SETTINGS))
    assert "has no access to AWS Batch" in caught.value.cause
