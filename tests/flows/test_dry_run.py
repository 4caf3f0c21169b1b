"""``run --dry-run``: the manifests of a run that is not started, without a cluster or a bucket."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import environment, flow_command, write_flow

FLOW = """
class F(FlowSpec):
    n = Parameter("n", default=3)
    @kubernetes(secrets="token", queue="team")
    @step
    def start(self):
        self.items = range(self.n)
        self.next(self.work, foreach="items")
    @kubernetes(cpu=2, pod_template="pod.yaml")
    @step
    def work(self):
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self):
        pass
"""
BUCKET = {
    "K8SFLOW_BUCKET": "nowhere",
    "K8SFLOW_ENDPOINT": "http://127.0.0.1:1",
    "K8SFLOW_CREDENTIALS": "secret:keys",
    "K8SFLOW_KUBERNETES_NAMESPACE": "lab",
    "AWS_ACCESS_KEY_ID": "AKIASHOWN",
    "AWS_SECRET_ACCESS_KEY": "never-shown",
    "KUBECONFIG": "/nowhere",
}


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    (tmp_path / "pod.yaml").write_text("spec:\n  terminationGracePeriodSeconds: 60\n")
    return write_flow(tmp_path, FLOW)


def dry_run(flow: Path, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    done = flow_command(flow, "run", "--dry-run", *arguments, **BUCKET)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, [document for document in yaml.safe_load_all(done.stdout) if document is not None]


def test_the_owner_and_a_job_for_each_step_are_printed_and_nothing_is_stored(flow: Path) -> None:
    text, documents = dry_run(flow, "--with", "kubernetes:memory=500", "--run-id", "r1")
    assert [found["kind"] for found in documents] == ["ConfigMap", "Job", "Job", "Job", "Job"]
    assert all(found["metadata"]["namespace"] == "lab" for found in documents)
    steps = {found["metadata"]["labels"].get("k8sflow.dev/step"): found for found in documents}
    assert steps["start"]["spec"]["suspend"] is True
    assert steps["work"]["metadata"]["labels"]["k8sflow.dev/task"] == "0"
    assert steps["work"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    assert "a Job for each branch of the foreach of start" in text
    assert not (flow.parent / ".k8sflow").exists()


def test_no_secret_is_shown(flow: Path) -> None:
    text, _ = dry_run(flow, "--with", "kubernetes")
    assert "secretRef" in text
    assert "never-shown" not in text
    assert "AKIASHOWN" not in text


def test_only_steps_on_kubernetes_have_jobs(flow: Path) -> None:
    text, documents = dry_run(flow)
    assert len(documents) == 3
    assert "# Step join runs on this machine." in text


def test_a_detached_run_is_a_flowrun(flow: Path) -> None:
    _, documents = dry_run(flow, "--with", "kubernetes", "--detach")
    assert documents[0]["kind"] == "FlowRun"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("spec:\n  restartPolicy: Always\n", "pod.yaml:2: a pod template can't have spec.restartPolicy."),
        (None, "pod.yaml can't be read: No such file"),
    ],
)
def test_a_template_is_checked_with_the_flow(flow: Path, template: str | None, words: str) -> None:
    file = flow.parent / "pod.yaml"
    file.unlink() if template is None else file.write_text(template)
    done = flow_command(flow, "run", "--dry-run", **BUCKET)
    assert done.returncode == 1
    assert words in done.stderr
    assert "flow.py:" in done.stderr


def test_the_template_of_the_docs_is_merged(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pods.md").read_text()
    for text in re.findall(r"```(?:yaml|python)\n(.*?)```", page, re.DOTALL):
        (tmp_path / text.split()[1]).write_text(text)
    _, documents = dry_run(tmp_path / "templated.py")
    spec = documents[1]["spec"]["template"]["spec"]
    assert [container["name"] for container in spec["initContainers"]] == ["proxy"]
    assert {"name": "sockets", "mountPath": "/sockets"} in spec["containers"][0]["volumeMounts"]


def test_options_that_contradict_each_other_are_a_mistake_of_the_step(flow: Path) -> None:
    done = flow_command(flow, "run", "--dry-run", "--with", "kubernetes:cpu=4,cpu_limit=2", **BUCKET)
    assert done.returncode == 1
    assert "cpu_limit=2 is less than the 4 that cpu requests" in done.stderr


def test_a_run_on_this_machine_has_no_manifests(tmp_path: Path) -> None:
    flow = write_flow(tmp_path, "class F(FlowSpec):\n    @step(start=True, end=True)\n    def only(self): ...\n")
    done = flow_command(flow, "run", "--dry-run", **environment())
    assert "every step of this one runs on this machine" in done.stderr


def test_a_gangs_option_needs_a_gang(flow: Path) -> None:
    done = flow_command(flow, "run", "--dry-run", "--with", "kubernetes:hostname_resolution_timeout=60", **BUCKET)
    assert "has a hostname_resolution_timeout, but is not under @parallel" in done.stderr


GANG = """
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.train, num_parallel=4)
    @parallel
    @step
    def train(self):
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self):
        pass
