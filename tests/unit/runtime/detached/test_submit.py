"""A run's FlowRun from both sides, against a scripted API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.cli.terminal import Terminal
from k8sflow.config import Settings
from k8sflow.errors import KubernetesError, RunError
from k8sflow.executors.base import Finished, Queued, Started
from k8sflow.flow.decorators.pod_options import GUARDED, PodOptions
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.outages import Notice
from k8sflow.runtime.commands.drive_detached import check_pods
from k8sflow.runtime.core.actions import RunEnd, RunResult
from k8sflow.runtime.detached import status as statuses
from k8sflow.runtime.detached import submit
from k8sflow.runtime.detached.status import FlowRunStatus, final_status, running_status
from k8sflow.runtime.placement import Placement
from k8sflow.runtime.progress.tally import Tally
from k8sflow.runtime.session import Session
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import Failure, TaskResult, failed
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.controller.flowrun_api import FlowRunApi
from tests.unit.controller.objects import flowrun as flowrun_object

RECORD = RunRecord(flow="Sum", run="r1", file="sum.py", parameters={}, graph=Graph("Sum"), package="ab" * 32)
SUCCEEDED = TaskResult(Outcome.SUCCEEDED)
FAILED = TaskResult(Outcome.USER_ERROR, failure=Failure("ValueError: no", "Traceback…", "Fix it."))

Writer = Callable[..., FlowRunStatus]


def spec(step: str = "work", index: int = 0, attempt: int = 0) -> TaskSpec:
    return TaskSpec("Sum", "r1", TaskName(step, (index,)), attempt)


def session(**settings: str) -> Session:
    """The run of RECORD."""
    return Session(RECORD, RunStore(MemoryStore(), "Sum", "r1"), Placement({}, "lab"), Settings(**settings))


def status(server: FlowRunApi) -> dict[str, Any]:
    found = server.get("flowruns", "sum-run-1")
    return (found or {}).get("status") or {}


class TestCheck:
    """The check before a run is detached, and before anything is uploaded."""

    def test_all_is_well(self, server: FlowRunApi) -> None:
        server.put("serviceaccounts", {"metadata": {"name": "k8sflow-driver"}})
        submit.check_detachable(Settings(), "lab")

    def test_without_the_crd_the_error_tells_how_to_install_it(self, server: FlowRunApi) -> None:
        server.has_crd = False
        with pytest.raises(KubernetesError, match="has no FlowRuns") as error:
            submit.check_detachable(Settings(), "lab")
        assert "helm install k8sflow" in error.value.advice

    def test_without_the_right_the_error_names_the_role(self, server: FlowRunApi) -> None:
        server.denied.add(("create", "flowruns"))
        with pytest.raises(KubernetesError, match="may not create and read FlowRuns") as error:
            submit.check_detachable(Settings(), "lab")
        assert "--role=k8sflow-user" in error.value.advice

    @pytest.mark.usefixtures("server")
    def test_a_namespace_that_no_controller_watches_is_reported(self) -> None:
        with pytest.raises(KubernetesError, match="no controller looks after FlowRuns in the namespace 'lab'") as error:
            submit.check_detachable(Settings(), "lab")
        assert "watchNamespaces={lab}" in error.value.advice

    def test_who_may_not_read_service_accounts_is_not_stopped(self, server: FlowRunApi) -> None:
        server.fail("GET", "serviceaccounts", 403)
        submit.check_detachable(Settings(), "lab")


class TestSubmit:
    """Detaching a run."""

    def test_a_flowrun_that_is_taken_up(self, server: FlowRunApi, capsys: pytest.CaptureFixture[str]) -> None:
        """It tells what can be done now."""
        server.first_status = {"phase": "Pending"}
        submit.submit(session(kubernetes_context="lab"), Terminal())
        said = capsys.readouterr().out
        (name,) = server.names("flowruns")
        assert f"kubectl get flowrun {name} -n lab --context lab" in said
        assert f"kubectl delete flowrun {name}" in said
        assert 'k8sflow.Flow("Sum")["r1"]' in said

    def test_a_flowrun_that_is_refused_is_an_error(self, server: FlowRunApi) -> None:
        server.first_status = {"phase": "Failed", "message": "not allowed here.\nAsk for it."}
        with pytest.raises(RunError, match="the controller refuses Sum/r1: not allowed here") as error:
            submit.submit(session(), Terminal())
        assert error.value.advice == "Ask for it."

    @pytest.mark.usefixtures("server")
    def test_a_missing_controller_is_reported(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(submit, "_TAKEN_UP_SECONDS", 0.0)
        submit.submit(session(), Terminal())
        assert "No controller has accepted it" in capsys.readouterr().out


class TestServiceAccounts:
    """Tasks are held to the service accounts that the platform's people allow."""

    def placement(self, account: str | None) -> Placement:
        return Placement({"train": PodOptions(service_account=account)}, "lab")

    def test_another_one_is_refused(self) -> None:
        environment = {"K8SFLOW_ALLOWED_SERVICE_ACCOUNTS": "k8sflow-task,gpu"}
        check_pods(self.placement("gpu"), environment)
        check_pods(self.placement(None), environment)
        with pytest.raises(RunError, match="the step train asks for the service account 'admin'"):
            check_pods(self.placement("admin"), environment)

    def test_on_a_laptop_rbac_decides(self) -> None:
        check_pods(self.placement("admin"), {})


