"""Options of a step's pod: spellings, namespaces, and precedence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.kubernetes import kubernetes, resources
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, common_namespace, merge
from tests.support import pod_options


def _a_step(self: Any) -> None: ...


def test_options_of_a_decorator_and_of_the_command_line_are_the_same() -> None:
    written = {"cpu": 2, "memory": 1024, "gpu": 1, "node_selector": {"disk": "ssd"}, "image_pull_secrets": ["a", "b"]}
    typed = {"cpu": "2", "memory": "1024", "gpu": "1", "node_selector": "disk=ssd", "image_pull_secrets": "a,b"}
    assert pod_options(**written) == pod_options(**typed)


def test_tolerations_are_a_list_or_json() -> None:
    written = pod_options(tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert pod_options(tolerations='[{"key": "gpu", "operator": "Exists"}]') == written


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cpus": 2}, "Did you mean 'cpu'?"),
        ({"memory": "4GB"}, "memory='4GB'"),
        ({"gpu": -1}, "gpu=-1"),
        ({"image": ""}, "image=''"),
        ({"image_pull_policy": "Sometimes"}, "Always, IfNotPresent, Never"),
        ({"node_selector": "ssd"}, "key=value"),
        ({"env": {"A": 1}}, "quote it"),
        ({"image": "team/App:1"}, "'App' has upper-case letters"),
        ({"image_volumes": {"Models:1": "/models"}}, "'Models' has upper-case letters"),
        ({"env": {"K8SFLOW_BUCKET": "other"}}, "K8SFLOW_BUCKET is a setting"),
        ({"env": {"STORAGE_EMULATOR_HOST": "elsewhere:1"}}, "STORAGE_EMULATOR_HOST is a setting"),
        (
            {"env": {"AZURE_STORAGE_SERVICE_ENDPOINT": "https://elsewhere"}},
            "AZURE_STORAGE_SERVICE_ENDPOINT is a setting",
        ),
        ({"env": {"K8SFLOW_CPUS": "8"}}, "K8SFLOW_CPUS is set by k8sflow in each pod"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "env=…: AWS_SECRET_ACCESS_KEY would be readable in the Job"),
        ({"labels": {"a b": "x"}}, "labels={'a b': 'x'}: the key 'a b' has to be 1 to 63 letters"),
        ({"labels": {"A/b": "x"}}, "the key 'A/b' has the prefix 'A', which is not a domain"),
        ({"labels": {"a": "x y"}}, "the value 'x y' of 'a' has to be"),
        ({"annotations": {"a b": "x"}}, "annotations={'a b': 'x'}: the key 'a b' has to be"),
        ({"node_selector": {"a": "é"}}, "node_selector={'a': 'é'}: the value 'é' of 'a'"),
        ({"compute_pool": "the pool"}, "compute_pool='the pool': the value 'the pool' has to be"),
        ({"gpu_model": "NVIDIA A100"}, "gpu_model='NVIDIA A100': the value 'NVIDIA A100' has to be"),
        ({"grace_seconds": 86401}, "86401 is too much; a deleted pod may take at most 86400"),
        ({"deadline_seconds": 2**31}, "a deadline is at most 2147483647"),
        ({"run_as_user": 2**31}, "a numeric user is at most 2147483647"),
        ({"env": {"A=B": "x"}}, "'A=B' can't be the name"),
        ({"labels": {"k8sflow.dev/run": "other"}}, "the run finds its pods by it"),
        ({"annotations": "k8sflow.dev/attempt=7"}, "the run finds its pods by it"),
        ({"tolerations": [{"kee": "x"}]}, "Did you mean 'key'?"),
        ({"tolerations": "[oops"}, "tolerations='[oops'"),
        ({"run_as_user": "root"}, "run_as_user='root'"),
        ({"deadline_seconds": 0}, "0 seconds"),
        ({"grace_seconds": 4}, "use 5 or more"),
        ({"spot": "amazon"}, "'amazon' is none of aws, gcp, azure"),
        ({"on_oom": "triple"}, "'triple' is none of double"),
        ({"max_memroy": "4Gi"}, "Did you mean 'max_memory'?"),
    ],
)
def test_a_wrong_option_is_reported_with_a_correction(values: dict[str, Any], words: str) -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        kubernetes(**values)(_a_step)
    assert words in str(caught.value)
    assert "@kubernetes" in str(caught.value)


def test_an_unknown_option_is_not_answered_with_all_fifty() -> None:
    with pytest.raises(FlowDefinitionError) as caught:
        kubernetes(memroy="4Gi")(_a_step)
    assert caught.value.advice == "Did you mean 'memory'? docs/pods.md lists its options."


@pytest.mark.parametrize("name", ["K8SFLOW_LOG", "K8SFLOW_NAMESPACE", "K8SFLOW_KUBERNETES_IMAGE", "K8SFLOW_OF_MY_OWN"])
def test_a_variable_that_changes_nothing_of_the_run_may_be_set(name: str) -> None:
    assert pod_options(env={name: "x"}).env == {name: "x"}


@pytest.mark.parametrize("options", [{"gpu_vendor": "amd"}, {"gpu_model": "A100"}])
def test_a_kind_of_gpu_without_a_gpu_is_refused(options: dict[str, Any]) -> None:
    """Not where the pod has GPUs by another option, or has them turned off."""
    with pytest.raises(ValueError, match="requests no GPU; add gpu=1"):
        pod_options(**options).check()
    for devices in ({"gpu": 1}, {"gpu": 0}, {"extended_resources": "nvidia.com/mig-1g.5gb=1"}):
        pod_options(**options, **devices).check()


def test_a_pod_without_a_cluster_dns_needs_name_servers() -> None:
    with pytest.raises(ValueError, match="needs the name servers"):
        pod_options(dns_policy="None").check()
    pod_options(dns_policy="None", dns_config={"nameservers": ["10.0.0.10"]}).check()
    pod_options(dns_policy="None", pod_template="pod.yaml").check()


def test_resources_has_options_of_its_own() -> None:
    with pytest.raises(FlowDefinitionError, match="@resources has no option 'image'"):
        resources(image="x")(_a_step)


def test_what_the_user_wrote_wins_over_every_default() -> None:
    """A smaller value wins too: the maximum of the two isn't taken."""
    merged = merge(pod_options(memory=256), PodOptions(image="app:1"), DEFAULT_OPTIONS)
    assert (merged.cpu, merged.memory, merged.image) == ("1", "256M", "app:1")


