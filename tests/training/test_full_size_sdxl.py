"""A step of `ip_adapter` over SDXL at full size, random weights: 20 TFLOP, 15 GiB, minutes."""

import ctypes
import json
import platform
from importlib import resources
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from torch import nn
from toy_xl import schedule
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import adapterbench.training.adapter as training
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.frozen.load import load_part
from adapterbench.frozen.texts import TextEncoders
from adapterbench.runs.memory import MMAP_THRESHOLD
from training.test_full_size import (
    CAPTIONS,
    LINEAR,
    TRAIN,
    FullSize,
    alone,
    clip_tokenizer,
    write_encoded,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("sdxl_fits", "workplace", "much_memory"),
]

IP_ADAPTER = LINEAR | {"attention": "decoupled"}
PARAMETERS = 351_285_248
UNET = "unet/diffusion_pytorch_model.safetensors"


def config(part: str) -> dict[str, Any]:
    """The packaged configuration of a part of SDXL."""
    path = resources.files("adapterbench.backbone") / "configs" / f"sdxl_{part}.json"
    return json.loads(path.read_text())


def build(root: Path) -> dict[str, float]:
    """Write the pipeline in diffusers layout, fp16, and an encoded image of 1024 x 1024 a split."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    unet = UNet2DConditionModel.from_config(config("unet"))
    first = CLIPTextModel(CLIPTextConfig(**config("text_encoder")))
    second = CLIPTextModelWithProjection(CLIPTextConfig(**config("text_encoder_2")))
    vae = AutoencoderKL.from_config(config("vae"))
    torch.set_default_dtype(torch.float32)
    tokenizer, other = clip_tokenizer(), clip_tokenizer()
    other.pad_token = "!"
    full = FullSize(root)
    ids = TextEncoders([], [tokenizer, other]).token_ids(CAPTIONS)
    assert ids.shape == (2, 2 * 77)
    write_encoded(full.encoded, ids, side=128, width=1280)
    pipeline = StableDiffusionXLPipeline(vae, first, second, tokenizer, other, unet, schedule())
    pipeline.save_pretrained(full.backbone, safe_serialization=True)
    parts = {"unet": unet, "text_encoder": first, "text_encoder_2": second}
    return {name: sum(w.numel() for w in part.parameters()) for name, part in parts.items()}


def return_freed_memory() -> None:
    """Make glibc give blocks above a MiB back, so that the peak is what is in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**20)


def one_step(root: Path) -> dict[str, float]:
    """Train for a step in bf16; the base must keep its weights and get no gradient."""
    return_freed_memory()
    full = FullSize(root)
    unets: list[nn.Module] = []

    def load(backbone: Path, part: str) -> Any:
        loaded = load_part(backbone, part)
        if part == "unet":
            unets.append(loaded)
        return loaded

    params = TRAIN.model_copy(update={"mixed_precision": "bf16"})
    assert params.gradient_checkpointing
    with patch.object(training, "load_part", load):
        trained = training.train_adapter(
            "sdxl",
            parse_variant(IP_ADAPTER),
            params,
            full.encoded,
            full.backbone,
            root / "models" / "sdxl",
            lambda *_: None,
        )
    weights = dict(unets[0].named_parameters())
    assert not any(w.requires_grad or w.grad is not None for w in weights.values())
    with safe_open(full.backbone / UNET, "pt") as file:
        for name, weight in weights.items():
            assert torch.equal(weight, file.get_tensor(name).to(torch.bfloat16)), name
    return {
        "step_seconds": trained.costs["train_seconds"],
        "parameters": trained.costs["trainable_params"],
        "loss": trained.costs["loss"],
        "checkpoint_mb": trained.costs["checkpoint_mb"],
    }


def test_a_step_of_ip_adapter(tmp_path: Path) -> None:
    full = FullSize(tmp_path)
    sizes = alone(build, tmp_path)
    full.note("build", sizes)
    assert sizes["unet"] == 2_567_463_684
    assert sizes["text_encoder"] == 123_060_480
    assert sizes["text_encoder_2"] == 694_659_840
    cost = alone(one_step, tmp_path)
    full.note("ip_adapter", cost)
    assert cost["parameters"] == PARAMETERS
