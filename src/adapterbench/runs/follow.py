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
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

RECORDS, SENT = "records", "sent"
"""Folders: `records/RUN/*.json`, of one DVC process, wait to be sent; `records/RUN/sent/` were."""

LOCK, LOG = "follow.lock", "follow.log"
"""Files among the records: held by the follower; its output, with the cause of a failure last."""

STAY = "ADAPTERBENCH_FOLLOW"
"""Environment variable: seconds for which the follower stays when nobody is at work. With 0 stages
start none, and `flush` sends their records."""

OWN = "ADAPTERBENCH_FOLLOWER"
"""Environment variable of the follower alone, by which `stages/launch.py` tells it from what a
launch has left behind."""

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

HIDDEN = "***"
"""What stands in the place of a secret."""
NAMED = re.compile(
    r"""((?:passw(?:or)?d|pwd|secret|signature|credential|authorization|(?:api|access)[_-]?key)\w*"""
    r"""["']?\s*[=:]\s*|token["']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?("[^"]*"|'[^']*'|\S+)""",
    re.IGNORECASE,
)
"""A secret by its name, such as `password=` or `Authorization: Bearer`."""
LEGIBLE = 3
"""Characters of a piece of a password that are worth hiding."""


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
            env={**SETTINGS, **os.environ, "PYTHONPATH": path, "DVC_ROOT": str(root), OWN: "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def masked(text: str, address: str = "") -> str:
    """`text` without credentials: those of addresses, queries, and values with telling names.

    Args:
        text: of a log.
        address: one with credentials, of which a parser's message may show a piece.
    """
    for piece in sorted(pieces(address), key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    text = re.sub(r"\S+", lambda word: masked_word(word[0]), text)
    return NAMED.sub(lambda found: found[1] + HIDDEN, text)


def masked_word(word: str) -> str:
    """A word without what stands before its last `@`, as in an address, and without a query.

    A password may hold any character that is no space, raw; so nothing is parsed.
    """
    scheme, slashes, rest = word.partition("://")
    if slashes:
        _, at, rest = rest.rpartition("@")
        return f"{scheme}://{HIDDEN * bool(at)}{at}" + re.sub(r"[?#&=].+", f"?{HIDDEN}", rest)
    front, at, rest = word.rpartition("@")
    if at and ":" in front:
        kept = front.count(":") > 1  # odd:user:password
        front = f"{front.partition(':')[0]}:{HIDDEN}" if kept else HIDDEN
    return front + at + re.sub(r"[?#].*=.*", f"?{HIDDEN}", rest)


def pieces(address: str) -> set[str]:
    """The parts into which a parser may cut the password or token of an address."""
    user, _, password = address.partition("://")[2].rpartition("@")[0].partition(":")
    secret = password or user
    parts = {part for part in re.split(r"[\s:/?#@]", secret) if len(part) >= LEGIBLE}
    return {form(part) for part in parts | {secret} - {""} for form in (str, quote, unquote)}
