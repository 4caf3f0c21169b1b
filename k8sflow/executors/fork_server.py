"""The fork server's start, and how a fork of it becomes a task.

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
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from k8sflow import debug_log, hooks
from k8sflow.errors import RunError
from k8sflow.executors import preload_plan, snapshot
from k8sflow.executors.preload_plan import Ignore, Import, Plan, PlanStep, SetVariable
from k8sflow.executors.preloading import preload, reseed
from k8sflow.executors.zygote import Server, ServerDied, Start, Zygote, end_with_parent, kill_children
from k8sflow.flow.script import Launch, launch_of
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open import open_store
from k8sflow.storage.patience import FIRST_ANSWER_SECONDS, Patience, say
from k8sflow.storage.records import RunRecord
from k8sflow.task import streams
from k8sflow.task.failure import unloadable
from k8sflow.task.inside.entry import PendingTask, finish_threads
from k8sflow.task.spec import TaskSpec

_CODE = (
    "import sys; path = sys.path[:]; sys.path[:] = {path!r}; from {module} import main; "
    "main({setup}, {connection}, {lock}, {driver}, path)"
)
_TASKS_MODULES = tuple(f"k8sflow.{name}" for name in ("client", "exception", "flow", "parallel", "storage", "task"))
_MOST_TRIES = 4
_FEW_FILES = 50  # so many are compiled before the first task, and not by each one
_STEPS: dict[str, type[PlanStep]] = {kind.__name__: kind for kind in (SetVariable, Ignore, Import)}


@dataclass(frozen=True)
class RunToServe:
    """What the server is to know of the run.

    Args:
        flow: The flow's class.
        record: The run's record.
        store: Where the run's state is.
        place: The folder of the flow in which the run is.
        files: How many files a task may open (RLIMIT_NOFILE); None for as many as the server.
    """

    flow: type[FlowSpec]
    record: RunRecord
    store: ObjectStore
    place: str
    files: int | None = None


def plan_of(launch: Launch) -> Plan:
    """The libraries that can be imported ahead of a flow's code."""
    package = (launch.script.module or "").rpartition(".")[0]
    return preload_plan.plan(launch.script.file, package, dict(sys.modules))


def server(run: RunToServe, lock: int | None, variables: Mapping[str, str], *, preloads: bool = True) -> Start:
    """Starts a fork server for the tasks of a run.

    Args:
        run: The run.
        lock: A file descriptor that the server keeps open, and the tasks don't.
        variables: Environment variables that the tasks find when they import the flow.
        preloads: Whether it imports libraries ahead of the tasks.

    Raises:
        FlowDefinitionError: The flow is in no file.
    """
    launch = launch_of(run.flow)
    plan = plan_of(launch) if preloads else Plan()
    record = asdict(run.record)
    record["parameters"] = {name: ref.to_document() for name, ref in run.record.parameters.items()}
    document = {
        **_preloading(launch, plan, variables),
        "launch": {"file": str(launch.script.file), "module": launch.script.module, "argv": launch.argv},
        "sources": _texts(snapshot.take(launch.script.file, launch.script.folder, sys.modules.values())),
        "record": record,
        "store": _address(run.store),
        "place": run.place,
        "files": run.files,
    }

    return _starting(document, lock)


def imported_by_each_task(flow: type[FlowSpec]) -> dict[str, str]:
    """The libraries that each task imports by itself, since they can't be imported ahead of the flow's code, and why.

    Raises:
        FlowDefinitionError: The flow is in no file.
        RunError: The libraries can't be tried.
    """
    launch = launch_of(flow)
    plan = plan_of(launch)
    late = {library: f"{where} imports it when other code has run" for library, where in plan.late}
    trial = Zygote(_starting(_preloading(launch, plan, {}), None))
    try:
        trial.exits()
    except ServerDied as error:
        return {**late, **dict.fromkeys(sorted(_roots(plan) - sys.stdlib_module_names), error.summary)}
    finally:
        trial.close()
    return {**late, **(trial.left_out or {})}


def _roots(plan: Plan) -> set[str]:
    return {step.module.partition(".")[0] for step in plan.steps if isinstance(step, Import)}


def _preloading(launch: Launch, plan: Plan, variables: Mapping[str, str]) -> dict[str, Any]:
    """What the server is to know to import libraries."""
    return {
        "folder": launch.folder,
        "path": None if launch.path is None else _names(launch.path),
        "environment": {**launch.environment, **variables},
        "plan": [[type(step).__name__, asdict(step)] for step in plan.steps],
        "argv": [*launch.argv, "step"],
        "files": None,
        "log": os.environ.get(debug_log.VARIABLE),
        "ours": sorted(name for name in sys.modules if name.startswith(_TASKS_MODULES)),
    }


