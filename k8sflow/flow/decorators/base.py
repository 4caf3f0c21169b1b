"""Decorators and their uses: options, targets, and problems with a use.

A decorator is declared by a function whose signature is what users write: its keyword arguments are the options, with
their types, and each annotation carries the option's parser and help text::

    @decorator("runs a failed task again")
    def retry(*, times: Annotated[int, Option(count, "how many times a failed task is run again")] = 3) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, get_args, get_type_hints, overload

from k8sflow.articles import described
from k8sflow.errors import ParameterError
from k8sflow.flow.decorators.parsers import SecretValueError
from k8sflow.flow.delayed import Unpacked, Values, is_delayed, opened
from k8sflow.flow.problems import Location, Misplaced, Problem, caller, did_you_mean, is_class_body, location_of

P = ParamSpec("P")
_Target = TypeVar("_Target", bound=Callable[..., Any])

_DECORATIONS = "__k8sflow_decorations__"


class Around(Protocol):
    """Code of a decorator around a step, in the task's process: a generator that yields once, where the step runs.

    It may yield None (the step runs), a function (which runs instead of the step, with the same arguments) or a
    dictionary (nothing runs). What the step raises is raised at the yield.
    """

    def __call__(
        self, step_name: str, flow: Any, inputs: Any, attributes: Mapping[str, Any], /
    ) -> Generator[Any, None, None]: ...


@dataclass(frozen=True)
class Option:
    """One option of a decorator.

    Args:
        parse: Converts the value that was written, in Python or (as text) after ``--with``; raises ValueError for one
            that can't be used.
        help: What the option is, in one line.
        name: Its name; that of the parameter where it annotates one.
        default: Its value where nothing is written; that of the parameter where it annotates one.
    """

    parse: Callable[[object], Any]
    help: str
    name: str = ""
    default: Any = None


@dataclass(frozen=True)
class Decoration:
    """One use of a decorator, on a step or a flow.

    Args:
        decorator: The decorator.
        options: The options that were written out.
        location: Where it was written.
        problems: What is wrong with how it was written, apart from its options.
    """

    decorator: Decorator[Any]
    options: Mapping[str, Any] = field(repr=False)
    location: Location = field(default=Location(), compare=False)
    problems: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """The decorator's name."""
        return self.decorator.name

    def parsed(self) -> dict[str, Any]:
        """The options in the types in which they are used, with the defaults.

        Raises:
            FlowDefinitionError: An option is unknown or can't be used.
        """
        return self.decorator.read(self)


