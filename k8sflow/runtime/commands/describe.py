"""``kubernetes describe``: a task's Job and pod, their conditions and events, and what they mean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

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
    node = await largest_node(api) if task.phase == "waiting" else None
    return list(described(task, await events_of(api, namespace, task), namespace, node))


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
    yield from _container(task)
    yield from _conditions("job condition", task.job)
    if task.pod is not None:
        yield from _conditions("pod condition", task.pod)
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
    found: TaskResult | None = None
    if task.end is not None:
        found = task.end.result
    elif task.phase in {"no pod yet", "starting", "waiting"}:
        found = task.diagnosis(node)
        if found is None and task.pod is None:
            found = waiting.without_pod(e for e in events if e.get("reason") == "FailedCreate").get(task.job_name)
        elif found is None:
            found = waiting.from_events(events)
    if found is not None and found.failure is not None:
        why = found.failure
        yield "diagnosis", why.summary
        yield from (("", part) for part in (why.detail, why.resolution) if part)


def _container(task: LiveTask) -> Iterator[tuple[str, str]]:
    template = task.pod if task.pod is not None else task.job["spec"]["template"]
    container = next(each for each in template["spec"]["containers"] if each["name"] == CONTAINER)
    resources = container.get("resources") or {}
    yield "image", str(container["image"])
    for title, key in (("requests", "requests"), ("limits", "limits")):
        yield title, ", ".join(f"{name}={amount}" for name, amount in (resources.get(key) or {}).items()) or "none"


def _conditions(title: str, found: Manifest) -> Iterator[tuple[str, str]]:
    for each in (found.get("status") or {}).get("conditions") or ():
        why = ": ".join(filter(None, [each.get("reason"), each.get("message")]))
        yield title, f"{each['type']} is {each['status']}" + (f" ({why})" if why else "")
        title = ""
