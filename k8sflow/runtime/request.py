"""The request of a user for a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from k8sflow import started
from k8sflow.config import Settings
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.foreach import MAX_NUM_SPLITS
from k8sflow.flow.script import script_of
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage import package
from k8sflow.storage.local_folder import root_for_runs, roots_with_runs


@dataclass(frozen=True)
class RunRequest:
    """A run to start.

    Args:
        definition: The flow: for a run, after its mutators; for one that resumes another run, as it was declared.
        settings: The settings that hold.
        values: The parameters' values, by attribute.
        decorators: What ``--with`` said.
        tags: Words to find the run by.
        run_id: The run's id; None to make one.
        run_id_file: File for the run's id.
        runner_attribute_file: File for the flow's name, the run's id and its store, as JSON.
        max_workers: How many tasks run at a time; None for the executor's default.
        max_num_splits: How many branches a foreach may open.
        branch: The project's branch that ``--branch`` named.
        production: Whether ``--production`` was given.
        namespace: The tag by which the run's tasks look for runs; None for that of the user.
        is_detached: Whether the controller in the cluster is to see to the run.
        without_cache: Whether no results of earlier runs are taken for steps under ``@cache``.
        is_traced: Whether the times of tasks are recorded, for ``timeline``.
        has_page: Whether the run's page is opened in the browser.
        environment: The value of ``--environment``, one of ``config.ENVIRONMENTS``; None for that of the settings.
        refresh_environments: Whether their packages are resolved again, whatever is locked.
        asked_at: When the user asked, by time.monotonic().
    """

    definition: FlowDefinition
    settings: Settings
    values: Mapping[str, Any] = field(default_factory=dict)
    decorators: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    run_id: str | None = None
    run_id_file: str | None = None
    runner_attribute_file: str | None = None
    max_workers: int | None = None
    max_num_splits: int = MAX_NUM_SPLITS
    branch: str | None = None
    production: bool | None = None
    namespace: str | None = None
    is_detached: bool = False
    is_traced: bool = False
    without_cache: bool = False
    has_page: bool = False
    environment: str | None = None
    refresh_environments: bool = False
    asked_at: float = field(default_factory=time.monotonic)

    @property
    def flow(self) -> type[FlowSpec]:
        """The flow's class."""
        return self.definition.flow

    @property
    def has_environments(self) -> bool:
        """True if steps with @pypi run in environments of their own."""
        return (self.environment or self.settings.default_environment) != "local"


def with_default_decorators(request: RunRequest) -> RunRequest:
    """The request with the decorators of the setting ``default_decospecs``, but for those that it names."""
    named = {spec.partition(":")[0] for spec in request.decorators}
    more = (request.settings.default_decospecs or "").split()
    added = [spec for spec in more if spec.partition(":")[0] not in named]
    return replace(request, decorators=(*request.decorators, *added))


def code_folder(flow: type[FlowSpec]) -> Path:
    """The folder that becomes the code package: the started script's; for ``python -m pkg.flow`` the one with pkg."""
    return script_of(flow).folder


def code_package(flow: type[FlowSpec], settings: Settings) -> package.Package:
    """The code package of a flow, by the rules of the settings.

    Raises:
        PackageError: It can't be built.
    """
    rules = package.Rules()
    suffixes = tuple(found.strip() for found in (settings.package_suffixes or "").split(",") if found.strip())
    rules = replace(rules, suffixes=suffixes)
    if settings.package_file_limit_mb is not None:
        rules = replace(rules, file_limit_bytes=int(float(settings.package_file_limit_mb) * 1e6))
    if settings.package_limit_mb is not None:
        rules = replace(rules, limit_bytes=int(float(settings.package_limit_mb) * 1e6))
    return package.build(code_folder(flow), rules)


def code_file(flow: type[FlowSpec]) -> str:
    """The file that was started, relative to the code folder: ``flow.py``, or ``pkg/flow.py`` for a module."""
    script = script_of(flow)
    return script.file.resolve().relative_to(script.folder).as_posix()


def local_root(flow: type[FlowSpec], settings: Settings) -> str:
    """The folder or the bucket in which a new run on this machine is kept."""
    return root_for_runs(settings, _working_folder(), code_folder(flow))


def local_roots(flow: type[FlowSpec], settings: Settings) -> list[str]:
    """The folders, or the bucket, with the runs of a flow on this machine, the one for new runs first."""
    return roots_with_runs(settings, _working_folder(), code_folder(flow))


def _working_folder() -> Path | None:
    """The folder in which the flow was started, whatever its file has changed since."""
    return None if started.FOLDER is None else Path(started.FOLDER)
