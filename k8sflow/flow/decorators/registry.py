"""The one door for decorators: where the one of a name is found, also by what ``--with`` says.

Ours and those of installed packages come in by the same door. A package declares an entry point
(https://packaging.python.org/en/latest/specifications/entry-points/)

    [project.entry-points."k8sflow.decorators"]
    gpu_profile = "k8sflow_gpu:gpu_profile"

that names a ``DecoratorKind``. A flow imports it and writes ``@gpu_profile(interval=1)``; the entry point is what lets
``--with gpu_profile:interval=1`` find it.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.kind import Decoration, DecoratorKind, defined, used
from k8sflow.flow.problems import did_you_mean

ENTRY_POINTS = "k8sflow.decorators"
# Ours, as an entry point names them: ``module:attribute``, loaded when they are asked for.
_OURS = {
    "catch": "k8sflow.flow.decorators.retry:catch",
    "environment": "k8sflow.flow.decorators.environment:environment",
    "exit_hook": "k8sflow.flow.decorators.deployment:exit_hook",
    "kubernetes": "k8sflow.flow.decorators.step:kubernetes",
    "parallel": "k8sflow.flow.decorators.step:parallel",
    "project": "k8sflow.flow.decorators.deployment:project",
    "resources": "k8sflow.flow.decorators.step:resources",
    "retry": "k8sflow.flow.decorators.retry:retry",
    "schedule": "k8sflow.flow.decorators.deployment:schedule",
    "secrets": "k8sflow.flow.decorators.environment:secrets",
    "timeout": "k8sflow.flow.decorators.retry:timeout",
    "trigger": "k8sflow.flow.decorators.deployment:trigger",
    "trigger_on_finish": "k8sflow.flow.decorators.deployment:trigger_on_finish",
}


def find(name: str, near: Mapping[str, Any] | None = None) -> DecoratorKind:
    """The decorator of a name: one of ours, of the flow, of an installed package, or ``module.name``.

    Args:
        name: Its name.
        near: The names of the module that asks, which come before those of other modules.

    Raises:
        FlowDefinitionError: There is none, or its package can't be loaded.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        kind: DecoratorKind = getattr(importlib.import_module(module), attribute)
        return kind
    beside = (near or {}).get(name)
    if isinstance(beside, DecoratorKind) or hasattr(beside, "k8sflow_kind"):
        return use(checked(beside, name))
    if name in used:
        return used[name]
    if name in defined:
        return use(defined[name]())
    if (found := _installed(name)) is None and (found := _dotted(name)) is None:
        names = sorted({*_OURS, *used, *defined, *_installed_names()})
        raise FlowDefinitionError(
            f"there is no decorator {name!r}.",
            advice=f"{did_you_mean(name, names)} The decorators are {', '.join(names)}.".strip(),
        )
    used[name] = used[found.name] = found
    return found


def is_ours(name: str) -> bool:
    """Whether k8sflow itself has a decorator of this name."""
    return name in _OURS


def use(kind: DecoratorKind) -> DecoratorKind:
    """Makes a decorator known by its name, as the last of that name, and returns it."""
    used[kind.name] = kind
    return kind


def kind_of(decoration: Decoration) -> DecoratorKind:
    """What the decorator is that stands there.

    Raises:
        FlowDefinitionError: There is none of its name.
    """
    return find(decoration.name) if decoration.written is None else decoration.written


def parse_all(texts: Sequence[str]) -> tuple[Decoration, ...]:
    """The decorators that several ``--with`` name; those of one decorator are one, with the options of all of them.

    Raises:
        FlowDefinitionError: There is no such decorator, an option is wrong, or one has two values.
    """
    found: list[Decoration] = []
    for text in texts:
        added = parse(text)
        place = next((place for place, other in enumerate(found) if other.name == added.name), None)
        if place is None or find(added.name).repeats:
            found.append(added)
        else:
            found[place] = _joined(found[place], added)
    return tuple(found)


