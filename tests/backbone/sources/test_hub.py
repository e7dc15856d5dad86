"""The hub from its cache, and without a network."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from adapterbench.backbone.sources import hub
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError

COMMIT = "f" * 40


def params(**changes: Any) -> BackboneParams:
    values = {"source": "hub", "path": "someone/model", "revision": COMMIT}
    return BackboneParams(**values | changes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """A model in the cache, with files that another program has brought."""
    folder = cache / "models--someone--model" / "snapshots" / COMMIT
    for name in (
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
        "safety_checker/model.safetensors",
        "v1-5-pruned.ckpt",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_only_what_the_pipeline_reads_is_brought(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(path: str, **options: Any) -> str:
        asked.update(options, path=path)
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    hub.fetch(params(), tmp_path / "out")
    assert (asked["path"], asked["revision"]) == ("someone/model", COMMIT)
    assert names(tmp_path / "out") == {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
    }


def test_a_timm_model_is_two_files(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "README.md"):
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text(name)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(cache))
    hub.fetch(params(), tmp_path / "out")
    assert names(tmp_path / "out") == {"config.json", "model.safetensors"}


def test_a_repository_without_a_model_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / "pytorch_model.bin").touch()
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(cache))
    with pytest.raises(UserError, match=r"has no .* safetensors: check backbone\.path"):
        hub.fetch(params(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cache", "offline")
def test_no_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot reach the hub: check the network") as caught:
        hub.fetch(params(), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cache")
def test_a_refused_connection_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match="cannot reach the hub"):
        hub.fetch(params(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("cache", "offline")
def test_a_bad_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"check backbone\.path"):
        hub.fetch(params(path="not a/valid/name"), tmp_path / "out")


def test_a_revision_must_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backbone\.revision is null: pin a commit"):
        hub.fetch(params(revision=None), tmp_path / "out")
