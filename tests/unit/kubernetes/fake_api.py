"""A scripted API server that speaks the real HTTP protocol on loopback: lists in pages, watches, logs, and faults.

It does nothing on its own: a test puts pods and log lines where a kubelet would, and says which request fails how.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from k8sflow.kubernetes.kubeconfig import ClusterAccess

DEADLINE_SECONDS = 10.0
END = object()

Manifest = dict[str, Any]


@dataclass
class Fault:
    """An overridden answer to matching requests, for a number of times."""

    method: str
    part: str
    respond: Callable[[web.Request], Any]
    times: int
    is_watch: bool | None = None


@dataclass(eq=False)
class Watcher:
    """One open watch."""

    resource: str
    selector: dict[str, str]
    queue: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    transport: Any = None


class FakeApi:
    """The server; objects are keyed by resource ("pods") and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.watchers: list[Watcher] = []
        self.logs: dict[str, list[tuple[str, bytes]]] = {}
        self.history: list[tuple[int, str, str, Manifest]] = []
        self.oldest_version = 0
        self.faults: list[Fault] = []
        self.version = {"major": "1", "minor": "34+", "gitVersion": "v1.34.3"}
        self.denied: set[tuple[str, str]] = set()
        self.groups: dict[str, str] = {}
        self.grace_of_deletes: list[tuple[str, int | None]] = []
        self._log_changed: dict[str, asyncio.Event] = {}
        self._version = itertools.count(1)
        self._changed = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._main, daemon=True)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self.port = self._ready.result(DEADLINE_SECONDS)
        self.access = ClusterAccess(server=f"http://127.0.0.1:{self.port}", origin="a fake")

    def stop(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_SECONDS)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        assert runner.server is not None
        listener = await self._loop.create_server(runner.server, "127.0.0.1", 0)
        (socket,) = listener.sockets
        self._ready.set_result(socket.getsockname()[1])
        await self._stop.wait()
        # asyncio loses a connection, without closing it, that it has accepted just before close().
        self._loop.remove_reader(socket.fileno())
        await _settle()
        listener.close()
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await _settle()

    # -- what a test does --------------------------------------------------------------------------------------------

    def put(self, resource: str, item: Manifest, *, silently: bool = False) -> Manifest:
        """Creates or changes an object, and notifies the watchers unless silently."""
        return self._call(lambda: self._put(resource, copy.deepcopy(item), silently=silently))

    def remove(self, resource: str, name: str, *, silently: bool = False) -> None:
        self._call(lambda: self._remove(resource, name, silently=silently))

    def get(self, resource: str, name: str) -> Manifest | None:
        return copy.deepcopy(self._call(lambda: self.objects.get((resource, name))))

    def names(self, resource: str) -> list[str]:
        """The names of the objects of a kind, without the lease of a run, which is a Job that never has a pod."""
        return self._call(
            lambda: sorted(n for kind, n in self.objects if kind == resource and not n.endswith("-lease"))
        )

    def send(self, event: Manifest) -> None:
        """Sends an event unchanged to every watcher."""
        self._each_watcher(lambda watcher: watcher.queue.put_nowait(event))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes unchanged to every watcher."""
        self._each_watcher(lambda watcher: watcher.queue.put_nowait(data))

    def close_watches(self) -> None:
        """Ends every watch cleanly."""
        self._each_watcher(lambda watcher: watcher.queue.put_nowait(END))

    def reset_watches(self) -> None:
        """Cuts the connection of every watch."""
        self._each_watcher(lambda watcher: watcher.transport.abort())

    def deafen_watches(self) -> None:
        """Leaves every watch open and never sends anything to it again."""
        self._call(self.watchers.clear)

    def compact(self) -> None:
        """Forgets the history: watches from earlier versions get a 410."""

        def forget() -> None:
            self.oldest_version = next(self._version)
            self.history.clear()

        self._call(forget)

    def fail(
        self,
        method: str,
        part: str,
        status: int = 500,
        *,
        times: int = 1,
        body: Manifest | None = None,
        headers: dict[str, str] | None = None,
        watch: bool | None = None,
    ) -> None:
        """Refuses the next requests whose path contains ``part``."""
        document = body or {
            "kind": "Status",
            "status": "Failure",
            "code": status,
            "message": "made to fail",
            "reason": "",
        }

        def respond(request: web.Request) -> web.Response:
            return web.json_response(document, status=status, headers=headers)

        self._call(lambda: self.faults.append(Fault(method, part, respond, times, watch)))

    def answer(self, method: str, part: str, respond: Callable[[web.Request], Any]) -> None:
        """Lets a test answer the next request whose path contains ``part``."""
        self._call(lambda: self.faults.append(Fault(method, part, respond, 1)))

    def drop(self, method: str, part: str, *, times: int = 1, after: bool = False) -> None:
        """Cuts the connection of the next matching requests; with ``after``, once they have taken effect."""

        async def respond(request: web.Request) -> web.Response:
            if after:
                await self._answer(request)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        self._call(lambda: self.faults.append(Fault(method, part, respond, times)))

    def delay_answer(self, method: str, part: str, seconds: float) -> None:
        """Delays the answer to the next matching request, which describes the state at its arrival."""

        async def respond(request: web.Request) -> web.StreamResponse:
            answer = await self._answer(request)
            await asyncio.sleep(seconds)
            return answer

        self._call(lambda: self.faults.append(Fault(method, part, respond, 1)))

    @contextmanager
    def away(self, how: Callable[[web.Request], Any]) -> Iterator[None]:
        """Answers every request with ``how`` while the block runs; requests without an answer are cut at its end."""
        held: set[Any] = set()

        async def respond(request: web.Request) -> web.Response:
            held.add(request.transport)
            answer = how(request)
            found: web.Response = await answer if asyncio.iscoroutine(answer) else answer
            held.discard(request.transport)
            return found

        def end() -> None:
            self.faults.remove(fault)
            for transport in held:
                transport.abort()

        fault = Fault("", "", respond, -1)
        self._call(lambda: self.faults.append(fault))
        try:
            yield
        finally:
            self._call(end)

    def write_log(self, pod: str, *lines: tuple[str, bytes]) -> None:
        """Adds lines to a pod's log; each is a timestamp and the line."""

        def write() -> None:
            self.logs.setdefault(pod, []).extend(lines)
            self._log_event(pod).set()

        self._call(write)

    def end_log(self, pod: str) -> None:
        """Ends the streams that follow a pod's log now."""
        self.write_log(pod, ("END", b""))

    def pod_of(self, job: str, *, index: int | None = None, suffix: str = "abcde", **status: Any) -> Manifest:
        """Creates a pod as the Job controller would, that of an index of an Indexed Job, and returns it."""
        manifest = self.get("jobs", job)
        assert manifest is not None
        template = manifest["spec"]["template"]
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": job}
        if index is not None:
            labels["batch.kubernetes.io/job-completion-index"] = str(index)
            suffix = f"{index}-{suffix}"
        pod = {
            "kind": "Pod",
            "metadata": {
                "name": f"{job}-{suffix}",
                "labels": labels,
                "annotations": template["metadata"]["annotations"],
            },
            "spec": {**template["spec"], "nodeName": "node-1"},
            "status": {"phase": "Pending", **status},
        }
        return self.put("pods", pod)

    def wait(self, condition: Callable[[], Any], what: str = "the condition") -> Any:
        """Waits until the condition, tried after each request and change, is true."""
        end = time.monotonic() + DEADLINE_SECONDS
        while True:
            self._changed.clear()
            if found := condition():
                return found
            if not self._changed.wait(end - time.monotonic()):
                raise AssertionError(f"{what} didn't come true within {DEADLINE_SECONDS} s")

    def asked(self, method: str, part: str, **params: str) -> list[tuple[str, str, dict[str, str]]]:
        """The requests so far that match."""
        return [
            request
            for request in list(self.requests)
            if request[0] == method and part in request[1] and params.items() <= request[2].items()
        ]

    # -- the server's side ---------------------------------------------------------------------------------------------

    def _call(self, work: Callable[[], Any]) -> Any:
        if threading.current_thread() is self._thread:
            return work()
        done: Future[Any] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # noqa: BLE001 - passed to the test's thread
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result(DEADLINE_SECONDS)

    def _each_watcher(self, act: Callable[[Watcher], None]) -> None:
        def act_on_all() -> None:
            for watcher in list(self.watchers):
                act(watcher)

        self._call(act_on_all)

    def _log_event(self, pod: str) -> asyncio.Event:
        return self._log_changed.setdefault(pod, asyncio.Event())

    def _put(self, resource: str, item: Manifest, *, silently: bool) -> Manifest:
        metadata = item["metadata"]
        known = self.objects.get((resource, metadata["name"]))
        version = next(self._version)
        metadata.setdefault("uid", known["metadata"]["uid"] if known else f"uid-{version}")
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        metadata["resourceVersion"] = str(version)
        self.objects[resource, metadata["name"]] = item
        self._tell("MODIFIED" if known else "ADDED", resource, item, version, silently=silently)
        return copy.deepcopy(item)

    def _remove(self, resource: str, name: str, *, silently: bool = False) -> None:
        item = self.objects.pop((resource, name), None)
        if item is not None:
            version = next(self._version)
            item["metadata"]["resourceVersion"] = str(version)
            self._tell("DELETED", resource, item, version, silently=silently)

    def _tell(self, kind: str, resource: str, item: Manifest, version: int, *, silently: bool) -> None:
        if not silently:
            self.history.append((version, kind, resource, copy.deepcopy(item)))
            for watcher in self.watchers:
                if watcher.resource == resource and _matches(item, watcher.selector):
                    watcher.queue.put_nowait({"type": kind, "object": copy.deepcopy(item)})
        self._changed.set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        self._changed.set()
        for fault in self.faults:
            is_same = fault.method in {request.method, ""} and fault.part in request.path
            if is_same and fault.is_watch in {None, "watch" in request.query}:
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                answer = fault.respond(request)
                return await answer if asyncio.iscoroutine(answer) else answer
        return await self._answer(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - a table of routes
        if request.path == "/version":
            return web.json_response(self.version)
        parts = request.path.strip("/").split("/")
        if parts[0] == "apis" and len(parts) == 2:
            return self._group(parts[1])
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        if parts[0] == "namespaces" and len(parts) > 2:
            parts = parts[2:]
        resource, name = parts[0], parts[1] if len(parts) > 1 else None
        if parts[-1] == "log" and name is not None:
            return await self._log(request, name)
        if resource == "selfsubjectaccessreviews":
            return await self._review(request)
        if request.method == "POST":
            item = await request.json()
            return web.json_response(item, status=201) if "dryRun" in request.query else self._create(resource, item)
        if request.method == "PATCH" and name is not None:
            return self._patch(resource, name, await request.json())
        if request.method == "DELETE":
            self.grace_of_deletes.append((resource, (await request.json()).get("gracePeriodSeconds")))
            return self._delete(resource, name, _selector(request))
        if "watch" in request.query:
            return await self._watch(request, resource)
        return self._one(resource, name) if name is not None else self._list(request, resource)

    def _group(self, name: str) -> web.Response:
        if name not in self.groups:
            return _status(404, "", "404 page not found")
        return web.json_response({"name": name, "preferredVersion": {"groupVersion": f"{name}/{self.groups[name]}"}})

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
        review["status"] = {"allowed": (asked["verb"], resource) not in self.denied}
        return web.json_response(review, status=201)

    def _create(self, resource: str, item: Manifest) -> web.Response:
        if (resource, item["metadata"]["name"]) in self.objects:
            return _status(409, "AlreadyExists", f"{resource} {item['metadata']['name']!r} already exists")
        return web.json_response(self._put(resource, item, silently=False), status=201)

    def _patch(self, resource: str, name: str, changes: Manifest) -> web.Response:
        item = self.objects.get((resource, name))
        if item is None:
            return _status(404, "NotFound", f'{resource} "{name}" not found')
        for part, values in changes.items():
            item[part].update(values)
        if resource == "jobs" and "activeDeadlineSeconds" in changes.get("spec", {}) and not name.endswith("-lease"):
            self._end_pods(name)
        return web.json_response(self._put(resource, item, silently=False))

    def _end_pods(self, job: str) -> None:
        """Deletes the pods of a Job that have not ended, as the Job controller would when its time is over."""
        for kind, pod in list(self.objects):
            item = self.objects[kind, pod]
            is_of_job = item["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name") == job
            if kind == "pods" and is_of_job and item["status"].get("phase") not in {"Succeeded", "Failed"}:
                self._remove(kind, pod)

    def _delete(self, resource: str, name: str | None, selector: dict[str, str]) -> web.Response:
        """Deletes as the garbage collector would: a Job's pods with the Job."""
        if name is not None and (resource, name) not in self.objects:
            return _status(404, "NotFound", f"{resource} {name!r} not found")
        found = [
            key
            for key, item in self.objects.items()
            if key[0] == resource and (key[1] == name or (name is None and _matches(item, selector)))
        ]
        for kind, deleted in found:
            self._remove(kind, deleted)
            for _, pod in [key for key in self.objects if key[0] == "pods"]:
                if self.objects["pods", pod]["metadata"]["labels"].get("batch.kubernetes.io/job-name") == deleted:
                    self._remove("pods", pod)
        return web.json_response({"kind": "Status", "status": "Success"})

    def _one(self, resource: str, name: str) -> web.Response:
        item = self.objects.get((resource, name))
        return (
            web.json_response(item) if item is not None else _status(404, "NotFound", f'{resource} "{name}" not found')
        )

    def _list(self, request: web.Request, resource: str) -> web.Response:
        selector = _selector(request)
        items = [
            item for (kind, _), item in sorted(self.objects.items()) if kind == resource and _matches(item, selector)
        ]
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 500))
        metadata = {"resourceVersion": str(next(self._version))}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        return web.json_response({"kind": "List", "metadata": metadata, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request, resource: str) -> web.StreamResponse:
        since, selector = int(request.query["resourceVersion"]), _selector(request)
        if since < self.oldest_version:
            return _status(410, "Expired", "too old resource version")
        watcher = Watcher(resource, selector, transport=request.transport)
        for version, kind, of, item in self.history:
            if version > since and of == resource and _matches(item, selector):
                watcher.queue.put_nowait({"type": kind, "object": item})
        self.watchers.append(watcher)
        self._changed.set()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            while (event := await watcher.queue.get()) is not END:
                await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
        finally:
            with suppress(ValueError):
                self.watchers.remove(watcher)
        return response

    async def _log(self, request: web.Request, pod: str) -> web.StreamResponse:
        if ("pods", pod) not in self.objects:
            return _status(404, "NotFound", f'pods "{pod}" not found')
        since = request.query.get("sinceTime", "").rstrip("Z")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        lines, position = self.logs.setdefault(pod, []), 0
        self._changed.set()
        follows = request.query.get("follow") == "true"
        began = len(lines)
        while True:
            changed = self._log_event(pod)
            changed.clear()
            for when, line in lines[position:]:
                position += 1
                if when == "END":
                    if position > began:
                        return response
                elif when >= since:
                    await response.write(when.encode() + b" " + line + b"\n")
            if not follows or ("pods", pod) not in self.objects:
                return response
            await changed.wait()


@contextmanager
def fake_api() -> Iterator[FakeApi]:
    """A running server."""
    server = FakeApi()
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def _settle() -> None:
    """Lets the loop do what is due, as the last part of a close."""
    for _ in range(5):
        await asyncio.sleep(0)


def _status(code: int, reason: str, message: str) -> web.Response:
    document = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response(document, status=code)


def _selector(request: web.Request) -> dict[str, str]:
    text = request.query.get("labelSelector", "")
    return dict(part.split("=", 1) for part in text.split(",") if part)


def _matches(item: Manifest, selector: dict[str, str]) -> bool:
    return selector.items() <= (item["metadata"].get("labels") or {}).items()
