"""Facts about the code and the process: git's revision, versions of packages, memory."""

import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

SOURCES = ("src", "stages", "conf", "params.yaml", "dvc.yaml")
"""Paths that count for a dirty revision: code and settings, not the results that DVC rewrites."""
PACKAGES = ("diffusers", "numpy", "open_clip_torch", "peft", "timm", "torch", "transformers")
"""Libraries whose version may change a result."""


def revision() -> dict[str, Any]:
    """The git revision, and whether code or settings differ from it; `None` outside git."""
    changes = git("status", "--porcelain", "--", *SOURCES)
    return {
        "revision": git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def git(*arguments: str) -> str | None:
    """Output of a git command; `None` if git is missing or fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str | None]:
    """Versions of `PACKAGES`."""
    return {name: installed(name) for name in PACKAGES}


def installed(package: str) -> str | None:
    """Version of an installed package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_memory_mb() -> float:
    """Peak resident memory of this process, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return round(peak * unit / 2**20, 1)
