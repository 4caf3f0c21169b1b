"""Starts a fork server: a new interpreter, with everything that it needs in one document."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from k8sflow import debug_log
from k8sflow.executors.fork_server import preload_plan, snapshot
from k8sflow.executors.fork_server.client import ForkServer, ServerDied, Start
from k8sflow.executors.fork_server.preload_plan import Import, PreloadPlan, is_library_file
from k8sflow.flow.script import Launch, launch_of
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.patience import Patience
from k8sflow.storage.records import RunRecord
from k8sflow.task import moments

_MAIN = "k8sflow.executors.fork_server.main"
_CODE = (
    "import sys; path = sys.path[:]; sys.path[:] = {path}; from {module} import main; "
    "main({setup}, {connection}, {lock}, {driver}, path)"
)
# In a step's environment: without the working folder, where a user's file may have the name of a module of k8sflow's.
_OWN_PATH = "[entry for entry in path if entry]"
# The decorator, which is loaded only where a flow, or ``--with``, has it.
_CARD = "k8sflow.flow.decorators.card"
_TASKS_MODULES = tuple(f"k8sflow.{name}" for name in ("client", "exception", "flow", "parallel", "storage", "task"))


@dataclass(frozen=True)
class RunToServe:
    """The part of a run that its fork servers need.

    Args:
        flow: The flow's class.
        record: The run's record.
        store: Where the run's state is.
        folder: The folder of the flow that holds the run.
        files: How many files a task may open (RLIMIT_NOFILE); None for as many as the server.
        outlives_sigterm: Whether SIGTERM, where the step has no handler for it, does nothing.
        compression: The compression of artifacts: ``none`` or ``zstd``.
    """

    flow: type[FlowSpec]
    record: RunRecord
    store: ObjectStore
    folder: str
    files: int | None = None
    outlives_sigterm: bool = False
    compression: str = "none"


def plan_of(launch: Launch) -> PreloadPlan:
    """The libraries that can be imported ahead of a flow's code."""
    package = (launch.script.module or "").rpartition(".")[0]
    return preload_plan.plan(launch.script.file, package, dict(sys.modules))


def start_server(
    run: RunToServe,
    lock: int | None,
    variables: Mapping[str, str],
    *,
    preloads: bool = True,
    python: str | None = None,
) -> Start:
    """Starts a fork server for the tasks of a run.

    Args:
        run: The run.
        lock: A file descriptor that the server keeps open, and the tasks don't.
        variables: Environment variables that the tasks find when they import the flow.
        preloads: Whether it imports libraries ahead of the tasks.
        python: The interpreter of the tasks' environment; None for that of this process.

    Raises:
        FlowDefinitionError: The flow is in no file.
    """
    launch = launch_of(run.flow)
    plan = plan_of(launch) if preloads and python is None else PreloadPlan()
    document = {
        **_preloading(launch, plan, variables),
        "path_before": None if python is None or launch.path is None else _users_path(launch.path),
        "has_packages": python is not None,
        "launch": {"file": str(launch.script.file), "module": launch.script.module, "argv": launch.argv},
        "sources": _texts(snapshot.take(launch.script.file, launch.script.folder, sys.modules.values())),
        "record": run.record.to_document(),
        "store": _address(run.store),
        "run_folder": run.folder,
        "compression": run.compression,
        "files": run.files,
        "outlives_sigterm": run.outlives_sigterm,
        "moments": moments.noted(),
    }

    if python is not None:
        document["path"] = None
    return _starting(document, lock, python)


def imported_by_each_task(flow: type[FlowSpec]) -> dict[str, str]:
    """The libraries that each task imports by itself, since they can't be imported ahead of the flow's code, and why.

    Raises:
        FlowDefinitionError: The flow is in no file.
        RunError: The libraries can't be tried.
    """
    launch = launch_of(flow)
    plan = plan_of(launch)
    late = {library: f"{where} imports it when other code has run" for library, where in plan.late}
    trial = ForkServer(_starting(_preloading(launch, plan, {}), None))
    try:
        trial.exits()
    except ServerDied as error:
        return {**late, **dict.fromkeys(sorted(_roots(plan) - sys.stdlib_module_names), error.summary)}
    finally:
        trial.close()
    return {**late, **(trial.left_out or {})}


def _roots(plan: PreloadPlan) -> set[str]:
    return {step.module.partition(".")[0] for step in plan.steps if isinstance(step, Import)}


def _preloading(launch: Launch, plan: PreloadPlan, variables: Mapping[str, str]) -> dict[str, Any]:
    """The settings for importing libraries."""
    return {
        "folder": launch.folder,
        "path": None if launch.path is None else _names(launch.path),
        "environment": {**launch.environment, **variables},
        "plan": [[type(step).__name__, asdict(step)] for step in plan.steps],
        "argv": [*launch.argv, "step"],
        "files": None,
        "log": os.environ.get(debug_log.VARIABLE),
        "ours": [*sorted(name for name in sys.modules if name.startswith(_TASKS_MODULES)), *_of_cards()],
    }


def _of_cards() -> tuple[str, ...]:
    """The modules that make cards, if the flow has any: named, since they belong to an upper layer."""
    names = ("of_task", "supervisor", "markdown")
    return tuple(f"k8sflow.cards.{name}" for name in names) if _CARD in sys.modules else ()


def _starting(document: Mapping[str, Any], lock: int | None, python: str | None = None) -> Start:
    def start(_ours: socket.socket, theirs: socket.socket) -> int:
        with _memory_file() as setup:
            setup.write(json.dumps(document).encode())
            setup.flush()
            return _spawn(setup.fileno(), theirs.fileno(), lock, document["environment"], python)

    return start


def _names(path: Sequence[object]) -> list[str]:
    """The entries of ``sys.path`` that Python looks at: some programs add paths, which it skips."""
    return [entry for entry in path if isinstance(entry, str)]


def _users_path(path: Sequence[object]) -> list[str]:
    """The entries of ``sys.path`` that lead to the user's own modules, and not to what is installed here."""
    return [entry for entry in _names(path) if not is_library_file(os.path.join(entry, ""))]  # noqa: PTH118  "" stays


def _memory_file() -> IO[bytes]:
    """A file that needs no folder for temporary files, where the system has such (Linux)."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("k8sflow"), "w+b")
    return tempfile.TemporaryFile(prefix="k8sflow-")


def _address(store: ObjectStore) -> list[Any]:
    """The arguments that open a store in another process; a folder needs its URL alone."""
    patience = getattr(store, "patience", None) or Patience()
    options = getattr(store, "options", None)
    return [
        store.url,
        getattr(store, "endpoint", None),
        getattr(store, "region", None),
        patience.seconds,
        asdict(options) if options is not None else {},
    ]


def _texts(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {file: source.decode("latin-1") for file, source in sources.items()}


def _spawn(setup: int, connection: int, lock: int | None, environment: Mapping[str, str], python: str | None) -> int:
    path = repr(_names(sys.path)) if python is None else _OWN_PATH
    code = _CODE.format(path=path, module=_MAIN, setup=setup, connection=connection, lock=lock, driver=os.getpid())
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  as multiprocessing does
    command = [python or sys.executable, *flags, "-c", code]
    inherited = [found for found in (setup, connection, lock) if found is not None]
    for found in inherited:
        os.set_inheritable(found, True)
    try:
        # A group of its own: a terminal sends Ctrl-C to everybody, and what happens then is the driver's decision.
        return os.posix_spawn(command[0], command, environment, setpgroup=0)
    finally:
        for found in inherited:
            os.set_inheritable(found, False)
