"""Calls of uv, and its explanations of what went wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from k8sflow.errors import DependencyError

# Variables that name files whose content limits the answer. ``uv pip sync`` refuses them beside a lock.
LIMITS = ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE")
_UNREACHABLE = re.compile(
    r"tcp connect error|dns error|operation timed out|connection (refused|reset)|failed to (fetch|download)",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|os error (28|122)|disk quota", re.IGNORECASE)
_REFUSED = re.compile(r"lack of valid authentication|\b40[13] (unauthorized|forbidden)", re.IGNORECASE)
_UNDEFINED = re.compile(r"is not defined in the project's|extra not found|group .* was not found in", re.IGNORECASE)
_MISMATCH = re.compile(r"hash mismatch", re.IGNORECASE)
_UNKNOWN = re.compile(r"was not found in the (package registry|provided package locations)")
_NO_WHEEL = re.compile(r"has no wheels with a matching|no usable wheels|--no-build|--only-binary", re.IGNORECASE)
_NO_PYTHON = re.compile(r"no interpreter found|no download found|failed to (download|install) python", re.IGNORECASE)
# What uv says, what has happened, and what to do.
_EXPLANATIONS = (
    (_FULL, "can't be installed: the disk is full", "Free some space: `k8sflow env prune` and `uv cache clean` do."),
    (
        _MISMATCH,
        "can't be installed: a file is not the one that was locked",
        "The index or the folder has another file of the same name. If so, add --refresh-environments, or lock again.",
    ),
    (
        _REFUSED,
        "can't be fetched: the index refuses the credentials, or needs some",
        "Name them in ~/.netrc, in UV_INDEX_NAME_USERNAME and UV_INDEX_NAME_PASSWORD, or in the URL of the index.",
    ),
    (
        _UNDEFINED,
        "can't be resolved: the project has no such group or extra",
        "Look at [dependency-groups] and [project.optional-dependencies] of its pyproject.toml.",
    ),
    (
        _UNKNOWN,
        "can't be resolved: a package does not exist",
        "Look for its name on the index; conda's may differ. UV_INDEX, uv.toml or pyproject.toml name other indexes.",
    ),
    (
        _NO_WHEEL,
        "can't be resolved: a package has no wheel for this platform and Python",
        "Ask for another version, or another Python by @pypi(python=…).",
    ),
    (_NO_PYTHON, "can't be prepared: there is no such Python", "Install it, or ask for another @pypi(python=…)."),
    (
        _UNREACHABLE,
        "can't be fetched: the index can't be reached",
        "Look at the network, and at the index: UV_DEFAULT_INDEX, or that of uv.toml or pyproject.toml.",
    ),
)


def program() -> str:
    """The file of uv: that of this environment, else the one on the PATH.

    Raises:
        DependencyError: There is none.
    """
    if importlib.util.find_spec("uv") is not None:
        import uv  # noqa: PLC0415  an optional dependency

        try:
            return uv.find_uv_bin()
        except FileNotFoundError:
            pass

    if (found := shutil.which("uv")) is not None:
        return found
    raise DependencyError(
        "steps with @pypi need uv, which is not installed.",
        cause="It resolves and installs their packages.",
        advice="Install it beside k8sflow: pip install 'k8sflow[pypi]'",
    )


def call(
    what: str, arguments: Sequence[str], folder: Path, text: str = "", variables: Mapping[str, str] | None = None
) -> str:
    """Runs uv; returns its output.

    Args:
        what: What it is for, as the subject of an error: ``the packages of step train``.
        arguments: The command and its options.
        folder: The working folder, in which, and above which, uv looks for its settings.
        text: Its standard input.
        variables: Variables for it alone, such as addresses with credentials, which others see on a command line.

    Raises:
        DependencyError: uv is missing, or failed; its explanation is the cause.
    """
    import subprocess  # noqa: PLC0415  most runs call no uv

    without = {"VIRTUAL_ENV", "PYTHONPATH", *(LIMITS if arguments[:2] == ["pip", "sync"] else ())}
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", **(variables or {})}
    command = [program(), *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise DependencyError(f"{what} can't be prepared: uv can't be started: {error}.") from error
    if done.returncode:
        raise explained(what, done.stderr or f"uv ended with exit code {done.returncode}.")
    return done.stdout


def explained(what: str, said: str) -> DependencyError:
    """The error for a failed call of uv, with its own explanation.

    Args:
        what: What it was for, as the subject of the error.
        said: What uv wrote.
    """
    lines = [line.rstrip() for line in said.strip().splitlines()]
    lines = [
        re.sub(r"^(error|  cause): ", "", line).strip() if index == 0 else line for index, line in enumerate(lines)
    ]
    cause = "\n".join(re.sub(r"^\s+(cause: )?", "  ", line) for line in lines if not line.startswith("warning:"))
    for pattern, happened, advice in _EXPLANATIONS:
        if pattern.search(said):
            return DependencyError(f"{what} {happened}.", cause=cause, advice=advice)
    return DependencyError(
        f"{what} can't be resolved or installed.",
        cause=cause,
        advice="This is what uv says. Change the versions in @pypi or @pypi_base, or the file that they name.",
    )
