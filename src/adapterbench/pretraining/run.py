"""What the stages of the backbone's own pipeline share: where they resume from, what they log."""

import logging
from pathlib import Path
from typing import Any

from adapterbench.core.config import Section
from adapterbench.core.files import MANIFEST, write_json
from adapterbench.runs.resume import resume_path
from adapterbench.training.loop import FitResult

log = logging.getLogger(__name__)


def resume_file(name: str, params: Section, shards: Path) -> Path:
    """Checkpoint of a stage; other parameters or shards resume from another file."""
    return resume_path(name, {"params": params}, shards / MANIFEST).with_suffix(".safetensors")


def log_values(step: int, values: dict[str, float]) -> None:
    """Write a line to the log, for runs without a terminal."""
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.5g}" for k, v in values.items()))


def write_metrics(path: Path, fitted: FitResult, resume: Path, extra: dict[str, Any]) -> None:
    """Write what a stage measured and drop its checkpoint, which is not needed any more."""
    write_json(path, {"loss": fitted.losses[-1][1], "seconds": round(fitted.seconds), **extra})
    resume.unlink(missing_ok=True)
