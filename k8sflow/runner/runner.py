"""``Runner``: runs of a flow's file, from a script or a notebook."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from k8sflow import config
from k8sflow.client import Run
from k8sflow.errors import ParameterError, RunError
from k8sflow.runner.child import Child
from k8sflow.runner.executing import ExecutingRun
from k8sflow.storage.objects import ObjectStore, open_store
from k8sflow.storage.records import RunStore

# The options that are needed before the flow's other options are known.
_CONFIGS = ("config", "config_value")


class Runner:
    """Runs a flow's file, as ``python flow.py`` does; a context manager that ends what still runs.

    Args:
        flow_file: The file.
        show_output: Whether ``run`` and ``resume`` show the output of the run while they wait for its end.
        env: Variables that are added to the environment.
        cwd: The working directory of the runs; None for ours.
        options: Options of the commands, as keyword arguments: ``decospecs=["kubernetes"]``, ``max_workers=4``,
            ``config=("name", "file.json")``, ``config_value=[("name", {...})]``. Lists stand for an option that is
            given several times.

    Raises:
        RunError: There is no such file.
    """

    def __init__(
        self,
        flow_file: str | os.PathLike[str],
        show_output: bool = True,  # noqa: FBT001, FBT002  the order that users know
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.flow_file = Path(flow_file).resolve()
        if not self.flow_file.is_file():
            raise RunError(f"there is no flow file {self.flow_file}.")
        self._show_output = show_output
        self.environment = {**os.environ, **(env or {})}
        self._cwd = None if cwd is None else str(cwd)
        self.options = options
        self._children: list[Child] = []

    def run(self, **options: Any) -> ExecutingRun:
        """Runs the flow, and returns when the run has ended, in whatever way.

        Args:
            options: The flow's parameters, and options of ``run``, as keyword arguments.

        Raises:
            RunError: No run was started.
        """
        return self._to_end("run", options)

    def resume(self, **options: Any) -> ExecutingRun:
        """Resumes a run, and returns when the new one has ended, in whatever way.

        Args:
            options: Options of ``resume``: ``origin_run_id``, ``step_to_rerun``, …

        Raises:
            RunError: No run was started.
        """
        return self._to_end("resume", options)

    async def async_run(self, **options: Any) -> ExecutingRun:
        """Starts a run, and returns when there is one.

        Args:
            options: As those of ``run``.

        Raises:
            RunError: No run was started.
        """
        return await self._start("run", options).began()

    async def async_resume(self, **options: Any) -> ExecutingRun:
        """Resumes a run, and returns when there is a new one.

        Args:
            options: As those of ``resume``.

        Raises:
            RunError: No run was started.
        """
        return await self._start("resume", options).began()

    @property
    def settings(self) -> config.Settings:
        """The settings that hold for the flow.

        Raises:
            ConfigurationError: They can't be read.
        """
        return config.load(self.flow_file.parent, self.environment)

    def find(self, run_id: str) -> RunStore:
        """The records of a run of the flow's file.

        Raises:
            RunError: There is no such run.
        """
        for store in self._stores():
            for flow in store.list_folders(""):
                if store.exists(f"{flow}/runs/{run_id}/run.json"):
                    return RunStore(store, flow, run_id)
        raise RunError(f"the run {run_id} of {self.flow_file} is in no store that is known here.")

    def cleanup(self) -> None:
        """Cancels the runs that have not ended, and returns when nothing of them runs."""
        while self._children:
            self._children.pop().stop()

    def __enter__(self) -> Runner:  # noqa: PYI034  typing has no Self before Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    def _to_end(self, command: str, options: Mapping[str, Any]) -> ExecutingRun:
        started = self._start(command, options)
        try:
            started.show_until_end() if self._show_output else started.wait_until_end()
        except BaseException:  # Ctrl-C most of all: the run was ours
            started.cleanup()
            raise
        _ = started.run
        return started

    def _start(self, command: str, options: Mapping[str, Any]) -> ExecutingRun:
        values = {**self.options, **options}
        line = [sys.executable, str(self.flow_file), *_configs(values), command]
        told = shlex.join([Path(sys.executable).name, self.flow_file.name, command])

        def arguments(run_id_file: str) -> list[str]:
            return [*line, "--call", _json({**values, "run_id_file": run_id_file})]

        try:
            child = Child(arguments, self.environment, self._cwd)
        except OSError as error:
            raise RunError(f"{told} can't be started: {error.strerror}.") from error
        self._children.append(child)
        return ExecutingRun(child, told, lambda run_id: Run(self.find(run_id)))

    def _stores(self) -> Iterator[ObjectStore]:
        settings, folder = self.settings, self.flow_file.parent
        root = Path(self._cwd or ".") / settings.root if settings.root else folder / config.ROOT_NAME
        yield open_store(str(root))
        if settings.bucket:
            yield open_store(f"s3://{settings.bucket}", endpoint=settings.endpoint, region=settings.region)


def _configs(values: dict[str, Any]) -> list[str]:
    """The options of configs as words, taken out of the values."""
    words = []
    for name in _CONFIGS:
        given = values.pop(name, None) or []
        for config_name, value in [given] if isinstance(given, tuple) else given:
            text = value if isinstance(value, str | os.PathLike) else _json(value)
            words += [f"--{name.replace('_', '-')}", str(config_name), str(text)]
    return words


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the options of a run have to be plain values: {error}.") from error


def _plain(value: Any) -> Any:
    """What JSON has no word for, and a command line has."""
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, (set, frozenset, range)):
        return list(value)
    if callable(item := getattr(value, "item", None)):  # a number of numpy
        return item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")
