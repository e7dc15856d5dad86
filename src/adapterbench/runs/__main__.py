"""`python -m adapterbench.runs`: run the follower of this project; `follow` starts it."""

import logging
import os
from pathlib import Path

from filelock import FileLock, Timeout

from adapterbench.runs.follow import LOCK, LOG, RECORDS, STAY, project_root, unsent


def main(root: Path, idle: float) -> None:
    """Follow the project at `root` until nothing has happened for `idle` seconds."""
    remaining = None
    # again for records of a stage that started while the lock was released
    while unsent(root) != remaining:
        try:
            with FileLock(root / RECORDS / LOCK, timeout=1):
                os.truncate(root / RECORDS / LOG, 0)
                from adapterbench.runs.follower import Follower  # takes seconds

                remaining = Follower(root).follow(idle)
        except Timeout:  # another follower is running
            return


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    main(project_root(), float(os.environ.get(STAY) or 10))
