"""``@trigger`` and ``@trigger_on_finish``: start a deployed flow at events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator


def _at_deployment(value: Callable[..., object]) -> dict[str, Any]:
    """A function that a deployment calls for the value; a run that a person starts has no use for it."""
    return {"function": f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}"}


def _event(value: object) -> dict[str, Any]:
    if isinstance(value, str) and value.strip():
        return {"name": value.strip(), "parameters": {}}
    if callable(value):
        return _at_deployment(value)
    name = value.get("name") if isinstance(value, Mapping) and not set(value) - {"name", "parameters"} else None
    if not isinstance(value, Mapping) or not (isinstance(name, str) or callable(name)):
        raise ValueError(f"{value!r} is neither a name nor a dictionary with name and parameters")  # noqa: TRY004
    return {
        "name": _at_deployment(name) if callable(name) else name,
        "parameters": _event_parameters(value.get("parameters") or {}, name),
    }


def _event_parameters(parameters: Any, event: object) -> dict[str, Any]:
    if callable(parameters):
        return _at_deployment(parameters)
    if not isinstance(parameters, Mapping):
        parameters = {
            pair if isinstance(pair, str) else pair[0]: pair if isinstance(pair, str) else pair[1]
            for pair in parameters
        }
    if not all(isinstance(part, str) for pair in parameters.items() for part in pair):
        raise ValueError(f"the parameters of {event!r} are not names of the event's fields")
    return dict(parameters)


def _events(value: object) -> list[dict[str, Any]] | dict[str, Any]:
    if callable(value):
        return _at_deployment(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of events")  # noqa: TRY004  one refusal
    return [_event(item) for item in value]


def _flow_name(value: object) -> dict[str, Any]:
    if isinstance(value, str) and value.strip():
        *where, name = value.strip().split(".")
        project = {"project": where[0]} if where else {}
        return {"name": name, **project, **({"branch": ".".join(where[1:])} if where[1:] else {})}
    if callable(value):
        return _at_deployment(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(f"{value!r} is neither a flow's name nor a dictionary with its name")  # noqa: TRY004
    if unknown := set(value) - {"name", "project", "project_branch", "branch"}:
        raise ValueError(f"{min(unknown)!r} is not a key of a flow: the keys are name, project and branch")
    scope = {"project": value.get("project"), "branch": value.get("project_branch") or value.get("branch")}
    return {"name": value["name"], **{key: text for key, text in scope.items() if text}}


def _flow_names(value: object) -> list[dict[str, Any]] | dict[str, Any]:
    if callable(value):
        return _at_deployment(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of flows")  # noqa: TRY004  one refusal
    return [_flow_name(item) for item in value]


def _check_one_of(*names: str) -> Any:
    def check(options: Mapping[str, Any]) -> None:
        given = [options[name] for name in names if options[name] is not None]
        if not given or sum(map(bool, given)) > 1:  # an empty list beside the other option, as Metaflow has it
            raise ValueError(f"it needs one of {' and '.join(names)}")

    return check


_Event = str | Mapping[str, Any] | Callable[..., object]


@decorator("starts the flow at events, once it is deployed", on="flow", check=_check_one_of("event", "events"))
def trigger(
    *,
    event: Annotated[
        _Event | None, Option(_event, "the event: its name, a dictionary with name and parameters, or a function")
    ] = None,
    events: Annotated[
        Sequence[_Event] | Callable[..., object] | None,
        Option(_events, "the list of events, all of which have to come"),
    ] = None,
    options: Annotated[Mapping[str, Any] | None, Option(parsers.table, "a dictionary of more options")] = None,
) -> None: ...


@decorator(
    "starts the flow when others have succeeded, once it is deployed", on="flow", check=_check_one_of("flow", "flows")
)
def trigger_on_finish(
    *,
    flow: Annotated[
        _Event | None, Option(_flow_name, "the flow: its name, project.branch.name, or a dictionary")
    ] = None,
    flows: Annotated[
        Sequence[_Event] | Callable[..., object] | None,
        Option(_flow_names, "the list of flows, all of which have to succeed"),
    ] = None,
    options: Annotated[Mapping[str, Any] | None, Option(parsers.table, "a dictionary of more options")] = None,
) -> None: ...
