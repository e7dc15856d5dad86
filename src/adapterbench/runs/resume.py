"""Where a killed stage goes on: a git-ignored place named by what it was asked to do.

Other parameters or other inputs resume from another place, so a stale state is never taken up; and
of two runs that ask the same, one holds the place and the other is refused.
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
    """The place of the stage `name` with these parameters and these small input files.

    Raises:
        UserError: an input is missing.
    """
    if missing := [path for path in inputs if not path.is_file()]:
        raise InputError(f"{missing[0]} is missing", missing[0])
    asked = {"facts": to_jsonable_python(facts), "inputs": [file_sha256(path) for path in inputs]}
    digest = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return RESUME / f"{name}-{digest[:16]}"


@contextmanager
def exclusive_run(*places: Path, is_main: bool = True) -> Iterator[None]:
    """Hold the places where this run resumes, for its whole launch: the process that leads does.

    The system lets go of what a killed process held.

    Raises:
        UserError: another run holds one.
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
                path.unlink(missing_ok=True)  # while it is held, so that nobody else's goes
    except Timeout as error:
        raise UserError(
            f"another run of the same is under way (it holds {path}): wait for its end, or stop it"
        ) from error
