"""Access control: only requests with the token from the printed address are served.

A page of another site can send requests to this machine, and can make its own name lead here. So a request has to have
this server's name in its Host header, must not come from another site, and needs the cookie that the printed address
sets. Nothing but GET and HEAD is answered, unless tags may be changed: then a form of this server's pages may do that,
which also has a secret of its own. No page may load anything from elsewhere, apart from cards: they run in a
sandbox, but may load what their authors wrote into them.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A card may have scripts of its own. It gets neither this site's rights nor the reader's cookies, framed or not.
CARD_POLICY = "sandbox allow-scripts allow-popups; frame-ancestors 'self'"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, the form of a page would not say where it comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_OPEN = "/open/"
_READING = {"GET", "HEAD"}
_TAGS = "/tags"
_WHO_ASKS = {"", "none", "same-origin"}


@dataclass(frozen=True)
class Guard:
    """The outermost layer of the server.

    Args:
        app: The pages.
        token: The secret in the printed address.
        hosts: What the Host header may be: names with ports.
        cookie: The name of the cookie.
        may_edit_tags: Whether forms that change tags are passed on.
    """

    app: ASGIApp
    token: str
    hosts: Collection[str]
    cookie: str
    may_edit_tags: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it to the pages."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope["method"], scope["path"], scope["query_string"], Headers(scope=scope))
        await (answer or self.app)(scope, receive, send_with_headers)

    def _answer(self, method: str, path: str, query: bytes, headers: Headers) -> Response | None:
        """The answer to a request that the pages don't get; None for others."""
        is_form = method == "POST" and self.may_edit_tags and path.endswith(_TAGS)
        if method not in _READING and not is_form:
            return PlainTextResponse("This server only reads.\n", 405, {"Allow": "GET, HEAD"})
        if headers.getlist("host")[1:] or headers.get("host", "") not in self.hosts:
            return PlainTextResponse("This server has another name. Open the address that it has printed.\n", 403)
        if path.startswith(_OPEN):
            return self._opened(path.removeprefix(_OPEN), query.decode("latin-1"))
        if headers.get("sec-fetch-site", "") not in _WHO_ASKS or (is_form and not _is_of_own_page(headers)):
            return PlainTextResponse("Another site asked for this page. Open it by its address.\n", 403)
        if not self._has_cookie(headers):
            return PlainTextResponse("Open the address that the command has printed: its token is missing.\n", 403)
        return None

    def _opened(self, rest: str, query: str) -> Response:
        """Sets the cookie, and leads to the page whose path follows the token.

        The browser doesn't send a strict cookie along a redirect from elsewhere, so a page forwards to it.
        """
        token, _, path = rest.partition("/")
        if not self._is_token(token):
            return PlainTextResponse("The token is wrong, or the server was started again since.\n", 403)
        target = "/" + path.lstrip("/\\")
        answer = HTMLResponse(_leading_to(target, query), headers={"Referrer-Policy": "no-referrer"})
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        # All servers of this machine share their cookies, and any of them may have written one that is not valid.
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, ""))

    def _is_token(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def _is_of_own_page(headers: Headers) -> bool:
    """True if a form comes from a page of this server; every browser says so."""
    origins = headers.getlist("origin")
    return len(origins) == 1 and urlsplit(origins[0]).netloc == headers["host"]


def _leading_to(target: str, query: str) -> str:
    """A page that leads to another one of this server at once, without JavaScript.

    Args:
        target: The decoded path of the other one.
        query: What follows it in the address, encoded.
    """
    path = quote(target, safe="/")
    if query:
        path += "?" + "&amp;".join(quote(each, safe="=%+-._~") for each in query.split("&"))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>k8sflow</title>'
        f'<meta http-equiv="refresh" content="0; url={path}"></head>'
        f'<body><p><a href="{path}">Continue</a></p></body></html>'
    )
