"""FlowSpec outside of a task."""

from __future__ import annotations

import pytest

from k8sflow import FlowSpec


def test_outside_of_a_task_self_says_so() -> None:
    """The language works in steps only."""
    flow = FlowSpec.__new__(FlowSpec)
    with pytest.raises(RuntimeError, match="only in a step"):
        _ = flow.index
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = flow.x
