"""Address, login and temporary folder of the server: loopback only, unless a password is set.

This module does not import Gradio, which must come after `temporary_workspace`.
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
"""Environment variable of the password; other users could read it on a command line."""
WORKSPACE = "adapterbench-demo"
"""Part of the names of temporary folders."""
USER = "demo"
"""User name of the login."""


@contextmanager
def temporary_workspace() -> Iterator[Path]:
    """A folder for all temporary files, including Gradio's; deleted at the end.

    The folder of a killed demo is deleted at the next start. Also disables Gradio's telemetry.
    Gradio reads both settings when it is imported.
    """
    parent = Path(tempfile.gettempdir())
    sweep(parent, WORKSPACE)
    with tempfile.TemporaryDirectory(prefix=f"{sibling(parent / WORKSPACE).name}-") as name:
        os.environ |= {"GRADIO_TEMP_DIR": name, "GRADIO_ANALYTICS_ENABLED": "False"}
        tempfile.tempdir = name
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = None


def credentials(host: str) -> tuple[str, str] | None:
    """User name and password of the login; None: no password is set and `host` is loopback.

    Raises:
        UserError: others can connect and no password is set.
    """
    password = os.environ.get(PASSWORD)
    if password:
        return USER, password
    if not is_loopback(host):
        raise UserError(
            f"--host {host} lets others connect: set a password in {PASSWORD} (the user "
            f"name is {USER!r}), or omit --host"
        )
    return None


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; connections wait until the server accepts them.

    Raises:
        UserError: the port is in use, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use: choose another with --port") from error
        raise UserError(
            f"cannot serve at --host {host} --port {port} ({error.strerror}): "
            "choose an address of this machine, and a port of at least 1024"
        ) from error
    with bound:
        yield bound


def url(bound: socket.socket) -> str:
    """The address to open on this machine."""
    host, port = bound.getsockname()[:2]
    wildcard = host in ("0.0.0.0", "::")
    return f"http://{'localhost' if wildcard else in_url(host)}:{port}"
