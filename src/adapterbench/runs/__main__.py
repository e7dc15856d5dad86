"""`python -m adapterbench.runs`: be the follower of this project, which `follow` starts."""

import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout

from adapterbench.runs.follow import LOCK, LOG, RECORDS, STAY, project_root, unsent


def main(root: Path, idle: float) -> None:
    """Follow the project at `root` until nothing has happened for `idle` seconds."""
    left = None
    while unsent(root) != left:  # again for a stage that came as the lock was given up
        try:
            with FileLock(root / RECORDS / LOCK, timeout=1):
                os.truncate(root / RECORDS / LOG, 0)
                from adapterbench.runs.follower import Follower  # takes seconds

                left = Follower(root).follow(idle)
        except Timeout:  # another one does
            return


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    main(project_root(), float(os.environ.get(STAY) or 10))
