"""The root, in which runs are kept: the setting ``root`` and the option ``--datastore`` take a folder or ``s3://bucket/prefix``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from k8sflow import started
from k8sflow.errors import ConfigurationError

SCHEME = "s3://"
# Two letters at least: C:/runs is a folder. One slash is enough: s3:/bucket is a typing error, not a folder.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_KINDS_OF_METAFLOW = frozenset({"local", "s3", "azure", "gs"})


def is_bucket(root: str) -> bool:
    """True for the URL of a bucket, False for a folder."""
    return root.startswith(SCHEME)


def bucket_of(root: str) -> str:
    """``name`` or ``name/prefix``, as in the setting ``bucket``, of the URL of a bucket."""
    return root.removeprefix(SCHEME)


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
        raise ConfigurationError(
            f"{source} is {root!r}, which is neither a folder nor a bucket of S3.",
            cause=f"k8sflow has no store for {kind}: URLs." if kind.lower() != "s3" else "It has to begin with s3://.",
            advice="Use the path of a folder, or s3://bucket/prefix; the setting endpoint names a server other than "
            "AWS's.",
        )
    found = root.rstrip("/")
    if not _BUCKET.fullmatch(bucket_of(found).partition("/")[0]) or root == SCHEME:
        raise ConfigurationError(
            f"{source} is {root!r}, which does not name a bucket.", advice="Use s3://bucket or s3://bucket/prefix."
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
    kinds = [value for value in values if value in _KINDS_OF_METAFLOW]
    locations = [value for value in values if value not in _KINDS_OF_METAFLOW]
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
    if kinds and kinds[0] != ("s3" if is_bucket(found or root()) else "local"):
        raise ConfigurationError(
            f"--datastore is {kinds[0]!r}, which is a kind of store, and "
            + (f"its location, {found}, is of another kind." if found else "not its location."),
            cause="In Metaflow, --datastore names the kind, and --datastore-root the location.",
            advice=f"Give the location: --datastore s3://bucket/prefix, or a folder. (./{kinds[0]} is a folder, too.)",
        )
    return found