"""


def test_processes_that_work_together_are_shown_with_their_service(tmp_path: Path) -> None:
    """Two of them stand for any number, which only a run knows."""
    flow = write_flow(tmp_path, f"from k8sflow import parallel{GANG}")
    text, documents = dry_run(flow, "--with", "kubernetes")
    assert [found["kind"] for found in documents] == ["ConfigMap", "Service", "Job", "Job", "Job", "Job"]
    service, train = documents[1], documents[3]
    assert train["spec"]["completions"] == 2
    assert train["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]
    assert "# Step train: one Job with a pod for each process, here for two" in text


BATCH = {
    "K8SFLOW_BATCH_QUEUE": "main",
    "K8SFLOW_BATCH_JOB_ROLE": "arn:aws:iam::123456789012:role/jobs",
    "K8SFLOW_BATCH_IMAGE": "app:1",
}


def test_the_requests_to_aws_batch_are_printed(tmp_path: Path) -> None:
    """Steps with the same options share a definition, and a foreach is an array job."""
    source = FLOW.replace('@kubernetes(secrets="token", queue="team")', "@batch")
    source = source.replace('@kubernetes(cpu=2, pod_template="pod.yaml")', "@batch(cpu=2)")
    flow = write_flow(tmp_path, source, head="from k8sflow import FlowSpec, Parameter, batch, step\n")
    done = flow_command(flow, "run", "--dry-run", "--with", "batch", **BUCKET, **BATCH)
    assert (done.returncode, done.stderr) == (0, "")
    start, work, join, end = yaml.safe_load_all(done.stdout)
    assert start["RegisterJobDefinition"]["containerProperties"]["image"] == "app:1"
    assert start["SubmitJob"]["jobDefinition"] == start["RegisterJobDefinition"]["jobDefinitionName"]
    assert work["SubmitJob"]["arrayProperties"] == {"size": 2}
    assert work["RegisterJobDefinition"]["containerProperties"]["resourceRequirements"][0]["value"] == "2"
    assert [*join] == [*end] == ["SubmitJob"]
    assert "never-shown" not in done.stdout


def test_both_systems_are_in_one_dry_run(flow: Path) -> None:
    """The manifests of the steps on Kubernetes have their owner."""
    done = flow_command(flow, "run", "--dry-run", "--with", "batch", **BUCKET, **BATCH)
    documents = [*yaml.safe_load_all(done.stdout)]
    kinds = [found.get("kind", "SubmitJob") for found in documents]
    assert kinds == ["ConfigMap", "Job", "Job", "SubmitJob", "SubmitJob"]


def test_a_dry_run_on_aws_batch_needs_a_queue(flow: Path) -> None:
    done = flow_command(flow, "run", "--dry-run", "--with", "batch", **BUCKET)
    assert done.returncode != 0
    assert "no job queue is set" in done.stderr
