"""The report of a step's failure: the exception, the user's frames, and unusual cases."""

from __future__ import annotations

from pathlib import Path

import pytest

import k8sflow
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from k8sflow.task.failure import diagnose
from k8sflow.task.result import Failure
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.inprocess import Failed, run_source, runner_of
from tests.support import load_flow, write_flow

SOURCE = """
    import os, sys
    class Broken(Exception):
        def __str__(self): raise ValueError("no text")
    class Leaving(Exception):
        def __str__(self): raise SystemExit(3)
    class Noted(Exception): pass
    def deep(n):
        return deep(n + 1)
    def chained():
        try:
            {{}}["inner"]
        except KeyError as error:
            raise RuntimeError("outer") from error
    class F(FlowSpec):
        @step
        def start(self):
            {body}
            self.next(self.end)
        @step
        def end(self): pass
"""


def _failure(folder: Path, body: str) -> Failed:
    with pytest.raises(Failed) as failed:
        run_source(folder, SOURCE.format(body=body))
    assert failed.value.result.outcome is Outcome.USER_ERROR
    return failed.value


@pytest.mark.parametrize(
    ("body", "summary", "detail"),
    [
        ("raise ValueError('ünïcødé 🦆')", "ValueError: ünïcødé 🦆", "raise ValueError('ünïcødé 🦆')"),
        ("raise ValueError", "ValueError", "in start"),
        ("raise Broken()", "Broken: (its __str__ raised ValueError)", "raise Broken()"),
        ("raise Leaving()", "Leaving: (its __str__ raised SystemExit)", "raise Leaving()"),
        ("chained()", "RuntimeError: outer", "KeyError: 'inner'"),
        ("deep(0)", "RecursionError: maximum recursion depth exceeded", "Previous line repeated"),
        ("sys.exit(0)", "the step called sys.exit(0) before it was finished", "sys.exit(0)"),
        ("sys.exit()", "the step called sys.exit() before it was finished", "sys.exit()"),
        ("sys.exit('why')", "the step called sys.exit('why') before it was finished", ""),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "raise KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit", "raise GeneratorExit"),
        ("1/0", "ZeroDivisionError: division by zero", "1/0"),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'", "import nowhere"),
        ("raise ValueError('\\ud800')", "ValueError: \ud800", ""),
        ("raise ValueError('x' * 1_000_000)", "ValueError: xxx", ""),
        ("assert self is None, 'not none'", "AssertionError: not none", ""),
        ("{}['k']", "KeyError: 'k'", ""),
        ("from k8sflow import Flow; Flow('Nothing')", "there is no run of a flow 'Nothing'", "Flow('Nothing')"),
        ("self.end(1, 2)", "TypeError: F.end() takes 1 positional argument but 3 were given", ""),
    ],
)
def test_an_exception_is_reported_with_the_users_frames(tmp_path: Path, body: str, summary: str, detail: str) -> None:
    """And without ours."""
    failed = _failure(tmp_path, body)
    assert failed.summary.startswith(summary)
    assert detail in failed.text
    assert 'flow.py", line' in failed.text
    assert "runner.py" not in failed.text


def test_an_error_of_k8sflow_is_reported_once(tmp_path: Path) -> None:
    """Its parts, and the user's line that led to it; of a value that can't be pickled the user's own exception."""
    detail = failure_of(_failure(tmp_path, "from k8sflow import Flow; Flow('Nothing')")).detail
    assert detail.startswith("Traceback")
    assert detail.count("\n") <= 3, "neither the chain of exceptions nor further text"
    broken = "self.x = type('X', (), {'__reduce__': lambda self: 1 / 0})()"
    detail = failure_of(_failure(tmp_path, broken)).detail
    assert detail.endswith("ZeroDivisionError: division by zero")
    assert "cloudpickle" not in detail
    assert detail.count("Traceback") == 1


def failure_of(failed: Failed) -> Failure:
    """The parts of the message."""
    assert failed.result.failure is not None
    return failed.result.failure


def test_a_syntax_error_in_an_imported_module_shows_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, the line, the caret."""
    (tmp_path / "broken_module_of_test.py").write_text("def f(:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    failed = _failure(tmp_path, "import broken_module_of_test")
    assert failed.summary.startswith("SyntaxError: invalid syntax")
    assert "broken_module_of_test.py" in failed.text
    assert "def f(:" in failed.text


def test_frames_of_a_folder_whose_name_begins_like_ours_are_the_users(tmp_path: Path) -> None:
    """A user's code may lie in k8sflow_flows beside k8sflow."""
    folder = Path(k8sflow.__file__).parent
    file = tmp_path / "flow.py"
    source = SOURCE.format(body="1/0")
    write_flow(tmp_path, source)
    code = compile(file.read_text(), f"{folder}_flows/flow.py", "exec")
    scope: dict[str, object] = {"__name__": "elsewhere"}
    exec(code, scope)
    with pytest.raises(RuntimeError) as raised:
        scope["chained"]()  # type: ignore[operator]
    assert "k8sflow_flows/flow.py" in diagnose(raised.value).detail


def test_an_outcome_is_written_for_a_failure_and_for_a_success(tmp_path: Path) -> None:
    """So that the client can tell."""
    failed = _failure(tmp_path, "1/0")
    record = RunStore(_store(tmp_path), "F", "r1").read_outcome("start", "0", 0)
    assert record is not None
    assert (record.outcome, record.summary) == ("user_error", failed.summary)
    assert not list(tmp_path.rglob("commit.json"))


def _store(folder: Path) -> FolderStore:
    return FolderStore(str(folder / "store"))


def test_the_loser_of_a_commit_race_has_succeeded_too(tmp_path: Path) -> None:
    """Two executions of one task: its outputs exist once, and both tell the first one's transition (I3)."""
    source = """
        class F(FlowSpec):
            @step
            def start(self):
                import os
                self.who = os.urandom(8)
                self.items = [self.who]
                self.next(self.work, foreach="items")
            @step
            def work(self): self.next(self.join)
            @step
            def join(self, inputs): self.next(self.end)
            @step
            def end(self): pass
    """
    runner = runner_of(load_flow(write_flow(tmp_path, source)), tmp_path)
    results = [runner.run(TaskSpec("F", "r1", TaskName("start"), attempt)) for attempt in (0, 1, 0)]
    assert results[0] == results[1] == results[2]
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert commit.attempt == 0


def test_a_task_without_its_parent_is_reported(tmp_path: Path) -> None:
    """The commit was removed."""
    source = SOURCE.format(body="pass")
    runner = runner_of(load_flow(write_flow(tmp_path, source)), tmp_path)
    result = runner.run(TaskSpec("F", "r1", TaskName("end"), 0, (TaskInput("start", ()),)))
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert "start/0 has no result" in result.failure.summary


def test_the_beginning_and_end_of_a_long_message_are_reported(tmp_path: Path) -> None:
    """It goes to the terminal and into several records."""
    failure = _failure(tmp_path, "raise ValueError('a' * 5_000_000 + 'z')").result.failure
    assert failure is not None
    assert failure.summary.startswith("ValueError: aaa")
    assert "characters left out" in failure.summary
    assert "in start" in failure.detail
    assert failure.detail.endswith("aaz")
    assert len(failure.summary + failure.detail) < 110_000
