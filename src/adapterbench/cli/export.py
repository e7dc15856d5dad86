"""`adapterbench export`: a trained adapter as a file that other programs take."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from adapterbench.cli.architecture import FETCHED
from adapterbench.cli.options import free
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish

if TYPE_CHECKING:
    from adapterbench.adapters.core.storage import AdapterConfig

CHECKPOINT = "ip_adapter.safetensors"
"""Name of the adapter in a folder for diffusers."""
IMAGE_ENCODER = "image_encoder"
"""Folder of the image encoder, in a backbone as open_clip has it, exported as diffusers looks."""

EXACT = "exact: stock loaders make the same pictures from the same noise"
IN_PART = (
    "in part: keys and values carry their LoRA; queries and outputs of the image branch are the "
    "base model's, as no stock loader has others: pictures differ from those of this project"
)


class Format(StrEnum):
    """Who is to read the adapter."""

    DIFFUSERS = "diffusers"
    IP_ADAPTER = "ip-adapter"
    PEFT = "peft"


def export(
    model: Annotated[Path, Argument(help="Folder of a trained adapter: models/<variant>.")],
    out: Annotated[Path, Argument(help="What to write; must not be there yet.")],
    format: Annotated[Format, Option(help="Who is to read it.")] = Format.DIFFUSERS,
    backbone: Annotated[Path, Option(help="What it was trained over.")] = FETCHED,
    image_encoder: Annotated[
        str | None,
        Option(help="open_clip name of the CLIP that it reads, where not the backbone's own."),
    ] = None,
    pretrained: Annotated[str | None, Option(help="open_clip weights tag of that CLIP.")] = None,
) -> None:
    """Write a trained adapter in a format of others.

    `diffusers`: a folder for `pipe.load_ip_adapter(OUT, subfolder="",
    weight_name="ip_adapter.safetensors")`, with the image encoder where the backbone has one.
    `ip-adapter`: one file in the original repository's layout, OUT.safetensors or OUT.bin, which
    ComfyUI and A1111 read, too (not tried there). `peft`: the LoRA alone, a folder for
    `PeftModel.from_pretrained`.

    The first two hold `ip_adapter` (and an adopted "plus") whole, `ip_adapter_lora` in part, as it
    says then. Other variants have no stock loader: `from adapterbench import load_adapter` takes
    them all.
    """
    # seconds to import, so not for `--help`
    from adapterbench.adapters.core import storage
    from adapterbench.exchange import ip_adapter
    from adapterbench.exchange.vision import save_vision
    from adapterbench.frozen.load import load_clip, load_part

    free(out)
    config = storage.load_config(model)
    variant = config.variant
    check = ip_adapter.check_peft if format is Format.PEFT else ip_adapter.check_ip_adapter
    check(variant)
    unet = load_part(backbone, "unet")
    adapter = storage.load_adapter(model, unet)
    if format is Format.PEFT:
        ip_adapter.save_peft(adapter, variant, out)
        typer.echo(f"{out}: the LoRA alone, without the projection; loaded, it acts on text, too")
        return
    weights = ip_adapter.to_ip_adapter(adapter, unet, variant["projection"])
    if format is Format.IP_ADAPTER:
        ip_adapter.save_ip_adapter(weights, out)
    else:
        with publish(out) as beside:
            beside.mkdir()
            ip_adapter.save_ip_adapter(weights, beside / CHECKPOINT)
            if name := encoder_name(config, backbone, image_encoder):
                save_vision(load_clip(name, pretrained), beside / IMAGE_ENCODER)
    typer.echo(f"{out}: {EXACT if variant['attention'] == 'decoupled' else IN_PART}")


def encoder_name(config: "AdapterConfig", backbone: Path, named: str | None) -> str | None:
    """The image encoder that goes with the adapter: what the user named, or the backbone's own.

    Raises:
        UserError: the adapter was trained with another one, and nobody but itself says so.
    """
    if named:
        return named
    if config.image_encoder:
        raise UserError(
            f"the adapter says that it was trained with {config}: where you trust that, name it "
            "with --image-encoder and --pretrained"
        )
    beside = backbone / IMAGE_ENCODER
    return f"local-dir:{beside}" if beside.is_dir() else None
