"""``@schedule``: times as cron expressions."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import FlowSpec, schedule
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.unit.flow.decorators.recorded import recorded


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        (schedule, {"cron": "0 0 * * *"}),
        (schedule(hourly=True), {"cron": "0 * * * *"}),
        (schedule(weekly=True), {"cron": "0 0 * * 0"}),
        (schedule(cron="0  6 * * 1-5", timezone="UTC"), {"cron": "0 6 * * 1-5", "timezone": "UTC"}),
        (schedule(cron="0 10 ? * MON-FRI *"), {"cron": "0 10 ? * MON-FRI *"}),
    ],
    ids=range(5),
)
def test_its_options_are_recorded_as_json(decorator: Any, expected: dict[str, Any]) -> None:
    """The controller, which has no code of the flow, reads them."""
    assert recorded(decorator) == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedule(cron="soon"), "cron expression"),
        (lambda: schedule(cron="* * * * *", hourly=True), "more than one time"),
        (lambda: schedule(timezone="Berlin"), "time zone"),
        (lambda: schedule(houry=True), "Did you mean 'hourly'"),
    ],
    ids=range(4),
)
def test_a_mistake_is_reported(make: Any, words: str) -> None:
    """The error is raised when the flow is checked, or at once if the decorator isn't above a flow."""
    with pytest.raises(FlowDefinitionError, match=words):
        compile_flow(make()(type("F", (FlowSpec,), {})))
