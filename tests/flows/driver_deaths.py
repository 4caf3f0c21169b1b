"""Drivers that die: real processes, each forked from this one, which has everything imported.

    python driver_deaths.py FLOW_FILE once|chain

``once``: for each change of state of a run, a driver is killed (SIGKILL) right before it, and ``attach`` finishes it.
``chain``: one run, whose drivers die one after the other, each one change of state later than the one before it.
After each run its result and the marks of its tasks are compared with those of a run that was left alone.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8sflow import config
from k8sflow.client import Run
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime import attach, driver, start
from k8sflow.runtime.request import RunRequest
from k8sflow.storage.folder import FolderLog, FolderStore
from k8sflow.storage.records import RunStore
from tests.support import load_flow

NEVER = 10**9


class Deaths:
    """Kills this process at its n-th change of state: an event, or a write to the store."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.pid = os.getpid()

    def change(self, *_: Any) -> None:
        if os.getpid() != self.pid:
            return  # a task, or the zygote
        if self.left == 0:
            os.kill(self.pid, signal.SIGKILL)
        self.left -= 1

    submitted = event = retried = caught = change

    def install(self) -> None:
        """Lets the driver of this process die."""
        plain = driver.Driver.__init__

        def with_observer(driver: Any, *arguments: Any, observers: Any, **options: Any) -> None:
            plain(driver, *arguments, observers=[*observers, self], **options)

        driver.Driver.__init__ = with_observer  # type: ignore[method-assign]
        for kind, name in ((FolderStore, "put"), (FolderStore, "put_new"), (FolderLog, "write")):
            setattr(kind, name, self._before(getattr(kind, name)))

    def _before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.change()
            return method(*arguments)

        return call


class Run1:
    """One run of the flow, with what its tasks have told of themselves outside of the store."""

    def __init__(self, flow: type[FlowSpec], folder: Path, name: str) -> None:
        self.flow = flow
        self.name = name
        self.folder = folder
        self.marks = folder / f"{name}.marks"
        self.store = FolderStore(str(folder / ".k8sflow"))

    def fork(self, moment: int, *, is_first: bool) -> int:
        """A driver that dies at its n-th change of state; how it ended, as of ``os.waitpid``."""
        if (pid := os.fork()) == 0:
            code = 70
            try:
                os.environ["MARKS"] = str(self.marks)
                self._become_driver(moment, is_first=is_first)
                code = 0
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1]

    def _become_driver(self, moment: int, *, is_first: bool) -> None:
        log = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        deaths = Deaths(moment)
        deaths.install()
        settings = config.load(self.folder)
        if is_first:
            done = start.run(RunRequest(self.flow, settings, run_id=self.name, max_workers=3))
        else:
            done = attach.attach(self.flow, settings, self.name, 3, time.monotonic())
        assert done is True
        if moment == NEVER:
            (self.folder / "changes").write_text(str(NEVER - deaths.left))

    def settle(self) -> None:
        """Returns when nothing of a dead driver is left: its lock is free."""
        lock = self.store.root / f"F/runs/{self.name}/driver.lock"
        if lock.exists():
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)

    def committed(self) -> set[str]:
        """The tasks that have a result."""
        root = self.store.root / f"F/runs/{self.name}/tasks"
        return {"/".join(path.parts[-3:-1]) for path in root.glob("*/*/commit.json")}

    def told(self) -> list[str]:
        """Task and attempt of each execution, in the order in which they began."""
        return self.marks.read_text().split() if self.marks.exists() else []

    def go_on(self, moment: int) -> int:
        """Attaches with a driver that dies; checks that it runs nothing that has a result, and no name twice."""
        self.settle()
        done, before = self.committed(), len(self.told())
        status = self.fork(moment, is_first=not self.is_begun)
        self.settle()
        new = [mark.partition(":")[0] for mark in self.told()[before:]]
        assert not done & set(new), f"{self.name}, death {moment}: {done & set(new)} ran again"
        twice = [mark for mark, count in Counter(self.told()).items() if count > 1]
        assert not twice, f"{self.name}, death {moment}: executions under one name: {twice}"
        return status

    @property
    def is_begun(self) -> bool:
        """Whether the run has a record."""
        return (self.store.root / f"F/runs/{self.name}/run.json").exists()

    def check(self, expected: Run1) -> None:
        """Checks that the run has the same result as another one."""
        ours, theirs = (Run(RunStore(run.store, "F", run.name)) for run in (self, expected))
        assert ours.successful, self.name
        assert self.committed() == expected.committed(), self.name
        assert ours.data is not None
        assert theirs.data is not None
        assert ours.data.result == theirs.data.result, self.name


def main(file: str, kind: str) -> None:
    """Runs the deaths, and prints how many there were."""
    flow, folder = load_flow(Path(file)), Path(file).parent
    whole = Run1(flow, folder, "whole")
    assert whole.fork(NEVER, is_first=True) == 0, (folder / "output").read_text()
    changes = int((folder / "changes").read_text())
    count = 0
    if kind == "once":
        for moment in range(changes):
            run = Run1(flow, folder, f"d{moment}")
            count += os.WIFSIGNALED(run.fork(moment, is_first=True))
            assert run.go_on(NEVER) == 0, (folder / "output").read_text()
            run.check(whole)
    else:
        run = Run1(flow, folder, "chain")
        for moment in itertools.count():
            if not os.WIFSIGNALED(status := run.go_on(moment)):
                assert status == 0, (folder / "output").read_text()
                break
            count += 1
        run.check(whole)
    print(f"{count} deaths, {changes} changes")


if __name__ == "__main__":
    main(*sys.argv[1:])
