"""Files that users name for parameters and configs: by a path, or by a URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from k8sflow import hooks
from k8sflow.errors import K8sflowError, ParameterError
from k8sflow.flow.problems import reason
from k8sflow.flow.script import beside

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES = ("s3", "https", "http")


def found(flow: type | None, file: str) -> str:
    """The path of a file as ``beside`` finds it; a URL as it is.

    Args:
        flow: The flow's class, where it is known.
        file: The path or the URL.
    """
    return file if _URL.match(file) else str(beside(flow, Path(file).expanduser()))


def content(file: str) -> bytes:
    """The content of a file, or of what a URL names.

    Args:
        file: A path, or a URL: s3://, https:// or http://.

    Raises:
        OSError: The file can't be read.
        K8sflowError: The URL can't be read.
    """
    url = _URL.match(file)
    if url is None:
        return Path(file).read_bytes()
    if url[1].lower() not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ParameterError(f"URLs with {url[1]}:// are not supported.", advice=f"Use a file, or a URL with {known}.")
    return cast("bytes", hooks.call("read_url", file))


def suffix(file: str) -> str:
    """The extension of a file's name, such as ``.yaml``; that of a URL without its query."""
    is_of_web = file.lower().startswith(("http://", "https://"))
    return Path(re.split(r"[?#]", file)[0] if is_of_web else file).suffix


def unreadable(subject: str, error: Exception, advice: str) -> ParameterError:
    """The error of a file that can't be read.

    Args:
        subject: Whose it is, and its name.
        error: The reason.
        advice: The advice if the reason has none.
    """
    if isinstance(error, K8sflowError):
        text = f"{subject} can't be read: {error.summary}"
        return ParameterError(text, cause=error.cause, advice=error.advice or advice)
    return ParameterError(f"{subject} can't be read: {reason(error)}.", advice=advice)
