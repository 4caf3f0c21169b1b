"""The cell of a notebook as a flow's file."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import k8sflow
from k8sflow import NBRunner
from k8sflow.errors import RunError
from k8sflow.runner.notebook import flow_source
from tests.support import in_python

CELL = """\
from k8sflow import FlowSpec, NBRunner, Parameter, step
get_ipython().run_line_magic('matplotlib',
    'inline')
import helper

BASE = 10

class F(FlowSpec):
    n = Parameter("n", default=1)

    @step
    def start(self):
        self.result = helper.double(self.n) + BASE
        self.next(self.end)

    @step
    def end(self):
        if self.n > 100:
            raise ValueError("too much")
"""
ALONE = """\
from k8sflow import FlowSpec, step
class F(FlowSpec):
    @step
    def start(self): ...
"""
CALL = """
run = await NBRunner(F).async_run(n=4)
print(run.data)
"""


class _Shell:
    """A stand-in for the parts of IPython that the cell needs."""

    def run_line_magic(self, *words: str) -> None: ...


def cell(source: str, name: str) -> Any:
    """Return a class that was defined in a cell, as IPython keeps its source."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"__name__": "__main__", "get_ipython": _Shell}
    exec(compile(source.removesuffix(CALL), name, "exec"), scope)
    return scope["F"]


@pytest.fixture(autouse=True)
def _helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the module beside the notebook."""
    monkeypatch.setitem(sys.modules, "helper", ModuleType("helper"))


def test_a_cell_is_a_file_up_to_its_first_use_of_the_runner() -> None:
    """Magics are removed; lines keep their numbers."""
    lines = flow_source(cell(CELL + CALL, "<cell 1>")).splitlines()
    assert lines[1:3] == ["# get_ipython().run_line_magic('matplotlib',", "#     'inline')"]
    assert lines[7] == "class F(FlowSpec):"
    assert "run =" not in "\n".join(lines)
    assert lines[-3:] == ['if __name__ == "__main__":', "    K8SFLOW_NOTEBOOK = True", "    F()"]


@pytest.mark.parametrize("keeping", ["@functools.wraps(function)", ""])
def test_a_wrapped_step_belongs_to_its_cell(keeping: str) -> None:
    """It doesn't belong to the module of its decorator, with or without functools.wraps."""
    module = f"""
        def wrapping(function):
            {keeping}
            def wrapped(self): return function(self)
            return wrapped
    """
    exec(compile(textwrap.dedent(module), "<a helper>", "exec"), {"functools": functools}, vars(sys.modules["helper"]))
    source = CELL.replace("    @step", "    @step\n    @helper.wrapping", 1)
    assert "class F(FlowSpec):" in flow_source(cell(source, "<cell 5>"))


def test_a_flow_of_a_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can import the modules beside the notebook; its file is deleted at the end, and its results are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "helper.py").write_text("def double(n): return 2 * n\n")
    flow = cell(CELL, "<cell 2>")
    run = NBRunner(flow, show_output=False, max_workers=1).nbrun(n=4)
    assert run["start"].task.data.result == 18
    assert sorted(os.listdir(tmp_path)) == [".k8sflow", "helper.py"]
    assert not NBRunner(flow, show_output=False).nbrun(n=400).successful
    with pytest.raises(RunError, match="no run was started"):
        NBRunner(flow, show_output=False).nbrun(m=4)
    assert sorted(os.listdir(tmp_path)) == [".k8sflow", "helper.py"]


def test_the_file_does_not_outlive_the_interpreter(tmp_path: Path) -> None:
    """It is deleted even if nobody has called cleanup()."""
    script = """
        import linecache
        from k8sflow import NBRunner
        source = open("cell").read()
        linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
        exec(compile(source, "<cell>", "exec"))
        runner = NBRunner(F)
        assert runner.flow_file.exists()
    """
    (tmp_path / "cell").write_text(ALONE)
    done = in_python(f"import os; os.chdir({str(tmp_path)!r})\n{textwrap.dedent(script)}")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["cell"]


@pytest.mark.slow
def test_the_advice_after_a_failed_run_can_be_typed_into_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is deleted by then: no message names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    (tmp_path / "helper.py").write_text("def double(n): return 2 * n\n")
    flow = cell(CELL.replace("ValueError", "print('so far') or ValueError"), "<cell 4>")
    options = {"decospecs": ["retry:times=0"], "namespace": "user:ann"}
    with NBRunner(flow, show_output=False, **options) as runner:
        failed = runner.run(n=400)
    said = failed.stdout
    advice = {name: rest.strip() for name, _, rest in (line.strip().partition(":  ") for line in said.splitlines())}
    scope = {"F": flow, "NBRunner": NBRunner, "k8sflow": k8sflow}
    assert "python" not in said
    exec(advice["its output"], scope)
    assert "so far" in capsys.readouterr().out
    resumed = eval(advice["to resume"], scope)
    assert resumed["start"].task.origin_pathspec == f"{failed.run.pathspec}/start/0"
    assert advice["to resume"].endswith("decospecs=['retry:times=0'], namespace='user:ann')")


def test_a_flow_without_a_cell_is_refused() -> None:
    """An example is a flow from exec()."""
    flow = cell(CELL, "<cell 3>")
    del linecache.cache["<cell 3>"]
    with pytest.raises(RunError, match="the cell of F can't be found"):
        NBRunner(flow)
