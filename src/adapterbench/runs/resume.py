"""Where a killed stage goes on: a git-ignored place named by what it was asked to do.

Other parameters or other inputs resume from another place, so a stale state is never taken up.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from adapterbench.core.errors import UserError
from adapterbench.core.files import sha256 as file_sha256

RESUME = Path(".resume")


def resume_path(name: str, facts: Mapping[str, Any], *inputs: Path) -> Path:
    """The place of the stage `name` with these parameters and these small input files.

    Raises:
        UserError: an input is missing.
    """
    if missing := [path for path in inputs if not path.is_file()]:
        raise UserError(f"{missing[0]} is missing: run `dvc repro` to make it")
    asked = {"facts": to_jsonable_python(facts), "inputs": [file_sha256(path) for path in inputs]}
    digest = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return RESUME / f"{name}-{digest[:16]}"
