"""Adapters by the name of a repository, from a server that speaks as the hub does."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from toy_backbone import SIDE, toy_image
from toy_hub import OWNER, TOKEN, Hub, commit, point_at, serving

from adapterbench import load_adapter
from adapterbench.adapters.core.storage import CONFIG, WEIGHTS
from adapterbench.core.errors import UserError
from adapterbench.exchange.hub import hub_errors
from adapterbench.exchange.presets import PRESETS, save_presets

if TYPE_CHECKING:
    from toy_backbone import Toy

REFERENCE = toy_image("ring", "red")
NAME = f"{OWNER}/it"


@pytest.fixture
def server(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(workplace, monkeypatch) as running:
        yield running


@pytest.fixture
def files(toy: "Toy", server: Hub) -> dict[str, bytes]:
    """The repository's, with others that nobody asked for."""
    found = {name: (toy.adapter / name).read_bytes() for name in (WEIGHTS, CONFIG)}
    found |= {"README.md": b"# it", "model.bin": b"a pickle", "run.py": b"raise SystemExit"}
    server.repositories[NAME] = {"main": found}
    return found


def made(pipe: StableDiffusionPipeline, image_prompt: Any, **options: Any) -> torch.Tensor:
    """An image, and the base model again."""
    seed = torch.Generator().manual_seed(1)
    size = {"height": SIDE, "width": SIDE, "num_inference_steps": 2, "output_type": "pt"}
    image: torch.Tensor = pipe(
        "a red ring", **size, generator=seed, **image_prompt(REFERENCE, **options)
    ).images
    image_prompt.detach()
    return image


def refused(pipe: StableDiffusionPipeline, name: Any, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_adapter(pipe, name, **options)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def test_a_repository_is_its_folder(
    pipeline: StableDiffusionPipeline, toy: "Toy", server: Hub, files: dict[str, bytes]
) -> None:
    """By the branch, a commit and a list; only the two files come, and come once."""
    expected = made(pipeline, load_adapter(pipeline, toy.adapter))
    assert torch.equal(made(pipeline, load_adapter(pipeline, NAME)), expected)
    for revision in ("main", commit(files)):
        image_prompt = load_adapter(pipeline, NAME, revision=revision)
        assert torch.equal(made(pipeline, image_prompt), expected)
    both = load_adapter(pipeline, [NAME, toy.adapter], revision=["main", None])
    both.detach()
    assert sorted(server.brought) == sorted([WEIGHTS, CONFIG])


def test_presets_travel(
    pipeline: StableDiffusionPipeline, toy: "Toy", tmp_path: Path, files: dict[str, bytes]
) -> None:
    shutil.copytree(toy.adapter, tmp_path / "measured")
    layer = next(name for name in list_layers(pipeline, toy))
    save_presets(tmp_path / PRESETS, tmp_path / "measured", "by hand", {"style": {layer: 0.5}})
    files[PRESETS] = (tmp_path / PRESETS).read_bytes()
    image_prompt = load_adapter(pipeline, NAME)
    image_prompt(REFERENCE, scale="style")
    assert image_prompt.adapter.scale[layer] == 0.5
    image_prompt.detach()


def list_layers(pipe: StableDiffusionPipeline, toy: "Toy") -> list[str]:
    """Paths of the adapter's layers."""
    image_prompt = load_adapter(pipe, toy.adapter)
    image_prompt.detach()
    return list(image_prompt.adapter.layers)


def test_what_was_downloaded_works_without_a_network(
    pipeline: StableDiffusionPipeline,
    files: dict[str, bytes],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_adapter(pipeline, NAME).detach()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load_adapter(pipeline, NAME).detach()
    load_adapter(pipeline, NAME, revision=commit(files)).detach()
    assert "cannot reach the hub" in refused(pipeline, f"{OWNER}/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_at(9, workplace, monkeypatch)
    assert "cannot reach the hub for someone/other" in refused(pipeline, f"{OWNER}/other")


@pytest.mark.usefixtures("files")
def test_what_the_hub_has_not_is_one_line(
    pipeline: StableDiffusionPipeline, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "denies access to h94/IP-Adapter (401): check its name" in refused(
        pipeline, "h94/IP-Adapter"
    )
    assert "has no revision 'v9'" in refused(pipeline, NAME, revision="v9")
    assert "someone/it of the hub has no revision" in refused(pipeline, NAME, revision="1" * 40)
    server.repositories[f"{OWNER}/empty"] = {"main": {CONFIG: b"{}"}}
    assert f"no adapter of this package, it has no {WEIGHTS}" in refused(pipeline, "someone/empty")
    server.repositories[f"{OWNER}/empty"] = {"main": {CONFIG: b"{}", WEIGHTS: b"no"}}
    assert f"{CONFIG} is not an adapter's configuration" in refused(pipeline, "someone/empty")
    server.private.add(NAME)
    assert "denies access" in refused(pipeline, NAME)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    load_adapter(pipeline, NAME).detach()


@pytest.mark.usefixtures("files")
def test_a_path_is_not_looked_up(
    pipeline: StableDiffusionPipeline, toy: "Toy", server: Hub, workplace: Path
) -> None:
    """A folder that is missing among others is none of the hub's, unless a revision says so."""
    server.repositories["models/it"] = server.repositories[NAME]
    (workplace / "models").mkdir()
    for name in ("models/it", Path(NAME), "a/b/c", "it", "../it"):
        assert "no folder of an adapter on this machine" in refused(pipeline, name)
    for name in (toy.adapter, "a/b/c"):
        assert "leave it out, or name one" in refused(pipeline, name, revision="main")
    assert "got a list of 2 for 1" in refused(pipeline, NAME, revision=["main", "main"])
    assert server.brought == []
    load_adapter(pipeline, "models/it", revision="main").detach()


def test_changed_weights_are_refused(
    pipeline: StableDiffusionPipeline, files: dict[str, bytes]
) -> None:
    """Their digest is in the configuration."""
    files[WEIGHTS] = files[WEIGHTS][:-1] + b"!"
    assert f"{WEIGHTS} is corrupt" in refused(pipeline, NAME)


@pytest.mark.parametrize("error", [ConnectionError("404"), RuntimeError("of\n a file")])
def test_a_broken_transfer_is_one_line(error: Exception) -> None:
    """As Xet's and git LFS's clients raise it."""
    failed = pytest.raises(UserError, match=r"a transfer failed \((404|of a file)\)")
    with failed as caught, hub_errors(NAME, None):
        raise error
    assert "\n" not in str(caught.value)
