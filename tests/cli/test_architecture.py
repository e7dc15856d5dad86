from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from adapterbench.cli.architecture import Shapes, find, shapes
from adapterbench.cli.settings import settings
from adapterbench.core.errors import UserError


def size(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def test_the_packaged_parts_are_those_of_stable_diffusion_15() -> None:
    """The sizes of the published weights."""
    sd15 = find("sd15", None)
    with torch.device("meta"):
        assert size(UNet2DConditionModel.from_config(sd15.config("unet"))) == 859_520_964
        assert size(AutoencoderKL.from_config(sd15.config("vae"))) == 83_653_863
        text = CLIPTextModel(CLIPTextConfig(**sd15.config("text_encoder")))
        assert size(text) == 123_060_480


@pytest.mark.usefixtures("in_project")
def test_shapes_of_stable_diffusion_15() -> None:
    with settings(None, "sd15") as path:
        found = shapes(find("sd15", None), path)
    assert found == Shapes(latents=(4, 64, 64), text=(77, 768), image=512)


def test_a_backbone_that_is_not_there_is_one_line(workplace: Path) -> None:
    with pytest.raises(UserError, match="no folder 'sd15'"):
        find(None, Path("sd15"))
    with pytest.raises(UserError, match=r"data/backbone/unet/config.json .*dvc repro backbone"):
        find(None, None).config("unet")
    with pytest.raises(UserError, match=r"vae/config\.json is missing"):
        find("sd15", workplace).config("vae")


@pytest.mark.usefixtures("in_project")
def test_a_profile_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no profile 'sd16' \(there are emoji, sd15\)"):
        find("sd16", None)


@pytest.mark.usefixtures("workplace")
def test_a_profile_where_there_is_no_conf_is_one_line() -> None:
    with pytest.raises(UserError, match="conf/profile is missing here"):
        find("emoji", None)


def test_a_configuration_that_is_no_object_is_refused(workplace: Path) -> None:
    (workplace / "unet").mkdir()
    (workplace / "unet/config.json").write_text("[]")
    with pytest.raises(UserError, match="not the configuration of a unet"):
        find(None, workplace).config("unet")
