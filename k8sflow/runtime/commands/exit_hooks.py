"""Calls the functions of ``@exit_hook`` when a run has ended, whatever they do to themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from k8sflow.errors import K8sflowError
from k8sflow.executors.base import Executor, Finished, Output, Report
from k8sflow.executors.by_name import KUBERNETES, LOCAL
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, SIZES, merge
from k8sflow.runtime.core.clock import RealClock
from k8sflow.runtime.core.inbox import Inbox
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.progress.output_lines import OutputLines, brief, prefixed
from k8sflow.runtime.session import Session
from k8sflow.storage.run_store import RunStore
from k8sflow.task.inside import exit_hooks
from k8sflow.task.inside.exit_hooks import HookCall
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import EXIT_HOOK_STEP
from k8sflow.task.stored_results import write_outcome

MakeExecutor = Callable[[Report, HookCall], Executor]


def call_here(session: Session, console: Console, *, is_success: bool) -> None:
    """Calls the hooks of a run on this machine.

    Args:
        session: The run, which has ended.
        console: Shows the output of the hooks.
        is_success: Whether the run has succeeded; a run that was cancelled has not.
    """

    def local(report: Report, _hook: HookCall) -> Executor:
        return session.executor(LOCAL, report, max_workers=1)

    call_all(session, console, local, is_success=is_success)


def call_in_pods(session: Session, console: Console, owner: dict[str, Any], *, is_success: bool) -> None:
    """Calls the hooks of a run, each in a pod like that of the end step, without its resources.

    An earlier driver may have made some of the calls.

    Args:
        session: The run, which has ended.
        console: Shows the output of the hooks.
        owner: The ownerReference of the run's FlowRun.
        is_success: Whether the run has succeeded.
    """
    own = replace(session.placement.pods[session.graph.end], **dict.fromkeys(SIZES))

    def pod(report: Report, hook: HookCall) -> Executor:
        options = merge(own if hook.image is None else replace(own, image=hook.image), DEFAULT_OPTIONS)
        inside = replace(session, placement=replace(session.placement, pods={EXIT_HOOK_STEP: options}))
        return inside.executor(KUBERNETES, report, owner=owner)

    call_all(session, console, pod, is_success=is_success, take_over=True)


def call_all(
    session: Session, console: Console, executor_of: MakeExecutor, *, is_success: bool, take_over: bool = False
) -> None:
    """Calls the hooks of a run, one after the other; a hook that fails is reported, and changes nothing.

    The start and the end of each call are recorded with the run, so that a driver that takes over from a dead one
    repeats no call that has ended. A call whose end isn't recorded may be repeated.

    Args:
        session: The run, which has ended.
        console: Shows the output of the hooks.
        executor_of: Makes the executor of a call.
        is_success: Whether the run has succeeded.
        take_over: Whether an earlier driver may have made some of the calls.
    """
    for hook in exit_hooks.calls(session.record, "on_success" if is_success else "on_error"):
        try:
            if not (take_over and _has_ended(session.run_store, hook, console)):
                _call(session.run_store, executor_of, hook, console)
        except (K8sflowError, OSError) as error:
            console.say(f"The exit hook {hook.name} can't be called: {error}", Tone.NOTICE)
            return
        except KeyboardInterrupt:
            console.say(f"The exit hook {hook.name} was interrupted; the run's result stays as it is.", Tone.NOTICE)
            return


def _has_ended(run_store: RunStore, hook: HookCall, console: Console) -> bool:
    """True if an earlier driver's call has ended; prints that, or that it was started."""
    step, task, attempt = hook.spec.name.step, hook.spec.name.id, hook.spec.attempt
    if (outcome := run_store.read_outcome(step, task, attempt)) is not None:
        console.say(f"The exit hook {hook.name} was called by an earlier driver: {outcome.outcome}.", Tone.NOTICE)
        return True
    if run_store.is_started(step, task, attempt):
        console.say(
            f"The exit hook {hook.name} was started by an earlier driver, and its end isn't recorded: "
            "it is called again, unless its pod still runs.",
            Tone.NOTICE,
        )
    return False


def _call(run_store: RunStore, executor_of: MakeExecutor, hook: HookCall, console: Console) -> None:
    inbox, spec = Inbox(), hook.spec
    executor = executor_of(inbox.put, hook)
    try:
        run_store.write_start(spec.name.step, spec.name.id, spec.attempt)
        executor.submit([spec])
        result = _shown(inbox, hook.name, console)
        if run_store.read_outcome(spec.name.step, spec.name.id, spec.attempt) is None:  # its process died
            write_outcome(run_store, spec, result)
        if result.outcome.is_failure:
            _explain(hook.name, result, console)
        executor.close()
    except BaseException:  # whatever ends the call, none of its processes is left running
        with suppress(K8sflowError):
            executor.cancel()
        raise


def _shown(inbox: Inbox, name: str, console: Console) -> TaskResult:
    """The result of a hook, whose output is shown as it comes.

    Raises:
        Exception: The executor's error where it can't continue.
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
    console.say(f"The exit hook {name} failed: {brief(result.explained.summary)}", Tone.NOTICE)
    if result.explained.detail:
        console.say("\n".join(f"    {line}" for line in result.explained.detail.splitlines()))
