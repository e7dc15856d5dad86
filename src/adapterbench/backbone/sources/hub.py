"""A model or a LoRA from the Hugging Face hub, at a pinned revision, safetensors only."""

import shutil
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

PARTS = (
    *("unet", "vae", "scheduler"),
    *("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
)
FILES = ("*.json", "*.txt", "*model.safetensors")
"""Configuration, vocabulary and full-precision weights; never a pickle."""
LORA = "pytorch_lora_weights.safetensors"
"""Weights of a LoRA."""
TIMM = ("config.json", "model.safetensors")
"""Files of a timm model."""


def fetch(params: BackboneParams, out: Path) -> None:
    """Download the needed files of the model to the hub's cache and copy them to `out`.

    An interrupted download resumes.

    Raises:
        UserError: there is no network, repository or model in it, or no revision is pinned.
    """
    if params.revision is None:
        raise UserError("backbone.revision is null: pin a commit of the hub repository")
    parts = [f"{part}/{file}" for part in PARTS for file in FILES]
    wanted = ["model_index.json", LORA, *TIMM, *parts]
    try:
        cached = Path(
            snapshot_download(params.path, revision=params.revision, allow_patterns=wanted)
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"the hub has no {params.path} at {params.revision} ({type(error).__name__}): "
            "check backbone.path and backbone.revision"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.TransportError) as error:
        raise UserError(
            "cannot reach the hub: check the network, or set backbone.source to local, "
            "backbone.path to a copy on this machine and backbone.revision to null"
        ) from error
    # the cache may hold other files of the same revision
    files = [file for pattern in wanted for file in sorted(cached.glob(pattern))]
    if not files:
        raise UserError(
            f"the hub's {params.path} has no diffusers model, LoRA or timm model in safetensors: "
            "check backbone.path"
        )
    for file in files:
        target = out / file.relative_to(cached)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
