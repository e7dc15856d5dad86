"""Where a request may come from: the page itself, which no other page frames."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every response; Gradio needs its inline scripts and styles, and templates that it compiles."""
REWRITES = {b"x-forwarded-host", b"x-gradio-server"}
"""Headers by which a client could choose the address that Gradio writes into the page."""


class ResponseHeaders:
    """Adds `HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class SameOriginOnly:
    """Refuses what a page of another origin sends; other sites may link to `/`, no more.

    CORS alone would not do: it keeps answers from other pages, but lets them post forms and files.
    Programs, which send no `Origin`, are served.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in REWRITES]
            if not (same_origin(Headers(scope=scope)) or is_link(scope)):
                refusal = PlainTextResponse("Refused: sent by a page of another site", 403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


def same_origin(headers: Headers) -> bool:
    """Whether a request comes from this server's own page, or from no page.

    Browsers send `Sec-Fetch-Site` to trustworthy addresses only, `Origin` not with every GET.
    """
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers["host"].lower():
        return False
    return headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def is_link(scope: Scope) -> bool:
    """Whether a request opens the page in a tab, as a click on a link does."""
    headers = Headers(scope=scope)
    return (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and "origin" not in headers
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
