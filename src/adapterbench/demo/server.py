"""Where the page is served: on this machine alone, unless a password is set.

Nothing here imports Gradio: `temporary_workspace` comes first.
"""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterbench.core.errors import UserError
from adapterbench.core.files import sibling, sweep
from adapterbench.demo.hosts import in_url, is_loopback

PASSWORD = "ADAPTERBENCH_PASSWORD"
"""Environment variable: a command line can be read by everyone on the machine."""
WORKSPACE = "adapterbench-demo"
"""In the names of temporary folders."""
USER = "demo"
"""Name to log in with."""


@contextmanager
def temporary_workspace() -> Iterator[Path]:
    """A folder that takes all temporary files, Gradio's too, and goes at the end.

    That of a demo that was killed goes when the next one starts. It also keeps Gradio from
    reporting its use. Both are read when Gradio is imported.
    """
    place = Path(tempfile.gettempdir())
    sweep(place, WORKSPACE)
    with tempfile.TemporaryDirectory(prefix=f"{sibling(place / WORKSPACE).name}-") as name:
        os.environ |= {"GRADIO_TEMP_DIR": name, "GRADIO_ANALYTICS_ENABLED": "False"}
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = None


def credentials(host: str) -> tuple[str, str] | None:
    """User name and password to log in with; None where nobody else can connect.

    Raises:
        UserError: others can connect and there is no password.
    """
    password = os.environ.get(PASSWORD)
    if password:
        return USER, password
    if not is_loopback(host):
        raise UserError(
            f"--host {host} lets others connect: set a password in {PASSWORD} (they log in as "
            f"{USER!r}), or leave --host out"
        )
    return None


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that people can connect to; they wait until it is served.

    Raises:
        UserError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is taken: choose another with --port") from error
        raise UserError(
            f"cannot serve at --host {host} --port {port} ({error.strerror}): "
            "choose an address of this machine, and a port from 1024 on"
        ) from error
    with bound:
        yield bound


def url(bound: socket.socket) -> str:
    """The address to open on this machine."""
    host, port = bound.getsockname()[:2]
    wildcard = host in ("0.0.0.0", "::")
    return f"http://{'localhost' if wildcard else in_url(host)}:{port}"
