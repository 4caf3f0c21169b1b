"""The server itself: an address of this machine with a secret in it, and the pages behind it."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from k8sflow.cards.server import ADDRESS, own_hosts
from k8sflow.errors import ConfigurationError
from k8sflow.ui.app import Ui
from k8sflow.ui.guard import Guard

TOKEN_VARIABLE = "K8SFLOW_UI_TOKEN"  # noqa: S105  its name
_LOOK_SECONDS = 5.0
_FEWEST_LETTERS = 16


@dataclass(frozen=True)
class Reach:
    """The ways to the server: its address, its names, and who is let in.

    Args:
        address: The address it listens on.
        hosts: Further names under which it is reached, each with a port, or without one for any.
        token: The secret of its address; empty for a random one.
        is_behind_login: Whether a proxy before it asks for a login, so that no token is needed.

    Raises:
        ConfigurationError: These don't fit together.
    """

    address: str = ADDRESS
    hosts: tuple[str, ...] = ()
    token: str = ""
    is_behind_login: bool = False

    def __post_init__(self) -> None:
        try:
            is_local = self.is_local
        except ValueError as error:
            raise ConfigurationError(f"{self.address!r} is not an address.", advice="Write 0.0.0.0, or ::.") from error
        if not is_local and not self.hosts:
            raise ConfigurationError(
                f"the server would listen on {self.address} without a name.",
                cause="Pages of other sites can let their own names lead to it, so it only answers to names it knows.",
                advice="Add the name by which people reach it: --allowed-host runs.example.com",
            )
        for host in self.hosts:
            if not host or "/" in host or "*" in host:
                raise ConfigurationError(
                    f"{host!r} can't be a name of the server.", advice="Write runs.example.com, or localhost:8080."
                )
        if self.token and (len(self.token) < _FEWEST_LETTERS or not _is_plain(self.token)):
            raise ConfigurationError(
                f"{TOKEN_VARIABLE} can't be the token of an address.",
                cause=f"A token has at least {_FEWEST_LETTERS} letters, digits, - or _.",
                advice="Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(24))'",
            )
        if self.token and self.is_behind_login:
            raise ConfigurationError(
                f"{TOKEN_VARIABLE} and --behind-login exclude each other.",
                cause="Behind a login, no token is needed.",
                advice="Remove one of them.",
            )

    @property
    def is_local(self) -> bool:
        """True if only this machine reaches it."""
        return ip_address(self.address).is_loopback


def _is_plain(token: str) -> bool:
    return all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in token)


class UiServer:
    """The server; it listens as soon as it exists.

    Args:
        ui: The pages.
        port: The port; 0 for any free one.
        idle_seconds: After how many seconds without a request it ends; None for never.
        may_end: Whether it ends then; where it returns False, it is asked again after the same time.
        reach: How it is reached.

    Raises:
        OSError: The port is taken.
    """

    def __init__(
        self,
        ui: Ui,
        port: int = 0,
        idle_seconds: float | None = None,
        may_end: Callable[[], bool] | None = None,
        reach: Reach = Reach(),
    ) -> None:
        family = socket.AF_INET6 if ":" in reach.address else socket.AF_INET
        self._socket = socket.create_server((reach.address, port), family=family)
        self.port: int = self._socket.getsockname()[1]
        self.token = None if reach.is_behind_login else reach.token or secrets.token_urlsafe(24)
        self._reach = reach
        self._idle_seconds = idle_seconds
        self._may_end = may_end
        self._asked_at = time.monotonic()
        hosts = own_hosts(self.port) | {host.lower() for host in reach.hosts}
        guard = Guard(ui.application(), self.token, hosts, f"k8sflow-ui-{self.port}", ui.may_edit_tags)
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
        """The address that opens a page, with the secret; without it where logs of other machines might keep it.

        Args:
            path: The path of the page.
        """
        address = f"[{self._reach.address}]" if ":" in self._reach.address else self._reach.address
        is_secret = self._reach.token and not self._reach.is_local
        opening = "" if self.token is None else f"/open/{'TOKEN' if is_secret else self.token}"
        return f"http://{address}:{self.port}{opening}{path}"

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
