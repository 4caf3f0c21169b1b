"""``@retry``: runs a failed task again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator
from k8sflow.flow.decorators.policy import PAID


def _factor(value: object) -> float:
    found = parsers.amount(value)
    if found < 1:
        raise ValueError(f"{value!r} would make each pause shorter than the one before")
    return found


def _outcomes(value: object) -> tuple[str, ...]:
    given = [part.strip() for part in value.split("|")] if isinstance(value, str) else value
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        raise ValueError(f"{value!r} is not a list of outcomes")
    if unknown := [outcome for outcome in given if outcome not in PAID]:
        raise ValueError(
            f"{unknown[0]!r} is not one of {', '.join(PAID)} "
            f"(infrastructure failures are retried automatically and don't count)"
        )
    return tuple(outcome for outcome in PAID if outcome in given)


@decorator("runs a failed task again")
def retry(
    *,
    times: Annotated[
        int | str, Option(parsers.count, "how many times a failed task is run again; 0 disables --with retry")
    ] = 3,
    minutes_between_retries: Annotated[
        float | str | None,
        Option(
            parsers.amount,
            "how many minutes it waits before it is run again (by default 2 on Kubernetes; locally 1 s, 2 s, 4 s, …)",
        ),
    ] = None,
    backoff: Annotated[
        float | str | None,
        Option(
            _factor,
            "the factor from each pause to the next (by default 1, and 2 for the local default pauses)",
        ),
    ] = None,
    max_delay: Annotated[float | str | None, Option(parsers.amount, "how many minutes a pause lasts at most")] = None,
    on: Annotated[
        str | Sequence[str], Option(_outcomes, f"the outcomes after which it is run again, of {', '.join(PAID)}")
    ] = PAID,
) -> None: ...
