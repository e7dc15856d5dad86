"""Adapters in the formats of others: IP-Adapter's checkpoints, in and out, and PEFT's LoRA.

The published IP-Adapter format (tencent-ailab; read by diffusers, ComfyUI and A1111) names the
projection `image_proj.*` and the keys and values of layer N `ip_adapter.N.to_k_ip.weight`, N being
the place of the layer among all attention layers of the UNet.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapterbench.adapters.base import Adapter, cross_attention_layers
from adapterbench.adapters.build import build_adapter
from adapterbench.adapters.storage import mismatch
from adapterbench.errors import UserError
from adapterbench.files import publish

TOKENS = 4
"""Image tokens that stock loaders take; the number is in their code, not in the file."""
GROUPS = ("image_proj", "ip_adapter")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", ".bin")
"""What an exported checkpoint may be called."""


def check_ip_adapter(variant: Mapping[str, Any]) -> None:
    """Refuse a variant that the IP-Adapter format cannot hold.

    Raises:
        UserError: what stands in the way, and that `load_adapter` is the way.
    """
    problem = None
    if variant["attention"] == "append":
        problem = "attention that appends image tokens to the text"
    elif variant["projection"] != "linear":
        problem = f"projection {variant['projection']!r}"
    elif variant["tokens"] != TOKENS:
        problem = f"number of image tokens but {TOKENS} (this adapter has {variant['tokens']})"
    if problem:
        raise UserError(
            f"the loaders of the IP-Adapter format know no {problem}: use "
            "`from adapterbench import load_adapter` on any Stable Diffusion pipeline instead"
        )


def check_peft(variant: Mapping[str, Any]) -> None:
    """Refuse a variant without LoRA.

    Raises:
        UserError: it has none.
    """
    if variant["attention"] != "lora":
        raise UserError(
            f"an adapter with attention {variant['attention']!r} has no LoRA for PEFT: choose "
            "another --format, or use `from adapterbench import load_adapter`"
        )


def published_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """The names of a standard IP-Adapter's weights: ours to those of the published format."""
    places = list(unet.attn_processors)
    names = {
        f"projection.{ours}.{kind}": f"image_proj.{theirs}.{kind}"
        for ours, theirs in (("0", "proj"), ("2", "norm"))
        for kind in ("weight", "bias")
    }
    for path in cross_attention_layers(unet):
        place = places.index(f"{path}.processor")
        for part in ("to_k", "to_v"):
            ours = f"branches.{path.replace('.', '/')}.{part}.weight"
            names[ours] = f"ip_adapter.{place}.{part}_ip.weight"
    return names


