"""The interpreters of the environments of a run's steps on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k8sflow.environments.lock import Lock


def what_of(steps: list[str]) -> str:
    """The packages of some steps, as the subject of an error."""
    return f"the packages of {'step' if len(steps) == 1 else 'the steps'} {', '.join(steps)}"


def pythons(locks: Mapping[str, Lock]) -> Callable[[str], str | None]:
    """A function from a step to the interpreter of its environment, or None; an environment that is missing is created.

    Args:
        locks: The locks by step.
    """

    def python_of(step: str) -> str | None:
        from k8sflow.environments import local  # noqa: PLC0415  most flows have no environments

        lock = locks.get(step)
        return None if lock is None else str(local.ensure(what_of([step]), lock))

    return python_of
