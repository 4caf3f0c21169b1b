"""``@trigger`` and ``@trigger_on_finish``: events, and flows whose end starts a run."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import FlowSpec, trigger, trigger_on_finish
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.unit.flow.decorators.recorded import notify, recorded

MODULE = notify.__module__


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        (trigger(event="data"), {"event": {"name": "data", "parameters": {}}}),
        (
            trigger(events=["a", {"name": "b", "parameters": {"alpha": "field"}}]),
            {"events": [{"name": "a", "parameters": {}}, {"name": "b", "parameters": {"alpha": "field"}}]},
        ),
        (
            trigger(event={"name": "b", "parameters": ["x", ("y", "z")]}),
            {"event": {"name": "b", "parameters": {"x": "x", "y": "z"}}},
        ),
        (trigger_on_finish(flow="Other"), {"flow": {"name": "Other"}}),
        (
            trigger_on_finish(flows=["p.test.b.Other", {"name": "O", "project": "p"}]),
            {"flows": [{"name": "Other", "project": "p", "branch": "test.b"}, {"name": "O", "project": "p"}]},
        ),
        (trigger(event=notify), {"event": {"function": f"{MODULE}:notify"}}),
        (
            trigger(events=[{"name": notify, "parameters": notify}]),
            {"events": [{"name": {"function": f"{MODULE}:notify"}, "parameters": {"function": f"{MODULE}:notify"}}]},
        ),
        (trigger(events=notify), {"events": {"function": f"{MODULE}:notify"}}),
        (trigger_on_finish(flow=notify), {"flow": {"function": f"{MODULE}:notify"}}),
        (trigger_on_finish(flows=notify), {"flows": {"function": f"{MODULE}:notify"}}),
    ],
    ids=range(10),
)
def test_its_options_are_recorded_as_json(decorator: Any, expected: dict[str, Any]) -> None:
    """The controller, which has no code of the flow, reads them."""
    assert recorded(decorator) == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (trigger, "needs one of event and events"),
        (lambda: trigger(event={"nme": "x"}), "neither a name nor"),
        (lambda: trigger(event="x", events=["y"]), "needs one of"),
        (lambda: trigger_on_finish(flow={"name": "x", "team": "y"}), "'team' is not a key of a flow"),
    ],
    ids=range(4),
)
def test_a_mistake_is_reported(make: Any, words: str) -> None:
    """The error is raised when the flow is checked, or at once if the decorator isn't above a flow."""
    with pytest.raises(FlowDefinitionError, match=words):
        compile_flow(make()(type("F", (FlowSpec,), {})))
