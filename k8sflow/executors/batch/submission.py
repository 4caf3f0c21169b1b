"""The requests of jobs: from tasks and options to the documents of the API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

from k8sflow.aws.definition import (
    DEFAULT_DEADLINE_SECONDS,
    MEMORY_VARIABLE,
    TASKS_PARAMETER,
    Definition,
    resources,
    variables,
)
from k8sflow.aws.document import Document
from k8sflow.aws.names import job_name
from k8sflow.errors import BatchError
from k8sflow.executors.agent_arguments import environment, task_arguments
from k8sflow.executors.context import RunContext
from k8sflow.flow.decorators.batch_options import BatchOptions
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.launch import agent_words

# https://docs.aws.amazon.com/batch/latest/userguide/array_jobs.html
MOST_CHILDREN = 10_000
# ECS takes 8192 characters for the JSON of the overrides of a job:
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html
_MOST_OVERRIDES = 7_500
# https://docs.aws.amazon.com/batch/latest/userguide/using-tags.html
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+@-]")
_LONGEST_TAG = 256
_MODULE = "k8sflow.task.host.in_batch"
# The position of the tasks in the command of a job.
_TASKS_WORD = len(agent_words(_MODULE))


def definition_of(context: RunContext, tasks: TaskBatch, options: BatchOptions, *, is_fargate: bool) -> Definition:
    """The job definition of some tasks: that of their step, unless they run together.

    Args:
        context: The run.
        tasks: The tasks.
        options: The options of their step.
        is_fargate: Whether they run on Fargate.
    """
    nodes = tasks.template.nodes
    words = [*_command(context, tasks, options)] if nodes > 1 else []
    if words:
        words[_TASKS_WORD] = f"Ref::{TASKS_PARAMETER}"
    return Definition(options, environment(context.settings, context.record), is_fargate, nodes, words)


def request_of(
    context: RunContext,
    tasks: TaskBatch,
    options: BatchOptions,
    queue: str,
    definition: str,
    *,
    is_fargate: bool = False,
) -> Document:
    """The request for the job of some tasks: an array job where there are several, which don't run together.

    Args:
        context: The run.
        tasks: The tasks.
        options: The options of their step.
        queue: The job queue.
        definition: The ARN of the job definition.
        is_fargate: Whether they run on Fargate.

    Raises:
        BatchError: The request is longer than AWS allows.
    """
    first = tasks.template
    request: Document = {
        "jobName": job_name(
            flow=first.flow, run=first.run, step=first.name.step, tasks=tasks.ids, attempt=first.attempt
        ),
        "jobQueue": queue,
        "jobDefinition": definition,
        "retryStrategy": {"attempts": 1},  # the driver retries: it knows which failures are the step's own
        "timeout": {"attemptDurationSeconds": options.deadline_seconds or DEFAULT_DEADLINE_SECONDS},
        "tags": _tags(context, tasks, options),
        "propagateTags": True,
    }
    if first.nodes > 1:
        return {**request, "parameters": {TASKS_PARAMETER: tasks.to_json()}}
    overrides = _overrides(context, tasks, options, is_fargate=is_fargate)
    if (length := _length(overrides)) > _MOST_OVERRIDES:
        raise BatchError(
            f"the command and the variables of the job have {length} characters, and AWS takes {_MOST_OVERRIDES}.",
            advice="Set fewer or shorter variables (env of @batch, vars of @environment).",
            code="TooLong",
        )
    array = {"arrayProperties": {"size": len(tasks)}} if len(tasks) > 1 else {}
    return {**request, **array, "containerOverrides": overrides}


def _overrides(context: RunContext, tasks: TaskBatch, options: BatchOptions, *, is_fargate: bool = False) -> Document:
    """The part of a job that its definition lacks: its command, and more memory; for one of the user's, everything."""
    found: Document = {"command": _command(context, tasks, options)}
    memory = tasks.template.memory
    if memory:
        options = replace(options, memory=memory)
    if options.job_definition is not None:
        found["environment"] = variables(options, environment(context.settings, context.record))
    elif memory:  # the definition has the other variables
        found["environment"] = [each for each in variables(options, {}) if each["name"] == MEMORY_VARIABLE]
    if "environment" in found:
        found["resourceRequirements"] = resources(options, is_fargate=is_fargate)
    return found


def _length(overrides: Document) -> int:
    return len(json.dumps(overrides))


def tasks_of(job: Document) -> TaskBatch | None:
    """The tasks that a job was submitted with, from its description; None where it isn't one of a run."""
    words = (job.get("container") or {}).get("command") or []
    text = (job.get("parameters") or {}).get(TASKS_PARAMETER) or (words[_TASKS_WORD : _TASKS_WORD + 1] or [""])[0]
    try:
        return TaskBatch.from_json(text)
    except ValueError:
        return None


def in_requests(context: RunContext, tasks: TaskBatch, options: BatchOptions) -> Iterator[TaskBatch]:
    """The tasks in as many parts as it takes for each to fit into a request: scattered branches need more room."""
    is_whole = len(tasks) == 1 or tasks.template.nodes > 1
    if is_whole or _length(_overrides(context, tasks, options)) <= _MOST_OVERRIDES:
        yield tasks
        return
    middle = len(tasks) // 2
    for part in (tasks[:middle], tasks[middle:]):
        yield from in_requests(context, TaskBatch.of(part), options)


def _command(context: RunContext, tasks: TaskBatch, options: BatchOptions) -> list[str]:
    return [*agent_words(_MODULE, options.executable), *task_arguments(context, tasks)]


def _tags(context: RunContext, tasks: TaskBatch, options: BatchOptions) -> dict[str, str]:
    first = tasks.template
    own = {"flow": first.flow, "run": first.run, "step": first.name.step, "user": context.record.user}
    named = {f"k8sflow:{name}": _NOT_IN_TAGS.sub("_", value)[:_LONGEST_TAG] for name, value in own.items() if value}
    return {**(options.aws_batch_tags or {}), **named}
