"""``@exit_hook``: calls functions when a run has ended."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Decoration, Option, decorator

# When the functions are called.
EVENTS = ("on_success", "on_error")


def _options(value: object) -> dict[str, Any]:
    options = parsers.table(value)
    if unknown := [name for name in options if name != "image"]:
        raise ValueError(f"it has no key {unknown[0]!r}: image is the only one")
    return {"image": parsers.text(options["image"])} if options.get("image") is not None else {}


def _functions(value: object) -> list[Callable[..., object]]:
    if not isinstance(value, list | tuple) or not value or not all(map(callable, value)):
        raise ValueError(f"{value!r} is not a list of functions")
    if inner := [function for function in value if "<" in getattr(function, "__qualname__", "<")]:
        raise ValueError(f"{inner[0]!r} can't be found by its name: define it at the top of its module")
    for function in value:
        if more := _needed(function)[1:]:
            raise ValueError(f"{function.__qualname__} needs {', '.join(more)}: an exit hook gets only the run")
    return list(value)


def _needed(function: Callable[..., object]) -> list[str]:
    """The names of the parameters that a function must be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def _check(options: Mapping[str, Any]) -> None:
    if not options["on_success"] and not options["on_error"]:
        raise ValueError("it needs on_success or on_error")


@decorator("calls functions when a run has ended", on="flow", check=_check, repeats=True)
def exit_hook(
    *,
    on_success: Annotated[
        Sequence[Callable[..., object]] | None, Option(_functions, "the list of functions to call after a success")
    ] = None,
    on_error: Annotated[
        Sequence[Callable[..., object]] | None, Option(_functions, "the list of functions to call after a failure")
    ] = None,
    options: Annotated[
        Mapping[str, Any] | None,
        Option(_options, 'a dictionary that may have "image", the image of the pods of the calls'),
    ] = None,
) -> None: ...


def hooks(decorations: Sequence[Decoration]) -> dict[str, list[Callable[..., object]]]:
    """The functions of all ``@exit_hook`` among a flow's decorators, from top to bottom, by event.

    Raises:
        FlowDefinitionError: An option can't be used.
    """
    found: dict[str, list[Callable[..., object]]] = {}
    for decoration in reversed(decorations):
        if decoration.name == exit_hook.name:
            options = decoration.parsed()
            for event in EVENTS:
                found.setdefault(event, []).extend(options[event] or ())
    return {event: functions for event, functions in found.items() if functions}


def images(decorations: Sequence[Decoration]) -> dict[str, list[str | None]]:
    """The image of each function's pod, in the order of ``hooks``; empty where no decorator names one."""
    found: dict[str, list[str | None]] = {}
    for decoration in reversed(decorations):
        if decoration.name == exit_hook.name:
            options = decoration.parsed()
            for event in EVENTS:
                image = (options["options"] or {}).get("image")
                found.setdefault(event, []).extend([image] * len(options[event] or ()))
    return {event: listed for event, listed in found.items() if any(listed)}
