"""The decorators of a flow's class as a run's record keeps them, for the tests of each of them."""

from __future__ import annotations

import json
from typing import Any

from k8sflow import FlowSpec
from k8sflow.flow.decorators import base
from k8sflow.flow.decorators.flow_level import documents


def notify() -> None:
    """A hook."""


def recorded(decorator: Any, **options: Any) -> dict[str, Any]:
    """Return the record of a flow's only decorator."""

    class F(FlowSpec):
        pass

    decorator(F)
    found = documents("F", base.of(F), "ada", options.get("branch"), options.get("production"))
    assert json.loads(json.dumps(found)) == found
    return next(iter(found.values()))  # type: ignore[no-any-return]
