"""What the stages of the backbone's own pipeline share: where they resume from, what they log."""

import json
import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from adapterbench.config import Section
from adapterbench.files import write_json
from adapterbench.fit import Fitted

log = logging.getLogger(__name__)

RESUME = Path(".resume")


def resume_file(name: str, params: Section) -> Path:
    """Checkpoint of a stage; other parameters resume from another file."""
    torch.set_flush_denormal(True)  # denormals slow convolutions several times
    digest = sha256(json.dumps(params.model_dump(mode="json"), sort_keys=True).encode())
    return RESUME / f"{name}-{digest.hexdigest()[:16]}.safetensors"


def log_values(step: int, values: dict[str, float]) -> None:
    """Write a line to the log, for runs without a terminal."""
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.5g}" for k, v in values.items()))


def write_metrics(path: Path, fitted: Fitted, resume: Path, extra: dict[str, Any]) -> None:
    """Write what a stage measured and drop its checkpoint, which is not needed any more."""
    write_json(path, {"loss": fitted.losses[-1][1], "seconds": round(fitted.seconds), **extra})
    resume.unlink(missing_ok=True)
