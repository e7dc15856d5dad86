"""Same-origin check: requests come from this server's page or from no page."""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

REWRITES = {b"x-forwarded-host", b"x-gradio-server"}
"""Headers that would let a client set the server address in Gradio's page; they are removed."""


class SameOriginOnly:
    """Middleware: refuse requests from pages of other origins, except links to `/`.

    CORS is not enough: it hides responses from other pages but lets them post forms and files.
    Programs, which send no `Origin`, are allowed.
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
    """Whether a request comes from this server's page or from no page.

    Both headers are checked: browsers send `Sec-Fetch-Site` to trustworthy origins only, and
    `Origin` not with every GET.
    """
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != headers["host"].lower():
        return False
    return headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def is_link(scope: Scope) -> bool:
    """Whether a request is a top-level navigation to `/`, such as a click on a link."""
    headers = Headers(scope=scope)
    return (
        scope["method"] == "GET"
        and scope["path"] == "/"
        and "origin" not in headers
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
