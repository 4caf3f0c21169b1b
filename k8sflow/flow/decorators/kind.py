"""What a decorator is: its options, what it stands on, and what is wrong with how it is written there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from k8sflow.errors import ParameterError
from k8sflow.flow.problems import Fault, Located, Misplaced, caller, did_you_mean, is_class_body, place_of

if TYPE_CHECKING:
    from inspect import Signature

_DECORATIONS = "__k8sflow_decorations__"


class Around(Protocol):
    """What a decorator does around a step, in the task's process: a generator that yields once, where the step runs.

    It may yield None (the step runs), a function (that runs in the step's place, with the same arguments) or a
    dictionary (nothing runs). What the step raises is raised at the yield.
    """

    def __call__(
        self, step_name: str, flow: Any, inputs: Any, attributes: Mapping[str, Any], /
    ) -> Generator[Any, None, None]: ...


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
        repeats: Whether it may be applied more than once; then each one does its part.
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
    repeats: bool = False
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
        used[self.name] = self
        is_target = not is_delayed(target) and (callable(target) or hasattr(type(target), "__get__"))
        if more or not (target is None or is_target):
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
        if not self.repeats and any(found.name == self.name for found in _present(target)[1]):
            decoration = replace(decoration, faults=(*decoration.faults, self._repeated(target)))
        if not (is_flow or is_class_body(caller())):
            for fault in self.faults(decoration):
                raise Located(decoration.place, fault).error()
        inherited, own = _present(target)
        if not self.repeats:
            inherited = tuple(found for found in inherited if found.name != self.name)
        try:
            setattr(target, _DECORATIONS, (*inherited, *own, decoration))
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
        try:
            given = opened(decoration.options)
        except ParameterError as error:
            return found, [*faults, Fault(f"@{self.name}: {error.summary}", error.advice)]
        for name, value in given.items():
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

    def _repeated(self, target: Any) -> Fault:
        name = getattr(target, "__name__", "it")
        return Fault(f"@{self.name} is applied twice to {name}, and only one can take effect.", "Remove one of them.")

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
used: dict[str, DecoratorKind] = {}
# What makes each decorator that was defined in this process, by name, the last one of a name; it may have no use yet.
defined: dict[str, Callable[[], DecoratorKind]] = {}


def _present(target: object) -> tuple[tuple[Decoration, ...], tuple[Decoration, ...]]:
    """The decorations that a class has from its bases, and its own; all of a function are its own."""
    found = of(target)
    bases = target.__mro__[1:] if isinstance(target, type) else ()
    above: tuple[Decoration, ...] = next((vars(base)[_DECORATIONS] for base in bases if _DECORATIONS in vars(base)), ())
    inherited = tuple(one for one in found if any(one is other for other in above))
    return inherited, tuple(one for one in found if not any(one is other for other in above))


def replace_of(target: object, decorations: tuple[Decoration, ...]) -> None:
    """Sets the decorators of a flow's class."""
    setattr(target, _DECORATIONS, decorations)


def of(target: object) -> tuple[Decoration, ...]:
    """The decorators of a step's function or a flow's class, in the order in which they were applied."""
    found: tuple[Decoration, ...] = getattr(target, _DECORATIONS, ())
    return bound_to(target, found) if isinstance(target, type) else found


class Unpacked(str):
    """The key for all keys of a table that isn't known yet: ``{**config.env}``, ``retry(**config.retry)``."""

    __slots__ = ()


def opened(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, with those of unpacked tables.

    Raises:
        ParameterError: It is no table, or has an option that is written out too.
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        more = _table(name, settled(value)) if isinstance(name, Unpacked) else {name: value}
        if twice := [key for key in more if key in found]:
            raise ParameterError(f"{twice[0]} is given twice: {name} has it too.", advice="Leave one of them out.")
        found |= more
    return found


def _table(written: str, value: object) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ParameterError(f"{written} is of type {type(value).__name__}, which is no table to unpack.")
    return dict(value)


def is_delayed(value: object) -> bool:
    """Whether a value, or a part of it, waits for the run's configuration."""
    if isinstance(value, dict):
        return any(map(is_delayed, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_delayed, value))
    return hasattr(type(value), "k8sflow_value")


def bound(value: Any, flow: type) -> Any:
    """The value, with the parts of it that wait for configs waiting for those of this flow."""
    if not is_delayed(value):
        return value
    if isinstance(value, dict):
        return {key: bound(part, flow) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(bound(part, flow) for part in value)
    return value.k8sflow_bound(flow)


def bound_to(flow: type, decorations: tuple[Decoration, ...]) -> tuple[Decoration, ...]:
    """Decorators whose options are made from the configs of this flow."""
    return tuple(
        replace(decoration, options=bound(dict(decoration.options), flow))
        if is_delayed(dict(decoration.options))
        else decoration
        for decoration in decorations
    )


def settled(value: Any) -> Any:
    """The value, with all of its parts, now that the configuration is known."""
    if not is_delayed(value):
        return value
    if isinstance(value, dict):
        found: dict[Any, Any] = {}
        for key, part in value.items():
            found |= _table(key, settled(part)) if isinstance(key, Unpacked) else {key: settled(part)}
        return found
    if isinstance(value, list | tuple):
        return type(value)(map(settled, value))
    return value.k8sflow_value()


def _shown(target: object) -> str:
    """What stands under a decorator, as a person calls it."""
    name = getattr(target, "__name__", None)
    return f"the {type(target).__name__} {name}" if name else f"a {type(target).__name__}"
