"""HTML of parts without a Gradio component; all text is escaped."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from adapterbench.report.references import Reference

ENVIRONMENT = Environment(
    loader=PackageLoader("adapterbench.demo"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
)
SCRIPTS = Path(__file__).with_name("scripts")
SIDE = 256
"""Largest side of an image in the page, pixels: all cards are sent with every step."""
SMALL_SIDE = 128
"""The same where there are more than `MANY` cards, and of tiles."""
MANY = 9


@dataclass(frozen=True, slots=True)
class Card:
    """An image with its title; `image` is None until a preview exists."""

    title: str
    image: Image.Image | None = None
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Cards side by side, or in rows and columns."""

    cards: Sequence[Card]
    title: str = ""
    columns: int | None = None
    """Number of columns; None: as many as there is room for."""


def data_uri(image: Image.Image, side: int = SIDE) -> str:
    """An image, scaled down, as a `data:` URI."""
    small = image.copy()
    small.thumbnail((side, side))
    data = BytesIO()
    small.save(data, "WEBP", quality=90)
    return "data:image/webp;base64," + b64encode(data.getvalue()).decode()


def strip(status: str, done: int, total: int, blocks: Sequence[Block]) -> str:
    """A progress bar above images."""
    many = sum(len(block.cards) for block in blocks) > MANY
    side = SMALL_SIDE if many else SIDE
    return render(
        "strip.html",
        status=status,
        done=done,
        total=total,
        blocks=blocks,
        uri=partial(data_uri, side=side),
    )


def chosen(reference: Reference | None, problem: str = "") -> str:
    """The selected image or an empty frame, with an error message if there is one."""
    return render(
        "chosen.html",
        uri=data_uri(reference.image) if reference else None,
        caption=reference.caption if reference else "no image",
        problem=problem,
    )


def tiles(title: str, pictures: Sequence[Reference], kind: str) -> str:
    """Buttons with an image and its caption, which are one Tab stop.

    Args:
        title: of all, for screen readers.
        pictures: the images and captions.
        kind: style, `picks` or `examples`.
    """
    shown = [
        {"uri": data_uri(stored.image, SMALL_SIDE), "title": stored.caption} for stored in pictures
    ]
    return render("tiles.html", title=title, tiles=shown, kind=kind)


def mask_canvas(title: str, side: int) -> str:
    """A canvas of `side` x `side` pixels to paint a mask on, with its tools."""
    return render("mask.html", title=title, side=side)


def definitions(settings: Mapping[str, object]) -> str:
    """A list of names and values."""
    return render("settings.html", settings=settings)


def script(*names: str) -> str:
    """Scripts of the page, one after the other."""
    return "\n".join((SCRIPTS / f"{name}.js").read_text(encoding="utf-8") for name in names)


def render(template: str, **values: object) -> str:
    """Render a template."""
    return ENVIRONMENT.get_template(template).render(values)
