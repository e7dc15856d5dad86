"""Resume state of killed stages, in a git-ignored path named by a digest of parameters and inputs.

Other parameters or inputs have another path, so a stale state is never used. Of two simultaneous
runs with the same path, the second is refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic_core import to_jsonable_python

from adapterbench.core.errors import InputError, UserError
from adapterbench.core.files import sha256 as file_sha256

RESUME = Path(".resume")


def resume_path(name: str, facts: Mapping[str, Any], *inputs: Path) -> Path:
    """Path of the resume state of stage `name` with these parameters and small input files.

    Raises:
        UserError: an input is missing.
    """
    if missing := [path for path in inputs if not path.is_file()]:
        raise InputError(f"{missing[0]} is missing", missing[0])
    request = {"facts": to_jsonable_python(facts), "inputs": [file_sha256(path) for path in inputs]}
    digest = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return RESUME / f"{name}-{digest[:16]}"


@contextmanager
def exclusive_run(*places: Path, is_main: bool = True) -> Iterator[None]:
    """Lock the resume paths of this run; only the main process of a launch does so.

    The system releases the locks of a killed process.

    Raises:
        UserError: another run has locked one.
    """
    if not (places and is_main):
        yield
        return
    first, *others = places
    path = first.with_name(f"{first.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, blocking=False), exclusive_run(*others, is_main=is_main):
            try:
                yield
            finally:
                path.unlink(
                    missing_ok=True
                )  # before the lock is released, so another run's file is safe
    except Timeout as error:
        raise UserError(
            f"the same run is already in progress (it holds {path}): wait for its end, or stop it"
        ) from error
