"""Parts are found by the name of their file."""

from pathlib import Path

import pytest

from adapterbench.core import registry
from adapterbench.core.errors import UserError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with two parts; a third is broken but nobody asks for it."""
    name = f"parts_of_{tmp_path.name}"  # an imported package is never read again
    folder = tmp_path / name / "shapes"
    folder.mkdir(parents=True)
    files = {
        "../__init__.py": "",
        "__init__.py": "",
        "round.py": "SIDES = 0",
        "square.py": "SIDES = 4",
        "broken.py": "raise RuntimeError('imported')",
        "_shared.py": "",
        "notes.txt": "",
    }
    for file, text in files.items():
        (folder / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}.shapes"


def test_a_part_is_imported_by_its_key(package: str) -> None:
    assert registry.load(package, "square").SIDES == 4


def test_a_new_file_is_a_new_key(package: str, tmp_path: Path) -> None:
    assert registry.keys(package) == ["broken", "round", "square"]
    folder = tmp_path / package.replace(".", "/")
    (folder / "oval.py").write_text("SIDES = 1")
    assert registry.load(package, "oval").SIDES == 1


@pytest.mark.parametrize(
    "key", ["ring", "", "_shared", "__init__", "../secret", "notes", "square.py"]
)
def test_an_unknown_key_is_one_line_with_those_that_exist(package: str, key: str) -> None:
    with pytest.raises(UserError, match=r"unknown shape .*there are broken, round, square") as e:
        registry.load(package, key)
    assert repr(key) in str(e.value)


def test_the_projects_parts_are_there() -> None:
    assert "emoji" in registry.keys("adapterbench.data.sources")
    assert {"hub", "local", "published"} <= {*registry.keys("adapterbench.backbone.sources")}
