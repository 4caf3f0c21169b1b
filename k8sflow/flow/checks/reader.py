"""Reads steps and their transitions from the source of a flow, with the problems in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from k8sflow.flow.checks.locate import Function, Source
from k8sflow.flow.decorators.step import endpoints
from k8sflow.flow.definition import StepDefinition
from k8sflow.flow.graph import Node
from k8sflow.flow.problems import Location, Problem, did_you_mean

_OPTIONS = ("foreach", "max_parallel", "num_parallel", "condition")
_FEWEST_CASES = 2
# A yield in one of these belongs to it.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def read_step(source: Source, step: StepDefinition) -> tuple[Node, list[Problem]]:
    """A step as its source has it, and the problems in it.

    Raises:
        FlowDefinitionError: Its source can't be found.
    """
    definition, file = source.definition_of(step.function)
    arguments = [a.arg for a in (*definition.args.posonlyargs, *definition.args.args)]
    problems = _problems(step.name, definition, file, arguments)
    own = arguments[0] if arguments else "self"
    calls = [node for node in _within(definition, own) if isinstance(node, ast.Call) and _is_next_call(node, own)]
    last = definition.body[-1]
    call = last.value if isinstance(last, ast.Expr) and _is_next_call(last.value, own) else None
    problems += [_early(step.name, Location(file, c.lineno), last, c) for c in calls if c is not call]
    is_start, is_end = endpoints(step.function)
    node = Node(
        name=step.name,
        location=Location(file, definition.lineno),
        next_at=Location(file, call.lineno if call else last.lineno),
        is_join=len(arguments) == 2,  # noqa: PLR2004  self and inputs
        is_parallel=any(decoration.name == "parallel" for decoration in step.decorations),
        is_start=is_start,
        is_end=is_end,
        doc=ast.get_docstring(definition) or "",
    )
    if isinstance(call, ast.Call):
        node, found = _Transition(node, call, own).read()
        problems += found
    return node, problems


def _problems(name: str, definition: Function, file: str, arguments: list[str]) -> list[Problem]:
    """The problems of a step's ``def``."""
    location = Location(file, definition.lineno)
    found = []
    if len(arguments) not in {1, 2} or None in definition.args.kw_defaults:
        takes = f"step {name} takes ({', '.join(arguments)})."
        found.append(location.problem(takes, "A step takes (self); a step that joins branches takes (self, inputs)."))
    if isinstance(definition, ast.AsyncFunctionDef):
        found.append(location.problem(f"step {name} is async.", "Write def, and asyncio.run(...) inside of it."))
    if (line := _line_of_yield(definition)) is not None:
        found.append(
            Location(file, line).problem(
                f"step {name} has a yield, so calling it would run none of its lines.",
                "Move the yield into a method or a function, and loop over that in the step.",
            )
        )
    return found


def _line_of_yield(definition: ast.AST) -> int | None:
    """The line of a function's own ``yield``, which makes it a generator."""
    for child in ast.iter_child_nodes(definition):
        if isinstance(child, (ast.Yield, ast.YieldFrom)):
            return child.lineno
        if not isinstance(child, _FUNCTIONS) and (line := _line_of_yield(child)) is not None:
            return line
    return None


def _within(node: ast.AST, own: str) -> Iterator[ast.AST]:
    """The nodes in a step, without functions that use the name of its first argument for something else."""
    for child in ast.iter_child_nodes(node):
        yield child
        arguments = getattr(child, "args", None)
        taken = ast.walk(arguments) if isinstance(arguments, ast.arguments) else ()
        if not any(isinstance(argument, ast.arg) and argument.arg == own for argument in taken):
            yield from _within(child, own)


def _early(name: str, location: Location, last: ast.stmt, call: ast.Call) -> Problem:
    if isinstance(last, ast.Return) and last.value is call:
        return location.problem(f"step {name} returns self.next().", "Write self.next(...) without return.")
    return location.problem(
        f"step {name} calls self.next() before its end.",
        "Write self.next(...) once in a step, as its last statement, outside of any if or loop.",
    )


def _is_next_call(node: ast.AST, own: str) -> bool:
    """True if it is ``self.next(...)``, where the step's first argument is called ``own``."""
    return isinstance(node, ast.Call) and _is_own(node.func, own) and node.func.attr == "next"


def _is_own(node: ast.expr, own: str) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == own


