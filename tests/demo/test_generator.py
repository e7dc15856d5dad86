"""The demo generates the images of `load_adapter` on a diffusers pipeline."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from toy_backbone import SAMPLE, SIDE, picture

from adapterbench import load_adapter
from adapterbench.adapters.core.storage import CONFIG
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.demo.generator import TEXT_ONLY, Finished, ImageGenerator, Step, adapters, bases
from adapterbench.demo.page import build
from adapterbench.demo.server import temporary_workspace
from adapterbench.demo.settings import Settings
from adapterbench.demo.upload import Uploads
from adapterbench.formats.edges import edge_map
from adapterbench.report.references import Reference
from adapterbench.sampling.sampler import solver

if TYPE_CHECKING:
    from toy_backbone import Toy
    from toy_xl import ToyXL

REFERENCE = picture("ring", "red")
CONTROL = picture("frame", "blue")
SETTINGS = Settings(
    method="",
    base="toy",
    image_prompt="ring",
    text="a red ring",
    negative_text="blue",
    control=None,
    scale=0.7,
    guidance_scale=3.0,
    steps=3,
    seed=5,
)


@pytest.fixture(scope="module")
def controlnet(toy: "Toy", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet that has moved away from where it started, which is no influence at all."""
    folder = tmp_path_factory.mktemp("controlnet")
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(toy.backbone, subfolder="unet").float()
    model = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.save_pretrained(folder)
    return folder


def test_what_a_killed_stage_left_is_not_offered(tmp_path: Path) -> None:
    left = (".mine.partial-1-host", ".other.partial-old-1-host")
    for name in ("mine", *left):
        for file in (CONFIG, "model_index.json"):
            (tmp_path / name / file).parent.mkdir(exist_ok=True)
            (tmp_path / name / file).touch()
    params = BackboneParams(source="local", path="sd", revision=None)
    assert adapters(tmp_path) == ["mine"]
    assert list(bases(params, tmp_path / "sd", tmp_path)) == ["sd", "mine"]


@pytest.mark.parametrize("name", ["with space", "no.dot", "-x", "12", "text_only", "é"])
def test_what_no_variant_can_be_called_is_not_offered(name: str, tmp_path: Path) -> None:
    for folder in ("mine-16", name):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / CONFIG).touch()
    assert adapters(tmp_path) == ["mine-16"]


def with_diffusers(toy: "Toy", controlnet: Path | None, adapter: bool) -> Any:
    """The image of `SETTINGS` by diffusers and the library alone."""
    kind: Any = StableDiffusionPipeline
    parts: dict[str, Any] = {}
    more: dict[str, Any] = {}
    if controlnet:
        kind, more = StableDiffusionControlNetPipeline, {"image": edge_map(CONTROL, SIDE)}
        parts = {"controlnet": ControlNetModel.from_pretrained(controlnet)}
    pipe = kind.from_pretrained(toy.backbone, safety_checker=None, **parts).to(torch.float32)
    pipe.scheduler = solver(toy.backbone)
    more |= (
        load_adapter(pipe, toy.adapter)(REFERENCE, 0.7, 3.0) if adapter else {"guidance_scale": 3}
    )
    return pipe(
        "a red ring",
        negative_prompt="blue",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
        **more,
    ).images[0]


@pytest.mark.parametrize("controlled", [False, True])
def test_it_generates_the_images_of_diffusers(
    controlled: bool, toy: "Toy", controlnet: Path
) -> None:
    folder = controlnet if controlled else None
    generator = ImageGenerator(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params, folder)
    control = CONTROL if controlled else None
    events = list(generator.generate(SETTINGS, ["toy", TEXT_ONLY], REFERENCE, control))
    kinds = [type(event) for event in events]
    assert kinds == [Step, Step, Step, Finished] * 2
    assert isinstance(events[0], Step)
    assert events[0].preview is not None
    finished = [event for event in events if isinstance(event, Finished)]
    assert [event.settings for event in finished] == [
        replace(SETTINGS, method=method) for method in ("toy", TEXT_ONLY)
    ]
    for event, adapter in zip(finished, (True, False), strict=True):
        expected = with_diffusers(toy, folder, adapter)
        # the last bit of a pixel may round either way
        ours, theirs = (np.asarray(image).astype(np.int16) for image in (event.image, expected))
        np.testing.assert_allclose(ours, theirs, atol=1)


@pytest.mark.parametrize("controlled", [False, True])
def test_the_page_asks_for_a_control_image_where_there_is_a_controlnet(
    controlled: bool, toy: "Toy", controlnet: Path, tmp_path: Path
) -> None:
    folder = controlnet if controlled else None
    generator = ImageGenerator(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params, folder)
    with temporary_workspace() as temporary:
        page = build(
            generator, [Reference(REFERENCE, "ring")], SAMPLE, tmp_path, temporary, Uploads()
        )
    labels = [getattr(component, "label", None) for component in page.blocks.values()]
    assert ("Control image: its outlines are kept" in labels) == controlled


def test_stopping_half_way_leaves_the_base_model(generator: ImageGenerator) -> None:
    events = generator.generate(SETTINGS, ["toy"], REFERENCE)
    next(events)
    events.close()
    assert generator.load("toy").unet.encoder_hid_proj is None
    assert isinstance(list(generator.generate(SETTINGS, ["toy"], REFERENCE))[-1], Finished)


def test_what_is_missing(tmp_path: Path, toy: "Toy") -> None:
    with pytest.raises(UserError, match="no trained adapter: run `make repro`, or copy"):
        adapters(tmp_path)
    with pytest.raises(UserError, match="cannot load the ControlNet"):
        ImageGenerator(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params, tmp_path)


def test_a_base_has_the_name_of_its_last_part(tmp_path: Path) -> None:
    params = BackboneParams(source="hub", path="maker/model", revision=None)
    others = tmp_path / "bases"
    assert bases(params, tmp_path, others) == {"model": tmp_path}
    (others / "drawn").mkdir(parents=True)
    (others / "drawn" / "model_index.json").touch()
    assert list(bases(params, tmp_path, others).items())[1] == ("drawn", others / "drawn")


def test_sdxl_is_refused_in_one_line(toy: "Toy", xl: "ToyXL") -> None:
    with pytest.raises(UserError, match="is an SDXL: the demo shows Stable Diffusion 1 and 2"):
        ImageGenerator(toy.adapter.parent, {"xl": xl.backbone}, toy.encode_params)
