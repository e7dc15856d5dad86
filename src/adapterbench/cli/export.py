"""`adapterbench export`: write a trained adapter for other programs."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from adapterbench.cli.encoder import check_width, first, of_backbone, of_stage_encode
from adapterbench.cli.options import require_absent
from adapterbench.cli.paths import BACKBONE
from adapterbench.core.config import ImageEncoderParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish

if TYPE_CHECKING:
    from torch import Tensor

    from adapterbench.adapters.core.storage import AdapterConfig

CHECKPOINT = "ip_adapter.safetensors"
"""File name of the adapter in a folder for diffusers; the image encoder is in `ENCODER`."""
EXACT = "exact: with the same image embeddings and noise, stock loaders give the same images"
TOLERANCE = 1e-4
"""Largest difference of a layer's output in an exact export, relative to the largest output."""
IN_PART = (
    "in part: keys and values include their LoRA; queries and outputs of the image branch are the "
    "base model's, since stock loaders support no others: images differ from this project's"
)
RECIPE = """
from transformers import AutoImageProcessor

pipe.feature_extractor = AutoImageProcessor.from_pretrained({encoder!r}, backend="pil")
pipe.load_ip_adapter({folder!r}, subfolder="", weight_name={name!r})
image = pipe("", ip_adapter_image=reference).images[0]  # reference: an RGB image
"""
"""Code that loads the export with its own image preprocessing; diffusers' default normalises
differently."""


class Format(StrEnum):
    """Output format."""

    DIFFUSERS = "diffusers"
    IP_ADAPTER = "ip-adapter"
    PEFT = "peft"
    HUB = "hub"


def export(
    model: Annotated[Path, Argument(help="Folder of a trained adapter: models/<variant>.")],
    out: Annotated[Path, Argument(help="Output path; must not exist.")],
    format: Annotated[Format, Option(help="Output format.")] = Format.DIFFUSERS,
    backbone: Annotated[Path, Option(help="Backbone it was trained over.")] = BACKBONE,
    image_encoder: Annotated[
        str | None,
        Option(
            help="open_clip name of its image encoder (default: the backbone's own, or "
            "encode.image_encoder)."
        ),
    ] = None,
    pretrained: Annotated[str | None, Option(help="open_clip weights tag of that encoder.")] = None,
    license: Annotated[
        str | None,
        Option(
            help="Licence of the weights for the card of `hub`, as the hub names it, such as mit."
        ),
    ] = None,
) -> None:
    """Write a trained adapter in a format of other programs, or for a hub.

    `diffusers`: a folder for `pipe.load_ip_adapter`, with the image encoder and its preprocessing;
    the code that loads it is printed. `ip-adapter`: one file in the original repository's layout,
    OUT.safetensors or OUT.bin, which ComfyUI and A1111 read, too (untested). `peft`: a folder
    with the LoRA alone for `PeftModel.from_pretrained`. `hub`: a folder of any variant for
    `adapterbench upload`, with a model card, which `load_adapter(pipe, "USER/REPO")` loads.

    The first two export `ip_adapter` (and an adopted "plus") exactly, which is checked with
    diffusers' own loader, and `ip_adapter_lora` in part. Other variants have no stock loader; use
    `from adapterbench import load_adapter`, which loads all variants.
    """
    # slow imports, not needed for `--help`
    from adapterbench.adapters.core import storage
    from adapterbench.exchange import ip_adapter
    from adapterbench.frozen.load import ENCODER, load_part

    require_absent(out)
    config, variant = storage.load_config(model), storage.load_variant(model)
    if format is not Format.HUB:
        check = ip_adapter.check_peft if format is Format.PEFT else ip_adapter.check_ip_adapter
        check(variant)
    named = ImageEncoderParams(image_encoder=image_encoder, pretrained=pretrained)
    unet = load_part(backbone, "unet")
    adapter = storage.load_adapter(model, unet)
    if format is Format.HUB:
        encoder = encoder_of(config, backbone, named)
        check_width(adapter, encoder)
        from adapterbench.cli.card import save_for_hub  # slow import, not needed for the others

        save_for_hub(model, out, adapter.count, encoder, backbone, license)
        typer.echo(f"{out}: read its README.md, then `adapterbench upload {out} USER/REPO`")
        return
    if format is Format.PEFT:
        ip_adapter.save_peft(adapter, variant, out)
        typer.echo(f"{out}: the LoRA alone, without the projection; it affects text, too")
        return
    weights = ip_adapter.to_ip_adapter(adapter, unet, variant.projection)
    exact = variant.attention == "decoupled"
    difference = ip_adapter.stock_difference(adapter, unet, weights)
    if exact and not difference < TOLERANCE:
        raise UserError(
            f"diffusers' own loader gives other outputs over {backbone} (by {difference:.0e}): use "
            "`from adapterbench import load_adapter` instead"
        )
    recipe = ""
    if format is Format.IP_ADAPTER:
        ip_adapter.save_ip_adapter(weights, out)
    else:
        encoder = encoder_of(config, backbone, named)
        check_width(adapter, encoder)
        save_for_diffusers(weights, encoder, out)
        recipe = RECIPE.format(folder=str(out), encoder=str(out / ENCODER), name=CHECKPOINT)
    typer.echo(f"{out}: {EXACT if exact else IN_PART}\n{recipe}".rstrip())


def encoder_of(
    config: "AdapterConfig", backbone: Path, named: ImageEncoderParams
) -> ImageEncoderParams:
    """The image encoder of an adapter.

    Raises:
        UserError: it is unknown, or only the adapter's own configuration names it, which is not
            trusted.
    """
    if config.image_encoder and not named.image_encoder:
        raise UserError(
            f"the adapter says that it was trained with {config}: if you trust that, name it "
            "with --image-encoder and --pretrained"
        )
    return first(named, of_backbone(backbone), of_stage_encode(backbone))


def save_for_diffusers(
    weights: "Mapping[str, Tensor]", encoder: ImageEncoderParams, out: Path
) -> None:
    """Write the folder that `RECIPE` loads.

    Raises:
        UserError: the image encoder cannot be loaded, or `transformers` cannot represent it.
    """
    from adapterbench.exchange.ip_adapter import save_ip_adapter
    from adapterbench.exchange.vision import save_vision
    from adapterbench.frozen.load import ENCODER, load_clip

    clip = load_clip(str(encoder.image_encoder), encoder.pretrained)
    with publish(out) as folder:
        folder.mkdir()
        save_ip_adapter(weights, folder / CHECKPOINT)
        save_vision(clip, folder / ENCODER)
