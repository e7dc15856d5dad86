"""Waits until MLflow has all records of the stages that have ended; the end of `make repro`."""

import sys
import time
from pathlib import Path

from adapterbench.core.errors import UserError
from adapterbench.runs import follow

SECONDS, RESTART = 30.0, 5.0
"""Timeout, and pause before a follower that has failed is started again, seconds."""


def flush(root: Path, seconds: float = SECONDS) -> None:
    """Wait for the follower to send the records of the stages that have ended.

    Raises:
        UserError: records are left after `seconds`.
    """
    until, next_start = time.monotonic() + seconds, 0.0
    while pending := [path.stem for path in follow.unsent(root) if not is_running(path)]:
        if time.monotonic() > next_start:
            follow.start(root)
            next_start = time.monotonic() + RESTART
        if time.monotonic() > until:
            names = ", ".join([*pending[:3], "..."][: len(pending)])
            raise UserError(
                f"MLflow lacks {len(pending)} records ({names}): {cause(root)};"
                " `python -m adapterbench.runs.flush` sends them later"
            )
        time.sleep(0.2)


def is_running(path: Path) -> bool:
    """Whether the stage of a record is still running; False if the record is unreadable."""
    from adapterbench.runs.record import (
        Facts,
    )  # slow to import, and not needed when no record is left

    try:
        facts = Facts.read(path)
    except UserError:
        return False
    return facts.status == "running" and facts.process.alive


def cause(root: Path) -> str:
    """Why the last follower failed, from its log."""
    text = (root / follow.RECORDS / follow.LOG).read_text(encoding="utf-8")
    _, prefix, rest = text.rpartition(follow.FAILED)
    return prefix + rest.partition("\n")[0] if prefix else "they are still being sent"


if __name__ == "__main__":
    try:
        flush(follow.project_root())
    except UserError as error:
        sys.exit(f"error: {error}")
