"""The follower: the one process of a project that sends its records to MLflow.

Stages start it; they neither import mlflow nor wait. It has no terminal and exits when no stage is
running. Records that it could not send are sent by the next follower or by `flush`.
"""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock, Timeout

from adapterbench.runs.launch import FOLLOWER

RECORDS, SENT = "records", "sent"
"""Folders: unsent `records/RUN/*.json` of one DVC process; sent ones in `records/RUN/sent/`."""

LOCK, LOG = "follow.lock", "follow.log"
"""Lock file of the follower and its log, which ends with the cause of a failure."""

STAY = "ADAPTERBENCH_FOLLOW"
"""Environment variable: seconds for which the follower stays when no stage runs. With 0, stages
start no follower, and `flush` sends their records."""

FAILED = "cannot send to "
"""Prefix of the cause of a failure in the log."""

SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # servers close idle connections: not 0
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}
"""Defaults of mlflow's environment variables; the user's values take precedence."""

HIDDEN = "***"
"""Replacement for a secret."""
NAMED_SECRET = re.compile(
    r"""((?:passw(?:or)?d|pwd|secret|signature|credential|authorization|(?:api|access)[_-]?key)\w*"""
    r"""["']?\s*[=:]\s*|token["']?\s*[=:]\s*)(?:(?:bearer|basic)\s+)?("[^"]*"|'[^']*'|\S+)""",
    re.IGNORECASE,
)
"""Secrets after a telling name, such as `password=` or `Authorization: Bearer`."""
MIN_MASKED = 3
"""Shortest part of a password that is masked, in characters."""


def project_root() -> Path:
    """Folder of `dvc.yaml`; in the copy of a queued experiment, that of the user's project."""
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def unsent(root: Path) -> dict[Path, int]:
    """Modification times (ns) of the records that have not been sent completely."""
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
    with (root / RECORDS / LOG).open(
        "ab"
    ) as log:  # an inherited pipe would keep the stage's output open
        # the shell exits at once and init adopts its child, so no zombie is left in the stage
        subprocess.run(
            ["/bin/sh", "-c", '"$0" -m adapterbench.runs &', sys.executable],
            check=False,
            cwd=root,
            env={
                **SETTINGS,
                **os.environ,
                "PYTHONPATH": path,
                "DVC_ROOT": str(root),
                FOLLOWER: "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def masked(text: str, address: str = "") -> str:
    """`text` without credentials: those of addresses, queries, and values with telling names.

    Args:
        text: of a log.
        address: one with credentials, parts of which a parser's message may show.
    """
    for piece in sorted(secret_parts(address), key=len, reverse=True):
        text = text.replace(piece, HIDDEN)
    text = re.sub(r"\S+", lambda word: masked_word(word[0]), text)
    return NAMED_SECRET.sub(lambda match: match[1] + HIDDEN, text)


def masked_word(word: str) -> str:
    """Mask the credentials before the last `@` of a word, as in an address, and its query.

    A password may contain any character but a space, so the address is not parsed.
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


def secret_parts(address: str) -> set[str]:
    """The parts into which a parser may cut the password or token of an address."""
    user, _, password = address.partition("://")[2].rpartition("@")[0].partition(":")
    secret = password or user
    parts = {part for part in re.split(r"[\s:/?#@]", secret) if len(part) >= MIN_MASKED}
    return {form(part) for part in parts | {secret} - {""} for form in (str, quote, unquote)}
