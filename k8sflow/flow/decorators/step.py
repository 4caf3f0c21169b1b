"""Step decorators: ``@step``, where a step runs and what it needs there; what is written is kept on its function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar, overload

from k8sflow.flow.decorators import kind as kinds
from k8sflow.flow.decorators.kind import Decoration, DecoratorKind, Option, bound_to, of
from k8sflow.flow.decorators.pod_options import RESOURCES, PodOptions
from k8sflow.flow.decorators.registry import kind_of, parse
from k8sflow.flow.problems import Fault, Located, Misplaced, caller, did_you_mean, is_class_body, place_of

if TYPE_CHECKING:
    from k8sflow.flow.spec import FlowSpec

__all__ = ["Decoration", "effective", "endpoints", "is_step", "kubernetes", "of", "of_step", "parallel", "parse"]

StepFunction = TypeVar("StepFunction", bound=Callable[..., None])

_STEP = "__k8sflow_step__"
_ENDPOINTS = "__k8sflow_endpoints__"
# On a flow's class: what mutators made of its steps' decorators, by step.
_MUTATED = "__k8sflow_mutated__"


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
        more: Nothing: what is here is a mistake, which the static check tells.
        start: Whether the run begins here; without it, at the step that is called ``start``.
        end: Whether the run ends here; without it, at the step that is called ``end``.
        unknown: Nothing, as above.

    Raises:
        FlowDefinitionError: It is used wrongly where there will be no static check.
    """
    frame = caller()
    faults = [Fault(f"@step has no option {name!r}.", f"{did_you_mean(name, _STEP_OPTIONS)} {_STEP_ADVICE}".strip())
              for name in unknown]  # fmt: skip
    is_decorated = callable(function) or hasattr(type(function), "__get__") or isinstance(function, Misplaced)
    if more or not (function is None or is_decorated):
        given = ", ".join(map(repr, (function, *more)))
        faults.append(Fault(f"@step takes its options by name, not {given}.", _STEP_ADVICE))

    def mark(target: Any) -> Any:
        return _marked(target, (start, end), Decoration("step", {}, place_of(frame), tuple(faults)))

    return mark(function) if function is not None and is_decorated and not more else mark


_STEP_OPTIONS = ("start", "end")
_STEP_ADVICE = "Write @step, @step(start=True) or @step(end=True)."


def _marked(target: Any, endpoints: tuple[bool, bool], decoration: Decoration) -> Any:
    if isinstance(target, Misplaced):
        return target
    if isinstance(target, (type, staticmethod, classmethod)) or not callable(target):
        shown = f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"
        fault = Fault(f"@step stands on {shown}, which is not a method.", "Write @step above a def(self) of the class.")
        found = Located(decoration.place, fault)
        if is_class_body(caller()):
            return Misplaced(found)
        raise found.error()
    setattr(target, _STEP, True)
    setattr(target, _ENDPOINTS, endpoints)
    if decoration.faults:
        kinds.replace_of(target, (*of(target), decoration))
        if not is_class_body(caller()):
            raise Located(decoration.place, decoration.faults[0]).error()
    return target


def _pod_options(names: Sequence[str]) -> tuple[Option, ...]:
    known = {option.name: option.metadata for option in fields(PodOptions)}
    return tuple(Option(name, known[name]["parse"], f"the {known[name]['help']}") for name in names)


resources = DecoratorKind(
    "resources",
    "what the step needs where it runs on Kubernetes; a local run takes no notice of it",
    _pod_options(RESOURCES),
)

kubernetes = DecoratorKind(
    "kubernetes",
    "runs the step as a Kubernetes Job, whatever the rest of the flow does",
    _pod_options([option.name for option in fields(PodOptions)]),
)

parallel = DecoratorKind(
    "parallel",
    "the step that self.next(self.train, num_parallel=4) runs as processes that know each other (current.parallel)",
)


def is_step(member: object) -> bool:
    """Whether a member of a class is a step."""
    return getattr(member, _STEP, False) is True


def endpoints(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a step was marked as the start, and as the end."""
    found: tuple[bool, bool] = getattr(function, _ENDPOINTS, (False, False))
    return found


def of_step(flow: type[FlowSpec], name: str) -> tuple[Decoration, ...]:
    """The decorators of a flow's step, in the order in which they were applied, after the flow's mutators."""
    mutated: dict[str, tuple[Decoration, ...]] = flow.__dict__.get(_MUTATED, {})
    return bound_to(flow, mutated[name] if name in mutated else of(getattr(flow, name)))


def replace_of_step(flow: type[FlowSpec], name: str, decorations: tuple[Decoration, ...]) -> None:
    """Sets the decorators of a flow's step; those of the flow's base classes stay as they are."""
    type.__setattr__(flow, _MUTATED, {**flow.__dict__.get(_MUTATED, {}), name: decorations})


def effective(flow: type[FlowSpec], name: str, added: Sequence[Decoration]) -> tuple[Decoration, ...]:
    """The decorators of a step, and those of ``--with`` that it doesn't have by itself."""
    own = of_step(flow, name)
    names = {decoration.name for decoration in own}
    return (*own, *(decoration for decoration in added if decoration.name not in names))


def options_of(decorations: Sequence[Decoration], name: str) -> dict[str, Any] | None:
    """The parsed options of a decorator among some, or None where it is not there.

    Raises:
        FlowDefinitionError: They can't be used.
    """
    found = next((decoration for decoration in decorations if decoration.name == name), None)
    return None if found is None else kind_of(found).read(found)
