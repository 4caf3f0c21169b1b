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
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside import exit_hooks
from k8sflow.task.inside.exit_hooks import HookCall
from k8sflow.task.result import TaskResult
from k8sflow.task.stored_results import write_outcome

MakeExecutor = Callable[[Report, HookCall], Executor]


def call(
    record: RunRecord, run_store: RunStore, executor_of: MakeExecutor, *, is_success: bool, go_on: bool = False
) -> None:
    """Calls the hooks of a run that has ended, one after the other; a hook that fails is reported, and changes nothing.

    The start and the end of each call are recorded with the run, so that a driver that takes over from a dead one
    repeats no call that has ended. A call whose end isn't recorded may be repeated.

    Args:
        record: The run's record.
        run_store: Where the calls are recorded.
        executor_of: Makes what runs a call.
        is_success: Whether the run has succeeded; a run that was cancelled has not.
        go_on: Whether an earlier driver may have made some of the calls.
    """
    for hook in exit_hooks.calls(record, "on_success" if is_success else "on_error"):
        try:
            if not (go_on and _has_ended(run_store, hook)):
                _call(run_store, executor_of, hook)
        except (K8sflowError, OSError) as error:
            _say(f"The exit hook {hook.name} can't be called: {error}")
            return
        except KeyboardInterrupt:
            _say(f"The exit hook {hook.name} was interrupted; the run's result stays as it is.")
            return


def _has_ended(run_store: RunStore, hook: HookCall) -> bool:
    """Whether an earlier driver's call has ended; says so, or that it was started."""
    step, task, attempt = hook.spec.name.step, hook.spec.name.id, hook.spec.attempt
    if (outcome := run_store.read_outcome(step, task, attempt)) is not None:
        _say(f"The exit hook {hook.name} was called by an earlier driver: {outcome.outcome}.")
        return True
    if run_store.is_started(step, task, attempt):
        _say(
            f"The exit hook {hook.name} was started by an earlier driver, and its end isn't recorded: "
            "it is called again, unless its pod still runs."
        )
    return False


def _call(run_store: RunStore, executor_of: MakeExecutor, hook: HookCall) -> None:
    inbox, spec = Inbox(), hook.spec
    executor = executor_of(inbox.put, hook)
    try:
        run_store.write_start(spec.name.step, spec.name.id, spec.attempt)
        executor.submit([spec])
        result = _shown(inbox, hook.name)
        if run_store.read_outcome(spec.name.step, spec.name.id, spec.attempt) is None:  # its process died
            write_outcome(run_store, spec, result)
        if result.outcome.is_failure:
            _tell(hook.name, result)
        executor.close()
    except BaseException:  # whatever ends the call, nothing of it is left running
        with suppress(K8sflowError):
            executor.cancel()
        raise


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
    diagnosis = result.failure
    why = brief(diagnosis.summary) if diagnosis is not None else result.outcome.value
    _say(f"The exit hook {name} failed: {why}")
    if diagnosis is not None and diagnosis.detail:
        click.echo("\n".join(f"    {line}" for line in diagnosis.detail.splitlines()))


def _say(text: str) -> None:
    click.secho(text, fg="yellow")
