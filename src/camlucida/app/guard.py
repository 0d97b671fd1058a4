"""Who may talk to the page: this machine's own browser, or who has the token."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
"""Of every response."""

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "camlucida-token"
CSRF = "x-camlucida"
"""The header that holds the page's secret in every request that does something."""


@dataclass(frozen=True)
class Guard:
    """Middleware before everything else.

    A request is answered only if its Host is this server's, which stops DNS rebinding; one that does something
    only if it comes from the page itself: its Origin is this server's and it holds the secret that the page was
    given. With a token nothing is answered without it.

    Attributes:
        app: what is guarded.
        hosts: names under which this server is known, with the port; empty where any name may lead here, which
            takes a token.
        secret: what the page's requests hold.
        token: what a browser has to show first; empty on this machine alone.
    """

    app: Any
    hosts: frozenset[str]
    secret: str
    token: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self._refusal(scope) or self.app
        await answer(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Any:
        """What is answered instead; ``None`` where the request is welcome."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self.hosts and host not in self.hosts:
            return _no(421, "this server does not answer under that name")
        if self.token and (answer := self._without_token(scope, headers)):
            return answer
        if headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}:
            return _no(403, "another page may not ask this server anything")
        reads = scope["method"] in {"GET", "HEAD"}
        return None if reads else self._foreign(f"{scope['scheme']}://{host}", headers)

    def _foreign(self, own: str, headers: Headers) -> Any:
        """What is answered to a request that does something and does not come from the page."""
        if headers.get("origin", "").lower() != own:
            return _no(403, "only the page itself may ask for this")
        if not secrets.compare_digest(headers.get(CSRF, "").encode(), self.secret.encode()):
            return _no(403, "the page is of an earlier start of the server; load it again")
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Any:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and given and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if COOKIE in cookies and self._is_token(cookies[COOKIE].value):
            return None
        return _no(
            401, "open the address with the token that was printed where the page was started"
        )

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.token.encode())


def hosts_of(names: Iterable[str], port: int) -> frozenset[str]:
    """The Host headers of these names."""
    return frozenset(
        f"{name}{end}".lower()
        for name in names
        for end in (f":{port}", *([""] if port == 80 else []))
    )


def with_token(address: str, token: str) -> str:
    """The address that a browser opens first."""
    return f"{address}?{urlencode({'token': token})}" if token else address


def _no(status: int, words: str) -> PlainTextResponse:
    return PlainTextResponse(words + "\n", status)
