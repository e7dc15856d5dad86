"""The shipped model through a real DVC remote inside the repository."""

import shutil
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from adapterbench.backbone.sources.published import fetch
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

FILES = {"model_index.json": b"{}", "unet/weights.safetensors": b"w" * 1000}
PATH = "backbone/toy"


@pytest.fixture
def repository(workplace: Path) -> Path:
    """A fresh clone of a repository that has a model published, and no cache."""
    repo = Repo.init(no_scm=True)
    with repo.config.edit() as config:
        config["remote"]["published"] = {"url": str(workplace / "published")}
    for name, data in FILES.items():
        path = workplace / PATH / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with Repo(".") as repo:
        repo.add(PATH)
        repo.push([f"{PATH}.dvc"], remote="published")
    shutil.rmtree(workplace / PATH)
    shutil.rmtree(workplace / ".dvc" / "cache")
    return workplace


def params(revision: str | None = None) -> BackboneParams:
    pinned = yaml.safe_load(Path(f"{PATH}.dvc").read_text())["outs"][0]["md5"]
    return BackboneParams(source="published", path=PATH, revision=revision or pinned)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def remote_object(size: int) -> Path:
    """The published object of this size."""
    return next(p for p in Path("published").rglob("*") if p.is_file() and p.stat().st_size == size)


def test_a_clone_brings_what_was_published(repository: Path) -> None:
    fetch(params(), repository / "out")
    assert contents(repository / "out") == FILES


def test_edits_of_the_working_copy_stay_out(repository: Path) -> None:
    fetch(params(), repository / PATH)
    (repository / PATH / "unet" / "weights.safetensors").write_bytes(b"retrained")
    (repository / PATH / "notes.txt").write_text("mine")
    fetch(params(), repository / "out")
    assert contents(repository / "out") == FILES


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("revision", ["0123.dir", None])
def test_another_revision_is_one_line(revision: str | None, tmp_path: Path) -> None:
    asked = BackboneParams(source="published", path=PATH, revision=revision)
    with pytest.raises(UserError, match=f"asks for backbone.revision = {revision}: set it"):
        fetch(asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("repository")
def test_a_damaged_object_is_one_line(tmp_path: Path) -> None:
    path = remote_object(1000)
    path.chmod(0o644)
    path.write_bytes(b"v" * 1000)
    with pytest.raises(UserError, match="it is damaged, restore it from git"):
        fetch(params(), tmp_path / "out")


@pytest.mark.usefixtures("repository")
def test_a_missing_object_is_one_line(tmp_path: Path) -> None:
    remote_object(1000).unlink()
    with pytest.raises(UserError, match="is the clone complete") as caught:
        fetch(params(), tmp_path / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("repository")
def test_a_missing_remote_is_one_line(tmp_path: Path) -> None:
    Path(".dvc/config").write_text("[core]\n    no_scm = True\n")
    with pytest.raises(UserError, match="remote 'published' doesn't exist"):
        fetch(params(), tmp_path / "out")


@pytest.mark.parametrize("text", [None, "", "outs: []", "{", "outs:\n- path: toy\n"])
def test_a_damaged_pin_is_one_line(workplace: Path, text: str | None) -> None:
    if text is not None:
        (workplace / "backbone").mkdir()
        (workplace / f"{PATH}.dvc").write_text(text)
    asked = BackboneParams(source="published", path=PATH, revision="x")
    with pytest.raises(UserError, match=r"toy\.dvc is missing or damaged"):
        fetch(asked, workplace / "out")
