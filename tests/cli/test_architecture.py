import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig

from adapterbench.cli.architecture import Shapes, find, patch_shape, shapes
from adapterbench.cli.flops import TEXT_MODELS
from adapterbench.cli.settings import settings
from adapterbench.core.errors import UserError
from adapterbench.frozen.load import clip_config

from .conftest import Cli

if TYPE_CHECKING:
    from toy_backbone import Toy


def size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


SIZES = {
    "sd15": {"unet": 859_520_964, "text_encoder": 123_060_480},
    "sd21": {"unet": 865_910_724, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}
"""Of the published weights."""


@pytest.mark.parametrize("profile", SIZES)
def test_the_packaged_parts_are_those_of_the_published_weights(profile: str) -> None:
    found = find(profile, None)
    assert ["unet", *found.text_encoders] == list(SIZES[profile])
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(found.config("unet"))
        assert size(AutoencoderKL.from_config(found.config("vae"))) == 83_653_863
        texts = {
            part: TEXT_MODELS[part](CLIPTextConfig(**found.config(part)))
            for part in found.text_encoders
        }
        assert {part: size(model) for part, model in {"unet": unet, **texts}.items()} == (
            SIZES[profile]
        )


@pytest.mark.usefixtures("in_project")
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("sd15", Shapes((4, 64, 64), (77, 768), 512, patches=(50, 768), text_encoders=1)),
        ("sd21", Shapes((4, 96, 96), (77, 1024), 1024, patches=(257, 1280), text_encoders=1)),
        ("sdxl", Shapes((4, 128, 128), (77, 2048), 1280, patches=(257, 1664), text_encoders=2)),
    ],
)
def test_shapes_of_the_profiles(profile: str, expected: Shapes) -> None:
    with settings(None, profile) as path:
        assert shapes(find(profile, None), path) == expected


def test_patches_of_image_encoders() -> None:
    """A class token, and squares of 32 or 14 pixels in 224."""
    known = {"ViT-B-32": (50, 768), "ViT-H-14": (257, 1280), "RN50": None}
    assert {name: patch_shape(clip_config(name)) for name in known} == known


def test_a_backbone_that_is_not_there_is_one_line(workplace: Path) -> None:
    with pytest.raises(UserError, match="no folder 'sd15'"):
        find(None, Path("sd15"))
    with pytest.raises(UserError, match=r"data/backbone/unet/config.json .*stage backbone"):
        find(None, None).config("unet")
    with pytest.raises(UserError, match=r"vae/config\.json is missing"):
        find("sd15", workplace).config("vae")


@pytest.mark.usefixtures("in_project")
def test_a_profile_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no profile 'sd16' \(there are emoji, sd15, sd21, sdxl\)"):
        find("sd16", None)


@pytest.mark.usefixtures("workplace")
def test_outside_a_project_the_profiles_are_those_of_the_package() -> None:
    with pytest.raises(UserError, match=r"no profile 'mine' \(there are emoji, sd15, sd21, sdxl\)"):
        find("mine", None)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("unet", [], r"unet/config.json is not the configuration of a unet \(content = \[\]: .*"),
        ("vae", {"latent_channels": None}, r"latent_channels = None: "),
        ("vae", {"latent_channels": 10**12}, "latent_channels = 1000000000000: "),
        ("vae", {"block_out_channels": []}, r"block_out_channels = \[\]: "),
        ("vae", {"block_out_channels": 64}, "block_out_channels = 64: "),
        ("text_encoder", {"hidden_size": "768"}, "hidden_size = '768': "),
        ("text_encoder", {"max_position_embeddings": 0}, "max_position_embeddings = 0: "),
        ("unet", {"block_out_channels": "none"}, "cannot build a model from the conf.*: fetch"),
        ("unet", {"cross_attention_dim": 5}, "cannot build a model from the conf.*: fetch"),
        ("unet", {"in_channels": 3}, "cannot build a model from the conf.*: fetch"),
        ("vae", {"norm_num_groups": 7}, "cannot build a model from the conf.*: fetch"),
    ],
)
def test_a_configuration_of_another_structure_is_one_line(
    part: str, change: Any, message: str, cli: Cli, toy: "Toy", toy_params: Path
) -> None:
    folder = toy_params.parent / "backbone"
    for name in ("unet", "vae", "text_encoder"):
        (folder / name).mkdir(parents=True)
        config = json.loads((toy.backbone / name / "config.json").read_text())
        if name == part:
            config = {**config, **change} if isinstance(change, dict) else change
        (folder / name / "config.json").write_text(json.dumps(config))
    result = cli("plan", "--params", toy_params, "--backbone", folder)
    assert result.exit_code == 1, result.output
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert "Traceback" not in result.output
