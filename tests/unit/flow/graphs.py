"""Random well-formed flows: steps, static branches, foreaches, switches and loops, nested to any depth."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.problems import Location

PLACE = Location("flow.py", 1)


@dataclass(frozen=True)
class Plain:
    """One step."""


@dataclass(frozen=True)
class Split:
    """Branches side by side, each a sequence."""

    branches: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class Foreach:
    """A sequence once for each item."""

    body: tuple[Part, ...]


@dataclass(frozen=True)
class Switch:
    """One of several paths, each a sequence; an empty one leads directly to the step or join that follows."""

    paths: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class Loop:
    """A step that comes back to itself."""


Part = Plain | Split | Foreach | Switch | Loop


def _branches(inner: st.SearchStrategy[tuple[Part, ...]]) -> st.SearchStrategy[tuple[Part, ...]]:
    """Bodies of branches, which often end in a choice that is known only at run time."""
    tails = st.just(Loop()) | st.builds(Switch, st.lists(inner, min_size=2, max_size=3).map(tuple))
    return inner | st.tuples(inner, tails).map(lambda body: (*body[0], body[1]))


SEQUENCES: st.SearchStrategy[tuple[Part, ...]] = st.recursive(
    st.just(()),
    lambda inner: st.lists(
        st.just(Plain())
        | st.just(Loop())
        | st.builds(Split, st.lists(_branches(inner), min_size=2, max_size=3).map(tuple))
        | st.builds(Switch, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Foreach, _branches(inner)),
        max_size=3,
    ).map(tuple),
    max_leaves=8,
)


@dataclass
class _Builder:
    nodes: dict[str, Node] = field(default_factory=dict)

    def name(self) -> str:
        name = f"s{len(self.nodes)}"
        self.nodes[name] = Node(name, PLACE, PLACE)
        return name

    def set(self, name: str, **fields: object) -> None:
        self.nodes[name] = Node(**{**vars(self.nodes[name]), **fields})

    def go_on(self, ends: list[str], target: str) -> None:
        """Continue every open end with a step; a switch gets one more case."""
        for end in ends:
            node = self.nodes[end]
            if node.condition is None:
                self.set(end, next=(target,))
            elif target not in node.next:
                self.set(end, next=(*node.next, target), cases=(*node.cases, (str(len(node.cases)), target)))

    def single(self, ends: list[str]) -> str:
        """Return the one step that the ends lead to, which may open branches."""
        if len(ends) == 1 and self.nodes[ends[0]].condition is None:
            return ends[0]
        step = self.name()
        self.go_on(ends, step)
        return step

    def sequence(self, parts: tuple[Part, ...], first: str) -> list[str]:
        """Add the parts after the step ``first``, and return the steps that lead to the next part."""
        ends = [first]
        for part in parts:
            match part:
                case Plain():
                    step = self.name()
                    self.go_on(ends, step)
                    ends = [step]
                case Loop():
                    step = self.name()
                    self.go_on(ends, step)
                    self.set(step, condition="way", next=(step,), cases=(("0", step),))
                    ends = [step]
                case Switch():
                    ends = self.switch(part, self.single(ends))
                case Foreach():
                    last, step, join = self.single(ends), self.name(), self.name()
                    self.set(last, next=(step,), foreach="items")
                    self.go_on(self.sequence(part.body, step), join)
                    self.set(join, is_join=True)
                    ends = [join]
                case Split():
                    last = self.single(ends)
                    steps = tuple(self.name() for _ in part.branches)
                    join = self.name()
                    self.set(last, next=steps)
                    for branch, step in zip(part.branches, steps, strict=True):
                        self.go_on(self.sequence(branch, step), join)
                    self.set(join, is_join=True)
                    ends = [join]
        return ends

    def switch(self, part: Switch, last: str) -> list[str]:
        """Make the step ``last`` a switch; return the steps that lead to the next part: itself if a path is empty."""
        self.set(last, condition="way")
        ends = [] if all(part.paths) else [last]
        for path in filter(None, part.paths):
            step = self.name()
            self.go_on([last], step)
            ends += self.sequence(path, step)
        return ends


def unchecked(parts: tuple[Part, ...]) -> Graph:
    """Return the graph as it is read from the source, before the check fills in its structure."""
    builder = _Builder({"start": Node("start", PLACE, PLACE)})
    ends = builder.sequence(parts, "start")
    builder.nodes["end"] = Node("end", PLACE, PLACE)
    builder.go_on(ends, "end")
    return Graph("F", builder.nodes)


def taken(node: Node, path: tuple[int, ...], turn: int, numbers: list[int]) -> tuple[str, ...]:
    """Return the next steps of a task: always the same case of a switch; a loop ends after three turns at most."""
    if node.condition is None:
        return node.next
    ways = [step for step in node.next if step != node.name]
    choice = sum(map(ord, node.name)) + sum(path) + numbers[(len(path) + turn) % len(numbers)]
    if node.is_loop and turn < 3 and choice % 3:
        return (node.name,)
    return (ways[choice % len(ways)],)


def source(parts: tuple[Part, ...], numbers: list[int] | tuple[int, ...] = ()) -> str:
    """Return the same flow as Python; every step records its name and its position in each foreach.

    The number of branches and the cases depend on ``numbers`` and the task; every loop ends.
    """
    lines = [f"NUMBERS = {[*numbers, 1]}", "class F(FlowSpec):"]
    lines += [
        "    def number(self, step):",
        "        return NUMBERS[(step + sum(f[0] for f in self.foreach_stack())) % len(NUMBERS)]",
    ]
    for position, node in enumerate(unchecked(parts).nodes.values()):
        lines += ["    @step", f"    def {node.name}(self{', inputs' if node.is_join else ''}):"]
        if node.is_join:
            lines.append("        self.seen = [i.trace for i in inputs]")
        lines.append(f"        self.trace = ({node.name!r}, tuple(f[0] for f in self.foreach_stack()))")
        if node.foreach:
            lines.append(f"        self.items = range(self.number({position}))")
        if node.condition:
            turns = "self.turn = getattr(self, 'turn', 0) + 1"
            lines += [
                f"        {turns}",
                f"        self.way = (self.number({position}) + self.turn) % {len(node.next)}",
            ]
            cases = ", ".join(f"{key}: self.{step}" for key, step in (*node.cases, ("-1", node.next[0])))
            lines.append(f"        self.next({{{cases}}}, condition='way')")
        elif node.next:
            targets = ", ".join(f"self.{name}" for name in node.next)
            lines.append(f"        self.next({targets}{', foreach=' + repr(node.foreach) if node.foreach else ''})")
    return "\n".join(lines) + "\n"
