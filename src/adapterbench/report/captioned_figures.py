"""The figures of the report: draw each from the files, with caption and alternative text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from adapterbench.core.config import IllustrateParams
from adapterbench.formats.generated import decode_images, read_names, samples_tar
from adapterbench.report import figures, layers
from adapterbench.report.captions import ALTS, ITEMS, captions_of
from adapterbench.report.heat_map import heat_map
from adapterbench.report.illustrations import (
    answers_grid,
    bases_grid,
    prompts_grid,
    read_sweep,
)
from adapterbench.report.page import CaptionedFigure
from adapterbench.report.references import choose, read_references
from adapterbench.report.sweep import sweep_figure
from adapterbench.report.table import Comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """Input folders of the figures."""

    samples: Path
    """`<method>/<protocol>.tar` of generated images."""
    illustrations: Path
    """`<method>/`, output of stage `illustrate`."""
    shards: Path
    """Shards, for the reference images."""
    curves: Path
    """`<variant>.csv` of logged losses."""


def draw(
    comparisons: Mapping[str, Comparison],
    answers: pd.DataFrame,
    measured: Mapping[str, pd.DataFrame],
    params: IllustrateParams,
    sources: Sources,
    out: Path,
) -> list[CaptionedFigure]:
    """Draw all figures into the folder `out`; return them with captions, in the order of the page.

    Args:
        comparisons: by protocol.
        answers: table of `pairs`.
        measured: tables of `layers`, by variant.
        params: what stage `illustrate` generated.
        sources: input folders.
        out: folder of the figures.

    Raises:
        UserError: a file that a figure needs is missing or damaged.
    """
    image, image_text = comparisons["image"], comparisons["image_text"]
    curves = {v: figures.read_curve(sources.curves / f"{v}.csv") for v in image.variants}
    names = read_names(tar(sources, image.variants[0], "image"))
    keys = choose({key for key, _ in names}, ITEMS)
    illustrated = sources.illustrations, image.variants, sources.shards
    label = image.label
    drawn = {
        "pareto": figures.pareto(image),
        "intervals": figures.forest([image, image_text]),
        "loss": figures.losses(curves, label),
        "image_prompts": figures.grid(image_grid(image, keys, sources)),
        "multimodal_prompts": figures.grid(image_text_grid(image_text, keys, sources)),
        "text_prompts": figures.grid(prompts_grid(params, *illustrated, label)),
        **{
            protocol: figures.grid(answers_grid(*illustrated, label, protocol))
            for protocol in answers["protocol"].unique()
        },
        "base_models": figures.grid(
            bases_grid(
                sources.illustrations, sources.samples, image.variants, sources.shards, label
            )
        ),
        "scale_sweep": sweep_figure(read_sweep(params, *illustrated), label),
        **layer_figures(measured, sources),
    }
    captions = captions_of(len(keys))
    captioned = []
    for name, figure in drawn.items():
        kind, _, variant = name.partition(".")
        caption = f"{label(variant)}: {captions[kind]}" if variant else captions[kind]
        path = out / f"{name}.png"
        figures.save(figure, path)
        captioned.append(CaptionedFigure(path, caption, ALTS[kind]))
    return captioned


def layer_figures(measured: Mapping[str, pd.DataFrame], sources: Sources) -> dict[str, Figure]:
    """What each layer of a variant carries, and images with its presets, as `KIND.VARIANT`."""
    drawn = {}
    for variant, table in measured.items():
        folder = layers.folder(sources.illustrations, variant)
        drawn[f"layers.{variant}"] = heat_map(table)
        drawn[f"presets.{variant}"] = figures.grid(presets_grid(table, folder, sources))
    return drawn


def tar(sources: Sources, method: str, protocol: str) -> Path:
    """Tar of a method's images under a protocol."""
    return samples_tar(sources.samples / method, protocol)


Columns = dict[str, Sequence[figures.Cell]]


def image_grid(comparison: Comparison, keys: Sequence[str], sources: Sources) -> Columns:
    """Columns: caption, reference, each variant, and the base model without any prompt."""
    references = read_references(sources.shards, keys)
    return {
        "Caption (not given)": [reference.caption for reference in references],
        "Image prompt": [reference.image for reference in references],
        **generated(comparison, comparison.variants, keys, sources),
        **generated(comparison, [*comparison.training_free, "no_prompt"], keys, sources),
    }


def image_text_grid(comparison: Comparison, keys: Sequence[str], sources: Sources) -> Columns:
    """Columns: image prompt, caption, each variant, and the base model with the caption alone."""
    references = read_references(sources.shards, keys)
    return {
        "Image prompt": [reference.image for reference in references],
        "Text prompt": [reference.caption for reference in references],
        **generated(comparison, comparison.variants, keys, sources),
        **generated(comparison, [*comparison.training_free, "text_only"], keys, sources),
    }


def presets_grid(table: pd.DataFrame, folder: Path, sources: Sources) -> Columns:
    """Columns: image prompt, all layers on, those of each preset, and none."""
    settings = {
        "All layers": layers.ALL,
        **{f"Preset {name}": name for name in layers.presets(table)},
        "No layer": layers.OFF,
    }
    keys = choose({key for key, _ in read_names(layers.image_tar(folder, layers.ALL))}, ITEMS)
    return {
        "Image prompt": [reference.image for reference in read_references(sources.shards, keys)],
        **{
            title: decode_images(layers.image_tar(folder, setting), keys)
            for title, setting in settings.items()
        },
    }


def generated(
    comparison: Comparison, methods: Sequence[str], keys: Sequence[str], sources: Sources
) -> Columns:
    """One column per method: the first image of each key."""
    return {
        comparison.label(m): decode_images(tar(sources, m, comparison.protocol), keys)
        for m in methods
    }
