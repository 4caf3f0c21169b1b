"""Diagnoses of containers that end or can't start, whatever system runs them: Kubernetes or AWS Batch.

The container runtimes, registries and kernels behind both say the same; what to do about it is the system's to say.
"""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from enum import Enum

from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult, failed
from k8sflow.version import VERSION

SIGNALLED = 128  # exit codes above are signals of Linux, whatever the system that reads them
_SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV", 13: "SIGPIPE", 24: "SIGXCPU"}
_SENT = {9: "SIGKILL", 15: "SIGTERM"}
# The exit codes of a container that something outside of it has killed.
SIGNALS_FROM_OUTSIDE = frozenset(SIGNALLED + number for number in _SENT)
# The kernel's ENOEXEC, as the container's runtime writes it to the log when it has become the container.
_NOT_EXECUTABLE = re.compile(r"exec \S+: exec format error")
# What container runtimes say where the program is missing; a device, a volume or a folder may be missing too:
# https://github.com/opencontainers/runc/blob/main/libcontainer/standard_init_linux.go
_NO_PROGRAM = re.compile(
    r"executable file( \S+)? not found"
    r"|(exec:? (\"[^\"]+\"|\S+):|\bstat [^/\s]+:)( stat \S+:)?"
    r" (no such file or directory|permission denied|is a directory)",
    re.IGNORECASE,
)
_MORE_MEMORY = Decimal("1.5")
_MEMORY_STEP = 1000
_SMALL_MEMORY_STEP = 100


class PullProblem(Enum):
    """Why an image can't be pulled; the value says it in words."""

    ARCHITECTURE = "it has no variant for the node's architecture"
    UNREACHABLE = "the node can't reach the registry"
    REFUSED = "the registry refuses it, because it is private or doesn't exist"
    MISSING = "it does not exist"
    NAME = "its name is not a valid image reference"
    UNKNOWN = "see below"

    @staticmethod
    def of(detail: str, image: str) -> PullProblem:
        """The problem that a container runtime or a registry reports about an image, whatever words its name has."""
        low = detail.lower()
        repository = re.sub(r"@.*$|:[^:/]*$", "", image.lower())
        for name in (image.lower(), repository, re.sub(r"^[^/]*[.:][^/]*/", "", repository)):
            low = low.replace(name, "IMAGE") if name else low
        return next(
            (problem for problem, words in _PULL_WORDS.items() if any(each in low for each in words)),
            PullProblem.UNKNOWN,
        )


# The order counts: a registry that refuses often adds that the image may not exist, so as not to tell.
_PULL_WORDS = {
    PullProblem.ARCHITECTURE: ("no match for platform", "no matching manifest"),
    PullProblem.UNREACHABLE: ("no such host", "i/o timeout", "connection refused", "dial tcp"),
    PullProblem.REFUSED: (
        "unauthorized",
        "denied",
        "forbidden",
        "authentication required",
        "authorization failed",
        "no basic auth credentials",
    ),
    PullProblem.MISSING: ("not found", "manifest unknown", "does not exist", "no such image"),
    PullProblem.NAME: ("invalid reference format", "couldn't parse image"),
}


def cancelled() -> TaskResult:
    """The task was stopped because the run was cancelled."""
    return failed(Outcome.CANCELLED, "it was stopped because the run was cancelled.")


def timed_out(deadline_seconds: int | None, detail: str) -> TaskResult:
    """The deadline of the task's pod or job passed."""
    limit = f" of {deadline_seconds} s" if deadline_seconds else ""
    return failed(
        Outcome.TIMED_OUT,
        f"it was stopped because its deadline{limit} had passed.",
        detail,
        "Allow more time (deadline_seconds), or split the work.",
    )


def killed(exit_code: int, system: str, detail: str, advice: str) -> TaskResult:
    """The container was ended by SIGKILL or SIGTERM, and it is not known who sent it."""
    name = _SENT.get(exit_code - SIGNALLED, "a signal")
    return failed(
        Outcome.NODE_LOST,
        f"its container was ended by {name} (exit code {exit_code}); {system} gave no reason.",
        detail,
        advice,
    )


def no_result(exit_code: int | None, reason: str, detail: str) -> TaskResult:
    """The container ended, and its agent stored no result anywhere."""
    code = "" if exit_code is None else f" with exit code {exit_code}"
    how = f"its container ended{code} ({reason or 'no reason given'})"
    if exit_code is not None and (name := _SIGNALS.get(exit_code - SIGNALLED)) is not None:
        how = f"its container was killed by {name} (exit code {exit_code})"
    return failed(
        Outcome.USER_ERROR,
        f"{how} without a result.",
        detail,
        "See the last lines of its output. A task must not end the process that runs it.",
    )


def cant_execute(image: str, executable: str | None, decorator: str, detail: str) -> TaskResult:
    """The image lacks the program that the container should run.

    Args:
        image: The image.
        executable: The option of that name; None for python3.
        decorator: The decorator that has the option.
        detail: The evidence.
    """
    if executable is not None:
        advice = f"Name another Python of the image, 3.10 or newer: {decorator}(executable=…)."
    else:
        advice = "Use an image with Python 3.10 or newer as python3 on its PATH, or name it: executable=…."
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has no {executable or 'python3'} that can be executed.",
        detail,
        advice,
    )


def wrong_architecture(image: str, detail: str, advice: str) -> TaskResult:
    """The kernel can't run the image's programs."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has programs for another architecture than the node's.",
        detail,
        f"Build the image for the nodes' architecture (`docker build --platform`){advice}.",
        is_final=True,
    )


def no_runtime(image: str, detail: str, advice: str, *, is_final: bool = False) -> TaskResult:
    """Python started, but found no k8sflow."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} doesn't contain the k8sflow runtime.",
        detail,
        advice,
        is_final=is_final,
    )


def other_runtime(image: str, detail: str, advice: str, *, is_final: bool = False) -> TaskResult:
    """The runtime in the image is of another version than the driver."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} runs with another version of k8sflow than {VERSION}, which started the run.",
        detail,
        f"Build the image on the k8sflow image {VERSION}{advice}.",
        is_final=is_final,
    )


def cant_be_executed(message: str) -> bool:
    """True if a container runtime says that the kernel can't run the container's program."""
    return "exec format error" in message.lower()


def has_no_program(message: str) -> bool:
    """True if a container runtime says that the image lacks the container's program, or that it can't be executed."""
    return _NO_PROGRAM.search(message) is not None


def was_not_executed(output: str) -> bool:
    """True if the whole output of a container is that the kernel can't run its program: a step may print it too."""
    return _NOT_EXECUTABLE.fullmatch(output.strip()) is not None


def with_evidence(result: TaskResult, *evidence: str, tail: str = "") -> TaskResult:
    """The failure with more evidence, and with the last lines that the task wrote, if it doesn't have them."""
    detail = result.explained.detail
    last_lines = f"Its last lines:\n{tail}" if tail and tail not in detail else ""
    text = "\n".join(part for part in (detail, *evidence, last_lines) if part)
    return replace(result, failure=replace(result.explained, detail=text))


def more_memory(used: Decimal) -> int:
    """A round amount to request after an amount was too little, in the same unit."""
    wanted = used * _MORE_MEMORY
    step = _MEMORY_STEP if wanted >= 2 * _MEMORY_STEP else _SMALL_MEMORY_STEP
    return int((wanted / step).to_integral_value(ROUND_CEILING)) * step
