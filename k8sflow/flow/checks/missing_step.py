"""Finds methods that were intended as steps and aren't: they lack ``@step``, or something hides it.

A method was intended as a step if a step's ``self.next(...)`` names it and it has one too, or if its name is that of
the start or the end that the flow lacks. Any other method is a helper, which may call ``self.next(...)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from k8sflow.articles import described
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.checks import class_body, reader
from k8sflow.flow.checks.locate import Source
from k8sflow.flow.decorators.step import endpoints, is_step
from k8sflow.flow.definition import StepDefinition
from k8sflow.flow.graph import END, START
from k8sflow.flow.problems import Location, Misplaced, Problem


@dataclass(frozen=True)
class Intended:
    """A method that was intended as a step.

    Args:
        name: Its name.
        location: Its ``def``.
        function: The function by which it can be read as a step, or None.
        problem: Why it isn't a step, or None where its decorator reports that.
    """

    name: str
    location: Location
    function: Callable[..., Any] | None
    problem: Problem | None


def find(source: Source) -> list[Intended]:
    """The methods of a flow and its bases that were intended as steps, in the order of the source."""
    flow = source.flow
    steps = spec.steps(flow)
    members = {name: member for name, member in spec.members(flow) if name not in steps}
    wanted = _missing(steps) | _targets(source, steps)
    found: dict[str, Intended] = {}
    while new := (wanted & members.keys()) - found.keys():
        intended = {name: _intended(source, name, members.pop(name)) for name in new}
        found |= {name: each for name, each in intended.items() if each is not None}
        readable = {name: each.function for name, each in found.items() if each.function is not None}
        wanted |= _targets(source, readable)
    return [found[name] for name, _ in spec.members(flow) if name in found]


def _missing(steps: Mapping[str, Callable[..., None]]) -> set[str]:
    """The names of the endpoints that a flow lacks."""
    marks = [endpoints(function) for function in steps.values()]
    return {name for position, name in enumerate((START, END)) if not any(mark[position] for mark in marks)}


def _targets(source: Source, steps: Mapping[str, Callable[..., Any]]) -> set[str]:
    """The names in the transitions of some steps; none where the source is missing."""
    try:
        read = [reader.read_step(source, StepDefinition(name, function))[0] for name, function in steps.items()]
    except FlowDefinitionError:  # reported where the steps are read
        return set()
    return {target for node in read for target in node.next}


def _intended(source: Source, name: str, member: Any) -> Intended | None:
    owner = next(base for base in source.flow.__mro__ if name in vars(base))
    written = class_body.written_steps(source, owner).get(name) if issubclass(owner, spec.FlowSpec) else None
    function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    if written is not None or is_step(function):
        return _hidden(source, name, member, written)
    if not isinstance(function, FunctionType) or (name not in {START, END} and not _targets(source, {name: function})):
        return None
    location = _location(source, function)
    problem = location.problem(f"{name} is a method of the flow, but not a step.", f"Write @step above def {name}.")
    return Intended(name, location, function, problem)


def _hidden(source: Source, name: str, member: Any, written: Location | None) -> Intended:
    """A method under ``@step`` that something above it turned into something else."""
    function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
    location = written or _location(source, function)
    if isinstance(member, Misplaced):
        return Intended(name, location, None, None)
    if isinstance(member, (staticmethod, classmethod)):
        kind = type(member).__name__
        problem = location.problem(
            f"step {name} is under @{kind}, so it isn't a step.",
            f"Remove @{kind}: a step is a method, def {name}(self).",
        )
        return Intended(name, location, function if is_step(function) else None, problem)
    problem = location.problem(
        f"a decorator above @step of {name} turned it into {described(member)}, which isn't a step.",
        "Let that decorator use functools.wraps(function), or write it with @user_step_decorator.",
    )
    return Intended(name, location, None, problem)


def _location(source: Source, function: Any) -> Location:
    try:
        definition, file = source.definition_of(function)
    except FlowDefinitionError:
        code = function.__code__
        return Location(code.co_filename, code.co_firstlineno)
    return Location(file, definition.lineno)