def _starting(document: Mapping[str, Any], lock: int | None) -> Start:
    def start(_ours: socket.socket, theirs: socket.socket) -> int:
        with _memory_file() as setup:
            setup.write(json.dumps(document).encode())
            setup.flush()
            return _spawn(setup.fileno(), theirs.fileno(), lock, document["environment"])

    return start


def _names(path: Sequence[object]) -> list[str]:
    """The entries of ``sys.path`` that Python looks at: some programs add paths, which it skips."""
    return [entry for entry in path if isinstance(entry, str)]


def _memory_file() -> IO[bytes]:
    """A file that needs no folder for temporary files, where the system has such (Linux)."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("k8sflow"), "w+b")
    return tempfile.TemporaryFile(prefix="k8sflow-")


def _address(store: ObjectStore) -> list[Any]:
    """What opens a store in another process; a folder is its URL alone."""
    patience = getattr(store, "patience", None) or Patience()
    return [store.url, getattr(store, "endpoint", None), getattr(store, "region", None), patience.seconds]


def _texts(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {file: source.decode("latin-1") for file, source in sources.items()}


def _spawn(setup: int, connection: int, lock: int | None, environment: Mapping[str, str]) -> int:
    code = _CODE.format(
        path=_names(sys.path), module=__name__, setup=setup, connection=connection, lock=lock, driver=os.getpid()
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  as multiprocessing does
    command = [sys.executable, *flags, "-c", code]
    inherited = [found for found in (setup, connection, lock) if found is not None]
    for found in inherited:
        os.set_inheritable(found, True)
    try:
        # A group of its own: a terminal sends Ctrl-C to everybody, and what happens then is the driver's decision.
        return os.posix_spawn(command[0], command, environment, setpgroup=0)
    finally:
        for found in inherited:
            os.set_inheritable(found, False)


def main(setup: int, connection: int, lock: int | None, driver: int, path: list[str]) -> NoReturn:
    """The life of the server; does not return.

    Args:
        setup: A file with what to do.
        connection: The socket to the driver.
        lock: What this process keeps open, and the tasks don't.
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
    os._exit(Server(server, become, driver, left_out).serve())


def _go_to(folder: str | None, environment: Mapping[str, str]) -> None:
    """Begins in the folder that the run was started in, which the flow may have left: libraries read files there."""
    with contextlib.suppress(OSError):  # it no longer exists
        if folder is not None and not Path(folder).samefile(os.curdir):
            os.chdir(folder)
            os.execve(sys.executable, sys.orig_argv, environment)  # ``sys.path`` is relative to it


def _start_again(setup: int, document: Mapping[str, Any]) -> NoReturn:
    """Begins anew as an interpreter that leaves out what has turned out to be wrong."""
    kill_children()
    os.lseek(setup, 0, os.SEEK_SET)
    os.truncate(setup, 0)
    with open(setup, "w", encoding="utf-8", closefd=False) as file:
        json.dump(document, file)
    os.execve(sys.executable, sys.orig_argv, document["environment"])


def _renew_streams() -> tuple[int, int]:
    """Makes the standard streams that tasks will have, and sends what libraries print to nobody; what they led to."""
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
    """What every task of the run shares; how a fork becomes one of them."""

    def __init__(self, document: Mapping[str, Any], lock: int | None, path: Sequence[str]) -> None:
        launch = document["launch"]
        self._file: str = launch["file"]
        self._module: str | None = launch["module"]
        self._argv: list[str] = launch["argv"]
        self._folder: str | None = document["folder"]
        self._lock = lock
        self._record = RunRecord.from_document(document["record"])
        url, endpoint, region, patience = document["store"]
        self._store = open_store(
            url, endpoint=endpoint, region=region, patience=Patience(patience, FIRST_ANSWER_SECONDS, say)
        )
        self._place: str = document["place"]
        self._finder = snapshot.SnapshotFinder(
            {file: text.encode("latin-1") for file, text in document["sources"].items()}
        )
        self._path = document["path"] or self._new_path(path)
        sys.path[:] = self._path
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
        pending = PendingTask(TaskSpec.from_json(task), self._record, self._store.after_fork(), self._place, result)
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
                pending.report(unloadable(self._file, end, in_pod=False))
        except BaseException as error:  # noqa: BLE001  the boundary to the user's file
            if pending.code is None:
                pending.report(unloadable(self._file, error, in_pod=False))
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