def _joined(first: Decoration, second: Decoration) -> Decoration:
    """Two decorations by ``--with`` as one.

    Raises:
        FlowDefinitionError: An option has two values, or the options can't be used together.
    """
    for key in first.options.keys() & second.options.keys():
        if first.options[key] != second.options[key]:
            raise FlowDefinitionError(
                f"--with {first.name} is given twice, with two values of {key}, and only one can take effect.",
                advice="Leave one of them out.",
            )
    joined = replace(first, options={**first.options, **second.options})
    find(first.name).read(joined)
    return joined


def parse(text: str, near: Mapping[str, Any] | None = None) -> Decoration:
    """The decorator that ``--with`` names: ``kubernetes`` or ``kubernetes:image=x,memory=4000``.

    A value that begins with [ or { is JSON: ``environment:vars={"A": "1"}``.

    Args:
        text: What is after ``--with``.
        near: The names of the module that asks.

    Raises:
        FlowDefinitionError: There is no such decorator, or an option is wrong.
    """
    name, _, rest = text.partition(":")
    kind = find(name.strip(), near)
    options: dict[str, Any] = {}
    for part in filter(None, map(str.strip, _split(rest))):
        key, equals, value = part.partition("=")
        if not equals:
            raise FlowDefinitionError(
                f"--with {text!r}: {part!r} is not of the form option=value.",
                advice="Write for example --with kubernetes:image=python:3.12,memory=8000",
            )
        options[key.strip()] = _value(value.strip(), f"--with {text!r}", guess=kind.options is None)
    if kind.on == "flow" or (kind.is_secret and any(isinstance(part, dict) for part in options.get("sources") or ())):
        why = "would be stored with the run" if kind.is_secret else "stands above a flow, and not above steps"
        raise FlowDefinitionError(f"--with {kind.name} can't be used so: it {why}.", advice="Write it in the flow.")
    decoration = Decoration(kind.name, options, ("--with", 0))
    kind.read(decoration)
    return decoration


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside of brackets and quotes."""
    parts, depth, quoted, last = [""], 0, False, ""
    for letter in text:
        if letter == '"' and last != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
        last = letter
    return parts


def _value(text: str, where: str, *, guess: bool) -> Any:
    """A value after ``--with``: JSON where it looks so, and, where the types are not known, where it can be."""
    if not text.startswith(("[", "{")) and not guess:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        if guess:
            return text
        raise FlowDefinitionError(f"{where}: {text} is not JSON: {error}.") from error


def _installed_names() -> list[str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  reads the metadata of all that is installed

    return [point.name for point in entry_points(group=ENTRY_POINTS)]


def _installed(name: str) -> DecoratorKind | None:
    from importlib.metadata import entry_points  # noqa: PLC0415  as above

    for point in entry_points(group=ENTRY_POINTS, name=name):
        package = point.dist.name if point.dist is not None else point.value
        try:
            found = point.load()
        except Exception as error:  # the import runs the package's code, which may raise anything
            raise FlowDefinitionError(
                f"the decorator {name!r} of the package {package} can't be loaded: {type(error).__name__}: {error}",
                advice="Upgrade the package, or leave it out.",
            ) from error
        return checked(found, f"the entry point {name!r} of the package {package}")
    return None


def _dotted(name: str) -> DecoratorKind | None:
    """A decorator by ``module.name``, as a flow would import it."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return None
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return None
    return checked(found, name)


def checked(found: object, where: str) -> DecoratorKind:
    """The decorator that something is: one itself, or a class of decorators.

    Raises:
        FlowDefinitionError: It is neither.
    """
    kind = found.k8sflow_kind() if isinstance(found, type) and hasattr(found, "k8sflow_kind") else found
    if not isinstance(kind, DecoratorKind):
        raise FlowDefinitionError(
            f"{where} is a {type(found).__name__}, not a decorator of k8sflow.",
            advice="It has to be a k8sflow.flow.decorators.kind.DecoratorKind, a UserStepDecorator, or made by "
            "@user_step_decorator.",
        )
    return kind
