"""``@timeout``: ends a step that takes too long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator
from k8sflow.flow.decorators.policy import DEFAULT_GRACE_SECONDS, total_seconds


def _check(options: Mapping[str, Any]) -> None:
    if total_seconds(options) <= 0:
        raise ValueError("it needs a time: write for example @timeout(minutes=10)")


@decorator(
    "ends a step that takes too long: raises TimeoutException in it, and later kills the task if it is still running",
    check=_check,
)
def timeout(
    *,
    seconds: Annotated[
        float | str, Option(parsers.amount, "how many seconds an execution may take, besides minutes and hours")
    ] = 0.0,
    minutes: Annotated[
        float | str, Option(parsers.amount, "how many minutes an execution may take, besides seconds and hours")
    ] = 0.0,
    hours: Annotated[
        float | str, Option(parsers.amount, "how many hours an execution may take, besides seconds and minutes")
    ] = 0.0,
    grace_seconds: Annotated[
        float | str,
        Option(
            parsers.amount,
            "how many seconds after TimeoutException the task is killed, if it is still running; 0 kills it at once",
        ),
    ] = DEFAULT_GRACE_SECONDS,
) -> None: ...
