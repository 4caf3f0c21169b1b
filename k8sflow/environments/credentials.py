"""The credentials of an index, from where uv takes them: its URL, variables, netrc, or a keyring."""

from __future__ import annotations

import netrc
import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from k8sflow import toml
from k8sflow.environments.resolve import settings_files

_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_SECONDS = 30


def of(address: urllib.parse.SplitResult, folder: Path, named: Sequence[str] = ()) -> tuple[str, str] | None:
    """The user and the password for an address; None where nothing names any.

    Args:
        address: The address of a wheel.
        folder: The folder from which uv looks for its settings.
        named: The addresses of indexes that requirements files name.
    """
    if address.username is not None:
        return _pair(address)
    for name, index in (*(("", urllib.parse.urlsplit(url)) for url in named), *_indexes(folder)):
        if index.hostname != address.hostname or index.port != address.port:
            continue
        variable = f"UV_INDEX_{re.sub('[^A-Z0-9]', '_', name.upper())}"
        user = os.environ.get(f"{variable}_USERNAME") if name else None
        if user is not None or (name and f"{variable}_PASSWORD" in os.environ):
            return user or "", os.environ.get(f"{variable}_PASSWORD", "")
        if index.username is not None and index.password is not None:
            return _pair(index)
        if (found := _from_keyring(index)) is not None:
            return found
    return _from_netrc(address.hostname or "")


def _pair(address: urllib.parse.SplitResult) -> tuple[str, str]:
    return urllib.parse.unquote(address.username or ""), urllib.parse.unquote(address.password or "")


def _indexes(folder: Path) -> Iterator[tuple[str, urllib.parse.SplitResult]]:
    """The names, or "", and the addresses of the indexes that uv's variables and files name."""
    for variable in _VARIABLES:
        for word in os.environ.get(variable, "").replace(",", " ").split():
            name, _, url = word.rpartition("=") if re.match(r"[\w.-]+=", word) else ("", "", word)
            yield name, urllib.parse.urlsplit(url)
    for file in settings_files(folder):
        document: Mapping[str, Any] = toml.loads(file.read_text(encoding="utf-8"))
        if file.name == "pyproject.toml":
            document = document.get("tool", {}).get("uv", {})
        for index in document.get("index", ()):
            yield index.get("name", ""), urllib.parse.urlsplit(index.get("url", ""))
        for table in (document, document.get("pip", {})):
            for key in ("index-url", "extra-index-url", "find-links"):
                found = table.get(key, ())
                for url in [found] if isinstance(found, str) else found:
                    yield "", urllib.parse.urlsplit(url)


def _from_keyring(index: urllib.parse.SplitResult) -> tuple[str, str] | None:
    """The password that the program ``keyring`` has for an index whose URL names the user, as with uv."""
    if os.environ.get("UV_KEYRING_PROVIDER") != "subprocess" or index.username is None:
        return None
    if (program := shutil.which("keyring")) is None:
        return None
    bare = urllib.parse.urlunsplit(index._replace(netloc=index.netloc.rpartition("@")[2]))
    for service in (bare, index.netloc.rpartition("@")[2]):
        command = [program, "get", service, index.username]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode == 0 and done.stdout.strip():
            return index.username, done.stdout.strip()
    return None


def _from_netrc(host: str) -> tuple[str, str] | None:
    try:
        entry = netrc.netrc(os.environ.get("NETRC") or None).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return (entry[0], entry[2] or "") if entry else None
