"""Messages about packages that the environment of one step has, and that of another one doesn't."""

from __future__ import annotations

from collections.abc import Mapping

from k8sflow.environments.lock import Lock
from k8sflow.flow.missing_module import package_of


def lacking(error: BaseException, step: str, locks: Mapping[str, Lock]) -> str:
    """Advice about a module that a step's environment doesn't have; empty where that is not what happened.

    Args:
        error: The exception.
        step: The step.
        locks: The locks of the run's steps.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name or step not in locks:
        return ""
    package = package_of(error.name)
    having = [f"that of {other} has {found}" for other, found in versions(package, locks).items() if other != step]
    others = f"; {', '.join(having)}" if having else ""
    return (
        f"The environment of step {step} has no {error.name}{others}. Add {package} to the step's @pypi, or import it "
        "inside of the steps that use it."
    )


def versions(package: str, locks: Mapping[str, Lock]) -> dict[str, str]:
    """The versions of a package by the steps whose environment has it, as ``pandas 2.2.3``."""
    return {
        step: f"{found.name} {found.version}".strip()
        for step, lock in locks.items()
        for found in lock.packages
        if found.name == package
    }
