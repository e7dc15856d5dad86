"""The end of `make repro`: wait until MLflow holds all records, or say what it lacks."""

import sys
import time
from pathlib import Path

from adapterbench.core.errors import UserError
from adapterbench.runs import follow

SECONDS, RESTART = 30.0, 5.0
"""Most seconds to wait, and between two starts of a follower, which leaves when it fails."""


def flush(root: Path, seconds: float = SECONDS) -> None:
    """Wait for the follower to send the records of the stages that have ended.

    Raises:
        UserError: it could not in time.
    """
    until, next_start = time.monotonic() + seconds, 0.0
    while left := [path.stem for path in follow.unsent(root) if not at_work(path)]:
        if time.monotonic() > next_start:
            follow.start(root)
            next_start = time.monotonic() + RESTART
        if time.monotonic() > until:
            names = ", ".join([*left[:3], "..."][: len(left)])
            raise UserError(
                f"MLflow lacks {len(left)} records ({names}): {cause(root)};"
                " `python -m adapterbench.runs.flush` sends them later"
            )
        time.sleep(0.2)


def at_work(path: Path) -> bool:
    """Whether a record's stage still runs; one that cannot be read is not."""
    from adapterbench.runs.record import Facts  # takes longer than to see that nothing is left

    try:
        facts = Facts.read(path)
    except UserError:
        return False
    return facts.status == "running" and facts.process.alive


def cause(root: Path) -> str:
    """Why the last follower failed, from its log."""
    text = (root / follow.RECORDS / follow.LOG).read_text(encoding="utf-8")
    _, found, line = text.rpartition(follow.FAILED)
    return found + line.partition("\n")[0] if found else "they are still being sent"


if __name__ == "__main__":
    try:
        flush(follow.project_root())
    except UserError as error:
        sys.exit(f"error: {error}")
