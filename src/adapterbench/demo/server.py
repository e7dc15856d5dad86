"""Where the page is served: on this machine alone, unless a password is set."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from adapterbench.core.errors import UserError

if TYPE_CHECKING:
    from gradio import Blocks

PASSWORD = "ADAPTERBENCH_PASSWORD"
"""Environment variable: a command line can be read by everyone on the machine."""
USER = "demo"
"""Name to log in with."""
STYLE = Path(__file__).with_name("style.css")


@contextmanager
def nothing_left_behind() -> Iterator[Path]:
    """A folder that takes all temporary files, Gradio's too, and goes at the end.

    It also keeps Gradio from reporting its use. Both are read when Gradio is imported.
    """
    with tempfile.TemporaryDirectory(prefix="adapterbench-demo-") as name:
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


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone; a name other than localhost is not."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(page: "Blocks", host: str, port: int, auth: tuple[str, str] | None) -> str:
    """Serve the page in the background; return its address.

    Raises:
        UserError: the port is taken.
    """
    from gradio.themes import Default

    from adapterbench.demo.upload import MAX_BYTES

    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            auth=auth,
            max_file_size=MAX_BYTES,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            state_session_capacity=100,
            theme=Default(font=("system-ui", "sans-serif")).set(
                body_text_color_subdued="*neutral_600"
            ),
            css_paths=STYLE,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"port {port} is taken: choose another with --port") from error
    return str(url)
