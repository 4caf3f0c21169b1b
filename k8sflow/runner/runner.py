"""``Runner``: runs of a flow's file, from a script or a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from k8sflow import config, metaflow_modules, settings_file
from k8sflow.articles import described
from k8sflow.client import Run, Task
from k8sflow.errors import ConfigurationError, NotFoundError, ParameterError, RunError
from k8sflow.executors.by_name import check_local
from k8sflow.runner.child import Child
from k8sflow.runner.executing import ExecutingRun, ExecutingTask
from k8sflow.runtime import lookup
from k8sflow.storage.local_folder import roots_with_runs
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.run_store import RunStore

# Options that are needed before the flow's other options are known.
_CONFIGS = ("config", "config_value")
_START_SECONDS = 3600.0
_Executing = TypeVar("_Executing", ExecutingRun, ExecutingTask)


class Runner:
    """Runs a flow's file, as ``python flow.py`` does; a context manager that ends running commands.

    Args:
        flow_file: The file.
        show_output: True to show the output of ``run``, ``resume`` and ``spin`` while waiting for the end.
        profile: The profile of settings (``K8SFLOW_PROFILE``); None for that of the environment.
        env: Variables to add to the environment.
        cwd: The working directory of the runs, in which they are stored; None for the current one.
        file_read_timeout: Seconds in which the asynchronous methods expect the run or task to start.
        options: Options of the commands, as keyword arguments: ``decospecs=["kubernetes"]``, ``max_workers=4``,
            ``config=("name", "file.json")``, ``config_value=[("name", {...})]``. A list repeats an option.

    Raises:
        RunError: There is no such file.
    """

    def __init__(
        self,
        flow_file: str | os.PathLike[str],
        show_output: bool = True,  # noqa: FBT001, FBT002  the order that users know
        profile: str | None = None,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        file_read_timeout: float = _START_SECONDS,
        **options: Any,
    ) -> None:
        self._start_seconds = file_read_timeout
        self.flow_file = Path(flow_file).resolve()
        if not self.flow_file.is_file():
            raise RunError(f"there is no flow file {self.flow_file}.")
        self._show_output = show_output
        self.environment = {**os.environ, **({settings_file.PROFILE: profile} if profile else {}), **(env or {})}
        self.cwd = _folder_of_runs(cwd)
        self.options = options
        self._children: list[Child] = []

    def run(self, **options: Any) -> ExecutingRun:
        """Runs the flow, and returns when the run has ended in any way.

        Args:
            options: The flow's parameters, and options of ``run``, as keyword arguments.

        Raises:
            RunError: No run was started.
        """
        return self._to_end("run", options)

    def resume(self, **options: Any) -> ExecutingRun:
        """Resumes a run, and returns when the new one has ended in any way.

        Args:
            options: Options of ``resume``: ``origin_run_id``, ``step_to_rerun``, …

        Raises:
            RunError: No run was started.
        """
        return self._to_end("resume", options)

    async def async_run(self, **options: Any) -> ExecutingRun:
        """Starts a run, and returns when it exists.

        Args:
            options: The same as for ``run``.

        Raises:
            RunError: No run was started.
        """
        return await self._start("run", options).when_started(self._start_seconds)

    async def async_resume(self, **options: Any) -> ExecutingRun:
        """Resumes a run, and returns when the new one exists.

        Args:
            options: The same as for ``resume``.

        Raises:
            RunError: No run was started.
        """
        return await self._start("resume", options).when_started(self._start_seconds)

    def spin(self, pathspec: str, **options: Any) -> ExecutingTask:
        """Reruns a step on the inputs of an earlier run's task, and returns when it has ended in any way.

        Args:
            pathspec: The task: ``step``, ``step/task``, ``run/step`` or ``run/step/task``.
            options: Options of ``spin``. The Runner's own options are ignored, except for configs and ``datastore``.

        Raises:
            RunError: No task was started.
        """
        return self._shown(self._start_spin(pathspec, options))

    async def async_spin(self, pathspec: str, **options: Any) -> ExecutingTask:
        """Reruns a step, and returns when its task exists.

        Args:
            pathspec: The same as for ``spin``.
            options: The same as for ``spin``.

        Raises:
            RunError: No task was started.
        """
        return await self._start_spin(pathspec, options).when_started(self._start_seconds)

    @property
    def settings(self) -> config.Settings:
        """The settings of the flow.

        Raises:
            ConfigurationError: They can't be read.
        """
        return config.load(self.flow_file.parent, self.environment, working=self.cwd)

    def find(self, run_id: str, datastore: object = None) -> RunStore:
        """The records of a run of the flow's file.

        Args:
            run_id: The run's id.
            datastore: The store that the run's option ``datastore`` named; None if it named none.

        Raises:
            RunError: There is no such run.
        """
        stores = self._stores(datastore)
        found = lookup.run_of_any_flow(stores, run_id)
        if found is None:
            raise self._is_nowhere(f"the run {run_id}", stores)
        return found

    def cleanup(self) -> None:
        """Cancels running commands, and returns when all of their processes have ended."""
        while self._children:
            self._children.pop().stop()

    def __enter__(self) -> Runner:  # noqa: PYI034  typing has no Self before Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    async def __aenter__(self) -> Runner:  # noqa: PYI034  as above
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.cleanup)

    def _to_end(self, command: str, options: Mapping[str, Any]) -> ExecutingRun:
        return self._shown(self._start(command, options))

    def _shown(self, executing: _Executing) -> _Executing:
        try:
            executing.show_until_end() if self._show_output else executing.wait_until_end()
        except BaseException:  # Ctrl-C above all: the run must not outlive the call
            executing.cleanup()
            if self._show_output:
                executing.show_until_end()  # shows how it was cancelled, and how to continue
            raise
        _ = executing.started
        return executing

    def _start(self, command: str, options: Mapping[str, Any]) -> ExecutingRun:
        values = {**self.options, **options}
        child, line = self._child(command, dict(values), "run_id_file")
        return ExecutingRun(child, line, lambda run_id: Run(self.find(run_id, values.get("datastore"))))

    def _start_spin(self, pathspec: str, options: Mapping[str, Any]) -> ExecutingTask:
        shared = {name: self.options[name] for name in (*_CONFIGS, "datastore") if name in self.options}
        values = {**shared, **options}
        child, line = self._child("spin", {**values, "task": pathspec}, "pathspec_file")
        return ExecutingTask(child, line, lambda spun: self._spun(spun, values.get("datastore")))

    def _child(self, command: str, values: dict[str, Any], answer: str) -> tuple[Child, str]:
        """A command's process, and its command line for people; ``answer`` is the option for its answer's file."""
        check_local("Runner can't start a process")
        hook = metaflow_modules.interpreter_options()
        line = [sys.executable, *hook, str(self.flow_file), command, "--k8sflow-call"]
        shown = shlex.join([Path(sys.executable).name, *hook, self.flow_file.name, command])
        words = _configs(values)

        def call(file: str) -> str:
            return _json({"words": words, "values": {**values, answer: file}})

        try:
            child = Child(line, call, self.environment, None if self.cwd is None else str(self.cwd))
        except OSError as error:
            is_large = error.errno == errno.E2BIG
            raise RunError(
                f"{shown} can't be started: {error.strerror}.",
                cause="An environment variable is larger than 128 KiB, or all together are too large."
                if is_large
                else "",
                advice="Pass large values as parameters, or in a file." if is_large else "",
            ) from error
        self._children.append(child)
        return child, shown

    def _spun(self, pathspec: str, datastore: object) -> Task:
        """The task that ``spin`` ran.

        Raises:
            RunError: It can't be found.
        """
        flow, folder, run, step, task = pathspec.split("/")
        stores = self._stores(datastore)
        try:
            return Task(task, parent=Run(lookup.Runs(flow, stores, folder)[run])[step])
        except NotFoundError as error:
            raise self._is_nowhere(pathspec, stores) from error

    def _is_nowhere(self, what: str, stores: Sequence[ObjectStore]) -> RunError:
        return RunError(
            f"{what} of {self.flow_file} is not in {' or '.join(store.url for store in stores)}.",
            cause="The flow's file changes the working folder before it imports k8sflow, or sets K8SFLOW_ROOT.",
        )

    def _stores(self, datastore: object) -> list[ObjectStore]:
        """The stores of the runs, that of the option first; the option may be a parameter of the flow instead."""
        found = [self.settings]
        if datastore is not None:
            changes = {config.DATASTORE: str(datastore)}
            with contextlib.suppress(ConfigurationError):
                found.insert(0, config.load(self.flow_file.parent, {**self.environment, **changes}, working=self.cwd))
        return [
            store
            for settings in found
            for store in lookup.stores_in(settings, roots_with_runs(settings, self.cwd, self.flow_file.parent))
        ]


def _folder_of_runs(cwd: str | os.PathLike[str] | None) -> Path | None:
    """The working folder of runs as an absolute path, since the current one may change; None if it was deleted."""
    here = config.working_folder()
    return here if cwd is None else (here or Path("/")) / cwd


def _configs(values: dict[str, Any]) -> list[str]:
    """The options of configs as arguments of the command line; removes them from the values."""
    words = []
    for name in _CONFIGS:
        given = values.pop(name, None) or []
        for config_name, value in [given] if isinstance(given, tuple) else given:
            if odd := list(_odd_keys(value)):
                raise ParameterError(
                    f"the config {config_name!r} has the key {odd[0]!r}, which would become a string.",
                    cause="The Runner passes configs as JSON, whose keys are strings.",
                    advice="Write the config to a YAML file, and pass that: config=[(name, file)].",
                )
            text = value if isinstance(value, str | os.PathLike) else _json(value)
            words += [f"--{name.replace('_', '-')}", str(config_name), str(text)]
    return words


def _odd_keys(value: Any) -> Iterator[Any]:
    """The keys of nested dictionaries that are not strings."""
    if isinstance(value, dict):
        yield from (key for key in value if not isinstance(key, str))
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for part in value:
        yield from _odd_keys(part)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the options of a run must be plain values: {error}.") from error


def _plain(value: Any) -> Any:
    """A JSON value for an object that JSON doesn't support, but a command line does."""
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, (set, frozenset, range)):
        return list(value)
    if callable(item := getattr(value, "item", None)):  # a number of numpy
        return item()
    raise TypeError(f"{value!r} is {described(value)}")
