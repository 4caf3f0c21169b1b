"""The commands that a run's last lines name: they do what they say where they are pasted into the shell of the run.

For a flow in a notebook's cell, they are Python for a cell.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from k8sflow import metaflow_modules
from k8sflow.flow.script import given_datastore
from k8sflow.storage.records import RunRecord
from k8sflow.task.spec import TaskName

# The name by which the file that is made of a cell says so.
NOTEBOOK = "K8SFLOW_NOTEBOOK"


def resume(record: RunRecord, step: str | None = None) -> str:
    """The command that resumes a run in a new one of the same project and namespace.

    Args:
        record: The run.
        step: The step from which on everything runs again; None for what has no result.
    """
    if _is_in_notebook():
        named = {"step_to_rerun": step} if step is not None else {}
        options = {**named, "origin_run_id": record.run, **_options(record)}
        options |= {"datastore": datastore} if (datastore := given_datastore()) else {}
        return f"NBRunner({record.flow}).nbresume({', '.join(f'{name}={value!r}' for name, value in options.items())})"
    words = ["resume", *([step] if step is not None else []), "--origin-run-id", record.run]
    return _command(record, *words, *_words(_options(record)))


def attach(record: RunRecord) -> str:
    """The command that follows a run, or takes it over."""
    if _is_in_notebook():
        return f'k8sflow.Run("{record.flow}/{record.run}")'
    return _command(record, "attach", record.run)


def logs(record: RunRecord, task: TaskName) -> str:
    """The command that shows the output of a task."""
    if _is_in_notebook():
        return output(f"{record.flow}/{record.run}/{task}")
    return _command(record, "logs", f"{record.run}/{task}")


def output(task: str) -> str:
    """Python that shows the output of a task, by its pathspec."""
    return f'print(k8sflow.Task("{task}").stdout)'


def _is_in_notebook() -> bool:
    """True for the flow of a cell, whose file no longer exists when a person reads the message."""
    return getattr(sys.modules["__main__"], NOTEBOOK, False)


def _command(record: RunRecord, *words: str) -> str:
    """A command of the run's flow, as it is to be typed in this folder."""
    datastore = given_datastore()
    return shlex.join([*_program(record), *words, *(["--datastore", datastore] if datastore else [])])


def _program(record: RunRecord) -> list[str]:
    """The call of the flow: ``python flow.py``, ``python3 -m pkg.flow``; in a driver's pod, a likely one."""
    main = sys.modules["__main__"]
    started = getattr(main, "__file__", None)
    if not started or not (hasattr(main, record.flow) or f"/{Path(started).as_posix()}".endswith(f"/{record.file}")):
        return ["python", record.file]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.origin == sys.argv[0]:
        return [_python(), *metaflow_modules.interpreter_options(), "-m", spec.name.removesuffix(".__main__")]
    return [_python(), *metaflow_modules.interpreter_options(), sys.argv[0]]


def _python() -> str:
    """The interpreter as it was typed, without its folder where that is the one that the shell finds."""
    typed = sys.orig_argv[0] or "python"
    name = Path(typed).name
    return name if shutil.which(name) == typed else typed


def _options(record: RunRecord) -> dict[str, Any]:
    """The options of a run that also apply to one that resumes it, as keyword arguments."""
    options: dict[str, Any] = {"decospecs": list(record.decorators)} if record.decorators else {}
    project = record.flow_decorators.get("project", {})
    kind, _, branch = project.get("branch_name", "").partition(".")
    if branch and kind != "user":
        options["branch"] = branch
    if project.get("is_production"):
        options["production"] = True
    if record.namespace:
        options["namespace"] = record.namespace
    if record.is_detached:
        options["detach"] = True
    return options


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        match name, value:
            case "decospecs", decorators:
                for decorator in decorators:
                    yield from ("--with", decorator)
            case _, True:
                yield f"--{name}"
            case _:
                yield from (f"--{name}", value)
