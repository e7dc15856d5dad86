"""The page behind limits on who may ask, for what, and for how much."""

import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi.exceptions import RequestValidationError
from gradio.themes import Default
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server

from adapterbench.demo import upload
from adapterbench.demo.connections import PromptH11
from adapterbench.demo.limits import (
    BodyDeadline,
    ConcurrentRequests,
    FailuresPerMinute,
    QueueShare,
)
from adapterbench.demo.origin import SameOriginOnly
from adapterbench.demo.upload import Uploads

STYLE = Path(__file__).with_name("style.css")
MAX_BODY = 2**16
"""Bytes of a request: what the page sends are settings, and the file's frame in an upload."""
BODY_SECONDS = 60
"""For a request's body to arrive: an upload at 1.4 Mbit/s."""
HEAD_SECONDS = 10
"""For a request's head to arrive, and for a connection between two requests."""
QUEUE_SHARE = 8
"""Requests of one client in the queue."""
KINDS = ("", "-unsecure")
"""Of the cookies that Gradio sets at a login."""
LEAVE_SECONDS = 2
"""For open connections to end when the server does."""
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
PASS_ON = (
    "/",
    "/assets/{path:path}",
    "/config",
    "/favicon.ico",
    "/gradio_api/cancel",
    "/gradio_api/file=/{path:path}",
    "/gradio_api/heartbeat/{session}",
    "/gradio_api/queue/data",
    "/logout",
    "/manifest.json",
    "/static/{path:path}",
    "/svelte/{path:path}",
    "/theme.css",
)
"""Gradio's routes that the page needs; others write files, fetch addresses, or run functions."""


def application(
    page: gr.Blocks,
    uploads: Uploads,
    hosts: Sequence[str],
    auth: tuple[str, str] | None = None,
) -> Starlette:
    """The page as an ASGI application.

    Args:
        page: with its queue.
        uploads: takes what is uploaded.
        hosts: what a request's `Host` may be, without a port.
        auth: user name and password to log in with; None: everyone who may ask may use it.
    """
    app = Starlette(
        max_body_size=MAX_BODY,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(CORSMiddleware),  # no origin but its own; replaces Gradio's, which allows
            Middleware(SameOriginOnly),
            Middleware(ConcurrentRequests, each=64, total=512),
            Middleware(BodyDeadline, seconds=BODY_SECONDS),
        ],
    )
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        auth=auth,
        show_error=False,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        theme=Default(font=("system-ui", "sans-serif")).set(body_text_color_subdued="*neutral_600"),
        css_paths=STYLE,
        app_kwargs={"exception_handlers": {RequestValidationError: not_of_this_page}},
    )
    page.has_launched = True  # Gradio checks paths of files only then, and `launch` alone says so
    gradio: Any = app.routes.pop().app  # type: ignore[attr-defined]
    app.routes.extend(
        [
            Route(
                "/gradio_api/upload",
                uploads.receive,
                methods=["POST"],
                max_body_size=upload.MAX_BYTES + MAX_BODY,
                middleware=[
                    Middleware(LoggedInOnly, gradio=gradio),
                    Middleware(ConcurrentRequests, each=4, total=16),
                ],
            ),
            Route(
                "/gradio_api/queue/join",
                gradio,
                middleware=[Middleware(QueueShare, page=page, session=4, client=QUEUE_SHARE)],
            ),
            Route("/login", gradio, middleware=[Middleware(FailuresPerMinute, each=5, total=30)]),
            *(Route(path, gradio) for path in PASS_ON),
        ]
    )
    return app


async def not_of_this_page(_request: Request, _error: Exception) -> JSONResponse:
    """A refusal of JSON of another structure; FastAPI's own fails where the value is no JSON."""
    return JSONResponse({"detail": "Not a request of this page"}, 422)


class LoggedInOnly:
    """Refuses whom Gradio would, on a route that is not Gradio's."""

    def __init__(self, app: ASGIApp, gradio: Any) -> None:
        self.app, self.gradio = app, gradio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = Request(scope).cookies
        tokens = {cookies.get(f"access-token{kind}-{self.gradio.cookie_id}") for kind in KINDS}
        if self.gradio.auth is None or tokens & self.gradio.tokens.keys():
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("Not authenticated", 401)(scope, receive, send)


def server(app: Starlette) -> Server:
    """uvicorn, with limits below those of `application`."""
    return Server(
        Config(
            app,
            http=PromptH11,
            ws="none",
            headers=list(HEADERS.items()),
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=HEAD_SECONDS,
            timeout_graceful_shutdown=LEAVE_SECONDS,
        )
    )


def serve(app: Starlette, bound: socket.socket) -> None:
    """Serve until Ctrl-C, SIGTERM, or the terminal's end, which `nohup` keeps away."""
    serving = server(app)
    on_hangup = signal.getsignal(signal.SIGHUP)
    if on_hangup is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, serving.handle_exit)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn passes the signal on when it is done
            serving.run(sockets=[bound])
    finally:
        signal.signal(signal.SIGHUP, on_hangup)
