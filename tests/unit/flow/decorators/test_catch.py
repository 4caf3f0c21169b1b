"""``@catch``: its options, and the steps that it can't be on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import catch
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
from tests.support import load_flow, write_flow


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: catch(var="a b"), "name of an artifact"),
        (lambda: catch(print_exception="maybe"), "neither True nor False"),
    ],
    ids=range(2),
)
def test_a_wrong_option_is_reported(make: Any, words: str) -> None:
    """The error has the option, its value, and what is accepted."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)


def test_catch_on_a_step_that_chooses_its_next_steps_is_refused(tmp_path: Path) -> None:
    """A foreach and a switch need the step's result; a static split doesn't."""
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
    with pytest.raises(FlowDefinitionError, match="2 mistakes") as raised:
        compile_flow(load_flow(file))
    assert f"{file}:5: @catch can't be on step start, which opens branches by its data" in raised.value.advice
    assert f"{file}:19: @catch can't be on step meet, which is a switch" in raised.value.advice
