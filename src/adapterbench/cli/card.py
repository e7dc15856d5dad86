"""The folder that a hub takes: the adapter's files, its model card and sample images."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from adapterbench.adapters.core.storage import CONFIG, WEIGHTS, load_config, load_variant
from adapterbench.cli.paths import RESULTS, SAMPLES, SHARDS
from adapterbench.core.config import (
    PARAMS,
    BackboneParams,
    DataParams,
    ImageEncoderParams,
    load_params,
)
from adapterbench.core.errors import InputError, UserError
from adapterbench.core.files import MANIFEST, publish
from adapterbench.exchange.hub import README
from adapterbench.exchange.presets import PRESETS, places
from adapterbench.formats.generated import HEADLINE, PROTOCOLS, decode_images, read_names
from adapterbench.formats.generated import samples_tar as tar_of
from adapterbench.formats.shards import Manifest, read_manifest
from adapterbench.frozen.load import LOCAL, bundled_encoder, fingerprint, has_part
from adapterbench.report.markdown import HOW_TO_READ, dagger_note
from adapterbench.report.measured import described, measured_on
from adapterbench.report.metrics import TRAINABLE, count_text
from adapterbench.report.references import read_references, thumbnail
from adapterbench.report.sheets import headline
from adapterbench.report.table import COLUMNS, ENDS, FILES, PAIRED, Comparison, read_csv

GRID = "samples.png"
SHOWN = 8
"""Most items of the grid."""
SIDE = 128
"""Side of an image in the grid, pixels."""
PIPELINES = {False: "StableDiffusionPipeline", True: "StableDiffusionXLPipeline"}
"""diffusers' pipeline, by whether the base model has a second text encoder."""
TAGS = ["adapterbench", "image-prompt", "ip-adapter", "stable-diffusion"]