class TestGuardedOptions:
    """The pods of detached runs are made with the driver's rights, so the administrators decide about some options."""

    @pytest.mark.parametrize("name", GUARDED)
    def test_one_is_refused_unless_it_is_allowed(self, name: str) -> None:
        placement = Placement({"train": PodOptions(**{name: ("x",)})}, "lab")
        environment = {"K8SFLOW_ALLOWED_SERVICE_ACCOUNTS": "k8sflow-task"}
        with pytest.raises(RunError, match=f"the step train has the option {name}, which is not allowed"):
            check_pods(placement, environment)
        check_pods(placement, {**environment, "K8SFLOW_ALLOWED_OPTIONS": f"gpu,{name}"})
        check_pods(placement, {})  # on a laptop, RBAC decides

    def test_the_chart_knows_them(self) -> None:
        schema = json.loads((Path(__file__).parents[4] / "charts/k8sflow/values.schema.json").read_text())
        known = schema["properties"]["task"]["properties"]["allowedOptions"]["items"]["enum"]
        assert known == list(GUARDED)


class TestObserver:
    """The FlowRun's status, as the driver writes it."""

    @pytest.fixture
    def writer(self, server: FlowRunApi) -> Iterator[Writer]:
        with ExitStack() as stack:

            def write(tally: Tally | None = None, **status: Any) -> FlowRunStatus:
                server.put("flowruns", flowrun_object(status=status or None))
                found = FlowRunStatus(Settings(), "lab", "sum-run-1", Terminal())
                stack.enter_context(found.showing(tally or Tally()))
                return found

            yield write

    def test_it_owns_by_uid_without_blocking(self, server: FlowRunApi, writer: Writer) -> None:
        owner = writer().owner
        assert (owner["kind"], owner["name"], owner["uid"]) == ("FlowRun", "sum-run-1", "uid-of-sum-run-1")
        assert owner["blockOwnerDeletion"] is False

    @pytest.mark.usefixtures("server")
    def test_without_a_flowrun_there_is_no_driver(self) -> None:
        with pytest.raises(KubernetesError):
            FlowRunStatus(Settings(), "lab", "sum-run-1", Terminal())

    def test_a_run_from_its_start_to_its_end(self, server: FlowRunApi, writer: Writer) -> None:
        tally = Tally()
        written = writer(tally)
        tally.submitted([spec(index=index) for index in range(2)])
        server.wait(lambda: status(server).get("tasks", {}).get("total") == 2)
        assert status(server)["phase"] == "Running"
        for index in range(2):
            tally.event(Started(spec(index=index), "node-1"))
            tally.event(Finished(spec(index=index), SUCCEEDED))
        written.close(RunResult(RunEnd.SUCCEEDED))
        assert status(server)["phase"] == "Succeeded"
        assert status(server)["tasks"] == {"total": 2, "running": 0, "done": 2, "failed": 0}
        assert status(server)["startedAt"] <= status(server)["finishedAt"]

    def test_a_failure_is_reported_with_advice(self, server: FlowRunApi, writer: Writer) -> None:
        tally = Tally()
        written = writer(tally)
        tally.submitted([spec()])
        tally.event(Finished(spec(), FAILED))
        written.close(RunResult(RunEnd.FAILED, spec(), FAILED))
        assert status(server)["phase"] == "Failed"
        assert status(server)["message"] == "work/0 failed (user error): ValueError: no\nFix it."

    def test_a_task_whose_job_was_deleted_is_cancelled(self, server: FlowRunApi, writer: Writer) -> None:
        """The phase and the message use the same word."""
        tally = Tally()
        written = writer(tally)
        written.close(RunResult(RunEnd.FAILED, spec(), failed(Outcome.CANCELLED, "its Job was deleted externally.")))
        assert status(server)["phase"] == "Cancelled"
        assert status(server)["message"] == "work/0 was cancelled: its Job was deleted externally."

    def test_outages_are_in_the_message_until_they_are_over(self, server: FlowRunApi, writer: Writer) -> None:
        """Each server has one line, whatever the other does."""
        written = writer()
        written.outage(Notice("The bucket", "the bucket is away."))
        written.outage(Notice("The API server", "the API server is away."))
        server.wait(lambda: status(server).get("message") == "the bucket is away.\nthe API server is away.")
        written.outage(Notice("The bucket", "The bucket answers again.", is_over=True))
        server.wait(lambda: status(server).get("message") == "the API server is away.")
        written.close(RunResult(RunEnd.SUCCEEDED))

    @pytest.mark.slow
    def test_trouble_with_the_api_does_not_stop_the_run(self, server: FlowRunApi, writer: Writer) -> None:
        """The end is written with patience."""
        tally = Tally()
        written = writer(tally)
        server.fail("PATCH", "flowruns", 403, times=1)
        tally.submitted([spec()])
        server.wait(lambda: server.asked("PATCH", "flowruns"))
        server.fail("PATCH", "flowruns", 500, times=2)
        written.close(RunResult(RunEnd.CANCELLED))
        assert status(server)["phase"] == "Cancelled"

    def test_the_end_of_a_run_whose_flowrun_was_deleted_is_not_reported(
        self, server: FlowRunApi, writer: Writer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        written = writer()
        server.remove("flowruns", "sum-run-1")
        written.close(RunResult(RunEnd.CANCELLED))
        assert capsys.readouterr().err == ""

    @pytest.mark.slow
    def test_a_successor_counts_what_was_done_before(self, server: FlowRunApi, writer: Writer) -> None:
        """By the driver before it, and as clones; the start stays. Another execution of a task is not another task."""
        tally = Tally()
        written = writer(tally, phase="Running", startedAt="2026-01-01T00:00:00Z")
        tally.done_before([spec("start")])
        tally.done_before([spec(index=0), spec(index=1)])
        server.wait(lambda: status(server).get("tasks", {}).get("done") == 3)
        tally.submitted([spec(index=2, attempt=1)])
        tally.event(Finished(spec(index=2, attempt=1), FAILED))
        tally.retried(spec(index=2, attempt=1), FAILED)
        tally.submitted([spec(index=2, attempt=2)])
        tally.event(Finished(spec(index=2, attempt=2), SUCCEEDED))
        written.close(RunResult(RunEnd.SUCCEEDED))
        assert status(server)["tasks"] == {"total": 4, "running": 0, "done": 4, "failed": 0}
        assert status(server)["startedAt"] == "2026-01-01T00:00:00Z"

    @pytest.mark.parametrize("wanted", [True, False])
    def test_at_sigterm_only_a_deleted_flowrun_cancels_the_run(
        self, server: FlowRunApi, writer: Writer, monkeypatch: pytest.MonkeyPatch, wanted: bool
    ) -> None:
        left: list[int] = []
        monkeypatch.setattr(statuses.os, "_exit", left.append)
        written = writer()
        if not wanted:
            server.remove("flowruns", "sum-run-1")
        written.interrupted()
        assert left == ([143] if wanted else [])


events = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["start", "wait", "done", "fail", "again"])), max_size=60
)


@given(events)
def test_counters_hold_together_whatever_comes(script: list[tuple[int, str]]) -> None:
    """None is negative, done and failed never exceed the total, and a status stays small."""
    tally, started = Tally(), "2026-01-01T00:00:00Z"
    tally.submitted([spec(index=index) for index in range(6)])
    ended: set[int] = set()
    for index, what in script:
        task = spec(index=index)
        if index in ended:
            continue
        if what == "start":
            tally.event(Started(task, "node"))
        elif what == "wait":
            tally.event(Queued(task, "no room " * 200, "wait"))
        elif what == "again":
            tally.event(Finished(task, FAILED))
            tally.retried(task, FAILED)
            tally.submitted([spec(index=index, attempt=1)])
        else:
            tally.event(Finished(task, SUCCEEDED if what == "done" else FAILED))
            ended.add(index)
        found = running_status(tally, started)
        counts = found["tasks"]
        assert min(counts.values()) >= 0
        assert counts["done"] + counts["failed"] + counts["running"] <= counts["total"] == 6
        assert len(json.dumps(found)) < 10_000
    assert final_status(tally, started, RunResult(RunEnd.CANCELLED), 0.0)["tasks"]["running"] == 0