@dataclass(frozen=True)
class Decorator(Generic[P]):
    """A decorator of steps or flows: what a flow's author writes as ``@retry`` or ``@retry(times=3)``.

    Args:
        name: Its name, also after ``--with``.
        help: What it does, in one line.
        options: Its options; None where it takes any.
        on: What it decorates.
        check: Checks the parsed options together: raises ValueError where they can't be used, or ParameterError, with
            advice.
        around: What it does around the step.
        outermost: Whether it goes around the decorators without this mark, wherever it is written.
        is_secret: Whether no value of its options may be shown or stored.
        only_names: Tells whether options of a secret decorator only name secrets; such options may be stored. None if
            they never do.
        repeats: Whether it may be applied more than once; then each use takes effect.
        problem: What is wrong with the decorator itself, reported wherever it is used.
        origin: The file of the user's code that defines it; two modules may each define one of the same name.
        page: The page of the docs that lists its options, where they are too many for a message.
    """

    name: str
    help: str
    options: tuple[Option, ...] | None = ()
    on: Literal["step", "flow"] = "step"
    check: Callable[[Mapping[str, Any]], object] | None = None
    around: Around | None = None
    outermost: bool = False
    is_secret: bool = False
    only_names: Callable[[Mapping[str, Any]], bool] | None = None
    repeats: bool = False
    problem: Problem | None = None
    origin: str = ""
    page: str = ""

    def is_same(self, other: Decorator[Any]) -> bool:
        """True if two objects are one decorator; a decorator that is a class has an object for each use."""
        return (self.name, self.origin) == (other.name, other.origin)

    @overload
    def __call__(self, target: _Target, /) -> _Target: ...
    @overload
    def __call__(self, *args: P.args, **options: P.kwargs) -> Callable[[_Target], _Target]: ...
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Decorates a step or a flow. In a flow's class, the check reports what is wrong.

        Raises:
            FlowDefinitionError: An option is wrong, or what is decorated is, where there will be no check.
        """
        target, more = (args[0], args[1:]) if args else (None, ())
        if isinstance(target, Misplaced):
            return target
        own = () if self.problem is None else (self.problem,)
        decoration = Decoration(self, options, location_of(caller()), own)
        is_target = not is_delayed(target) and (callable(target) or hasattr(type(target), "__get__"))
        if more or not (target is None or is_target):
            decoration = replace(decoration, problems=(*own, self._by_position(target, *more)))
        elif target is not None:
            return self.decorate(target, decoration)
        return lambda target: self.decorate(target, decoration)

    def decorate(self, target: Any, decoration: Decoration) -> Any:
        """Records a decoration on a step's function or a flow's class.

        Raises:
            FlowDefinitionError: Something is wrong with it, where there will be no check.
        """
        is_flow = isinstance(target, type) and hasattr(target, "_k8sflow_task")
        if not (is_flow if self.on == "flow" else callable(target) and not isinstance(target, type)):
            decoration = replace(decoration, problems=(*decoration.problems, self._misplaced(target)))
        inherited, own = _present(target)
        if not self.repeats:
            if any(found.name == self.name for found in own):
                decoration = replace(decoration, problems=(*decoration.problems, self._repeated(target)))
            inherited = tuple(found for found in inherited if found.name != self.name)
        if not (is_flow or is_class_body(caller())):
            for problem in self.problems(decoration):
                raise problem.at(decoration.location).error()
        try:
            setattr(target, _DECORATIONS, (*inherited, *own, decoration))
        except (AttributeError, TypeError):
            return Misplaced(next(iter(self.problems(decoration))).at(decoration.location))
        return target

    def read(self, decoration: Decoration) -> dict[str, Any]:
        """The options of a use of it in the types in which they are used, with the defaults.

        Raises:
            FlowDefinitionError: One is unknown or can't be used.
        """
        found, problems = self._read(decoration)
        if problems:
            raise problems[0].at(decoration.location).error()
        return found

    def problems(self, decoration: Decoration, configs: Values | None = None) -> list[Problem]:
        """Everything that is wrong with a use of it.

        Args:
            decoration: The use.
            configs: The flow's ``ConfigSet``; None where they aren't known yet: then options that wait for them
                are not looked at.
        """
        options = decoration.options.items()
        known = {key: value for key, value in options if configs is not None or not is_delayed(value)}
        is_known = len(known) == len(decoration.options)
        return [*decoration.problems, *self._read(replace(decoration, options=known), configs, is_whole=is_known)[1]]

    def _read(
        self, decoration: Decoration, configs: Values | None = None, *, is_whole: bool = True
    ) -> tuple[dict[str, Any], list[Problem]]:
        """The parsed options, and what is wrong with them; they are checked together where all are known."""
        problems = [self.problem] if self.problem is not None else []
        found = {option.name: option.default for option in self.options or ()}
        try:
            given = opened(decoration.options, configs)
        except ParameterError as error:
            return found, [*problems, self._unsettled(decoration.options, configs, error)]
        for name, value in given.items():
            if value is None and name in found:
                continue  # the same as not written out
            parsed = self._parsed(name, value)
            if isinstance(parsed, Problem):
                problems.append(parsed)
            else:
                found[name] = parsed
        if self.check is not None and is_whole and not problems and not decoration.problems:
            try:
                self.check(found)
            except ParameterError as error:
                problems.append(Problem(error.summary, error.advice))
            except ValueError as error:
                problems.append(Problem(f"@{self.name}: {error}."))
        return found, problems

    def _parsed(self, name: str, value: Any) -> Any:
        """An option's value in the type in which it is used, or a Problem."""
        if self.options is None:
            return value
        option = next((option for option in self.options if option.name == name), None)
        if option is None:
            names = [option.name for option in self.options]
            listed = f"Its options are {', '.join(names)}." if names else "It takes no options."
            listed = f"{self.page} lists its options." if self.page else listed
            return Problem(f"@{self.name} has no option {name!r}.", f"{did_you_mean(name, names)} {listed}".strip())
        shown = f"{name}={'…' if self.is_secret else repr(value)}"
        try:
            return option.parse(value)
        except ParameterError as error:
            return Problem(f"@{self.name} can't be used with {shown}: {error.summary}", error.advice)
        except (ValueError, TypeError) as error:
            shown = f"{name}=…" if isinstance(error, SecretValueError) else shown
            return Problem(f"@{self.name} can't be used with {shown}: {error}.", f"{name}: {option.help}.")

    def _unsettled(self, options: Mapping[str, Any], configs: Values | None, error: ParameterError) -> Problem:
        """The problem with options of which one can't be made from the configs, or is given twice."""
        for name, value in options.items():
            try:
                opened({name: value}, configs)
            except ParameterError as its_error:
                if not isinstance(name, Unpacked):
                    shown = f"{name}={'…' if self.is_secret else repr(value)}"
                    return Problem(f"@{self.name} can't be used with {shown}: {its_error.summary}", its_error.advice)
        return Problem(f"@{self.name}: {error.summary}", error.advice)

    def _misplaced(self, target: object) -> Problem:
        what, where = ("a flow's class", "class") if self.on == "flow" else ("a method", "step's def")
        name = getattr(target, "__name__", None)
        shown = f"the {'class' if isinstance(target, type) else type(target).__name__} {name}"
        shown = shown if name else described(target)
        return Problem(
            f"@{self.name} is on {shown}, which is not {what}.", f"Write @{self.name}(...) above the {where}."
        )

    def _repeated(self, target: Any) -> Problem:
        name = getattr(target, "__name__", "it")
        return Problem(f"@{self.name} is applied twice to {name}, and only one can take effect.", "Remove one of them.")

    def _by_position(self, *given: Any) -> Problem:
        values = [value for value in given if value is not None]
        names = [option.name for option in self.options or ()]
        shown = "…" if self.is_secret else ", ".join(map(repr, values))
        first = "…" if self.is_secret else repr(values[0])
        like = f"Write for example @{self.name}({names[0]}={first})." if names else ""
        return Problem(f"@{self.name} takes its options by name, not {shown}.", like)

    @property
    def __signature__(self) -> inspect.Signature:
        """The options, for help() and editors."""
        if self.options is None:
            return inspect.Signature([inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)])
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Signature([inspect.Parameter(o.name, kind, default=o.default) for o in self.options])


