"""User-defined decorators that run code around a step: generators, and classes with ``pre_step`` and ``post_step``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.base import Decorator
from k8sflow.flow.decorators.mutators import StepMutator, is_decorated
from k8sflow.flow.problems import Problem, caller, wrong_call

# A wrapper that yields this keeps the step from running.
USER_SKIP_STEP: dict[str, Any] = {}


def user_step_decorator(function: Callable[..., Any]) -> Decorator[Any]:
    """Makes a step decorator from a generator: the code before its ``yield`` runs before the step, the rest after it.

    The generator takes the step's name, the flow (the step's ``self``), the join's inputs or None, and the decorator's
    options as a dictionary. It yields nothing to run the step, ``{}`` to skip it, or a function of ``self`` (and the
    inputs) to run instead. What the step raises is raised at the ``yield``.

    If it has the name of a built-in decorator, or isn't a generator, the check reports each use.
    """
    from inspect import isgeneratorfunction, signature  # noqa: PLC0415  only such flows need it

    name = function.__name__
    problem = _taken(name)
    if problem is None and not isgeneratorfunction(function):
        problem = Problem(f"@user_step_decorator: {name} does not yield.", "The step runs where it yields.")
    takes = len(signature(function).parameters)

    def around(step_name: str, flow: Any, inputs: Any, attributes: Mapping[str, Any], /) -> Any:
        return function(*(step_name, flow, inputs, attributes)[:takes])

    decorator: Decorator[Any] = Decorator(
        name,
        (function.__doc__ or name).strip(),
        None,
        around=around,
        repeats=True,
        problem=problem,
        origin=_file_of(function.__module__),
    )
    registry.define(function.__module__, name, lambda: decorator)
    return decorator


class UserStepDecorator:
    """Base of step decorators that run code before and after their step: ``@mine``, or ``@mine(option=1)``.

    A subclass defines ``pre_step`` and ``post_step``, and ``init`` if it takes options. Each execution of the
    step has an instance of its own, so that ``post_step`` finds on ``self`` what ``pre_step`` has put there.

    ``self.skip_step = True`` in ``pre_step`` keeps the step, and the decorators below this one, from running.

    A class may be a ``StepMutator`` too: then it changes the step's decorators before the run, and runs code around it.
    """

    skip_step: bool | dict[str, Any] = False

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Decorates a step, or takes the options; the check reports what is wrong."""
        return cls.k8sflow_applied(args, options)

    @classmethod
    def k8sflow_applied(cls, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Decorates a step, or takes the options and returns what does."""
        named = cls._by_name(args)
        is_alone = len(args) == 1 and not options
        # A class may be an option: @swallow(ValueError).
        is_option = is_alone and named and isinstance(args[0], type) and not hasattr(args[0], "_k8sflow_task")
        is_applied = is_alone and not is_option and is_decorated(args[0], caller())
        given = ((), {}) if is_applied else (args, options)
        mutator = cls.k8sflow_made(*given) if issubclass(cls, StepMutator) else None
        decorator = cls.k8sflow_decorator(mutator)
        if is_applied:
            return decorator(args[0]) if mutator is None else mutator(decorator(args[0]))
        decorate = (
            decorator(*args, **options) if named is None or named.keys() & options else decorator(**named, **options)
        )
        return decorate if mutator is None else lambda target: mutator(decorate(target))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        registry.define(cls.__module__, cls.__name__, cls.k8sflow_decorator)

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Takes the options, where the step runs; a decorator that doesn't define it takes none."""

    def pre_step(self, step_name: str, flow: Any, inputs: Any = None) -> Callable[..., None] | None:  # noqa: ARG002
        """Called before the step.

        Args:
            step_name: The step's name.
            flow: The step's ``self``.
            inputs: The join's inputs, or None.

        Returns:
            None to run the step, or a function of ``self`` (and the inputs) to run instead.
        """
        return None

    def post_step(self, step_name: str, flow: Any, exception: Exception | None = None) -> Any:  # noqa: ARG002  as above
        """Called after the step; attributes that it sets on ``flow`` are kept.

        Args:
            step_name: The step's name.
            flow: The step's ``self``.
            exception: What the step has raised, or None.

        Returns:
            The exception to end the step with, or None, with which the step has succeeded: also where it had raised
            one. If it is a pair, only its first element counts.
        """
        return exception

    @classmethod
    def _by_name(cls, args: Sequence[Any]) -> dict[str, Any] | None:
        """Options that were given by position, by their names; None where they have none."""
        from inspect import Parameter, signature  # noqa: PLC0415  only such flows need it

        accepted = signature(object.__new__(cls).init)
        if len(args) > sum(p.kind is Parameter.POSITIONAL_OR_KEYWORD for p in accepted.parameters.values()):
            return None
        return dict(accepted.bind_partial(*args).arguments)

    @classmethod
    def k8sflow_decorator(cls, mutator: StepMutator | None = None) -> Decorator[Any]:
        """The decorator that the class is.

        Args:
            mutator: Where the class is a mutator too, the one whose attributes each execution finds on ``self``.
        """
        name = cls.__name__
        problem = _taken(name)
        if problem is None and cls.__init__ not in {object.__init__, StepMutator.__init__}:
            problem = Problem(f"@{name} has an __init__.", "A UserStepDecorator takes its options by init(self, ...).")

        def check(options: Mapping[str, Any]) -> None:
            has_options = cls.init not in {UserStepDecorator.init, StepMutator.init}
            takes = object.__new__(cls).init if has_options else _no_options
            if wrong := wrong_call(f"@{name}", takes, (), options):
                raise ParameterError(wrong.message, advice=wrong.advice)

        def around(step_name: str, flow: Any, inputs: Any, options: Mapping[str, Any], /) -> Generator[Any, None, None]:
            made = object.__new__(cls)
            made.__dict__.update(vars(mutator) if mutator is not None else {})
            made.init(**options)
            return _around(made, step_name, flow, inputs)

        return Decorator(
            name,
            (cls.__doc__ or name).strip(),
            None,
            check=check,
            around=around,
            repeats=True,
            problem=problem,
            origin=_file_of(cls.__module__),
        )


def _around(decorator: UserStepDecorator, step_name: str, flow: Any, inputs: Any) -> Generator[Any, None, None]:
    """A decorator's two methods as the generator that a step is called in."""
    answer: Any = decorator.pre_step(step_name, flow, inputs)
    if decorator.skip_step is not False:
        answer = USER_SKIP_STEP if decorator.skip_step is True else decorator.skip_step
    try:
        yield answer
    except Exception as error:  # noqa: BLE001  the boundary to the user's code; what ends the process passes by
        result = decorator.post_step(step_name, flow, error)
    else:
        result = decorator.post_step(step_name, flow, None)
    match result:
        case None | (None, _):
            return
        case Exception() | (Exception(), _):
            raise result[0] if isinstance(result, tuple) else result
        case _:
            raise FlowDefinitionError(
                f"post_step of @{type(decorator).__name__} returned {result!r}, which is not an exception.",
                advice="Return the exception to end the step with, or None.",
            )


def _file_of(module: str) -> str:
    """The file of a module, which may be imported under two names; the name of one that has no file."""
    return getattr(sys.modules.get(module), "__file__", None) or module


def _no_options() -> None:
    """Takes the options of a decorator without an ``init`` of its own: none."""


def _taken(name: str) -> Problem | None:
    return Problem(f"@{name} exists already.", "Give it another name.") if registry.is_built_in(name) else None
