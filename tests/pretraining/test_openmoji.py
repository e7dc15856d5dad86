"""Drawings of another set in the place of images: which are taken, and how they are drawn."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from adapterbench.core.errors import UserError
from adapterbench.data.sources.emoji import Package, integrity
from adapterbench.pretraining import openmoji
from adapterbench.pretraining.images import CaptionedImages

SIDE = 16
RED = '<rect x="2" y="4" width="6" height="3" fill="red"/>'
OUTLINE = '<rect x="2" y="2" width="8" height="8" fill="none" stroke="black"/>'


def svg(drawn: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 12 12">{drawn}</svg>'


def write_package(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text.encode())
            tar.addfile(member, BytesIO(text.encode()))


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    files = {
        "color/svg/1F436.svg": svg(RED),
        "black/svg/1F436.svg": svg(OUTLINE),
        "color/svg/1F468-200D-1F692.svg": svg(OUTLINE),
        "color/72x72/1F984.svg": svg(RED),  # of another folder
    }
    write_package(tmp_path / "openmoji.tgz", files)
    return tmp_path / "openmoji.tgz"


def held(*keys: str) -> CaptionedImages:
    pixels = torch.zeros(len(keys), 3, SIDE, SIDE, dtype=torch.uint8)
    captions: list[tuple[str, ...]] = [(f"caption of {key}", "another") for key in keys]
    return CaptionedImages(pixels, captions, list(keys), [f"concept of {key}" for key in keys])


def test_what_the_set_has_is_drawn_with_the_captions_that_it_had(tarball: Path) -> None:
    rows = held("google-1f436", "google-1f984", "twitter-1f436", "google-1f468-200d-1f692")
    made = openmoji.redrawn(rows, tarball, "color")
    assert made.keys == ["google-1f436", "twitter-1f436", "google-1f468-200d-1f692"]
    assert made.captions == [rows.captions[n] for n in (0, 2, 3)]
    assert made.concepts == [rows.concepts[n] for n in (0, 2, 3)]
    assert made.pixels.shape == (3, 3, SIDE, SIDE)
    assert made.pixels[0].equal(made.pixels[1])
    assert not made.pixels[0].equal(made.pixels[2])


def test_the_style_is_the_folder(tarball: Path) -> None:
    styles = {
        style: openmoji.redrawn(held("google-1f436"), tarball, style).pixels[0].float()
        for style in ("color", "black")
    }
    colour, outline = (pixels.std(dim=0).max().item() for pixels in styles.values())
    assert colour > 100
    assert outline == 0  # grey alone


def test_a_drawing_is_cut_out_and_centred_on_white() -> None:
    drawing = openmoji.draw(svg(RED), SIDE)
    assert drawing.mode == "RGB"
    image = np.asarray(drawing).astype(int)
    assert image.shape == (SIDE, SIDE, 3)
    red = np.all(np.abs(image - (255, 0, 0)) < 40, axis=-1)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert columns[0] <= 1  # 6 x 3 becomes 16 x 8
    assert columns[-1] >= SIDE - 2
    assert abs(len(rows) - SIDE / 2) <= 2
    assert abs((rows[0] + rows[-1]) / 2 - (SIDE - 1) / 2) <= 0.5
    assert (image[0] == 255).all()


def test_lines_are_as_thick_as_the_vae_needs() -> None:
    thin = svg(OUTLINE.replace("/>", ' stroke-width="0.1"/>'))
    thick = svg(OUTLINE.replace("/>", ' stroke-width="3"/>'))
    assert openmoji.draw(thin, SIDE).tobytes() == openmoji.draw(thick, SIDE).tobytes()


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("google-1f436", "1f436"),
        ("1F468-200D-1F692", "1f468-200d-1f692"),
        ("2764-FE0F", "2764"),
        ("twitter-2764-fe0f-200d-1f525", "2764-200d-1f525"),
    ],
)
def test_code_points_of_keys_and_files(name: str, points: str) -> None:
    assert openmoji.code(name) == points


def test_a_damaged_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    for name in ("broken.tgz", "missing.tgz"):
        with pytest.raises(UserError, match=f"{name} is missing or damaged .*make descendants"):
            openmoji.redrawn(held("google-1f436"), tmp_path / name, "color")


def test_another_package_than_the_pinned_one_is_not_kept(
    tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served(_name: str, out: Path) -> None:
        out.write_bytes(tarball.read_bytes())

    monkeypatch.setattr(openmoji, "npm_pack", served)
    pinned = Package(name="openmoji@1.0.0", integrity=integrity(tarball))
    openmoji.fetch(pinned, tmp_path / "right.tgz")
    assert (tmp_path / "right.tgz").read_bytes() == tarball.read_bytes()
    write_package(tarball, {"color/svg/1F436.svg": svg(OUTLINE)})
    with pytest.raises(UserError, match="not the pinned sha512-"):
        openmoji.fetch(pinned, tmp_path / "wrong.tgz")
    assert not (tmp_path / "wrong.tgz").exists()
