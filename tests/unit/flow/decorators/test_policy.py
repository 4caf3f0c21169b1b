"""Policies of steps, from @retry, @timeout and @catch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from k8sflow import catch, retry, timeout
from k8sflow.flow.decorators import base, registry
from k8sflow.flow.decorators.policy import PAID, Catch, RetryPolicy, StepPolicy


def policy(*decorators: Any, on_kubernetes: bool = False) -> StepPolicy:
    """Return the policy of some decorators, after a round trip by JSON."""

    def function(self: Any) -> None: ...

    for decorator in decorators:
        decorator(function)
    found = StepPolicy.of(base.of(function), on_kubernetes=on_kubernetes)
    assert StepPolicy.from_document(json.loads(json.dumps(found.to_document()))) == found
    return found


@pytest.mark.parametrize(
    ("decorators", "expected"),
    [
        ((), StepPolicy()),
        ((retry,), StepPolicy(RetryPolicy(3, 1.0, 2.0, 60.0))),
        ((retry(times=0),), StepPolicy()),
        ((retry(times=100, minutes_between_retries=0.5),), StepPolicy(RetryPolicy(100, 30.0))),
        ((retry(times=2, on=("out_of_memory",)),), StepPolicy(RetryPolicy(2, 1.0, 2.0, 60.0, on=("out_of_memory",)))),
        ((retry(minutes_between_retries=1, backoff=2, max_delay=10),), StepPolicy(RetryPolicy(3, 60.0, 2.0, 600.0))),
        ((timeout(seconds=5),), StepPolicy(timeout_seconds=5)),
        ((timeout(seconds=5, grace_seconds=0),), StepPolicy(timeout_seconds=5, grace_seconds=0)),
        ((timeout(hours=1, minutes=1, seconds=1),), StepPolicy(timeout_seconds=3661)),
        ((catch,), StepPolicy(catch=Catch())),
        ((catch(var="x", print_exception=False),), StepPolicy(catch=Catch("x", print_exception=False))),
    ],
)
def test_decorators_are_read_as_a_policy(decorators: tuple[Any, ...], expected: StepPolicy) -> None:
    """The policy survives JSON, for a driver without the flow's code."""
    assert policy(*decorators) == expected


def test_a_retry_waits_longer_on_kubernetes_by_default() -> None:
    """The default is two minutes there, since the cause may need time; locally it is short and grows to a minute."""
    assert [policy(retry).retry.pause_before(number) for number in (1, 2, 3, 4, 9)] == [1, 2, 4, 8, 60]
    assert [policy(retry(backoff=1)).retry.pause_before(number) for number in (1, 2)] == [1, 1]
    assert policy(retry(max_delay=0.05)).retry.pause_before(9) == 3
    assert policy(retry(minutes_between_retries=0)).retry.pause_before(3) == 0
    assert policy(retry(minutes_between_retries=1)).retry.pause_before(3) == 60
    assert policy(retry, on_kubernetes=True).retry.pause_before(3) == 120
    assert policy(retry, on_kubernetes=True).retry.pause_seconds == 120
    assert policy(retry(minutes_between_retries=0), on_kubernetes=True).retry.pause_seconds == 0


def test_pauses_grow_up_to_the_longest() -> None:
    """A thousand retries don't overflow."""
    assert [RetryPolicy(9, 10, 2).pause_before(number) for number in (1, 2, 3)] == [10, 20, 40]
    assert RetryPolicy(9, 10, 1e9, 99).pause_before(1000) == 99
    assert RetryPolicy(9, 10, 1e9).pause_before(1000) == float("inf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retry", StepPolicy(RetryPolicy(3, 1.0, 2.0, 60.0))),
        ("retry:times=5,minutes_between_retries=0.1", StepPolicy(RetryPolicy(5, 6.0))),
        ("retry:on=user_error|timed_out", StepPolicy(RetryPolicy(3, 1.0, 2.0, 60.0, on=PAID[:2]))),
        ('retry:on=["timed_out"]', StepPolicy(RetryPolicy(3, 1.0, 2.0, 60.0, on=("timed_out",)))),
        ("timeout:minutes=2", StepPolicy(timeout_seconds=120)),
        ("catch:var=oops,print_exception=no", StepPolicy(catch=Catch("oops", print_exception=False))),
    ],
)
def test_with_adds_the_same_decorators(text: str, expected: StepPolicy) -> None:
    """The options are the same."""
    assert StepPolicy.of([registry.parse(text)], on_kubernetes=False) == expected
