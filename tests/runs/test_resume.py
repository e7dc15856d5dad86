"""A place of its own for every set of parameters and inputs."""

from pathlib import Path

import pytest

from adapterbench.core.config import EncodeParams
from adapterbench.core.errors import UserError
from adapterbench.runs.resume import RESUME, resume_path

PARAMS = EncodeParams(image_encoder="e", pretrained=None, batch_size=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    return path


def test_the_same_request_has_the_same_place(file: Path) -> None:
    first = resume_path("encode", {"encode": PARAMS, "b": 1}, file)
    assert first == resume_path("encode", {"b": 1, "encode": PARAMS.model_copy()}, file)
    assert first.parent == RESUME
    assert first.name.startswith("encode-")


def test_every_difference_has_another_place(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text("{ }")
    places = {
        resume_path("encode", {"encode": PARAMS}, file),
        resume_path("train", {"encode": PARAMS}, file),
        resume_path("encode", {"encode": PARAMS.model_copy(update={"batch_size": 2})}, file),
        resume_path("encode", {"encode": PARAMS, "more": None}, file),
        resume_path("encode", {"encode": PARAMS}, other),
        resume_path("encode", {"encode": PARAMS}, file, other),
        resume_path("encode", {"encode": PARAMS}, other, file),
        resume_path("encode", {"encode": PARAMS}),
    }
    assert len(places) == 8


def test_the_content_of_an_input_counts_not_its_name(file: Path, tmp_path: Path) -> None:
    before = resume_path("encode", {}, file)
    moved = file.rename(tmp_path / "moved.json")
    assert resume_path("encode", {}, moved) == before
    moved.write_text("{}\n")
    assert resume_path("encode", {}, moved) != before


def test_a_missing_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json is missing: run `dvc repro`"):
        resume_path("encode", {}, tmp_path / "absent.json")
