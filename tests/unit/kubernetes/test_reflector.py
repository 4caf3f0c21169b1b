"""The reflector against a server with each of the failures in the reflector's docstring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from k8sflow.errors import KubernetesError
from k8sflow.kubernetes.api import KubernetesApi, RateLimiter
from k8sflow.kubernetes.reflector import Change, Reflector, identity_of
from tests.unit.kubernetes.fake_api import DEADLINE_SECONDS, FakeApi, fake_api

PODS = "/api/v1/namespaces/lab/pods"
LABELS = {"run": "r1"}


class Seen:
    """The changes that a reflector reported, and a way to wait for them."""

    def __init__(self) -> None:
        self.changes: list[tuple[Change, str, str]] = []
        self._news = asyncio.Event()

    def __call__(self, change: Change, pod: dict[str, Any]) -> None:
        self.changes.append((change, pod["metadata"]["name"], pod.get("note", "")))
        self._news.set()

    async def count(self, number: int) -> list[tuple[Change, str, str]]:
        end = time.monotonic() + DEADLINE_SECONDS
        while len(self.changes) < number:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), end - time.monotonic())
        return self.changes


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k8sflow.kubernetes.api._FIRST_DELAY_SECONDS", 0.05)
    monkeypatch.setattr("k8sflow.kubernetes.reflector._FIRST_DELAY_SECONDS", 0.05)


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with fake_api() as running:
        yield running


def pod(name: str, note: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": LABELS}, "note": note}


def reflect(server: FakeApi, scenario: Callable[[Seen, Reflector], Awaitable[None]], **options: Any) -> None:
    """Runs a scenario while a reflector runs, which must not fail."""

    async def main() -> None:
        async with KubernetesApi(server.access, patience_seconds=5) as api:
            seen = Seen()
            reflector = Reflector(api, PODS, label_selector="run=r1", on_change=seen, **options)
            running = asyncio.ensure_future(reflector.run())
            acting = asyncio.ensure_future(scenario(seen, reflector))
            await asyncio.wait({running, acting}, return_when=asyncio.FIRST_COMPLETED)
            failed = running.done()
            for task in (acting, running):
                task.cancel()
            if failed:
                running.result()
            await asyncio.gather(acting)

    asyncio.run(main())


async def watched(server: FakeApi) -> None:
    await asyncio.to_thread(server.wait, lambda: server.watchers, "the watch")


def test_it_reports_existing_objects_and_changes(server: FakeApi) -> None:
    server.put("pods", pod("old"))

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await seen.count(1)
        await watched(server)
        server.put("pods", pod("new"))
        server.put("pods", pod("new", "changed"))
        server.remove("pods", "old")
        assert await seen.count(4) == [
            (Change.ADDED, "old", ""),
            (Change.ADDED, "new", ""),
            (Change.MODIFIED, "new", "changed"),
            (Change.DELETED, "old", ""),
        ]
        assert [item["metadata"]["name"] for item in reflector.objects.values()] == ["new"]

    reflect(server, scenario)


def test_it_lists_in_pages_and_keeps_the_minimum_of_each_object(server: FakeApi) -> None:
    for index in range(1100):
        server.put("pods", pod(f"p{index:04}"))

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await seen.count(1100)
        assert len(server.asked("GET", "/pods", limit="500")) == 3
        assert set(reflector.objects[next(iter(reflector.objects))]) == {"metadata"}

    reflect(server, scenario, keep=identity_of)


def test_nothing_is_missed_when_the_server_ends_the_watch(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.put("pods", pod("a"))
        await seen.count(1)
        server.close_watches()
        server.put("pods", pod("b"))
        assert [name for _, name, _ in await seen.count(2)] == ["a", "b"]
        assert len(server.asked("GET", "/pods", limit="500")) == 1

    reflect(server, scenario)


def test_a_cut_connection_is_reopened(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.reset_watches()
        server.put("pods", pod("a"))
        await seen.count(1)

    reflect(server, scenario)


def test_a_half_open_connection_is_noticed_by_its_silence(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.deafen_watches()
        server.put("pods", pod("a"))
        await seen.count(1)

    reflect(server, scenario, read_timeout_seconds=0.3)


def test_lists_and_reconnects_are_logged(server: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="k8sflow.kubernetes.reflector")

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.deafen_watches()
        server.put("pods", pod("a"))
        await seen.count(1)

    reflect(server, scenario, read_timeout_seconds=0.3)
    listed, reconnected, *_ = [record.getMessage() for record in caplog.records]
    assert listed.startswith(f"{PODS}: listed 0 objects at version ")
    assert reconnected.startswith(f"{PODS}: the Kubernetes API server {server.access.server} ")
    assert " Watching on in 0." in reconnected


def test_410_as_a_status_makes_it_list_again(server: FakeApi) -> None:
    """Objects that vanished in between are reported as deleted."""
    server.put("pods", pod("lost"))

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await seen.count(1)
        await watched(server)
        server.deafen_watches()
        server.remove("pods", "lost", silently=True)
        server.compact()
        assert (await seen.count(2))[1][:2] == (Change.DELETED, "lost")
        assert not reflector.objects

    reflect(server, scenario, read_timeout_seconds=0.3)


def test_410_as_an_event_makes_it_list_again(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.put("pods", pod("unseen"), silently=True)
        server.send({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}})
        assert (await seen.count(1))[0][:2] == (Change.ADDED, "unseen")

    reflect(server, scenario)


def test_an_error_event_of_another_kind_is_survived(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.send({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is tired"}})
        server.put("pods", pod("a"))
        await seen.count(1)

    reflect(server, scenario)


def test_an_instant_clean_close_drops_the_version(server: FakeApi) -> None:
    """Some servers close the stream of a version that is too old; keeping it would loop forever."""

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.put("pods", pod("unseen"), silently=True)
        server.close_watches()
        assert (await seen.count(1))[0][:2] == (Change.ADDED, "unseen")

    reflect(server, scenario)


def test_a_repeated_event_is_reported_once(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        item = server.put("pods", pod("a"))
        await seen.count(1)
        server.send({"type": "ADDED", "object": item})
        server.send({"type": "MODIFIED", "object": item})
        server.put("pods", pod("b"))
        assert [name for _, name, _ in await seen.count(2)] == ["a", "b"]

    reflect(server, scenario)


def test_a_bookmark_advances_the_version_without_a_report(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.compact()
        server.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1000000"}}})
        server.put("pods", pod("a"))
        await seen.count(1)
        server.reset_watches()
        await asyncio.to_thread(
            server.wait, lambda: len(server.asked("GET", "/pods", watch="1")) == 2, "the second watch"
        )
        assert len(server.asked("GET", "/pods", limit="500")) == 1

    reflect(server, scenario)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_requests_to_an_overloaded_server_are_retried(server: FakeApi, status: int) -> None:
    server.fail("GET", "/pods", status, times=2, watch=False)
    server.fail("GET", "/pods", status, times=2, watch=True)
    server.put("pods", pod("a"))

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await seen.count(1)
        await watched(server)

    reflect(server, scenario)


def test_an_event_that_is_cut_off_is_ignored(server: FakeApi) -> None:
    server.put("pods", pod("a"))

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.send_raw(b'{"type": "MODIFIED", "obj')
        server.close_watches()
        server.put("pods", pod("b"))
        assert [name for _, name, _ in await seen.count(2)] == ["a", "b"]

    reflect(server, scenario)


def test_denied_access_is_raised_at_once(server: FakeApi) -> None:
    body = {"kind": "Status", "reason": "Forbidden", "code": 403, "message": 'User "me" cannot list resource "pods"'}
    server.fail("GET", "/pods", 403, body=body)

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await asyncio.Event().wait()

    with pytest.raises(KubernetesError, match="refused to list pods in namespace 'lab': 403 Forbidden"):
        reflect(server, scenario)


@pytest.mark.slow
def test_a_server_that_stays_unreachable_is_an_error(server: FakeApi) -> None:
    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await watched(server)
        server.fail("GET", "/pods", 503, times=10_000)
        server.reset_watches()
        await asyncio.Event().wait()

    with pytest.raises(KubernetesError, match="has not answered usefully"):
        reflect(server, scenario, unreachable_seconds=0.5)


def test_an_error_of_the_handler_is_not_mistaken_for_a_network_error(server: FakeApi) -> None:
    async def main() -> None:
        def broken(change: Change, item: dict[str, Any]) -> None:
            raise OSError("from the handler")

        async with KubernetesApi(server.access) as api:
            await Reflector(api, PODS, label_selector="", on_change=broken).run()

    server.put("pods", pod("a"))
    with pytest.raises(OSError, match="from the handler"):
        asyncio.run(main())


def test_the_limiter_allows_a_burst_and_then_the_rate() -> None:
    async def main() -> float:
        limiter = RateLimiter(qps=20, burst=20)
        clock = asyncio.get_running_loop().time
        began = clock()
        await asyncio.gather(*(limiter.acquire() for _ in range(20)))
        assert clock() - began < 0.9, "the burst waited as the rate does"
        await asyncio.gather(*(limiter.acquire() for _ in range(10)))
        return clock() - began

    assert asyncio.run(main()) > 0.45


@pytest.mark.slow
def test_changes_during_a_slow_list_are_not_missed(server: FakeApi) -> None:
    """The watch starts at the version of the list, however late the list arrives."""
    server.put("pods", pod("old"))
    server.delay_answer("GET", "/pods", 0.5)

    async def scenario(seen: Seen, reflector: Reflector) -> None:
        await asyncio.to_thread(server.wait, lambda: server.asked("GET", "/pods"), "the list")
        server.remove("pods", "old")
        server.put("pods", pod("new"))
        assert await seen.count(3) == [
            (Change.ADDED, "old", ""),
            (Change.DELETED, "old", ""),
            (Change.ADDED, "new", ""),
        ]

    reflect(server, scenario)