def decorator(
    help: str,  # noqa: A002  the name of the field
    *,
    on: Literal["step", "flow"] = "step",
    options: tuple[Option, ...] | None = None,
    check: Callable[[Mapping[str, Any]], object] | None = None,
    around: Around | None = None,
    outermost: bool = False,
    is_secret: bool = False,
    only_names: Callable[[Mapping[str, Any]], bool] | None = None,
    repeats: bool = False,
    page: str = "",
) -> Callable[[Callable[P, None]], Decorator[P]]:
    """Declares a decorator by a function whose keyword arguments are its options.

    Args:
        help: What the decorator does, in one line.
        on: What it decorates.
        options: Its options, where the function's annotations don't have them.
        check: As in ``Decorator``.
        around: As in ``Decorator``.
        outermost: As in ``Decorator``.
        is_secret: As in ``Decorator``.
        only_names: As in ``Decorator``.
        repeats: As in ``Decorator``.
        page: As in ``Decorator``.

    Returns:
        What makes the ``Decorator`` of the function, which is never called.
    """

    def declared(function: Callable[P, None]) -> Decorator[P]:
        return Decorator(
            function.__name__,
            help,
            _options_of(function) if options is None else options,
            on,
            check,
            around,
            outermost,
            is_secret,
            only_names,
            repeats,
            page=page,
        )

    return declared


def _options_of(function: Callable[..., None]) -> tuple[Option, ...]:
    hints = get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if not hasattr(hint, "__metadata__"):  # before Python 3.11, a default of None makes it Optional[Annotated[…]]
            hint = get_args(hint)[0]
        found.append(replace(hint.__metadata__[0], name=name, default=parameter.default))
    return tuple(found)


def _present(target: object) -> tuple[tuple[Decoration, ...], tuple[Decoration, ...]]:
    """The decorations that a class inherits from its bases, and its own; all of a function are its own."""
    found = of(target)
    bases = target.__mro__[1:] if isinstance(target, type) else ()
    above: tuple[Decoration, ...] = next((vars(base)[_DECORATIONS] for base in bases if _DECORATIONS in vars(base)), ())
    inherited = tuple(one for one in found if any(one is other for other in above))
    return inherited, tuple(one for one in found if not any(one is other for other in above))


def of(target: object) -> tuple[Decoration, ...]:
    """The decorators of a step's function or a flow's class, in the order in which they were applied."""
    found: tuple[Decoration, ...] = getattr(target, _DECORATIONS, ())
    return found


def add(target: Any, decoration: Decoration) -> None:
    """Records a decoration on a step's function."""
    setattr(target, _DECORATIONS, (*of(target), decoration))


def with_configs(decorations: tuple[Decoration, ...], configs: Values | None) -> tuple[Decoration, ...]:
    """Decorations whose options wait for configs, with the values of these.

    Raises:
        ParameterError: A config has no value, or an expression over it fails.
    """
    return tuple(
        replace(found, options=opened(found.options, configs)) if is_delayed(dict(found.options)) else found
        for found in decorations
    )


def options_of(decorations: Sequence[Decoration], name: str) -> dict[str, Any] | None:
    """The parsed options of a decorator among some decorations, or None where it is not among them.

    Raises:
        FlowDefinitionError: They can't be used.
    """
    found = next((decoration for decoration in decorations if decoration.name == name), None)
    return None if found is None else found.parsed()
