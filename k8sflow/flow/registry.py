"""The one door for decorators: what a decorator is, and where the one of a name is found.

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
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.faults import Fault, Located, Misplaced, caller, did_you_mean, is_class_body, place_of

if TYPE_CHECKING:
    from inspect import Signature

ENTRY_POINTS = "k8sflow.decorators"
_DECORATIONS = "__k8sflow_decorations__"
# Ours, as an entry point names them: ``module:attribute``, loaded when they are asked for.
_OURS = {
    "catch": "k8sflow.flow.attempts:catch",
    "environment": "k8sflow.flow.environment:environment",
    "exit_hook": "k8sflow.flow.deployment:exit_hook",
    "kubernetes": "k8sflow.flow.decorators:kubernetes",
    "parallel": "k8sflow.flow.decorators:parallel",
    "project": "k8sflow.flow.deployment:project",
    "resources": "k8sflow.flow.decorators:resources",
    "retry": "k8sflow.flow.attempts:retry",
    "schedule": "k8sflow.flow.deployment:schedule",
    "secrets": "k8sflow.flow.environment:secrets",
    "timeout": "k8sflow.flow.attempts:timeout",
    "trigger": "k8sflow.flow.deployment:trigger",
    "trigger_on_finish": "k8sflow.flow.deployment:trigger_on_finish",
}


class Around(Protocol):
    """What a decorator does around a step, in the task's process: a generator that yields once, where the step runs.

    It may yield None (the step runs), a function (that runs in the step's place, with the same arguments) or a
    dictionary (nothing runs). What the step raises is raised at the yield.
    """

    def __call__(
        self, step_name: str, flow: Any, inputs: Any, attributes: Mapping[str, Any], /
    ) -> Generator[Any, None, None]: ...


class Delayed(Protocol):
    """A value of a decorator that is not known before the run's configuration is."""

    def k8sflow_value(self) -> Any:
        """The value."""


@dataclass(frozen=True)
class Option:
    """One option of a decorator.

    Args:
        name: Its name.
        parse: Takes what was written, in Python or (as a text) after ``--with``; ValueError where it can't be used.
        help: What it is, in one line.
        default: Its value where nothing is written.
    """

    name: str
    parse: Callable[[object], Any]
    help: str
    default: Any = None


@dataclass(frozen=True)
class Decoration:
    """One decorator on one step or flow.

    Args:
        name: Its name.
        options: The options that were written out.
        place: The file and the line in which it was written.
        faults: What is wrong with how it was written, beside its options.
        written: The decorator itself, where it was at hand: another flow of this process may have one of its name.
    """

    name: str
    options: Mapping[str, Any] = field(repr=False)
    place: tuple[str, int] = field(default=("", 0), compare=False)
    faults: tuple[Fault, ...] = ()
    written: DecoratorKind | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> DecoratorKind:
        """What the decorator is.

        Raises:
            FlowDefinitionError: There is none of its name.
        """
        return find(self.name) if self.written is None else self.written


@dataclass(frozen=True)
class DecoratorKind:
    """A decorator that there is; it is itself what a flow's author writes: ``@retry``, ``@retry(times=3)``.

    Args:
        name: Its name, also after ``--with``.
        help: What it does, in one line.
        options: Its options; None where it takes any.
        on: What it stands above.
        check: Looks at the parsed options together; ValueError where they can't be used, or ParameterError with advice.
        around: What it does around the step.
        outermost: Whether it goes around the decorators without this mark, wherever it is written.
        is_secret: Whether no value of its options may be shown or stored.
        fault: What is wrong with the decorator itself, for whoever uses it.
    """

    name: str
    help: str
    options: tuple[Option, ...] | None = ()
    on: Literal["step", "flow"] = "step"
    check: Callable[[Mapping[str, Any]], object] | None = None
    around: Around | None = None
    outermost: bool = False
    is_secret: bool = False
    fault: Fault | None = None

    def __call__(self, target: Any = None, /, *more: object, **options: Any) -> Any:
        """Decorates a step or a flow. In a flow's class, what is wrong is told by the static check.

        Raises:
            FlowDefinitionError: An option is wrong, or what is decorated is, where there will be no static check.
        """
        if isinstance(target, Misplaced):
            return target
        known = {option.name for option in self.options or ()}
        given = {key: value for key, value in options.items() if value is not None or key not in known}
        own = () if self.fault is None else (self.fault,)
        decoration = Decoration(self.name, given, place_of(caller()), own, self)
        _known[self.name] = self
        if more or not (target is None or callable(target) or hasattr(type(target), "__get__")):
            decoration = replace(decoration, faults=(*own, self._by_position(target, *more)))
        elif target is not None:
            return self.decorate(target, decoration)
        return lambda target: self.decorate(target, decoration)

    def decorate(self, target: Any, decoration: Decoration) -> Any:
        """Puts a decoration on a step's function or a flow's class.

        Raises:
            FlowDefinitionError: Something is wrong with it, where there will be no static check.
        """
        is_flow = isinstance(target, type) and hasattr(target, "_k8sflow_task")
        if not (is_flow if self.on == "flow" else callable(target) and not isinstance(target, type)):
            what, where = ("a flow's class", "class") if self.on == "flow" else ("a method", "step's def")
            shown = f"the class {target.__name__}" if isinstance(target, type) else _shown(target)
            fault = Fault(
                f"@{self.name} stands on {shown}, which is not {what}.", f"Write @{self.name}(...) above the {where}."
            )
            decoration = replace(decoration, faults=(*decoration.faults, fault))
        if not (is_flow or is_class_body(caller())):
            for fault in self.faults(decoration):
                raise Located(decoration.place, fault).error()
        others = [d for d in getattr(target, _DECORATIONS, ()) if d.name != self.name]
        try:
            setattr(target, _DECORATIONS, (*others, decoration))
        except (AttributeError, TypeError):
            return Misplaced(Located(decoration.place, next(iter(self.faults(decoration)))))
        return target

    def read(self, decoration: Decoration) -> dict[str, Any]:
        """The options in the types that they are used in, with the defaults.

        Raises:
            FlowDefinitionError: One is unknown or can't be used.
        """
        found, faults = self._read(decoration)
        if faults:
            raise Located(decoration.place, faults[0]).error()
        return found

    def faults(self, decoration: Decoration, *, is_configured: bool = False) -> list[Fault]:
        """All that is wrong with a decoration; of options that wait for the configuration only when it is known."""
        options = decoration.options.items()
        known = {key: value for key, value in options if is_configured or not is_delayed(value)}
        is_known = len(known) == len(decoration.options)
        return [*decoration.faults, *self._read(replace(decoration, options=known), is_whole=is_known)[1]]

    def _read(self, decoration: Decoration, *, is_whole: bool = True) -> tuple[dict[str, Any], list[Fault]]:
        """The parsed options, and what is wrong with them; together they are looked at where they are all there."""
        faults = [self.fault] if self.fault is not None else []
        options = {option.name: option for option in self.options or ()}
        found = {option.name: option.default for option in options.values()}
        for name, value in decoration.options.items():
            shown = "…" if self.is_secret else repr(value)
            try:
                if self.options is None:
                    found[name] = settled(value)
                elif name not in options:
                    listed = f"Its options are {', '.join(options)}." if options else "It takes no options."
                    advice = f"{did_you_mean(name, options)} {listed}".strip()
                    faults.append(Fault(f"@{self.name} has no option {name!r}.", advice))
                else:
                    found[name] = options[name].parse(settled(value))
            except ParameterError as error:
                faults.append(Fault(f"@{self.name} can't be used with {name}={shown}: {error.summary}", error.advice))
            except (ValueError, TypeError) as error:
                message = f"@{self.name} can't be used with {name}={shown}: {error}."
                faults.append(Fault(message, f"{name} is {options[name].help}."))
        if self.check is not None and is_whole and not faults and not decoration.faults:
            try:
                self.check(found)
            except ParameterError as error:
                faults.append(Fault(error.summary, error.advice))
            except ValueError as error:
                faults.append(Fault(f"@{self.name}: {error}."))
        return found, faults

    def _by_position(self, *given: Any) -> Fault:
        values = [value for value in given if value is not None]
        names = [option.name for option in self.options or ()]
        shown = "…" if self.is_secret else ", ".join(map(repr, values))
        first = "…" if self.is_secret else repr(values[0])
        like = f"Write for example @{self.name}({names[0]}={first})." if names else ""
        return Fault(f"@{self.name} takes its options by name, not {shown}.", like)

    @property
    def __signature__(self) -> Signature:
        """The options, for help() and editors."""
        from inspect import Parameter, Signature  # noqa: PLC0415  for people who ask

        if self.options is None:
            return Signature([Parameter("options", Parameter.VAR_KEYWORD)])
        return Signature([Parameter(o.name, Parameter.KEYWORD_ONLY, default=o.default) for o in self.options])


# The decorators that this process has used, by name: those that a flow imports or defines need no entry point.
_known: dict[str, DecoratorKind] = {}


def find(name: str) -> DecoratorKind:
    """The decorator of a name: one of ours, one that the flow uses, one of an installed package, or ``module.name``.

    Raises:
        FlowDefinitionError: There is none, or its package can't be loaded.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        kind: DecoratorKind = getattr(importlib.import_module(module), attribute)
        return kind
    if name in _known:
        return _known[name]
    if (found := _installed(name)) is None and (found := _dotted(name)) is None:
        names = sorted({*_OURS, *_known, *_installed_names()})
        raise FlowDefinitionError(
            f"there is no decorator {name!r}.",
            advice=f"{did_you_mean(name, names)} The decorators are {', '.join(names)}.".strip(),
        )
    _known[name] = _known[found.name] = found
    return found


def is_ours(name: str) -> bool:
    """Whether k8sflow itself has a decorator of this name."""
    return name in _OURS


def use(kind: DecoratorKind) -> DecoratorKind:
    """Makes a decorator known by its name, as the last of that name, and returns it."""
    _known[kind.name] = kind
    return kind


def replace_of(target: object, decorations: tuple[Decoration, ...]) -> None:
    """Sets the decorators of a flow's class."""
    setattr(target, _DECORATIONS, decorations)


def of(target: object) -> tuple[Decoration, ...]:
    """The decorators of a step's function or a flow's class, in the order in which they were applied."""
    found: tuple[Decoration, ...] = getattr(target, _DECORATIONS, ())
    return found


def parse(text: str) -> Decoration:
    """The decorator that ``--with`` names: ``kubernetes`` or ``kubernetes:image=x,memory=4000``.

    A value that begins with [ or { is JSON: ``environment:vars={"A": "1"}``.

    Raises:
        FlowDefinitionError: There is no such decorator, or an option is wrong.
    """
    name, _, rest = text.partition(":")
    kind = find(name.strip())
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


def is_delayed(value: object) -> bool:
    """Whether a value, or a part of it, waits for the run's configuration."""
    if isinstance(value, dict):
        return any(map(is_delayed, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_delayed, value))
    return hasattr(type(value), "k8sflow_value")


def settled(value: Any) -> Any:
    """The value, with all of its parts, now that the configuration is known."""
    if not is_delayed(value):
        return value
    if isinstance(value, dict):
        return {key: settled(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(settled, value))
    return value.k8sflow_value()


def _shown(target: object) -> str:
    """What stands under a decorator, as a person calls it."""
    name = getattr(target, "__name__", None)
    return f"the {type(target).__name__} {name}" if name else f"a {type(target).__name__}"


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
            advice="It has to be a k8sflow.flow.registry.DecoratorKind, a UserStepDecorator, or made by "
            "@user_step_decorator.",
        )
    return kind
