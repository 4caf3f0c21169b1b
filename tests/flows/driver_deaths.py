"""Drivers that die: real processes, each forked from this one, which has everything imported.

    python driver_deaths.py FLOW_FILE once|chain|cancel|threads|cached

``once``: for each change of state of a run, a driver is killed (SIGKILL) just before it, and ``attach`` finishes it.
``cancel``: the same with Ctrl-C (SIGINT), and ``resume``.
``threads``: as ``once`` for a few changes of state, with a driver that has a thread.
``cached``: as ``once``, with results of the undisturbed run: no task runs again.
``chain``: one run, whose drivers die one after the other, each one change of state later than the one before it.
After each run its result and the marks of its tasks are compared with those of an undisturbed run.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k8sflow import config
from k8sflow.cli.terminal import Terminal
from k8sflow.client import Run
from k8sflow.flow.compile import declared
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.commands.attach import attach
from k8sflow.runtime.commands.resume import resume
from k8sflow.runtime.commands.run import run as run_flow
from k8sflow.runtime.core import loop
from k8sflow.runtime.core.actions import RunEnd
from k8sflow.runtime.core.observer import Observer
from k8sflow.runtime.request import RunRequest
from k8sflow.storage.folder import FolderLog, FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import load_flow

NEVER = 10**9
THREADS_DEATHS = 6
CANCELLED = 130


class Deaths:
    """A signal for this process at its n-th change of state: an event, or a write to the store."""

    def __init__(self, moment: int, number: signal.Signals) -> None:
        self.remaining = moment
        self.number = number
        self.pid = os.getpid()

    def change(self, *_: Any) -> None:
        if os.getpid() != self.pid:
            return  # a task, or the fork server
        self.remaining -= 1
        if self.remaining == -1:
            os.kill(self.pid, self.number)

    def install(self) -> None:
        """Prepare the driver of this process to die."""
        plain = loop.Loop.__init__

        deaths = self

        class Watched(Observer):
            """Dies before it passes an event on."""

            def __init__(self, observer: Observer) -> None:
                for name in ("opened", "submitted", "done_before", "event", "retried", "caught"):
                    setattr(self, name, deaths._before(getattr(observer, name)))

        def with_observer(driver: Any, *arguments: Any, observer: Observer, **options: Any) -> None:
            plain(driver, *arguments, observer=Watched(observer), **options)

        loop.Loop.__init__ = with_observer  # type: ignore[method-assign]
        for kind, name in ((FolderStore, "put"), (FolderStore, "put_new"), (FolderLog, "write")):
            setattr(kind, name, self._before(getattr(kind, name)))

    def _before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.change()
            return method(*arguments)

        return call


class Run1:
    """A run of the flow, with the marks that its tasks write outside of the store."""

    def __init__(self, flow: type[FlowSpec], folder: Path, name: str) -> None:
        self.flow = flow
        self.name = name
        self.folder = folder
        self.marks = folder / f"{name}.marks"
        self.store = FolderStore(str(folder / ".k8sflow"))

    def fork(
        self, moment: int, *, is_first: bool, number: signal.Signals = signal.SIGKILL, origin: str | None = None
    ) -> int:
        """Run a driver that gets a signal at its n-th change of state, and return its status, as of ``os.waitpid``."""
        if (pid := os.fork()) == 0:
            code = 70
            try:
                os.environ["MARKS"] = str(self.marks)
                self._become_driver(Deaths(moment, number), is_first=is_first, origin=origin)
                code = 0
            except KeyboardInterrupt:
                code = CANCELLED
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1]

    def _become_driver(self, deaths: Deaths, *, is_first: bool, origin: str | None) -> None:
        log = os.open(self.folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        moment = deaths.remaining
        deaths.install()
        if threads_of_import(self.flow):  # the threads of this process's import didn't survive the fork
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        settings = config.load(self.folder)
        request = RunRequest(declared(self.flow), settings, run_id=self.name, max_workers=3)
        if origin is not None:
            done = resume(request, origin, None, Terminal(), dry_run=False)
        elif is_first:
            done = run_flow(request, Terminal())
        else:
            done = attach(declared(self.flow), settings, self.name, Terminal(), time.monotonic(), 3)
        if done is RunEnd.CANCELLED:
            raise KeyboardInterrupt
        assert done is RunEnd.SUCCEEDED
        if moment == NEVER:
            (self.folder / "changes").write_text(str(NEVER - deaths.remaining))

    def settle(self) -> None:
        """Wait until everything of a dead driver has ended: its lock is free."""
        lock = self.store.root / f"F/runs/{self.name}/driver.lock"
        if lock.exists():
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)

    def committed(self) -> set[str]:
        """Return the tasks that have a result."""
        root = self.store.root / f"F/runs/{self.name}/tasks"
        return {"/".join(path.parts[-3:-1]) for path in root.glob("*/*/commit.json")}

    def executions(self) -> list[str]:
        """List task and attempt of each execution, in the order in which they started."""
        return self.marks.read_text().split() if self.marks.exists() else []

    def attach(self, moment: int) -> int:
        """Attach with a driver that dies; check that it runs nothing that has a result, and no name twice."""
        self.settle()
        done, before = self.committed(), len(self.executions())
        status = self.fork(moment, is_first=not self.has_started)
        self.settle()
        new = [mark.partition(":")[0] for mark in self.executions()[before:]]
        assert not done & set(new), f"{self.name}, death {moment}: {done & set(new)} ran again"
        twice = [mark for mark, count in Counter(self.executions()).items() if count > 1]
        assert not twice, f"{self.name}, death {moment}: executions under one name: {twice}"
        return status

    @property
    def has_started(self) -> bool:
        """Report if the run has a record."""
        return (self.store.root / f"F/runs/{self.name}/run.json").exists()

    def check(self, expected: Run1) -> None:
        """Check that the run has the same result as another one."""
        actual, wanted = (Run(RunStore(run.store, "F", run.name)) for run in (self, expected))
        assert actual.successful, self.name
        assert self.committed() == expected.committed(), self.name
        assert actual.data is not None
        assert wanted.data is not None
        assert actual.data.result == wanted.data.result, self.name


def threads_of_import(flow: type[FlowSpec]) -> bool:
    """Report if the flow's file starts threads when it is imported."""
    return hasattr(sys.modules[flow.__module__], "thread")


