"""What a person asks for with ``run``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k8sflow.config import ROOT_NAME, Settings
from k8sflow.flow.spec import FlowSpec


@dataclass(frozen=True)
class RunRequest:
    """A run to start.

    Args:
        flow: The flow's class.
        settings: The settings that hold.
        values: The parameters' values, by attribute.
        decorators: What ``--with`` said.
        tags: Words to find the run by.
        run_id: The run's id; None to make one.
        run_id_file: File for the run's id.
        max_workers: How many tasks run at a time; None for the executor's default.
        branch: The project's branch that ``--branch`` named.
        production: Whether ``--production`` was given.
        namespace: The tag by which the run's tasks look for runs; None for that of the user.
        began: When the user asked, by time.monotonic().
    """

    flow: type[FlowSpec]
    settings: Settings
    values: Mapping[str, Any] = field(default_factory=dict)
    decorators: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    run_id: str | None = None
    run_id_file: str | None = None
    max_workers: int | None = None
    branch: str | None = None
    production: bool | None = None
    namespace: str | None = None
    began: float = field(default_factory=time.monotonic)


def flow_file(flow: type[FlowSpec]) -> Path:
    """The file with the flow's class."""
    return Path(sys.modules[flow.__module__].__file__ or ".").resolve()


def local_root(flow: type[FlowSpec], settings: Settings) -> Path:
    """The folder with the state of runs on this machine."""
    return Path(settings.root) if settings.root else flow_file(flow).parent / ROOT_NAME
