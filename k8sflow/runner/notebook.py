"""``NBRunner``: runs of a flow that is defined in a notebook."""

from __future__ import annotations

import ast
import atexit
import inspect
import linecache
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k8sflow.client import Run
from k8sflow.errors import RunError
from k8sflow.flow.spec import FlowSpec, steps
from k8sflow.runner.runner import Runner
from k8sflow.runtime.commands.next_steps import NOTEBOOK

# Names in a cell that are used to run the flow, and don't belong to it.
_OUR_NAMES = ("NBRunner", "NBDeployer")
_IPYTHON = "get_ipython"


class NBRunner(Runner):
    """Runs a flow that is defined in one cell of a notebook, with all its imports, as a file of its own.

    The file is created in ``base_dir``, where the flow finds the notebook's modules and data. It is deleted by
    ``cleanup``, and when the interpreter exits. It has the cell's code up to the first use of NBRunner.

    Args:
        flow: The flow's class.
        show_output: True to show the output while waiting for the end.
        env: Variables to add to the environment.
        base_dir: The folder of the file, and the working directory; the current one by default.
        options: Options of the commands, as for ``Runner``.

    Raises:
        RunError: The cell can't be found.
    """

    def __init__(
        self,
        flow: type[FlowSpec],
        show_output: bool = True,  # noqa: FBT001, FBT002  the order that users know
        *,
        env: Mapping[str, str] | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        source = flow_source(flow)
        folder = Path(base_dir or ".").resolve()
        descriptor, name = tempfile.mkstemp(prefix=f"{flow.__name__.lower()}_", suffix=".py", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(source)
        atexit.register(Path(name).unlink, missing_ok=True)
        super().__init__(name, show_output, env=env, cwd=folder, **options)

    def nbrun(self, **options: Any) -> Run:
        """Runs the flow, deletes the file, and returns the run when it has ended in any way.

        Args:
            options: The flow's parameters, and options of ``run``, as keyword arguments.

        Raises:
            RunError: No run was started.
        """
        try:
            return self.run(**options).run
        finally:
            self.cleanup()

    def nbresume(self, **options: Any) -> Run:
        """Resumes a run, deletes the file, and returns the new run when it has ended in any way.

        Args:
            options: Options of ``resume``: ``origin_run_id``, ``step_to_rerun``, …

        Raises:
            RunError: No run was started.
        """
        try:
            return self.resume(**options).run
        finally:
            self.cleanup()

    def cleanup(self) -> None:
        """Cancels running commands, and deletes the file."""
        super().cleanup()
        self.flow_file.unlink(missing_ok=True)


def flow_source(flow: type[FlowSpec]) -> str:
    """The content of a flow's cell as a flow's file, with the same line numbers.

    Raises:
        RunError: It can't be found.
    """
    own = [inspect.unwrap(function) for name, function in steps(flow).items() if name in vars(flow)]
    files = {code.co_filename for function in own if (code := getattr(function, "__code__", None)) is not None}
    # A decorator without functools.wraps hides a step's cell behind its own module.
    sources = ["".join(linecache.getlines(file)) for file in sorted(files)]
    source = next((found for found in sources if re.search(rf"^\s*class {flow.__name__}\b", found, re.MULTILINE)), "")
    if not source:
        raise RunError(
            f"the cell of {flow.__name__} can't be found.",
            cause="The notebook didn't run it directly, but under %%time, or by exec().",
            advice="Move the flow and its imports into a cell of its own, and run it again.",
        )
    lines = source.splitlines()
    tree = compile(source, flow.__name__, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    for statement in tree.body:
        if not isinstance(statement, (ast.Import, ast.ImportFrom)) and _names(statement, *_OUR_NAMES):
            del lines[statement.lineno - 1 :]
            break
        if not isinstance(statement, ast.ClassDef) and _names(statement, _IPYTHON):
            last = statement.end_lineno or statement.lineno
            lines[statement.lineno - 1 : last] = [f"# {line}" for line in lines[statement.lineno - 1 : last]]
    end = ['if __name__ == "__main__":', f"    {NOTEBOOK} = True", f"    {flow.__name__}()", ""]
    return "\n".join([*lines, "", "", *end])


def _names(statement: ast.stmt, *names: str) -> bool:
    """True if a statement uses one of these names."""
    found = {getattr(node, "id", getattr(node, "attr", None)) for node in ast.walk(statement)}
    return not found.isdisjoint(names)
