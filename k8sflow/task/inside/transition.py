"""The transition of a ``self.next(...)`` that is reached: compared with its source, and a switch decided."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Sequence
from typing import Any

from k8sflow.articles import described
from k8sflow.flow.graph import Node
from k8sflow.flow.spec import FlowSpec, NextCall, steps
from k8sflow.task.result import Transition


def transition_of(node: Node, flow: FlowSpec, call: NextCall) -> Transition:
    """The next steps; the width of a foreach is not known before its items are frozen.

    Raises:
        RuntimeError: The call is not the one that the step's source has, or no case of a switch holds.
        TypeError: A number of branches is not a number.
        ValueError: It is less than 1.
    """
    if call.condition is not None and len(call.targets) == 1 and isinstance(call.targets[0], dict):
        named = [step for _, step in node.cases]
        cases = dict(zip(call.targets[0], _names(flow, list(call.targets[0].values()), named), strict=True))
        _check(node, tuple(dict.fromkeys(cases.values())), call)
        return Transition((_choose(node, flow, call.condition, cases),))
    _check(node, _names(flow, call.targets, node.next), call)
    width = None if call.num_parallel is None else _count(node, "num_parallel", call.num_parallel)
    limit = None if call.max_parallel is None else _count(node, "max_parallel", call.max_parallel)
    return Transition(node.next, width, limit)


def as_written(node: Node, flow: FlowSpec) -> NextCall:
    """The ``self.next(...)`` of a step that was not run to its end, as far as its source tells it.

    Raises:
        RuntimeError: The source doesn't tell it.
    """
    if node.condition is not None:
        with contextlib.suppress(ValueError):  # a key that is not a literal
            cases = {ast.literal_eval(key): getattr(flow, step) for key, step in node.cases}
            return NextCall((cases,), condition=node.condition)
    elif not node.num_parallel:
        return NextCall(tuple(getattr(flow, step) for step in node.next), foreach=node.foreach)
    raise RuntimeError(
        f"step {node.name} did not reach its self.next(...), and only that call decides which step runs next."
    )


def _names(flow: FlowSpec, targets: Sequence[Any], written: Sequence[str]) -> tuple[str, ...]:
    """The names under which the class has what ``self.next(...)`` was given, whatever is behind its ``def``.

    A function that is several steps is the one that the source names in its place.
    """
    expected = written if len(written) == len(targets) else [""] * len(targets)
    return tuple(_name(flow, target, name) for target, name in zip(targets, expected, strict=True))


def _name(flow: FlowSpec, target: Any, expected: str) -> str:
    function = getattr(target, "__func__", target)
    names = [name for name, step in steps(type(flow)).items() if step is function]
    return expected if expected in names else str((names or [getattr(target, "__name__", target)])[0])


def _check(node: Node, names: tuple[str, ...], call: NextCall) -> None:
    """The graph was read from the source: another call would lead the run where nothing waits for it."""
    is_same = call.foreach == node.foreach and call.condition == node.condition
    if names != node.next or not is_same or (call.num_parallel is not None) != node.num_parallel:
        raise RuntimeError(
            f"step {node.name} calls self.next() with {names}, but its source says {node.next}. "
            f"Call self.next() once in a step, as its last statement."
        )


def _choose(node: Node, flow: FlowSpec, condition: str, cases: dict[Any, str]) -> str:
    value = getattr(flow, condition)
    try:
        return cases[value]
    except (KeyError, TypeError):  # a TypeError where the value can't be a key
        listed = ", ".join(f"{key!r} -> {step}" for key, step in cases.items())
        shown = repr(value) if len(repr(value)) <= 200 else f"{repr(value)[:200]}…"  # noqa: PLR2004  what a line holds
        raise RuntimeError(
            f"the switch of step {node.name} has no case for self.{condition}, which is {_with_class(value, shown)}. "
            f"Its cases are {listed}."
        ) from None


def _with_class(value: Any, shown: str) -> str:
    return shown if value is None else f"{shown} ({described(value)})"


def _count(node: Node, option: str, value: Any) -> int:
    try:
        count = value.__index__()
    except AttributeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{option} of step {node.name} is {_with_class(value, repr(value))}, and not a number.")
    if count < 1:
        raise ValueError(f"{option} of step {node.name} is {count}; it has to be at least 1.")
    return int(count)
