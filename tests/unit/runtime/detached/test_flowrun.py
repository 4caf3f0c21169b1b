"""A run's FlowRun from both sides, against a scripted API server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.config import Settings
from k8sflow.errors import KubernetesError, RunError
from k8sflow.executors.base import Finished, Queued, Started
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.runtime.core.loop import RunResult
from k8sflow.runtime.core.retries import Again
from k8sflow.runtime.detached import flowrun
from k8sflow.runtime.detached.status import Progress
from k8sflow.runtime.placement import Placement
from k8sflow.storage.records import RunRecord
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import Failure, TaskResult
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.controller.flowrun_api import FlowRunApi
from tests.unit.controller.objects import flowrun as flowrun_object

RECORD = RunRecord(flow="Sum", run="r1", file="sum.py", parameters={}, graph=[], package="ab" * 32)
SUCCEEDED = TaskResult(Outcome.SUCCEEDED)
FAILED = TaskResult(Outcome.USER_ERROR, failure=Failure("ValueError: no", "Traceback…", "Mend it."))


def spec(step: str = "work", index: int = 0, attempt: int = 0) -> TaskSpec:
    return TaskSpec("Sum", "r1", TaskName(step, (index,)), attempt)


def status(server: FlowRunApi) -> dict[str, Any]:
    found = server.get("flowruns", "sum-run-1")
    return (found or {}).get("status") or {}


class TestCheck:
    """Whether a run can be handed over, before anything is uploaded."""

    def test_all_is_well(self, server: FlowRunApi) -> None:
        server.put("serviceaccounts", {"metadata": {"name": "k8sflow-driver"}})
        flowrun.check(Settings(), "lab")

    def test_without_the_crd_the_error_tells_how_to_install_it(self, server: FlowRunApi) -> None:
        server.has_crd = False
        with pytest.raises(KubernetesError, match="has no FlowRuns") as error:
            flowrun.check(Settings(), "lab")
        assert "helm install k8sflow" in error.value.advice

    def test_without_the_right_the_error_names_the_role(self, server: FlowRunApi) -> None:
        server.denied.add(("create", "flowruns"))
        with pytest.raises(KubernetesError, match="may not create and read FlowRuns") as error:
            flowrun.check(Settings(), "lab")
        assert "--role=k8sflow-user" in error.value.advice

    @pytest.mark.usefixtures("server")
    def test_a_namespace_that_no_controller_watches_is_told(self) -> None:
        with pytest.raises(KubernetesError, match="no controller looks after FlowRuns in the namespace 'lab'") as error:
            flowrun.check(Settings(), "lab")
        assert "watchNamespaces={lab}" in error.value.advice

    def test_who_may_not_read_service_accounts_is_not_stopped(self, server: FlowRunApi) -> None:
        server.fail("GET", "serviceaccounts", 403)
        flowrun.check(Settings(), "lab")


class TestSubmit:
    """Handing a run over."""

    def test_a_flowrun_that_is_taken_up(self, server: FlowRunApi, capsys: pytest.CaptureFixture[str]) -> None:
        """It tells what can be done now."""
        server.first_status = {"phase": "Pending"}
        flowrun.submit(RECORD, Settings(kubernetes_context="lab"), "lab", "s3://bucket")
        said = capsys.readouterr().out
        (name,) = server.names("flowruns")
        assert f"kubectl get flowrun {name} -n lab --context lab" in said
        assert f"kubectl delete flowrun {name}" in said
        assert 'k8sflow.Flow("Sum")["r1"]' in said

    def test_a_flowrun_that_is_refused_is_an_error(self, server: FlowRunApi) -> None:
        server.first_status = {"phase": "Failed", "message": "not allowed here.\nAsk for it."}
        with pytest.raises(RunError, match="the controller refuses Sum/r1: not allowed here") as error:
            flowrun.submit(RECORD, Settings(), "lab", "s3://bucket")
        assert error.value.advice == "Ask for it."

    @pytest.mark.usefixtures("server")
    def test_where_nobody_takes_it_up_that_is_told(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flowrun, "_TAKEN_UP_SECONDS", 0.0)
        flowrun.submit(RECORD, Settings(), "lab", "s3://bucket")
        assert "No controller has taken it up" in capsys.readouterr().out


class TestServiceAccounts:
    """Tasks are held to the service accounts that the platform's people allow."""

    def placement(self, account: str | None) -> Placement:
        return Placement({"train": PodOptions(service_account=account)}, "lab")

    def test_another_one_is_refused(self) -> None:
        environment = {"K8SFLOW_ALLOWED_SERVICE_ACCOUNTS": "k8sflow-task,gpu"}
        flowrun.check_service_accounts(self.placement("gpu"), environment)
        flowrun.check_service_accounts(self.placement(None), environment)
        with pytest.raises(RunError, match="the step train asks for the service account 'admin'"):
            flowrun.check_service_accounts(self.placement("admin"), environment)

    def test_on_a_laptop_rbac_decides(self) -> None:
        flowrun.check_service_accounts(self.placement("admin"), {})


