"""Captions and alternative texts of the figures, by the name of the file.

Figures of one variant are called `KIND.VARIANT`; they have those of their kind.
"""

from adapterbench.formats.pairs import PROTOCOLS

ITEMS = 6
"""Rows of the image grids."""

ALTS = {
    "pareto": "Four scatter plots, a score each, over the number of trainable parameters.",
    "intervals": "Points with error bars, a line a method and a panel a score.",
    "loss": "Line plot of the training loss over the optimiser steps, a line a variant.",
    "image_prompts": "Grid of images: a row a reference image, a column a method.",
    "multimodal_prompts": "Grid of images: a row an image and its caption, a column a method.",
    "text_prompts": "Grid of images: a row an image and another text, a column a method.",
    **dict.fromkeys(
        PROTOCOLS,
        "Grid of images: a row an image, a text and the right answer, a column a method.",
    ),
    "base_models": "Grid of images: groups of rows, a row a base model; a column a method.",
    "scale_sweep": "Rows of images as the weight grows, beside curves of CLIP-T over CLIP-I.",
    "layers": "Heat maps: a row a layer or preset, a column colour, shape or concept.",
    "presets": "Grid of images: a row an image prompt, a column the layers that are on.",
}
"""Alternative text of each figure."""


def captions_of(items: int) -> dict[str, str]:
    """Caption of each figure; `items` is the number of rows of the image grids."""
    chosen = f"The items are {items} evenly spaced ones of the sorted list, not picked by hand."
    return {
        "pareto": (
            "Trainable parameters against each score, image prompt alone, with intervals. "
            "Lines: floors, and the ceilings where they are near."
        ),
        "intervals": "Means and intervals of all methods under both protocols.",
        "loss": "Training loss. Its level says little about image quality: compare the images.",
        "image_prompts": (
            f"Image prompt alone: the reference and each method's first image. {chosen}"
        ),
        "multimodal_prompts": f"Image prompt and caption: each method's first image. {chosen}",
        "text_prompts": (
            "Image prompt and a text prompt that changes it. The pairs were chosen by hand, with "
            "words from the captions and after seeing results; the seed was not."
        ),
        **{
            protocol: (
                f"Prompts with a right answer, {description}: each method's image of both "
                "prompts. The first pairs in hashed order, not picked by hand."
            )
            for protocol, description in PROTOCOLS.items()
        },
        "base_models": (
            "The same adapters, trained once, on other base models: image prompt alone. Text only: "
            "the base model alone, given the image prompt's caption."
        ),
        "scale_sweep": (
            "The caption of an item against the image prompt of the next, as the weight of the "
            "image prompt (λ) grows. Images: the first item. Curves: means over the items, from "
            "λ = 0 (upper left), where adapters with their own attention equal the base model."
        ),
        "layers": (
            "what each layer carries of the image prompt. Text: paired effect on the similarity to "
            "the reference, bold where its interval excludes 0. Colour: the effect relative to the "
            "largest of its column."
        ),
        "presets": (
            "image prompt alone, with the layers of a preset on. The items are others than those "
            "that gave the presets, evenly spaced in the sorted list."
        ),
    }
