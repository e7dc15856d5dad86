"""A model of the Hugging Face hub, at a pinned revision, safetensors only."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from requests import ConnectionError as NoConnectionError

from adapterbench.config import BackboneParams
from adapterbench.errors import UserError

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def fetch(params: BackboneParams, out: Path) -> None:
    """Download the parts that the pipeline uses; an interrupted download resumes.

    Raises:
        UserError: no network, no such repository, or no revision is pinned.
    """
    if params.revision is None:
        raise UserError("backbone.revision is null: pin a commit of the hub repository")
    try:
        snapshot_download(
            params.path,
            revision=params.revision,
            local_dir=out,
            allow_patterns=["model_index.json", *patterns()],
            ignore_patterns=["*.non_ema.*", "*.fp16.*"],
        )
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        raise UserError(
            f"the hub has no {params.path} at {params.revision} ({type(error).__name__}): "
            "check backbone.path and backbone.revision"
        ) from error
    except (LocalEntryNotFoundError, NoConnectionError, OSError) as error:
        raise UserError(
            "cannot reach the hub: check the network, or set `backbone.path` to a local copy "
            "and `backbone.source` to local"
        ) from error


def patterns() -> list[str]:
    """Configuration, vocabulary and safetensors of each part; never a pickle."""
    kinds = ("json", "txt", "safetensors")
    return [f"{part}/*.{kind}" for part in PARTS for kind in kinds]
