"""The neutral evaluator: what it makes of an image, and folders that hold no such network."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from toy_backbone import Toy, toy_image

from adapterbench.core.config import EvaluatorParams
from adapterbench.core.errors import UserError
from adapterbench.scoring.evaluator import Evaluator, Folders, load_evaluator


def load(folder: Path = Path("nowhere"), **changes: Any) -> Evaluator:
    row = {"kind": "timm", "resolution": 32, "batch_size": 4, **changes}
    folders = Folders(backbone=Path("nowhere"), evaluator=folder)
    return load_evaluator(EvaluatorParams.model_validate(row), folders, "score.evaluators.neutral")


@pytest.fixture
def folder(toy: Toy, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    shutil.copytree(toy.neutral, tmp_path / "network")
    return tmp_path / "network"


def test_the_whole_image_is_seen_at_the_resolution_asked_for(toy: Toy) -> None:
    network = timm.create_model(f"local-dir:{toy.neutral}", pretrained=True, num_classes=0).eval()
    config = cast("dict[str, Any]", network.pretrained_cfg)
    image = toy_image("ring", "red").resize((40, 40))
    for side in (32, 64):
        pixels = image.resize((side, side), Image.Resampling.BICUBIC)
        mean, std = (torch.tensor(config[name]) for name in ("mean", "std"))
        levels = torch.from_numpy(np.array(pixels)) / 255
        with torch.no_grad():
            expected = network(((levels - mean) / std).permute(2, 0, 1)[None])
        found = load(toy.neutral, resolution=side).images([image])
        torch.testing.assert_close(found, expected / expected.norm(), rtol=0, atol=1e-5)


def test_a_network_of_one_size_is_built_for_the_resolution(tmp_path: Path) -> None:
    """As DINOv2 is: its table of positions is stretched."""
    save_for_hf(timm.create_model("test_vit"), str(tmp_path), safe_serialization=True)
    found = load(tmp_path, resolution=96).images([toy_image("ring", "red")])
    assert found.shape == (1, 64)
    assert found.norm().item() == pytest.approx(1)


def test_it_reads_no_texts(toy: Toy) -> None:
    assert load(toy.neutral).text_embeds is None


def drop_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("conv_stem.weight")
    save_file(weights, folder / "model.safetensors")


def other_network(folder: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), folder / "model.safetensors")


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["conv_stem.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors")


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"safetensors is missing"),
    "a pickle": (pickled, r"safetensors is missing"),
    "a tensor missing": (drop_tensor, "cannot load .*Missing key"),
    "another network": (other_network, "cannot load .*key"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "cannot load"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "cannot load"),
    "unknown network": (lambda f: rewrite(f, architecture="nonet"), "cannot load .*nonet"),
    "no network": (lambda f: (f / "config.json").write_text("{}"), "cannot load"),
    "means of four colours": (
        lambda f: rewrite(f, pretrained_cfg=dict.fromkeys(("mean", "std"), [0.5] * 4)),
        "cannot load .*size of tensor",
    ),
    "no means": (
        lambda f: rewrite(f, pretrained_cfg={"mean": "grey"}),
        "cannot load",
    ),
    "a weight that is no number": (not_a_number, "cannot load .*its features are not finite"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "cannot load"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_folder_without_the_network_is_one_line(damage: Any, message: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "dino"}, r"score\.evaluators\.neutral.* 'dino' .*open_clip.*timm"),
        ({"kind": "open_clip"}, r"score\.evaluators\.neutral\.resolution is not a parameter"),
        ({"resolution": 0}, r"score\.evaluators\.neutral\.resolution = 0"),
        ({"size": 3}, r"score\.evaluators\.neutral\.size is not a parameter \(known: batch_size"),
    ],
)
def test_bad_parameters_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(**changes)
    assert "\n" not in str(caught.value)
