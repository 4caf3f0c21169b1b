"""``@exit_hook``: functions that run after a run."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import FlowSpec, exit_hook
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.unit.flow.decorators.recorded import notify, recorded

MODULE = notify.__module__


def takes_more(run: Any, other: Any) -> None:
    """A function that can't be a hook, since it needs another argument."""


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        (exit_hook(on_error=[notify]), {"on_error": [f"{MODULE}:notify"]}),
        (
            exit_hook(on_success=[notify, notify], on_error=[notify], options={"image": "curl:1"}),
            {
                "on_success": [f"{MODULE}:notify"] * 2,
                "on_error": [f"{MODULE}:notify"],
                "images": {"on_success": ["curl:1"] * 2, "on_error": ["curl:1"]},
            },
        ),
    ],
    ids=range(2),
)
def test_its_options_are_recorded_as_json(decorator: Any, expected: dict[str, Any]) -> None:
    """The controller, which has no code of the flow, reads them."""
    assert recorded(decorator) == expected


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (exit_hook, "on_success or on_error"),
        (lambda: exit_hook(on_error=["tell"]), "list of functions"),
        (lambda: exit_hook(on_error=[notify], options={"imag": "x"}), "it has no key 'imag': image is the only one"),
        (lambda: exit_hook(on_error=[lambda: None]), "by its name"),
        (lambda: exit_hook(on_error=[takes_more]), "takes_more needs other: an exit hook gets only the run"),
    ],
    ids=range(5),
)
def test_a_mistake_is_reported(make: Any, words: str) -> None:
    """The error is raised when the flow is checked, or at once if the decorator isn't above a flow."""
    with pytest.raises(FlowDefinitionError, match=words):
        compile_flow(make()(type("F", (FlowSpec,), {})))
