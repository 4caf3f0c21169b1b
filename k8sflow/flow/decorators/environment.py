"""``@environment``: sets environment variables for a step."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Decoration, Option, decorator
from k8sflow.flow.decorators.pod_variables import check_names

# Set by a pod's agent: the runtime's folder, then those of the image's PYTHONPATH.
PODS_PYTHONPATH = "K8SFLOW_POD_PYTHONPATH"


def variables(value: object) -> dict[str, str]:
    """A table of environment variables.

    Raises:
        ValueError: It isn't one.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} is not a dictionary of variables")  # noqa: TRY004  one refusal
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} can't be the name of a variable")
        if not isinstance(text, str | int | float) or isinstance(text, bool) or "\0" in str(text):
            raise ValueError(f"the value of {name!r} has to be a text")
    return {name: str(text) for name, text in value.items()}


def _given(value: object) -> dict[str, str]:
    """The variables that a step writes: without those whose value is None, as ``os.environ.get`` has it.

    Raises:
        ValueError: It isn't a table of variables.
    """
    if isinstance(value, Mapping):
        written = {name: text for name, text in value.items() if text is not None}
        value = {name: str(text) if isinstance(text, bool | os.PathLike) else text for name, text in written.items()}
    return variables(value)


def python_path(users: str, pods: str) -> str:
    """The PYTHONPATH of a pod: the runtime's folder, the user's, then those of the image.

    Args:
        users: What the user wrote.
        pods: The runtime's folder and those of the image, which a Python that the step starts needs too.
    """
    runtime, *images = pods.split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(part for part in (runtime, *users.split(os.pathsep), *images) if part))


def _in_pod(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables; in a pod, their PYTHONPATH is joined with those of the runtime and the image."""
    if "PYTHONPATH" in variables and (pods := os.environ.get(PODS_PYTHONPATH)):
        return {**variables, "PYTHONPATH": python_path(variables["PYTHONPATH"], pods)}
    return dict(variables)


@contextmanager
def setting(variables: Mapping[str, str]) -> Generator[None, None, None]:
    """Sets variables until the block ends: a task's process ends with its step, but a test's doesn't."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(_in_pod(variables))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _around(_step_name: str, _flow: Any, _inputs: Any, attributes: Mapping[str, Any]) -> Generator[None, None, None]:
    with setting(attributes["vars"] or {}):
        yield


@decorator("sets environment variables for the step", around=_around, outermost=True, repeats=True)
def environment(
    *,
    vars: Annotated[Mapping[str, Any] | None, Option(_given, "a dictionary of variables")] = None,  # noqa: A002
) -> None: ...


def variables_of(decorations: Sequence[Decoration]) -> dict[str, str]:
    """The variables that a step's ``@environment`` decorators set; the one next to the step wins.

    Raises:
        FlowDefinitionError: An option can't be used.
    """
    found: dict[str, str] = {}
    for decoration in reversed(decorations):
        if decoration.name == environment.name:
            found |= decoration.parsed()["vars"] or {}
    return found


def variables_elsewhere(decorations: Sequence[Decoration], system: str) -> dict[str, str] | None:
    """The variables that ``@environment`` sets in a pod or job, whose manifest has them as well; None for none.

    Args:
        decorations: The decorators.
        system: Where the pod or job runs, for the error.

    Raises:
        FlowDefinitionError: It sets a variable that a step can't set there.
    """
    found = variables_of(decorations)
    try:
        check_names(found)
    except ValueError as error:
        raise FlowDefinitionError(f"@environment can't set one of its variables on {system}: {error}.") from error
    return found or None