@dataclass
class _Transition:
    """Reads one ``self.next(...)``.

    Args:
        node: The step of the call, without its transition.
        call: The call.
        own: The name of the step's first argument.
    """

    node: Node
    call: ast.Call
    own: str = "self"
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> tuple[Node, list[Problem]]:
        """The step with its transition, and the problems in it."""
        options = self._options()
        if any(isinstance(argument, ast.Dict) for argument in self.call.args) or "condition" in options:
            node = self._switch(options)
        else:
            node = self._steps(options)
        return node, self.problems

    def _add(self, message: str, advice: str, line: int | None = None) -> None:
        self.problems.append(Location(self.node.location.file, line or self.call.lineno).problem(message, advice))

    def _options(self) -> dict[str, ast.expr]:
        for keyword in self.call.keywords:
            if keyword.arg not in _OPTIONS:
                given = keyword.arg or f"**{ast.unparse(keyword.value)}"
                self._add(
                    f"self.next() in step {self.node.name} has the unknown argument {given}.",
                    did_you_mean(given, _OPTIONS) or f"Its arguments are {', '.join(_OPTIONS)}.",
                )
        return {
            keyword.arg: keyword.value
            for keyword in self.call.keywords
            if keyword.arg in _OPTIONS and literal(keyword.value) != (None, True)
        }

    def _steps(self, options: dict[str, ast.expr]) -> Node:
        targets = [target for argument in self.call.args if (target := self._target(argument)) is not None]
        for kind in ("foreach", "num_parallel"):
            if kind in options and len(targets) > 1:
                self._add(
                    f"step {self.node.name} opens a {kind} over {len(targets)} steps.",
                    f"A {kind} leads to one step; that step may branch.",
                )
        if "foreach" in options and "num_parallel" in options:
            self._add(
                f"step {self.node.name} has foreach and num_parallel in one self.next().",
                "Take one of them: foreach for a branch per item, num_parallel for processes that know each other.",
            )
        if "max_parallel" in options and "foreach" not in options:
            self._add(f"max_parallel in step {self.node.name} limits nothing.", "It belongs to a foreach='attribute'.")
        foreach = None
        if "foreach" in options:
            foreach = self._name(
                options["foreach"],
                "foreach",
                "Put the items on self, and give the attribute's name: "
                "self.items = ...; self.next(self.work, foreach='items').",
            )
        for kind in ("max_parallel", "num_parallel"):
            if kind in options:
                self._check_count(kind, options[kind])
        return replace(self.node, next=tuple(targets), foreach=foreach, num_parallel="num_parallel" in options)

    def _target(self, argument: ast.expr) -> str | None:
        if _is_own(argument, self.own):
            return argument.attr
        self._add(
            f"step {self.node.name} leads to {ast.unparse(argument)!r}, which is not a step.",
            "Write self.next(self.step_name).",
            argument.lineno,
        )
        return None

    def _name(self, value: ast.expr, option: str, advice: str) -> str | None:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
        self._add(f"{option}={ast.unparse(value)} in step {self.node.name} is not a name in quotes.", advice)
        return None

    def _check_count(self, option: str, value: ast.expr) -> None:
        """A number that is written out; any other expression is looked at when the step has run."""
        found, is_known = literal(value)
        if option == "max_parallel" and found is None:
            return
        if is_known and (isinstance(found, bool) or not isinstance(found, int) or found < 1):
            self._add(
                f"{option}={ast.unparse(value)} in step {self.node.name} is not a number from 1.",
                f"Write for example {option}=4.",
            )

    def _switch(self, options: dict[str, ast.expr]) -> Node:
        advice = "Write self.next({'small': self.a, 'large': self.b}, condition='size')."
        if len(self.call.args) != 1 or not isinstance(self.call.args[0], ast.Dict):
            self._add(f"the switch of step {self.node.name} doesn't have its cases as one dict, written out.", advice)
            return self.node
        for option in sorted(options.keys() - {"condition"}):
            self._add(
                f"step {self.node.name} has a switch and {option} in one self.next().",
                f"Let the case go on to a step that has the {option}.",
            )
        condition = None
        if "condition" not in options:
            self._add(f"the switch of step {self.node.name} has no condition.", advice)
        else:
            condition = self._name(
                options["condition"],
                "condition",
                "Put the value on self, and give the "
                "attribute's name: self.size = ...; self.next({...}, condition='size').",
            )
        cases = self._cases(self.call.args[0])
        return replace(self.node, condition=condition, cases=cases, next=tuple(dict.fromkeys(s for _, s in cases)))

    def _cases(self, written: ast.Dict) -> tuple[tuple[str, str], ...]:
        cases = []
        seen: set[Any] = set()
        for key, value in zip(written.keys, written.values, strict=True):
            if key is None:
                self._add(
                    f"the switch of step {self.node.name} unpacks {ast.unparse(value)!r}.",
                    "Write every case out: its graph is read before anything runs.",
                    value.lineno,
                )
                continue
            found, is_known = literal(key)
            if not is_known and not _is_dotted(key):
                self._add(
                    f"the case {ast.unparse(key)} of step {self.node.name} is not a literal.",
                    "Write a string, a number or a bool.",
                    key.lineno,
                )
            elif is_known and found in seen:
                self._add(
                    f"the switch of step {self.node.name} has the case {ast.unparse(key)} twice.",
                    "Only the last one would count: take the others away.",
                    key.lineno,
                )
            seen.add(found if is_known else object())
            if (target := self._target(value)) is not None:
                cases.append((ast.unparse(key), target))
        if len(written.keys) < _FEWEST_CASES:
            self._add(
                f"the switch of step {self.node.name} has fewer than two cases.",
                "Without a choice, write self.next(self.step_name).",
            )
        return tuple(cases)


def literal(expression: ast.expr) -> tuple[Any, bool]:
    """The value of a literal that can be a case, and whether it is one."""
    try:
        value = ast.literal_eval(expression)
        hash(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None, False
    return value, True


def _is_dotted(expression: ast.expr) -> bool:
    """True if it is ``self.config.key``, ``Colour.RED`` or the like, which is known when the step runs."""
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return isinstance(expression, ast.Name)
