"""Connection limits: a timeout for request heads, and a maximum number per address."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

PER_ADDRESS = 128
"""Most open connections of one address; a process has about 1000 file descriptors."""


class PromptH11(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with its keep-alive timeout applied to request heads, too.

    uvicorn starts that timer only after the first response and stops it at the first byte, so a
    connection that never completes a request would stay open forever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client and self.client[0]
        clients = [getattr(connection, "client", None) for connection in self.connections]
        if sum(client is not None and client[0] == address for client in clients) > PER_ADDRESS:
            transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        self.conn.receive_data(data)
        self.handle_events()  # stops the timer at a complete head

    def shutdown(self) -> None:
        super().shutdown()
        self.transport.close()  # Gradio's event streams do not end by themselves
