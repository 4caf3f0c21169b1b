"""The pages of runs under test: a real server in a thread, a reader that asks it, and runs as records."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, ForeachItems, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.usage import Usage
from k8sflow.ui.app import Ui
from k8sflow.ui.library import Library
from k8sflow.ui.server import Reach, UiServer
from tests.waiting import DEADLINE_SECONDS

LOCAL = Reach()


@dataclass(frozen=True)
class Answer:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode()


@dataclass
class Reader:
    """A browser without a screen: it has the cookie."""

    server: UiServer
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.headers["Cookie"] = f"k8sflow-ui-{self.server.port}={self.server.token}"

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=DEADLINE_SECONDS)
        try:
            written = {name.replace("_", "-"): value for name, value in {**self.headers, **headers}.items()}
            connection.request(method, path, body, headers=written)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def text(self, path: str) -> str:
        answer = self.ask(path)
        assert answer.status == 200, (path, answer.status, answer.text)
        return answer.text


@contextmanager
def serving(
    *stores: ObjectStore, may_unpickle: bool = False, may_edit_tags: bool = False, reach: Reach = LOCAL
) -> Iterator[Reader]:
    """Serve the pages of the runs in some stores."""
    server = UiServer(Ui(Library(stores), may_unpickle, may_edit_tags), reach=reach)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield Reader(server)
    finally:
        server.stop()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@dataclass
class Made:
    """A run of a flow with a foreach: ``start``, ``work`` for each item, ``join``, ``end``."""

    store: ObjectStore
    graph: Graph
    run: str = "r1"
    created: float = 1_000_000.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = RunStore(self.store, self.graph.flow, self.run)
        self.artifacts = ArtifactStore(self.store, self.graph.flow)
        refs = {name: self.artifacts.save(value, name) for name, value in self.parameters.items()}
        written = {"user": "ada", "created": self.created, **self.more}
        self.records.create(RunRecord(self.graph.flow, self.run, "flow.py", refs, self.graph, **written))

    def task(
        self,
        step: str,
        task: str = "0",
        *,
        at: float = 1.0,
        seconds: float = 2.0,
        attempt: int = 0,
        output: bytes = b"",
        width: int | None = None,
        **values: Any,
    ) -> None:
        """A task with a result."""
        self.starts(step, task, attempt, output)
        started = self.created + at
        refs = {name: self.artifacts.save(value, name) for name, value in values.items()}
        items = None if width is None else ForeachItems(width, ())
        usage = Usage(memory_bytes=50_000_000, cpu_seconds=1.5)
        following = self.graph[step].next
        commit = Commit(attempt, following, refs, (), items, started, started + seconds, usage=usage)
        self.records.commit(step, task, commit)

    def starts(self, step: str, task: str = "0", attempt: int = 0, output: bytes = b"") -> None:
        """An execution that has not ended."""
        log = self.records.open_log(step, task, attempt, "stdout")
        log.write(output)
        log.close()

    def fails(self, step: str, task: str = "0", attempt: int = 0, summary: str = "ValueError: no", **more: Any) -> None:
        """An execution that failed."""
        self.starts(step, task, attempt)
        record = OutcomeRecord(Outcome.USER_ERROR, self.created + 4, summary, **more)
        self.records.write_outcome(step, task, attempt, record)

    def ends(self, outcome: Outcome = Outcome.SUCCEEDED, summary: str = "") -> None:
        """The end of the run."""
        record = OutcomeRecord(outcome, self.created + 60, summary, usage=Usage(50_000_000, 12.0))
        self.records.write_run_outcome(record, "end")
