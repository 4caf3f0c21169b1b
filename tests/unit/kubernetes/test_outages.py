"""A server that stops answering is reported within seconds, and so is its return, whatever was waiting for it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k8sflow import outages
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.logs import PodLog
from k8sflow.kubernetes.reflector import Reflector
from k8sflow.outages import Notice, Outage
from tests.unit.kubernetes.fake_answers import cut, refusing, silent
from tests.unit.kubernetes.fake_api import DEADLINE_SECONDS, FakeApi, fake_api

JOBS = "/apis/batch/v1/namespaces/lab/jobs"
PODS = "/api/v1/namespaces/lab/pods"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.kubernetes.api._FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.kubernetes.reflector._FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.outages.REPORT_AFTER_SECONDS", 0.2)
    monkeypatch.setattr("k8sflow.kubernetes.api._LATE_SECONDS", 0.2)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


ABSENCES = [
    pytest.param(cut, "can't be reached", id="cut"),
    pytest.param(silent, "has not answered a request for", id="half-open"),
    pytest.param(refusing(503), "can't serve requests now: 503", id="503"),
    pytest.param(refusing(429, **{"Retry-After": "1"}), "can't serve requests now: 429", id="429"),
]


class Watched:
    """A driver's side: one client that watches and makes requests, in a loop of its own, and what it reported."""

    def __init__(self, server: FakeApi) -> None:
        self.server = server
        self.notices: queue.Queue[Notice] = queue.Queue()

    def during(self, work: Callable[[KubernetesApi], Any], scenario: Callable[[], None]) -> None:
        """Runs a scenario while work is done for as long as it takes."""

        async def main() -> None:
            async with KubernetesApi(self.server.access, report=self.notices.put) as api:
                working = asyncio.ensure_future(work(api))
                await asyncio.to_thread(scenario)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)

        asyncio.run(main())

    def next(self) -> Notice:
        return self.notices.get(timeout=DEADLINE_SECONDS)


async def request_on(api: KubernetesApi) -> None:
    while True:
        await api.get(JOBS)
        await asyncio.sleep(0.05)


async def watch(api: KubernetesApi) -> None:
    await Reflector(api, PODS, label_selector="run=r1", on_change=lambda *_: None).run()


@pytest.mark.parametrize(("how", "words"), ABSENCES)
def test_a_request_without_an_answer_is_reported_and_its_end_too(server: FakeApi, how: Any, words: str) -> None:
    """The messages come once each, however many requests are retried meanwhile."""
    watched = Watched(server)

    def scenario() -> None:
        server.wait(lambda: server.asked("GET", "/jobs"))
        with server.away(how):
            notice = watched.next()
            assert words in notice.text
            assert server.access.server in notice.text
            assert not notice.is_over
        notice = watched.next()
        assert notice.is_over
        assert notice.text.startswith("The API server answers again, after ")
        assert watched.notices.empty()

    watched.during(request_on, scenario)


@pytest.mark.parametrize("how", [cut, silent, refusing(503)], ids=["cut", "half-open", "503"])
def test_a_watch_that_can_not_be_opened_again_is_reported(server: FakeApi, how: Any) -> None:
    """The reflector uses the same client, so that there is one message about one server."""
    watched = Watched(server)

    def scenario() -> None:
        server.wait(lambda: server.watchers)
        with server.away(how):
            server.reset_watches()
            assert not watched.next().is_over
        assert watched.next().is_over

    watched.during(watch, scenario)


def test_a_server_that_freezes_while_it_is_only_watched_is_reported(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open, and the watch is silent; nothing but its version is asked for, and nothing is lost."""
    monkeypatch.setattr("k8sflow.kubernetes.reflector._SILENT_SECONDS", 0.1)
    monkeypatch.setattr("k8sflow.kubernetes.api._PING_SECONDS", 0.1)
    watched = Watched(server)

    def scenario() -> None:
        server.wait(lambda: server.watchers)
        server.wait(lambda: server.asked("GET", "/version"))
        with server.away(silent):
            notice = watched.next()
            assert "has not answered a request for /version" in notice.text
        assert watched.next().is_over
        assert len(server.asked("GET", "/pods", watch="1")) == 1
        assert len(server.asked("GET", "/pods")) == 2

    watched.during(watch, scenario)


def test_the_logs_of_a_kubelet_that_is_down_are_not_an_outage_of_the_server(server: FakeApi) -> None:
    """The API server passes the kubelet's absence on as an error of its own."""
    watched = Watched(server)

    async def read(api: KubernetesApi) -> None:
        for _ in range(10):
            with pytest.raises(Exception, match="502"):
                async with api.stream(f"{PODS}/p/log", {}, read_timeout_seconds=None):
                    pass
            await asyncio.sleep(0.05)

    server.fail("GET", "/log", 502, times=10)
    watched.during(read, lambda: server.wait(lambda: len(server.asked("GET", "/log")) == 10))
    assert watched.notices.empty()


def test_the_log_of_a_node_that_is_lost_is_reported_as_the_nodes_silence(
    server: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for it in vain, and answers all other requests."""
    monkeypatch.setattr("k8sflow.kubernetes.logs._LATE_SECONDS", 0.2)
    watched, reports = Watched(server), queue.Queue[Notice]()

    async def read(api: KubernetesApi) -> None:
        await PodLog(api, f"{PODS}/p", container="task", on_line=lambda _: None, report=reports.put).follow()

    server.answer("GET", "/log", silent)

    def scenario() -> None:
        assert "its node doesn't answer" in reports.get(timeout=DEADLINE_SECONDS).text
        assert watched.notices.empty()

    watched.during(read, scenario)


def test_something_else_at_stake_is_reported_once_more(server: FakeApi) -> None:
    """After Ctrl-C the same outage keeps Jobs from being deleted."""
    watched = Watched(server)
    clients: list[KubernetesApi] = []

    async def work(api: KubernetesApi) -> None:
        clients.append(api)
        await request_on(api)

    def scenario() -> None:
        server.wait(lambda: server.asked("GET", "/jobs"))
        with server.away(cut):
            assert watched.next().text.endswith("Retrying.")
            clients[0].put_at_stake("The run's Jobs can't be deleted yet.")
            assert watched.next().text.endswith("The run's Jobs can't be deleted yet.")
        assert watched.next().is_over

    watched.during(work, scenario)


def test_a_short_outage_is_not_reported() -> None:
    """The time is counted from the first failure, less what it took to fail."""
    now = [100.0]
    seen: list[Notice] = []
    outage = Outage("The bucket", seen.append, clock=lambda: now[0])
    assert outage.failed("it is away")
    now[0] += outages.REPORT_AFTER_SECONDS * 0.9
    assert not outage.failed("it is away")
    assert outage.answered() == pytest.approx(outages.REPORT_AFTER_SECONDS * 0.9)
    assert seen == []
    outage.failed("it is away", lasted_seconds=outages.REPORT_AFTER_SECONDS)
    now[0] += 60
    outage.answered()
    assert [notice.text for notice in seen] == ["it is away", "The bucket answers again, after 60 s."]
