"""What the source of a flow says about its graph: steps, transitions, and mistakes that can be seen in one place."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from k8sflow.flow import spec
from k8sflow.flow.checks.locate import class_definitions, definition_of, is_decorated_as_step, name_of
from k8sflow.flow.decorators import step as decorators
from k8sflow.flow.graph import Mistake, Node, Place, class_place, closest

_OPTIONS = ("foreach", "max_parallel", "num_parallel", "condition")
_FEWEST_CASES = 2


def class_bodies(flow: type[spec.FlowSpec]) -> list[Mistake]:
    """Mistakes in what stands in a class beside and between the steps."""
    mistakes: list[Mistake] = []
    for base in flow.__mro__:
        if base is spec.FlowSpec or not issubclass(base, spec.FlowSpec):
            continue
        place = class_place(base)
        for body in class_definitions(base.__name__, place):
            mistakes += [*_taken_names(body, place.file), *_lost_members(body, place.file)]
    return mistakes


def _taken_names(body: ast.ClassDef, file: str) -> list[Mistake]:
    """Parameters, constants and methods under names that self has already; steps are looked at with the graph."""
    names: list[tuple[str, int]] = []
    for node in body.body:
        if isinstance(node, ast.Assign):
            names += [(target.id, node.lineno) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append((node.target.id, node.lineno))
        elif isinstance(node, ast.FunctionDef) and not is_decorated_as_step(node):
            names.append((node.name, node.lineno))
    return [
        Mistake(Place(file, line), f"{name!r} is taken: self.{name} means something in every flow.",
                "Give it another name.")
        for name, line in names if name in spec.RESERVED_NAMES
    ]  # fmt: skip


def _lost_members(body: ast.ClassDef, file: str) -> list[Mistake]:
    """Steps, parameters and configs that a second definition of the same name replaces, and those that replace."""
    mistakes = []
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
                mistakes.append(Mistake(Place(file, node.lineno), message, "Give one of them another name."))
            seen[name] = (kind, node.lineno)
    return mistakes


_OTHER = "member of the class"
_DECLARED = {"Parameter": "parameter", "IncludeFile": "parameter", "Config": "config"}
# A yield in one of these belongs to it.
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def _defined(node: ast.stmt) -> list[tuple[str, str]]:
    """The names that a statement of a class body gives something to, and what that is."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return [(node.name, "step" if is_decorated_as_step(node) else _OTHER)]
        case ast.Assign(targets=targets, value=value):
            return [(target.id, _declared(value)) for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            return [(name, _declared(value))]
    return []


def _is_made_from(node: ast.stmt, name: str) -> bool:
    """Whether an assignment reads the name that it sets."""
    value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    return value is not None and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value))


def _declared(value: ast.expr) -> str:
    return _DECLARED.get(name_of(value.func), _OTHER) if isinstance(value, ast.Call) else _OTHER


def written_steps(owner: type) -> dict[str, Place]:
    """The steps that the source of a class has, each with its ``def``; whatever became of them when it was run."""
    place = class_place(owner)
    found: dict[str, tuple[str, int]] = {}
    for body in class_definitions(owner.__name__, place):
        for node in body.body:
            found |= {name: (kind, node.lineno) for name, kind in _defined(node)}
    return {name: Place(place.file, line) for name, (kind, line) in found.items() if kind == "step"}


