"""Import and export of IP-Adapter checkpoints, and export of LoRA in PEFT's format.

The published IP-Adapter format (tencent-ailab; read by diffusers, ComfyUI and A1111) names the
projection `image_proj.*` and the keys and values of layer N `ip_adapter.N.to_k_ip.weight`, N being
the index of the layer among all attention layers of the UNet. "Plus" has a resampler instead.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.ip_adapter import IPAdapterMixin
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adapterbench.adapters.attention import lora
from adapterbench.adapters.core.adapter import Adapter, cross_attention_layers
from adapterbench.adapters.core.branch import LinearLayer
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import mismatch
from adapterbench.adapters.core.variant import Variant, parse_variant
from adapterbench.adapters.projections.resampler import HEAD_WIDTH
from adapterbench.core.errors import UserError, one_line
from adapterbench.core.files import publish

STOCK = {"linear": ("tokens", 4), "resampler": ("depth", 4)}
"""Projections that other loaders support, with a field whose value is fixed in their code.
"""
PARTS = {
    "linear": {"0": "proj", "2": "norm"},
    "resampler": {
        "ln0": "0.norm1",
        "ln1": "0.norm2",
        "attn.to_q": "0.to_q",
        "attn.to_k": "0.to_k",
        "attn.to_v": "0.to_v",
        "attn.to_out.0": "0.to_out",
        "ff.0": "1.0",
        "ff.1.net.0.proj": "1.1",
        "ff.1.net.2": "1.3",
    },
}
"""Parts of a projection (of a layer of the resampler): our names to the published ones.

Others have the same; the format joins `to_k` and `to_v` of the resampler as `to_kv`.
"""
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the weights of a checkpoint by name."""
GROUPS = ("image_proj", "ip_adapter")
TRAINED = {"image_proj_model": "image_proj", "adapter_modules": "ip_adapter"}
"""The groups as the original repository's trainer saves them, beside its frozen `unet`."""
WRAPPERS = ("module", "_orig_mod")
"""Name components that distributed training and `torch.compile` insert."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", ".bin")
"""Extensions of an exported checkpoint."""


def check_ip_adapter(variant: Variant) -> None:
    """Reject a variant that the IP-Adapter format cannot represent.

    Raises:
        UserError: the reason, with `load_adapter` as the remedy.
    """
    problem = None
    field, number = STOCK.get(variant.projection, ("", 0))
    if variant.attention == "append":
        problem = "attention that appends image tokens to the text"
    elif variant.attention not in ("decoupled", "lora"):
        problem = f"attention {variant.attention!r}"
    elif variant.layers is not None:
        problem = "branches in a part of the layers"
    elif not field:
        problem = f"projection {variant.projection!r}"
    elif (value := getattr(variant, field)) != number:
        problem = f"{field} other than {number} (this adapter has {value})"
    if problem:
        raise UserError(
            f"the loaders of the IP-Adapter format do not support {problem}: use "
            "`from adapterbench import load_adapter` on any Stable Diffusion pipeline instead"
        )


def check_peft(variant: Variant) -> None:
    """Reject a variant without LoRA.

    Raises:
        UserError: it has none.
    """
    if variant.attention != "lora":
        raise UserError(
            f"an adapter with attention {variant.attention!r} has no LoRA for PEFT: choose "
            "another --format, or use `from adapterbench import load_adapter`"
        )


def published_names(
    adapter: Adapter, unet: UNet2DConditionModel, projection: str
) -> dict[str, str]:
    """The names of an IP-Adapter's weights: ours to those of the published format."""
    places = attention_places(unet)
    names = {
        f"projection.{name}": f"image_proj.{published_name(name, PARTS[projection])}"
        for name in adapter.projection.state_dict()
    }
    for path in cross_attention_layers(unet):
        for part in ("to_k", "to_v"):
            ours = f"branches.{path.replace('.', '/')}.{part}.weight"
            names[ours] = f"ip_adapter.{places[path]}.{part}_ip.weight"
    return names


def attention_places(unet: UNet2DConditionModel) -> dict[str, int]:
    """The index N in published names of each attention layer, by path."""
    names = enumerate(unet.attn_processors)
    return {name.removesuffix(".processor"): place for place, name in names}


def published_name(name: str, parts: Mapping[str, str]) -> str:
    """The published name of a projection's weight, such as `layers.0.ln0.weight`."""
    words = name.split(".")
    at = 2 if words[0] == "layers" else 0
    layer, part, kind = words[:at], ".".join(words[at:-1]), words[-1]
    return ".".join(filter(None, [*layer, parts.get(part, part), kind]))


