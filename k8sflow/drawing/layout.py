"""Positions of a graph's steps in a drawing: in rows from top to bottom, by the method of Sugiyama, Tagawa and Toda
(IEEE Transactions on Systems, Man, and Cybernetics 11, 1981): rows by the longest path, then the order in each row
by the mean of the neighbours, then positions as close to the neighbours as the widths allow.
"""  # noqa: D205

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from k8sflow.drawing.arrows import Arrow
from k8sflow.flow.graph import Graph

_ORDER_SWEEPS, _POSITION_SWEEPS = 8, 60
_FAR = 1e9
# The weight of an arrow's bend relative to a step's: long arrows should be straight.
_BEND_WEIGHT = 8.0


@dataclass(frozen=True)
class Extent:
    """The distances from a position to the left and right edges."""

    left: float
    right: float


@dataclass(frozen=True)
class Segment:
    """The part of an arrow between two rows.

    Args:
        arrow: The arrow.
        row: The upper row.
        upper: Its upper end: a step, or a bend of the arrow.
        lower: Its lower end.
        is_first: True if it starts at the arrow's source.
        is_last: True if it ends at the arrow's target.
        is_gathered: True if other segments share its lower end, and none its upper end, where its label is then
            put to distinguish it.
    """

    arrow: Arrow
    row: int
    upper: str
    lower: str
    is_first: bool
    is_last: bool
    is_gathered: bool = False

    @property
    def label(self) -> str:
        """The arrow's label, at its first segment."""
        return self.arrow.label if self.is_first else ""

    @property
    def labelled(self) -> str:
        """The end beside which the label is put."""
        return self.upper if self.is_gathered else self.lower


@dataclass
class Layout:
    """Rows of steps and bends with their positions."""

    rows: list[list[str]] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    x: dict[str, float] = field(default_factory=dict)


def lay_out(
    graph: Graph,
    found: Sequence[Arrow],
    step_extent: Callable[[str], Extent],
    label_width: Callable[[str], float],
    gap: float,
    *,
    whole: bool,
) -> Layout:
    """The layout of a graph.

    Args:
        graph: The steps.
        found: The arrows between them.
        step_extent: Returns the width of a step.
        label_width: Returns the width of an arrow's label, to the right of its first segment, including the space
            between them.
        gap: Minimum distance between two neighbours.
        whole: True for positions that are whole numbers, as those of characters are.
    """
    layout = _in_rows(graph, found)
    extents = _extents(layout, step_extent, label_width)
    uppers, lowers = _neighbours(layout)
    _order(layout, uppers, lowers)
    column = _columns(layout, uppers, lowers)
    _position(layout, extents, uppers, lowers, column, gap)
    if whole:
        _round(layout, column, extents, gap)
    left = min(layout.x[name] - extents[name].left for name in layout.x)
    layout.x = {name: x - left for name, x in layout.x.items()}
    return layout


def _in_rows(graph: Graph, found: Sequence[Arrow]) -> Layout:
    row = dict.fromkeys(graph.nodes, 0)
    for _ in graph.nodes:  # the longest path has at most this length
        for arrow in found:
            row[arrow.target] = max(row[arrow.target], row[arrow.source] + 1)
    layout = Layout([[] for _ in range(max(row.values()) + 1)])
    below = defaultdict(list)
    for arrow in found:
        below[arrow.source].append(arrow)
    seen: set[str] = set()
    waiting = [graph.start]
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        layout.rows[row[step]].append(step)
        waiting += [arrow.target for arrow in reversed(below[step])]
    for step in graph.nodes:
        for arrow in below[step]:
            between = range(row[step] + 1, row[arrow.target])
            bends = [f"{arrow.source}>{arrow.target}@{index}" for index in between]
            names = [arrow.source, *bends, arrow.target]
            for offset, (upper, lower) in enumerate(itertools.pairwise(names)):
                is_last = lower == arrow.target
                layout.segments.append(Segment(arrow, row[step] + offset, upper, lower, offset == 0, is_last))
                if not is_last:
                    layout.rows[row[step] + offset + 1].append(lower)
    coming = Counter(segment.lower for segment in layout.segments)
    leaving = Counter(segment.upper for segment in layout.segments)
    layout.segments = [
        replace(segment, is_gathered=coming[segment.lower] > 1 and leaving[segment.upper] == 1)
        for segment in layout.segments
    ]
    return layout


def _extents(
    layout: Layout, step_extent: Callable[[str], Extent], label_width: Callable[[str], float]
) -> dict[str, Extent]:
    """The widths of steps and bends, including the labels of their arrows."""
    found = {name: step_extent(name) if not _is_bend(name) else Extent(0, 0) for row in layout.rows for name in row}
    for segment in layout.segments:
        if segment.label:
            extent = found[segment.labelled]
            found[segment.labelled] = Extent(extent.left, max(extent.right, label_width(segment.label)))
    return found


def _neighbours(layout: Layout) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    uppers, lowers = defaultdict(list), defaultdict(list)
    for segment in layout.segments:
        uppers[segment.lower].append(segment.upper)
        lowers[segment.upper].append(segment.lower)
    return uppers, lowers


