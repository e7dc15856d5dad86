"""Storage of adapters: `adapter.safetensors` (only trained weights) and `adapter_config.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapterbench.adapters.core.adapter import Adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.variant import Variant, parse_variant
from adapterbench.core.config import PARAMS, Count, ImageEncoderParams
from adapterbench.core.documents import Sha256, read_document
from adapterbench.core.errors import UserError, one_line
from adapterbench.core.files import check_digest, publish, sha256, write_json

WEIGHTS = "adapter.safetensors"
CONFIG = "adapter_config.json"


class AdapterConfig(ImageEncoderParams):
    """What is needed to rebuild the adapter.

    The image encoder is the one of training, if known. It is shown to the user and compared with
    the one in use, but never loaded, since adapters may come from untrusted sources.
    """

    variant: dict[str, Any]
    """The fields of its row of `variants:` that build it; see `load_variant`."""
    embed_dim: Count
    """Width of an image embedding, or of a patch."""
    backbone: dict[str, Any]
    """The backbone of training, such as its name and digest."""
    sha256: Sha256 | None = None
    """Digest of the weight file; None in folders from older versions."""


def save_adapter(
    adapter: Adapter,
    folder: Path,
    variant: Variant,
    backbone: Mapping[str, Any],
    **encoder: str | None,
) -> None:
    """Write the adapter's weights (fp32) and configuration; `folder` is replaced as a whole.

    Args:
        adapter: attached or not.
        folder: such as `models/ip_adapter`.
        variant: what it was built from.
        backbone: facts about the base model, plain JSON data.
        encoder: fields of `ImageEncoderParams`.

    Raises:
        UserError: a weight is not finite.
    """
    weights = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in adapter.state_dict().items()
    }
    if problem := not_finite(weights):
        raise UserError(f"{folder} was not written: {problem}; check whether its training diverged")
    config = AdapterConfig(
        variant=variant.row(),
        embed_dim=adapter.embed_dim,
        backbone=dict(backbone),
        **encoder,
    )
    with publish(folder) as beside:
        beside.mkdir()
        save_file(weights, beside / WEIGHTS, metadata={"format": "pt"})
        facts = config.model_dump(exclude_none=True) | {"sha256": sha256(beside / WEIGHTS)}
        write_json(beside / CONFIG, facts)


def load_adapter(folder: Path, unet: UNet2DConditionModel) -> Adapter:
    """The saved adapter, built for `unet` in its dtype and on its device, not attached yet.

    Raises:
        UserError: a file is missing, corrupt, or does not fit `unet`.
    """
    variant, embed_dim = load_variant(folder), load_config(folder).embed_dim
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: draw none
            adapter = build_adapter(variant, unet, embed_dim)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error
    load_adapter_weights(adapter, folder)
    return adapter.to(unet.device, unet.dtype)


def load_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json`.

    Raises:
        UserError: the file is missing or is not an adapter's configuration.
    """
    what = "an adapter's configuration"
    return read_document(AdapterConfig, folder / CONFIG, what, "train it again")


def load_variant(folder: Path) -> Variant:
    """The variant of a saved adapter.

    Raises:
        UserError: the configuration is missing, or its `variant` is unknown.
    """
    row = load_config(folder).variant
    try:
        return parse_variant(row)
    except UserError as error:
        cause = str(error).removeprefix(f"{PARAMS}: ")
        raise UserError(f"{folder / CONFIG}: {cause}") from error


def load_adapter_weights(adapter: Adapter, folder: Path) -> None:
    """Copy saved weights into `adapter`, which keeps its dtype and device.

    Raises:
        UserError: the file is missing, corrupt or not the one that was saved, its names or shapes
            are not the adapter's, or a value is not a finite float.
    """
    path, digest = folder / WEIGHTS, load_config(folder).sha256
    try:
        if digest:
            check_digest(path, digest)
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: train the variant, or check the folder") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path} is corrupt ({one_line(error)}): delete it and train it again"
        ) from error
    if problem := mismatch(adapter.state_dict(), weights):
        raise UserError(
            f"{path} does not fit this variant and backbone ({problem}): was it trained over "
            "another base? Load it on that one"
        )
    if problem := not_finite(weights):
        raise UserError(f"{path} cannot be used: {problem}; train it again")
    adapter.load_state_dict(weights)


def not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Describe the first tensor that is not of finite floats; None if there is none."""
    for name, weight in sorted(weights.items()):
        if not weight.is_floating_point():
            return f"{name} has dtype {weight.dtype}, not a float type"
        if not weight.float().isfinite().all():
            return f"{name} is not finite"
    return None


def mismatch(expected: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> str | None:
    """Describe the first tensor that differs in name or shape; None if there is none."""
    for name in sorted(expected.keys() | received.keys()):
        shapes = [tuple(t[name].shape) if name in t else "none" for t in (expected, received)]
        if shapes[0] != shapes[1]:
            return f"{name}: expected {shapes[0]}, received {shapes[1]}"
    return None
