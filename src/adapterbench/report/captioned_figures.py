"""The figures of the report: draw each from the files, with caption and alternative text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from adapterbench.core.config import IllustrateParams
from adapterbench.formats.generated import decode_images, read_names, samples_tar
from adapterbench.formats.pairs import PROTOCOLS
from adapterbench.report import figures, layers
from adapterbench.report.heat_map import heat_map
from adapterbench.report.illustrations import (
    answers_grid,
    bases_grid,
    prompts_grid,
    read_sweep,
)
from adapterbench.report.methods import Names
from adapterbench.report.page import CaptionedFigure
from adapterbench.report.references import choose, read_references
from adapterbench.report.sweep import sweep_figure
from adapterbench.report.table import Comparison

ITEMS = 6
"""Rows of the image grids."""

ALTS = {
    "pareto": "Four scatter plots, a score each, over the number of trainable parameters.",
    "intervals": "Points with error bars, a line a method and a panel a score.",
    "loss": "Line plot of the training loss over the optimiser steps, a line a variant.",
    "image_prompts": "Grid of images: a row a reference image, a column a method.",
    "multimodal_prompts": "Grid of images: a row an image and its caption, a column a method.",
    "text_prompts": "Grid of images: a row an image and another text, a column a method.",
    "answers": "Grid of images: a row an image, a text and the right answer, a column a method.",
    "base_models": "Grid of images: groups of rows, a row a base model; a column a method.",
    "scale_sweep": "Rows of images as the weight grows, beside curves of CLIP-T over CLIP-I.",
    "layers": "Heat maps: a row a layer or preset, a column colour, shape or concept.",
    "presets": "Grid of images: a row an image prompt, a column the layers that are on.",
}
"""Alternative text of each figure; of a variant's own, by what stands before the dot."""


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
    chosen = f"The items are {len(keys)} evenly spaced ones of the sorted list, not picked by hand"
    illustrated = sources.illustrations, image.variants, sources.shards
    label = image.label
    drawn = {
        "pareto": (
            figures.pareto(image),
            "Trainable parameters against each score, image prompt alone, with intervals. "
            "Lines: floors, and the ceilings where they are near.",
        ),
        "intervals": (
            figures.forest([image, image_text]),
            "Means and intervals of all methods under both protocols.",
        ),
        "loss": (
            figures.losses(curves, label),
            "Training loss. Its level says little about image quality: compare the images.",
        ),
        "image_prompts": (
            figures.grid(image_grid(image, keys, sources)),
            f"Image prompt alone: the reference and each method's first image. {chosen}.",
        ),
        "multimodal_prompts": (
            figures.grid(image_text_grid(image_text, keys, sources)),
            f"Image prompt and caption: each method's first image. {chosen}.",
        ),
        "text_prompts": (
            figures.grid(prompts_grid(params, *illustrated, label)),
            "Image prompt and a text prompt that changes it. The pairs were chosen by hand, with "
            "words from the captions and after seeing results; the seed was not.",
        ),
        **{
            protocol: (
                figures.grid(answers_grid(*illustrated, label, protocol)),
                f"Prompts with a right answer, {PROTOCOLS[protocol]}: each method's image of both "
                "prompts. The first pairs in hashed order, not picked by hand.",
            )
            for protocol in answers["protocol"].unique()
        },
        "base_models": (
            figures.grid(
                bases_grid(
                    sources.illustrations, sources.samples, image.variants, sources.shards, label
                )
            ),
            "The same adapters, trained once, on other base models: image prompt alone. Text only: "
            "the base model alone, given the image prompt's caption.",
        ),
        "scale_sweep": (
            sweep_figure(read_sweep(params, *illustrated), label),
            "The caption of an item against the image prompt of the next, as the weight of the "
            "image prompt (λ) grows. Images: the first item. Curves: means over the items, from "
            "λ = 0 (upper left), where adapters with their own attention equal the base model.",
        ),
        **layer_figures(measured, sources, label),
    }
    captioned = []
    for name, (figure, caption) in drawn.items():
        path, alt = out / f"{name}.png", ALTS.get(name.partition(".")[0], ALTS["answers"])
        figures.save(figure, path)
        captioned.append(CaptionedFigure(path, caption, alt))
    return captioned


def layer_figures(
    measured: Mapping[str, pd.DataFrame], sources: Sources, label: Names
) -> dict[str, tuple[Figure, str]]:
    """By name: figure and caption of what each layer carries, and of images with the presets."""
    drawn = {}
    for variant, table in measured.items():
        drawn[f"layers.{variant}"] = (
            heat_map(table),
            f"What each layer of {label(variant)} carries of the image prompt. Text: paired effect "
            "on the similarity to the reference, bold where its interval excludes 0. Colour: the "
            "effect relative to the largest of its column.",
        )
        drawn[f"presets.{variant}"] = (
            figures.grid(
                presets_grid(table, layers.folder(sources.illustrations, variant), sources)
            ),
            f"{label(variant)}, image prompt alone, with the layers of a preset on. The items are "
            "others than those that gave the presets, evenly spaced in the sorted list.",
        )
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
