"""The graph of a flow: its steps, their order, and the problems found in it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from k8sflow.errors import FlowDefinitionError

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
        next: The steps that it goes on to, in the order of ``self.next()``, each of them once.
        foreach: The attribute over whose items it opens branches, or None.
        num_parallel: Whether it opens branches that run at the same time and know each other.
        condition: The attribute that chooses one of its cases, or None where it takes all of ``next``.
        cases: For a switch, the keys as they are written, each with its step.
        is_join: Whether it takes ``inputs``.
        is_parallel: Whether it is under ``@parallel``.
        is_start: Whether a run begins here.
        is_end: Whether a run ends here.
        splits: The steps whose branches it runs in, the outermost first; for a join, after it has joined.
        branches: For each of ``splits``, which of its branches that is; 0 in a foreach.
        joins: For a join, the step whose branches it joins.
        parents: The steps that go on to this one; for a join, in the order of the split's branches.
        doc: Its docstring.
    """

    name: str
    place: Place
    next_place: Place
    next: tuple[str, ...] = ()
    foreach: str | None = None
    num_parallel: bool = False
    condition: str | None = None
    cases: tuple[tuple[str, str], ...] = ()
    is_join: bool = False
    is_parallel: bool = False
    is_start: bool = False
    is_end: bool = False
    splits: tuple[str, ...] = ()
    branches: tuple[int, ...] = ()
    joins: str | None = None
    parents: tuple[str, ...] = ()
    doc: str = ""

    @property
    def is_split(self) -> bool:
        """Whether it opens branches: static ones or those of a foreach."""
        return self.is_wide or (self.condition is None and len(self.next) > 1)

    @property
    def is_wide(self) -> bool:
        """Whether it opens as many branches of one step as is known only when it has run."""
        return self.foreach is not None or self.num_parallel

    @property
    def is_loop(self) -> bool:
        """Whether it may go on to itself."""
        return self.name in self.next


@dataclass(frozen=True)
class Graph:
    """The steps of a flow and their order."""

    flow: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]

    @property
    def start(self) -> str:
        """The step that a run begins with."""
        return next(node.name for node in self.nodes.values() if node.is_start)

    @property
    def end(self) -> str:
        """The step that a run ends with."""
        return next(node.name for node in self.nodes.values() if node.is_end)

    def join_of(self, split: str) -> Node:
        """The step that joins a split's branches."""
        return next(node for node in self.nodes.values() if node.joins == split)

    def by_time(self) -> list[str]:
        """The steps in an order in which a run can begin them: each after all that lead to it."""
        waiting = {node.name: set(node.parents) - {node.name} for node in self.nodes.values()}
        order = [name for name, before in waiting.items() if not before]
        for name in order:  # which grows meanwhile
            for after in self.nodes[name].next:
                if name in waiting[after]:
                    waiting[after].remove(name)
                    order += [] if waiting[after] else [after]
        return order

    def to_document(self) -> list[dict[str, Any]]:
        """The steps as JSON types, for a reader that doesn't have the source."""
        return [asdict(node) for node in self.nodes.values()]

    @staticmethod
    def from_document(flow: str, document: list[dict[str, Any]]) -> Graph:
        """The graph that ``to_document`` wrote."""
        nodes = {}
        lists: dict[str, tuple[Any, ...]]
        for entry in document:
            lists = {key: tuple(entry[key]) for key in ("next", "splits", "branches", "parents")}
            lists["cases"] = tuple((key, step) for key, step in entry["cases"])
            places = {key: Place(**entry[key]) for key in ("place", "next_place")}
            nodes[entry["name"]] = Node(**{**entry, **lists, **places})
        return Graph(flow, nodes)

    def shape(self) -> dict[str, tuple[object, ...]]:
        """All by which a run over one graph differs from a run over another: not where in the source the steps are."""
        return {
            node.name: (node.next, node.foreach, node.num_parallel, node.condition, node.cases,
                        node.is_join, node.is_start, node.is_end)
            for node in self.nodes.values()
        }  # fmt: skip

    def depth(self, step: str) -> int:
        """How many foreach loops surround a step: the length of its tasks' paths."""
        return sum(1 for split in self.nodes[step].splits if self.nodes[split].is_wide)


def refuse(flow: str, mistakes: list[Mistake]) -> FlowDefinitionError:
    """The error that tells every mistake of a flow at once, in the order of the source."""
    ordered = sorted(dict.fromkeys(mistakes), key=lambda m: (m.place.file, m.place.line))
    count = "a mistake" if len(ordered) == 1 else f"{len(ordered)} mistakes"
    error = FlowDefinitionError(f"{flow} has {count}; nothing was run.", advice="\n".join(map(str, ordered)))
    error.mistakes = tuple(ordered)
    return error


# Where classes stand: to find one reads its whole file.
_places: WeakKeyDictionary[type, Place] = WeakKeyDictionary()


def class_place(flow: type) -> Place:
    """Where the class statement of a flow stands."""
    if flow not in _places:
        try:
            _places[flow] = Place(inspect.getsourcefile(flow) or "?", inspect.getsourcelines(flow)[1])
        except (OSError, TypeError):
            _places[flow] = Place("?", 0)
    return _places[flow]


def closest(word: str, words: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    """`` Did you mean …?`` where one of the words is close, else an empty text."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {found[0]!r}?" if found else ""
