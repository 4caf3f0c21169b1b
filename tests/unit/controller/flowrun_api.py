"""The scripted API server, with FlowRuns: their discovery, and merge patches of their status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.unit.kubernetes.fake_api import FakeApi

Manifest = dict[str, Any]


class FlowRunApi(FakeApi):
    """Knows FlowRuns unless ``has_crd`` is false; with ``first_status`` it acts as a fast controller."""

    has_crd = True
    first_status: Manifest | None = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/apis/k8sflow.dev/v1alpha1":
            if not self.has_crd:
                return web.json_response({"kind": "Status", "reason": "NotFound", "message": ""}, status=404)
            return web.json_response({"kind": "APIResourceList", "resources": [{"name": "flowruns"}]})
        return await super()._answer(request)

    async def _review(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        review["status"] = {"allowed": (asked["verb"], asked["resource"]) not in self.denied}
        return web.json_response(review, status=201)

    def _put(self, resource: str, item: Manifest, *, silently: bool) -> Manifest:
        if resource == "flowruns" and self.first_status is not None:
            item = {"status": self.first_status, **item}
        return super()._put(resource, item, silently=silently)

    def _patch(self, resource: str, name: str, changes: Manifest) -> web.Response:
        if (resource, name) not in self.objects:
            return web.json_response({"kind": "Status", "reason": "NotFound", "message": "not found"}, status=404)
        item = self.objects[resource, name]
        _merge(item, changes)
        return web.json_response(self._put(resource, item, silently=False))


def _merge(item: Manifest, changes: Manifest) -> None:
    """A merge patch (RFC 7386), as far as it is used."""
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(item.setdefault(key, {}), value)
        else:
            item[key] = value


@contextmanager
def flowrun_api() -> Iterator[FlowRunApi]:
    """A running server."""
    server = FlowRunApi()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def flowrun_api_of_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowRunApi]:
    """A running server, named by the kubeconfig in the environment.

    Args:
        folder: Where the kubeconfig is written.
        monkeypatch: Changes the environment.
    """
    with flowrun_api() as server:
        kubeconfig = {
            "clusters": [{"name": "lab", "cluster": {"server": server.access.server}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab"}}],
            "current-context": "lab",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig), encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield server
