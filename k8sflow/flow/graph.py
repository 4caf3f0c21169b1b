"""The graph of a flow, read from its source without running it."""

from __future__ import annotations

import ast
import difflib
import inspect
import linecache
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec

START = "start"
END = "end"


@dataclass(frozen=True)
class Place:
    """A line of the user's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """Something in the class body that can't work: where, what, and how to write it right."""

    place: Place
    message: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"\n    {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Node:
    """One step.

    Args:
        name: The step's name.
        place: Where its ``def`` stands.
        next_place: Where its ``self.next()`` stands.
        next: The steps that it goes on to, in the order of ``self.next()``.
        foreach: The attribute over whose items it opens branches, or None.
        is_join: Whether it takes ``inputs``.
        splits: The steps whose branches it runs in, the outermost first; for a join, after it has joined.
        joins: For a join, the step whose branches it joins.
        parents: The steps that go on to this one; for a join, in the order of the split's branches.
        doc: Its docstring.
    """

    name: str
    place: Place
    next_place: Place
    next: tuple[str, ...] = ()
    foreach: str | None = None
    is_join: bool = False
    splits: tuple[str, ...] = ()
    joins: str | None = None
    parents: tuple[str, ...] = ()
    doc: str = ""

    @property
    def is_split(self) -> bool:
        """Whether it opens branches: static ones or those of a foreach."""
        return len(self.next) > 1 or self.foreach is not None


@dataclass(frozen=True)
class Graph:
    """The steps of a flow and their order."""

    flow: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]

    def to_document(self) -> list[dict[str, Any]]:
        """The steps as JSON types, for a reader that doesn't have the source."""
        return [asdict(node) for node in self.nodes.values()]

    @staticmethod
    def from_document(flow: str, document: list[dict[str, Any]]) -> Graph:
        """The graph that ``to_document`` wrote."""
        nodes = {}
        for entry in document:
            lists = {key: tuple(entry[key]) for key in ("next", "splits", "parents")}
            places = {key: Place(**entry[key]) for key in ("place", "next_place")}
            nodes[entry["name"]] = Node(**{**entry, **lists, **places})
        return Graph(flow, nodes)

    def depth(self, step: str) -> int:
        """How many foreach loops surround a step: the length of its tasks' paths."""
        return sum(1 for split in self.nodes[step].splits if self.nodes[split].foreach is not None)


def build(flow: type[spec.FlowSpec]) -> Graph:
    """The checked graph of a flow.

    Raises:
        FlowDefinitionError: The class body has mistakes; all of them are told.
    """
    from k8sflow.flow import lint  # noqa: PLC0415  lint needs the types of this module

    nodes: dict[str, Node] = {}
    mistakes = _class_bodies(flow)
    unread = set()
    for name, function in spec.steps(flow).items():
        node, found = _read_step(name, function)
        nodes[name] = node
        mistakes += found
        if found:
            unread.add(name)
    graph, found = lint.check(Graph(flow.__name__, nodes), class_place(flow), unread)
    mistakes += found
    if mistakes:
        raise refuse(flow.__name__, mistakes)
    return graph


def refuse(flow: str, mistakes: list[Mistake]) -> FlowDefinitionError:
    """The error that tells every mistake of a flow at once, in the order of the source."""
    ordered = sorted(dict.fromkeys(mistakes), key=lambda m: (m.place.file, m.place.line))
    count = "a mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    return FlowDefinitionError(f"{flow} has {count}; nothing was run.", advice="\n".join(map(str, ordered)))


def class_place(flow: type) -> Place:
    """Where the class statement of a flow stands."""
    try:
        return Place(inspect.getsourcefile(flow) or "?", inspect.getsourcelines(flow)[1])
    except (OSError, TypeError):
        return Place("?", 0)


