"""Checks the class statements of a flow, apart from its steps: taken names, and members that are defined twice."""

from __future__ import annotations

import ast

from k8sflow.flow.checks.locate import Source, is_decorated_as_step, name_of
from k8sflow.flow.problems import Location, Problem
from k8sflow.flow.spec import RESERVED_ATTRIBUTES

_OTHER = "member of the class"
_DECLARED = {"Parameter": "parameter", "IncludeFile": "parameter", "Config": "config"}


def problems(source: Source) -> list[Problem]:
    """The problems in the class statements of a flow, apart from those of its steps."""
    found: list[Problem] = []
    for body, file in source.bodies():
        found += [*_taken_names(body, file), *_lost_members(body, file)]
    return found


def _taken_names(body: ast.ClassDef, file: str) -> list[Problem]:
    """Parameters, constants and methods under names that self has already; steps are checked with the graph."""
    names: list[tuple[str, int]] = []
    for node in body.body:
        if isinstance(node, ast.Assign):
            names += [(target.id, node.lineno) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append((node.target.id, node.lineno))
        elif isinstance(node, ast.FunctionDef) and not is_decorated_as_step(node):
            names.append((node.name, node.lineno))
    return [
        Location(file, line).problem(
            f"{name!r} is taken: self.{name} means something in every flow.", "Give it another name."
        )
        for name, line in names
        if name in RESERVED_ATTRIBUTES
    ]


def _lost_members(body: ast.ClassDef, file: str) -> list[Problem]:
    """Steps, parameters and configs that a second definition of the same name replaces, and those that replace."""
    found = []
    seen: dict[str, tuple[str, int]] = {}
    for node in body.body:
        for name, kind in _defined(node):
            before, line = seen.get(name, ("", 0))
            if before and _is_made_from(node, name):
                continue  # start = resources(cpu=2)(start)
            if before and (before, kind) != (_OTHER, _OTHER):
                what = f"step {name}" if before == kind == "step" else name
                also = "" if before == kind else f", there as a {before}, here as a {kind}"
                message = f"{what} is defined twice{also}; the first is in line {line}, and is lost."
                found.append(Location(file, node.lineno).problem(message, "Give one of them another name."))
            seen[name] = (kind, node.lineno)
    return found


def _defined(node: ast.stmt) -> list[tuple[str, str]]:
    """The names that a statement of a class body sets, and what each one is."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [(node.name, "step" if is_decorated_as_step(node) else _OTHER)]
        case ast.Assign(targets=targets, value=value):
            return [(target.id, _declared(value)) for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return [(name, _declared(value))]
    return []


def _is_made_from(node: ast.stmt, name: str) -> bool:
    """True if an assignment reads the name that it sets."""
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    return value is not None and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value))


def _declared(value: ast.expr) -> str:
    return _DECLARED.get(name_of(value.func), _OTHER) if isinstance(value, ast.Call) else _OTHER


def written_steps(source: Source, owner: type) -> dict[str, Location]:
    """The steps in the source of a class, each with its ``def``, even if a decorator turned it into something else."""
    found: dict[str, tuple[str, int]] = {}
    for body in source.class_definitions(owner):
        for node in body.body:
            found |= {name: (kind, node.lineno) for name, kind in _defined(node)}
    file = source.location_of(owner).file
    return {name: Location(file, line) for name, (kind, line) in found.items() if kind == "step"}
