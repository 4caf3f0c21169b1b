"""Methods that were meant as steps and are none: without ``@step``, or under something that hides it.

A method is meant as a step where a step's ``self.next(...)`` names it and it goes on by itself, or where it is called
like the start or the end that the flow lacks. Any other one may do as it likes: a helper may call ``self.next(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.checks import locate as definitions
from k8sflow.flow.checks import reader as source
from k8sflow.flow.decorators import step as decorators
from k8sflow.flow.graph import END, START, Mistake, Place
from k8sflow.flow.problems import Misplaced


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


def find(flow: type[spec.FlowSpec]) -> list[Meant]:
    """The methods of a flow and its bases that were meant as steps, in the order of the source."""
    steps = spec.steps(flow)
    members = {name: member for name, member in spec.members(flow) if name not in steps}
    wanted = _missing(steps) | _goes_to(steps)
    found: dict[str, Meant] = {}
    while new := (wanted & members.keys()) - found.keys():
        meant = {name: _meant(flow, name, members.pop(name)) for name in new}
        found |= {name: each for name, each in meant.items() if each is not None}
        wanted |= _goes_to({name: each.function for name, each in found.items() if each.function is not None})
    return [found[name] for name, _ in spec.members(flow) if name in found]


def _missing(steps: dict[str, Callable[..., None]]) -> set[str]:
    """The names of the endpoints that a flow lacks."""
    marks = [decorators.endpoints(function) for function in steps.values()]
    return {name for position, name in enumerate((START, END)) if not any(mark[position] for mark in marks)}


def _goes_to(steps: dict[str, Callable[..., Any]]) -> set[str]:
    """The names that some steps go on to; none where the source is not there."""
    try:
        return {target for name, function in steps.items() for target in source.read_step(name, function)[0].next}
    except FlowDefinitionError:  # told where the steps are read
        return set()


def _meant(flow: type[spec.FlowSpec], name: str, member: Any) -> Meant | None:
    owner = next(base for base in flow.__mro__ if name in vars(base))
    written = source.written_steps(owner).get(name) if issubclass(owner, spec.FlowSpec) else None
    function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    if written is not None or decorators.is_step(function):
        return _hidden(name, member, function, written)
    if not isinstance(function, FunctionType) or (name not in {START, END} and not _goes_to({name: function})):
        return None
    place = _place(function)
    told = Mistake(place, f"{name} is a method of the flow, but it is no step.", f"Write @step above def {name}.")
    return Meant(name, place, function, told)


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


def _place(function: Any) -> Place:
    try:
        definition, file = definitions.definition_of(function)
    except FlowDefinitionError:
        code = function.__code__
        return Place(code.co_filename, code.co_firstlineno)
    return Place(file, definition.lineno)