def read_step(name: str, function: Callable[..., Any]) -> tuple[Node, list[Mistake]]:
    """A step as its source tells it, and the mistakes in it.

    Raises:
        FlowDefinitionError: Its source can't be found.
    """
    definition, file = definition_of(function)
    place = Place(file, definition.lineno)
    mistakes: list[Mistake] = []
    arguments = [a.arg for a in (*definition.args.posonlyargs, *definition.args.args)]
    if len(arguments) not in {1, 2} or None in definition.args.kw_defaults:
        mistakes.append(
            Mistake(place, f"step {name} takes ({', '.join(arguments)}).",
                    "A step takes (self); a step that joins branches takes (self, inputs).")
        )  # fmt: skip
    if isinstance(definition, ast.AsyncFunctionDef):
        mistakes.append(Mistake(place, f"step {name} is async.", "Write def, and asyncio.run(...) inside of it."))
    if (place_of_yield := _yield_in(definition)) is not None:
        mistakes.append(
            Mistake(Place(file, place_of_yield), f"step {name} has a yield, so calling it would run none of its lines.",
                    "Put the yield into a method or a function, and loop over that in the step.")
        )  # fmt: skip
    own = arguments[0] if arguments else "self"
    calls = [node for node in _within(definition, own) if isinstance(node, ast.Call) and _is_next_call(node, own)]
    last = definition.body[-1]
    call = last.value if isinstance(last, ast.Expr) and _is_next_call(last.value, own) else None
    mistakes += [_early(name, Place(file, c.lineno), last, c) for c in calls if c is not call]
    is_start, is_end = decorators.endpoints(function)
    node = Node(
        name=name,
        place=place,
        next_place=Place(file, call.lineno if call else last.lineno),
        is_join=len(arguments) == 2,  # noqa: PLR2004  self and inputs
        is_parallel=any(decoration.name == "parallel" for decoration in decorators.of(function)),
        is_start=is_start,
        is_end=is_end,
        doc=ast.get_docstring(definition) or "",
    )
    if isinstance(call, ast.Call):
        node, found = _Transition(node, call, own).read()
        mistakes += found
    return node, mistakes


def _yield_in(definition: ast.AST) -> int | None:
    """The line of a function's own ``yield``, which makes it a generator."""
    for child in ast.iter_child_nodes(definition):
        if isinstance(child, (ast.Yield, ast.YieldFrom)):
            return child.lineno
        if not isinstance(child, _FUNCTIONS) and (line := _yield_in(child)) is not None:
            return line
    return None


def _within(node: ast.AST, own: str) -> Iterator[ast.AST]:
    """What stands in a step, but for functions in which the name of its first argument is somebody else's."""
    for child in ast.iter_child_nodes(node):
        yield child
        arguments = getattr(child, "args", None)
        taken = ast.walk(arguments) if isinstance(arguments, ast.arguments) else ()
        if not any(isinstance(argument, ast.arg) and argument.arg == own for argument in taken):
            yield from _within(child, own)


def _early(name: str, place: Place, last: ast.stmt, call: ast.Call) -> Mistake:
    if isinstance(last, ast.Return) and last.value is call:
        return Mistake(place, f"step {name} returns self.next().", "Write self.next(...) without return.")
    return Mistake(
        place,
        f"step {name} calls self.next() before its end.",
        "self.next(...) stands once in a step, as its last statement, outside of any if or loop.",
    )


def _is_next_call(node: ast.AST, own: str) -> bool:
    """Whether it is ``self.next(...)``, where the step's first argument is called ``own``."""
    return isinstance(node, ast.Call) and _is_own(node.func, own) and node.func.attr == "next"


def _is_own(node: ast.expr, own: str) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == own


