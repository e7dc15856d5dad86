"""What a program sends to the demo, which need not be what the page sends."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gradio import Blocks
    from gradio.components import Component
    from httpx import Response
    from starlette.testclient import TestClient


class Program:
    """Calls the page's functions by name, as its frontend does, from a session of its own."""

    def __init__(self, http: "TestClient", page: "Blocks", session: str) -> None:
        self.http, self.page, self.session = http, page, session

    def call(
        self, function: str, values: Mapping[str, Any] | None = None, event: object = None
    ) -> Any:
        """Call and wait; the last message's output."""
        joined = self.join(function, values, event)
        assert joined.status_code == 200, joined.text
        return self.result()

    def join(
        self, function: str, values: Mapping[str, Any] | None = None, event: object = None
    ) -> "Response":
        """Ask for a call; `values` by label replace what the page shows first."""
        number, fn = next(
            (number, fn)
            for number, fn in self.page.fns.items()
            if fn.fn and fn.fn.__name__ == function
        )
        inputs = cast("list[Component]", fn.inputs)
        shown = {block: getattr(block, "value", None) for block in inputs if not block.stateful}
        sent = {block.label: value for block, value in shown.items()} | dict(values or {})
        body = {
            "data": [sent[block.label] if block in shown else None for block in inputs],
            "fn_index": number,
            "session_hash": self.session,
            "event_data": event,
        }
        # not httpx's own encoder, which refuses what is no JSON, such as NaN
        headers = {"content-type": "application/json"}
        return self.http.post("gradio_api/queue/join", content=json.dumps(body), headers=headers)

    def result(self) -> Any:
        """Wait for the calls that were asked for; the last message's output."""
        answer = self.http.get("gradio_api/queue/data", params={"session_hash": self.session})
        messages = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
        return next(m["output"] for m in messages if m["msg"] == "process_completed")
