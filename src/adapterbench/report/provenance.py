"""Provenance of a report: code revision, input digests, package versions; no time, host or path."""

import platform
from collections.abc import Sequence
from pathlib import Path

from adapterbench.core.environment import revision, versions
from adapterbench.core.files import sha256


def provenance(inputs: Sequence[Path]) -> dict[str, str]:
    """Revision of the code, digests of the input files and versions of the packages, by name."""
    code = revision()
    changed = ", with local changes" if code["dirty"] else ""
    return {
        "Revision": f"{code['revision']}{changed}" if code["revision"] else "not in git",
        **{f"SHA-256 of {path.name}": sha256(path) for path in inputs},
        "Python": platform.python_version(),
        **{name: version or "not installed" for name, version in versions().items()},
    }
