"""Random well-formed flows: a sequence of steps, static branches and foreaches, nested to any depth."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from k8sflow.flow.graph import Graph, Node, Place

PLACE = Place("flow.py", 1)


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


Part = Plain | Split | Foreach

SEQUENCES: st.SearchStrategy[tuple[Part, ...]] = st.recursive(
    st.just(()),
    lambda inner: st.lists(
        st.just(Plain())
        | st.builds(Split, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Foreach, inner),
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

    def sequence(self, parts: tuple[Part, ...], first: str) -> str:
        """Adds the parts after the step ``first``; the last step."""
        last = first
        for part in parts:
            if isinstance(part, Plain):
                step = self.name()
                self.set(last, next=(step,))
                last = step
            elif isinstance(part, Foreach):
                step, join = self.name(), self.name()
                self.set(last, next=(step,), foreach="items")
                self.set(self.sequence(part.body, step), next=(join,))
                self.set(join, is_join=True)
                last = join
            else:
                steps = tuple(self.name() for _ in part.branches)
                join = self.name()
                self.set(last, next=steps)
                for branch, step in zip(part.branches, steps, strict=True):
                    self.set(self.sequence(branch, step), next=(join,))
                self.set(join, is_join=True)
                last = join
        return last


def unchecked(parts: tuple[Part, ...]) -> Graph:
    """The graph as it is read from the source, before the check fills in its structure."""
    builder = _Builder({"start": Node("start", PLACE, PLACE)})
    last = builder.sequence(parts, "start")
    builder.nodes["end"] = Node("end", PLACE, PLACE)
    builder.set(last, next=("end",))
    return Graph("F", builder.nodes)


def source(parts: tuple[Part, ...]) -> str:
    """The same flow as Python; every step keeps a trace of where it is."""
    lines = ["class F(FlowSpec):"]
    for node in unchecked(parts).nodes.values():
        lines += ["    @step", f"    def {node.name}(self{', inputs' if node.is_join else ''}):"]
        if node.is_join:
            lines.append("        self.seen = [i.trace for i in inputs]")
        lines.append(f"        self.trace = ({node.name!r}, tuple(f[0] for f in self.foreach_stack()))")
        if node.foreach:
            lines.append("        self.items = range(WIDTHS.pop(0) if WIDTHS else 1)")
        if node.next:
            targets = ", ".join(f"self.{name}" for name in node.next)
            lines.append(f"        self.next({targets}{', foreach=' + repr(node.foreach) if node.foreach else ''})")
    return "\n".join(lines) + "\n"
