"""A folder of this machine, such as a snapshot in the hub's cache."""

import os
from pathlib import Path

import pytest

from adapterbench.backbone.sources import local
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError


def params(path: Path | str, revision: str | None = None) -> BackboneParams:
    return BackboneParams(source="local", path=str(path), revision=revision)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """The hub's layout: a snapshot of symbolic links to blobs."""
    blobs, folder = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    (folder / "unet").mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (blobs / "2").write_text("weights")
    (folder / "model_index.json").symlink_to("../../blobs/1")
    (folder / "unet" / "w.safetensors").symlink_to("../../../blobs/2")
    return folder


def test_the_files_themselves_are_brought(snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "deep" / "out"
    out.parent.mkdir(parents=True)
    local.fetch(params(snapshot), out)
    assert (out / "model_index.json").read_text() == "{}"
    assert (out / "unet" / "w.safetensors").read_text() == "weights"
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert (out / "unet" / "w.safetensors").stat().st_nlink == 2  # no second copy on the disk


def test_another_file_system_gets_a_copy(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: str) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuses)
    local.fetch(params(snapshot), tmp_path / "out")
    assert (tmp_path / "out" / "unet" / "w.safetensors").read_text() == "weights"
    assert not (tmp_path / "out" / "model_index.json").is_symlink()


def test_a_home_folder_may_be_short(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(snapshot.parent))
    local.fetch(params("~/abc"), tmp_path / "out")
    assert (tmp_path / "out" / "model_index.json").exists()


def test_a_timm_folder_is_brought(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network/config.json").write_text("{}")
    local.fetch(params(tmp_path / "network"), tmp_path / "out")
    assert (tmp_path / "out/config.json").read_text() == "{}"


def test_what_is_no_model_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"has no model_index\.json or .*: set backbone\.path"):
            local.fetch(params(path), tmp_path / "out")


def test_a_revision_is_refused(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backbone\.revision must be null"):
        local.fetch(params(snapshot, "abc"), tmp_path / "out")