TEMPLATE = Environment(
    loader=PackageLoader("adapterbench.cli"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("model_card.md")


@dataclass(frozen=True, slots=True)
class Scores:
    """The adapter's row of the comparison as Markdown."""

    file: str
    protocol: str
    table: str
    notes: str
    """How to read the table."""
    facts: dict[str, str]
    """The conditions by name; none outside a project."""


def save_for_hub(
    model: Path,
    out: Path,
    parameters: int,
    encoder: ImageEncoderParams,
    backbone: Path,
    licence: str | None,
) -> None:
    """Write the folder that `adapterbench upload` uploads.

    The scores, the images and what it was trained on are those of the project in the working
    folder; what the project lacks is left out.

    Args:
        model: folder of the adapter; its name is that of its row in the comparison.
        out: of the new folder.
        parameters: trainable ones.
        encoder: the image encoder of its training.
        backbone: folder of the base model.
        licence: of the weights, as the hub names it.

    Raises:
        UserError: a file of the project is damaged.
    """
    grid = sample_grid(model.absolute().name)
    card = model_card(model, parameters, encoder, backbone, licence, shown(grid))
    with publish(out) as folder:
        folder.mkdir()
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(model / name, folder / name)
        for presets in filter(Path.is_file, places(model.absolute())):
            shutil.copyfile(presets, folder / PRESETS)
            break
        if grid:
            grid.save(folder / GRID)
        card.save(folder / README)


def model_card(
    model: Path,
    parameters: int,
    encoder: ImageEncoderParams,
    backbone: Path,
    licence: str | None,
    items: int,
) -> ModelCard:
    """The card; `items` is how many the grid shows (see `save_for_hub`)."""
    base = base_of_training(model, backbone)
    data = load_params(DataParams, "data") if base else None
    manifest = read_manifest(SHARDS) if (SHARDS / MANIFEST).is_file() else None
    on_hub = base is not None and base.source == "hub"
    front = ModelCardData(
        library_name="adapterbench",
        pipeline_tag="text-to-image",
        tags=TAGS,
        license=licence,
        base_model=base.path if base and on_hub else None,
        datasets=data.fetch["repository"] if data and data.source == "hub" else None,
    )
    name = model.absolute().name
    bundled = load_config(model).image_encoder is None and is_bundled(encoder, backbone)
    text = TEMPLATE.render(
        front=front.to_yaml(),
        name=name,
        variant=load_variant(model),
        parameters=count_text(parameters),
        grid=items,
        pipeline=PIPELINES[has_part(backbone, "text_encoder_2")],
        base_arguments=base_arguments(base if on_hub else None, backbone),
        encoder_arguments="" if bundled else encoder_arguments(encoder),
        encoder_note=encoder_note(None if bundled else encoder),
        on_hub=on_hub,
        backbone=backbone,
        training=training(base, data, manifest),
        scores=scores(name, parameters),
        attribution=list(manifest.attribution.values()) if manifest and (data or items) else [],
    )
    return ModelCard(text)


def base_of_training(model: Path, backbone: Path) -> BackboneParams | None:
    """The base model as params.yaml names it; None if the adapter was not trained over it."""
    if not PARAMS.is_file() or load_config(model).backbone.get("digest") != fingerprint(backbone):
        return None
    return load_params(BackboneParams, "backbone")


def training(
    base: BackboneParams | None, data: DataParams | None, manifest: Manifest | None
) -> dict[str, str]:
    """What the adapter was trained on, by name; nothing if that is not known."""
    if base is None or data is None:
        return {}
    images = ""
    if manifest and "train" in manifest.splits:
        count = sum(shard.samples for shard in manifest.splits["train"].shards)
        images = f", {count:,} images"
    source = data.fetch.get("repository") if data.source == "hub" else described(data)
    path = Path(base.path).name if base.source == "local" else base.path
    revision = f", revision `{base.revision}`" if base.revision else ""
    return {
        "Data": f"{source}{images}",
        "Base model (frozen)": f"`{path}` ({base.source}){revision}",
    }


def base_arguments(base: BackboneParams | None, backbone: Path) -> str:
    """Arguments of `from_pretrained`; `base` is None for a model that is not on the hub."""
    if base is None:
        return quoted(str(backbone))
    revision = f", revision={quoted(base.revision)}" if base.revision else ""
    return quoted(base.path) + revision


def is_bundled(encoder: ImageEncoderParams, backbone: Path) -> bool:
    """Whether the image encoder is the one in the base model's folder."""
    return encoder.image_encoder == bundled_encoder(backbone)


def encoder_arguments(encoder: ImageEncoderParams) -> str:
    """Arguments of `load_adapter` that name the image encoder."""
    tag = f", pretrained={quoted(encoder.pretrained)}" if encoder.pretrained else ""
    return f", image_encoder={quoted(public_name(encoder))}{tag}"


def encoder_note(encoder: ImageEncoderParams | None) -> str:
    """Which image encoder it was trained with; None: the one in the base model's folder."""
    if encoder is None:
        return "The image encoder is in `image_encoder/` of that folder."
    tag = f" with the weights `{encoder.pretrained}`" if encoder.pretrained else ""
    return (
        f"The image encoder is open_clip's `{public_name(encoder)}`{tag}; `load_adapter` takes it "
        "from you, never from this repository."
    )


def public_name(encoder: ImageEncoderParams) -> str:
    """open_clip name of an image encoder; of a folder, without where it is on this machine."""
    name = str(encoder.image_encoder)
    return f"{LOCAL}{Path(name).name}" if name.startswith(LOCAL) else name


def quoted(text: str | None) -> str:
    """A text as it is written in Python and JSON."""
    return json.dumps(text, ensure_ascii=False)


def scores(name: str, parameters: int) -> Scores | None:
    """The row of `name` and that of no prompt in the headline table; None if it has no such row.

    Raises:
        UserError: the table is damaged, or its row is of an adapter with other `parameters`.
    """
    path = RESULTS / FILES[HEADLINE]
    if not path.is_file():
        return None
    rows = read_csv(path, COLUMNS)
    if name not in set(rows["method"]):
        return None
    protocol = PROTOCOLS[HEADLINE]
    rows = rows[rows["method"].isin([name, protocol.floor])].reset_index(drop=True)
    if not np.isfinite(rows[[*ENDS, "n", "k"]]).all(axis=None):
        raise InputError(f"{path} lacks a score", path)
    comparison = Comparison(
        protocol=HEADLINE, rows=rows, paired=pd.DataFrame(columns=pd.Index(PAIRED))
    )
    if (scored := int(comparison.row(name)[TRAINABLE.key])) != parameters:
        raise UserError(
            f"{path} scores a {name} of {scored:,} parameters, this adapter has {parameters:,}: "
            "run `dvc repro`, or move the table away to leave the scores out"
        )
    return Scores(
        file=path.as_posix(),
        protocol=protocol.title,
        table=replace(headline(comparison), best=frozenset()).markdown(),
        notes="\n\n".join([*dagger_note(comparison), HOW_TO_READ]) + "\n",
        facts=measured_on(*comparison.size).facts() if PARAMS.is_file() else {},
    )


def sample_grid(name: str) -> Image.Image | None:
    """The first items' image prompts above what was generated; None without samples or shards.

    Raises:
        UserError: they are damaged.
    """
    tar = tar_of(SAMPLES / name, HEADLINE)
    if not (tar.is_file() and (SHARDS / MANIFEST).is_file()):
        return None
    keys = list(dict.fromkeys(key for key, _ in read_names(tar)))[:SHOWN]
    prompts = [reference.image for reference in read_references(SHARDS, keys)]
    return tiled([prompts, decode_images(tar, keys)])


def tiled(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Images in rows of one length, `SIDE` pixels each."""
    grid = Image.new("RGB", (SIDE * len(rows[0]), SIDE * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            grid.paste(thumbnail(image, SIDE), (SIDE * x, SIDE * y))
    return grid


def shown(grid: Image.Image | None) -> int:
    """Items of a grid."""
    return grid.width // SIDE if grid else 0
