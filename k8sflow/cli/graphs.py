"""``check``, ``show`` and ``graph``: commands about a flow that don't run it."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from k8sflow.cli import output
from k8sflow.cli.show_errors import errors_shown
from k8sflow.errors import FlowDefinitionError, K8sflowError
from k8sflow.flow.compile import checked
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.graph import Graph
from k8sflow.flow.problems import Problem

_FORMATS = ("text", "ascii", "mermaid", "dot", "svg")
_SUFFIXES = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".txt": "text",
    ".md": "text",
}


def commands(definition: FlowDefinition) -> list[click.Command]:
    """The commands about a flow's graph."""

    def check(as_json: bool) -> None:  # noqa: FBT001  click calls by name
        _check(definition, as_json=as_json)

    def show(as_json: bool) -> None:  # noqa: FBT001
        _show(definition, as_json=as_json)

    def graph(format_: str | None, file: str | None, as_json: bool) -> None:  # noqa: FBT001
        _graph(definition, format_, file, as_json=as_json)

    options: list[click.Parameter] = [
        click.Option(
            ["--format", "format_"],
            type=click.Choice(_FORMATS),
            help="text: box-drawing characters; ascii: only | - +; others: for programs. By default from FILE's name.",
        ),
        click.Option(["--output", "-o", "file"], type=click.Path(dir_okay=False), help="Write to this file."),
        output.JSON_OPTION,
    ]
    return [
        click.Command("check", callback=check, params=[output.JSON_OPTION], help="Check the flow's graph."),
        click.Command("show", callback=show, params=[output.JSON_OPTION], help="Show the flow's steps."),
        click.Command("graph", callback=graph, params=options, help="Draw the flow's graph."),
    ]


def _check(definition: FlowDefinition, *, as_json: bool) -> None:
    if not as_json:
        with errors_shown():
            found = checked(definition)
        click.echo(f"{found.name}: {len(found.graph.nodes)} steps, no mistakes.")
        return
    document: dict[str, Any] = {"flow": definition.name, "steps": 0, "mistakes": []}
    try:
        document["steps"] = len(checked(definition).graph.nodes)
    except FlowDefinitionError as error:
        document["mistakes"] = [_mistake(each) for each in error.mistakes] or [_mistake(error)]
    output.print_json(document)
    sys.exit(int(bool(document["mistakes"])))


def _mistake(found: Problem | K8sflowError) -> dict[str, Any]:
    if isinstance(found, Problem):
        return {**asdict(found.location), "message": found.message, "advice": found.advice}
    return {"file": None, "line": None, "message": found.summary, "advice": found.advice}


def _show(definition: FlowDefinition, *, as_json: bool) -> None:
    with errors_shown():
        compiled = checked(definition)
        slow = _imported_by_each_task(compiled) if hasattr(os, "fork") else {}
    if as_json:
        output.print_json(
            {
                **_document(compiled),
                "imported_by_each_task": slow,
                "parameters": [
                    {"name": each.name, "type": each.type_name, "required": each.required, "help": each.help}
                    for each in compiled.parameters.values()
                ],
            }
        )
        return
    for node in compiled.graph.nodes.values():
        click.echo(click.style(node.name, bold=True) + (f"  joins {node.joins}" if node.joins else ""))
        for line in node.doc.splitlines():
            click.echo(f"    {line.strip()}")
        for key, step in node.cases:
            click.echo(f"    -> {step}, where self.{node.condition} is {key}")
        if node.next and not node.cases:
            how = f", for each of self.{node.foreach}" if node.foreach else ""
            how += ", num_parallel times" if node.num_parallel else ""
            click.echo(f"    -> {', '.join(node.next)}{how}")
    for library, why in slow.items():
        click.echo(f"Each task imports {library} by itself: {why}.")


def _imported_by_each_task(definition: FlowDefinition) -> dict[str, str]:
    """The libraries that can't be imported ahead of local tasks, and why."""
    from k8sflow.executors.fork_server.start import imported_by_each_task  # noqa: PLC0415  the other commands need none

    return imported_by_each_task(definition.flow)


def _document(definition: FlowDefinition) -> dict[str, Any]:
    graph = definition.graph
    return {
        "flow": definition.name,
        "doc": definition.flow.__doc__ or "",
        "start": graph.start,
        "end": graph.end,
        "steps": graph.to_document(),
    }


def _graph(definition: FlowDefinition, format_: str | None, file: str | None, *, as_json: bool) -> None:
    with errors_shown():
        compiled = checked(definition)
        graph = compiled.graph
        if as_json:
            output.print_json(_document(compiled))
            return
        kind = format_ or ("text" if file is None else _format_of(Path(file)))
        if file is None:
            click.echo(_drawn(graph, kind, to_terminal=True), nl=False)
            return
        try:
            Path(file).write_text(_drawn(graph, kind, to_terminal=False), encoding="utf-8")
        except OSError as error:
            raise K8sflowError(f"the graph can't be written to {file}: {error.strerror}.") from error
        click.echo(f"{file}: the graph of {definition.name} as {kind}.")


def _format_of(file: Path) -> str:
    """The format for a file's extension.

    Raises:
        K8sflowError: There is none.
    """
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        known = ", ".join(filter(None, _SUFFIXES))
        raise K8sflowError(
            f"{file} has no extension of a format in which a graph can be drawn.",
            cause=f"Known are {known}.",
            advice="Use one of these, or add --format svg. Programs such as dot convert a .dot to other formats.",
        )
    return _SUFFIXES[suffix]


def _drawn(graph: Graph, kind: str, *, to_terminal: bool) -> str:
    from k8sflow.drawing import markup, svg, text  # noqa: PLC0415  the other commands draw nothing

    match kind:
        case "mermaid":
            return markup.mermaid(graph)
        case "dot":
            return markup.dot(graph)
        case "svg":
            return svg.draw(graph)
    ascii_only = kind == "ascii" or (to_terminal and not _can_show("│↺"))
    if to_terminal:
        return text.draw(graph, ascii_only=ascii_only, emphasized=lambda name: click.style(name, bold=True)) + "\n"
    return text.draw(graph, ascii_only=ascii_only) + "\n"


def _can_show(characters: str) -> bool:
    """True if the standard output can take characters."""
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
