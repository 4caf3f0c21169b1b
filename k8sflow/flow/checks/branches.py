"""Finds which steps run in which branches, for the scheduler, and checks that branches are joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.problems import Problem

# The splits around a step, the outermost first, each with the number of the branch; 0 in a foreach.
_Context = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Arrival:
    """A way to a step: from which one, and in which branches."""

    parent: str
    context: _Context


class Branches:
    """Finds for every step the splits around it, and for every join the split that it closes.

    In one branch of a split one task runs at a time: it may open branches, but those are joined before it continues.
    So two ways to a step that come from the same branches are ways of one switch, of which a run takes one; and a
    join gets one task from every branch, whatever ways lead to it, if all ways out of the branches lead to it.

    Steps are visited in topological order, so each one is seen after everything that leads to it.

    Args:
        graph: The steps.
        unknown: Steps whose transitions are not all known. Problems that a correct transition here would remove are not
            reported.
        unread: Those of them of which nothing else is known either.
    """

    def __init__(
        self, graph: Graph, unknown: AbstractSet[str] = frozenset(), unread: AbstractSet[str] = frozenset()
    ) -> None:
        self.graph = graph
        self.unknown, self.unread = unknown, unread
        self.positions = {name: position for position, name in enumerate(graph.nodes)}
        self.arrivals: dict[str, list[_Arrival]] = defaultdict(list)
        self.joined: dict[str, set[int]] = {}
        self.nodes: dict[str, Node] = {}
        self.problems: list[Problem] = []
        # Steps that may or may not be meant as joins, and all that comes after them.
        self.unsure: set[str] = set()

    def resolve(self) -> tuple[Graph, list[Problem]]:
        """The graph with splits, joins and parents, and the problems in the structure of its branches."""
        for name in self._topological_order():
            if name in self.unread or (not self.arrivals[name] and name != self.graph.start):
                continue  # after a problem that has been reported
            self.nodes[name] = node = self._resolved(name)
            if name in self.unknown:
                continue
            context = tuple(zip(node.splits, node.branches, strict=True))
            for position, target in enumerate(node.next):
                branch = ((name, 0 if node.is_wide else position),) if node.is_split else ()
                if target != name:
                    self.arrivals[target].append(_Arrival(name, (*context, *branch)))
        if not self.problems:
            for split in (n for n in self.nodes.values() if n.is_split and n.name not in self.unknown):
                self._check_joined(split)
        ordered = {name: self.nodes[name] for name in self.graph.nodes if name in self.nodes}
        return Graph(self.graph.flow, ordered), self.problems

    def _resolved(self, name: str) -> Node:
        """A step with its position in the branches; problems that may follow from an earlier one are not reported."""
        known = len(self.problems)
        node = self._place_in_branches(self.graph[name])
        if any(arrival.parent in self.unsure for arrival in self.arrivals[name]):
            self.unsure.add(name)
            del self.problems[known:]
        return node

    def _topological_order(self) -> list[str]:
        incoming = dict.fromkeys(self.graph.nodes, 0)
        edges = {node.name: [t for t in node.next if t != node.name] for node in self.graph.nodes.values()}
        for targets in edges.values():
            for target in targets:
                incoming[target] += 1
        ready = [name for name, count in incoming.items() if count == 0]
        order = []
        while ready:
            name = ready.pop()
            order.append(name)
            for target in edges[name]:
                incoming[target] -= 1
                if incoming[target] == 0:
                    ready.append(target)
        return order

    def _place_in_branches(self, node: Node) -> Node:
        arrivals = sorted(self.arrivals[node.name], key=lambda arrival: self.positions[arrival.parent])
        if node.is_join:
            return self._join(node, arrivals)
        parents = tuple(arrival.parent for arrival in arrivals)
        contexts = {arrival.context for arrival in arrivals}
        context = min((arrival.context for arrival in arrivals), key=len, default=())
        if len(contexts) > 1:
            self.problems.append(
                node.location.problem(
                    f"step {node.name} comes after {words(parents)}, but doesn't join them.",
                    _how_to_join(node, contexts),
                )
            )
            self.unsure.add(node.name)
        elif node.is_end and context:
            self.problems.append(
                node.location.problem(
                    f"the branches of {context[-1][0]} reach the end without having been joined.",
                    f"Put a step between: @step def join(self, inputs): ...; self.next(self.{node.name}).",
                )
            )
        return _placed(node, context, parents)

    def _join(self, node: Node, arrivals: list[_Arrival]) -> Node:
        parents = tuple(arrival.parent for arrival in sorted(arrivals, key=lambda a: [i for _, i in a.context[-1:]]))
        for parent in (self.graph[name] for name in parents if self.graph[name].is_wide):
            self.problems.append(
                parent.next_at.problem(
                    f"the foreach of step {parent.name} goes straight to the join {node.name}.",
                    "Put a step between, which runs for each item: def work(self).",
                )
            )
            self.unsure.add(node.name)
        splits = {_splits(arrival.context) for arrival in arrivals}
        around = {arrival.context[:-1] for arrival in arrivals}
        if len(splits) > 1 or len(around) > 1:
            inner = sorted({s[-1] if s else "no split" for s in splits})
            self.problems.append(
                node.location.problem(
                    f"step {node.name} joins {words(parents)}, which weren't split together.",
                    f"They come from {words(tuple(inner))}: join the branches of each split by itself.",
                )
            )
        longest = max(splits, key=len)
        outermost = min((arrival.context for arrival in arrivals if arrival.context), key=len, default=())
        if not longest:
            self.problems.append(
                node.location.problem(
                    f"step {node.name} takes inputs, but {words(parents)} opens no branches.",
                    f"Write def {node.name}(self).",
                )
            )
            return replace(node, parents=parents)
        self.joined[node.name] = {arrival.context[-1][1] for arrival in arrivals if arrival.context}
        return replace(_placed(node, outermost[:-1], parents), joins=longest[-1])

    def _check_joined(self, split: Node) -> None:
        joins = [n for n in self.nodes.values() if n.joins == split.name]
        if not joins and not self.unknown:
            self.problems.append(
                split.next_at.problem(
                    f"the branches of step {split.name} are never joined.",
                    "Let them go on to one step that takes (self, inputs).",
                )
            )
        if not joins:
            return
        if len(joins) > 1:
            names = words(tuple(n.name for n in joins))
            self.problems.append(
                joins[1].location.problem(
                    f"the branches of step {split.name} are joined in {names}.",
                    "All branches of a split go on to the same join.",
                )
            )
        elif not (split.is_wide or self.unknown) and len(self.joined[joins[0].name]) < len(split.next):
            self.problems.append(
                joins[0].location.problem(
                    f"step {joins[0].name} doesn't join all branches of {split.name}.",
                    f"{split.name} opens {words(split.next)}.",
                )
            )
        elif joins[0].is_end:
            self.problems.append(
                joins[0].location.problem(
                    "the end can't join branches.", "Put a join before it, with self.next(self.end)."
                )
            )


def _placed(node: Node, context: _Context, parents: tuple[str, ...]) -> Node:
    return replace(node, splits=_splits(context), branches=tuple(index for _, index in context), parents=parents)


def _splits(context: _Context) -> tuple[str, ...]:
    return tuple(split for split, _ in context)


def _how_to_join(node: Node, contexts: set[_Context]) -> str:
    if len({_splits(context) for context in contexts}) == 1:
        return f"Write def {node.name}(self, inputs)."
    inner = max(contexts, key=len)[-1][0]
    return f"One of these ways is in the branches of {inner}, another is not: join those of {inner} first."


def words(names: tuple[str, ...]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nothing"
