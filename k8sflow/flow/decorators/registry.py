"""The known decorators by name: built-in ones, those that the user's code defines, and those of installed packages.

A new built-in decorator is a module of this package and a line in ``_BUILT_IN``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from k8sflow.articles import described
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Decoration, Decorator
from k8sflow.flow.problems import Location, did_you_mean

ENTRY_POINTS = "k8sflow.decorators"
# Built-in decorators, as an entry point names them: ``module:attribute``, loaded when they are asked for.
_BUILT_IN = {
    "batch": "k8sflow.flow.decorators.batch:batch",
    "cache": "k8sflow.flow.decorators.cache:cache",
    "card": "k8sflow.flow.decorators.card:card",
    "catch": "k8sflow.flow.decorators.catch:catch",
    "conda": "k8sflow.flow.decorators.conda:conda",
    "conda_base": "k8sflow.flow.decorators.conda:conda_base",
    "environment": "k8sflow.flow.decorators.environment:environment",
    "exit_hook": "k8sflow.flow.decorators.exit_hook:exit_hook",
    "kubernetes": "k8sflow.flow.decorators.kubernetes:kubernetes",
    "parallel": "k8sflow.flow.decorators.parallel:parallel",
    "project": "k8sflow.flow.decorators.project:project",
    "pypi": "k8sflow.flow.decorators.pypi:pypi",
    "pypi_base": "k8sflow.flow.decorators.pypi:pypi_base",
    "resources": "k8sflow.flow.decorators.kubernetes:resources",
    "retry": "k8sflow.flow.decorators.retry:retry",
    "schedule": "k8sflow.flow.decorators.schedule:schedule",
    "secrets": "k8sflow.flow.decorators.secrets:secrets",
    "timeout": "k8sflow.flow.decorators.timeout:timeout",
    "trigger": "k8sflow.flow.decorators.trigger:trigger",
    "trigger_on_finish": "k8sflow.flow.decorators.trigger:trigger_on_finish",
}
# The module of the base class of users' decorators, which is not a decorator itself.
_OF_BASES = "k8sflow.flow.decorators.user_decorators"
# What makes each decorator that user code has defined, by its dotted name: it need not be used on any step.
_defined: dict[str, Callable[[], Decorator[Any]]] = {}


def define(module: str, name: str, make: Callable[[], Decorator[Any]]) -> None:
    """Makes a decorator that user code defines known by its name; a later one of the same module replaces it."""
    _defined[f"{module}.{name}"] = make


def find(name: str, known: Mapping[str, Decorator[Any]] | None = None) -> Decorator[Any]:
    """The decorator of a name: a built-in one, of the flow, of user code, of an installed package, or ``module.name``.

    Args:
        name: Its name.
        known: The decorators that the flow uses or has in its module, by name.

    Raises:
        FlowDefinitionError: There is none, there are several, or its package can't be loaded.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: Decorator[Any] = getattr(importlib.import_module(module), attribute)
        return built_in
    found = (known or {}).get(name) or _of_user(name) or _installed(name) or _dotted(name)
    if found is None:
        names = sorted(
            {*_BUILT_IN, *(known or {}), *(path.rpartition(".")[2] for path in _defined), *_installed_names()}
        )
        raise FlowDefinitionError(
            f"there is no decorator {name!r}.",
            advice=f"{did_you_mean(name, names)} The decorators are {', '.join(names)}.".strip(),
        )
    return found


def is_built_in(name: str) -> bool:
    """True if k8sflow itself has a decorator of this name."""
    return name in _BUILT_IN


def in_namespace(names: Mapping[str, Any]) -> dict[str, Decorator[Any]]:
    """The decorators that a module has, by name."""
    return {
        name: checked(value, name)
        for name, value in names.items()
        if isinstance(value, Decorator) or (_is_class_of_decorators(value) and value.__module__ != _OF_BASES)
    }


