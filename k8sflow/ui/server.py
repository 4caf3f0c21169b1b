"""The server itself: an address of this machine with a secret in it, and the pages behind it."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from k8sflow.cards.server import ADDRESS, own_hosts
from k8sflow.ui.app import Ui
from k8sflow.ui.guard import Guard

_LOOK_SECONDS = 5.0


class UiServer:
    """The server; it listens as soon as it exists.

    Args:
        ui: The pages.
        port: The port; 0 for any free one.
        idle_seconds: After how many seconds without a request it ends; None for never.
        may_end: Whether it ends then; where it returns False, it is asked again after the same time.

    Raises:
        OSError: The port is taken.
    """

    def __init__(
        self,
        ui: Ui,
        port: int = 0,
        idle_seconds: float | None = None,
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        self._socket = socket.create_server((ADDRESS, port))
        self.port: int = self._socket.getsockname()[1]
        self.token = secrets.token_urlsafe(24)
        self._idle_seconds = idle_seconds
        self._may_end = may_end
        self._asked_at = time.monotonic()
        guard = Guard(ui.application(), self.token, own_hosts(self.port), f"k8sflow-ui-{self.port}", ui.may_edit_tags)
        config = uvicorn.Config(
            self._noting(guard),
            log_level="error",
            access_log=False,  # the token would be in it
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            timeout_keep_alive=30,
        )
        self._server = uvicorn.Server(config)

    def url(self, path: str = "/") -> str:
        """The address that opens a page, with the secret.

        Args:
            path: The path of the page.
        """
        return f"http://{ADDRESS}:{self.port}/open/{self.token}{path}"

    def serve(self) -> None:
        """Answers requests until the process is interrupted, or nobody asks any more."""
        if self._idle_seconds is not None:
            threading.Thread(target=self._end_when_idle, name="k8sflow-ui-idle", daemon=True).start()
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Makes ``serve`` return."""
        self._server.should_exit = True

    def _noting(self, app: ASGIApp) -> Callable[[Scope, Receive, Send], object]:
        async def noted(scope: Scope, receive: Receive, send: Send) -> None:
            self._asked_at = time.monotonic()
            await app(scope, receive, send)

        return noted

    def _end_when_idle(self) -> None:
        assert self._idle_seconds is not None
        while True:
            rest = self._asked_at + self._idle_seconds - time.monotonic()
            if rest <= 0 and (self._may_end is None or self._may_end()):
                break
            time.sleep(rest if rest > 0 else min(self._idle_seconds, _LOOK_SECONDS))
        self.stop()
