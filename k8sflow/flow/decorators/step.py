"""``@step``: marks the methods that are steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from k8sflow.articles import described
from k8sflow.flow.decorators import base
from k8sflow.flow.decorators.base import Decoration, Decorator
from k8sflow.flow.problems import Misplaced, Problem, caller, did_you_mean, is_class_body, location_of

StepFunction = TypeVar("StepFunction", bound=Callable[..., None])

_STEP = "__k8sflow_step__"
_ENDPOINTS = "__k8sflow_endpoints__"
_OPTIONS = ("start", "end")
_ADVICE = "Write @step, @step(start=True) or @step(end=True)."
# The decorator under which a wrong use of @step is recorded.
_DECORATOR: Decorator[[]] = Decorator("step", "marks a method as a step of the flow", repeats=True)


@overload
def step(function: StepFunction) -> StepFunction: ...
@overload
def step(*, start: bool = ..., end: bool = ...) -> Callable[[StepFunction], StepFunction]: ...
def step(function: Any = None, /, *more: object, start: bool = False, end: bool = False, **unknown: object) -> Any:
    """Marks a method as a step of the flow: ``@step``, or ``@step(start=True)``.

    A step takes ``self``; a step that joins branches takes ``self, inputs``. Its last statement is
    ``self.next(...)``, except in the end step.

    Args:
        function: The method.
        more: Nothing: an argument here is an error, which the check reports.
        start: Whether the run starts here; by default it starts at the step named ``start``.
        end: Whether the run ends here; by default it ends at the step named ``end``.
        unknown: Nothing, as above.

    Raises:
        FlowDefinitionError: It is used wrongly where there will be no check.
    """
    frame = caller()
    problems = [
        Problem(f"@step has no option {name!r}.", f"{did_you_mean(name, _OPTIONS)} {_ADVICE}".strip())
        for name in unknown
    ]
    is_decorated = callable(function) or hasattr(type(function), "__get__") or isinstance(function, Misplaced)
    if more or not (function is None or is_decorated):
        given = ", ".join(map(repr, (function, *more)))
        problems.append(Problem(f"@step takes its options by name, not {given}.", _ADVICE))

    def mark(target: Any) -> Any:
        return _marked(target, (start, end), Decoration(_DECORATOR, {}, location_of(frame), tuple(problems)))

    return mark(function) if function is not None and is_decorated and not more else mark


def _marked(target: Any, endpoints: tuple[bool, bool], decoration: Decoration) -> Any:
    if isinstance(target, Misplaced):
        return target
    if isinstance(target, (type, staticmethod, classmethod)) or not callable(target):
        shown = f"the class {target.__name__}" if isinstance(target, type) else described(target)
        problem = Problem(f"@step is on {shown}, which is not a method.", "Write @step above a def(self) of the class.")
        found = problem.at(decoration.location)
        if is_class_body(caller()):
            return Misplaced(found)
        raise found.error()
    setattr(target, _STEP, True)
    setattr(target, _ENDPOINTS, endpoints)
    if decoration.problems:
        base.add(target, decoration)
        if not is_class_body(caller()):
            raise decoration.problems[0].at(decoration.location).error()
    return target


def is_step(member: object) -> bool:
    """True if a member of a class is a step."""
    return getattr(member, _STEP, False) is True


def endpoints(function: Callable[..., Any]) -> tuple[bool, bool]:
    """The marks of a step: as the start, and as the end."""
    found: tuple[bool, bool] = getattr(function, _ENDPOINTS, (False, False))
    return found
