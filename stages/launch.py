"""Run a stage with the code of this copy of the project, through a launcher if one is set.

    python stages/launch.py stages/train.py ip_adapter --encoded data/encoded ...

Every `cmd` of the pipelines starts here. The `src` beside this folder comes first on the import
path, so a copy of the project (DVC makes one for a queued experiment) runs its own code.

ADAPTERBENCH_LAUNCH, for instance `accelerate launch --num_processes 8`, starts the stages that can
share their work in several processes. It is read here and not by a shell, so a stage's command, and
with it its digest in dvc.lock, is the same on every machine.

Standard library only: it runs before anything is known to be installed.
"""

import ctypes
import gc
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

SRC = Path(__file__).resolve().parents[1] / "src"
VARIABLE = "ADAPTERBENCH_LAUNCH"

SHARING = {"encode", "train", "sample", "score", "illustrate"}
"""Stages whose processes share the work; in other stages all would do the same."""

FOLLOWER = "ADAPTERBENCH_FOLLOWER"
"""Environment variable that marks the project's follower, which outlives every launch."""

GRACE = 30
"""Seconds between asking processes to end and killing them."""

INTERRUPTED = 130
"""Exit code of a stage that was interrupted, here and in `adapterbench.runs.program`."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # of Linux's <sys/prctl.h>


def main(script: str, *arguments: str) -> None:
    """Run `script` with its arguments; leave with its exit code."""
    sys.path[:1] = [str(SRC), str(Path(script).resolve().parent)]
    paths = [str(SRC), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # for the processes it starts
    launcher = read_launcher() if Path(script).stem in SHARING else []
    if launcher:
        sys.exit(supervise([*launcher, script, *arguments]))
    sys.argv = [script, *arguments]
    gc.disable()  # until the stage has imported what it needs: that takes a fifth of the time
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:  # during imports; later the stage reports it
        print("error: interrupted as it started: run the same command again", file=sys.stderr)
        sys.exit(INTERRUPTED)


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


if __name__ == "__main__":
    main(*sys.argv[1:])
