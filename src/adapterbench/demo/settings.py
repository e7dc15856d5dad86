"""Settings of an image and their limits, which the page shows and the server checks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from adapterbench.core.environment import installed
from adapterbench.core.errors import UserError

MAX_TEXT = 300
"""Most characters of a prompt: more than the text encoder's 77 tokens hold."""
REFERENCES = 3
"""Most reference images of a prompt."""
SCALE = (0.0, 1.5)
GUIDANCE_SCALE = (1.0, 10.0)
STEPS = (1, 50)
SEED = (0, 2**32 - 1)
ALL_LAYERS = "all"
"""Name of the choice of all layers, beside the presets that were measured."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Share = Annotated[float, Field(ge=0, le=1)]
CONFIG = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class InputImage:
    """An image that was given, by name."""

    caption: str
    """Caption or file name."""
    sha256: str
    """Digest of its PNG file in the archive that the page offers."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class ImagePrompt(InputImage):
    """A reference image."""

    scale: Annotated[float, Field(ge=SCALE[0], le=SCALE[1])]
    """Its weight (lambda)."""
    mask: str | None = None
    """Digest of its mask's PNG file; None: it acts everywhere."""


@dataclass(frozen=True, kw_only=True, slots=True, config=CONFIG)
class Settings:
    """Everything that a generated image depends on."""

    method: str
    """Name of the adapter in models/, or `text_only`."""
    base: str
    """Name of the base model."""
    images: Annotated[tuple[ImagePrompt, ...], Field(min_length=1, max_length=REFERENCES)]
    text: Text
    negative_text: Text
    negative_image: InputImage | None = None
    """Image that guidance leads away from."""
    control: InputImage | None = None
    """Control image, whose edges are kept."""
    layers: str = ALL_LAYERS
    """Layers that the image prompt acts in: all, or the name of a measured preset."""
    start: Share = 0.0
    """Share of the steps before the image prompt acts."""
    end: Share = 1.0
    """Share of the steps after which it no longer acts."""
    fit: Literal["crop", "pad", "tiles"] = "crop"
    """How a reference that is not square is read."""
    guidance_scale: Annotated[float, Field(ge=GUIDANCE_SCALE[0], le=GUIDANCE_SCALE[1])]
    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1])]
    """DPM-Solver++ steps."""
    seed: Annotated[int, Field(ge=SEED[0], le=SEED[1])]
    weights: str | None = None
    """Digest of the adapter's weights; None: not generated yet, or no adapter."""
    version: str | None = Field(default_factory=lambda: installed("adapterbench"))
    """Version of this package."""

    @model_validator(mode="after")
    def in_order(self) -> "Settings":
        """Check that the image prompt acts at all."""
        if self.start >= self.end:
            raise PydanticCustomError(
                "order",
                "Start is {start} and end is {end}: start must come before end",
                {"start": self.start, "end": self.end},
            )
        return self

    def with_scale(self, scale: float) -> "Settings":
        """The same with another scale of the first image.

        Raises:
            UserError: it is out of range.
        """
        with user_errors():
            first, *others = self.images
            return replace(self, images=(replace(first, scale=scale), *others))


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise a `ValidationError` as a `UserError` of one line that names each invalid field."""
    try:
        yield
    except ValidationError as error:
        raise UserError("; ".join(map(problem, error.errors()))) from error


def parse_settings(**values: Any) -> Settings:
    """Check values from a browser.

    Raises:
        UserError: a value is invalid; the message is one line with each such field.
    """
    with user_errors():
        return Settings(**values)


def problem(error: Mapping[str, Any]) -> str:
    """What is wrong with a field, in a sentence; fields of several images have a number."""
    names = [part for part in error["loc"] if isinstance(part, str)]
    numbers = [part + 1 for part in error["loc"] if isinstance(part, int)]
    if not names:
        return str(error["msg"])
    name = title(names[-1]) + "".join(f" of image {number}" for number in numbers)
    return f"{name} is {short(error['input'])}: {error['msg']}"


def title(field: str) -> str:
    """Label of a field."""
    return field.replace("_", " ").capitalize()


def short(value: object) -> str:
    """`repr` of a value, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
