"""The result and the explanation that follow from an exception."""

from __future__ import annotations

import os
import sysconfig
import traceback
from dataclasses import replace
from pathlib import Path

from k8sflow.errors import AccessError, K8sflowError, OutageError, StorageError, TimeoutException, UnreachableError
from k8sflow.flow.outcome import Outcome
from k8sflow.task.conventions import Surroundings
from k8sflow.task.result import Failure, TaskResult, failed
from k8sflow.task.safe_repr import safe_repr

# A message may hold a whole data frame: the summary goes to the terminal and into several records.
_SUMMARY_CHARACTERS = 2_000
_TRACEBACK_CHARACTERS = 100_000
EXIT_ADVICE = (
    "Each task imports the flow's file, and its command line there is 'step' and the task: don't end the process at "
    "module level, or do it only for the commands that you mean."
)
_IN_A_TEST = (
    "Run the step in a process with a terminal: k8sflow.testing.run_step(Flow, step) in a test or a script "
    "(docs/testing.md). A debugger that is attached over the network works in a task too: PYTHONBREAKPOINT."
)
_OF_INPUT = "EOF when reading a line"
_NO_INPUT = (
    "A task has no terminal to read from: give the value as a Parameter, or read it from a file. "
    "k8sflow.testing.run_step runs a step in this process, where input() works."
)
_OUR_FILES = f"{Path(__file__).resolve().parent.parent}{os.sep}"
# Installed packages may be in a folder below the standard library; they are none of it.
_STANDARD_LIBRARY = f"{sysconfig.get_path('stdlib')}{os.sep}"
_INSTALLED = f"{sysconfig.get_path('purelib')}{os.sep}"


def failure(error: BaseException) -> TaskResult:
    """The result of a task that an exception has ended."""
    if (seconds := _exceeded(error)) is not None:
        return timed_out(seconds, _traceback(error))
    if isinstance(error, (StorageError, AccessError)):
        return not_stored(error)
    if isinstance(error, K8sflowError):
        return TaskResult(Outcome.USER_ERROR, failure=_explained(error))
    return TaskResult(Outcome.USER_ERROR, failure=diagnose(error))


def not_stored(error: K8sflowError) -> TaskResult:
    """The result of a task that the store failed; only what time may heal is worth another execution."""
    found = replace(_explained(error), is_final=not isinstance(error, OutageError))
    return TaskResult(Outcome.STORAGE_ERROR, failure=found)


def never_reached(error: UnreachableError, around: Surroundings) -> TaskResult:
    """The result of a run's first task that can't connect to the bucket where it runs: another one couldn't either."""
    word = around.value
    summary = f"the bucket can't be reached from the {word}: {error.summary}"
    where = "the server's address inside the cluster, for example http://minio.NAMESPACE.svc:9000"
    if around is Surroundings.JOB:
        where = "the server's address as jobs reach it"
    advice = (
        f"Set in_cluster_endpoint (K8SFLOW_IN_CLUSTER_ENDPOINT) to {where}; without it, {word}s use endpoint. "
        "If the server was down, run again."
    )
    if around is Surroundings.JOB:
        advice += " For a bucket of AWS, their subnet needs a public address, a NAT gateway or an endpoint for S3."
    cause = (
        f"The process that started the run reaches it, so {word}s probably have a wrong address, or a policy blocks "
        "them."
    )
    return failed(Outcome.STORAGE_ERROR, summary, cause, advice, is_final=True)


def timed_out(seconds: float, detail: str = "") -> TaskResult:
    """The result of a task that its ``@timeout`` ended."""
    return failed(
        Outcome.TIMED_OUT,
        f"the task took longer than its timeout of {seconds:g} s, and was ended",
        detail,
        "Allow it more time by @timeout, or find out what it waits for: see its last lines of output.",
        error_type=name_of(TimeoutException),
    )


def unloadable(file: str, error: BaseException, around: Surroundings, advice: str = "") -> TaskResult:
    """The result of a task whose flow's file can't even be loaded where it runs.

    Args:
        file: The file.
        error: What its import raised.
        around: Where it runs.
        advice: What to do, where the caller knows.
    """
    found = _exit_at_import(error) if isinstance(error, SystemExit) else diagnose(error)
    if advice or found.resolution:
        missing = advice or found.resolution
    elif around is Surroundings.PROCESS:
        missing = "It could be loaded when the run started: look for what is different in a task."
    elif isinstance(error, ImportError):
        missing = (
            "Install it in the step's image, or put the module into the flow's folder, which travels with the run."
        )
    else:
        missing = f"The file runs on your machine: look for what is different in the {around.value}."
    summary = f"{file} can't be loaded in the {around.value}: {found.summary}"
    return failed(Outcome.USER_ERROR, summary, found.detail, missing)


