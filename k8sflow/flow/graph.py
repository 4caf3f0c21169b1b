"""The graph of a flow: its steps and their order."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from k8sflow.flow.problems import Location

START = "start"
END = "end"
# The names of a step's locations in the records of earlier builds.
_EARLIER_NAMES = {"place": "location", "next_place": "next_at"}


@dataclass(frozen=True)
class Node:
    """One step.

    Args:
        name: The step's name.
        location: Its ``def``.
        next_at: Its ``self.next()``.
        next: The next steps, in the order of ``self.next()``, each of them once.
        foreach: The attribute over whose items it opens branches, or None.
        num_parallel: Whether it opens branches that run at the same time and know each other.
        condition: The attribute that chooses one of its cases, or None where it takes all of ``next``.
        cases: For a switch, the keys as they are written, each with its step.
        is_join: Whether it takes ``inputs``.
        is_parallel: Whether it is under ``@parallel``.
        is_start: Whether a run starts here.
        is_end: Whether a run ends here.
        splits: The steps whose branches it runs in, the outermost first; for a join, after it has joined.
        branches: For each of ``splits``, which of its branches that is; 0 in a foreach.
        joins: For a join, the step whose branches it joins.
        parents: The steps before it; for a join, in the order of the split's branches.
        doc: Its docstring.
    """

    name: str
    location: Location
    next_at: Location
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
        """True if it opens branches: static ones or those of a foreach."""
        return self.is_wide or (self.condition is None and len(self.next) > 1)

    @property
    def is_wide(self) -> bool:
        """True if it opens as many branches of one step as is known only when it has run."""
        return self.foreach is not None or self.num_parallel

    @property
    def is_loop(self) -> bool:
        """True if it may come back to itself."""
        return self.name in self.next

    def to_document(self) -> dict[str, Any]:
        """The step as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Graph:
    """The steps of a flow and their order."""

    flow: str
    nodes: dict[str, Node] = field(default_factory=dict)

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]

    @property
    def start(self) -> str:
        """The step that a run starts with."""
        return next(node.name for node in self.nodes.values() if node.is_start)

    @property
    def end(self) -> str:
        """The step that a run ends with."""
        return next(node.name for node in self.nodes.values() if node.is_end)

    def join_of(self, split: str) -> Node:
        """The step that joins a split's branches."""
        return next(node for node in self.nodes.values() if node.joins == split)

    def by_time(self) -> list[str]:
        """The steps in an order in which a run can start them: each after all steps before it."""
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
        return [node.to_document() for node in self.nodes.values()]

    @staticmethod
    def from_document(flow: str, document: list[dict[str, Any]]) -> Graph:
        """The graph that ``to_document`` wrote."""
        nodes = {}
        lists: dict[str, tuple[Any, ...]]
        for stored in document:
            entry = {_EARLIER_NAMES.get(key, key): value for key, value in stored.items()}
            lists = {key: tuple(entry[key]) for key in ("next", "splits", "branches", "parents")}
            lists["cases"] = tuple((key, step) for key, step in entry["cases"])
            at = {key: Location(**entry[key]) for key in ("location", "next_at")}
            nodes[entry["name"]] = Node(**{**entry, **lists, **at})
        return Graph(flow, nodes)

    def shape(self) -> dict[str, tuple[object, ...]]:
        """Everything that decides how a run goes; where in the source the steps are doesn't."""
        return {
            node.name: (
                node.next,
                node.foreach,
                node.num_parallel,
                node.condition,
                node.cases,
                node.is_join,
                node.is_start,
                node.is_end,
            )
            for node in self.nodes.values()
        }

    def depth(self, step: str) -> int:
        """The number of foreach loops around a step: the length of its tasks' paths."""
        return sum(1 for split in self.nodes[step].splits if self.nodes[split].is_wide)
