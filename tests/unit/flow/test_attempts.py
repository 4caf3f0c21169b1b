"""@retry, @timeout and @catch: what may be written, and what it means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from k8sflow import catch, retry, timeout
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.decorators import base, registry
from k8sflow.flow.decorators.policy import PAID, Catch, Retry, StepPolicy
from tests.support import load_flow, write_flow


def policy(*decorators: Any, on_kubernetes: bool = False) -> StepPolicy:
    """What some decorators ask for, after a journey through JSON."""

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
        ((retry,), StepPolicy(Retry(3, 1.0, 2.0, 60.0))),
        ((retry(times=0),), StepPolicy()),
        ((retry(times=100, minutes_between_retries=0.5),), StepPolicy(Retry(100, 30.0))),
        ((retry(times=2, on=("out_of_memory",)),), StepPolicy(Retry(2, 1.0, 2.0, 60.0, on=("out_of_memory",)))),
        ((retry(minutes_between_retries=1, backoff=2, max_delay=10),), StepPolicy(Retry(3, 60.0, 2.0, 600.0))),
        ((timeout(seconds=5),), StepPolicy(timeout_seconds=5)),
        ((timeout(seconds=5, grace_seconds=0),), StepPolicy(timeout_seconds=5, grace_seconds=0)),
        ((timeout(hours=1, minutes=1, seconds=1),), StepPolicy(timeout_seconds=3661)),
        ((catch,), StepPolicy(catch=Catch())),
        ((catch(var="x", print_exception=False),), StepPolicy(catch=Catch("x", print_exception=False))),
    ],
)
def test_decorators_make_a_policy(decorators: tuple[Any, ...], expected: StepPolicy) -> None:
    """That survives JSON, for a driver without the flow's code."""
    assert policy(*decorators) == expected


def test_a_retry_waits_longer_on_kubernetes_by_default() -> None:
    """Two minutes there, as what failed may need time; here moments that grow, up to a minute."""
    assert [policy(retry).retry.pause_before(number) for number in (1, 2, 3, 4, 9)] == [1, 2, 4, 8, 60]
    assert [policy(retry(backoff=1)).retry.pause_before(number) for number in (1, 2)] == [1, 1]
    assert policy(retry(max_delay=0.05)).retry.pause_before(9) == 3
    assert policy(retry(minutes_between_retries=0)).retry.pause_before(3) == 0
    assert policy(retry(minutes_between_retries=1)).retry.pause_before(3) == 60
    assert policy(retry, on_kubernetes=True).retry.pause_before(3) == 120
    assert policy(retry, on_kubernetes=True).retry.pause_seconds == 120
    assert policy(retry(minutes_between_retries=0), on_kubernetes=True).retry.pause_seconds == 0


def test_pauses_grow_without_end_but_not_past_the_longest() -> None:
    """A thousand retries make no overflow."""
    assert [Retry(9, 10, 2).pause_before(number) for number in (1, 2, 3)] == [10, 20, 40]
    assert Retry(9, 10, 1e9, 99).pause_before(1000) == 99
    assert Retry(9, 10, 1e9).pause_before(1000) == float("inf")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: retry(times=-1), "times=-1"),
        (lambda: retry(times=1.5), "whole number"),
        (lambda: retry(times=True), "whole number"),
        (lambda: retry(minutes_between_retries="soon"), "minutes_between_retries='soon'"),
        (lambda: retry(backoff=0.5), "shorter"),
        (lambda: retry(max_delay=float("nan")), "max_delay"),
        (lambda: retry(on=("node_lost",)), "'node_lost' is not one of user_error, timed_out, out_of_memory"),
        (lambda: retry(on=()), "list of outcomes"),
        (lambda: retry(tmes=3), "Did you mean 'times'"),
        (lambda: retry(3), "by name, not 3. Write for example @retry|times=3"),
        (timeout, "needs a time"),
        (lambda: timeout(seconds=-5), "seconds=-5"),
        (lambda: timeout(5), "by name"),
        (lambda: catch(var="a b"), "name of an artifact"),
        (lambda: catch(print_exception="maybe"), "neither True nor False"),
    ],
    ids=range(15),
)
def test_a_mistake_is_told(make: Any, words: str) -> None:
    """With the option, what was written, and what it is."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retry", StepPolicy(Retry(3, 1.0, 2.0, 60.0))),
        ("retry:times=5,minutes_between_retries=0.1", StepPolicy(Retry(5, 6.0))),
        ("retry:on=user_error|timed_out", StepPolicy(Retry(3, 1.0, 2.0, 60.0, on=PAID[:2]))),
        ('retry:on=["timed_out"]', StepPolicy(Retry(3, 1.0, 2.0, 60.0, on=("timed_out",)))),
        ("timeout:minutes=2", StepPolicy(timeout_seconds=120)),
        ("catch:var=oops,print_exception=no", StepPolicy(catch=Catch("oops", print_exception=False))),
    ],
)
def test_with_adds_them_too(text: str, expected: StepPolicy) -> None:
    """By the same options."""
    assert StepPolicy.of([registry.parse(text)], on_kubernetes=False) == expected


def test_catch_on_a_step_whose_way_only_it_knows_is_a_mistake(tmp_path: Path) -> None:
    """A foreach, a switch; a static split has one way."""
    source = """
        from k8sflow import catch
        class F(FlowSpec):
            @catch
            @step
            def start(self):
                self.items = [1]
                self.next(self.work, foreach="items")
            @step
            def work(self): self.next(self.join)
            @catch
            @step
            def join(self, inputs): self.next(self.a, self.b)
            @step
            def a(self): self.next(self.meet)
            @step
            def b(self): self.next(self.meet)
            @catch
            @step
            def meet(self, inputs):
                self.x = 1
                self.next({1: self.one, 2: self.end}, condition="x")
            @step
            def one(self): self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    with pytest.raises(FlowDefinitionError, match="2 mistakes") as told:
        compile_flow(load_flow(file))
    assert f"{file}:5: @catch can't be on step start, which opens branches by its data" in told.value.advice
    assert f"{file}:19: @catch can't be on step meet, which is a switch" in told.value.advice
