"""The toy project over a tiny SDXL: two text encoders, pooled texts, sizes and crops."""

import copy
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from toy_backbone import CLIP_PARAMS, SIDE, Toy
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from adapterbench.core.config import EncodeParams
from adapterbench.encoding.shards import encode
from adapterbench.frozen.load import load_part

WIDTHS = (CLIP_PARAMS.text_width, 48)
"""Of the two text encoders."""
POOLED = 40
"""Width of the second encoder's pooled embedding."""
TIMES = 8
"""Width of the embedding of each of the six numbers."""


class ToyXL(Toy):
    """Folders as the stages leave them, over SDXL."""

    @property
    def encode_params(self) -> EncodeParams:
        return super().encode_params.model_copy(update={"texts": "live"})


def unet_xl(**changes: Any) -> UNet2DConditionModel:
    """A frozen UNet in the shape of SDXL's, small and at random."""
    torch.manual_seed(6)
    config: dict[str, Any] = {
        "sample_size": SIDE // 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": sum(WIDTHS),
        "norm_num_groups": 8,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIMES,
        "projection_class_embeddings_input_dim": 6 * TIMES + POOLED,
    }
    return UNet2DConditionModel(**config | changes).requires_grad_(False).eval()


def second_text_encoder(vocabulary: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A text encoder with a pooled embedding, wider than the first."""
    torch.manual_seed(7)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTHS[1],
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=POOLED,
        max_position_embeddings=CLIP_PARAMS.context_length,
        hidden_act="gelu",
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )
    return CLIPTextModelWithProjection(config).eval()


def schedule() -> Any:
    """SDXL's own; the pipeline's types have an enumeration as a scheduler."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )


def make(toy: Toy, root: Path) -> ToyXL:
    """The toy project's data over a tiny SDXL, below `root`."""
    xl = ToyXL(root)
    for name in ("shards", "neutral_evaluator"):
        (root / name).symlink_to(toy.root / name)
    vae, text, first = (
        load_part(toy.backbone, part) for part in ("vae", "text_encoder", "tokenizer")
    )
    second = copy.deepcopy(first)
    second.pad_token = "!"  # as SDXL's second tokenizer
    pipeline = StableDiffusionXLPipeline(
        vae, text, second_text_encoder(first), first, second, unet_xl(), schedule()
    )
    pipeline.to(torch.float16).save_pretrained(xl.backbone, safe_serialization=True)
    for name in ("image_encoder", "evaluator"):
        (xl.backbone / name).symlink_to(toy.backbone / name)
    with chdir(root):
        encode(xl.encode_params, xl.shards, xl.backbone, xl.encoded)
    return xl
