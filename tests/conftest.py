"""What tests of several packages share."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from toy_backbone import Toy


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test runs in, as a stage runs in the project's root."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> "Toy":
    """Shards, backbone, encoded shards and an adapter of toy size; nobody writes there."""
    import toy_backbone

    return toy_backbone.make(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def pipeline(toy: "Toy") -> "StableDiffusionPipeline":
    """The toy backbone as diffusers itself loads it."""
    import torch
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    return loaded.to(torch.float32)
