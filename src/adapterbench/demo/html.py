"""Pieces of the page that Gradio has no component for; every text in them is escaped."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

ENVIRONMENT = Environment(
    loader=PackageLoader("adapterbench.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
SIDE = 256
"""Most pixels of a card's picture: all cards travel with every step."""


@dataclass(frozen=True, slots=True)
class Card:
    """A picture with its title; None: nothing to see yet."""

    title: str
    image: Image.Image | None = None
    finished: bool = False

    @property
    def uri(self) -> str | None:
        """The picture, small, as a `data:` address: it leaves no file."""
        if self.image is None:
            return None
        small = self.image.copy()
        small.thumbnail((SIDE, SIDE))
        data = BytesIO()
        small.save(data, "WEBP", quality=90)
        return "data:image/webp;base64," + b64encode(data.getvalue()).decode()


def strip(status: str, done: int, total: int, cards: Sequence[Card]) -> str:
    """A progress bar above pictures side by side."""
    return ENVIRONMENT.get_template("strip.html").render(
        status=status, done=done, total=total, cards=cards
    )


def definitions(settings: Mapping[str, object]) -> str:
    """Names and values, a row each."""
    return ENVIRONMENT.get_template("settings.html").render(settings=settings)
