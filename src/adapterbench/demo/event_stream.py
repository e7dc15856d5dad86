"""Gradio's stream of events, kept open for a while after the last one.

Gradio ends the stream when a session has nothing to wait for, and its page opens another for the
next event, unless it has not seen the end yet: then the results of that event never arrive, and the
page waits for them for ever. This happens to who clicks right after a result. A stream that ends
seconds later is not met by such a click.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from gradio.blocks import Blocks

POLL_SECONDS = 0.02
"""Between looks for an event."""
END = b'"close_stream"'
"""In the message by which Gradio ends the page's stream."""


class LingeringStream:
    """Middleware of the route of the stream: hold its end back while further events may come."""

    def __init__(self, app: ASGIApp, page: "Blocks", seconds: float) -> None:
        """See the module.

        Args:
            app: Gradio.
            page: whose queue has the events.
            seconds: how long to hold the end back.
        """
        self.app, self.page, self.seconds = app, page, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, relay = Request(scope, receive), Relay(send)
        await self.app(scope, receive, relay)
        while relay.end and await self.has_event(request):
            relay.end = None
            await self.app(scope, receive, relay)
        await relay.finish()

    async def has_event(self, request: Request) -> bool:
        """Whether the session gets an event in time, from a page that is still there."""
        until = time.monotonic() + self.seconds
        events = self.page._queue.pending_event_ids_session
        while not events.get(request.query_params.get("session_hash", "")):
            if time.monotonic() > until or await request.is_disconnected():
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True


class Relay:
    """Sends the bodies of consecutive responses as one, without their ends."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.started = False
        self.end: Message | None = None
        """Gradio's message that nothing comes any more, which is held back."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not self.started:
                self.started = True
                await self.send(message)
        elif END in message.get("body", b""):
            self.end = message
        elif message.get("body"):
            await self.send({**message, "more_body": True})

    async def finish(self) -> None:
        """Send what was held back."""
        if self.end:
            await self.send({**self.end, "more_body": True})
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})
