"""What a report's numbers come from; nothing that changes from one run to the next."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from adapterbench.files import sha256

PACKAGES = ("adapterbench", "torch", "diffusers", "transformers", "open_clip_torch", "peft")


def provenance(inputs: Sequence[Path]) -> dict[str, str]:
    """Digests of the input files and versions of the packages behind them, by name."""
    digests = {f"sha256 of {path.name}": sha256(path) for path in inputs}
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {**digests, "Versions": f"Python {platform.python_version()}, {versions}"}
