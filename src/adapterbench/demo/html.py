"""HTML of parts without a Gradio component; all text is escaped."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from adapterbench.report.references import Reference

ENVIRONMENT = Environment(
    loader=PackageLoader("adapterbench.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
SIDE = 256
"""Largest side of an image in the page, pixels: all cards are sent with every step."""


@dataclass(frozen=True, slots=True)
class Card:
    """An image with its title; `image` is None until a preview exists."""

    title: str
    image: Image.Image | None = None
    finished: bool = False

    @property
    def uri(self) -> str | None:
        """The image, scaled down, as a `data:` URI."""
        return data_uri(self.image) if self.image else None


def data_uri(image: Image.Image) -> str:
    """An image, scaled down, as a `data:` URI."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    data = BytesIO()
    small.save(data, "WEBP", quality=90)
    return "data:image/webp;base64," + b64encode(data.getvalue()).decode()


def strip(status: str, done: int, total: int, cards: Sequence[Card]) -> str:
    """A progress bar above images side by side."""
    return render("strip.html", status=status, done=done, total=total, cards=cards)


def chosen(reference: Reference | None, problem: str = "") -> str:
    """The selected image or an empty frame, with an error message if there is one."""
    return render(
        "chosen.html",
        uri=data_uri(reference.image) if reference else None,
        caption=reference.caption if reference else "no image",
        problem=problem,
    )


def definitions(settings: Mapping[str, object]) -> str:
    """A list of names and values."""
    return render("settings.html", settings=settings)


def render(template: str, **values: object) -> str:
    """Render a template."""
    return ENVIRONMENT.get_template(template).render(values)
