"""Calls the functions of ``@exit_hook`` when a run has ended, whatever they do to themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import click

from k8sflow.errors import K8sflowError
from k8sflow.executors.base import Executor, Finished, Output
from k8sflow.runtime.core.clock import RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.core.loop import Report
from k8sflow.runtime.progress.text import OutputLines, brief, prefixed
from k8sflow.storage.records import RunRecord
from k8sflow.task.inside import exit_hooks
from k8sflow.task.result import TaskResult


def call(record: RunRecord, executor_of: Callable[[Report], Executor], *, is_success: bool) -> None:
    """Calls the hooks of a run that has ended, one after the other; a hook that fails is reported, and changes nothing.

    Args:
        record: The run's record.
        executor_of: Makes what runs them.
        is_success: Whether the run has succeeded; a run that was cancelled has not.
    """
    specs = exit_hooks.specs(record, "on_success" if is_success else "on_error")
    if not specs:
        return
    inbox = Inbox()
    try:
        executor = executor_of(inbox.put)
    except (K8sflowError, OSError) as error:
        _say(f"The exit hooks can't be called: {error}")
        return
    try:
        for name, spec in specs:
            executor.submit([spec])
            result = _shown(inbox, name)
            if result.outcome.is_failure:
                _tell(name, result)
        executor.close()
    except (K8sflowError, OSError) as error:
        _say(f"The exit hook {name} can't be called: {error}")
        with suppress(K8sflowError):
            executor.cancel()
    except KeyboardInterrupt:
        _say(f"The exit hook {name} was interrupted; the run's result stays as it is.")
        executor.cancel()


def _shown(inbox: Inbox, name: str) -> TaskResult:
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
                _print(name, lines[stream].add(data))
            case Finished(_, result):
                for rest in lines.values():
                    _print(name, rest.end())
                return result
            case _:
                continue


def _print(name: str, lines: str) -> None:
    if lines:
        click.echo(prefixed(f"[exit hook {name}] ", lines, coloured=False), nl=False)


def _tell(name: str, result: TaskResult) -> None:
    diagnosis = result.diagnosis
    why = brief(diagnosis.summary) if diagnosis is not None else result.outcome.value
    _say(f"The exit hook {name} failed: {why}")
    if diagnosis is not None and diagnosis.detail:
        click.echo("\n".join(f"    {line}" for line in diagnosis.detail.splitlines()))


def _say(text: str) -> None:
    click.secho(text, fg="yellow")
