"""Provenance of a run: code, inputs and machine."""

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

import yaml

from adapterbench.core.environment import git, revision, versions
from adapterbench.core.errors import InputError
from adapterbench.core.files import MANIFEST, sha256


def provenance() -> dict[str, Any]:
    """The experiment, the code, the libraries and the system of this process."""
    return {
        "experiment": experiment_name(),
        **revision(),
        "packages": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def experiment_name() -> str:
    """Name of the DVC experiment, else the git branch, else the short revision."""
    return (
        os.environ.get("DVC_EXP_NAME")
        or git("branch", "--show-current")
        or git("rev-parse", "--short", "HEAD")
        or "workspace"
    )


def digest(path: Path) -> str:
    """A cheap fingerprint of an input, as `KIND:HEX`.

    In order: the MD5 of the DVC output that holds it, the SHA-256 of a file, of a folder's
    `manifest.json`, or of the folder's file names and sizes.

    Raises:
        UserError: there is nothing at `path`.
    """
    if not path.exists():
        raise InputError(f"{path} is missing", path)
    tracked = locked_digests()
    for place in (path, *path.parents):
        if place.as_posix() in tracked:
            return f"md5:{tracked[place.as_posix()]}"
    if path.is_file():
        return f"sha256:{sha256(path)}"
    manifest = path / MANIFEST
    if manifest.is_file():
        return f"manifest:{sha256(manifest)}"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listing = "".join(f"{file.relative_to(path)} {file.stat().st_size}\n" for file in files)
    return f"listing:{hashlib.sha256(listing.encode()).hexdigest()}"


def locked_digests() -> dict[str, str]:
    """MD5 of each output in `dvc.lock`; empty outside DVC, where they may be out of date."""
    lock = Path("dvc.lock")
    if "DVC_STAGE" not in os.environ or not lock.is_file():
        return {}
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        out["path"]: out["md5"]
        for stage in stages.values()
        for out in stage.get("outs", [])
        if "md5" in out
    }


def device() -> str:
    """Device of torch; `cpu` unless torch has been imported already."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    if torch.cuda.is_initialized():
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)"
