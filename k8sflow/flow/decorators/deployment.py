"""Flow decorators: ``@project``, ``@schedule``, ``@trigger``, ``@trigger_on_finish`` and ``@exit_hook``.

They are checked here and kept in the run's record, for the controller and for ``current``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import kind as kinds
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.kind import DecoratorKind, Option
from k8sflow.flow.decorators.retry import flag

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

_PROJECT = re.compile(r"[a-z0-9_]{1,128}")
_BRANCH = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_CRON_FIELD = re.compile(r"[A-Za-z0-9*/,?#-]+")
_CRON_FIELDS = (5, 6, 7)  # 5 of cron; 6 and 7 with a year or seconds, as other schedulers have them
# When the functions of @exit_hook are called.
EXIT_EVENTS = ("on_success", "on_error")
_NICKNAMES = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0"}


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def _project_name(value: object) -> str:
    if not isinstance(value, str) or not _PROJECT.fullmatch(value):
        raise ValueError(f"{value!r} is not made of lower-case letters, digits and _ (at most 128)")
    return value


def branch(value: object) -> str:
    """A branch's name.

    Raises:
        ValueError: It can't be one.
    """
    if not isinstance(value, str) or not _BRANCH.fullmatch(value):
        raise ValueError(f"{value!r} is not made of letters, digits, _, . and - (at most 128)")
    return value


def _cron(value: object) -> str:
    fields = _text(value).split()
    if len(fields) not in _CRON_FIELDS or not all(map(_CRON_FIELD.fullmatch, fields)):
        raise ValueError(f"{value!r} is not a cron expression such as '0 6 * * 1-5'")
    return " ".join(fields)


def _time_zone(value: object) -> str:
    import zoneinfo  # noqa: PLC0415  few flows name one

    try:
        return zoneinfo.ZoneInfo(_text(value)).key
    except (zoneinfo.ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"{value!r} is not a time zone such as 'Europe/Berlin'") from error


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
        parameters = {pair if isinstance(pair, str) else pair[0]: pair if isinstance(pair, str) else pair[1]
                      for pair in parameters}  # fmt: skip
    if not all(isinstance(part, str) for pair in parameters.items() for part in pair):
        raise ValueError(f"the parameters of {event!r} are not names of the event's fields")
    return dict(parameters)


def _events(value: object) -> list[dict[str, Any]] | dict[str, Any]:
    if callable(value):
        return _at_deployment(value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{value!r} is not a list of events")
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
        raise ValueError(f"{min(unknown)!r} tells nothing of a flow: it has name, project and branch")
    place = {"project": value.get("project"), "branch": value.get("project_branch") or value.get("branch")}
    return {"name": value["name"], **{key: text for key, text in place.items() if text}}


def _flow_names(value: object) -> list[dict[str, Any]] | dict[str, Any]:
    if callable(value):
        return _at_deployment(value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{value!r} is not a list of flows")
    return [_flow_name(item) for item in value]


def _options(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a dictionary")  # noqa: TRY004  one kind of refusal for the caller
    return dict(value)


def _functions(value: object) -> list[Callable[..., object]]:
    if not isinstance(value, list | tuple) or not value or not all(map(callable, value)):
        raise ValueError(f"{value!r} is not a list of functions")
    if inner := [function for function in value if "<" in getattr(function, "__qualname__", "<")]:
        raise ValueError(f"{inner[0]!r} can't be found by its name: define it at the top of its module")
    for function in value:
        if more := _needed(function)[1:]:
            raise ValueError(f"{function.__qualname__} needs {', '.join(more)}: an exit hook is given the run alone")
    return list(value)


def _needed(function: Callable[..., object]) -> list[str]:
    """The names of the parameters that a function must be given."""
    import inspect  # noqa: PLC0415  few flows have hooks

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in functions don't tell
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def _check_schedule(options: Mapping[str, Any]) -> None:
    if sum(bool(options[name]) for name in ("hourly", "weekly", "cron")) > 1:
        raise ValueError("it names more than one time: write one of hourly, daily, weekly and cron")


def _check_one_of(*names: str) -> Any:
    def check(options: Mapping[str, Any]) -> None:
        if sum(options[name] is not None for name in names) != 1:
            raise ValueError(f"it needs one of {' and '.join(names)}")

    return check


def _check_hook(options: Mapping[str, Any]) -> None:
    if not options["on_success"] and not options["on_error"]:
        raise ValueError("it needs on_success or on_error")


def _check_project(options: Mapping[str, Any]) -> None:
    if options["name"] is None:
        raise ValueError("it needs a name: write for example @project(name='fraud')")


project = DecoratorKind(
    "project",
    "puts the flow into a project, with a branch for each user and one for production",
    (
        Option("name", _project_name, "the project's name: lower-case letters, digits and _"),
        Option("branch", branch, "the branch; --branch on the command line comes first"),
        Option("production", flag, "whether it is for production; --production on the command line comes first", False),
    ),
    on="flow",
    check=_check_project,
)
schedule = DecoratorKind(
    "schedule",
    "starts the flow at times, once it is deployed",
    (
        Option("hourly", flag, "every hour", False),
        Option("daily", flag, "every day at midnight", True),
        Option("weekly", flag, "every week, in the night to Sunday", False),
        Option("cron", _cron, "a cron expression"),
        Option("timezone", _time_zone, "the time zone in which the times are meant; UTC by default"),
    ),
    on="flow",
    check=_check_schedule,
)
trigger = DecoratorKind(
    "trigger",
    "starts the flow at events, once it is deployed",
    (
        Option("event", _event, "the event: its name, a dictionary with name and parameters, or a function"),
        Option("events", _events, "the list of events, all of which have to come"),
        Option("options", _options, "a dictionary of more options"),
    ),
    on="flow",
    check=_check_one_of("event", "events"),
)
trigger_on_finish = DecoratorKind(
    "trigger_on_finish",
    "starts the flow when others have succeeded, once it is deployed",
    (
        Option("flow", _flow_name, "the flow: its name, project.branch.name, or a dictionary"),
        Option("flows", _flow_names, "the list of flows, all of which have to succeed"),
        Option("options", _options, "a dictionary of more options"),
    ),
    on="flow",
    check=_check_one_of("flow", "flows"),
)
exit_hook = DecoratorKind(
    "exit_hook",
    "calls functions when a run has ended",
    (
        Option("on_success", _functions, "the list of functions to call after a success"),
        Option("on_error", _functions, "the list of functions to call after a failure"),
        Option("options", _options, "a dictionary of more options"),
    ),
    on="flow",
    check=_check_hook,
    repeats=True,
)


def documents(flow: type[FlowSpec], user: str, branch_: str | None, production: bool | None) -> dict[str, Any]:  # noqa: FBT001
    """What a flow's own decorators say, as JSON types, by name.

    Args:
        flow: The flow's class.
        user: Who starts the run.
        branch_: What ``--branch`` said.
        production: What ``--production`` said.

    Raises:
        FlowDefinitionError: A decorator is wrong, or a branch was named without a project.
    """
    found: dict[str, Any] = {}
    for decoration in kinds.of(flow):
        kind = registry.kind_of(decoration)
        if kind.on == "flow" and kind is not exit_hook:
            found[decoration.name] = {k: v for k, v in kind.read(decoration).items() if v is not None}
    if named := exit_hooks(flow):
        found["exit_hook"] = {
            event: [f"{function.__module__}:{function.__qualname__}" for function in functions]
            for event, functions in named.items()
        }
    if "schedule" in found:
        found["schedule"] = _times(found["schedule"])
    if "project" in found:
        found["project"] = _place(found["project"], flow.__name__, user, branch_, production)
    elif branch_ is not None or production:
        raise FlowDefinitionError(
            f"--{'production' if production else 'branch'} needs a project, and {flow.__name__} has none.",
            advice="Write @project(name='…') above the class.",
        )
    return found


def exit_hooks(flow: type[FlowSpec]) -> dict[str, list[Callable[..., object]]]:
    """The functions of all ``@exit_hook`` of a flow, from top to bottom, by ``on_success`` and ``on_error``.

    Raises:
        FlowDefinitionError: An option can't be used.
    """
    found: dict[str, list[Callable[..., object]]] = {}
    for decoration in reversed(kinds.of(flow)):
        if decoration.name == exit_hook.name:
            options = exit_hook.read(decoration)
            for event in EXIT_EVENTS:
                found.setdefault(event, []).extend(options[event] or ())
    return {event: functions for event, functions in found.items() if functions}


def only_deployed(flow: type[FlowSpec]) -> list[str]:
    """The decorators of a flow that take effect in a deployment only."""
    present = {decoration.name for decoration in kinds.of(flow)}
    return [kind.name for kind in (schedule, trigger, trigger_on_finish) if kind.name in present]


def _times(options: Mapping[str, Any]) -> dict[str, Any]:
    nickname = next((name for name in ("hourly", "weekly") if options[name]), "daily" if options["daily"] else None)
    cron = options.get("cron") or (_NICKNAMES[nickname] if nickname else None)
    return {key: value for key, value in (("cron", cron), ("timezone", options.get("timezone"))) if value}


def _place(
    options: Mapping[str, Any],
    flow: str,
    user: str,
    branch_: str | None,
    production: bool | None,  # noqa: FBT001
) -> dict[str, Any]:
    named = branch_ if branch_ is not None else options.get("branch")
    is_production = bool(options["production"] if production is None else production)
    name = f"test.{named}" if named else f"user.{user}"
    if is_production:
        name = f"prod.{named}" if named else "prod"
    return {
        "project_name": options["name"],
        "branch_name": name,
        "project_flow_name": f"{options['name']}.{name}.{flow}",
        "is_user_branch": not is_production and not named,
        "is_production": is_production,
    }