def _exit_at_import(error: SystemExit) -> Failure:
    """The diagnosis of a flow's file that ends the process while it is imported."""
    called = f"sys.exit({'' if error.code is None else safe_repr(error.code)}) was called"
    frames = _users_frames(error)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    summary = f"{called} while it was imported{where}"
    return Failure(summary, _traceback(error), EXIT_ADVICE, name_of(SystemExit))


def has_entered(error: SystemExit) -> bool:
    """True if an exit came from k8sflow's command line, and not from the import of the flow's file."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is that of the caller
    return any(frame.filename.startswith(_OUR_FILES) for frame in frames)


def diagnose(error: BaseException) -> Failure:
    """The explanation of an exception from the user's code: their frames, without k8sflow's."""
    if isinstance(error, SystemExit):
        return Failure(
            f"the step called sys.exit({'' if error.code is None else safe_repr(error.code)}) before it was finished",
            detail=_traceback(error),
            resolution="Return from the step, or raise an exception where it has failed.",
            error_type=name_of(SystemExit),
        )
    if _is_of_a_debugger(error):
        return Failure(
            "the step stopped in a debugger, as at breakpoint(), and a task has no terminal to debug at",
            detail=_listed(_users_frames(error)),
            resolution=_IN_A_TEST,
            error_type=name_of(type(error)),
        )
    advice = _NO_INPUT if isinstance(error, EOFError) and str(error) == _OF_INPUT else ""
    return Failure(said(error), _traceback(error), advice, name_of(type(error)))


def _exceeded(error: BaseException) -> float | None:
    """The timeout in seconds that an exception is due to, itself or what it was raised from; else None."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, TimeoutException) and found.limit_seconds is not None:
            return found.limit_seconds
        found = found.__cause__ or found.__context__
    return None


def _is_of_a_debugger(error: BaseException) -> bool:
    return type(error).__name__ == "BdbQuit" and type(error).__module__ == "bdb"


def _explained(error: K8sflowError) -> Failure:
    """One of k8sflow's errors in its parts, with the user's lines or the exception that led to it."""
    where = ""
    if frames := _users_frames(error):
        where = _listed(frames)
    elif error.__cause__ is not None and not isinstance(error, StorageError):
        frames = _users_frames(error.__cause__)
        where = f"{_listed(frames)}\n{said(error.__cause__)}" if frames else ""
    detail = "\n".join(filter(None, [error.cause, where]))
    kind = name_of(type(error))
    return Failure(error.titled, detail=detail, resolution=error.advice, error_type=kind)


def said(error: BaseException) -> str:
    """The exception's class and message."""
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001  the error's class is the user's code too, whatever it raises
        message = f"(its __str__ raised {type(broken).__name__})"
    kind = type(error).__name__
    return _cut(f"{kind}: {message}" if message else kind, _SUMMARY_CHARACTERS)


def _listed(frames: list[traceback.FrameSummary]) -> str:
    return f"Traceback (most recent call last):\n{''.join(traceback.format_list(frames)).rstrip()}"


def _users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]


def _is_users(file: str) -> bool:
    """True if a file is neither k8sflow's, with the pickler that we use, nor Python's own."""
    is_pythons = file.startswith((_STANDARD_LIBRARY, "<frozen ")) and not file.startswith(_INSTALLED)
    return not is_pythons and not file.startswith(_OUR_FILES) and f"{os.sep}cloudpickle{os.sep}" not in file


def _traceback(error: BaseException) -> str:
    """The traceback without the frames of this package above the user's code."""
    found = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = found
    while seen is not None:
        frames = [frame for frame in seen.stack if not frame.filename.startswith(_OUR_FILES)]
        if frames:
            seen.stack = traceback.StackSummary.from_list(frames)
        seen = seen.__cause__ or seen.__context__
    return _cut("".join(found.format()).rstrip(), _TRACEBACK_CHARACTERS)


def _cut(text: str, most: int) -> str:
    """The text, or its begin and its end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} … {len(text) - most:,} characters left out … {text[len(text) - most // 2 :]}"


def name_of(kind: type[BaseException]) -> str:
    """The name of an exception's class as Metaflow has it: ``builtins.ValueError``."""
    return f"{kind.__module__}.{kind.__name__}"
