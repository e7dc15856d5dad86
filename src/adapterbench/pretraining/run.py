"""Resume files, log lines and metrics of the backbone's pipeline."""

import logging
from pathlib import Path
from typing import Any

import torch

from adapterbench.core.config import Section
from adapterbench.core.files import MANIFEST, write_json
from adapterbench.frozen.load import fingerprint
from adapterbench.runs.resume import resume_path
from adapterbench.training.distributed import DistributedContext
from adapterbench.training.loop import FitResult

log = logging.getLogger(__name__)


def device() -> torch.device:
    """Where networks are trained: the GPU, if there is one."""
    return DistributedContext().device


def resume_file(name: str, params: Section, shards: Path, *models: Path) -> Path:
    """Checkpoint file of a stage, named by a digest of its parameters, its shards and `models`.

    Args:
        models: folders of the models that the stage goes on from.
    """
    facts = {"params": params, "models": [fingerprint(model) for model in models]}
    return resume_path(name, facts, shards / MANIFEST).with_suffix(".safetensors")


def log_values(step: int, values: dict[str, float]) -> None:
    """Log the values of a step."""
    log.info("step %d: %s", step, ", ".join(f"{k} {v:.5g}" for k, v in values.items()))


def write_metrics(path: Path, fitted: FitResult, resume: Path, extra: dict[str, Any]) -> None:
    """Write a stage's metrics and delete its checkpoint."""
    write_json(path, {"loss": fitted.losses[-1][1], "seconds": round(fitted.seconds), **extra})
    resume.unlink(missing_ok=True)
