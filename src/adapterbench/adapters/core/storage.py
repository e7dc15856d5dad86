"""An adapter on disk: `adapter.safetensors`, its own weights alone, and `adapter_config.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapterbench.adapters.core.base import Adapter
from adapterbench.adapters.core.build import RESERVED, build_adapter
from adapterbench.core.config import Count, Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish, read_json, write_json

WEIGHTS = "adapter.safetensors"
CONFIG = "adapter_config.json"


class AdapterConfig(Section):
    """What it takes to build the adapter again."""

    variant: dict[str, Any]
    """The row of `variants:` without training overrides."""
    embed_dim: Count
    """Width of an image embedding, or of a patch."""
    backbone: dict[str, Any]
    """What the adapter was trained over, such as its name and digest."""
    image_encoder: str | None = None
    """open_clip name of an image encoder of its own; None: that of stage `encode`."""
    pretrained: str | None = None
    """open_clip weights tag of its own image encoder."""


def save_adapter(
    adapter: Adapter,
    folder: Path,
    variant: Mapping[str, Any],
    backbone: Mapping[str, Any],
    **encoder: str | None,
) -> None:
    """Write the adapter's weights (fp32) and configuration; `folder` is replaced as a whole.

    Args:
        adapter: attached or not.
        folder: such as `models/ip_adapter`.
        variant: the row it was built from.
        backbone: facts about the base model, plain JSON data.
        encoder: `image_encoder` and `pretrained` of `AdapterConfig`.
    """
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in adapter.state_dict().items()
    }
    config = AdapterConfig(
        variant={key: value for key, value in variant.items() if key not in RESERVED},
        embed_dim=adapter.embed_dim,
        backbone=dict(backbone),
        **encoder,
    )
    with publish(folder) as beside:
        beside.mkdir()
        save_file(weights, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CONFIG, config.model_dump(exclude_none=True))


def load_adapter(folder: Path, unet: UNet2DConditionModel) -> Adapter:
    """The saved adapter, built for `unet` in its dtype and on its device, not attached yet.

    Raises:
        UserError: a file is missing, corrupt, or does not fit `unet`.
    """
    config = load_config(folder)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: draw nothing
        adapter = build_adapter(config.variant, unet, config.embed_dim)
    load_adapter_weights(adapter, folder)
    return adapter.to(unet.device, unet.dtype)


def load_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json`.

    Raises:
        UserError: the file is missing or is not an adapter's configuration.
    """
    path = folder / CONFIG
    try:
        return AdapterConfig.model_validate(read_json(path))
    except ValidationError as error:
        bad = ", ".join(".".join(map(str, item["loc"])) or "content" for item in error.errors())
        raise UserError(
            f"{path} is not an adapter's configuration (bad: {bad}): train it again"
        ) from error


def load_adapter_weights(adapter: Adapter, folder: Path) -> None:
    """Copy saved weights into `adapter`, which keeps its dtype and device.

    Raises:
        UserError: the file is missing or corrupt, or its names or shapes are not the adapter's.
    """
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: train the variant, or check the folder") from error
    except SafetensorError as error:
        raise UserError(f"{path} is corrupt ({error}): delete it and train it again") from error
    if problem := mismatch(adapter.state_dict(), weights):
        raise UserError(f"{path} does not fit this variant and backbone: {problem}")
    adapter.load_state_dict(weights)


def mismatch(expected: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> str | None:
    """The first tensor that differs in name or shape, in words; `None` when all agree."""
    for name in sorted(expected.keys() | received.keys()):
        shapes = [tuple(t[name].shape) if name in t else "none" for t in (expected, received)]
        if shapes[0] != shapes[1]:
            return f"{name}: expected {shapes[0]}, received {shapes[1]}"
    return None
