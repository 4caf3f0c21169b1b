"""Files pylock.toml (PEP 751): written, and reduced to what one platform installs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k8sflow import toml
from k8sflow.environments.requirement_files import Hashes
from k8sflow.errors import DependencyError
from k8sflow.flow.decorators.package_names import normalized


def dumped(document: Mapping[str, Any]) -> str:
    """A document as text, with a table for each package.

    Args:
        document: The document.
    """
    lines = [f"{key} = {_value(value)}" for key, value in document.items() if key not in {"packages", "tool"}]
    for package in document.get("packages", ()):
        lines += ["", "[[packages]]", *(f"{key} = {_value(value)}" for key, value in package.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_value(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def verified(what: str, text: str, hashes: Hashes) -> str:
    """A lock with the files alone whose hashes a requirements file has.

    Args:
        what: The environment, as the subject of an error.
        text: The lock.
        hashes: The hashes.

    Raises:
        DependencyError: No file of a package has such a hash.
    """
    if not hashes.allowed and not hashes.is_required:
        return text
    document = toml.loads(text)
    for package in document.get("packages", ()):
        where, allowed = hashes.allowed.get(normalized(package["name"]), ("", frozenset()))
        if allowed:
            _keep(what, package, where, allowed)
        elif hashes.is_required:
            raise DependencyError(
                f"{what} can't be resolved: {package['name']} has no hash, and the file has --require-hashes.",
                advice="Make the file with `uv pip compile --generate-hashes`, or remove --require-hashes.",
            )
    return dumped(document)


def _keep(what: str, package: dict[str, Any], where: str, allowed: frozenset[str]) -> None:
    found = dict(_files(package))
    wheels = [wheel for wheel in package.get("wheels", ()) if _is_allowed(wheel, allowed)]
    kept = {kind: package[kind] for kind in ("sdist", "archive") if _is_allowed(package.get(kind, {}), allowed)}
    if not wheels and not kept:
        listed = ", ".join(f"{name} (sha256:{sha256})" for name, sha256 in found.items())
        raise DependencyError(
            f"{what} can't be resolved: no file of {package['name']} {package.get('version', '')} has a hash that "
            f"{where} has.",
            cause=f"It has {', '.join(sorted(allowed))}. The index has {listed or 'no hash'}.",
            advice="The index may have another file, or the hash is of another version or platform. If the index's is "
            "right, make the file again with `uv pip compile --generate-hashes`. Only sha256 is compared.",
        )
    for kind in ("wheels", "sdist", "archive"):
        package.pop(kind, None)
    package |= {**({"wheels": wheels} if wheels else {}), **kept}


def _files(package: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    files: Sequence[Mapping[str, Any]] = [
        *package.get("wheels", ()),
        *(package[kind] for kind in ("sdist", "archive") if kind in package),
    ]
    for file in files:
        address = str(file.get("url") or file.get("path") or file.get("name"))
        yield address.rpartition("/")[2], str(file.get("hashes", {}).get("sha256", ""))


def _is_allowed(file: Mapping[str, Any], allowed: frozenset[str]) -> bool:
    return f"sha256:{file.get('hashes', {}).get('sha256', '')}" in allowed
