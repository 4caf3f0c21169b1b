"""The commands that a run's last lines name."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from k8sflow.storage.records import RunRecord
from k8sflow.task.spec import TaskName


def command(record: RunRecord, *words: str) -> str:
    """A command of the run's flow, as it is to be typed in this folder."""
    given = sys.argv[0] if Path(sys.argv[0]).name == record.file else record.file
    return shlex.join(["python", given, *words])


def resume(record: RunRecord) -> str:
    """The command that goes on with a run in a new one."""
    added = [word for decorator in record.decorators for word in ("--with", decorator)]
    return command(record, "resume", "--origin-run-id", record.run, *added)


def attach(record: RunRecord) -> str:
    """The command that looks after a run."""
    return command(record, "attach", record.run)


def logs(record: RunRecord, task: TaskName) -> str:
    """The command that shows what a task has printed."""
    return command(record, "logs", f"{record.run}/{task}")
