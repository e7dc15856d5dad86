"""`adapterbench adopt`: import an IP-Adapter as a row of the comparison."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from typer import Argument, Option

from adapterbench.cli.encoder import check_width, first, of_backbone, of_stage_encode
from adapterbench.cli.options import require_absent
from adapterbench.cli.paths import BACKBONE, MODELS, TRAIN_METRICS
from adapterbench.core.config import ImageEncoderParams, check_name
from adapterbench.core.files import publish, sha256, write_json

UNKNOWN = (
    "loss",
    "steps",
    "train_seconds",
    "images_per_second",
    "peak_memory_mb",
    "host_memory_mb",
)
"""Training metrics that are unknown for an adopted adapter."""


def adopt(
    checkpoint: Annotated[
        Path, Argument(help="Checkpoint of an IP-Adapter: .safetensors or .bin.")
    ],
    name: Annotated[str, Argument(help="Name of the row and of the folder in models/.")],
    backbone: Annotated[Path, Option(help="Backbone it was trained over.")] = BACKBONE,
    image_encoder: Annotated[
        str | None,
        Option(help="open_clip name of its image encoder (default: encode.image_encoder)."),
    ] = None,
    pretrained: Annotated[str | None, Option(help="open_clip weights tag of that encoder.")] = None,
) -> None:
    """Import an IP-Adapter that was trained elsewhere, to be sampled and scored with the others.

    Takes standard and "plus" IP-Adapters, as published or as the original trainer saves them
    (`model.safetensors`, `pytorch_model.bin`). Writes models/NAME and metrics/train/NAME.json
    (costs unknown), and prints the row for `variants:` and the command that registers it with DVC.
    From a `.bin` only weights are read; no code in it runs. Those published for Stable Diffusion
    1.5, and for SDXL those called `vit-h`, need `--image-encoder ViT-H-14 --pretrained
    laion2b_s32b_b79k`; `ip-adapter_sdxl` needs `ViT-bigG-14` and `laion2b_s39b_b160k`.
    """
    check_name(name)
    folder = require_absent(MODELS / name)
    # slow imports, not needed for `--help` or a usage error
    from adapterbench.adapters.core.storage import WEIGHTS, save_adapter
    from adapterbench.exchange.ip_adapter import from_ip_adapter
    from adapterbench.frozen.load import load_part

    variant, adapter = from_ip_adapter(checkpoint, load_part(backbone, "unet"))
    own = ImageEncoderParams(image_encoder=image_encoder, pretrained=pretrained)
    encoder = first(own, of_stage_encode(backbone), of_backbone(backbone))
    check_width(adapter, encoder)
    if adapter.reads_patches:  # which stage encode stores only if asked to
        own = encoder
    origin = {"checkpoint": checkpoint.name, "sha256": sha256(checkpoint)}
    save_adapter(adapter, folder, variant, origin, **own.model_dump())
    size = (folder / WEIGHTS).stat().st_size
    known = {"trainable_params": adapter.count, "checkpoint_mb": round(size / 2**20, 3)}
    write_json(TRAIN_METRICS / f"{name}.json", {**dict.fromkeys(UNKNOWN), **known})
    with publish(TRAIN_METRICS / f"{name}.csv") as temporary:
        temporary.write_text("step,loss\n0,\n")
    fields = {**variant.row(), **own.model_dump(exclude_none=True)}
    row = yaml.safe_dump({name: fields}, sort_keys=False)
    typer.echo(f"{row}# under variants:, then: dvc commit --force train@{name} && dvc repro")
