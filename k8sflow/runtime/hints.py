"""The commands that a run's last lines name: they do what they say where they are pasted into the shell of the run."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from k8sflow.storage.records import RunRecord
from k8sflow.task.spec import TaskName


def command(record: RunRecord, *words: str) -> str:
    """A command of the run's flow, as it is to be typed in this folder."""
    return shlex.join([*_program(record), *words])


def resume(record: RunRecord) -> str:
    """The command that goes on with a run in a new one, which is of the same project and namespace."""
    return command(record, "resume", "--origin-run-id", record.run, *_options(record))


def attach(record: RunRecord) -> str:
    """The command that looks after a run."""
    return command(record, "attach", record.run)


def logs(record: RunRecord, task: TaskName) -> str:
    """The command that shows what a task has printed."""
    return command(record, "logs", f"{record.run}/{task}")


def _program(record: RunRecord) -> list[str]:
    """How the flow was called: ``python flow.py``, ``python3 -m pkg.flow``; in a driver's pod, how it will be."""
    main = sys.modules["__main__"]
    started = getattr(main, "__file__", None)
    if not started or not (hasattr(main, record.flow) or f"/{Path(started).as_posix()}".endswith(f"/{record.file}")):
        return ["python", record.file]
    spec = main.__spec__
    if spec is not None and spec.origin == sys.argv[0]:
        return [_python(), "-m", spec.name.removesuffix(".__main__")]
    return [_python(), sys.argv[0]]


def _python() -> str:
    """The interpreter as it was typed, without its folder where that is the one that the shell finds."""
    typed = sys.orig_argv[0] or "python"
    name = Path(typed).name
    return name if shutil.which(name) == typed else typed


def _options(record: RunRecord) -> Iterator[str]:
    for decorator in record.decorators:
        yield from ("--with", decorator)
    project = record.flow_decorators.get("project", {})
    kind, _, branch = project.get("branch_name", "").partition(".")
    if branch and kind != "user":
        yield from ("--branch", branch)
    if project.get("is_production"):
        yield "--production"
    if record.namespace:
        yield from ("--namespace", record.namespace)
    if record.is_detached:
        yield "--detach"
