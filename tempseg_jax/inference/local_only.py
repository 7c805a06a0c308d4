"""ASGI middleware that answers only pages and addresses of this machine.

A server on 127.0.0.1 can still be reached by any page that the browser of this machine
shows: by a form that posts to it, or by a host name that resolves to 127.0.0.1.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

LOCAL = ("127.0.0.1", "localhost", "::1")


class LocalOnly:
    """Refuses requests whose host or origin is not this machine, with code 403."""

    def __init__(self, app: Callable):
        """Wrap an ASGI application."""
        self._app = app

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable],
        send: Callable[[dict[str, Any]], Awaitable],
    ) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http":
            headers = {k.lower(): v.decode("latin-1") for k, v in scope["headers"]}
            reason = refusal(headers.get(b"host", ""), headers.get(b"origin"))
            if reason:
                text = [(b"content-type", b"text/plain; charset=utf-8")]
                start = {"type": "http.response.start", "status": 403, "headers": text}
                await send(start)
                await send({"type": "http.response.body", "body": reason.encode()})
                return
        await self._app(scope, receive, send)


def refusal(host: str, origin: str | None) -> str | None:
    """Return why a request is refused; None if it is not."""
    if _name(f"//{host}") not in LOCAL:
        return f"host {host[:80]!r} is not this machine, the only one that is served"
    if origin is not None and _name(origin) not in LOCAL:
        return f"a page of {origin[:80]!r} may not use this one"
    return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
