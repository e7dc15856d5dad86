"""What tests of several packages share."""

import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from toy_backbone import Toy
    from toy_xl import ToyXL


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of several processes would fight

# shapes and types of these are checked at each call; before anything imports them
install_import_hook(
    [f"adapterbench.{name}" for name in ("adapters", "training", "sampling", "scoring")],
    "type_checks.checked",
)


START = time.monotonic()

FIRST = ("test_repro.py", "runs", "pipeline")
"""Files and folders that take longest: the first makes the project that `pipeline` shares."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--minutes N` runs as many of the tests as it can, files in random order."""
    parser.addoption("--minutes", type=float, help="skip the tests that would begin later")
    parser.addoption("--order", default="", help="seed of the order under --minutes")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a quarter of the time, tests wait for processes."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files that take longest go first; a file runs in one process (`--dist=loadfile`)."""
    if config.getoption("minutes") is None:
        items.sort(key=lambda item: turn(item.path))
        return
    seed = config.getoption("order")
    items.sort(key=lambda item: random.Random(f"{seed} {item.path}").random())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin after the time that `--minutes` grants."""
    minutes = item.config.getoption("minutes")
    if minutes is not None and time.monotonic() - START > 60 * minutes:
        pytest.skip(f"{minutes:g} minutes have passed")


def turn(path: Path) -> int:
    """How many files and folders of `FIRST` come before a file of tests."""
    names = (path.name, path.parent.name)
    return next((n for n, name in enumerate(FIRST) if name in names), len(FIRST))


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
def patches(toy: "Toy", tmp_path_factory: pytest.TempPathFactory) -> "Toy":
    """The toy project with patches in its encoded shards; nobody writes there."""
    import toy_backbone

    return toy_backbone.with_patches(toy, tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="session")
def pipeline(toy: "Toy") -> "StableDiffusionPipeline":
    """The toy backbone as diffusers itself loads it."""
    import torch
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    loaded.set_progress_bar_config(disable=True)
    return loaded.to(torch.float32)


@pytest.fixture(scope="session")
def xl(toy: "Toy", tmp_path_factory: pytest.TempPathFactory) -> "ToyXL":
    """The toy's data over a tiny SDXL, encoded; nobody writes there."""
    import toy_xl

    return toy_xl.make(toy, tmp_path_factory.mktemp("xl"))


@pytest.fixture
def xl_pipeline(xl: "ToyXL") -> "StableDiffusionXLPipeline":
    """The tiny SDXL as diffusers itself loads it."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    loaded = StableDiffusionXLPipeline.from_pretrained(xl.backbone, add_watermarker=False)
    loaded.set_progress_bar_config(disable=True)
    return loaded.to(torch.float32)
