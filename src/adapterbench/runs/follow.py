"""The follower: the one process of a project that sends its records to MLflow.

A stage starts it, never imports mlflow and never waits. It belongs to no terminal, leaves when
nobody is at work, and what it could not send waits for the next one or for `flush`.
"""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

RECORDS, SENT = "records", "sent"
"""Folders: `records/RUN/*.json`, of one DVC process, wait to be sent; `records/RUN/sent/` were."""

LOCK, LOG = "follow.lock", "follow.log"
"""Files among the records: held by the follower; its output, with the cause of a failure last."""

STAY = "ADAPTERBENCH_FOLLOW"
"""Environment variable: seconds for which the follower stays when nobody is at work. With 0 stages
start none, and `flush` sends their records."""

FAILED = "cannot send to "
"""What stands in the log before the cause of a failure."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # servers close idle connections: none is not enough
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}
"""Defaults of mlflow's own environment variables; what the user sets comes first."""


def project_root() -> Path:
    """Folder of `dvc.yaml`; DVC names the user's one while a queued experiment runs in a copy."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def unsent(root: Path) -> dict[Path, int]:
    """The records that MLflow does not hold yet, or not all of, and when each was last written."""
    times = {}
    for path in sorted((root / RECORDS).glob("*/*.json")):
        with suppress(FileNotFoundError):  # sent just now
            times[path] = path.stat().st_mtime_ns
    return times


def start(root: Path) -> None:
    """Start the follower of a project unless it runs."""
    try:
        with FileLock(root / RECORDS / LOCK, timeout=0):
            pass
    except Timeout:
        return
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with (root / RECORDS / LOG).open("ab") as log:  # a pipe of the stage's would never end
        # the shell ends at once and init takes its child over: the stage keeps no zombie
        subprocess.run(
            ["/bin/sh", "-c", '"$0" -m adapterbench.runs &', sys.executable],
            check=False,
            cwd=root,
            env={**SETTINGS, **os.environ, "PYTHONPATH": path, "DVC_ROOT": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def masked(text: str) -> str:
    """`text` without the credentials and the query of any address in it."""
    text = re.sub(
        r"([\w+.-]+://)\S*@|([\w+.-]+:)?[^\s:/'\"(]+:\S*@",
        lambda found: f"{found[1] or found[2] or ''}***@",
        text,
    )
    return re.sub(r"\?\S*=\S*", "?***", text)