@dataclass
class _Transition:
    """Reads one ``self.next(...)``.

    Args:
        node: The step that it stands in, without its transition.
        call: The call.
        own: What the step's first argument is called.
    """

    node: Node
    call: ast.Call
    own: str = "self"
    mistakes: list[Mistake] = field(default_factory=list)

    def read(self) -> tuple[Node, list[Mistake]]:
        """The step with its transition, and the mistakes in it."""
        options = self._options()
        if any(isinstance(argument, ast.Dict) for argument in self.call.args) or "condition" in options:
            node = self._switch(options)
        else:
            node = self._steps(options)
        return node, self.mistakes

    def _tell(self, message: str, advice: str, line: int | None = None) -> None:
        self.mistakes.append(Mistake(Place(self.node.place.file, line or self.call.lineno), message, advice))

    def _options(self) -> dict[str, ast.expr]:
        for keyword in self.call.keywords:
            if keyword.arg not in _OPTIONS:
                given = keyword.arg or f"**{ast.unparse(keyword.value)}"
                self._tell(
                    f"self.next() in step {self.node.name} has the unknown argument {given}.",
                    closest(given, _OPTIONS) or f"Its arguments are {', '.join(_OPTIONS)}.",
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
                self._tell(
                    f"step {self.node.name} opens a {kind} over {len(targets)} steps.",
                    f"A {kind} goes on to one step; that step may branch.",
                )
        if "foreach" in options and "num_parallel" in options:
            self._tell(
                f"step {self.node.name} has foreach and num_parallel in one self.next().",
                "Take one of them: foreach for a branch per item, num_parallel for processes that know each other.",
            )
        if "max_parallel" in options and "foreach" not in options:
            self._tell(f"max_parallel in step {self.node.name} limits nothing.", "It belongs to a foreach='attribute'.")
        foreach = None
        if "foreach" in options:
            foreach = self._name(options["foreach"], "foreach", "Put the items on self, and give the attribute's name: "
                                 "self.items = ...; self.next(self.work, foreach='items').")  # fmt: skip
        for kind in ("max_parallel", "num_parallel"):
            if kind in options:
                self._check_count(kind, options[kind])
        return replace(self.node, next=tuple(targets), foreach=foreach, num_parallel="num_parallel" in options)

    def _target(self, argument: ast.expr) -> str | None:
        if _is_own(argument, self.own):
            return argument.attr
        self._tell(
            f"step {self.node.name} goes on to {ast.unparse(argument)!r}, which is not a step.",
            "Write self.next(self.step_name).",
            argument.lineno,
        )
        return None

    def _name(self, value: ast.expr, option: str, advice: str) -> str | None:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
        self._tell(f"{option}={ast.unparse(value)} in step {self.node.name} is not a name in quotes.", advice)
        return None

    def _check_count(self, option: str, value: ast.expr) -> None:
        """A number that is written out; any other expression is looked at when the step has run."""
        found, is_known = literal(value)
        if option == "max_parallel" and found is None:
            return
        if is_known and (isinstance(found, bool) or not isinstance(found, int) or found < 1):
            self._tell(f"{option}={ast.unparse(value)} in step {self.node.name} is not a number from 1.",
                       f"Write for example {option}=4.")  # fmt: skip

    def _switch(self, options: dict[str, ast.expr]) -> Node:
        advice = "Write self.next({'small': self.a, 'large': self.b}, condition='size')."
        if len(self.call.args) != 1 or not isinstance(self.call.args[0], ast.Dict):
            self._tell(f"the switch of step {self.node.name} doesn't have its cases as one dict, written out.", advice)
            return self.node
        for option in sorted(options.keys() - {"condition"}):
            self._tell(f"step {self.node.name} has a switch and {option} in one self.next().",
                       f"Let the case go on to a step that has the {option}.")  # fmt: skip
        condition = None
        if "condition" not in options:
            self._tell(f"the switch of step {self.node.name} has no condition.", advice)
        else:
            condition = self._name(options["condition"], "condition", "Put the value on self, and give the "
                                   "attribute's name: self.size = ...; self.next({...}, condition='size')."
                                   )  # fmt: skip
        cases = self._cases(self.call.args[0])
        return replace(self.node, condition=condition, cases=cases, next=tuple(dict.fromkeys(s for _, s in cases)))

    def _cases(self, written: ast.Dict) -> tuple[tuple[str, str], ...]:
        cases = []
        seen: set[Any] = set()
        for key, value in zip(written.keys, written.values, strict=True):
            if key is None:
                self._tell(f"the switch of step {self.node.name} unpacks {ast.unparse(value)!r}.",
                           "Write every case out: its graph is read before anything runs.", value.lineno)  # fmt: skip
                continue
            found, is_known = literal(key)
            if not is_known and not _is_dotted(key):
                self._tell(f"the case {ast.unparse(key)} of step {self.node.name} is not a literal.",
                           "Write a string, a number or a bool.", key.lineno)  # fmt: skip
            elif is_known and found in seen:
                self._tell(f"the switch of step {self.node.name} has the case {ast.unparse(key)} twice.",
                           "Only the last one would count: take the others away.", key.lineno)  # fmt: skip
            seen.add(found if is_known else object())
            if (target := self._target(value)) is not None:
                cases.append((ast.unparse(key), target))
        if len(written.keys) < _FEWEST_CASES:
            self._tell(f"the switch of step {self.node.name} has fewer than two cases.",
                       "Without a choice, write self.next(self.step_name).")  # fmt: skip
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
    """Whether it is ``self.config.key``, ``Colour.RED`` or the like, which is known when the step runs."""
    while isinstance(expression, ast.Attribute):
        expression = expression.value
    return isinstance(expression, ast.Name)
