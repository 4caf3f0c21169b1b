"""This machine: versions, and where the settings come from."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path

from k8sflow import config, settings_file
from k8sflow.config import Settings
from k8sflow.runtime.doctor.checklist import ChecklistRow, Section
from k8sflow.version import VERSION

_SECTION = Section("This machine")
_CLIENTS = ("aiohttp", "boto3")


def rows(settings: Settings, folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[ChecklistRow]:
    """The checks of this machine.

    Args:
        settings: The settings that were found.
        folder: Where they were searched.
        environment: The environment.
    """
    clients = ", ".join(f"{name} {metadata.version(name)}" for name in _CLIENTS)
    yield _SECTION.ok("versions", f"k8sflow {VERSION}, Python {platform.python_version()}, {clients}")
    file = settings_file.find(folder, environment)
    names = [config.variable(field.name) for field in fields(Settings)]
    from_environment = [name for name in names if environment.get(name)]
    sources = [str(file)] if file is not None else []
    sources += [", ".join(from_environment)] if from_environment else []
    if sources:
        yield _SECTION.ok("settings", "from " + "; ".join(sources))
    else:
        yield _SECTION.warning(
            "settings", "none were found; the defaults apply.", "`k8sflow config set bucket NAME` writes the first one."
        )
    image, runtime = settings.kubernetes_image, settings.kubernetes_runtime_image
    copied = "" if image in {None, runtime} else f"; the runtime is copied from {runtime}"
    yield _SECTION.ok("image of tasks", f"{image or runtime}{copied}")
