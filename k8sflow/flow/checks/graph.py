"""Checks a flow's graph: endpoints, names, transitions, cycles and unreachable steps."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from k8sflow.flow.checks.branches import Branches
from k8sflow.flow.graph import END, START, Graph, Node
from k8sflow.flow.problems import Location, Problem, did_you_mean
from k8sflow.flow.spec import RESERVED_ATTRIBUTES

MAX_NAME_BYTES = 200  # a file name may have 255, and some files of a step have its name and more


def check(graph: Graph, location: Location, unread: AbstractSet[str] = frozenset()) -> tuple[Graph, list[Problem]]:
    """The graph with the structure of its branches filled in, and all problems that it has.

    Args:
        graph: The steps as they were read.
        location: The flow's class.
        unread: Steps that could not be read completely; what follows from that is not reported.
    """
    graph = _with_endpoints(graph)
    problems = [
        *_endpoints(graph, location),
        *_names(graph, location),
        *_transitions(graph, unread),
        *_parallel(graph, unread),
    ]
    known, unknown = _known(graph, unread)
    has_start = len(_starts(graph)) == 1
    found = [*_cycles(known), *(_orphans(known) if has_start and not unknown else [])]
    if found or not has_start:
        return graph, [*problems, *found]
    resolved, found = Branches(known, unknown, unread).resolve()
    problems += found
    return (graph if problems or unknown else resolved), problems


def _starts(graph: Graph) -> set[str]:
    return {node.name for node in graph.nodes.values() if node.is_start}


def _known(graph: Graph, unread: AbstractSet[str]) -> tuple[Graph, set[str]]:
    """The graph without the transitions that are reported as problems, and the steps that may have other ones."""
    starts = _starts(graph)
    nodes, unknown = {}, set()
    for node in graph.nodes.values():
        comes_back = node.condition is not None and node.is_loop
        ways = [] if node.is_end else [t for t in dict.fromkeys(node.next) if t in graph.nodes]
        ways = [target for target in ways if target not in starts or (comes_back and target == node.name)]
        is_changed = tuple(ways) != node.next or not (ways or node.is_end) or bool(_loop(node))
        if is_changed or node.name in unread:
            unknown.add(node.name)
        nodes[node.name] = replace(node, next=tuple(ways), is_join=node.is_join and node.name not in starts)
    return Graph(graph.flow, nodes), unknown


def _with_endpoints(graph: Graph) -> Graph:
    """The graph with the steps called start and end marked as such, where no others are; an only step is both."""
    nodes = dict(graph.nodes)
    if len(nodes) == 1 and not any(node.next for node in nodes.values()):
        return Graph(graph.flow, {name: replace(node, is_start=True, is_end=True) for name, node in nodes.items()})
    for name, mark in ((START, "is_start"), (END, "is_end")):
        if name in nodes and not any(getattr(node, mark) for node in nodes.values()):
            nodes[name] = replace(nodes[name], **{mark: True})  # type: ignore[arg-type]  # both are bools
    return Graph(graph.flow, nodes)


def _endpoints(graph: Graph, location: Location) -> list[Problem]:
    problems = []
    for name, mark in ((START, "is_start"), (END, "is_end")):
        marked = [node for node in graph.nodes.values() if getattr(node, mark)]
        if not marked:
            problems.append(
                location.problem(
                    f"{graph.flow} has no step {name!r}.",
                    f"Every flow has one: @step def {name}(self): ... Or mark another one: @step({name}=True).",
                )
            )
        problems += [
            node.location.problem(
                f"{marked[0].name} and {node.name} are both marked as the {name}.",
                f"A flow has one: take {name}=True away from the others.",
            )
            for node in marked[1:]
        ]
        for node in marked:
            if node.is_start and node.is_join:
                problems.append(
                    node.location.problem(
                        f"step {node.name} takes inputs, but nothing comes before it.",
                        f"The run starts there: write def {node.name}(self).",
                    )
                )
            if mark == "is_end" and node.next:
                problems.append(
                    node.next_at.problem(
                        f"step {node.name} has a next step.",
                        "It is where the run ends: nothing comes after it.",
                    )
                )
    starts = _starts(graph)
    for node in graph.nodes.values():
        if not node.is_end and len(starts) == 1:
            problems += [
                node.next_at.problem(f"step {node.name} goes back to {name}.", "A run passes through it once.")
                for name in node.next
                if name in starts and not (name == node.name and node.condition)
            ]
    return problems


def _names(graph: Graph, location: Location) -> list[Problem]:
    problems = []
    named = [(graph.flow, location, "flow"), *((node.name, node.location, "step") for node in graph.nodes.values())]
    for name, where, kind in named:
        if len(name.encode()) > MAX_NAME_BYTES:
            problems.append(
                where.problem(
                    f"the name of the {kind} {name[:20]}... takes {len(name.encode())} bytes of UTF-8.",
                    f"Shorten it to at most {MAX_NAME_BYTES}: runs are stored in folders and objects named after it.",
                )
            )
    for node in graph.nodes.values():
        if node.name in RESERVED_ATTRIBUTES:
            problems.append(
                node.location.problem(
                    f"a step can't be called {node.name!r}: self.{node.name} means something in every flow.",
                    "Give it another name.",
                )
            )
        elif node.name.startswith("_"):
            problems.append(
                node.location.problem(f"a step can't be called {node.name!r}.", "A step's name starts with a letter.")
            )
    return problems


def _transitions(graph: Graph, unread: AbstractSet[str]) -> list[Problem]:
    problems = []
    for node in graph.nodes.values():
        if not node.is_end and not node.next and node.name not in unread:
            problems.append(
                node.next_at.problem(
                    f"step {node.name} has no self.next(...).",
                    f"Let its last statement be self.next(self.{_likely_next(graph, node)}).",
                )
            )
        for target in node.next:
            if target not in graph.nodes:
                problems.append(
                    node.next_at.problem(
                        f"step {node.name} leads to {target!r}, which is not a step.",
                        did_you_mean(target, list(graph.nodes)) or f"Is @step missing on {target}?",
                    )
                )
        for target in {t for t in node.next if node.next.count(t) > 1}:
            problems.append(node.next_at.problem(f"step {node.name} leads to {target!r} twice.", "Name it once."))
        problems += _loop(node)
    return problems


def _loop(node: Node) -> list[Problem]:
    """The problems of a switch that comes back to its own step."""
    if not node.is_loop or node.condition is None:
        return []
    if node.is_join:
        return [
            node.next_at.problem(
                f"step {node.name} joins branches, and can't come back to itself.",
                "Its inputs exist once: add a step def turn(self) after it, and let that step come back to itself.",
            )
        ]
    if node.is_parallel:
        return [
            node.next_at.problem(
                f"step {node.name} is under @parallel, and can't come back to itself.",
                "Its processes run at the same time once: loop in the step, or around a whole flow.",
            )
        ]
    if len(node.next) == 1:
        return [
            node.next_at.problem(f"step {node.name} always comes back to itself.", "Add a case that has a next step.")
        ]
    return []


def _parallel(graph: Graph, unread: AbstractSet[str]) -> list[Problem]:
    """num_parallel and @parallel belong together."""
    opened = {target: node for node in graph.nodes.values() if node.num_parallel for target in node.next}
    is_known = not unread and all(
        node.is_end or (node.next and graph.nodes.keys() >= set(node.next)) for node in graph.nodes.values()
    )
    problems = []
    for node in graph.nodes.values():
        if node.is_parallel and node.name not in opened and is_known:
            problems.append(
                node.location.problem(
                    f"step {node.name} is under @parallel, but no step opens it with num_parallel.",
                    f"Write self.next(self.{node.name}, num_parallel=4) in the step before it.",
                )
            )
        elif (
            node.name in opened
            and not (node.is_parallel or node.is_join)
            and not {node.name, opened[node.name].name} & unread
        ):
            problems.append(
                opened[node.name].next_at.problem(
                    f"step {opened[node.name].name} opens {node.name} with num_parallel, but it is "
                    f"not under @parallel.",
                    f"Write @parallel above @step of {node.name}; for a branch per item, foreach.",
                )
            )
        if node.is_parallel:
            problems += [
                other.next_at.problem(
                    f"step {other.name} leads to {node.name}, which is under @parallel, without num_parallel.",
                    "Only one self.next(..., num_parallel=N) leads to such a step.",
                )
                for other in graph.nodes.values()
                if node.name in opened and node.name in other.next and other is not opened[node.name]
            ]
    return problems


def _likely_next(graph: Graph, node: Node) -> str:
    names = list(graph.nodes)
    following = names[names.index(node.name) + 1 :]
    return following[0] if following else next((n.name for n in graph.nodes.values() if n.is_end), END)


def _cycles(graph: Graph) -> list[Problem]:
    """A depth-first search without recursion: an edge to a step on the current path closes a cycle.

    A switch that leads to its own step is not a cycle.
    """
    edges = {n.name: [t for t in n.next if t != n.name or n.condition is None] for n in graph.nodes.values()}
    problems = []
    done: set[str] = set()
    for root in graph.nodes:
        path: list[str] = []
        stack = [(root, iter(edges[root]))]
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
                problems.append(
                    graph[step].next_at.problem(
                        f"the steps go round in a circle: {way}.",
                        "A step comes back by a switch to itself: "
                        "self.next({True: self.end, False: self.train}, condition='done') in train.",
                    )
                )
            elif target not in done:
                stack.append((target, iter(edges[target])))
    return problems


def _orphans(graph: Graph) -> list[Problem]:
    reached, waiting = {graph.start}, [graph.start]
    while waiting:
        for target in graph[waiting.pop()].next:
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return [
        node.location.problem(f"no step leads to {node.name}.", f"Add self.next(self.{node.name}), or remove the step.")
        for node in graph.nodes.values()
        if node.name not in reached
    ]
