"""The executors of steps, the options of their pods, and their policies for failures."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError
from k8sflow.executors.agent_words import environment
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions
from k8sflow.flow.decorators.pod_variables import KEYS, OF_THE_RUN
from k8sflow.flow.decorators.policy import Catch, InfrastructureRetry, RetryPolicy, StepPolicy
from k8sflow.flow.graph import Graph
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.pod import pod
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.sources import foreach
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


_SETTINGS_OF_PODS = ("bucket", "endpoint", "region", "default_secrets_backend_type")


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


def test_the_settings_of_a_driver_apply_to_the_pods_of_a_recorded_run() -> None:
    """They fill in the options that the run was started without, such as the service account of a detached run."""
    pods = {"start": PodOptions(cpu="2"), "end": PodOptions(service_account="own")}
    record = RunRecord("F", "r1", "flow.py", {}, Graph("F"), pods=pods)
    found = Placement.of_record(record, Settings(kubernetes_service_account="k8sflow-task")).pods
    assert (found["start"].cpu, found["start"].memory) == ("2", DEFAULT_OPTIONS.memory)
    assert (found["start"].service_account, found["end"].service_account) == ("k8sflow-task", "own")


@pytest.mark.parametrize(
    ("decorators", "with_", "pod"),
    [
        ("", "branches_per_pod=50", ("1", "4096M", 1)),
        ("", "branches_per_pod=50,cpu=4", ("4", "4096M", 4)),
        ("@resources(cpu=2, memory=500)", "branches_per_pod=50", ("2", "628M", 1)),
        ("@resources(cpu=2, memory=500)", "branches_per_pod=50,cpu=8", ("8", "2128M", 4)),
        ("@resources(cpu=0.5, memory='1.5Gi')", "branches_per_pod=50,cpu=2", ("2", "6571M", 4)),
        ("@resources(cpu=2)\n    @kubernetes(cpu=1, branches_per_pod=3, memory=9000)", "", ("1", "9000M", 1)),
        ("@resources(cpu=1, memory=500)", "branches_per_pod=3,cpu=8", ("8", "1628M", 3)),
        ("@resources(memory=500)", "branches_per_pod=50,branches_at_a_time=10", ("1", "5128M", 10)),
        ("@resources(cpu=2)", "cpu=8", ("2", "4096M", None)),
    ],
)
def test_branches_share_a_pod_of_the_size_that_kubernetes_gives(
    tmp_path: Path, decorators: str, with_: str, pod: tuple[str, str, int | None]
) -> None:
    """``@resources`` describes one of them: so many run at a time as fit by their cores."""
    flow = load_flow(write_flow(tmp_path, foreach(decorators=decorators)))
    options = Placement.of(compile_flow(flow), (f"kubernetes:{with_}".rstrip(":"),), Settings()).pods["work"]
    assert (options.cpu, options.memory, options.branches_at_a_time) == pod


def test_the_deadline_of_a_shared_pod_is_that_of_its_branches_in_turns(tmp_path: Path) -> None:
    source = foreach(decorators="@timeout(minutes=1)")
    flow = load_flow(write_flow(tmp_path, f"from k8sflow import timeout{source}"))
    options = Placement.of(compile_flow(flow), ("kubernetes:branches_per_pod=10,cpu=4",), Settings()).pods["work"]
    assert options.deadline_seconds == 3 * 70 + 600


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


def test_an_option_without_effect_is_reported_at_its_step(tmp_path: Path) -> None:
    """Also where two decorators have the two options."""
    source = """
        class F(FlowSpec):
            @resources(memory=4000, on_oom="double")
            @kubernetes(max_memory=3000)
            @step
            def start(self): self.next(self.end)
            @step
            def end(self): pass
    """
    flow = compile_flow(load_flow(write_flow(tmp_path, source)))
    with pytest.raises(FlowDefinitionError, match=r"max_memory='3000M' is not more than memory='4000M'"):
        Placement.of(flow, (), Settings())


_WITH_A_GPU = """
    from k8sflow import environment
    class F(FlowSpec):
        @environment(vars={"%s": "x"})
        @resources(gpu=%s)
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


def test_a_kind_of_gpu_after_with_is_for_the_steps_with_gpus(tmp_path: Path) -> None:
    flow = compile_flow(load_flow(write_flow(tmp_path, _WITH_A_GPU % ("A", 1))))
    pods = Placement.of(flow, ("kubernetes:gpu_vendor=amd,gpu_model=mi300x",), Settings()).pods
    assert {step: (pod.gpu_vendor, pod.gpu_model) for step, pod in pods.items()} == {
        "start": ("amd", "mi300x"),
        "end": (None, None),
    }
    flow = compile_flow(load_flow(write_flow(tmp_path, _WITH_A_GPU % ("A", None), "none.py")))
    with pytest.raises(FlowDefinitionError, match="--with kubernetes:gpu_vendor=amd has no effect: no step requests"):
        Placement.of(flow, ("kubernetes:gpu_vendor=amd",), Settings())


@pytest.mark.parametrize("name", ["AWS_SESSION_TOKEN", "K8SFLOW_ENDPOINT"])
def test_environment_sets_no_keys_and_no_bucket_in_a_pod(tmp_path: Path, name: str) -> None:
    """On this machine, nobody else could read them."""
    flow = compile_flow(load_flow(write_flow(tmp_path, _WITH_A_GPU % (name, None))))
    assert not Placement.of(flow, (), Settings()).pods
    with pytest.raises(FlowDefinitionError, match=f"@environment can't set one of its variables.*{name}"):
        Placement.of(flow, ("kubernetes",), Settings())


def test_a_step_can_set_no_variable_that_a_pod_has_already() -> None:
    """Those of the settings and of the pod; but its log's level is its own matter."""
    settings = Settings(**{field.name: "s3" for field in fields(Settings) if field.name in _SETTINGS_OF_PODS})
    names = {*environment(settings)} - {"K8SFLOW_LOG"}
    task = TaskBatch(TaskSpec("F", "1", TaskName("start")))
    options = PodOptions(cpu="1", memory="1Gi", use_tmpfs=True, env={"PYTHONPATH": "x"})
    job = TaskJob("job", "lab", task, options, "k8sflow:1", ("true",), credentials_secret="s3")
    names |= {each["name"] for each in pod(job)["spec"]["containers"][0]["env"]} - {"HOME", "TMPDIR"}
    assert names <= {*OF_THE_RUN, *KEYS}
    assert {"K8SFLOW_BUCKET", "K8SFLOW_POD", "AWS_SECRET_ACCESS_KEY"} <= names


def test_the_settings_become_a_part_of_the_record(tmp_path: Path) -> None:
    """So that every driver of the run decides alike; the defaults are left out."""
    flow = compile_flow(load_flow(write_flow(tmp_path, SOURCE)))
    settings = Settings(infrastructure_retries="1", infrastructure_pauses_seconds="3,4.5")
    policies = Placement.of(flow, ("kubernetes:on_oom=double,memory=1Gi",), settings).policies
    expected = StepPolicy(infrastructure=InfrastructureRetry(1, (3.0, 4.5)), more_memory=("2Gi", "4Gi", "8Gi"))
    assert policies["end"] == expected
    assert StepPolicy.from_document(json.loads(json.dumps(expected.to_document()))) == expected
