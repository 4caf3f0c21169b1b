"""Messages about packages that the environment of one step has, and that of another one doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from k8sflow.environments.lock import Lock
from k8sflow.errors import ArtifactError
from k8sflow.flow.missing_module import package_of
from k8sflow.task.result import TaskResult


def explained(result: TaskResult, error: BaseException, step: str, locks: Mapping[str, Lock]) -> TaskResult:
    """The result of a failed task, with advice where the packages of its step are the reason.

    Args:
        result: The result.
        error: The exception.
        step: The step.
        locks: The locks of the run's steps.
    """
    try:
        advice = lacking(error, step, locks) or _differing(error, step, locks)
    except Exception:  # noqa: BLE001  such as no parser of TOML in a pod with Python 3.10: the failure itself counts
        return result
    if not advice or result.failure is None:
        return result
    return replace(result, failure=replace(result.failure, resolution=advice))


def lacking(error: BaseException, step: str, locks: Mapping[str, Lock]) -> str:
    """Advice about a module that a step doesn't have; empty where that is not what happened.

    Args:
        error: The exception.
        step: The step.
        locks: The locks of the run's steps.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = package_of(error.name)
    others = [f"that of step {other} has {found}" for other, found in versions(package, locks).items() if other != step]
    if step in locks:
        having = f"; {', '.join(others)}" if others else ""
        return (
            f"The environment of step {step} has no {error.name}{having}. Add {package} to the step's @pypi, or import "
            "it inside of the steps that use it."
        )
    if not others:
        return ""
    return f"Step {step} has no environment of its own; {', '.join(others)}. Add {package} by @pypi to this step too."


def _differing(error: BaseException, step: str, locks: Mapping[str, Lock]) -> str:
    """Advice about an artifact of a class that a step's packages can't load; empty where another thing happened."""
    if not isinstance(error, ArtifactError) or not error.of_type:
        return ""
    package = package_of(error.of_type)
    found = versions(package, locks)
    others = [f"that of step {other} has {version}" for other, version in found.items() if other != step]
    if not others:
        return ""
    own = f"The environment of step {step} has {found.get(step, f'no {package}')}"
    own = own if step in locks else f"Step {step} has no environment of its own"
    return (
        f"{own}; {', '.join(others)}. Ask for the same version by @pypi in both steps, or pass values of Python's own "
        "types from one to the other."
    )


def versions(package: str, locks: Mapping[str, Lock]) -> dict[str, str]:
    """The versions of a package by the steps whose environment has it, as ``pandas 2.2.3``."""
    return {
        step: f"{found.name} {found.version}".strip()
        for step, lock in locks.items()
        for found in lock.packages
        if found.name == package
    }
