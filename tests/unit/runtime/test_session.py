"""A run is opened in one place, and driven without output where its console is silent."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import k8sflow
from k8sflow.config import Settings
from k8sflow.executors.by_name import make
from k8sflow.executors.context import RunContext
from k8sflow.flow.compile import compile_flow, declared
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.flow.graph import Graph
from k8sflow.runtime.commands.run import run
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.lookup import runs_of
from k8sflow.runtime.progress import Reporter, reporter
from k8sflow.runtime.progress.console import Tone
from k8sflow.runtime.request import RunRequest
from k8sflow.runtime.session import open_session
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName
from tests.support import load_flow, write_flow

FLOW = """
    from k8sflow import config_expr, retry, Config
    class F(FlowSpec):
        limits = Config("limits", default_value={"times": 2})
        @retry(times=config_expr("limits.times"))
        @step
        def start(self):
            print("hello")
            self.next(self.end)
        @step
        def end(self):
            if self.limits["times"] != 2: raise ValueError
"""
PRINTERS = {"echo", "secho", "print"}


class Silent:
    """A console that keeps the messages."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown = io.StringIO()

    def say(self, text: str, _tone: Tone = Tone.PLAIN, *, is_aside: bool = False) -> None:
        self.said.append(text)

    def write(self, text: str) -> None:
        self.said.append(text)

    def reporter(
        self, asked_at: float, logs: Callable[[TaskName], str], title: str = "", steps: Sequence[str] = ()
    ) -> Reporter:
        return reporter(asked_at, logs, title, steps, stream=self.shown)


def test_a_program_can_embed_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command returns how the run ended, and prints through its console alone; the run is opened by its record."""
    monkeypatch.chdir(tmp_path)
    definition = declared(load_flow(write_flow(tmp_path, FLOW)))
    settings, console = Settings(root=str(tmp_path / "store")), Silent()
    assert run(RunRequest(definition, settings, run_id="r1"), console) is RunEnd.SUCCEEDED
    assert capfd.readouterr() == ("", "")
    assert "[start/0] hello" in console.shown.getvalue()
    session = open_session(runs_of(definition.flow, settings).named("r1"), settings, definition)
    assert (session.pathspec, session.executors) == ("F/r1", ["local"])
    assert session.placement.policies["start"].retry.times == 2
    assert session.compiled().graph.shape() == session.graph.shape()


def test_only_the_command_line_and_progress_print() -> None:
    """The calls of echo, secho and print in the rest of the runtime."""
    found = []
    for file in (Path(k8sflow.__file__).parent / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in PRINTERS:
                found.append(f"{file.parent.name}/{file.name}")
    # A person who calls the step command by hand sees why its task failed.
    assert [name for name in found if not name.startswith("progress/")] == ["commands/step.py"]


def test_a_run_is_opened_where_its_code_is_not(tmp_path: Path) -> None:
    """As by the driver in the cluster: from its record alone."""
    graph = compile_flow(load_flow(write_flow(tmp_path, FLOW))).graph
    pods = {"end": PodOptions(image="i", namespace="lab")}
    record = RunRecord("F", "r1", "flow.py", {}, graph, pods)
    run_store = RunStore(MemoryStore(), "F", "r1")
    run_store.create(record)
    session = open_session(run_store, Settings(kubernetes_namespace="other"))
    assert (session.definition, session.graph) == (None, graph)
    assert session.executors == ["local", "kubernetes"]
    assert session.placement.pods == {"end": merge(PodOptions(image="i", namespace="lab"), DEFAULT_OPTIONS)}
    assert session.placement.inside(session.settings).kubernetes_namespace == "lab"


def test_an_executor_is_made_by_its_name() -> None:
    """From one value."""
    record = RunRecord("F", "r1", "flow.py", {}, Graph("F"))
    context = RunContext(lambda _: None, record, RunStore(MemoryStore(), "F", "r1"), Settings())
    assert type(make("kubernetes", context)).__name__ == "KubernetesExecutor"
    with pytest.raises(ValueError, match="no executor 'moon'"):
        make("moon", context)