@torch.no_grad()
def to_ip_adapter(
    adapter: Adapter, unet: UNet2DConditionModel, projection: str
) -> dict[str, Tensor]:
    """The weights of an adapter in the IP-Adapter format, fp32, LoRA merged into keys and values.

    The format cannot represent the LoRA of queries and outputs, which is left out.

    Args:
        adapter: of a variant that `check_ip_adapter` lets pass, built for `unet`.
        unet: the backbone whose weights LoRA stands on.
        projection: of the variant.
    """
    state = dict(adapter.state_dict())
    for path, branch in adapter.layers.items():
        for part in ("to_k", "to_v"):
            name = f"branches.{path.replace('.', '/')}.{part}.weight"
            state[name] = full_weight(getattr(branch, part))
    weights = {
        theirs: state[ours].to("cpu", torch.float32).contiguous()
        for ours, theirs in published_names(adapter, unet, projection).items()
    }
    return joined(weights)


@torch.no_grad()
def stock_difference(
    adapter: Adapter, unet: UNet2DConditionModel, weights: Mapping[str, Tensor]
) -> float:
    """Largest relative difference of the layers' outputs under diffusers' loader and this one.

    Args:
        adapter: not attached.
        unet: has diffusers' adapter afterwards.
        weights: what diffusers loads.

    Returns:
        The largest difference over random features, as a share of the largest output.

    Raises:
        UserError: diffusers cannot load or run them in this UNet.
    """
    layers = cross_attention_layers(unet)

    def outputs() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        shape = (1, 1, *([5] if adapter.reads_patches else []), adapter.embed_dim)
        channel = cast(nn.Module, unet.encoder_hid_proj)
        tokens = channel([torch.randn(shape, generator=generator)])
        results = {}
        for path, attn in layers.items():
            features = torch.randn(1, 16, attn.query_dim, generator=generator)
            text = torch.randn(1, 7, attn.cross_attention_dim, generator=generator)
            results[path] = attn(features, encoder_hidden_states=(text, tokens))
        return results

    adapter.attach(unet)
    ours = outputs()
    adapter.detach(unet)
    try:
        state: Any = [grouped(weights)]  # diffusers' types know flat ones alone
        Stock(unet).load_ip_adapter(state, "", "", image_encoder_folder=None)
        theirs = outputs()
    except Exception as error:  # diffusers raises many types on an unsupported UNet
        raise UserError(
            f"diffusers' own loader cannot serve this backbone ({one_line(error)}): use "
            "`from adapterbench import load_adapter` instead"
        ) from error
    largest = max(float(out.abs().max()) for out in ours.values())
    return max(float((theirs[path] - out).abs().max()) for path, out in ours.items()) / largest


class Stock(IPAdapterMixin):
    """The part of a pipeline that its IP-Adapter loader needs."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet


def joined(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join keys and values of a resampler's layers: `to_k`, `to_v` to `to_kv`."""
    renamed = dict(weights)
    for name in [name for name in weights if name.endswith("0.to_k.weight")]:
        pair = [renamed.pop(name.replace("to_k", part)) for part in ("to_k", "to_v")]
        renamed[name.replace("to_k", "to_kv")] = torch.cat(pair)
    return renamed


