"""``@secrets``: sets environment variables from secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from k8sflow import config
from k8sflow.articles import described
from k8sflow.errors import ConfigurationError
from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator
from k8sflow.flow.decorators.environment import setting, variables
from k8sflow.flow.problems import did_you_mean

SECRET_STORES = "k8sflow.secrets"  # noqa: S105  a group of entry points
DEFAULT_STORE = ""
_OURS = ("inline", "file", "environment")
_AWS = "aws-secrets-manager"
_CLOUDS = (_AWS, "gcp-secret-manager")
_SOURCE_KEYS = ("type", "id", "options", "role")
_UNUSED_KEYS = {"inline": ("role",), "file": ("options", "role"), "environment": ("options", "role")}


class SecretStore(Protocol):
    """A store of secrets, which an installed package offers by an entry point of the group ``k8sflow.secrets``."""

    def get(self, secret_id: str, options: Mapping[str, Any], role: str | None) -> Mapping[str, str]:
        """The variables of a secret."""


@dataclass(frozen=True)
class SecretSource:
    """One source of ``@secrets``. Its text never shows a value.

    Args:
        kind: inline, file, environment, or the name of a store; empty for the default store of the settings.
        id: The file, or the secret's id in its store.
        options: What else was written; for inline the variables themselves.
        role: The role under which the store is asked, instead of that of the decorator.
    """

    kind: str
    id: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    role: str | None = None


def _sources(value: object) -> tuple[SecretSource, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence) or not value:
        raise ValueError("it is not a list of sources")
    return tuple(map(_source, value))


def _source(value: object) -> SecretSource:
    """A source as it is written: a text ``kind:id`` (a file's name, or only an id), or a dictionary."""
    if isinstance(value, SecretSource):
        return value
    if isinstance(value, str) and value.strip():
        return _source_of_text(value.strip())
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{described(value)} is not a source of secrets")
    if "type" not in value:
        return SecretSource("inline", options=variables(value))
    if unknown := [key for key in value if key not in _SOURCE_KEYS]:
        raise ValueError(f"a source has no key {unknown[0]!r}: it has {', '.join(_SOURCE_KEYS)}")
    kind, options = str(value["type"]), dict(value.get("options") or {})
    unused = [key for key in _UNUSED_KEYS.get(kind, ()) if value.get(key)]
    if unused:
        raise ValueError(f"a source of type {kind!r} takes no {unused[0]}")
    if kind == "inline":
        return SecretSource("inline", options=variables(options.get("env_vars", options)))
    return SecretSource(kind, str(value.get("id", "")), options, value.get("role"))


def _source_of_text(text: str) -> SecretSource:
    kind, separator, name = text.partition(":")
    if not separator and text.endswith((".env", ".json", ".toml")):
        return SecretSource("file", text)
    if not separator:
        kind, _, name = text.partition(".")
    return SecretSource(kind, name) if name or kind in _OURS[1:] else SecretSource(DEFAULT_STORE, text)


def read_secrets(source: SecretSource, role: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a source.

    Raises:
        ConfigurationError: They can't be read; the message contains no value.
    """
    match source.kind:
        case "":
            return read_secrets(_in_default_store(source), role, environment)
        case "inline":
            return dict(source.options)
        case "file":
            return _read_file(Path(source.id))
        case "environment":
            names = [name.strip() for name in source.id.split(",") if name.strip()]
            if missing := [name for name in names if name not in environment]:
                raise ConfigurationError(
                    f"@secrets: the environment has no {', '.join(missing)}.",
                    advice="Set it where the step runs; in a pod or a job, by @kubernetes, @batch or the image.",
                )
            return {name: environment[name] for name in names}
        case _ if source.kind in _CLOUDS:
            return _checked(source, _in_cloud(source, source.role or role, environment))
        case _:
            return _read_store(source, role)


def _in_cloud(source: SecretSource, role: str | None, environment: Mapping[str, str]) -> Mapping[str, Any]:
    if source.kind == _AWS:
        from k8sflow.flow.decorators import aws_secrets  # noqa: PLC0415  only for such secrets

        return aws_secrets.get(source.id, source.options, role)
    from k8sflow.flow.decorators import google_secrets  # noqa: PLC0415  as above

    return google_secrets.get(source.id, source.options, role, environment)


def _checked(source: SecretSource, fields: Mapping[str, Any]) -> dict[str, str]:
    try:
        return variables(fields)
    except ValueError as error:  # which contains no value
        raise ConfigurationError(
            f"@secrets: the fields of the secret {source.id!r} are not all variables: {error}.",
            advice="Store names and texts, or read the text as a whole into one variable: the option json=False.",
        ) from None


def _read_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"@secrets: {path} can't be read where the step runs: {type(error).__name__}.",
            advice="In a pod, mount it there: the flow's folder is copied to the bucket, where secrets don't belong.",
        ) from None
    try:
        if path.suffix == ".json":
            return variables(json.loads(text))
        if path.suffix == ".toml":
            return variables(_toml(text))
        return variables(_env_lines(text))
    except ValueError:
        # The parser's message may quote the line, and with it a secret.
        raise ConfigurationError(
            f"@secrets: {path} does not hold variables.",
            advice="Write NAME=value lines, or one flat JSON or TOML table.",
        ) from None


def _toml(text: str) -> dict[str, Any]:
    from k8sflow import toml  # noqa: PLC0415  only if there is a file

    found: dict[str, Any] = toml.loads(text)
    return found


def _env_lines(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        stripped = line.strip().removeprefix("export ")
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            raise ValueError("a line without =")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name.strip()] = value
    return found


def _in_default_store(source: SecretSource) -> SecretSource:
    """The secret of a bare id, in the store that the settings name.

    Raises:
        ConfigurationError: They name none.
    """
    kind = config.load_here().default_secrets_backend_type
    if kind is None:
        raise ConfigurationError(
            "@secrets: a source is an id without a store, and no default store is set.",  # it may be a pasted secret
            cause="The setting default_secrets_backend_type is not set where the step runs.",
            advice="Write STORE:ID, file:NAME.env or environment:NAME, or set "
            f"{config.variable('default_secrets_backend_type')}=STORE.",
        )
    return replace(source, kind=kind)


def _read_store(source: SecretSource, role: str | None) -> dict[str, str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  reads the metadata of all that is installed

    points = {point.name: point for point in entry_points(group=SECRET_STORES)}
    if source.kind not in points:
        raise ConfigurationError(
            f"@secrets: there is no store {source.kind!r} for the secret {source.id!r}.",
            advice=f"{did_you_mean(source.kind, [*_OURS, *_CLOUDS, *points])} An installed package adds one by an "
            f"entry point of the group {SECRET_STORES}.".strip(),
        )
    try:
        store: SecretStore = points[source.kind].load()
        return variables(store.get(source.id, source.options, source.role or role))
    except Exception as error:  # noqa: BLE001  the store's code may raise anything, and the message may contain a secret
        raise ConfigurationError(
            f"@secrets: the store {source.kind} did not give {source.id!r}: {type(error).__name__}."
        ) from None


def _around(_step_name: str, _flow: Any, _inputs: Any, attributes: Mapping[str, Any]) -> Generator[None, None, None]:
    found: dict[str, str] = {}
    inherited: set[str] = set()
    for source in attributes["sources"]:
        values = read_secrets(source, attributes["role"], os.environ)
        inherited |= values.keys() if source.kind == "environment" else set()
        if twice := sorted(found.keys() & values.keys()):
            raise ConfigurationError(f"@secrets: {', '.join(twice)} comes from more than one source.")
        found |= values
    taken = sorted((found.keys() & os.environ.keys()) - inherited)
    if taken and not attributes["allow_override"]:
        raise ConfigurationError(
            f"@secrets: {', '.join(taken)} is set in the environment already.",
            advice="Leave it out there, or write @secrets(..., allow_override=True).",
        )
    with setting(found):
        yield


def _check(options: Mapping[str, Any]) -> None:
    if not options["sources"]:
        raise ValueError('it needs sources: write for example @secrets(sources=["file:/run/secrets/db.env"])')


def _has_no_value(options: Mapping[str, Any]) -> bool:
    return not any(isinstance(source, dict) for source in options.get("sources") or ())


def _role(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")  # noqa: TRY004  one kind of refusal for the caller
    return value


@decorator(
    "sets environment variables from secrets, which are neither stored nor shown",
    check=_check,
    around=_around,
    outermost=True,
    is_secret=True,
    only_names=_has_no_value,
    repeats=True,
)
def secrets(
    *,
    sources: Annotated[
        Any, Option(_sources, "the list of where the variables come from: inline, file, environment or a store")
    ] = None,
    role: Annotated[str | None, Option(_role, "the role under which a store is asked")] = None,
    allow_override: Annotated[
        bool | str, Option(parsers.flag, "whether variables that are set already are replaced")
    ] = False,
) -> None: ...