def parse_all(texts: Sequence[str], known: Mapping[str, Decorator[Any]] | None = None) -> tuple[Decoration, ...]:
    """The decorators that several ``--with`` name; those of one decorator are one, with the options of all of them.

    Args:
        texts: What is after each ``--with``.
        known: As in ``find``.

    Raises:
        FlowDefinitionError: There is no such decorator, an option is wrong, or one has two values.
    """
    found: list[Decoration] = []
    for text in texts:
        added = parse(text, known)
        position = next((position for position, other in enumerate(found) if other.name == added.name), None)
        if position is None or added.decorator.repeats:
            found.append(added)
        else:
            found[position] = _joined(found[position], added)
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
                advice="Remove one of them.",
            )
    joined = replace(first, options={**first.options, **second.options})
    joined.parsed()
    return joined


def parse(text: str, known: Mapping[str, Decorator[Any]] | None = None) -> Decoration:
    """The decorator that ``--with`` names: ``kubernetes`` or ``kubernetes:image=x,memory=4000``.

    A value that begins with [ or { is JSON: ``environment:vars={"A": "1"}``.

    Args:
        text: What is after ``--with``.
        known: As in ``find``.

    Raises:
        FlowDefinitionError: There is no such decorator, or an option is wrong.
    """
    name, _, rest = text.partition(":")
    decorator = find(name.strip(), known)
    options: dict[str, Any] = {}
    for part in filter(None, map(str.strip, _split(rest))):
        key, equals, value = part.partition("=")
        if not equals:
            raise FlowDefinitionError(
                f"--with {text!r}: {part!r} is not of the form option=value.",
                advice="Write for example --with kubernetes:image=python:3.12,memory=8000",
            )
        options[key.strip()] = _value(value.strip(), f"--with {text!r}", guess=decorator.options is None)
    has_secret = decorator.is_secret and options and not (decorator.only_names and decorator.only_names(options))
    if decorator.on == "flow" or has_secret:
        why = "would be stored with the run" if has_secret else "belongs above a flow, not above steps"
        raise FlowDefinitionError(
            f"--with {decorator.name} can't be used like this: it {why}.", advice="Write it in the flow."
        )
    decoration = Decoration(decorator, options, Location("--with"))
    decoration.parsed()
    return decoration


def _split(text: str) -> list[str]:
    """The parts between the commas outside of brackets and quotes."""
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


def _of_user(name: str) -> Decorator[Any] | None:
    """A decorator that user code defines, by its name or the end of its dotted name.

    Raises:
        FlowDefinitionError: Several modules define one of this name.
    """
    found = [path for path in _defined if path == name or path.endswith(f".{name}")]
    if len(found) > 1:
        raise FlowDefinitionError(
            f"there are several decorators {name!r}: {', '.join(sorted(found))}.", advice="Give one of these names."
        )
    return _defined[found[0]]() if found else None


def _installed_names() -> list[str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  reads the metadata of all that is installed

    return [point.name for point in entry_points(group=ENTRY_POINTS)]


def _installed(name: str) -> Decorator[Any] | None:
    from importlib.metadata import entry_points  # noqa: PLC0415  as above

    for point in entry_points(group=ENTRY_POINTS, name=name):
        package = point.dist.name if point.dist is not None else point.value
        try:
            found = point.load()
        except Exception as error:  # the import runs the package's code, which may raise anything
            raise FlowDefinitionError(
                f"the decorator {name!r} of the package {package} can't be loaded: {type(error).__name__}: {error}",
                advice="Upgrade the package, or uninstall it.",
            ) from error
        return checked(found, f"the entry point {name!r} of the package {package}")
    return None


def _dotted(name: str) -> Decorator[Any] | None:
    """A decorator by ``module.name``, as a flow would import it."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return None
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return None
    return checked(found, name)


def _is_class_of_decorators(found: Any) -> bool:
    return isinstance(found, type) and hasattr(found, "k8sflow_decorator")


def checked(found: Any, where: str) -> Decorator[Any]:
    """The decorator that something is: one itself, or a class of decorators.

    Args:
        found: What should be one.
        where: Where it comes from, for the error.

    Raises:
        FlowDefinitionError: It is neither.
    """
    if _is_class_of_decorators(found):
        found = found.k8sflow_decorator()
    if not isinstance(found, Decorator):
        raise FlowDefinitionError(
            f"{where} is {described(found)}, not a decorator of k8sflow.",
            advice="Use a k8sflow.plugins.Decorator, a UserStepDecorator, or what @user_step_decorator returns.",
        )
    return found
