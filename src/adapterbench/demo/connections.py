"""Connections that ask for nothing are closed, and no address holds all of them."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PER_ADDRESS = 128
"""Connections that an address may hold; a process has about 1000 file descriptors."""


class PromptH11(H11Protocol):
    """uvicorn's HTTP/1.1, with its keep-alive timeout as the time for a request's head.

    uvicorn stops that clock at the first byte, and starts it after the first answer only, so
    that a connection which never completes a request would stay for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client and self.client[0]
        clients = [getattr(each, "client", None) for each in self.connections]
        if sum(client is not None and client[0] == address for client in clients) > PER_ADDRESS:
            transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()  # stops the clock at a complete head

    def shutdown(self) -> None:
        super().shutdown()
        self.transport.close()  # Gradio's event streams would not end by themselves
