"""Rate limits per client, so that one client cannot block the others.

A client is an address; users behind a proxy that does not forward their addresses count as one.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from gradio import Blocks

MINUTE = 60


def client_of(scope: Scope) -> str:
    """The client of a request: its address; for IPv6 the /64, which one household or host owns."""
    host = scope["client"][0] if scope.get("client") else "local"
    try:
        address = ip_address(host)
    except ValueError:
        return str(host)
    return str(ip_network((address, 64), strict=False) if address.version == 6 else address)


class BodyDeadline:
    """Middleware: refuse a request whose body does not arrive completely in time."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self.seconds
        complete = scope["type"] != "http"

        async def receive_in_time() -> Message:
            nonlocal complete
            if complete:  # only the disconnect message remains
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, "The request took too long to arrive") from error
            complete = not message.get("more_body", False)
            return message

        await self.app(scope, receive_in_time, send)


class ConcurrentRequests:
    """Middleware: limit concurrent requests per client (`each`) and overall (`total`)."""

    def __init__(self, app: ASGIApp, each: int, total: int) -> None:
        self.app, self.each, self.total = app, each, total
        self.active = Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        if self.active[client] >= self.each or self.active.total() >= self.total:
            refusal = PlainTextResponse("Too many requests at a time: try again in a moment", 429)
            await refusal(scope, receive, send)
            return
        self.active[client] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.active[client] -= 1
            self.active += Counter()  # drop clients without requests


class FailuresPerMinute:
    """Middleware: limit failed requests, such as logins, per minute: per client and overall."""

    def __init__(self, app: ASGIApp, each: int, total: int) -> None:
        self.app, self.each, self.total = app, each, total
        self.tries = deque[tuple[float, str]]()
        """Time and client of each attempt that failed or has no response yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now, client = monotonic(), client_of(scope)
        while self.tries and now - self.tries[0][0] > MINUTE:
            self.tries.popleft()
        attempts = [time for time, other in self.tries if other == client]
        if len(attempts) >= self.each or len(self.tries) >= self.total:
            wait = ceil(MINUTE - (now - (attempts or [self.tries[0][0]])[0]))
            refusal = PlainTextResponse(
                f"Too many tries: wait {wait} seconds", 429, {"Retry-After": str(wait)}
            )
            await refusal(scope, receive, send)
            return
        attempt = (now, client)
        self.tries.append(attempt)

        async def send_and_forget_success(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                self.tries.remove(attempt)
            await send(message)

        await self.app(scope, receive, send_and_forget_success)


class Join(BaseModel):
    """The fields of a request to Gradio's queue that the limits need."""

    session_hash: Annotated[str, Field(min_length=1, max_length=64)]
    fn_index: int


class QueueShare(BaseHTTPMiddleware):
    """Middleware: limit queued and running events per session and per client.

    A client may have fewer events than there are free places (at least one), so the last places go
    to clients without events.
    """

    def __init__(self, app: ASGIApp, page: "Blocks", session: int, client: int) -> None:
        super().__init__(app)
        self.page, self.session, self.client = page, session, client
        self.lock = asyncio.Lock()

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        try:
            join = Join.model_validate(from_json(await request.body(), allow_inf_nan=False))
        except ValueError:  # includes pydantic's errors
            return refused(422, "Not a request of this page")
        if join.fn_index not in self.page.fns:
            return refused(422, "Not a request of this page: it has no such function")
        async with self.lock:  # count and enqueue atomically
            events = list(self.events())
            client = client_of(request.scope)
            of_session = sum(event.session_hash == join.session_hash for event in events)
            of_client = sum(client_of(event.request.scope) == client for event in events)
            queue = self.page._queue
            left = self.client if queue.max_size is None else queue.max_size - len(queue)
            if of_session >= self.session or of_client >= min(self.client, max(left, 1)):
                return refused(429, "You have too many requests waiting: wait for one, or stop it")
            return await call_next(request)

    def events(self) -> Iterator[Any]:
        """All waiting and running events."""
        queue = self.page._queue
        for waiting in queue.event_queue_per_concurrency_id.values():
            yield from waiting.queue
        for running in queue.active_jobs:
            yield from running or []


def refused(status: int, detail: str) -> Response:
    """A refusal that Gradio's page displays."""
    return JSONResponse({"detail": detail}, status)
