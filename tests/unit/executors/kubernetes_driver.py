"""The driver's side of an executor against a scripted API server, and the states of pods."""

from __future__ import annotations

import queue
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from k8sflow.config import Settings
from k8sflow.executors.base import Finished, TaskEvent
from k8sflow.executors.context import RunContext
from k8sflow.executors.kubernetes.executor import KubernetesExecutor
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import Commit, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec
from tests.unit.kubernetes.fake_api import DEADLINE_SECONDS, FakeApi

SUCCESS = TaskResult(Outcome.SUCCEEDED, Transition(("end",)))
SETTINGS = Settings(kubernetes_namespace="lab", kubernetes_runtime_image="k8sflow:1")
DEFAULTS = merge(PodOptions(image="k8sflow:1"), DEFAULT_OPTIONS)


class Driver:
    """The driver's side: an executor and what it said."""

    def __init__(
        self,
        server: FakeApi,
        *,
        options: Mapping[str, PodOptions] | None = None,
        settings: Settings = SETTINGS,
        is_traced: bool = False,
        **more: Any,
    ) -> None:
        self.server = server
        self.events: queue.Queue[TaskEvent | BaseException] = queue.Queue()
        self.context = RunContext(
            report=self.events.put,
            record=RunRecord("Demo", "r1", "demo.py", {}, Graph("Demo"), is_traced=is_traced),
            run_store=RunStore(MemoryStore(), "Demo", "r1"),
            settings=settings,
            pods=defaultdict(lambda: DEFAULTS) if options is None else options,
            **more,
        )
        self.executor = KubernetesExecutor(self.context, server.access)

    def commit(self, name: str) -> None:
        """Lets the store have the result of a task, as its pod would have written it."""
        spec = task(name)
        self.context.run_store.commit(spec.name.step, spec.name.id, Commit(0, ("end",), {}))

    def run(self, *names: str) -> list[str]:
        """Submits tasks (``step`` or ``step/1.2``), and returns the names of their Jobs when they are there."""
        specs = [task(name) for name in names]
        before = set(self.server.names("jobs"))
        self.executor.submit(specs)
        self.server.wait(lambda: len(self.server.names("jobs")) >= len(before) + len(specs), "the Jobs")
        self.server.wait(lambda: self.server.watchers, "the watch")
        return [name for name in self.server.names("jobs") if name not in before]

    def next(self, kind: type[Any], *, after: tuple[type[Any], ...] = ()) -> Any:
        """The next event, which has to be of a kind; those of the kinds ``after`` may come before it."""
        event = self.events.get(timeout=DEADLINE_SECONDS)
        while isinstance(event, after) and not isinstance(event, kind):
            event = self.events.get(timeout=DEADLINE_SECONDS)
        assert isinstance(event, kind), event
        return event

    def ends(self, count: int) -> dict[str, Outcome]:
        """The outcomes of the next tasks that end, by id, in their order."""
        found: dict[str, Outcome] = {}
        while len(found) < count:
            event = self.events.get(timeout=DEADLINE_SECONDS)
            if isinstance(event, Finished):
                found[event.task.name.id] = event.result.outcome
        return found


def task(name: str) -> TaskSpec:
    step, _, path = name.partition("/")
    return TaskSpec("Demo", "r1", TaskName(step, tuple(int(part) for part in path.split(".") if part)))


def running() -> dict[str, Any]:
    return status({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running")


def terminated(code: int = 0, reason: str = "Completed", message: str = "") -> dict[str, Any]:
    state = {"exitCode": code, "reason": reason, "message": message, "startedAt": "2026-01-01T00:00:00Z"}
    return status({"terminated": state}, phase="Succeeded" if code == 0 else "Failed")


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return status({"waiting": {"reason": reason, "message": message}}, phase="Pending")


def status(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**more, "containerStatuses": [{"name": "task", "state": state}]}


def with_status(pod: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {**pod, "status": {**pod["status"], **new}}


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000000Z"
