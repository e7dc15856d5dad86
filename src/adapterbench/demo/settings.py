"""What can be set, and within which limits: the page shows them, the server holds to them."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from adapterbench.core.errors import UserError

MAX_TEXT = 300
"""Characters of a prompt: more than the text encoder's 77 tokens take in."""
SCALE = (0.0, 1.5)
GUIDANCE_SCALE = (1.0, 10.0)
STEPS = (1, 50)
SEED = (0, 2**32 - 1)

Text = Annotated[str, Field(max_length=MAX_TEXT)]


@dataclass(frozen=True, kw_only=True, slots=True, config=ConfigDict(allow_inf_nan=False))
class Settings:
    """Everything that a generated image depends on, besides the weights."""

    method: str
    """Folder of the adapter in models/, or `text_only`."""
    base: str
    """Name of the base model."""
    image_prompt: str
    """Caption of the image prompt, or its file's name."""
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


def checked(**values: Any) -> Settings:
    """`Settings` of what a browser sent.

    Raises:
        UserError: one line that names each bad field and what is allowed.
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
    """A field's name for people."""
    return field.replace("_", " ").capitalize()


def short(value: object) -> str:
    """A value as text that fits into a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
