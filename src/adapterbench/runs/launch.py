"""A launcher, such as `accelerate launch`, that runs a stage in several processes.

Standard library only, and nothing of the package: `stages/launch.py` imports it before anything is
known to be installed.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

VARIABLE = "ADAPTERBENCH_LAUNCH"
"""Environment variable with the launcher's command."""

FOLLOWER = "ADAPTERBENCH_FOLLOWER"
"""Environment variable that marks the project's follower, which outlives every launch."""

GRACE = 30
"""Seconds between asking processes to end and killing them."""

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux's <sys/prctl.h>


def read_launcher() -> list[str]:
    """The words of the launcher's command; none where the variable is unset or empty."""
    try:
        return shlex.split(os.environ.get(VARIABLE, ""))
    except ValueError as error:
        fail(f"{VARIABLE} cannot be split into words ({error}): quote it as in a shell")


def supervise(command: list[str]) -> int:
    """Run a launcher in a process group of its own; its exit code, 128 + n if signal n ended it.

    Signals go on to the group. When the launcher has ended, however it did, whatever it has left
    behind is ended too; and it gets SIGTERM if this process is killed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc:  # orphans become this process's children, whatever group they are in
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        launcher = subprocess.Popen(
            command,
            process_group=0,
            preexec_fn=partial(libc.prctl, PR_SET_PDEATHSIG, signal.SIGTERM) if libc else None,
        )
    except OSError as error:
        fail(
            f"{VARIABLE} names {command[0]!r}, which does not start ({error.strerror}): "
            "install it, correct the variable or unset it"
        )

    def forward(number: int, _frame: object) -> None:
        kill_group(launcher.pid, number)
        signal.alarm(GRACE)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.signal(signal.SIGALRM, lambda *_: kill_group(launcher.pid, signal.SIGKILL))
    code = launcher.wait()
    signal.alarm(0)
    kill_group(launcher.pid, signal.SIGTERM)
    end_orphans()
    return code if code >= 0 else 128 - code


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it still exists."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def end_orphans() -> None:
    """End the children that are left (Linux): by SIGTERM, after `GRACE` seconds by SIGKILL.

    The follower, which a stage may have started, is spared.
    """
    deadline = time.monotonic() + GRACE
    asked: set[int] = set()
    while orphans := {pid for pid in children() if not is_follower(pid)}:
        late = time.monotonic() > deadline
        for pid in orphans if late else orphans - asked:
            os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= orphans
        time.sleep(0.05)
        for pid in orphans:
            os.waitpid(pid, os.WNOHANG)


def children() -> set[int]:
    """Processes whose parent is this one, as Linux lists them."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in lists for pid in path.read_text().split()}


def is_follower(pid: int) -> bool:
    """Whether a process is the project's follower; one that has ended is not."""
    with suppress(OSError):
        return f"{FOLLOWER}=1".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def fail(message: str) -> NoReturn:
    """Leave with one line."""
    sys.exit(f"error: {message}")
