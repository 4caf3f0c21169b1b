"""Calls the functions of ``@exit_hook`` when a run has ended, whatever they do to themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from k8sflow.errors import K8sflowError
from k8sflow.executors.base import Executor, Finished, Output, Report
from k8sflow.executors.context import KUBERNETES, LOCAL
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, RESOURCES, merge
from k8sflow.runtime.core.clock import RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.progress.text import OutputLines, brief, prefixed
from k8sflow.runtime.session import Session
from k8sflow.storage.records import RunRecord
from k8sflow.task import exit_hooks
from k8sflow.task.result import TaskResult


def call_here(session: Session, console: Console, *, is_success: bool) -> None:
    """Calls the hooks of a run on this machine; as ``call``."""
    call(session.record, console, lambda report: session.executor(LOCAL, report, max_workers=1), is_success=is_success)


def call_in_pods(session: Session, console: Console, owner: dict[str, Any], *, is_success: bool) -> None:
    """Calls the hooks of a run, each in a pod like that of the end step, without its resources; as ``call``."""
    own = replace(session.placement.pods[session.graph.end], **dict.fromkeys(RESOURCES))
    placement = replace(session.placement, pods={exit_hooks.STEP: merge(own, DEFAULT_OPTIONS)})
    inside = replace(session, placement=placement)
    call(
        session.record,
        console,
        lambda report: inside.executor(KUBERNETES, report, owner=owner),
        is_success=is_success,
    )


def call(record: RunRecord, console: Console, executor_of: Callable[[Report], Executor], *, is_success: bool) -> None:
    """Calls the hooks of a run that has ended, one after the other; a hook that fails is reported, and changes nothing.

    Args:
        record: The run's record.
        console: Shows their output.
        executor_of: Makes the executor that runs them.
        is_success: Whether the run has succeeded; a run that was cancelled has not.
    """
    specs = exit_hooks.specs(record, "on_success" if is_success else "on_error")
    if not specs:
        return
    inbox = Inbox()
    try:
        executor = executor_of(inbox.put)
    except (K8sflowError, OSError) as error:
        console.say(f"The exit hooks can't be called: {error}", Tone.NOTICE)
        return
    try:
        for name, spec in specs:
            executor.submit([spec])
            result = _shown(inbox, name, console)
            if result.outcome.is_failure:
                _explain(name, result, console)
        executor.close()
    except (K8sflowError, OSError) as error:
        console.say(f"The exit hook {name} can't be called: {error}", Tone.NOTICE)
        with suppress(K8sflowError):
            executor.cancel()
    except KeyboardInterrupt:
        console.say(f"The exit hook {name} was interrupted; the run's result stays as it is.", Tone.NOTICE)
        executor.cancel()


def _shown(inbox: Inbox, name: str, console: Console) -> TaskResult:
    """The result of a hook, whose output is shown as it comes.

    Raises:
        Exception: What the executor reports where it can't go on.
    """
    clock, lines = RealClock(), {"stdout": OutputLines(), "stderr": OutputLines()}
    while True:
        match clock.wait(inbox, None):
            case Exception() as error:
                raise error
            case Output(_, stream, data):
                _print(name, lines[stream].add(data), console)
            case Finished(_, result):
                for rest in lines.values():
                    _print(name, rest.end(), console)
                return result
            case _:
                continue


def _print(name: str, lines: str, console: Console) -> None:
    if lines:
        console.write(prefixed(f"[exit hook {name}] ", lines, coloured=False))


def _explain(name: str, result: TaskResult, console: Console) -> None:
    diagnosis = result.diagnosis
    why = brief(diagnosis.summary) if diagnosis is not None else result.outcome.value
    console.say(f"The exit hook {name} failed: {why}", Tone.NOTICE)
    if diagnosis is not None and diagnosis.detail:
        console.say("\n".join(f"    {line}" for line in diagnosis.detail.splitlines()))