def test_the_strongest_options_are_the_first() -> None:
    assert merge(PodOptions(cpu="2"), PodOptions(cpu="4", memory="1Gi")) == PodOptions(cpu="2", memory="1Gi")


def test_labels_are_joined_and_placement_is_replaced() -> None:
    strong = PodOptions(labels={"a": "1"}, node_selector={"zone": "x"})
    weak = PodOptions(labels={"a": "0", "b": "2"}, node_selector={"disk": "ssd"})
    merged = merge(strong, weak)
    assert merged.labels == {"a": "1", "b": "2"}
    assert merged.node_selector == {"zone": "x"}


options = st.builds(
    PodOptions,
    image=st.none() | st.just("i"),
    cpu=st.none() | st.sampled_from(["1", "2"]),
    gpu=st.none() | st.integers(0, 2),
)


@given(options, options, options)
def test_merging_does_not_depend_on_the_grouping(a: PodOptions, b: PodOptions, c: PodOptions) -> None:
    assert merge(a, b, c) == merge(merge(a, b), c) == merge(a, merge(b, c))


def test_a_run_has_one_namespace() -> None:
    steps: dict[str, Any] = {"start": PodOptions(), "train": PodOptions(namespace="gpu")}
    with pytest.raises(FlowDefinitionError, match="start in default, train in gpu"):
        common_namespace(steps, "default")
    assert common_namespace({"train": PodOptions(namespace="gpu")}, "default") == "gpu"
    assert common_namespace({}, "default") == "default"


def test_options_need_only_the_standard_library() -> None:
    code = (
        "import sys, k8sflow.flow.decorators.pod_options;"
        "print([name for name in ('aiohttp', 'yaml', 'kubernetes') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip() == "[]"
    )


def test_the_docs_list_every_option() -> None:
    """Copy the lines of the failure where an option was added or its help has changed."""
    page = (Path(__file__).parents[4] / "docs" / "pods.md").read_text()
    table = ["| option | meaning |", "|---|---|"]
    table += [f"| `{option.name}` | {option.metadata['help']} |" for option in fields(PodOptions)]
    assert [line for line in page.splitlines() if line.startswith("|")] == table


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ()),
        ({"on_oom": "double"}, ("8192M", "16384M", "32768M")),
        ({"memory": "1.5Gi", "on_oom": "double", "max_memory": "6Gi"}, ("3Gi", "6Gi")),
        ({"memory": 500, "on_oom": "double", "max_memory": "1.2G"}, ("1000M", "1.2G")),
        ({"memory": "1e8", "on_oom": "double", "max_memory": "200M"}, ("200M",)),
    ],
)
def test_memory_is_doubled_up_to_the_maximum(values: dict[str, Any], expected: tuple[str, ...]) -> None:
    """In the unit of the step's own memory, three times where no maximum is given."""
    assert pod_options(**values).more_memory() == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_memory": "8Gi"}, "no effect without on_oom"),
        ({"on_oom": "double", "max_memory": "2Gi"}, "is not more than memory='4096M'"),
    ],
)
def test_a_maximum_without_effect_is_refused(values: dict[str, Any], words: str) -> None:
    """The options of all decorators count together."""
    with pytest.raises(FlowDefinitionError) as caught:
        pod_options(**values).more_memory()
    assert words in str(caught.value)


def test_a_number_of_branches_at_a_time_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="no effect without branches_per_pod"):
        pod_options(branches_at_a_time=4).check()
    pod_options(branches_at_a_time=4, branches_per_pod=8).check()
