"""The controller's decisions: a table of situations, and properties that hold in all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.controller.reconcile import Decision, Observed, reconcile
from k8sflow.kubernetes.flowrun import Phase
from tests.unit.controller.objects import POLICY, flowrun, job, pod

NOW = 1_767_225_600.0
LATER = "2026-01-01T00:01:00Z"
Manifest = dict[str, Any]


def decide(run: Manifest, driver: Manifest | None = None, *pods: Manifest) -> Decision:
    return reconcile(Observed(run, driver, pods, NOW), POLICY)


def test_a_new_flowrun_gets_one_driver_job() -> None:
    """Its name is derived, so a second create finds the first."""
    decision = decide(flowrun())
    assert decision.create is not None
    assert decision.create["metadata"]["name"] == "sum-run-1-driver"
    assert decision.status == {}


def test_a_started_driver_makes_the_flowrun_pending() -> None:
    assert decide(flowrun(), job(flowrun())).status == {
        "phase": "Pending",
        "observedGeneration": 1,
        "message": "",
        "driver": {"job": "sum-run-1-driver", "restarts": 0},
    }


def test_a_lost_driver_job_is_recreated_until_the_run_has_ended() -> None:
    decision = decide(flowrun(status={"phase": "Running"}))
    assert decision.create is not None


@pytest.mark.parametrize(
    ("waiting", "message"),
    [
        (
            {"reason": "ImagePullBackOff", "message": "no such image"},
            "the driver's pod waits: ImagePullBackOff: no such image",
        ),
        ({"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}, 'secret "keys" not found'),
        ({"reason": "ContainerCreating"}, ""),
    ],
)
def test_the_reason_why_a_driver_waits_is_shown(waiting: Manifest, message: str) -> None:
    status = decide(flowrun(), job(flowrun()), pod(waiting=waiting)).status
    assert status["phase"] == "Pending"
    assert message in status["message"]


def test_a_driver_that_fits_no_node_is_shown() -> None:
    stuck = pod()
    stuck["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes: Insufficient memory.",
        }
    ]
    assert "Insufficient memory" in decide(flowrun(), job(flowrun()), stuck).status["message"]


def test_a_live_driver_writes_the_status() -> None:
    """The controller doesn't change phase and message."""
    run = flowrun(
        status={
            "phase": "Running",
            "message": "train/3 waits",
            "observedGeneration": 1,
            "driver": {"job": "sum-run-1-driver", "restarts": 0},
        }
    )
    assert decide(run, job(run), pod(running={})) == Decision()


def test_a_dead_driver_is_shown_until_the_next_one_writes() -> None:
    run = flowrun(status={"phase": "Running"})
    dead = pod(phase="Failed", terminated={"exitCode": 137, "reason": "Error"})
    status = decide(run, job(run, failed=1), dead).status
    assert status["message"] == "another driver takes over: the driver ended with exit code 137."
    assert status["driver"]["restarts"] == 1
    assert "phase" not in status
    starting = pod("p2", created=LATER, waiting={"reason": "ContainerCreating"})
    assert decide(run, job(run, failed=1), dead, starting).status["message"] == "the driver is being restarted."
    assert "message" not in decide(run, job(run, failed=1), dead, pod("p2", created=LATER, running={})).status


def test_the_last_error_of_a_driver_that_gave_up_is_the_message() -> None:
    log = "line\nError: there is no run Sum/r1 in s3://bucket.\nIt may have been removed.\nStart it again.\n"
    ended = pod(phase="Failed", terminated={"exitCode": 1, "reason": "Error", "message": log})
    status = decide(flowrun(), job(flowrun(), failed=1, Failed={"reason": "PodFailurePolicy"}), ended).status
    assert status["phase"] == "Failed"
    assert status["message"] == "there is no run Sum/r1 in s3://bucket.\nIt may have been removed.\nStart it again."
    assert status["finishedAt"] == "2026-01-01T00:00:00Z"


def test_debug_logging_does_not_hide_the_last_error_of_a_driver() -> None:
    record = "2026-11-28T07:40:12.345Z 1 DEBUG k8sflow.kubernetes.api: list pods: stream closed\n"
    ended = pod(phase="Failed", terminated={"exitCode": 1, "message": f"{record}Error: no bucket.\n{record}Set one.\n"})
    status = decide(flowrun(), job(flowrun(), failed=1, Failed={"reason": "PodFailurePolicy"}), ended).status
    assert status["message"] == "no bucket.\nSet one."


