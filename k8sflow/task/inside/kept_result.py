"""Keeps the result of a task under ``@cache`` for later runs, if the files from which it ran are still the same."""

from __future__ import annotations

import sys

from k8sflow.flow.script import script_of
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.file_state import newest_change, signature
from k8sflow.task.cached import HARMLESS, Keys, Result, keep
from k8sflow.task.spec import TaskSpec


def keep_result(flow: type[FlowSpec], keys: Keys, plan: CachePlan, spec: TaskSpec, result: Result) -> None:
    """Makes the result of a task usable for later runs; if that isn't possible, its output says why.

    Args:
        flow: The flow.
        keys: Makes the keys.
        plan: What ``@cache`` does for the step.
        spec: The task.
        result: Its result, which is committed.
    """
    if spec.nodes > 1:
        return
    if plan.refused:
        _say("; ".join(plan.refused))
        return
    try:
        if plan.signature:
            folder = script_of(flow).folder
            if signature(folder, plan.outside) != plan.signature:
                _, file = newest_change(folder, plan.outside)
                _say(f"files of the flow's folder have changed since the run started, the last one is {file}. "
                     "Exclude files that the flow writes by lines in .k8sflowignore.")  # fmt: skip
                return
        keep(keys, plan, spec, result)
    except HARMLESS as error:
        _say(error.summary)


def _say(why: str) -> None:
    print(f"[k8sflow] @cache doesn't keep this result: {why}", file=sys.stderr)  # noqa: T201  a line of the task's own output