@torch.no_grad()
def to_ip_adapter(adapter: Adapter, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The weights of an adapter in the IP-Adapter format, fp32, LoRA merged into keys and values.

    The format has no place for the LoRA of queries and outputs, which is left out.

    Args:
        adapter: of a variant that `check_ip_adapter` lets pass, built for `unet`.
        unet: the backbone whose weights LoRA stands on.
    """
    found = dict(adapter.state_dict())
    for path, branch in adapter.layers.items():
        for part in ("to_k", "to_v"):
            name = f"branches.{path.replace('.', '/')}.{part}.weight"
            found[name] = full_weight(getattr(branch, part))
    return {
        theirs: found[ours].to("cpu", torch.float32).contiguous()
        for ours, theirs in published_names(unet).items()
    }


def full_weight(layer: nn.Module) -> Tensor:
    """The weight `(out, in)` of a linear layer; of one under LoRA `W + (alpha / r) B A`."""
    if isinstance(layer, LoraLinear):
        delta: Tensor = layer.get_delta_weight("default")
        return layer.base_layer.weight + delta
    return layer.get_parameter("weight")


def save_ip_adapter(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a checkpoint: `.safetensors` flat, `.bin` in the original repository's two groups.

    Raises:
        UserError: the name has another ending.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: name a file that ends in {' or '.join(SUFFIXES)}")
    with publish(path) as beside:
        if path.suffix == ".bin":
            torch.save(grouped(weights), beside)
        else:
            save_file(dict(weights), beside, metadata={"format": "pt"})


def grouped(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Flat names such as `image_proj.norm.bias` as the two dictionaries of the original layout."""
    return {
        group: {n.removeprefix(f"{group}."): w for n, w in weights.items() if n.startswith(group)}
        for group in GROUPS
    }


@torch.no_grad()
def save_peft(adapter: Adapter, variant: Mapping[str, Any], folder: Path) -> None:
    """Write the LoRA of an adapter as PEFT does: `adapter_model.safetensors` and its config.

    `PeftModel.from_pretrained(unet, folder)` reads it. There the LoRA changes what the layers do
    with the *text*, too; here it changes the image branch alone.

    Args:
        adapter: of a variant that `check_peft` lets pass.
        folder: replaced as a whole.
    """
    weights = {}
    modules = []
    for path, branch in adapter.layers.items():
        for name, layer in branch.named_children():
            module = f"{path}.{'to_out.0' if name == 'to_out' else name}"
            modules.append(module)
            for side in ("lora_A", "lora_B"):
                weight = getattr(layer, side)["default"].weight
                weights[f"base_model.model.{module}.{side}.weight"] = weight.cpu().contiguous()
    rank = variant["rank"]
    config = LoraConfig(r=rank, lora_alpha=variant.get("alpha") or rank, target_modules=modules)
    with publish(folder) as beside:
        beside.mkdir()
        config.save_pretrained(beside)
        save_file(weights, beside / "adapter_model.safetensors", metadata={"format": "pt"})


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a third-party checkpoint by flat name; a pickle runs no code.

    Raises:
        UserError: the file is missing, damaged or no checkpoint of an IP-Adapter.
    """
    try:
        if path.suffix in PICKLES:
            weights = flat(torch.load(path, map_location="cpu", weights_only=True))
        else:
            weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: check the path") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        cause = " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read as weights alone ({cause})") from error
    if not weights or {name.partition(".")[0] for name in weights} != set(GROUPS):
        raise UserError(f"{path} is no IP-Adapter: it needs the groups {' and '.join(GROUPS)}")
    return weights


def flat(groups: Any) -> dict[str, Tensor]:
    """Nested dictionaries of tensors as one, names joined by dots; nothing of anything else."""
    if not isinstance(groups, Mapping):
        return {}
    return {
        f"{group}.{name}": weight
        for group, weights in groups.items()
        if isinstance(weights, Mapping)
        for name, weight in weights.items()
        if isinstance(weight, Tensor)
    }


def from_ip_adapter(path: Path, unet: UNet2DConditionModel) -> tuple[dict[str, Any], Adapter]:
    """A third-party checkpoint as an adapter of ours for `unet`, with its row of `variants:`.

    Raises:
        UserError: the file cannot be read, is of another kind than the standard IP-Adapter (such
            as "plus" or FaceID), or does not fit `unet`.
    """
    weights = read_checkpoint(path)
    if problem := unlike_standard(weights):
        raise UserError(
            f"{path} is an IP-Adapter {problem}: only those that read one CLIP embedding a picture "
            "can be compared here; load it with diffusers' own `load_ip_adapter`"
        )
    projection, norm = (weights[f"image_proj.{part}.weight"] for part in ("proj", "norm"))
    variant = {
        "projection": "linear",
        "attention": "decoupled",
        "tokens": len(projection) // len(norm),
    }
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: draw nothing
        adapter = build_adapter(variant, unet, projection.shape[1])
    names = published_names(unet)
    expected = {names[name]: weight for name, weight in adapter.state_dict().items()}
    if problem := mismatch(expected, weights):
        raise UserError(f"{path} does not fit this backbone: {problem}")
    adapter.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()})
    return variant, adapter


def unlike_standard(weights: Mapping[str, Tensor]) -> str | None:
    """What makes a checkpoint another kind of IP-Adapter, in words; None for the standard one."""
    if "image_proj.latents" in weights:
        return '"plus" (its resampler reads patch features)'
    if any("_lora." in name for name in weights):
        return "FaceID (its weights hold a LoRA)"
    dims = {"image_proj.proj.weight": 2, "image_proj.norm.weight": 1}
    found = {name: weights[name].ndim for name in dims if name in weights and weights[name].numel()}
    return None if found == dims else "with a projection that is not one linear layer and a norm"
