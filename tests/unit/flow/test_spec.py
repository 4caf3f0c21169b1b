"""FlowSpec outside a task."""

from __future__ import annotations

import pytest

from k8sflow import FlowSpec


def test_attributes_of_a_task_are_refused_outside_of_one() -> None:
    """They are available in steps only, and the error says so."""
    flow = FlowSpec.__new__(FlowSpec)
    with pytest.raises(RuntimeError, match="only in a step"):
        _ = flow.index
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = flow.x
