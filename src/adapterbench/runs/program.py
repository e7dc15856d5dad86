"""Command line programs: logging, and errors as one line with cause and remedy."""

import errno
import functools
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.runs.identity import end_with_dvc
from adapterbench.runs.memory import freeze_imports, keep_freed_memory

EXTRAS = "pipeline,tracking,demo"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NO_MEMORY = {"MemoryError", "OutOfMemoryError"}
"""Exceptions of Python and torch, by name, so that torch is not imported."""
LOST = {"DistBackendError", "DistNetworkError"}
"""Exceptions of `torch.distributed`, by name."""
LOADER_WORKER = "DataLoader worker"
"""torch's name of a loader process in errors, which have no class of their own."""


Remedy = Callable[[Path], str]
"""A generated file -> how to generate it again, such as "run `make it`"."""


def run(*mains: Callable[..., None], help: str | None = None, remedy: Remedy | None = None) -> None:
    """Run functions as a command line program; their docstrings are the `--help`.

    One function is the program itself, such as a stage's `main`; several are its commands, under
    a common `help`. `remedy` completes the message of an `InputError`.

    Exit codes: 0 success, 1 an error that the user can correct, 2 bad arguments, 130 interrupted
    (Ctrl-C, SIGTERM or SIGHUP, which all clean up).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_with_dvc()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` ignores it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    keep_freed_memory()
    freeze_imports()
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False)
    logging.basicConfig(format="%(message)s", handlers=[handler])
    # of libraries, only warnings are shown
    logging.getLogger("adapterbench").setLevel(logging.INFO)
    program(*mains, help=help, remedy=remedy)()


def program(
    *mains: Callable[..., None], help: str | None = None, remedy: Remedy | None = None
) -> typer.Typer:
    """The program that `run` runs."""
    app = typer.Typer(
        help=help,
        add_completion=False,
        no_args_is_help=len(mains) > 1,
        pretty_exceptions_enable=False,
    )
    for main in mains:
        app.command()(guarded(main, remedy))
    return app


def guarded(main: Callable[..., None], remedy: Remedy | None = None) -> Callable[..., None]:
    """Print one line for errors that the user can correct; a bug keeps its traceback.

    The wrapper is inside typer, which would turn Ctrl-C into a silent exit code.
    """

    @functools.wraps(main)
    def call(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            fail(f"{error.cause}: {remedy(error.path)}" if remedy else str(error), 1)
        except UserError as error:
            fail(str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted: nothing half-written was kept; the same command resumes", 130)
        except ModuleNotFoundError as error:
            name = str(error.name).partition(".")[0]
            if name == __package__.partition(".")[0]:
                raise
            fail(f"{name} is not installed: `pip install 'adapterbench[{EXTRAS}]'` brings it", 1)
        except Exception as error:
            if disk_full(error):
                fail("no space left on the disk: free some and run the same command again", 1)
            if out_of_memory(error):
                fail(f"not enough memory ({one_line(error)}): lower a batch_size, or a size", 1)
            if lost_process(error):
                fail(
                    "another process of this launch has ended: see what it said, or whether it was "
                    "killed, and run the same command again",
                    1,
                )
            if lost_loader(error):
                fail(
                    "a process that gathers batches has died, as the system kills one where memory "
                    "or shared memory (/dev/shm) runs out: see that there is enough and run the "
                    "same command again, which resumes",
                    1,
                )
            raise

    return call


def disk_full(error: Exception) -> bool:
    """Whether the disk or the quota is full; safetensors gives Rust's text and no `errno`."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    return any(f"(os error {code})" in str(error) for code in DISK_FULL)


def out_of_memory(error: Exception) -> bool:
    """Whether the machine or a GPU is out of memory; on a CPU, torch has no class for it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(NO_MEMORY) or "can't allocate memory" in str(error)


def lost_process(error: Exception) -> bool:
    """Whether a process of the launch is lost; gloo has no class for it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(LOST) or "/gloo/transport/" in str(error)


def lost_loader(error: BaseException | None) -> bool:
    """Whether a loader process has died.

    torch raises this in a signal handler, so another error may wrap it.
    """
    while error is not None and LOADER_WORKER not in str(error):
        error = error.__cause__ or error.__context__
    return error is not None


def fail(message: str, code: int) -> None:
    """Print one line to standard error and leave with `code`."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