def _order(layout: Layout, uppers: Mapping[str, list[str]], lowers: Mapping[str, list[str]]) -> None:
    """Orders each row for the fewest crossings, found by sweeping down and up."""
    best, fewest = [list(row) for row in layout.rows], _crossings(layout)
    for sweep in range(_ORDER_SWEEPS):
        if not fewest:
            break
        near = uppers if sweep % 2 == 0 else lowers
        for row in layout.rows if sweep % 2 == 0 else reversed(layout.rows):
            position = {name: index for each in layout.rows for index, name in enumerate(each)}
            row.sort(key=lambda name: _mean([position[n] for n in near[name]], position[name]))
        if (count := _crossings(layout)) < fewest:
            best, fewest = [list(row) for row in layout.rows], count
    layout.rows = best


def _crossings(layout: Layout) -> int:
    position = {name: index for row in layout.rows for index, name in enumerate(row)}
    by_row = defaultdict(list)
    for segment in layout.segments:
        by_row[segment.row].append((position[segment.upper], position[segment.lower]))
    return sum(
        (a - c) * (b - d) < 0 for pairs in by_row.values() for i, (a, b) in enumerate(pairs) for c, d in pairs[:i]
    )


def _position(
    layout: Layout,
    extents: Mapping[str, Extent],
    uppers: Mapping[str, list[str]],
    lowers: Mapping[str, list[str]],
    column: Mapping[str, list[str]],
    gap: float,
) -> None:
    for row in layout.rows:
        _settle(layout, row, dict.fromkeys(row, 0.0), extents, gap)

    def wanted(name: str, near: Mapping[str, list[str]]) -> float:
        middle = _mean([layout.x[other] for other in near[name]], layout.x[name])
        straight = _mean([layout.x[other] for other in column[name]], middle)
        return (straight + middle) / 2

    for sweep in range(_POSITION_SWEEPS):
        near = uppers if sweep % 2 == 0 else lowers
        for row in layout.rows if sweep % 2 == 0 else reversed(layout.rows):
            _settle(layout, row, {name: wanted(name, near) for name in row}, extents, gap)
        _straighten(layout, column, extents, gap)


def _straighten(
    layout: Layout,
    column: Mapping[str, list[str]],
    extents: Mapping[str, Extent],
    gap: float,
    *,
    whole: bool = False,
) -> None:
    """Aligns each column, the longest first, if its neighbours leave enough space."""
    least, most = {}, {}
    for names in sorted({id(found): found for found in column.values()}.values(), key=len, reverse=True):
        for row in layout.rows:
            for left, right in itertools.pairwise(row):
                apart = extents[left].right + gap + extents[right].left
                most[left], least[right] = layout.x[right] - apart, layout.x[left] + apart
        low = max(least.get(name, -_FAR) for name in names)
        high = min(most.get(name, _FAR) for name in names)
        if low <= high:
            x = _mean([layout.x[name] for name in names], 0.0)
            x = min(max(round(x) if whole else x, low), high)
            layout.x.update(dict.fromkeys(names, x))


def _columns(layout: Layout, uppers: Mapping[str, list[str]], lowers: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """For each name, the chain of names to align with it: each leads to the next alone."""
    found: dict[str, list[str]] = {}
    for row in layout.rows:
        for name in row:
            above = uppers[name]
            alone = len(above) == 1 and len(lowers[above[0]]) == 1
            found[name] = found[above[0]] if alone else []
            found[name].append(name)
    return found


def _is_bend(name: str) -> bool:
    return ">" in name


def _settle(
    layout: Layout, row: Sequence[str], wanted: Mapping[str, float], extents: Mapping[str, Extent], gap: float
) -> None:
    """Assigns a row the positions nearest to the wanted ones that keep its order and widths.

    After subtracting the widths before them, positions must not decrease: an isotonic regression, solved by pooling
    adjacent violators.
    """
    before = _widths_before(row, extents, gap)
    pools: list[tuple[float, float, int]] = []  # mean of the wanted positions, total weight, count
    for name in row:
        mean, weight, count = wanted[name] - before[name], _BEND_WEIGHT if _is_bend(name) else 1.0, 1
        while pools and pools[-1][0] > mean:
            other, others, more = pools.pop()
            mean = (mean * weight + other * others) / (weight + others)
            weight, count = weight + others, count + more
        pools.append((mean, weight, count))
    positions = [mean for mean, _, count in pools for _ in range(count)]
    for name, position in zip(row, positions, strict=True):
        layout.x[name] = position + before[name]


def _widths_before(row: Sequence[str], extents: Mapping[str, Extent], gap: float) -> dict[str, float]:
    found, position = {}, 0.0
    for index, name in enumerate(row):
        if index:
            position += extents[row[index - 1]].right + gap + extents[name].left
        found[name] = position
    return found


def _round(layout: Layout, column: Mapping[str, list[str]], extents: Mapping[str, Extent], gap: float) -> None:
    """Rounds the positions to whole numbers, keeping the order and the distances."""
    for row in layout.rows:
        for index, name in enumerate(row):
            least = -_FAR
            if index:
                least = layout.x[row[index - 1]] + extents[row[index - 1]].right + gap + extents[name].left
            layout.x[name] = max(round(layout.x[name] + 1e-6), least)
    _straighten(layout, column, extents, gap, whole=True)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
