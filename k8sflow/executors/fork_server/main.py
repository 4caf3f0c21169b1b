"""The life of a fork server's process, and how a fork of it becomes a task.

The server is a new interpreter that imports the libraries that the flow imports, and none of the user's code. Each
task is a fork of it, which then runs the flow's file itself: so what a module-level line makes (an open file, a
connection, a random generator, a temporary folder) belongs to one task, as it does in a pod.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import socket
import sys
import types
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn, cast

from k8sflow import debug_log, hooks, metaflow_modules
from k8sflow.environments.search_path import packages_first
from k8sflow.errors import RunError
from k8sflow.executors.fork_server import snapshot
from k8sflow.executors.fork_server.preload_plan import Ignore, Import, PlanStep, SetVariable
from k8sflow.executors.fork_server.preloading import preload, reseed
from k8sflow.executors.fork_server.server import Server, end_with_parent, kill_children
from k8sflow.flow.spec import FlowSpec
from k8sflow.s3_options import S3Options
from k8sflow.storage import serializers
from k8sflow.storage.open_store import open_store
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, Patience, say
from k8sflow.storage.records import RunRecord
from k8sflow.task import moments, streams
from k8sflow.task.conventions import Surroundings
from k8sflow.task.environments import lacking
from k8sflow.task.failure import unloadable
from k8sflow.task.host import pod_environment
from k8sflow.task.inside.entry import PendingTask, finish_threads
from k8sflow.task.spec import TaskSpec

_MOST_TRIES = 4
_FEW_FILES = 50  # so many are compiled before the first task, and not by each one
_STEPS: dict[str, type[PlanStep]] = {kind.__name__: kind for kind in (SetVariable, Ignore, Import)}


def main(setup: int, connection: int, lock: int | None, driver: int, path: list[str]) -> NoReturn:
    """Runs the server; does not return.

    Args:
        setup: A file with the document that ``start`` wrote.
        connection: The socket to the driver.
        lock: A file descriptor that this process keeps open, and the tasks don't.
        driver: The driver's process id.
        path: ``sys.path`` as a new interpreter has it.
    """
    end_with_parent(driver)
    os.lseek(setup, 0, os.SEEK_SET)
    with open(setup, encoding="utf-8", closefd=False) as file:
        document = json.load(file)
    _go_to(document["folder"], document["environment"])
    if document["files"] is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (document["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if "K8SFLOW_POD" in os.environ:
        pod_environment.name_user()
    left_out: dict[str, str] = document.get("left_out", {})
    terminal = _renew_streams()
    sys.argv = document["argv"]  # some libraries look at it when they are imported
    steps = [_STEPS[kind](**fields) for kind, fields in document["plan"]]
    if document["log"]:
        debug_log.turn_on(document["log"])
    for name in document["ours"]:
        importlib.import_module(name)
    is_last = document.get("tries", 0) >= _MOST_TRIES
    bad = preload([] if is_last else steps, left_out)
    if bad:
        _start_again(setup, {**document, "left_out": {**left_out, **bad}, "tries": document.get("tries", 0) + 1})
    for number, saved in zip((1, 2), terminal, strict=True):
        os.dup2(saved, number)
        os.close(saved)
    os.close(setup)
    for found in (connection, lock):
        if found is not None:
            os.set_inheritable(found, False)
    become = _Served(document, lock, path).become if "record" in document else None
    server = socket.socket(fileno=connection)
    server.setblocking(True)  # a library that has replaced the driver's sockets may have made it non-blocking
    moments.take_over(document.get("moments", {}))
    outlives_sigterm = document.get("outlives_sigterm", False)
    os._exit(Server(server, become, driver, left_out, outlives_sigterm=outlives_sigterm).serve())


def _go_to(folder: str | None, environment: Mapping[str, str]) -> None:
    """Starts in the folder that the run was started in, which the flow may have left: libraries read files there."""
    with contextlib.suppress(OSError):  # it no longer exists
        if folder is not None and not Path(folder).samefile(os.curdir):
            os.chdir(folder)
            os.execve(sys.executable, sys.orig_argv, environment)  # ``sys.path`` is relative to it


def _start_again(setup: int, document: Mapping[str, Any]) -> NoReturn:
    """Starts again as an interpreter that leaves out the libraries that have turned out to be unsuitable."""
    kill_children()
    os.lseek(setup, 0, os.SEEK_SET)
    os.truncate(setup, 0)
    with open(setup, "w", encoding="utf-8", closefd=False) as file:
        json.dump(document, file)
    os.execve(sys.executable, sys.orig_argv, document["environment"])


def _renew_streams() -> tuple[int, int]:
    """Makes the standard streams that tasks will have, and sends the output of libraries to /dev/null.

    Returns:
        Descriptors of the files that the streams led to.
    """
    streams.take_up()
    saved = (os.dup(1), os.dup(2))
    reader, writer = (
        os.pipe()
    )  # a task's streams lead to a pipe: objects that are opened on one know that they can't seek
    for number in (1, 2):
        os.dup2(writer, number)
    streams.renew()
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[assignment,misc]
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(null, number)
    for descriptor in (reader, writer, null):
        os.close(descriptor)
    return saved


class _Served:
    """The part that all tasks of the run share, and how a fork becomes one of them."""

    def __init__(self, document: Mapping[str, Any], lock: int | None, path: Sequence[str]) -> None:
        launch = document["launch"]
        self._file: str = launch["file"]
        self._module: str | None = launch["module"]
        self._argv: list[str] = launch["argv"]
        self._folder: str | None = document["folder"]
        self._lock = lock
        self._record = RunRecord.from_document(document["record"])
        url, endpoint, region, patience, options = document["store"]
        self._store = open_store(
            url,
            endpoint=endpoint,
            region=region,
            patience=Patience(patience, FIRST_ANSWER_SECONDS, say),
            options=S3Options(**options),
        )
        self._run_folder: str = document["run_folder"]
        self._compression: str = document["compression"]
        self._finder = snapshot.SnapshotFinder(
            {file: text.encode("latin-1") for file, text in document["sources"].items()}
        )
        before = document["path_before"]  # where the tasks have an environment of their own
        self._path = document["path"] or (self._new_path(path) if before is None else [*before, *path[1:]])
        if document["has_packages"]:
            self._path = packages_first(self._path)
        self._path = metaflow_modules.spawning(self._path)
        sys.path[:] = self._path
        serializers.installed()  # looked for once, not by each task
        sys.meta_path.insert(0, cast("Any", self._finder))
        with contextlib.suppress(SyntaxError):  # the task raises it again
            for file in document["sources"] if len(document["sources"]) < _FEW_FILES else [self._file]:
                self._finder.code(file)

    def _new_path(self, path: Sequence[str]) -> list[str]:
        """``sys.path`` as it is when a script or a module has been started in a new interpreter."""
        if getattr(sys.flags, "safe_path", False) or sys.flags.isolated:
            return list(path)
        first = str(Path(self._file).resolve().parent) if self._module is None else self._folder or ""
        return [first, *path[1:]]

    def become(self, task: str, result: int) -> int:
        """Runs the flow's file as ``__main__``, and the task in it; returns the exit code."""
        if self._lock is not None:
            os.close(self._lock)
        pending = PendingTask(
            TaskSpec.from_json(task),
            self._record,
            self._store.after_fork(),
            self._run_folder,
            result,
            self._compression,
        )
        hooks.register("instance", pending.begin)
        reseed()
        sys.argv = [*self._argv, "step", task]
        sys.orig_argv = [sys.executable, *(("-m", self._module) if self._module else (self._file,)), *sys.argv[1:]]
        try:
            if self._folder is not None:
                with contextlib.suppress(OSError):  # it no longer exists
                    os.chdir(self._folder)
            namespace = self._run_file()
            if pending.code is None:
                self._run_by_name(pending, namespace)
        except SystemExit as end:
            if pending.code is None:
                pending.report(unloadable(self._file, end, Surroundings.PROCESS))
        except BaseException as error:  # noqa: BLE001  the boundary to the user's file
            if pending.code is None:
                advice = lacking(error, pending.spec.name.step, self._record.environments)
                pending.report(unloadable(self._file, error, Surroundings.PROCESS, advice))
            else:
                sys.excepthook(type(error), error, error.__traceback__)
        finish_threads(pending.threads)
        return pending.code or 0

    def _run_file(self) -> dict[str, Any]:
        module = types.ModuleType("__main__")
        loader = SourceFileLoader("__main__", self._file)
        values: dict[str, Any] = {"__file__": self._file, "__loader__": loader, "__builtins__": __builtins__}
        if self._module is not None:
            package = self._module.rpartition(".")[0]
            __import__(package or "builtins")
            spec = ModuleSpec(self._module, loader, origin=self._file)
            values |= {"__spec__": spec, "__package__": package}
        vars(module).update(values)
        sys.modules["__main__"] = module
        code = self._finder.code(self._file) or compile(
            Path(self._file).read_bytes(), self._file, "exec", dont_inherit=True
        )
        exec(code, vars(module))  # noqa: S102  the flow's file, as Python runs it
        return vars(module)

    def _run_by_name(self, pending: PendingTask, namespace: Mapping[str, Any]) -> None:
        """Runs the task of a file that has made no instance of the flow: something else did, which imported it."""
        flow = namespace.get(self._record.flow)
        if not (isinstance(flow, type) and issubclass(flow, FlowSpec)):
            raise RunError(f"the file doesn't run the flow {self._record.flow}, and has no class of this name.")
        pending.run(flow)
