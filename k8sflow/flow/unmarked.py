"""Methods that were meant as steps and are none: without ``@step``, or under something that hides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import decorators, source, spec
from k8sflow.flow.faults import Misplaced
from k8sflow.flow.graph import END, START, Mistake, Place


@dataclass(frozen=True)
class Meant:
    """A method that was meant as a step.

    Args:
        name: Its name.
        place: Where its ``def`` stands.
        function: The function by which it can be read as a step, or None.
        mistake: Why it is no step, or None where its decorator tells.
    """

    name: str
    place: Place
    function: Callable[..., Any] | None
    mistake: Mistake | None


def find(flow: type[spec.FlowSpec]) -> Iterator[Meant]:
    """The methods of a flow and its bases that were meant as steps."""
    steps = spec.steps(flow)
    marks = [decorators.endpoints(function) for function in steps.values()]
    missing = {name for position, name in enumerate((START, END)) if not any(mark[position] for mark in marks)}
    flows = [base for base in flow.__mro__ if issubclass(base, spec.FlowSpec) and base is not spec.FlowSpec]
    written_in = {base: source.written_steps(base) for base in flows}
    for name, member in spec.members(flow):
        if name in steps or name.startswith("__"):
            continue
        owner = next(base for base in flow.__mro__ if name in vars(base))
        written = written_in.get(owner, {}).get(name)
        function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        if written is not None or decorators.is_step(function):
            yield _hidden(name, member, function, written)
        elif isinstance(function, FunctionType) and (name in missing or "next" in function.__code__.co_names):
            yield from _without_step(name, function, is_missing=name in missing)


def _hidden(name: str, member: Any, function: Any, written: Place | None) -> Meant:
    """A method under ``@step``, of which something above it made what is no step."""
    place = written or _place(function)
    if isinstance(member, Misplaced):
        return Meant(name, place, None, None)
    if isinstance(member, (staticmethod, classmethod)):
        kind = type(member).__name__
        told = Mistake(place, f"step {name} stands under @{kind}, and so it is no step.",
                       f"Take @{kind} away: a step is a method, def {name}(self).")  # fmt: skip
        return Meant(name, place, function if decorators.is_step(function) else None, told)
    told = Mistake(place, f"a decorator above @step of {name} made a {type(member).__name__} of it, which is no step.",
                   "Let that decorator keep what it stands on by functools.wraps(function), or write it with "
                   "@user_step_decorator.")  # fmt: skip
    return Meant(name, place, None, told)


def _without_step(name: str, function: FunctionType, *, is_missing: bool) -> Iterator[Meant]:
    place = _place(function)
    try:
        goes_on = source.goes_on(function)
    except FlowDefinitionError:  # its source is not there
        goes_on = False
    if goes_on or is_missing:
        what = f"{name} ends in self.next(...), but" if goes_on else f"{name} is a method of the flow, but"
        told = Mistake(place, f"{what} it is no step.", f"Write @step above def {name}.")
        yield Meant(name, place, function, told)


def _place(function: Any) -> Place:
    try:
        definition, file = source.definition_of(function)
    except FlowDefinitionError:
        code = function.__code__
        return Place(code.co_filename, code.co_firstlineno)
    return Place(file, definition.lineno)
