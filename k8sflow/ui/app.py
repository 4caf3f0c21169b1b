"""The addresses of the server, and what each of them returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from k8sflow.cards.server import LISTEN
from k8sflow.cards.stored import Card, get_cards
from k8sflow.client import Task
from k8sflow.client.logs import STREAMS
from k8sflow.drawing import svg
from k8sflow.errors import ArtifactError, K8sflowError, NotFoundError, TagError
from k8sflow.ui import comparison, run_view, task_view, values
from k8sflow.ui.guard import CARD_POLICY
from k8sflow.ui.library import STATUSES, Filter, Library, wanted
from k8sflow.ui.logs import LogFile
from k8sflow.ui.names import checked
from k8sflow.ui.pages import STATIC, page
from k8sflow.ui.progress import RunReader
from k8sflow.ui.tags import TagEditor

_ROWS_OF_PAGE = 100
# The status and the title of the page about an error.
_REFUSALS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFoundError, 404, "Not found"),
    (TagError, 400, "The tags were not changed"),
    (K8sflowError, 502, "It can't be shown"),
)
_MOST_FOUND_BYTES = 200


@dataclass(frozen=True)
class Ui:
    """The pages about the runs in a library.

    Args:
        library: The runs.
        may_unpickle: Whether artifacts may be loaded, which runs the code of their classes.
        may_edit_tags: Whether the tags of runs may be changed; nothing else is ever written.
    """

    library: Library
    may_unpickle: bool = False
    may_edit_tags: bool = False

    @cached_property
    def tags(self) -> TagEditor:
        """The forms that change tags."""
        return TagEditor(self.library, is_on=self.may_edit_tags)

    def application(self) -> Starlette:
        """The pages as an ASGI application."""
        run, task = "/runs/{flow}/{run}", "/runs/{flow}/{run}/tasks/{step}/{task}"
        routes: list[Route | Mount] = [
            Route("/", self._runs),
            Route("/compare", self._compare),
            Route(run, self._run),
            Route(f"{run}/state", self._state),
            Route(f"{run}/overview", self._overview),
            Route(f"{run}/code", self._code),
            Route(f"{run}/tags", self.tags.change, methods=["POST"]),
            Route(task, self._task),
            Route(f"{task}/log", self._log),
            Route(f"{task}/find", self._find),
            Route(f"{task}/download", self._download),
            Route(f"{task}/artifacts/{{name}}", self._artifact),
            Route(f"{task}/artifacts/{{name}}/loaded", self._loaded),
            Route(f"{task}/cards/{{card}}", self._card),
            Route(f"{task}/cards/{{card}}/version", self._card_version),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        handlers: Mapping[Any, Callable[[Request, Exception], Response]] = {
            K8sflowError: self._refused,
            404: self._missing,
            Exception: self._failed,
        }
        found = Starlette(routes=routes, exception_handlers=handlers)
        found.router.redirect_slashes = False
        return found

    def _page(self, template: str, **shown: Any) -> HTMLResponse:
        where = ", ".join(store.url for store in self.library.stores)
        text = page(template, where=where, poll=self.library.poll_seconds, **shown)
        return HTMLResponse(text.encode("utf-8", "replace"))

    def _refused(self, _: Request, error: Exception) -> Response:
        """A page about what can't be shown."""
        status, title = next((status, title) for kind, status, title in _REFUSALS if isinstance(error, kind))
        answer = self._page("error", title=title, message=str(error))
        answer.status_code = status
        return answer

    def _failed(self, _: Request, error: Exception) -> Response:
        """A page about a mistake of the server; its traceback is on the terminal."""
        message = f"{type(error).__name__}: {str(error)[:1000]}"
        answer = self._page("error", title="This page could not be made", message=message)
        answer.status_code = 500
        return answer

    def _missing(self, request: Request, _: Exception) -> Response:
        return self._refused(request, NotFoundError("there is nothing under this address."))

    # ------------------------------------------------------------------ runs

    def _runs(self, request: Request) -> Response:
        rows, chosen = self.library.rows(), filter_of(request.query_params)
        found = list(wanted(rows, chosen))
        most = _number(request.query_params.get("most"), _ROWS_OF_PAGE)
        longer = request.url.remove_query_params("part").include_query_params(most=most + 10 * _ROWS_OF_PAGE)
        flows, users = sorted({row.flow for row in rows}), sorted({row.user for row in rows if row.user})
        return self._page(
            "rows" if request.query_params.get("part") == "rows" else "runs",
            rows=found[:most],
            count=len(found),
            total=len(rows),
            flows=flows,
            users=users,
            statuses=STATUSES,
            chosen=request.query_params,
            more=longer.query if len(found) > most else "",
        )

    def _compare(self, request: Request) -> Response:
        names = request.query_params.getlist("run")
        if len(names) != 2:  # noqa: PLR2004  one beside the other
            raise NotFoundError("two runs can be compared.", advice="Choose two of a flow in the list of runs.")
        runs = [self.library.reader(*_pathspec(name)) for name in names]
        for run in runs:
            run.poll()
        return self._page("compare", left=runs[0], right=runs[1], **comparison.compared(*runs))

    # ------------------------------------------------------------------ a run

    def _run(self, request: Request) -> Response:
        reader = self._reader(request)
        drawn = svg.draw(reader.record.graph, is_inline=True)
        before, after = self.library.beside(reader.record.flow, reader.run.id)
        form = self.tags.token_for(reader.run_store.store)
        return self._page("run", graph=drawn, before=before, after=after, form=form, **run_view.overview(reader))

    def _overview(self, request: Request) -> Response:
        """The parts of a run's page that change while it runs, apart from those that its script draws."""
        return self._page("live", **run_view.overview(self._reader(request)))

    def _state(self, request: Request) -> Response:
        reader = self._reader(request)
        since = _number(request.query_params.get("since"), 0)
        return _json(run_view.state(reader, since))

    def _code(self, request: Request) -> Response:
        reader = self._reader(request)
        run, code = reader.run, reader.run.code
        if code is None:
            raise NotFoundError(
                f"{run.pathspec} has no code package.",
                cause="A run on one machine needs none: its tasks read the files themselves.",
                advice=f"The flow's file was {run.record.source or run.record.file}.",
            )
        name = request.query_params.get("file", code.script_name)
        files = code.files()
        return self._page(
            "code",
            files=files,
            name=name,
            text=_text_of(code.tarball, name),
            **run_view.base_facts(reader),
        )

    def _reader(self, request: Request) -> RunReader:
        """The reader of a run, which has just looked at the store."""
        reader = self._known_reader(request)
        reader.poll()
        return reader

    def _known_reader(self, request: Request) -> RunReader:
        return self.library.reader(checked(request.path_params["flow"]), checked(request.path_params["run"]))

    # ------------------------------------------------------------------ a task

    def _task_of(self, request: Request, reader: RunReader | None = None) -> Task:
        run = (reader or self._known_reader(request)).run
        attempt = request.query_params.get("attempt", "")
        return task_view.task_of(run, request.path_params["step"], request.path_params["task"], attempt)

    def _task(self, request: Request) -> Response:
        reader = self._reader(request)
        task = self._task_of(request, reader)
        shown = task_view.overview(reader, task, request.query_params.get("attempt", ""), _stream(request))
        return self._page("task", may_unpickle=self.may_unpickle, **run_view.base_facts(reader), **shown)

    def _log_file(self, request: Request) -> LogFile:
        return task_view.log_of(self._task_of(request), _stream(request))

    def _log(self, request: Request) -> Response:
        """A piece of a log, and whether more may come."""
        reader = self._known_reader(request)
        task = self._task_of(request, reader)
        data = task_view.log_of(task, _stream(request)).read(_number(request.query_params.get("from"), 0))
        is_over = not data and (reader.has_ended or task.has_ended)
        return Response(data, media_type="text/plain; charset=utf-8", headers={"X-Ended": str(int(is_over))})

    def _find(self, request: Request) -> Response:
        text = request.query_params.get("text", "")[:_MOST_FOUND_BYTES]
        start = _number(request.query_params.get("from"), 0)
        return _json({"at": self._log_file(request).find(text, start) if text else None})

    def _download(self, request: Request) -> Response:
        log = self._log_file(request)
        name = f"{log.run_store.flow}-{log.run_store.run}-{log.step}-{log.task}-{log.attempt}.{log.stream}.txt"
        safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-._") else "_" for letter in name)
        headers = {"Content-Disposition": f'attachment; filename="{safe}"'}
        return StreamingResponse(log.chunks(), media_type="text/plain; charset=utf-8", headers=headers)

    def _artifact(self, request: Request) -> Response:
        """A part of a page: the value of an artifact as data."""
        task, name = self._task_of(request), checked(request.path_params["name"])
        found, store = task[name], task.parent.parent.run_store
        try:
            shown, error = values.shown(values.value_of(store.store, store.flow, found.ref, name)), ""
        except ArtifactError as why:
            shown, error = values.nothing(), str(why)
        return self._page(
            "artifact", name=name, artifact=found, shown=shown, error=error, may_unpickle=self.may_unpickle
        )

    def _loaded(self, request: Request) -> Response:
        if not self.may_unpickle:
            raise NotFoundError(
                "artifacts are not loaded.",
                cause="Loading one runs the code of its classes, which anybody who can write to the store may choose.",
                advice="Start the server with --unpickle if you trust them all.",
            )
        text = values.loaded(self._task_of(request)[checked(request.path_params["name"])])
        return HTMLResponse(text.encode("utf-8", "replace"), headers={"Content-Security-Policy": CARD_POLICY})

    def _card(self, request: Request) -> Response:
        card = self._card_of(request)
        text = card.get() + (LISTEN if card.get_data() else "")
        return HTMLResponse(text.encode("utf-8", "replace"), headers={"Content-Security-Policy": CARD_POLICY})

    def _card_version(self, request: Request) -> Response:
        card = self._card_of(request)
        return _json({"page": card.hash, "data": card.get_data()})

    def _card_of(self, request: Request) -> Card:
        name = checked(request.path_params["card"])
        found = next((card for card in get_cards(self._task_of(request)) if card.file == name), None)
        if found is None:
            raise NotFoundError("there is no such card.", cause="It was not made yet, or was deleted.")
        return found


