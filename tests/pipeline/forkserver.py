"""A `python` and a `dvc` that start at once, on Linux.

Importing torch and diffusers takes most of the time of a toy stage. A server does it once
and forks for each call; the package itself is imported afresh, from the project of the stage.
"""

import ctypes
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

HEAVY = (
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "dvc.cli.parser",
    "dvc.repo.experiments",
    "matplotlib.figure",
    "open_clip",
    "pandas",
    "peft",
    "seaborn",
    "torch",
    "transformers",
    "webdataset",
)
PR_SET_NAME = 15  # of Linux's <sys/prctl.h>
START = 600
"""Seconds that the server may take to import them."""


@contextmanager
def running(env: dict[str, str]) -> Iterator[Path]:
    """Serve as long as the block runs; yields the folder with the two commands for PATH."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        address = str(folder / "socket")
        ask = f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" call "{address}"'
        dvc = Path(sys.executable).with_name("dvc")
        for name, script in {"python": "", "dvc": f'"{dvc}"'}.items():
            (folder / name).write_text(f'{ask} {script} "$@"\n')
            (folder / name).chmod(0o755)
        server = subprocess.Popen([sys.executable, __file__, "serve", address], env=env)
        try:
            until = time.monotonic() + START
            while not Path(address).exists():
                assert server.poll() is None, "the server has died"
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.1)
            yield folder
        finally:
            server.terminate()
            server.wait()


def call(address: str, *argv: str) -> int:
    """Have the server run a script as this process would; its exit code."""
    request = {
        "argv": argv,
        "cwd": os.getcwd(),  # noqa: PTH109 - pathlib is half the start of this process
        "env": dict(os.environ),
        "group": os.getpgrp(),
        "parent": os.getppid(),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"0"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        return int(connection.recv(8) or b"1")


def serve(address: str) -> None:
    """Import the libraries, then fork for each call."""
    for name in HEAVY:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        Path(f"{address}.new").rename(address)
        while True:
            connection, _ = listening.accept()
            with connection:
                if os.fork() == 0:
                    listening.close()
                    answer(connection)


def answer(connection: socket.socket) -> None:
    """In the fork: become the process that called, run its script, send its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, fds, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.loads(connection.makefile().readline())
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.setpgid(0, request["group"])  # what kills the caller's group kills this
    ctypes.CDLL(None).prctl(PR_SET_NAME, Path(request["argv"][0]).name.encode())
    os.getppid = lambda: request["parent"]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    script = Path(sys.argv[0]).resolve()
    sys.path[0] = str(script.parent)
    sys.path[1:1] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    code = exit_code(script)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(code).encode())
    os._exit(code)


def exit_code(script: Path) -> int:
    """Run a script as `__main__`."""
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "call":
        sys.exit(call(*sys.argv[2:]))
    serve(sys.argv[2])
