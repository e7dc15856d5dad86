"""The ASGI application: the page behind access control and rate limits."""

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
from adapterbench.demo.event_stream import LingeringStream
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
"""Largest request body in bytes: settings, or the multipart overhead of an upload."""
BODY_SECONDS = 60
"""Timeout for a request body: 10 MB at 1.4 Mbit/s."""
HEAD_SECONDS = 10
"""Timeout for a request head, and for an idle connection."""
QUEUE_SHARE = 8
"""Most requests of one client in the queue."""
COOKIE_SUFFIXES = ("", "-unsecure")
"""Suffixes of the login cookies that Gradio sets."""
LINGER_SECONDS = 5
"""How long a session's stream of events stays open after the last one."""
SHUTDOWN_SECONDS = 2
"""Time for open connections to finish at shutdown."""
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
"""Security headers of every response; Gradio needs inline scripts, inline styles and `eval`."""
GRADIO_ROUTES = (
    "/",
    "/assets/{path:path}",
    "/config",
    "/favicon.ico",
    "/gradio_api/cancel",
    "/gradio_api/file=/{path:path}",
    "/gradio_api/heartbeat/{session}",
    "/logout",
    "/manifest.json",
    "/static/{path:path}",
    "/svelte/{path:path}",
    "/theme.css",
)
"""Gradio's routes that the page needs; others write files, fetch URLs or run functions."""


def application(
    page: gr.Blocks,
    uploads: Uploads,
    hosts: Sequence[str],
    auth: tuple[str, str] | None = None,
) -> Starlette:
    """Build the ASGI application.

    Args:
        page: the page, with its queue enabled.
        uploads: receives uploaded images.
        hosts: allowed values of the `Host` header, without a port.
        auth: user name and password of the login; None: no login.
    """
    app = Starlette(
        max_body_size=MAX_BODY,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(CORSMiddleware),  # allows no other origin; replaces Gradio's, which does
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
        app_kwargs={"exception_handlers": {RequestValidationError: invalid_request}},
    )
    page.has_launched = True  # Gradio checks file paths only if set, which only `launch` does
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
            Route(
                "/gradio_api/queue/data",
                gradio,
                middleware=[Middleware(LingeringStream, page=page, seconds=LINGER_SECONDS)],
            ),
            Route("/login", gradio, middleware=[Middleware(FailuresPerMinute, each=5, total=30)]),
            *(Route(path, gradio) for path in GRADIO_ROUTES),
        ]
    )
    return app


async def invalid_request(_request: Request, _error: Exception) -> JSONResponse:
    """Response to a request body of another structure; FastAPI's own fails on NaN and infinity."""
    return JSONResponse({"detail": "Not a request of this page"}, 422)


class LoggedInOnly:
    """Middleware: require Gradio's login on a route that is not Gradio's."""

    def __init__(self, app: ASGIApp, gradio: Any) -> None:
        self.app, self.gradio = app, gradio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cookies = Request(scope).cookies
        tokens = {
            cookies.get(f"access-token{suffix}-{self.gradio.cookie_id}")
            for suffix in COOKIE_SUFFIXES
        }
        if self.gradio.auth is None or tokens & self.gradio.tokens.keys():
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("Not authenticated", 401)(scope, receive, send)


def server(app: Starlette) -> Server:
    """A uvicorn server with timeouts and security headers."""
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
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
    )


def serve(app: Starlette, bound: socket.socket) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP (unless ignored, as under `nohup`)."""
    serving = server(app)
    on_hangup = signal.getsignal(signal.SIGHUP)
    if on_hangup is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, serving.handle_exit)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn re-raises the signal at the end
            serving.run(sockets=[bound])
    finally:
        signal.signal(signal.SIGHUP, on_hangup)