def cancel(run: Run1, moment: int, whole: Run1) -> bool:
    """Cancel a run at a change of state, and resume it in a new one; return False if it was over by then."""
    code = os.waitstatus_to_exitcode(run.fork(moment, is_first=True, number=signal.SIGINT))
    assert code in {0, CANCELLED}, (run.folder / "output").read_text()
    if not run.has_started:
        assert moment == 0
        return True
    run.settle()
    outcome = RunStore(run.store, "F", run.name).read_run_outcome()
    assert outcome is not None, moment
    if outcome.outcome == "succeeded":
        run.check(whole)
        return False
    assert (outcome.outcome, code) == ("cancelled", CANCELLED)
    done = run.committed()
    new = Run1(run.flow, run.folder, f"{run.name}-resumed")
    new.marks = Path(f"{run.marks}-resumed")
    assert new.fork(NEVER, is_first=True, origin=run.name) == 0, (run.folder / "output").read_text()
    assert not done & {mark.partition(":")[0] for mark in new.executions()}, moment
    new.check(whole)
    return True


def cached(whole: Run1) -> tuple[int, int]:
    """Take the results of a run at each change of state; return the number of deaths, and of changes of state."""
    executed = whole.executions()
    again = Run1(whole.flow, whole.folder, "again")
    again.marks = whole.marks  # whose name is in the key of a step that reads it
    assert again.fork(NEVER, is_first=True) == 0, (whole.folder / "output").read_text()
    changes, count = int((whole.folder / "changes").read_text()), 0
    for moment in range(changes):
        run = Run1(whole.flow, whole.folder, f"d{moment}")
        run.marks = whole.marks
        count += os.WIFSIGNALED(run.fork(moment, is_first=True))
        assert run.attach(NEVER) == 0, (run.folder / "output").read_text()
        run.check(whole)
        assert run.executions() == executed, f"{run.name}: {run.executions()[len(executed) :]} ran again"
    return count, changes


def main(file: str, kind: str) -> None:
    """Run the deaths, and print their number."""
    flow, folder = load_flow(Path(file)), Path(file).parent
    if kind == "cached":  # the changes to the library that this module makes would be parts of all keys
        own, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
        assert vars(own)["main"] is main
    whole = Run1(flow, folder, "whole")
    assert whole.fork(NEVER, is_first=True) == 0, (folder / "output").read_text()
    changes = int((folder / "changes").read_text())
    count = 0
    if kind in {"once", "threads"}:
        pause = 1 if kind == "once" else changes // THREADS_DEATHS
        for moment in range(pause // 2, changes, pause):
            run = Run1(flow, folder, f"d{moment}")
            count += os.WIFSIGNALED(run.fork(moment, is_first=True))
            assert run.attach(NEVER) == 0, (folder / "output").read_text()
            run.check(whole)
    elif kind == "cached":
        count, changes = cached(whole)
    elif kind == "cancel":
        for moment in range(changes):
            count += cancel(Run1(flow, folder, f"c{moment}"), moment, whole)
    else:
        run = Run1(flow, folder, "chain")
        for moment in itertools.count():
            if not os.WIFSIGNALED(status := run.attach(moment)):
                assert status == 0, (folder / "output").read_text()
                break
            count += 1
        run.check(whole)
    print(f"{count} deaths, {changes} changes")


if __name__ == "__main__":
    main(*sys.argv[1:])
