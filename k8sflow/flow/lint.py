"""The static check: every mistake in a flow's graph, with file, line and how to write it right."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Set as AbstractSet
from dataclasses import replace

from k8sflow.flow.graph import END, START, Graph, Mistake, Node, Place, closest
from k8sflow.flow.spec import RESERVED_NAMES

_STEP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def check(graph: Graph, place: Place, unread: AbstractSet[str] = frozenset()) -> tuple[Graph, list[Mistake]]:
    """The graph with the structure of its branches filled in, and all mistakes that it has.

    Args:
        graph: The steps as they were read.
        place: Where the flow's class is.
        unread: Steps of which not all could be read; what would follow from that is no mistake of its own.
    """
    mistakes = [*_endpoints(graph, place), *_names(graph), *_transitions(graph, unread)]
    if mistakes or unread:
        return graph, mistakes
    mistakes = [*_cycles(graph), *_orphans(graph)]
    if mistakes:
        return graph, mistakes
    return _Branches(graph).resolve()


def _endpoints(graph: Graph, place: Place) -> list[Mistake]:
    mistakes = [
        Mistake(place, f"{graph.flow} has no step {name!r}.", f"Every flow has one: @step def {name}(self): ...")
        for name in (START, END) if name not in graph.nodes
    ]  # fmt: skip
    start, end = graph.nodes.get(START), graph.nodes.get(END)
    if start is not None and start.is_join:
        mistakes.append(Mistake(start.place, "step start takes inputs, but nothing comes before it.", "Write (self)."))
    if end is not None and end.next:
        mistakes.append(Mistake(end.next_place, "step end goes on to another step.", "Nothing comes after the end."))
    mistakes += [
        Mistake(node.next_place, f"step {node.name} goes back to start.", "A run passes through start once.")
        for node in graph.nodes.values() if START in node.next and node.name != END
    ]  # fmt: skip
    return mistakes


def _names(graph: Graph) -> list[Mistake]:
    mistakes = []
    for node in graph.nodes.values():
        if node.name in RESERVED_NAMES:
            mistakes.append(Mistake(node.place, f"a step can't be called {node.name!r}: self.{node.name} is taken."))
        elif not _STEP_NAME.fullmatch(node.name):
            mistakes.append(
                Mistake(node.place, f"a step can't be called {node.name!r}.",
                        "Names have letters, digits and _ only, and begin with a letter.")
            )  # fmt: skip
    return mistakes


def _transitions(graph: Graph, unread: AbstractSet[str]) -> list[Mistake]:
    mistakes = []
    for node in graph.nodes.values():
        if node.name != END and not node.next and node.name not in unread:
            mistakes.append(
                Mistake(node.next_place, f"step {node.name} doesn't say where the run goes on.",
                        f"Let its last statement be self.next(self.{_likely_next(graph, node)}).")
            )  # fmt: skip
        for target in node.next:
            if target not in graph.nodes:
                mistakes.append(
                    Mistake(node.next_place, f"step {node.name} goes on to {target!r}, which is not a step.",
                            closest(target, list(graph.nodes)) or f"Is @step missing on {target}?")
                )  # fmt: skip
        for target in {t for t in node.next if node.next.count(t) > 1}:
            mistakes.append(Mistake(node.next_place, f"step {node.name} goes on to {target!r} twice."))
    return mistakes


def _likely_next(graph: Graph, node: Node) -> str:
    names = list(graph.nodes)
    following = names[names.index(node.name) + 1 :]
    return following[0] if following else END


def _cycles(graph: Graph) -> list[Mistake]:
    """A depth-first search without recursion: an edge to a step on the current path closes a cycle."""
    mistakes = []
    done: set[str] = set()
    for root in graph.nodes:
        path: list[str] = []
        stack = [(root, iter(graph[root].next))]
        while stack:
            step, targets = stack[-1]
            if step not in done and step not in path:
                path.append(step)
            target = next(targets, None)
            if target is None:
                stack.pop()
                if path and path[-1] == step:
                    path.pop()
                done.add(step)
            elif target in path:
                way = " -> ".join([*path[path.index(target) :], target])
                mistakes.append(Mistake(graph[step].next_place, f"the steps go round in a circle: {way}."))
            elif target not in done:
                stack.append((target, iter(graph[target].next)))
    return mistakes


def _orphans(graph: Graph) -> list[Mistake]:
    reached, waiting = {START}, [START]
    while waiting:
        for target in graph[waiting.pop()].next:
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return [
        Mistake(node.place, f"no step goes on to {node.name}.", f"Add self.next(self.{node.name}), or remove the step.")
        for node in graph.nodes.values() if node.name not in reached
    ]  # fmt: skip


class _Branches:
    """Finds for every step the splits around it, and for every join the split that it closes.

    Steps are visited in topological order, so each one is seen after everything that leads to it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.positions = {name: position for position, name in enumerate(graph.nodes)}
        self.arrivals: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        self.nodes: dict[str, Node] = {}
        self.mistakes: list[Mistake] = []

    def resolve(self) -> tuple[Graph, list[Mistake]]:
        """The graph with splits, joins and parents, and the mistakes in the structure of its branches."""
        self.arrivals[START].append(("", ()))
        for name in self._topological_order():
            if not self.arrivals[name]:
                continue  # behind a mistake that is told already
            node = self._place_in_branches(self.graph[name])
            self.nodes[name] = node
            branches = (*node.splits, name) if node.is_split else node.splits
            for target in node.next:
                self.arrivals[target].append((name, branches))
        if not self.mistakes:
            for split in (n for n in self.nodes.values() if n.is_split):
                self._check_joined(split)
        ordered = {name: self.nodes[name] for name in self.graph.nodes if name in self.nodes}
        return Graph(self.graph.flow, ordered), self.mistakes

    def _topological_order(self) -> list[str]:
        incoming = dict.fromkeys(self.graph.nodes, 0)
        for node in self.graph.nodes.values():
            for target in node.next:
                incoming[target] += 1
        ready = [START]
        order = []
        while ready:
            name = ready.pop()
            order.append(name)
            for target in self.graph[name].next:
                incoming[target] -= 1
                if incoming[target] == 0:
                    ready.append(target)
        return order

    def _place_in_branches(self, node: Node) -> Node:
        arrivals = sorted(self.arrivals[node.name], key=lambda arrival: self.positions.get(arrival[0], -1))
        parents = tuple(parent for parent, _ in arrivals if parent)
        splits = arrivals[0][1]
        if node.is_join:
            return self._join(node, parents, {branches for _, branches in arrivals})
        if len(arrivals) > 1:
            self.mistakes.append(
                Mistake(node.place, f"step {node.name} comes after {_words(parents)}, but doesn't join them.",
                        f"Write def {node.name}(self, inputs).")
            )  # fmt: skip
        elif node.name == END and splits:
            self.mistakes.append(
                Mistake(node.place, f"the branches of {splits[-1]} reach the end without having been joined.",
                        f"Put a step between: @step def join(self, inputs): ...; self.next(self.{END}).")
            )  # fmt: skip
        return replace(node, splits=splits, parents=parents)

    def _join(self, node: Node, parents: tuple[str, ...], branches: set[tuple[str, ...]]) -> Node:
        for parent in (self.graph[name] for name in parents if self.graph[name].foreach is not None):
            self.mistakes.append(
                Mistake(parent.next_place, f"the foreach of step {parent.name} goes straight to the join {node.name}.",
                        "Put a step between, which runs for each item: def work(self).")
            )  # fmt: skip
        if len(branches) > 1:
            inner = sorted({b[-1] if b else "no split" for b in branches})
            self.mistakes.append(
                Mistake(node.place, f"step {node.name} joins {_words(parents)}, which weren't split together.",
                        f"They come from {_words(tuple(inner))}: join the branches of each split by itself.")
            )  # fmt: skip
        longest = max(branches, key=len)
        outermost = min(filter(None, branches), key=len, default=())
        if not longest:
            self.mistakes.append(
                Mistake(node.place, f"step {node.name} takes inputs, but {_words(parents)} opens no branches.",
                        f"Write def {node.name}(self).")
            )  # fmt: skip
            return replace(node, parents=parents)
        return replace(node, splits=outermost[:-1], joins=longest[-1], parents=self._in_branch_order(longest, parents))

    def _in_branch_order(self, branches: tuple[str, ...], parents: tuple[str, ...]) -> tuple[str, ...]:
        """The parents of a join in the order in which the split names the branches that they end."""
        order: dict[str, int] = {}
        for position, first in enumerate(self.graph[branches[-1]].next):
            reached, waiting = {first}, [first]
            while waiting:
                for target in self.graph[waiting.pop()].next:
                    if target not in reached:
                        reached.add(target)
                        waiting.append(target)
            for parent in parents:
                if parent in reached:
                    order.setdefault(parent, position)
        return tuple(sorted(parents, key=lambda parent: order.get(parent, 0)))

    def _check_joined(self, split: Node) -> None:
        joins = [n for n in self.nodes.values() if n.joins == split.name]
        if not joins:
            self.mistakes.append(
                Mistake(split.next_place, f"the branches of step {split.name} are never joined.",
                        "Let them go on to one step that takes (self, inputs).")
            )  # fmt: skip
            return
        if len(joins) > 1:
            names = _words(tuple(n.name for n in joins))
            self.mistakes.append(
                Mistake(joins[1].place, f"the branches of step {split.name} are joined in {names}.",
                        "All branches of a split go on to the same join.")
            )  # fmt: skip
        elif split.foreach is None and len(joins[0].parents) < len(split.next):
            self.mistakes.append(
                Mistake(joins[0].place, f"step {joins[0].name} doesn't join all branches of {split.name}.",
                        f"{split.name} opens {_words(split.next)}.")
            )  # fmt: skip
        elif joins[0].name == END:
            self.mistakes.append(Mistake(joins[0].place, "the end can't join branches.",
                                         "Put a join before it that goes on with self.next(self.end)."))  # fmt: skip


def _words(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nothing"
