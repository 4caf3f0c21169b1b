"""The number of tasks that each step will have, from the graph and from the widths in the commits of foreaches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from k8sflow.flow.graph import Graph, Node
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.run_store import RunStore
from k8sflow.ui.reads import read_each


class Expectation:
    """The numbers of tasks, as far as they are known.

    Args:
        run_store: The run.
        graph: Its graph.
    """

    def __init__(self, run_store: RunStore, graph: Graph) -> None:
        self.counts: dict[str, int] = {}
        self._run_store = run_store
        self._graph = graph
        self._order = graph.by_time()
        self._widths: dict[tuple[str, str], int] = {}

    def update(self, ends: Mapping[tuple[str, str], TaskEnd]) -> list[str]:
        """Reads the commits of new tasks that opened a foreach; returns the errors of those that can't be read.

        Args:
            ends: The ends of tasks, by step and id.
        """
        wanted = [key for key in ends if self._graph[key[0]].is_wide and key not in self._widths]
        commits, errors = read_each(self._run_store.store, lambda key: self._run_store.read_commit(*key), wanted)
        for key, commit in commits:
            self._widths[key] = commit.foreach.width if commit is not None and commit.foreach is not None else 0
        ended = Counter(step for step, _ in ends)
        for step in self._order:
            count = self._count(self._graph[step], ended)
            if count is not None:
                self.counts[step] = count
        return errors

    def _count(self, node: Node, ended: Mapping[str, int]) -> int | None:
        """The number of a step's tasks; None where it depends on what is not known yet."""
        if node.is_start or node.joins is not None:
            return 1 if node.joins is None else self.counts.get(node.joins)
        parents = [self._graph[parent] for parent in node.parents]
        if node.is_loop or not parents or any(parent.condition is not None for parent in parents):
            return None
        first = parents[0]
        if not first.is_wide:
            return self.counts.get(first.name)
        widths = [width for (step, _), width in self._widths.items() if step == first.name]
        return sum(widths) if len(widths) == ended.get(first.name) == self.counts.get(first.name) else None
