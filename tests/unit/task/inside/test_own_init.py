"""Attributes that a flow's own ``__init__`` sets before it calls FlowSpec's are on ``self`` in every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import FlowSpec, step
from k8sflow.client import Run
from k8sflow.testing import run_flow, run_step
from tests.support import flow_command, in_python, write_flow

SOURCE = """
    import os
    import threading

    class F(FlowSpec):
        def __init__(self, use_cli=True):
            self.table, self.count, self.rows = "spectra", 0, [os.getpid()]
            self.lock = threading.Lock()
            super().__init__(use_cli)

        @step
        def start(self):
            assert self.lock.acquire(blocking=False)
            self.rows.append(len(self.rows))
            self.count = 5
            self.next(self.work, foreach="table")

        @step
        def work(self):
            assert self.lock.acquire(blocking=False)
            self.seen = (self.table, self.count, self.input)
            self.kept = self.rows
            self.next(self.join)

        @step
        def join(self, inputs):
            self.all = [i.seen for i in inputs]
            self.first = self.table
            self.has_count = hasattr(self, "count")
            self.merge_artifacts(inputs, exclude=["seen"])
            self.merged = self.count
            self.next(self.end)

        @step
        def end(self):
            assert self.lock.acquire(blocking=False)
            print("END", self.first, self.has_count, self.merged, self.all[1], self.rows == self.kept, len(self.rows))
"""


def test_steps_have_what_init_set(tmp_path: Path) -> None:
    """A join has it as the split left it; a step's change to it wins; each task creates again what can't be saved."""
    file = write_flow(tmp_path, SOURCE)
    done = flow_command(file, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "END spectra True 5 ('spectra', 5, 'p') True 2" in done.stdout
    read = in_python(
        "from k8sflow import Flow, metadata\n"
        f"metadata('{tmp_path}')\nrun = Flow('F').latest_run\n"
        "print(run['start'].task.data.table, run['work'].task.data.count, 'lock' in run['start'].task)",
    )
    assert read.stdout.split() == ["spectra", "5", "False"], read.stderr


def test_a_resumed_run_has_what_init_set_in_the_first_one(tmp_path: Path) -> None:
    """So that steps that are kept and those that run again agree."""
    source = """
    import os

    class F(FlowSpec):
        def __init__(self):
            self.word = os.environ["WORD"]
            super().__init__()

        @step
        def start(self):
            self.next(self.a, self.b)

        @step
        def a(self): self.next(self.join)

        @step
        def b(self): self.next(self.join)

        @step
        def join(self, inputs):
            print("WORD", self.word, [i.word for i in inputs])
            assert os.environ["WORD"] == "second"
            self.next(self.end)

        @step
        def end(self): pass
    """
    file = write_flow(tmp_path, source)
    assert flow_command(file, "run", WORD="first").returncode == 1
    resumed = flow_command(file, "resume", WORD="second")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "WORD first ['first', 'first']" in resumed.stdout


class _Base(FlowSpec):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.mapping = {"a": 1}
        super().__init__(*args, **kwargs)
        self.late = 1

    @step
    def start(self) -> None:
        self.mapping["b"] = 2
        self.next(self.middle)

    @step
    def middle(self) -> None:
        self.seen = dict(self.mapping)
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


class _Derived(_Base):
    def __init__(self) -> None:
        self.more = "more"
        super().__init__()


class _NeedsArguments(_Base):
    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__()


def test_a_test_has_what_init_set() -> None:
    """In ``run_flow`` and ``run_step``, with any signature that needs no arguments."""
    run = run_flow(_Derived)
    assert isinstance(run, Run)
    assert run.data is not None
    assert (run.data.seen, run.data.more) == ({"a": 1, "b": 2}, "more")
    assert run_step(_Base, "middle").artifacts == {"mapping": {"a": 1}, "seen": {"a": 1}}
    assert run_step(_Base, "middle", artifacts={"mapping": {}}).artifacts == {"mapping": {}, "seen": {}}
    assert run_step(_NeedsArguments, "middle", artifacts={"mapping": {}}).artifacts == {"mapping": {}, "seen": {}}


def test_what_init_sets_too_late_is_explained() -> None:
    """The command line never returns from FlowSpec's ``__init__``."""

    class Late(_Base):
        @step
        def middle(self) -> None:
            self.seen = self.late
            self.next(self.end)

    with pytest.raises(AttributeError, match=r"__init__ sets it \(test_own_init\.py:\d+\), .*Set it above that call"):
        run_step(Late, "middle")


def test_a_foreach_may_go_over_what_init_set(tmp_path: Path) -> None:
    """The check knows that it is there."""
    source = """
    class F(FlowSpec):
        def __init__(self):
            self.items = [1, 2]
            super().__init__()
        @step
        def start(self): self.next(self.work, foreach="items")
        @step
        def work(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): print("ITEMS", self.items)
    """
    done = flow_command(write_flow(tmp_path, source), "run")
    assert "ITEMS [1, 2]" in done.stdout, done.stdout + done.stderr
