"""The conditions of a comparison, shown with every table."""

from pathlib import Path

from adapterbench.core.config import (
    PARAMS,
    BackboneParams,
    CompareParams,
    DataParams,
    EncodeParams,
    EvaluatorParams,
    SampleParams,
    ScoreParams,
    Section,
    TrainParams,
    load_params,
    load_rows,
)


class MeasuredOn(Section):
    """The conditions of a comparison."""

    data: str
    """Source of the images and captions."""
    backbone: str
    """The frozen diffusion model."""
    image_encoder: str
    """The network that encodes the image prompt."""
    evaluator: str
    """The network that gives CLIP-T and CLIP-I."""
    neutral_evaluator: str
    """The network that gives the other scores."""
    split: str
    """Split of the data that the items belong to."""
    items: int
    """Items (N)."""
    images_per_item: int
    """Images per item and method (K)."""
    train_steps: int
    """Optimiser steps of each adapter."""
    train_batch: int
    """Images per step."""
    overridden: tuple[str, ...]
    """Variants with their own training parameters (`train:` in the row)."""
    sampler_steps: int
    guidance_scale: float
    scale: float
    """Weight of the image prompt (lambda)."""
    confidence: float
    """Coverage of the intervals."""
    bootstrap_samples: int

    def facts(self) -> dict[str, str]:
        """The conditions as text, by name."""
        overridden = ", ".join(self.overridden)
        return {
            "Data": self.data,
            "Backbone (frozen)": self.backbone,
            "Image encoder (conditions)": self.image_encoder,
            "Evaluator (CLIP-T, CLIP-I)": self.evaluator,
            "Neutral evaluator (the other scores)": self.neutral_evaluator,
            "Items and images": f"N = {self.items:,} {self.split} items, K = "
            f"{self.images_per_item} images of each; the noise of an image is the same for every "
            "method; chance of R@1: "
            f"1/{self.items} = {1 / self.items:.3f}",
            "Training": f"{self.train_steps:,} steps of {self.train_batch} images"
            + (f"; own settings: {overridden}" if overridden else ""),
            "Sampling": f"{self.sampler_steps} steps, guidance scale {self.guidance_scale:g}, "
            f"image prompt scale {self.scale:g}",
            "Intervals": f"{self.confidence:.0%}, percentile bootstrap over items, paired across "
            f"methods, {self.bootstrap_samples:,} resamples, not corrected for the number of "
            "pairs",
        }


def measured_on(
    items: int, images_per_item: int, split: str = "validation", params: Path = PARAMS
) -> MeasuredOn:
    """Collect the conditions from the parameter file; N and K come from the scores.

    Raises:
        UserError: a section is missing or has an invalid value.
    """
    data = load_params(DataParams, "data", params)
    train = load_params(TrainParams, "train", params)
    sample = load_params(SampleParams, "sample", params)
    intervals = load_params(CompareParams, "compare", params)
    evaluators = load_params(ScoreParams, "score", params).evaluators
    neutral = load_params(BackboneParams, "neutral_evaluator", params)
    variants = load_rows(params)
    return MeasuredOn(
        data=described(data),
        backbone=load_params(BackboneParams, "backbone", params).path,
        image_encoder=load_params(EncodeParams, "encode", params).image_encoder,
        evaluator=described_evaluator(evaluators.clip),
        neutral_evaluator=f"{neutral.path}, {described_evaluator(evaluators.neutral)}",
        split=split,
        items=items,
        images_per_item=images_per_item,
        train_steps=train.steps,
        train_batch=train.batch_size,
        overridden=tuple(name for name, row in variants.items() if "train" in row),
        sampler_steps=sample.steps,
        guidance_scale=sample.guidance_scale,
        scale=sample.scale,
        confidence=intervals.confidence,
        bootstrap_samples=intervals.bootstrap_samples,
    )


def described_evaluator(params: EvaluatorParams) -> str:
    """Kind and options of an evaluator, such as `open_clip (model ViT-B-32, pretrained openai)`."""
    fields = (params.model_extra or {}).items()
    options = [f"{name} {value}" for name, value in fields if value and name != "batch_size"]
    return f"{params.kind} ({', '.join(options)})"


def described(data: DataParams) -> str:
    """The source and the names of its parts, such as `emoji (google, twitter)`."""
    parts = [part for part in data.fetch.values() if isinstance(part, dict)]
    names = ", ".join(name for part in parts for name in part)
    return f"{data.source} ({names})" if names else data.source