def closest(word: str, words: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """`` Did you mean …?`` where one of the words is close, else an empty text."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {found[0]!r}?" if found else ""


def _class_bodies(flow: type[spec.FlowSpec]) -> list[Mistake]:
    """Mistakes in what stands in a class beside and between the steps."""
    mistakes: list[Mistake] = []
    for base in flow.__mro__:
        if base is spec.FlowSpec or not issubclass(base, spec.FlowSpec):
            continue
        place = class_place(base)
        for body in _class_definitions(base.__name__, place):
            mistakes += [*_taken_names(body, place.file), *_lost_steps(body, place.file)]
    return mistakes


def _class_definitions(name: str, place: Place) -> list[ast.ClassDef]:
    """The class statement at a place, if its source can be read."""
    found = _definitions(place.file).get(name, [])
    return [node for node in found if isinstance(node, ast.ClassDef) and place.line in {node.lineno, _first_line(node)}]


def _taken_names(body: ast.ClassDef, file: str) -> list[Mistake]:
    """Parameters, constants and methods under names that self has already; steps are looked at with the graph."""
    names: list[tuple[str, int]] = []
    for node in body.body:
        if isinstance(node, ast.Assign):
            names += [(target.id, node.lineno) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append((node.target.id, node.lineno))
        elif isinstance(node, ast.FunctionDef) and not _is_decorated_as_step(node):
            names.append((node.name, node.lineno))
    return [
        Mistake(Place(file, line), f"{name!r} is taken: self.{name} means something in every flow.",
                "Give it another name.")
        for name, line in names if name in spec.RESERVED_NAMES
    ]  # fmt: skip


def _lost_steps(body: ast.ClassDef, file: str) -> list[Mistake]:
    """Steps that a second definition of the same name replaces."""
    mistakes = []
    seen: dict[str, int] = {}
    for node in body.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _is_decorated_as_step(node):
            if node.name in seen:
                message = f"step {node.name} is defined twice; the first is in line {seen[node.name]}, and is lost."
                mistakes.append(Mistake(Place(file, node.lineno), message, "Give one of them another name."))
            seen[node.name] = node.lineno
    return mistakes


def _is_decorated_as_step(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = [d.attr if isinstance(d, ast.Attribute) else getattr(d, "id", "") for d in definition.decorator_list]
    return "step" in names


def _read_step(name: str, function: Callable[..., Any]) -> tuple[Node, list[Mistake]]:
    definition, file = _definition(function)
    place = Place(file, definition.lineno)
    mistakes: list[Mistake] = []
    arguments = [a.arg for a in (*definition.args.posonlyargs, *definition.args.args)]
    if len(arguments) not in {1, 2} or definition.args.kwonlyargs or definition.args.vararg or definition.args.kwarg:
        mistakes.append(
            Mistake(place, f"step {name} takes ({', '.join(arguments)}).",
                    "A step takes (self); a step that joins branches takes (self, inputs).")
        )  # fmt: skip
    if isinstance(definition, ast.AsyncFunctionDef):
        mistakes.append(Mistake(place, f"step {name} is async.", "Write def, and asyncio.run(...) inside of it."))
    calls = [node for node in ast.walk(definition) if isinstance(node, ast.Call) and _is_next_call(node)]
    last = definition.body[-1]
    call = last.value if isinstance(last, ast.Expr) and _is_next_call(last.value) else None
    mistakes += [
        Mistake(Place(file, c.lineno), f"step {name} calls self.next() before its end.",
                "self.next(...) stands once in a step, as its last statement, outside of any if or loop.")
        for c in calls if c is not call
    ]  # fmt: skip
    targets: tuple[str, ...] = ()
    foreach = None
    if isinstance(call, ast.Call):
        targets, foreach, found = _read_next(name, file, call)
        mistakes += found
    node = Node(
        name=name,
        place=place,
        next_place=Place(file, call.lineno if call else last.lineno),
        next=targets,
        foreach=foreach,
        is_join=len(arguments) == 2,  # noqa: PLR2004  self and inputs
        doc=ast.get_docstring(definition) or "",
    )
    return node, mistakes


def _definition(function: Callable[..., Any]) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]:
    code = inspect.unwrap(function).__code__
    file = code.co_filename
    for node in _definitions(file).get(code.co_name, []):
        if not isinstance(node, ast.ClassDef) and _first_line(node) == code.co_firstlineno:
            return node, file
    raise FlowDefinitionError(
        f"the source of step {function.__name__} can't be found in {file}.",
        cause="A flow's graph is read from its source, so it has to be in a file (or a notebook cell).",
    )


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_read: dict[tuple[str, int], dict[str, list[_Definition]]] = {}


def _definitions(file: str) -> dict[str, list[_Definition]]:
    """The functions and classes of a file by name; each version of a file is read once."""
    source = "".join(linecache.getlines(file))
    key = (file, hash(source))
    if key not in _read:
        found: dict[str, list[_Definition]] = {}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, _Definition):
                found.setdefault(node.name, []).append(node)
        _read[key] = found
    return _read[key]


def _first_line(definition: _Definition) -> int:
    """Where a definition begins: with its first decorator, if it has one."""
    return min([definition.lineno, *(d.lineno for d in definition.decorator_list)])


def _is_next_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "next"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    )


def _read_next(step: str, file: str, call: ast.Call) -> tuple[tuple[str, ...], str | None, list[Mistake]]:
    place = Place(file, call.lineno)
    mistakes: list[Mistake] = []
    targets = []
    for argument in call.args:
        if isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name) and argument.value.id == "self":
            targets.append(argument.attr)
        else:
            mistakes.append(
                Mistake(place, f"step {step} goes on to {ast.unparse(argument)!r}, which is not a step.",
                        "Write self.next(self.step_name).")
            )  # fmt: skip
    foreach = None
    for keyword in call.keywords:
        value = keyword.value
        if keyword.arg != "foreach":
            given = keyword.arg or f"**{ast.unparse(value)}"
            mistakes.append(
                Mistake(place, f"self.next() in step {step} has the unknown argument {given}.",
                        closest(given, ["foreach"]) or "Its argument is foreach='attribute'.")
            )  # fmt: skip
        elif isinstance(value, ast.Constant) and isinstance(value.value, str):
            foreach = value.value
        else:
            mistakes.append(
                Mistake(place, f"foreach={ast.unparse(value)} in step {step} is not a name in quotes.",
                        "Put the items on self, and give the attribute's name: "
                        "self.items = ...; self.next(self.work, foreach='items').")
            )  # fmt: skip
    if foreach is not None and len(targets) > 1:
        mistakes.append(
            Mistake(place, f"step {step} opens a foreach over {len(targets)} steps.",
                    "A foreach goes on to one step; that step may branch.")
        )  # fmt: skip
    return tuple(targets), foreach, mistakes