def test_a_driver_that_died_too_often_fails_the_flowrun_with_its_last_error() -> None:
    first = pod(phase="Failed", terminated={"exitCode": 1, "reason": "Error", "message": "first"})
    last = pod("p2", created=LATER, phase="Failed", terminated={"exitCode": 137, "reason": "OOMKilled"})
    condition = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
    status = decide(flowrun(), job(flowrun(), failed=6, Failed=condition), first, last).status
    assert status["phase"] == "Failed"
    assert status["message"].startswith("the driver died repeatedly; the last time: the driver's pod used more memory")
    assert "driver.resources.memory" in status["message"]


def test_the_condition_of_a_failed_job_without_pods_is_shown() -> None:
    status = decide(flowrun(), job(flowrun(), Failed={"reason": "DeadlineExceeded", "message": "too long"})).status
    assert (status["phase"], status["message"]) == ("Failed", "the driver's Job failed: too long")


def test_a_driver_that_succeeded_without_a_report_has_succeeded() -> None:
    status = decide(flowrun(status={"phase": "Running"}), job(flowrun(), Complete={})).status
    assert status["phase"] == "Succeeded"


def test_a_job_of_the_same_name_is_not_taken_for_the_drivers() -> None:
    """The owner's uid decides, not labels or the name."""
    foreign = job(flowrun(name="sum-run-1"))
    foreign["metadata"]["ownerReferences"][0]["uid"] = "another"
    decision = decide(flowrun(), foreign)
    assert decision.create is None
    assert decision.status["phase"] == "Pending"
    assert "does not belong to this FlowRun" in decision.status["message"]


def test_a_driver_image_must_be_allowed() -> None:
    refused = decide(flowrun(driver={"image": "evil:1"}))
    assert refused.create is None
    assert refused.status["phase"] == "Failed"
    assert "'evil:1' is not allowed" in refused.status["message"]
    assert decide(flowrun(driver={"image": "k8sflow:2"})).create is not None


def test_a_flowrun_that_is_being_deleted_is_ignored() -> None:
    leaving = flowrun()
    leaving["metadata"]["deletionTimestamp"] = LATER
    assert decide(leaving) == Decision()


states = st.one_of(
    st.just({}),
    st.builds(lambda text: {"waiting": {"reason": "R", "message": text}}, st.text(max_size=3000)),
    st.just({"running": {}}),
    st.builds(
        lambda code, text: {"terminated": {"exitCode": code, "reason": "Error", "message": text}},
        st.integers(0, 255),
        st.text(max_size=3000),
    ),
)
pods = st.lists(
    st.builds(
        lambda number, phase, state: pod(f"p{number}", created=f"2026-01-01T00:00:{number:02}Z", phase=phase, **state),
        st.integers(0, 59),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        states,
    ),
    max_size=4,
)
jobs = st.one_of(
    st.none(),
    st.builds(lambda failed: job(flowrun(), failed=failed), st.integers(0, 6)),
    st.builds(lambda: job(flowrun(), Complete={})),
    st.builds(
        lambda reason, text: job(flowrun(), Failed={"reason": reason, "message": text}),
        st.sampled_from(["BackoffLimitExceeded", "PodFailurePolicy"]),
        st.text(max_size=3000),
    ),
)
phases = st.sampled_from([None, *Phase])


@given(phases, jobs, pods)
def test_decisions_settle_and_stay_small(phase: Phase | None, driver: Manifest | None, found: list[Manifest]) -> None:
    """A status is written once; a final phase never changes; a status stays below 10 KB."""
    before = {"phase": phase.value} if phase is not None else None
    decision = decide(flowrun(status=before), driver, *found)
    status = {**(before or {}), **decision.status}
    assert decide(flowrun(status=status), driver, *found).status == {}
    if phase is not None and phase.is_final:
        assert decision == Decision()
    assert (decision.create is not None) == (driver is None and not (phase is not None and phase.is_final))
    assert len(json.dumps(status)) < 10_000
    assert len(status.get("message", "")) <= 1000
