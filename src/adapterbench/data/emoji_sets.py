"""The emoji image sets: makers, styles in captions, and how their packages are read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import resvg_py

from adapterbench.core.documents import Document, parse_document
from adapterbench.core.errors import InputError, UserError, one_line
from adapterbench.formats.tars import open_tar

DAMAGED = (OSError, KeyError, ValueError)
"""Exceptions for a tarball that is missing, truncated or overwritten."""
RENDERED = 128
"""Side of a rendered SVG, pixels; `prepare` scales it down to the resolution."""
VERSION_SUFFIX = re.compile(r"-\d$")
"""Suffix of a second image of the same emoji: `penguin-1`."""


T = TypeVar("T")


class Box(Document):
    """View box of an Iconify icon; missing values come from the set, then from `DEFAULT_BOX`."""

    left: int | float | None = None
    top: int | float | None = None
    width: int | float | None = None
    height: int | float | None = None


class Icon(Box):
    """An icon of an Iconify package."""

    body: str
    """Content of the `<svg>` element."""


class Icons(Box):
    """Content of `icons.json` in an Iconify package."""

    icons: dict[str, Icon]


DEFAULT_BOX = {"left": 0, "top": 0, "width": 16, "height": 16}
"""Iconify's default view box."""


@dataclass(frozen=True)
class ImageSet:
    """A set of images by one maker."""

    style: str
    """The phrase that names the style in captions."""
    family: str
    """Sets of one family are by the same artists; they are held out together."""
    attribution: str
    folder: str | None = None
    """Folder of image files named by code points; None: an Iconify package of named SVGs."""


SETS = {
    "google": ImageSet(
        "noto",
        "google",
        "Noto Emoji, (c) Google LLC, Apache License 2.0 (images), through emoji-datasource",
        "package/img/google/64",
    ),
    "twitter": ImageSet(
        "flat",
        "twitter",
        "Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0, via emoji-datasource",
        "package/img/twitter/64",
    ),
    "fluent": ImageSet(
        "3d",
        "fluent",
        "Fluent Emoji 3D, (c) Microsoft Corporation, MIT, through @lobehub/fluent-emoji-3d",
        "package/assets",
    ),
    "fluent_color": ImageSet(
        "gradient",
        "fluent",
        "Fluent Emoji (color), (c) Microsoft Corporation, MIT, through Iconify",
    ),
    "fluent_flat": ImageSet(
        "plain", "fluent", "Fluent Emoji Flat, (c) Microsoft Corporation, MIT, through Iconify"
    ),
    "fluent_contrast": ImageSet(
        "contrast",
        "fluent",
        "Fluent Emoji High Contrast, (c) Microsoft Corporation, MIT, through Iconify",
    ),
    "noto_v1": ImageSet(
        "blob", "google", "Noto Emoji v1, (c) Google LLC, Apache License 2.0, through Iconify"
    ),
    "emojione": ImageSet(
        "emojione", "emojione", "Emoji One v2, (c) Emoji One, CC BY 4.0, through Iconify"
    ),
    "emojione_v1": ImageSet(
        "classic", "emojione", "Emoji One v1, (c) Emoji One, CC BY-SA 4.0, through Iconify"
    ),
    "fxemoji": ImageSet(
        "firefox", "fxemoji", "Firefox OS Emoji, (c) Mozilla, Apache License 2.0, through Iconify"
    ),
    "streamline": ImageSet(
        "outlined", "streamline", "Streamline Emojis, (c) Streamline, CC BY 4.0, through Iconify"
    ),
    "openmoji": ImageSet(
        "openmoji", "openmoji", "OpenMoji, (c) its contributors, CC BY-SA 4.0, through Iconify"
    ),
}


def read_images(name: str, tarball: Path, codes: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield `(stem, image file)` of every image of the set `name`.

    Args:
        name: one of `SETS`.
        tarball: the package as the registry serves it.
        codes: code points by normalised name, for sets whose images are named.

    The stem is the code points in lower case, `1f9c4`, and of a second image `1f9c4.2`. An SVG
    whose name is not in `codes` has its name as stem, and no bytes.

    Raises:
        UserError: the tarball is missing or damaged.
    """
    if folder := SETS[name].folder:
        yield from read_folder(tarball, folder)
    else:
        yield from read_iconify(tarball, codes)


def read_folder(tarball: Path, folder: str) -> Iterator[tuple[str, bytes]]:
    """The image files directly under `folder`."""
    try:
        with open_tar(tarball) as tar:
            for path in map(Path, tar.members):
                if str(path.parent) == folder:
                    yield path.stem, tar.read(str(path))
    except DAMAGED as error:
        raise damaged(tarball, error) from error


def read_iconify(tarball: Path, codes: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """The icons of an Iconify package (`icons.json` bodies, `chars.json` code points), rendered.

    An SVG that does not parse yields no bytes, and `prepare` counts it.
    """
    icons = read_json_member(Icons, tarball, "package/icons.json")
    chars = read_json_member(dict[str, str], tarball, "package/chars.json")
    named = {name: code for code, name in chars.items()}
    seen: dict[str, int] = {}
    for name, icon in icons.icons.items():
        stem = named.get(name) or codes.get(normalized_name(VERSION_SUFFIX.sub("", name)))
        if stem is None:
            yield name, b""
            continue
        stem = code_points(
            stem
        ).lower()  # two names of one emoji may differ only in the variation selector
        seen[stem] = seen.get(stem, 0) + 1
        drawing = f".{seen[stem]}" if seen[stem] > 1 else ""
        yield stem + drawing, render(svg(icon, icons))


def svg(icon: Icon, icons: Icons) -> str:
    """An Iconify icon as an SVG document; its view box has precedence over that of the set."""
    left, top, width, height = (
        next(n for n in (getattr(icon, side), getattr(icons, side), default) if n is not None)
        for side, default in DEFAULT_BOX.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon.body}</svg>'
    )


def render(document: str) -> bytes:
    """PNG of an SVG document, `RENDERED` pixels a side; empty if it does not parse."""
    try:
        image = resvg_py.svg_to_bytes(
            svg_string=document, width=RENDERED, height=RENDERED, skip_system_fonts=True
        )
    except (ValueError, RuntimeError):
        return b""
    return bytes(image)


def normalized_name(name: str) -> str:
    """A name reduced to lower-case letters and digits, to match names across sets.

    Unicode's `flag: France` is `flag-for-france` in Iconify.
    """
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("flag-for-flag-", "flag-for-")).replace(
        "flagfor", "flag", 1
    )


def code_points(unified: str) -> str:
    """Upper-case code points without the variation selector, which not all tables write."""
    return unified.upper().replace("-FE0F", "")


def read_json_member(kind: type[T], tarball: Path, member: str) -> T:
    """A JSON file inside a package, as `kind`.

    Raises:
        UserError: the tarball is missing or damaged, or the file has another structure.
    """
    try:
        with open_tar(tarball) as tar:
            return parse_document(kind, tar.read(member))
    except DAMAGED as error:
        raise damaged(tarball, error) from error


def damaged(tarball: Path, error: Exception) -> UserError:
    """The error for a tarball that cannot be read."""
    return InputError(f"{tarball} is missing or damaged ({one_line(error)})", tarball)
