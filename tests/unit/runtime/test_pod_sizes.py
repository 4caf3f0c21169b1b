"""The pods of the steps that run on Kubernetes: sizes, devices, variables and deadlines."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError, FlowDefinitionError
from k8sflow.executors.agent_arguments import environment
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions
from k8sflow.flow.decorators.pod_variables import KEYS, OF_THE_RUN
from k8sflow.flow.graph import Graph
from k8sflow.kubernetes.bucket_keys import BucketKeys
from k8sflow.kubernetes.job import TaskJob
from k8sflow.kubernetes.pod import pod
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.task.batch import TaskBatch
from k8sflow.task.spec import TaskName, TaskSpec
from tests.sources import foreach
from tests.support import load_flow, write_flow

_SETTINGS_OF_PODS = ("bucket", "endpoint", "region", "default_secrets_backend_type")


def test_the_settings_of_a_driver_apply_to_the_pods_of_a_recorded_run() -> None:
    """They fill in the options that the run was started without, such as the service account of a detached run."""
    pods = {"start": PodOptions(cpu="2"), "end": PodOptions(service_account="own")}
    record = RunRecord("F", "r1", "flow.py", {}, Graph("F"), pods=pods)
    found = Placement.of_record(record, Settings(kubernetes_service_account="k8sflow-task")).pods
    assert (found["start"].cpu, found["start"].memory) == ("2", DEFAULT_OPTIONS.memory)
    assert (found["start"].service_account, found["end"].service_account) == ("k8sflow-task", "own")


def test_settings_are_the_defaults_of_everybody(tmp_path: Path) -> None:
    """The step's own options win; labels are joined."""
    source = foreach(decorators="@kubernetes(memory=1000, labels={'team': 'own'}, node_selector={'pool': 'own'})")
    definition = compile_flow(load_flow(write_flow(tmp_path, source)))
    settings = Settings(
        kubernetes_memory="2000",
        kubernetes_cpu="3",
        kubernetes_labels="team=all,cost=42",
        kubernetes_node_selector="pool=all",
        kubernetes_tolerations='[{"key": "batch", "operator": "Exists"}]',
        kubernetes_secrets="first,second",
        kubernetes_qos="guaranteed",
    )
    pods = Placement.of(definition, ("kubernetes",), settings).pods
    own = next(found for found in pods.values() if found.memory == "1000M")
    other = next(found for found in pods.values() if found.memory == "2000M")
    assert (own.labels, own.node_selector) == ({"team": "own", "cost": "42"}, {"pool": "own"})
    assert (other.labels, other.node_selector) == ({"team": "all", "cost": "42"}, {"pool": "all"})
    assert (other.cpu, other.secrets, other.qos) == ("3", ("first", "second"), "Guaranteed")
    assert other.tolerations == ({"key": "batch", "operator": "Exists"},)


def test_a_setting_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    definition = compile_flow(load_flow(write_flow(tmp_path, foreach())))
    with pytest.raises(ConfigurationError, match="the setting kubernetes_memory is 'much': "):
        Placement.of(definition, ("kubernetes",), Settings(kubernetes_memory="much"))


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
    job = TaskJob("job", "lab", task, options, "k8sflow:1", ("true",), keys=BucketKeys("s3"))
    names |= {each["name"] for each in pod(job)["spec"]["containers"][0]["env"]} - {"HOME", "TMPDIR"}
    assert names <= {*OF_THE_RUN, *KEYS}
    assert {"K8SFLOW_BUCKET", "K8SFLOW_POD", "AWS_SECRET_ACCESS_KEY"} <= names
