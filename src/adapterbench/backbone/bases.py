"""Other base models for the same adapters: whole ones, or a LoRA over the backbone."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from adapterbench.backbone.fetch import fetch
from adapterbench.core import registry
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import remove

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SOURCES = f"{__package__}.sources"


def bring(name: str, params: BackboneParams, backbone: Path, out: Path) -> None:
    """Fill the folder `out` with a base model in diffusers layout.

    What its source gives may be a LoRA (`*.safetensors`), which is then fused into a copy of the
    model in `backbone`.

    Raises:
        UserError: the source does not have it, or it is neither a model nor a LoRA that fits.
    """
    try:
        fetch(registry.load(SOURCES, params.source), params, f"bases.{name}", out)
    except UserError as error:
        raise UserError(f"bases.{name}: {error}") from error
    if (out / "model_index.json").is_file():
        return
    loras = sorted(out.glob("*.safetensors"))
    if len(loras) != 1:
        raise UserError(
            f"bases.{name}: {params.path} is neither a diffusers model nor a LoRA: "
            "name a folder with model_index.json or a .safetensors file"
        )
    try:
        model = fused(backbone, loras[0])
    except (ValueError, RuntimeError, KeyError, IndexError, OSError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"bases.{name}: {params.path} is no LoRA for this backbone ({cause})"
        ) from error
    remove(out)
    model.save_pretrained(out, safe_serialization=True)


def fused(backbone: Path, lora: Path) -> "StableDiffusionPipeline":
    """The backbone with `W' = W + (alpha / r) B A` in place of the weights that a LoRA adapts."""
    import torch
    from diffusers import StableDiffusionPipeline  # takes seconds; whole models need none

    pipeline = StableDiffusionPipeline.from_pretrained(
        backbone,
        safety_checker=None,
        torch_dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    pipeline.load_lora_weights(
        lora.parent, weight_name=lora.name, local_files_only=True, use_safetensors=True
    )
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    return pipeline
