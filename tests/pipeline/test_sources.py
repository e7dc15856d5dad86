"""The user's own images through DVC: one option and a path, and re-runs that are narrow."""

from pathlib import Path

import pytest
import toy_backbone

from adapterbench.core.files import MANIFEST, read_json

from .project import Project

pytestmark = pytest.mark.slow


def write_images(folder: Path) -> Path:
    """A captioned image of every shape in every colour."""
    folder.mkdir()
    for shape in toy_backbone.SHAPES:
        for colour in toy_backbone.COLOURS:
            toy_backbone.toy_image(shape, colour).save(folder / f"{colour} {shape}.png")
            (folder / f"{colour} {shape}.txt").write_text(f"a {colour} {shape}")
    return folder


def test_own_images_are_one_option_and_a_path(fresh: Project, tmp_path: Path) -> None:
    project = fresh.copy(tmp_path / "project")
    images = write_images(tmp_path / "my images")
    own = ("-S", "data=local", "-S", f"data.fetch.path='{images}'")
    chosen = ("-S", "data.validation_concepts=2")
    assert project.ran("exp", "run", "prepare", *own, *chosen) == {"fetch", "prepare"}
    splits = read_json(project.root / "data/shards" / MANIFEST)["splits"]
    count = len(toy_backbone.SHAPES) * len(toy_backbone.COLOURS)
    assert [splits[name]["samples"] for name in ("train", "validation")] == [count - 2, 2]

    project.params(data={"resolution": 32})
    assert project.ran("repro", "prepare") == {"prepare"}
    assert project.ran("repro", "prepare") == set()

    (images / "another.png").write_bytes((images / "red circle.png").read_bytes())
    (images / "another.txt").write_text("the same again")
    assert project.ran("repro", "--force", "fetch") == {"fetch"}
    assert project.ran("repro", "prepare") == {"prepare"}
    assert read_json(project.root / "data/shards" / MANIFEST)["dropped"] == {"duplicate image": 1}

    project.params(data={"fetch": {"pth": "x"}})
    [line] = [line for line in project.dvc("repro", "fetch", fails=True).stderr.splitlines()
              if line.startswith("error: ")]  # fmt: skip
    assert line == (
        "error: params.yaml: data.fetch.path is missing; data.fetch.pth is not a parameter "
        "(known: caption_column, image_column, path, root)"
    )