class TestObserver:
    """What the driver tells in the FlowRun's status."""

    def observer(self, server: FlowRunApi, **status: Any) -> flowrun.FlowRunObserver:
        server.put("flowruns", flowrun_object(status=status or None))
        return flowrun.FlowRunObserver(Settings(), "lab", "sum-run-1")

    def test_it_owns_by_uid_without_blocking(self, server: FlowRunApi) -> None:
        owner = self.observer(server).owner
        assert (owner["kind"], owner["name"], owner["uid"]) == ("FlowRun", "sum-run-1", "uid-of-sum-run-1")
        assert owner["blockOwnerDeletion"] is False

    @pytest.mark.usefixtures("server")
    def test_without_a_flowrun_there_is_no_driver(self) -> None:
        with pytest.raises(KubernetesError):
            flowrun.FlowRunObserver(Settings(), "lab", "sum-run-1")

    def test_a_run_from_its_start_to_its_end(self, server: FlowRunApi) -> None:
        observer = self.observer(server)
        observer.submitted([spec(index=index) for index in range(2)])
        server.wait(lambda: status(server).get("tasks", {}).get("total") == 2)
        assert status(server)["phase"] == "Running"
        for index in range(2):
            observer.event(Started(spec(index=index), "node-1"))
            observer.event(Finished(spec(index=index), SUCCEEDED))
        observer.close(RunResult())
        assert status(server)["phase"] == "Succeeded"
        assert status(server)["tasks"] == {"total": 2, "running": 0, "done": 2, "failed": 0}
        assert status(server)["startedAt"] <= status(server)["finishedAt"]

    def test_a_failure_is_told_with_what_to_do(self, server: FlowRunApi) -> None:
        observer = self.observer(server)
        observer.submitted([spec()])
        observer.event(Finished(spec(), FAILED))
        observer.close(RunResult(spec(), FAILED))
        assert status(server)["phase"] == "Failed"
        assert status(server)["message"] == "work/0 failed (user error): ValueError: no\nMend it."

    @pytest.mark.slow
    def test_trouble_with_the_api_does_not_stop_the_run(self, server: FlowRunApi) -> None:
        """The last word is told with patience."""
        observer = self.observer(server)
        server.fail("PATCH", "flowruns", 403, times=1)
        observer.submitted([spec()])
        server.wait(lambda: server.asked("PATCH", "flowruns"))
        server.fail("PATCH", "flowruns", 500, times=2)
        observer.close(None)
        assert status(server)["phase"] == "Cancelled"

    def test_the_end_of_a_run_whose_flowrun_is_gone_is_told_to_nobody(
        self, server: FlowRunApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        observer = self.observer(server)
        server.remove("flowruns", "sum-run-1")
        observer.close(None)
        assert capsys.readouterr().err == ""

    @pytest.mark.slow
    def test_a_successor_counts_what_was_done_before(self, server: FlowRunApi) -> None:
        """By the driver before it, and as clones; the start stays. Its next execution of a task is no other task."""
        observer = self.observer(server, phase="Running", startedAt="2026-01-01T00:00:00Z")
        observer.done_before([spec("start")])
        observer.done_before([spec(index=0), spec(index=1)])
        server.wait(lambda: status(server).get("tasks", {}).get("done") == 3)
        observer.submitted([spec(index=2, attempt=1)])
        observer.event(Finished(spec(index=2, attempt=1), FAILED))
        observer.retried(spec(index=2, attempt=1), FAILED, Again())
        observer.submitted([spec(index=2, attempt=2)])
        observer.event(Finished(spec(index=2, attempt=2), SUCCEEDED))
        observer.close(RunResult())
        assert status(server)["tasks"] == {"total": 4, "running": 0, "done": 4, "failed": 0}
        assert status(server)["startedAt"] == "2026-01-01T00:00:00Z"

    @pytest.mark.parametrize("wanted", [True, False])
    def test_at_sigterm_only_a_flowrun_that_is_gone_cancels_the_run(
        self, server: FlowRunApi, monkeypatch: pytest.MonkeyPatch, wanted: bool
    ) -> None:
        left: list[int] = []
        monkeypatch.setattr(flowrun.os, "_exit", left.append)
        observer = self.observer(server)
        if not wanted:
            server.remove("flowruns", "sum-run-1")
        observer.interrupted()
        assert left == ([143] if wanted else [])


events = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["start", "wait", "done", "fail", "again"])), max_size=60
)


@given(events)
def test_counters_hold_together_whatever_comes(script: list[tuple[int, str]]) -> None:
    """None is negative, done and failed never exceed the total, and a status stays small."""
    progress = Progress(started_at="2026-01-01T00:00:00Z")
    progress.submitted([spec(index=index) for index in range(6)])
    ended: set[int] = set()
    for index, what in script:
        task = spec(index=index)
        if index in ended:
            continue
        if what == "start":
            progress.event(Started(task, "node"))
        elif what == "wait":
            progress.event(Queued(task, "no room " * 200, "wait"))
        elif what == "again":
            progress.event(Finished(task, FAILED))
            progress.retried(task, FAILED, Again())
            progress.submitted([spec(index=index, attempt=1)])
        else:
            progress.event(Finished(task, SUCCEEDED if what == "done" else FAILED))
            ended.add(index)
        found = progress.status()
        counts = found["tasks"]
        assert min(counts.values()) >= 0
        assert counts["done"] + counts["failed"] + counts["running"] <= counts["total"] == 6
        assert len(json.dumps(found)) < 10_000
    assert progress.final_status(None, 0.0)["tasks"]["running"] == 0
