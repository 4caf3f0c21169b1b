"""``config``: shows the settings of this folder, and writes them."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import click

from k8sflow import config, debug_log, settings_file, urls
from k8sflow.cli import output
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import ConfigurationError
from k8sflow.flow.problems import did_you_mean

_KEYS = tuple(field.name for field in fields(config.Settings))
_SERVERS = ("endpoint", "in_cluster_endpoint", "s3_proxy", "in_cluster_s3_proxy")


@click.group(name="config", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show or write the settings."""
    if context.invoked_subcommand is None:
        _show(as_json=False, asks_cluster=False)


@command.command(name="show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option("--kubernetes", "asks_cluster", is_flag=True, help="Add those of the namespace, as runs in it have them.")
def show(as_json: bool, asks_cluster: bool) -> None:  # noqa: FBT001  click calls by name
    """Print the settings of this folder, and where each comes from."""
    _show(as_json=as_json, asks_cluster=asks_cluster)


@command.command(name="set")
@click.argument("key")
@click.argument("value")
@click.option("--file", type=click.Path(dir_okay=False), help="The file (default: the one for this folder).")
def set_(key: str, value: str, file: str | None) -> None:
    """Write a setting to k8sflow.toml; the rest of the file is not changed."""
    with errors_shown():
        if key not in _KEYS:
            advice = " ".join(filter(None, [did_you_mean(key, _KEYS), f"The settings are {', '.join(_KEYS)}."]))
            raise ConfigurationError(f"there is no setting {key!r}.", advice=advice)
        config.Settings(**{key: value})
        path = Path(file) if file else settings_file.find(Path.cwd()) or Path.cwd() / settings_file.name()
        _write(path, key, value)
        click.echo(f"{path}: {key} = {_shown(key, value)}")
        if override := os.environ.get(config.variable(key)):
            click.echo(f"{config.variable(key)} is set to {_shown(key, override)}, which wins over the file.", err=True)


@command.command(name="import-metaflow")
@click.argument("source", required=False, type=click.Path(dir_okay=False))
@click.option("--file", type=click.Path(dir_okay=False), help="The file to write (default: the one for this folder).")
def import_metaflow(source: str | None, file: str | None) -> None:
    """Write Metaflow's settings, of its file or of SOURCE, to k8sflow.toml."""
    from k8sflow.cli import metaflow_profile  # noqa: PLC0415  the other commands read no such file

    with errors_shown():
        origin = Path(source) if source else metaflow_profile.default_file(os.environ)
        found = metaflow_profile.read(origin)
        config.Settings(**found.settings)
        path = Path(file) if file else settings_file.find(Path.cwd()) or Path.cwd() / settings_file.name()
        for key, value in found.settings.items():
            _write(path, key, value)
            click.echo(f"{path}: {key} = {_shown(key, value)}")
        for key, why in found.left.items():
            click.echo(f"not taken over: {key}: {why}", err=True)
        if not found.settings:
            click.echo(f"{origin} has nothing that k8sflow has a setting for.", err=True)


def _show(*, as_json: bool, asks_cluster: bool) -> None:
    with errors_shown():
        settings = debug_log.configure(config.load_here())
        origins = config.origins(config.working_folder() or Path("/"))
        if asks_cluster:
            from k8sflow.runtime import namespace_settings as shared  # noqa: PLC0415  the other commands ask no cluster

            found = shared.read(settings)
            after = shared.added(settings, found, origins)
            where = f"ConfigMap {shared.NAME} in {settings.kubernetes_namespace}"
            origins |= {key: where for key in found if getattr(after, key) != getattr(settings, key)}
            settings = after
    if as_json:
        output.print_json({key: _shown(key, getattr(settings, key)) for key in _KEYS})
        return
    for key in _KEYS:
        value = getattr(settings, key)
        shown = "" if value is None else f"{_shown(key, value)}  ({origins.get(key, 'default')})"
        click.echo(f"{config.variable(key):36} {shown}".rstrip())


def _shown(key: str, value: str | None) -> str | None:
    """The value of a setting as it may be printed: the URL of a server may have a password."""
    return urls.shown(value) if value is not None and key in _SERVERS else value


def _write(path: Path, key: str, value: str) -> None:
    """Replaces the line of a setting, or adds one; the file is looked at again before it is written."""
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings in {path} can't be read: {error}.") from error
    expected = {**settings_file.parse(before, path, config.KEYS), key: value}
    line = f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
    text, count = re.subn(rf"^[ \t]*[\"']?{key}[\"']?[ \t]*=.*$", lambda _: line, before, count=1, flags=re.MULTILINE)
    if not count:
        text = before + ("" if not before or before.endswith("\n") else "\n") + line + "\n"
    if settings_file.parse(text, path, config.KEYS) != expected:
        raise ConfigurationError(
            f"{key} can't be written to {path} without changing something else.",
            cause="The file is written in a way that this command doesn't know, for example over several lines.",
            advice=f"Write it there yourself: {line}",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        if path.exists():  # it may be readable by its owner alone
            temporary.touch(0o600)
            shutil.copymode(path, temporary)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ConfigurationError(f"the settings can't be written to {path}: {error.strerror}.") from error
