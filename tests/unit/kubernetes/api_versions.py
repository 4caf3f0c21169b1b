"""The fields that Kubernetes 1.30 to 1.36 have for a Job and a ConfigMap, from their recorded OpenAPI documents.

python -m tests.unit.kubernetes.api_versions    records them again from the Go module k8s.io/kubernetes
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VERSIONS = [f"1.{minor}" for minor in range(30, 37)]
_FILE = Path(__file__).with_name("api_fields.json")
_ROOTS = {
    "apis__batch__v1_openapi.json": "io.k8s.api.batch.v1.Job",
    "api__v1_openapi.json": "io.k8s.api.core.v1.ConfigMap",
}

# Type → its fields → the type of each; empty for what has no fields that are known in advance.
Fields = Mapping[str, Mapping[str, str]]


def unknown_fields(manifest: Mapping[str, Any], version: str) -> list[str]:
    """The paths of the fields of a Job or ConfigMap that a version doesn't have."""
    return list(_unknown(manifest, str(manifest["kind"]), fields_of(version), str(manifest["kind"])))


def _unknown(value: Any, kind: str, known: Fields, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, kind, known, f"{path}[{index}]")
    elif isinstance(value, Mapping) and kind in known:
        for name, inner in value.items():
            if name not in known[kind]:
                yield f"{path}.{name}"
            else:
                yield from _unknown(inner, known[kind][name], known, f"{path}.{name}")


@functools.cache
def fields_of(version: str) -> Fields:
    """The fields that a version has."""
    fields: dict[str, dict[str, str]] = {}
    for found, change in json.loads(_FILE.read_text()).items():
        for kind, names in change["added"].items():
            fields.setdefault(kind, {}).update(names)
        for kind, names in change["removed"].items():
            for name in names:
                del fields[kind][name]
        if found == version:
            return fields
    raise KeyError(version)


def record() -> None:
    """Writes the file: the fields of the oldest version, and the changes of the others."""
    before: dict[str, dict[str, str]] = {}
    changes = {}
    for version in VERSIONS:
        now = _read(version)
        changes[version] = {
            "added": _difference(now, before),
            "removed": {kind: list(names) for kind, names in _difference(before, now).items()},
        }
        before = now
    lines = [f"{json.dumps(version)}: {json.dumps(change, sort_keys=True)}" for version, change in changes.items()]
    _FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _difference(these: Fields, those: Fields) -> dict[str, dict[str, str]]:
    found = {
        kind: {name: type_ for name, type_ in names.items() if name not in those.get(kind, {})}
        for kind, names in these.items()
    }
    return {kind: names for kind, names in found.items() if names}


def _read(version: str) -> dict[str, dict[str, str]]:
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{version}.0"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "GOFLAGS": "-modcacherw"})
    folder = Path(json.loads(done.stdout)["Dir"], "api/openapi-spec/v3")
    fields: dict[str, dict[str, str]] = {}
    for file, root in _ROOTS.items():
        schemas = json.loads((folder / file).read_text())["components"]["schemas"]
        waiting = [root]
        while waiting:
            schema = waiting.pop()
            properties = schemas[schema].get("properties", {})
            if not properties or (kind := _short(schema)) in fields:
                continue
            types = {name: _type(found) for name, found in properties.items()}
            waiting += [type_ for type_ in types.values() if type_]
            fields[kind] = {
                name: _short(type_) if type_ and schemas[type_].get("properties") else ""
                for name, type_ in types.items()
            }
    return fields


def _short(schema: str) -> str:
    return schema.rpartition(".")[2]


def _type(schema: Mapping[str, Any]) -> str:
    """The type to which a field's schema refers, also as that of a list's items."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    inner = [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return next(filter(None, map(_type, [*inner, *schema.get("allOf", [])])), "")


if __name__ == "__main__":
    record()
