"""The worker against an API server that fails, forgets and lags."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k8sflow.controller.control_loop import ControlLoop
from k8sflow.kubernetes.api import KubernetesApi
from tests.unit.controller.flowrun_api import FlowRunApi, flowrun_api
from tests.unit.controller.objects import POLICY, flowrun, job

Manifest = dict[str, Any]


@pytest.fixture
def server() -> Iterator[FlowRunApi]:
    with flowrun_api() as running:
        yield running


def work(server: FlowRunApi, feed: Callable[[ControlLoop], None], until: Callable[[], object]) -> None:
    """Runs a worker until a condition is true at the server."""

    async def scenario() -> None:
        async with KubernetesApi(server.access, patience_seconds=0.0) as api:
            worker = ControlLoop(api, POLICY, lambda: 0.0)
            running = asyncio.create_task(worker.run())
            feed(worker)
            await asyncio.to_thread(server.wait, until)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def status(server: FlowRunApi, name: str = "sum-run-1") -> Manifest:
    found = server.get("flowruns", name)
    return (found or {}).get("status") or {}


def test_a_flowrun_gets_its_job_and_is_pending(server: FlowRunApi) -> None:
    run = server.put("flowruns", flowrun())
    work(server, lambda worker: worker.flowrun_changed(run, is_deleted=False), lambda: status(server))
    assert status(server)["phase"] == "Pending"
    assert server.names("jobs") == ["sum-run-1-driver"]


def test_a_flowrun_that_is_deleted_meanwhile_gets_no_job(server: FlowRunApi) -> None:
    """Watches of different kinds lag, so the FlowRun is read before any action."""
    deleted, present = flowrun(name="deleted"), server.put("flowruns", flowrun())

    def feed(worker: ControlLoop) -> None:
        worker.flowrun_changed(deleted, is_deleted=False)
        worker.flowrun_changed(present, is_deleted=False)

    work(server, feed, lambda: status(server))
    assert server.names("jobs") == ["sum-run-1-driver"]


def test_a_restarted_controller_leaves_a_running_run_alone(server: FlowRunApi) -> None:
    """It sees the FlowRun before the Job: the create finds the Job, and the driver's status is not overwritten."""
    first = server.put("flowruns", flowrun(status={"phase": "Running", "message": "at work"}))
    server.put("jobs", job(first))
    other = server.put("flowruns", flowrun(name="other"))

    def feed(worker: ControlLoop) -> None:
        worker.flowrun_changed(first, is_deleted=False)
        worker.flowrun_changed(other, is_deleted=False)

    work(server, feed, lambda: status(server, "other"))
    assert status(server)["phase"] == "Running"
    assert status(server)["message"] == "at work"


@pytest.mark.slow
def test_an_error_about_one_flowrun_is_retried_and_does_not_affect_others(server: FlowRunApi) -> None:
    bad, good = server.put("flowruns", flowrun(name="bad")), server.put("flowruns", flowrun(name="good"))
    server.fail("GET", "flowruns/bad", 403, times=1)

    def feed(worker: ControlLoop) -> None:
        worker.flowrun_changed(bad, is_deleted=False)
        worker.flowrun_changed(good, is_deleted=False)

    work(server, feed, lambda: status(server, "good") and status(server, "bad"))
    created = server.asked("POST", "/jobs")
    assert len(created) == 2
    assert server.names("jobs") == ["bad-driver", "good-driver"]


def test_a_deleted_job_is_recreated(server: FlowRunApi) -> None:
    run = server.put("flowruns", flowrun(status={"phase": "Running"}))
    old = job(run)

    def feed(worker: ControlLoop) -> None:
        worker.job_changed(old, is_deleted=False)
        worker.flowrun_changed(run, is_deleted=False)
        worker.job_changed(old, is_deleted=True)

    work(server, feed, lambda: server.names("jobs"))


def test_the_deletion_of_a_job_is_noticed_without_a_watch(server: FlowRunApi) -> None:
    run = server.put("flowruns", flowrun(status={"phase": "Running"}))

    async def scenario() -> None:
        async with KubernetesApi(server.access, patience_seconds=0.0) as api:
            worker = ControlLoop(api, POLICY, lambda: 0.0)
            worker.job_changed(job(run), is_deleted=False)
            worker.flowrun_changed(run, is_deleted=False)
            running = [asyncio.create_task(work) for work in (worker.run(), worker.refresh(0.01))]
            await asyncio.to_thread(server.wait, lambda: server.names("jobs"))
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(scenario())
    assert server.names("jobs") == ["sum-run-1-driver"]
