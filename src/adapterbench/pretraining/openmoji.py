"""OpenMoji's drawings for the emoji of another image set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from adapterbench.core.config import Section
from adapterbench.core.errors import UserError
from adapterbench.core.files import publish
from adapterbench.data.emoji_sets import DAMAGED
from adapterbench.data.sources.emoji import Package, integrity, npm_pack
from adapterbench.formats.image import decode, to_array
from adapterbench.formats.tars import open_tar
from adapterbench.pretraining.images import CaptionedImages

SCALE = 2
"""Pixels that a drawing is rendered at, to one of the image that it ends as."""
LINES = "[stroke] { stroke-width: 3px }"
"""Lines 1.5 times as thick as drawn: the small VAE cannot reproduce thinner ones."""


class OpenmojiParams(Section):
    """The package with the drawings."""

    package: Package


def fetch(package: Package, out: Path) -> None:
    """Download the package to the file `out`, as the registry serves it.

    Raises:
        UserError: there is no npm client or no network, or the digest is not the pinned one.
    """
    with publish(out) as beside:
        npm_pack(package.name, beside)
        if (digest := integrity(beside)) != package.integrity:
            raise UserError(
                f"{package.name} has digest {digest}, not the pinned {package.integrity}: "
                "fetch again, or set openmoji.package.integrity to accept this file"
            )


def redrawn(images: CaptionedImages, tarball: Path, style: str) -> CaptionedImages:
    """The images that OpenMoji has, too, in its style and with their original captions.

    Args:
        images: keys end in code points, such as `google-1f436`.
        tarball: file of `fetch`.
        style: `color` (flat colours within black outlines) or `black` (the outlines alone).

    Raises:
        UserError: the tarball is missing or damaged.
    """
    drawings = read(tarball, f"package/{style}/svg")
    kept = [n for n, key in enumerate(images.keys) if code(key) in drawings]
    side = images.pixels.shape[-1]
    drawn: dict[str, np.ndarray] = {}
    for number in tqdm(kept, desc="draw", mininterval=1):
        name = code(images.keys[number])
        if name not in drawn:
            drawn[name] = to_array(draw(drawings[name], side))
    pixels = torch.from_numpy(np.stack([drawn[code(images.keys[n])] for n in kept]))
    return replace(
        images,
        pixels=pixels.to(images.pixels.device),
        captions=[images.captions[n] for n in kept],
        keys=[images.keys[n] for n in kept],
        concepts=[images.concepts[n] for n in kept],
    )


def code(name: str) -> str:
    """Code points of a key or a file's stem, without variation selectors: `1f468-200d-1f692`."""
    points = name.lower().split("-")
    return "-".join(p for p in points if p != "fe0f" and all(c in "0123456789abcdef" for c in p))


def read(tarball: Path, folder: str) -> dict[str, str]:
    """Code points -> SVG, of the files in a folder of the tarball."""
    try:
        with open_tar(tarball) as tar:
            return {
                code(path.stem): tar.read(str(path)).decode()
                for path in map(Path, tar.members)
                if str(path.parent) == folder
            }
    except DAMAGED as error:
        raise UserError(
            f"{tarball} is missing or damaged ({error}): run `make descendants`"
        ) from error


def draw(svg: str, side: int) -> Image.Image:
    """Render a drawing as RGB, cropped and centred on white, `side` pixels square."""
    wide = SCALE * side
    data = resvg_py.svg_to_bytes(
        svg_string=svg, width=wide, height=wide, style_sheet=LINES, skip_system_fonts=True
    )
    image = decode(bytes(data))
    drawn = image.crop(ImageOps.invert(image).getbbox())
    return ImageOps.pad(drawn, (side, side), Image.Resampling.LANCZOS, color="white")
