"""``kubernetes describe``: a task's Job and pod, their conditions and events, and what they mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from k8sflow import units
from k8sflow.kubernetes import waiting
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.live import LiveTask, events_of, largest_node
from k8sflow.kubernetes.manifest import Manifest
from k8sflow.kubernetes.pod import CONTAINER
from k8sflow.task.result import TaskResult

_MOST_EVENTS = 15


async def describe(api: KubernetesApi, namespace: str, task: LiveTask) -> list[tuple[str, str]]:
    """The description of a task, as ``described`` gives it.

    Args:
        api: The API server.
        namespace: The task's namespace.
        task: The task.
    """
    return list(described(task, *await _looked_up(api, namespace, task)))


async def document(api: KubernetesApi, namespace: str, task: LiveTask) -> dict[str, Any]:
    """The facts of ``describe`` for programs, in the types of JSON; the arguments are its."""
    events, namespace, node = await _looked_up(api, namespace, task)
    found = _result(task, events, node)
    why = None if found is None else found.failure
    resources = _container(task).get("resources") or {}
    return {
        "job": task.job_name,
        "namespace": namespace,
        "diagnosis": None
        if why is None
        else {
            "outcome": None if found is None else found.outcome.value,
            "summary": why.summary,
            "detail": why.detail,
            "resolution": why.resolution,
        },
        "image": _container(task)["image"],
        "requests": resources.get("requests") or {},
        "limits": resources.get("limits") or {},
        "job_conditions": _conditions(task.job),
        "pod_conditions": _conditions(task.pod or {}),
        "events": [
            {
                "time": waiting.time_of(event),
                "reason": event.get("reason"),
                "message": event.get("message"),
                "count": event.get("count") or 1,
            }
            for event in events
        ],
    }


async def _looked_up(
    api: KubernetesApi, namespace: str, task: LiveTask
) -> tuple[list[Manifest], str, tuple[str, str] | None]:
    """The events, the namespace and the largest node, as ``described`` takes them."""
    node = await largest_node(api) if task.phase == "waiting" else None
    return await events_of(api, namespace, task), namespace, node


def described(
    task: LiveTask, events: Sequence[Manifest], namespace: str, node: tuple[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Pairs of a title and a text, for people; an empty title continues the one before.

    Args:
        task: The task.
        events: The events of its Job and pod, the newest last.
        namespace: Their namespace.
        node: Allocatable cores and memory of the largest node, where that is known.
    """
    yield "task", f"{task.run}/{task.step}/{task.task}, attempt {task.attempt}"
    yield "state", f"{task.phase}; its Job was created {units.duration(max(0.0, time.time() - task.created))} ago"
    yield from _diagnosis(task, events, node)
    yield "job", f"{task.job_name} in namespace {namespace}"
    if task.pod is None:
        yield "pod", "none"
    else:
        yield "pod", task.pod_name
        yield "node", task.node or "none yet"
    container = _container(task)
    resources = container.get("resources") or {}
    yield "image", str(container["image"])
    for key in ("requests", "limits"):
        yield key, ", ".join(f"{name}={amount}" for name, amount in (resources.get(key) or {}).items()) or "none"
    for title, found in (("job condition", task.job), ("pod condition", task.pod or {})):
        for number, each in enumerate(_conditions(found)):
            why = ": ".join(filter(None, [each["reason"], each["message"]]))
            yield "" if number else title, f"{each['type']} is {each['status']}" + (f" ({why})" if why else "")
    yield from _events(events)


def _events(events: Sequence[Manifest]) -> Iterator[tuple[str, str]]:
    """The newest events; equal ones once, with the time of the last and their number."""
    counts: dict[str, int] = {}
    times: dict[str, str] = {}
    for event in events:
        text = f"{event.get('reason')}: {event.get('message')}"
        counts[text] = counts.pop(text, 0) + (event.get("count") or 1)
        times[text] = waiting.time_of(event)[11:19]
    title = "events"
    for text in list(counts)[-_MOST_EVENTS:]:
        yield title, f"{times[text]}  {text}" + (f" ({counts[text]} times)" if counts[text] > 1 else "")
        title = ""
    if not counts:
        yield title, "none (Kubernetes keeps them for an hour), or they may not be read"


def _diagnosis(task: LiveTask, events: Sequence[Manifest], node: tuple[str, str] | None) -> Iterator[tuple[str, str]]:
    """The diagnosis in words: why the task waits, or how it failed."""
    found = _result(task, events, node)
    if found is not None and found.failure is not None:
        why = found.failure
        yield "diagnosis", why.summary
        yield from (("", part) for part in (why.detail, why.resolution) if part)


def _result(task: LiveTask, events: Sequence[Manifest], node: tuple[str, str] | None) -> TaskResult | None:
    """The end of the task, or the reason why it waits; None if it has neither."""
    found: TaskResult | None = None
    if task.end is not None:
        found = task.end.result
    elif task.phase in {"no pod yet", "starting", "waiting"}:
        found = task.diagnosis(node)
        if found is None and task.pod is None:
            found = waiting.without_pod(e for e in events if e.get("reason") == "FailedCreate").get(task.job_name)
        elif found is None:
            found = waiting.from_events(events)
    return found


def _container(task: LiveTask) -> Manifest:
    template = task.pod if task.pod is not None else task.job["spec"]["template"]
    return next(each for each in template["spec"]["containers"] if each["name"] == CONTAINER)


def _conditions(found: Manifest) -> list[dict[str, str]]:
    keys = ("type", "status", "reason", "message")
    return [
        {key: str(each.get(key) or "") for key in keys} for each in (found.get("status") or {}).get("conditions") or ()
    ]
