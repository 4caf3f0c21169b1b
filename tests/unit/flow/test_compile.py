"""Compiles a flow's class: its members are sorted into parameters and constants."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow import FlowSpec, Parameter
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow, declared
from tests.support import run_flow, write_flow


def test_two_parameters_with_one_name_are_refused() -> None:
    """The two would be one option."""

    class Twice(FlowSpec):
        a = Parameter("n")
        b = Parameter("n")

    with pytest.raises(FlowDefinitionError, match="two parameters with the name 'n': a and b"):
        compile_flow(Twice)


def test_members_are_sorted_into_parameters_and_constants() -> None:
    """Methods, properties, nested classes and private names are neither; a derived class's member wins."""

    class Base(FlowSpec):
        replaced = Parameter("replaced", default=1)
        size = 1

    class Derived(Base):
        replaced = 5
        rate = Parameter("learning-rate", default=0.1)
        items = (1,)
        _private = 1

        class Nested:
            pass

        @property
        def double(self) -> int:
            return 2

        @staticmethod
        def helper() -> None: ...

    assert declared(Derived).constants == {"replaced": 5, "size": 1, "items": (1,)}
    assert list(declared(Derived).parameters) == ["rate"]
    assert list(declared(Base).parameters) == ["replaced"]


def test_a_constant_that_cant_be_kept_says_what_to_do(tmp_path: Path) -> None:
    """The error proposes a name with an underscore."""
    source = """
        import threading
        class F(FlowSpec):
            lock = threading.Lock()
            @step
            def start(self):
                with self.lock: print("locked")
                self.next(self.end)
            @step
            def end(self): pass
    """
    refused = run_flow(write_flow(tmp_path, source))
    assert refused.returncode == 1
    assert "constant 'lock' can't be kept" in refused.stderr
    assert "Call it _lock" in refused.stderr
    done = run_flow(write_flow(tmp_path, source.replace("lock =", "_lock =").replace("self.lock", "self._lock")))
    assert "locked" in done.stdout, done.stderr
