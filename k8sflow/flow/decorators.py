"""Step decorators: what a flow says about how a step runs, kept on the step's function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.pod_options import RESOURCES, PodOptions

StepFunction = TypeVar("StepFunction", bound=Callable[..., None])

_STEP = "__k8sflow_step__"
_ENDPOINTS = "__k8sflow_endpoints__"
_DECORATIONS = "__k8sflow_decorations__"


@dataclass(frozen=True)
class Decoration:
    """One decorator on one step: its name, and the options that were written out."""

    name: str
    options: Mapping[str, Any]


@overload
def step(function: StepFunction) -> StepFunction: ...
@overload
def step(*, start: bool = ..., end: bool = ...) -> Callable[[StepFunction], StepFunction]: ...
def step(
    function: StepFunction | None = None, *, start: bool = False, end: bool = False
) -> StepFunction | Callable[[StepFunction], StepFunction]:
    """Marks a method as a step of the flow: ``@step``, or ``@step(start=True)``.

    A step takes ``self``; a step that joins branches takes ``self, inputs``. Its last statement is
    ``self.next(...)``, except in the end step.

    Args:
        function: The method.
        start: Whether the run begins here; without it, at the step that is called ``start``.
        end: Whether the run ends here; without it, at the step that is called ``end``.
    """

    def mark(function: StepFunction) -> StepFunction:
        setattr(function, _STEP, True)
        setattr(function, _ENDPOINTS, (start, end))
        return function

    return mark if function is None else mark(function)


def parallel(function: StepFunction) -> StepFunction:
    """Marks the step that ``self.next(self.train, num_parallel=4)`` runs as processes that know each other.

    ``current.parallel`` tells each of them which one it is, how many there are, and where the first one is.
    """
    setattr(function, _DECORATIONS, (*of(function), Decoration("parallel", {})))
    return function


def resources(
    *,
    cpu: float | str | None = None,
    memory: float | str | None = None,
    gpu: int | None = None,
    disk: float | str | None = None,
    shared_memory: float | str | None = None,
) -> Callable[[StepFunction], StepFunction]:
    """Tells what a step needs where it runs on Kubernetes; a local run takes no notice of it.

    Args:
        cpu: Cores, as a number or a Kubernetes quantity (``"500m"``); requested, not limited.
        memory: Megabytes (10^6 bytes), or a Kubernetes quantity (``"4Gi"``); request and limit.
        gpu: Number of GPUs.
        disk: Ephemeral storage in megabytes, or a Kubernetes quantity.
        shared_memory: Size of /dev/shm in megabytes, or a Kubernetes quantity.
    """
    return _decorator("resources", cpu=cpu, memory=memory, gpu=gpu, disk=disk, shared_memory=shared_memory)


def kubernetes(**options: Any) -> Callable[[StepFunction], StepFunction]:
    """Runs a step as a Kubernetes Job, whatever the rest of the flow does.

    Args:
        options: The fields of ``PodOptions``: image, namespace, service_account, cpu, memory, …
    """
    return _decorator("kubernetes", **options)


def _decorator(name: str, **options: Any) -> Callable[[StepFunction], StepFunction]:
    given = {key: value for key, value in options.items() if value is not None}
    validate(Decoration(name, given))

    def decorate(function: StepFunction) -> StepFunction:
        if not callable(function):
            raise FlowDefinitionError(
                f"@{name} stands on {function!r}, which is not a method.",
                advice=f"Write @{name}(...) above the step's def.",
            )
        decorations = [d for d in of(function) if d.name != name]
        setattr(function, _DECORATIONS, (*decorations, Decoration(name, given)))
        return function

    return decorate


def validate(decoration: Decoration) -> None:
    """Checks a decorator's name and options.

    Raises:
        FlowDefinitionError: There is no such decorator, or an option is wrong.
    """
    if decoration.name not in {"resources", "kubernetes"}:
        raise FlowDefinitionError(
            f"there is no decorator {decoration.name!r}.", advice="The decorators are kubernetes and resources."
        )
    only = RESOURCES if decoration.name == "resources" else ()
    PodOptions.from_mapping(decoration.options, where=f"@{decoration.name}", only=only)


def is_step(member: object) -> bool:
    """Whether a member of a class is a step."""
    return getattr(member, _STEP, False) is True


def endpoints(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a step was marked as the start, and as the end."""
    found: tuple[bool, bool] = getattr(function, _ENDPOINTS, (False, False))
    return found


def of(function: Callable[..., Any]) -> tuple[Decoration, ...]:
    """The decorators of a step, in the order in which they were applied."""
    decorations: tuple[Decoration, ...] = getattr(function, _DECORATIONS, ())
    return decorations


def parse(text: str) -> Decoration:
    """The decorator that ``--with`` names: ``kubernetes`` or ``kubernetes:image=x,memory=4000``.

    Raises:
        FlowDefinitionError: There is no such decorator, or an option is wrong.
    """
    name, _, rest = text.partition(":")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise FlowDefinitionError(
                f"--with {text!r}: {part!r} is not of the form option=value.",
                advice="Write for example --with kubernetes:image=python:3.12,memory=8000",
            )
        options[key.strip()] = value.strip()
    decoration = Decoration(name.strip(), options)
    validate(decoration)
    return decoration
