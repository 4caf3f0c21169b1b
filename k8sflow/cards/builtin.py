"""The types of cards that k8sflow has."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from k8sflow import units
from k8sflow.cards.base import MetaflowCard
from k8sflow.cards.markup import Html, data_url, tag
from k8sflow.cards.page import document
from k8sflow.cards.rendering import body_of
from k8sflow.cards.tables import facts
from k8sflow.cards.texts import pretty, shortened
from k8sflow.drawing.svg import draw
from k8sflow.errors import K8sflowError

if TYPE_CHECKING:
    from k8sflow.client import DataArtifact, Run, Task

_MOST_ARTIFACTS = 200
_LARGEST_LOOK = 5_000_000
_LOOKS = 20_000_000
_LOG_LINES = 40


class DefaultCard(MetaflowCard):
    """The card without a type: the components, or without any the facts of the task."""

    type = "default"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True

    def render(self, task: Task) -> str:
        """The whole page, as HTML."""
        title = str(self.options.get("title") or f"{task.parent.id} / {task.id}")
        parts = body_of(self.components) if self.components else _about(task)
        return document(title, *_failure(task), *parts, header=_header(task))

    def render_runtime(self, task: Task, data: Any) -> str:  # noqa: ARG002  the base's signature
        """The page while the task runs."""
        return self.render(task)


class BlankCard(MetaflowCard):
    """A card with the components alone; the option ``title`` adds a heading."""

    type = "blank"
    ALLOW_USER_COMPONENTS = True
    RUNTIME_UPDATABLE = True

    def render(self, task: Task) -> str:  # noqa: ARG002  the base's signature
        """The whole page, as HTML."""
        title = self.options.get("title")
        return document(str(title or "Card"), *body_of(self.components), bare=not title)

    def render_runtime(self, task: Task, data: Any) -> str:  # noqa: ARG002  as above
        """The page while the task runs."""
        return self.render(task)


class HtmlCard(MetaflowCard):
    """A card that is the HTML in an artifact: that of the option ``attribute``, or ``html``."""

    type = "html"

    def render(self, task: Task) -> str:
        """The whole page, as HTML."""
        return str(task[str(self.options.get("attribute", "html"))].data)


class ErrorCard(MetaflowCard):
    """The card in place of one that can't be made; ``options`` has the ``title`` and the ``text``."""

    type = "error"

    def render(self, task: Task) -> str:
        """The whole page, as HTML."""
        return error_page(task.pathspec, str(self.options.get("title", "Error")), str(self.options.get("text", "")))


def error_page(pathspec: str, title: str, text: str) -> str:
    """The page in place of a card that can't be made.

    Args:
        pathspec: The task.
        title: What happened.
        text: The evidence.
    """
    body = tag("div", tag("pre", shortened(text)) if text else None, class_="failure")
    return document(title, body, header=tag("div", pathspec, class_="path"))


def _header(task: Task) -> Html:
    state, kind = _state(task)
    return tag("div", tag("span", state, class_=f"pill {kind}"), " ", task.pathspec, class_="path")


def _state(task: Task) -> tuple[str, str]:
    if task.finished:
        return ("succeeded", "good") if task.successful else ("failed, caught", "warn")
    return ("failed", "bad") if task.has_ended else ("running", "warn")


def _failure(task: Task) -> Iterator[Html]:
    if failure := task.failure:
        yield tag(
            "div",
            tag("div", failure.partition("\n")[0], class_="title"),
            tag("pre", shortened(failure)),
            class_="failure",
        )


def _about(task: Task) -> Iterator[Html]:
    run = task.parent.parent
    yield facts(_facts(task, run))
    yield from _section("Parameters", _parameters(task, run))
    yield from _section("Graph", _graph(run, task.parent.id))
    yield from _section("Artifacts", _artifacts(task, run))
    yield from _section("Output", _output(task))


def _section(title: str, content: Html | None) -> Iterator[Html]:
    if content:
        yield tag("h2", title)
        yield content


def _facts(task: Task, run: Run) -> Iterable[tuple[str, object]]:
    started, finished, usage = task.created_at, task.finished_at, task.usage
    yield "attempt", task.current_attempt or None
    yield "started", _moment(started)
    if started is not None and finished is not None:
        yield "duration", units.duration(max((finished - started).total_seconds(), 0.0))
    yield "user", run.user_name
    yield "tags", ", ".join(sorted(run.user_tags))
    yield "runs on", {"dev": "this machine"}.get(task.runtime_name, task.runtime_name)
    yield "requested", _requested(task, run)
    if usage is not None:
        memory = None if usage.memory_bytes is None else f"{units.size(usage.memory_bytes)} of memory at most"
        cpu = None if usage.cpu_seconds is None else f"{units.duration(usage.cpu_seconds)} on CPUs"
        yield "used", ", ".join(filter(None, [memory, cpu]))
    yield "clone of", task.origin_pathspec
    yield "Python", run.record.python_version
    yield "made", _moment(datetime.now().astimezone())


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _requested(task: Task, run: Run) -> str:
    """The resources that the step requested: of @kubernetes or @batch, else of @resources."""
    step, record = task.parent.id, run.record
    options = record.pods.get(step) or record.batch.get(step)
    found = options.to_document() if options is not None else record.resources.get(step, {})
    names = ("cpu", "memory", "gpu", "disk", "shared_memory", "image")
    return ", ".join(f"{name.replace('_', ' ')} {found[name]}" for name in names if found.get(name))


def _parameters(task: Task, run: Run) -> Html:
    return facts((name, _look(task[name], [_LOOKS])) for name in run.record.parameters)


def _graph(run: Run, step: str) -> Html | None:
    picture = draw(run.graph, current=step)
    url = data_url(picture.encode("utf-8", "replace"), "image/svg+xml")
    return tag("figure", tag("img", src=url, alt=f"The graph of the flow, with the step {step}"), class_="graph")


def _artifacts(task: Task, run: Run) -> Html | None:
    found = sorted((each for each in task if each.id not in run.record.parameters), key=lambda each: each.id)
    room = [_LOOKS]
    rows = [
        tag("tr", tag("td", tag("code", each.id)), tag("td", each.type.removeprefix("builtins.")),
            tag("td", units.size(each.size), class_="number"), tag("td", _look(each, room)))
        for each in islice(found, _MOST_ARTIFACTS)
    ]  # fmt: skip
    if not rows:
        return None
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in ("name", "type", "size", "value"))))
    note = f"{len(rows)} of {len(found):,} artifacts" if len(found) > len(rows) else None
    table = tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll", tabindex="0")
    return tag("div", table, tag("p", note, class_="muted") if note else None)


def _look(artifact: DataArtifact, room: list[int]) -> Html:
    """The beginning of a small value; nothing of a large one, which isn't loaded.

    Args:
        artifact: The artifact.
        room: The bytes that may still be loaded for this card.
    """
    if artifact.size > min(_LARGEST_LOOK, room[0]):
        return tag("span", "not shown: it is large", class_="muted")
    room[0] -= artifact.size
    try:
        value = artifact.data
    except K8sflowError as error:
        return tag("span", error.summary, class_="muted")
    return tag("code", shortened(pretty(value), 300))


def _output(task: Task) -> Html | None:
    lines = deque((line.text for line in task.lines()), maxlen=_LOG_LINES)
    return tag("pre", "\n".join(lines)) if lines else None