def filter_of(query: Mapping[str, str]) -> Filter:
    """The filter that the query of an address describes."""
    return Filter(
        flow=query.get("flow", ""),
        status=query.get("status", ""),
        user=query.get("user", ""),
        tags=tuple(query.get("tag", "").split()),
        since=_day(query.get("since", "")),
        until=_day(query.get("until", "")),
        text=query.get("text", "").strip(),
    )


def _day(text: str) -> float | None:
    """The time in a field for a date and a time; in the server's zone if the page's script has not added its own."""
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else otherwise  # noqa: PLR2004


def _pathspec(text: str) -> tuple[str, str]:
    flow, _, run = text.partition("/")
    return checked(flow), checked(run)


def _stream(request: Request) -> str:
    stream = request.query_params.get("stream", STREAMS[0])
    if stream not in STREAMS:
        raise NotFoundError(f"a task has no stream {stream!r}.", advice="It has stdout and stderr.")
    return stream


def _json(document: Any) -> Response:
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Response(data.encode("utf-8", "replace"), media_type="application/json")


def _text_of(tar: Any, name: str) -> str:
    with tar:
        try:
            found = tar.extractfile(name)
        except KeyError:
            found = None
        if found is None:
            raise NotFoundError(f"the code package has no file {name!r}.")
        return str(found.read(1 << 20).decode("utf-8", "replace"))
