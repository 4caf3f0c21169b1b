"""Answers of the scripted API server that no healthy one would give."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web


def refusing(status: int, **headers: str) -> Callable[[web.Request], web.Response]:
    """Returns an answer to every request: a status."""
    return lambda _: web.json_response({"kind": "Status", "code": status}, status=status, headers=headers)


async def cut(request: web.Request) -> web.Response:
    """Cuts the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def silent(_: web.Request) -> web.Response:
    """Never answers, and leaves the connection open."""
    await asyncio.Event().wait()
    raise AssertionError("an event that is never set")
