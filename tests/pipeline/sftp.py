"""A real SFTP server on the loopback, for one key, in a thread of the tests."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh


@dataclass(frozen=True)
class Server:
    """Where it listens and who may come."""

    port: int
    keyfile: Path


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve the file system to the holder of the key that is written to `folder`."""
    host, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    keyfile, allowed = folder / "key", folder / "authorized_keys"
    client.write_private_key(keyfile)
    client.write_public_key(allowed)

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host],
            authorized_client_keys=str(allowed),
            sftp_factory=True,
        )

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        yield Server(server.get_port(), keyfile)
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
