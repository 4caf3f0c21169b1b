"""The options that start a run: those of ``run``, and those of ``resume``, which starts one too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from k8sflow import config, debug_log
from k8sflow.cli import before_command
from k8sflow.cli.tags import checked_tags
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.foreach import MAX_NUM_SPLITS
from k8sflow.runtime.request import RunRequest, code_folder

# Where the options of a project are kept until the command runs.
PROJECT = "k8sflow.project"


def options() -> list[click.Parameter]:
    """The options; ``request`` takes their values."""
    return [
        click.Option(
            ["--with", "decorators"],
            multiple=True,
            metavar="DECORATOR",
            help="Put a decorator on every step: kubernetes, kubernetes:image=…,namespace=…,memory=8000.",
        ),
        click.Option(
            ["--max-workers"],
            type=click.IntRange(min=1),
            help="The number of tasks that run at a time (default: the number of cores; on Kubernetes 100).",
        ),
        click.Option(
            ["--max-num-splits"],
            type=click.IntRange(min=1),
            default=MAX_NUM_SPLITS,
            show_default=True,
            help="The number of branches that a foreach may open; a step with a wider one fails.",
        ),
        click.Option(["--tag", "tags"], multiple=True, callback=checked_tags, help="Tag the run (repeatable)."),
        click.Option(["--namespace"], help="The tag by which the run's tasks look for runs (default: user:NAME)."),
        click.Option(
            ["--trace", "is_traced"],
            is_flag=True,
            envvar="K8SFLOW_TRACE",
            help="Record when each task was submitted, started and committed, for the command timeline.",
        ),
        _page(),
        *_not_reused(),
        *_identity(),
        click.Option(
            ["--max-log-size"],
            type=click.IntRange(min=1),
            help="How many megabytes of each output stream of a task are stored (setting log_limit_mb).",
        ),
        click.Option(
            ["--detach", "is_detached"],
            is_flag=True,
            help="Detach: let the controller in the cluster drive the run, and return. Needs --with kubernetes.",
        ),
    ]


def _page() -> click.Option:
    return click.Option(
        ["--ui", "has_page"],
        is_flag=True,
        help="Open the run's page in the browser, and serve it until a minute after the end. Needs k8sflow[ui].",
    )


def _not_reused() -> list[click.Parameter]:
    """The options to do again what earlier runs did."""
    return [
        click.Option(
            ["--no-cache", "without_cache"],
            is_flag=True,
            help="Take no results of earlier runs for steps under @cache; those of this run replace them.",
        ),
        click.Option(
            ["--refresh-environments"],
            is_flag=True,
            help="Resolve the packages of @pypi again, and replace their locks.",
        ),
    ]


def _identity() -> list[click.Parameter]:
    """The options for the new run's id, and the files that pass it on."""
    return [
        click.Option(["--run-id"], help="The new run's id (default: derived from the time)."),
        click.Option(["--run-id-file"], type=click.Path(dir_okay=False), help="Write the new run's id to this file."),
        click.Option(
            ["--runner-attribute-file"],
            type=click.Path(dir_okay=False),
            help="Write flow_name, run_id and metadata (the store) of the new run to this file, as JSON.",
        ),
    ]


def request(definition: FlowDefinition, values: Mapping[str, Any]) -> RunRequest:
    """The request for a run.

    Args:
        definition: The flow.
        values: The values of ``options`` and of the flow's parameters, by the names that click gives them.

    Raises:
        ConfigurationError: The settings can't be read.
    """
    given = {key.removeprefix("parameter_"): value for key, value in values.items() if key.startswith("parameter_")}
    others = {key: value for key, value in values.items() if not key.startswith("parameter_")}
    others = before_command.added_to(others)
    project = click.get_current_context().meta.get(PROJECT, {})
    settings = debug_log.configure(config.load(code_folder(definition.flow)))
    if (megabytes := others.pop("max_log_size", None)) is not None:
        settings = replace(settings, log_limit_mb=str(megabytes))
    return RunRequest(definition=definition, settings=settings, values=given, **others, **project)


def refuse_page(request: RunRequest) -> None:
    """Refuses ``--ui`` beside ``--dry-run``.

    Raises:
        UsageError: Both were given.
    """
    if request.has_page:
        raise click.UsageError("--dry-run starts no run that --ui could show.")
