"""Settings of an image and their limits, which the page shows and the server checks."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from adapterbench.core.errors import UserError

MAX_TEXT = 300
"""Most characters of a prompt: more than the text encoder's 77 tokens hold."""
SCALE = (0.0, 1.5)
GUIDANCE_SCALE = (1.0, 10.0)
STEPS = (1, 50)
SEED = (0, 2**32 - 1)

Text = Annotated[str, Field(max_length=MAX_TEXT)]


@dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(allow_inf_nan=False))
class Settings:
    """Everything that a generated image depends on, besides the weights."""

    method: str
    """Name of the adapter in models/, or `text_only`."""
    base: str
    """Name of the base model."""
    image_prompt: str
    """Caption or file name of the image prompt."""
    text: Text
    negative_text: Text
    control: str | None
    """File name of the control image."""
    scale: Annotated[float, Field(ge=SCALE[0], le=SCALE[1])]
    """Weight of the image prompt (lambda)."""
    guidance_scale: Annotated[float, Field(ge=GUIDANCE_SCALE[0], le=GUIDANCE_SCALE[1])]
    steps: Annotated[int, Field(ge=STEPS[0], le=STEPS[1])]
    """DPM-Solver++ steps."""
    seed: Annotated[int, Field(ge=SEED[0], le=SEED[1])]


def parse_settings(**values: Any) -> Settings:
    """Check values from a browser.

    Raises:
        UserError: a value is invalid; the message is one line with each such field.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        parts = (
            f"{title(str(item['loc'][0]))} is {short(item['input'])}: {item['msg']}"
            for item in error.errors()
        )
        raise UserError("; ".join(parts)) from error


def title(field: str) -> str:
    """Label of a field."""
    return field.replace("_", " ").capitalize()


def short(value: object) -> str:
    """`repr` of a value, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
