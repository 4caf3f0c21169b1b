"""Access control: only requests with the token from the printed address are served.

A page of another site can send requests to this machine, and can make its own name lead here. So a request has to have
this server's name in its Host header, must not come from another site, and needs the cookie that the printed address
sets. Nothing but GET and HEAD is answered, unless tags may be changed: then a form of this server's pages may do that,
which also has a secret of its own. No page may load anything from elsewhere, apart from cards: they run in a
sandbox, but may load what their authors wrote into them.

Behind a proxy that asks for a login there is no token: who gets through has logged in. Only the names that the server
was given are answered then too. A page of another site may lead to a page there, as a login does, and do nothing else.
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
_TAGS, _LOADED = "/tags", "/loaded"
HEALTH = "/healthz"
_WHO_ASKS = {"", "none", "same-origin"}


@dataclass(frozen=True)
class Guard:
    """The outermost layer of the server.

    Args:
        app: The pages.
        token: The secret in the printed address; None where a proxy asks for a login.
        hosts: What the Host header may be: names with ports, or names that may have any port.
        cookie: The name of the cookie.
        may_edit_tags: Whether forms that change tags are passed on.
    """

    app: ASGIApp
    token: str | None
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
        if path == HEALTH:  # the kubelet asks by the pod's address
            return PlainTextResponse("ok\n")
        if headers.getlist("host")[1:] or not self._is_own(headers.get("host", "").lower()):
            return PlainTextResponse("This server has another name. Open the address that it has printed.\n", 403)
        if path.startswith(_OPEN):
            return self._opened(path.removeprefix(_OPEN), query.decode("latin-1"), headers)
        why = self._why_not(method, path, headers, is_form=is_form)
        return PlainTextResponse(f"{why}\n", 403) if why else None

    def _why_not(self, method: str, path: str, headers: Headers, *, is_form: bool) -> str:
        """The reason why a request under this server's name is refused; empty if it isn't."""
        if is_form and not _is_of_own_page(headers):
            return "This form is not of a page of this server."
        if headers.get("sec-fetch-site", "") not in _WHO_ASKS and not self._is_visit(method, path, headers):
            return "Another site asked for this page. Open it by its address."
        if self.token is None and path.endswith(_LOADED) and headers.get("sec-fetch-site") != "same-origin":
            return "An artifact is only loaded from its task's page, over HTTPS: else browsers don't say who asks."
        if self.token is not None and not self._has_cookie(headers):
            return "Open the address that the command has printed: its token is missing."
        return ""

    def _is_own(self, host: str) -> bool:
        return host in self.hosts or (host.rpartition(":")[0] or host) in self.hosts

    def _is_visit(self, method: str, path: str, headers: Headers) -> bool:
        """True if a person follows a link from elsewhere, or comes from a login, to a page that only shows data."""
        return (
            self.token is None
            and method in _READING
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
            and not path.endswith(_LOADED)
        )

    def _opened(self, rest: str, query: str, headers: Headers) -> Response:
        """Sets the cookie, and leads to the page whose path follows the token.

        The browser doesn't send a strict cookie along a redirect from elsewhere, so a page forwards to it.
        """
        token, _, path = rest.partition("/")
        if self.token is not None and not self._is_token(token):
            return PlainTextResponse("The token is wrong, or the server was started again since.\n", 403)
        target = "/" + path.lstrip("/\\")
        answer = HTMLResponse(_leading_to(target, query), headers={"Referrer-Policy": "no-referrer"})
        if self.token is not None:
            is_secure = headers.get("x-forwarded-proto", "") == "https"
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/", secure=is_secure)
        return answer

    def _has_cookie(self, headers: Headers) -> bool:
        # All servers of this machine share their cookies, and any of them may have written one that is not valid.
        return self._is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, ""))

    def _is_token(self, token: str) -> bool:
        assert self.token is not None
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
