"""The file with settings, ``k8sflow.toml``: where it is, and what it says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from k8sflow import started
from k8sflow.errors import ConfigurationError

FILE_NAME = "k8sflow.toml"
# Names the files of settings that are read: k8sflow.NAME.toml in place of k8sflow.toml.
PROFILE = "K8SFLOW_PROFILE"


def find(folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file with the settings for a flow in ``folder``, or None if there is none."""
    if explicit := environment.get("K8SFLOW_CONFIG"):
        return Path(started.FOLDER or "/") / explicit
    found = _candidates(folder, environment)
    return next((path for path in found if os.path.isfile(path)), None)  # noqa: PTH113  is_file() raises without access


def name(environment: Mapping[str, str] = os.environ) -> str:
    """The name of the file with the settings in a folder; a profile has one of its own."""
    profile = environment.get(PROFILE)
    return f"k8sflow.{profile}.toml" if profile else FILE_NAME


def _candidates(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    for parent in (folder, *folder.parents):
        yield parent / name(environment)
    of_user = name(environment).replace("k8sflow", "config", 1)
    if folder_of_user := environment.get("XDG_CONFIG_HOME"):
        yield Path(folder_of_user) / "k8sflow" / of_user
    elif home := environment.get("HOME") or environment.get("USERPROFILE"):  # a pod's user may have no home
        yield Path(home) / ".config" / "k8sflow" / of_user


def read(folder: Path, environment: Mapping[str, str], keys: Collection[str]) -> tuple[Path | None, dict[str, str]]:
    """The file with the settings for a flow in ``folder``, and its settings.

    Args:
        folder: Folder to search for the file, before its parents.
        environment: The environment.
        keys: The settings that there are.

    Raises:
        ConfigurationError: The file can't be read, or has an unknown key or a value that is not a text.
    """
    path = find(folder, environment)
    if path is None and (profile := environment.get(PROFILE)):
        raise ConfigurationError(
            f"there are no settings of the profile {profile!r}: no {name(environment)} in {folder} or above it.",
            cause=f"{PROFILE} names this profile.",
            advice=f"Write it, or unset {PROFILE}. One for all folders is ~/.config/k8sflow/config.{profile}.toml.",
        )
    if path is None:
        return None, {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings in {path} can't be read: {error}.") from error
    return path, parse(text, path, keys)


def parse(text: str, path: Path, keys: Collection[str]) -> dict[str, str]:
    """The settings in the text of a file.

    Args:
        text: The file's text.
        path: Where the file is, for the error.
        keys: The settings that there are.

    Raises:
        ConfigurationError: The text is not TOML, or has an unknown key or a value that is not a text.
    """
    from k8sflow import toml  # noqa: PLC0415  only if there is a file

    try:
        document: dict[str, str] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not a TOML file: {error}.") from error
    for key, value in document.items():
        if key not in keys:
            raise ConfigurationError(
                f"{path} has an unknown setting {key!r}.",
                advice=f"The settings are {', '.join(sorted(keys))}.",
            )
        if not isinstance(value, str):
            raise ConfigurationError(f"the setting {key} in {path} is {value!r}; it must be a string.")
    return document
