"""Further base models for the same adapters: full models, or a LoRA fused into the backbone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from adapterbench.backbone.fetch import fetch
from adapterbench.core import registry
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import read_json, remove

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SOURCES = f"{__package__}.sources"


def fetch_base(name: str, params: BackboneParams, backbone: Path, out: Path) -> None:
    """Fill the folder `out` with a base model in diffusers layout.

    If the source provides a LoRA (`*.safetensors`), it is fused into a copy of the model in
    `backbone`.

    Raises:
        UserError: the source does not have it, or it is no model and no LoRA for this backbone.
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
        model = fuse_lora(backbone, loras[0])
    except (ValueError, RuntimeError, KeyError, IndexError, OSError, SafetensorError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"bases.{name}: {params.path} is not a LoRA for this backbone ({cause})"
        ) from error
    remove(out)
    model.save_pretrained(out, safe_serialization=True)


def fuse_lora(backbone: Path, lora: Path) -> "DiffusionPipeline":
    """The backbone with a LoRA fused into its weights: `W' = W + (alpha / r) B A`."""
    import torch
    from diffusers import DiffusionPipeline  # takes seconds; full models do not need it

    # sources leave out the safety checker, which SDXL does not have
    absent = {"safety_checker"} & read_json(backbone / "model_index.json").keys()
    pipeline: Any = DiffusionPipeline.from_pretrained(
        backbone,
        **dict.fromkeys(absent),
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
    fused: DiffusionPipeline = pipeline
    return fused