def separate(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `joined`."""
    renamed = dict(weights)
    for name in [name for name in weights if name.endswith("0.to_kv.weight")]:
        for part, half in zip(("to_k", "to_v"), renamed.pop(name).chunk(2), strict=True):
            renamed[name.replace("to_kv", part)] = half
    return renamed


def full_weight(layer: nn.Module) -> Tensor:
    """The weight `(out, in)` of a linear layer; of one under LoRA `W + (alpha / r) B A`."""
    if isinstance(layer, LoraLinear):
        delta: Tensor = layer.get_delta_weight("default")
        return layer.weight + delta
    return cast(LinearLayer, layer).weight


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
def save_peft(adapter: Adapter, variant: Variant, folder: Path) -> None:
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
            if not isinstance(layer, LoraLinear):
                continue
            module = f"{path}.{'to_out.0' if name == 'to_out' else name}"
            modules.append(module)
            for side in ("lora_A", "lora_B"):
                weight = getattr(layer, side)["default"].weight
                weights[f"base_model.model.{module}.{side}.weight"] = weight.cpu().contiguous()
    assert isinstance(variant, lora.Params)
    alpha = variant.rank if variant.alpha is None else variant.alpha
    config = LoraConfig(
        r=variant.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes fractions, and says int
        target_modules=modules,
    )
    with publish(folder) as beside:
        beside.mkdir()
        config.save_pretrained(str(beside))
        save_file(weights, beside / "adapter_model.safetensors", metadata={"format": "pt"})


def read_checkpoint(path: Path, places: Mapping[str, int]) -> dict[str, Tensor]:
    """The weights of a third-party checkpoint by published name; a pickle runs no code.

    Args:
        path: a published file, or what the original repository's trainer saves, with its UNet.
        places: of the UNet's attention layers, by path, in the order of `attn_processors`.

    Raises:
        UserError: the file is missing, damaged or no checkpoint of an IP-Adapter, or its weights
            are not finite floating-point numbers.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the file in it, such as model.safetensors")
    try:
        weights = adapter_tensors(path, places)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: check the path") from error
    except Exception as error:  # torch raises many kinds on a damaged file
        raise UserError(f"{path} cannot be read as weights alone ({one_line(error)})") from error
    if {name.partition(".")[0] for name in weights} != set(GROUPS):
        raise UserError(f"{path} is no IP-Adapter: it needs the groups {' and '.join(GROUPS)}")
    for name, weight in weights.items():
        if not (weight.is_floating_point() and weight.float().isfinite().all()):
            raise UserError(
                f"{path} is damaged: {name} holds what is not a finite floating-point number; "
                "take another checkpoint"
            )
    return weights


def adapter_tensors(path: Path, places: Mapping[str, int]) -> dict[str, Tensor]:
    """The weights of a file without those of a frozen UNet, by published name."""
    if path.suffix in PICKLES:
        loaded = flat(torch.load(path, map_location="cpu", weights_only=True))
        named = {old: published(old, places) for old in loaded}
        return {new: loaded[old] for old, new in named.items() if new}
    with safe_open(path, "pt") as file:  # the UNet's gigabytes stay on the disk
        named = {old: published(old, places) for old in file.keys()}  # noqa: SIM118
        return {new: file.get_tensor(old) for old, new in named.items() if new}


def flat(value: Any, name: str = "") -> dict[str, Tensor]:
    """Flatten nested dictionaries of tensors, names joined by dots; other values are dropped."""
    if isinstance(value, Tensor):
        return {name: value}
    if not isinstance(value, Mapping):
        return {}
    tensors: dict[str, Tensor] = {}
    for key, inner in value.items():
        tensors |= flat(inner, f"{name}.{key}" if name else str(key))
    return tensors


def published(name: str, places: Mapping[str, int]) -> str | None:
    """The published name of a weight in a checkpoint; None for one of the frozen UNet.

    The original trainer's are `image_proj_model.*`, `adapter_modules.N.*` and `unet.*`. The
    processors of the UNet are its adapter modules: where a safetensors file holds what they share
    once, it is under the UNet's name.
    """
    group, *rest = [part for part in name.split(".") if part not in WRAPPERS]
    if group == "unet":
        path, _, part = ".".join(rest).partition(".processor.")
        return f"ip_adapter.{places[path]}.{part}" if part and path in places else None
    return ".".join([TRAINED.get(group, group), *rest])


def from_ip_adapter(path: Path, unet: UNet2DConditionModel) -> tuple[Variant, Adapter]:
    """Convert a third-party checkpoint to an adapter for `unet`, with its variant.

    Raises:
        UserError: the file cannot be read, is neither a standard nor a "plus" IP-Adapter (such as
            FaceID), or does not fit `unet`.
    """
    weights = read_checkpoint(path, attention_places(unet))
    row, embed_dim = read_row(path, weights)
    variant = parse_variant(row)
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: draw nothing
        adapter = build_adapter(variant, unet, embed_dim)
    names = published_names(adapter, unet, variant.projection)
    expected = {names[name]: weight for name, weight in adapter.state_dict().items()}
    given = separate(weights)
    if problem := mismatch(expected, given):
        raise UserError(f"{path} does not fit this backbone: {problem}")
    adapter.load_state_dict({ours: given[theirs] for ours, theirs in names.items()})
    return variant, adapter


def read_row(path: Path, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], int]:
    """The row of `variants:` of a checkpoint, from its shapes, and the width c of its input.

    Raises:
        UserError: it is neither a standard IP-Adapter nor "plus".
    """
    problem = "FaceID (its weights hold a LoRA)"
    if not any("_lora." in name for name in weights):
        problem = "with a projection that is neither a linear layer and a norm nor a resampler"
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        for projection, fields_of in FIELDS.items():
            # a weight that is missing, has other axes or is empty
            with suppress(KeyError, ValueError, ZeroDivisionError):
                fields, embed_dim = fields_of(shapes)
                return {"projection": projection, "attention": "decoupled", **fields}, embed_dim
    raise UserError(
        f"{path} is an IP-Adapter {problem}: it cannot be compared here, load it with diffusers' "
        "own `load_ip_adapter`"
    )


def linear_fields(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Fields of a standard IP-Adapter, and c."""
    outputs, embed_dim = shapes["image_proj.proj.weight"]
    (width,) = shapes["image_proj.norm.weight"]
    return {"tokens": outputs // width}, embed_dim


def resampler_fields(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Fields of IP-Adapter Plus, and c."""
    _, tokens, channels = shapes["image_proj.latents"]
    _, patch_width = shapes["image_proj.proj_in.weight"]
    inner, _ = shapes["image_proj.layers.0.0.to_q.weight"]
    fields = {
        "tokens": tokens,
        "patch_width": patch_width,
        "channels": channels,
        "depth": sum(name.endswith(".0.to_q.weight") for name in shapes),
        "heads": inner // HEAD_WIDTH,
    }
    return fields, patch_width


FIELDS: dict[str, Callable[[Shapes], tuple[dict[str, int], int]]] = {
    "linear": linear_fields,
    "resampler": resampler_fields,
}
"""By projection, reads the fields of a row and the width c of its input from the shapes."""
