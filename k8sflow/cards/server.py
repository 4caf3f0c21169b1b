"""Shows the cards of a run in the browser, and follows them while its tasks run; on this machine only, read only."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from k8sflow.cards.markup import Html, html_of, joined, tag
from k8sflow.cards.page import document
from k8sflow.cards.stored import Card
from k8sflow.errors import K8sflowError

ADDRESS = "127.0.0.1"
_FOLLOW = """
const frame = document.querySelector("iframe"); let version = null, data = null;
async function look() {
  try {
    const found = await (await fetch("VERSION", { cache: "no-store" })).json();
    if (version !== null && found.page !== version) { frame.src = frame.src; }
    if (found.data !== data && found.data) { frame.contentWindow.postMessage(JSON.parse(found.data), "*"); }
    version = found.page; data = found.data;
  } catch (error) { /* the server has ended */ }
  setTimeout(look, 1000);
}
look();
"""
# A card that was written for Metaflow has this function, to show the data of a refresh without being loaded again.
LISTEN = (
    "<script>addEventListener('message', (e) => { "
    "if (window.metaflow_card_update) window.metaflow_card_update(e.data); });</script>"
)
_STYLE = """body { margin: 0; display: flex; flex-direction: column; height: 100vh; font: 14px system-ui, sans-serif; }
nav { padding: 8px 14px; border-bottom: 1px solid #8888; } iframe { flex: 1; border: 0; width: 100%; }
:root { color-scheme: light dark; }"""


def own_hosts(port: int) -> set[str]:
    """The possible Host headers of requests to a server on this machine."""
    return {f"{ADDRESS}:{port}", f"localhost:{port}"}


class CardServer(ThreadingHTTPServer):
    """The server; ``url`` has the token without which it answers nothing.

    Args:
        title: A title.
        cards: Finds the cards that there are now, with the pathspecs of their tasks.
        port: The port; 0 for any free one.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, title: str, cards: Callable[[], Sequence[tuple[str, Card]]], port: int) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.title = title
        self.cards = cards
        self.token = secrets.token_urlsafe(16)

    @property
    def url(self) -> str:
        """The address of the list of cards."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def answer(self, path: str, host: str) -> tuple[HTTPStatus, str, str]:
        """The status, the type and the text for a path.

        Args:
            path: The path of the request.
            host: Its Host header: a page of another site may let its name lead here.
        """
        token, _, rest = path.partition("?")[0].lstrip("/").partition("/")
        is_ours = host in own_hosts(self.server_port)
        if not is_ours or not hmac.compare_digest(token.encode(), self.token.encode()):
            return HTTPStatus.FORBIDDEN, "text/plain", "Open the address that the command has printed."
        found = {f"{pathspec}/{card.file}": card for pathspec, card in self.cards()}
        if not rest:
            return HTTPStatus.OK, "text/html", self._listing(list(found))
        name, _, kind = unquote(rest).rpartition("/")
        if name not in found:
            return HTTPStatus.NOT_FOUND, "text/plain", "There is no such card."
        return HTTPStatus.OK, *_shown(found[name], name, kind)

    def _listing(self, names: Sequence[str]) -> str:
        rows = [tag("li", tag("a", name, href=f"{quote(name, safe='/')}/view")) for name in names]
        body = (
            tag("ul", *rows) if rows else tag("p", "There are cards as soon as tasks have made some.", class_="muted")
        )
        return document(self.title, body).replace("<head>", '<head><meta http-equiv="refresh" content="3">')


def _shown(card: Card, name: str, kind: str) -> tuple[str, str]:
    if kind == "page":
        return "text/html", card.get() + (LISTEN if card.get_data() else "")
    if kind == "version":
        page = sha256(card.get().encode("utf-8", "replace")).hexdigest()
        return "application/json", json.dumps({"page": page, "data": card.get_data()})
    up = "../" * (name.count("/") + 1)
    view = [
        tag("nav", tag("a", "All cards", href=up), " ", name),
        tag("iframe", src="page", sandbox="allow-scripts", title=name),
        tag("script", Html(_FOLLOW.replace("VERSION", "version"))),
    ]
    head = joined([tag("meta", charset="utf-8"), tag("title", name), tag("style", Html(_STYLE))])
    return "text/html", "<!DOCTYPE html>\n" + html_of(tag("html", tag("head", head), tag("body", *view), lang="en"))


class _Handler(BaseHTTPRequestHandler):
    server: CardServer

    def do_GET(self) -> None:
        """Answers a request."""
        try:
            status, kind, text = self.server.answer(self.path, self.headers.get("Host", ""))
        except K8sflowError as error:
            status, kind, text = HTTPStatus.BAD_GATEWAY, "text/plain", str(error)
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if unquote(self.path.partition("?")[0]).endswith(
            "/page"
        ):  # also where it is opened by itself, a card can't act as this server
            self.send_header("Content-Security-Policy", "sandbox allow-scripts")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments: Any) -> None:
        """Prints nothing: the token would be in it."""
