"""The root, in which runs are kept.

The setting ``root`` and the option ``--datastore`` take a folder, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or
``az://container/prefix``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k8sflow import started
from k8sflow.errors import ConfigurationError

_S3 = "s3://"
_GOOGLE = "gs://"
_AZURE = "az://"
SERVER_OF_GOOGLE = "https://storage.googleapis.com"
# Requests to it need no credentials.
EMULATOR_OF_GOOGLE = "STORAGE_EMULATOR_HOST"
# Two letters at least: C:/runs is a folder. One slash is enough: s3:/bucket is a typing error, not a folder.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_KINDS_OF_METAFLOW = frozenset({"local", "s3", "azure", "gs"})


def is_bucket(root: str) -> bool:
    """True for the URL of a bucket, False for a folder."""
    return root.startswith((_S3, _GOOGLE, _AZURE))


def url_of(bucket: str) -> str:
    """The URL of a bucket as the setting ``bucket`` names it: ``name``, ``name/prefix``, or a URL."""
    return bucket if is_bucket(bucket) else f"{_S3}{bucket}"


def endpoint_of_google(environment: Mapping[str, str]) -> str:
    """The address of Google Cloud Storage, or that of an emulator, as Google's libraries find it."""
    found = environment.get(EMULATOR_OF_GOOGLE, "").rstrip("/")
    return (found if "://" in found else f"http://{found}") if found else SERVER_OF_GOOGLE


def bucket_of(root: str) -> str:
    """The setting ``bucket`` for the URL of a bucket: ``name`` or ``name/prefix`` of one of S3, or the URL itself."""
    return root.removeprefix(_S3)


def checked(root: str, source: str) -> str:
    """The root, which is a folder or a bucket; without the slashes at the end of a bucket's prefix.

    Args:
        root: The path of a folder, or a URL.
        source: Where it was given, for the error: ``the setting root (K8SFLOW_ROOT)``.

    Raises:
        ConfigurationError: It is a URL of another kind, or without the name of a bucket.
    """
    if not _URL.match(root):
        return root
    if not is_bucket(root):
        kind = root.partition(":")[0]
        is_known = kind.lower() in {"s3", "gs", "az"}
        raise ConfigurationError(
            f"{source} is {root!r}, which is neither a folder nor a bucket of S3, Google or Azure.",
            cause=f"It has to begin with {kind.lower()}://." if is_known else f"k8sflow has no store for {kind}: URLs.",
            advice="Use the path of a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; the "
            "setting endpoint names a server of S3 other than AWS's.",
        )
    found = root.rstrip("/")
    if not _BUCKET.fullmatch(found.partition("://")[2].partition("/")[0]) or root in {_S3, _GOOGLE, _AZURE}:
        raise ConfigurationError(
            f"{source} is {root!r}, which does not name a bucket.",
            advice="Use s3://bucket or s3://bucket/prefix, or the same with gs:// or az://.",
        )
    if {".", ".."} & set(found.split("/")):
        raise ConfigurationError(
            f"{source} is {root!r}, which has a part '.' or '..'.",
            cause="In a bucket, these are names and not ways, and many servers refuse them.",
            advice="Write the prefix without them.",
        )
    return found


def absolute(root: str, folder: Path | str | None, source: str) -> str:
    """The root as a URL or an absolute path, so that it survives a change of the working folder.

    Args:
        root: The path of a folder, or a URL.
        folder: Where a relative path starts; None if the working folder was deleted.
        source: Where it was given, for the error.

    Raises:
        ConfigurationError: As ``checked``, or a relative path starts nowhere.
    """
    if _URL.match(root):
        return checked(root, source)
    path = Path(os.path.expanduser(root))  # noqa: PTH111  Path.expanduser() raises for a user that doesn't exist
    if path.is_absolute():
        return str(path)
    if folder is None:
        raise ConfigurationError(
            f"{source} is {root!r}, but the working folder no longer exists.",
            advice="Go to a folder that exists, or give an absolute path.",
        )
    return str(folder / path)


def kind_of(root: str) -> str:
    """Metaflow's name of a kind of store."""
    scheme = root.partition(":")[0] if is_bucket(root) else "local"
    return "azure" if scheme == "az" else scheme


def is_kind(value: str) -> bool:
    """True for a kind of store, as Metaflow's ``--datastore`` takes it, which names no location."""
    return value in _KINDS_OF_METAFLOW


def datastore(values: Sequence[str], root: Callable[[], str], working: Path | str | None = None) -> str | None:
    """The root that ``--datastore`` or ``K8SFLOW_DATASTORE`` names.

    Args:
        values: What was given: a location, or as in Metaflow a kind of store, with its location or without.
        root: Returns the root that the settings have.
        working: Where a relative path starts; None for the folder in which this process was started.

    Returns:
        The root; None for that of the settings.

    Raises:
        ConfigurationError: It is neither a folder nor a bucket, a store of another kind, or only a kind of store.
    """
    kinds = [value for value in values if is_kind(value)]
    locations = [value for value in values if not is_kind(value)]
    if len(kinds) > 1 or len(locations) > 1:
        given = " and ".join(map(repr, kinds if len(kinds) > 1 else locations))
        raise ConfigurationError(
            f"--datastore is given more than once, as {given}.",
            advice="Give one location: --datastore s3://bucket/prefix, or a folder.",
        )
    if locations and not locations[0].strip():
        raise ConfigurationError(
            "--datastore is empty.", advice="Give a folder or s3://bucket/prefix, or leave the option out."
        )
    found = absolute(locations[0], working or started.FOLDER, "--datastore (K8SFLOW_DATASTORE)") if locations else None
    if kinds and kinds[0] != kind_of(found or root()):
        raise ConfigurationError(
            f"--datastore is {kinds[0]!r}, which is a kind of store, and "
            + (f"its location, {found}, is of another kind." if found else "not its location."),
            cause="In Metaflow, --datastore names the kind, and --datastore-root the location.",
            advice=f"Give the location: --datastore s3://bucket/prefix, or a folder. (./{kinds[0]} is a folder, too.)",
        )
    return found
