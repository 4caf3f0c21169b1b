"""Flows with mistakes: how the tests of the checks compile them and read the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.graph import Graph
from tests.support import HEAD, load_flow, write_flow

Case = tuple[Any, ...]
# The flows here are skeletons: the artifact that a foreach or a switch reads always exists.
GIVEN = HEAD + "class Given:\n    @property\n    def x(self): return 1\n    items = x\n"
HEAD_LINES = GIVEN.count("\n")


def build(folder: Path, text: str) -> Graph:
    """Return the graph of a flow's source."""
    return compile_flow(
        load_flow(write_flow(folder, text.replace("(FlowSpec)", "(Given, FlowSpec)"), head=GIVEN))
    ).graph


def mistakes(folder: Path, text: str) -> list[tuple[int, str]]:
    """List the line (the first line of the text is 1) and the report of each mistake."""
    with pytest.raises(FlowDefinitionError) as raised:
        build(folder, text)
    error = raised.value
    assert "nothing was run" in error.summary
    found: list[tuple[int, str]] = []
    for line in error.advice.splitlines():
        if line.startswith("    "):
            found[-1] = (found[-1][0], found[-1][1] + line)
        else:
            location, _, words = line.partition(": ")
            file, _, number = location.rpartition(":")
            assert file == str(folder / "flow.py")
            found.append((int(number) - HEAD_LINES, words))
    return found


def marked_lines(text: str, mark: str = "<-") -> list[int]:
    """List the lines with marks, each as often as it is marked."""
    return [i for i, line in enumerate(text.splitlines(), 1) for _ in range(line.count(mark))]


def check_case(folder: Path, text: str, *expected: Sequence[str]) -> None:
    """Check that the mistakes of a flow are on the marked lines, and that each report has its expected words."""
    found = mistakes(folder, text)
    assert [line for line, _ in found] == marked_lines(text), found
    for (_, words), wanted in zip(found, expected, strict=True):
        for word in wanted:
            assert word in words
