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
from PIL import Image
from toy_backbone import SAMPLE, SIDE, toy_image

from adapterbench import load_adapter
from adapterbench.adapters.core.storage import CONFIG, WEIGHTS
from adapterbench.core.config import BackboneParams
from adapterbench.core.errors import UserError
from adapterbench.core.files import sha256
from adapterbench.demo.generator import TEXT_ONLY, Finished, ImageGenerator, Step, adapters, bases
from adapterbench.demo.page import build
from adapterbench.demo.prompting import MASK_SIDE, Inputs
from adapterbench.demo.server import temporary_workspace
from adapterbench.demo.settings import ImagePrompt, Settings
from adapterbench.demo.upload import Uploads
from adapterbench.formats.edges import edge_map
from adapterbench.report.references import Reference
from adapterbench.sampling.sampler import solver

if TYPE_CHECKING:
    from toy_backbone import Toy
    from toy_xl import ToyXL

REFERENCE = toy_image("ring", "red")
CONTROL = toy_image("frame", "blue")
RING = ImagePrompt(caption="ring", sha256="0" * 64, scale=0.7)
SETTINGS = Settings(
    method="",
    base="toy",
    images=(RING,),
    text="a red ring",
    negative_text="blue",
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


def given(*images: Image.Image, **others: Any) -> Inputs:
    """Reference images without masks, unless `others` has some."""
    return Inputs(**{"images": images, "masks": [None] * len(images), **others})


def with_diffusers(toy: "Toy", controlnet: Path | None, prompt: dict[str, Any] | None) -> Any:
    """The image of `SETTINGS` by diffusers and the library alone; `prompt` has its arguments."""
    kind: Any = StableDiffusionPipeline
    parts: dict[str, Any] = {}
    more: dict[str, Any] = {"guidance_scale": 3}
    if controlnet:
        kind, more = StableDiffusionControlNetPipeline, {"image": edge_map(CONTROL, SIDE), **more}
        parts = {"controlnet": ControlNetModel.from_pretrained(controlnet)}
    pipe = kind.from_pretrained(toy.backbone, safety_checker=None, **parts).to(torch.float32)
    pipe.scheduler = solver(toy.backbone)
    if prompt:
        more |= load_adapter(pipe, toy.adapter)(guidance_scale=3.0, **prompt)
    return pipe(
        "a red ring",
        negative_prompt="blue",
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(5),
        **more,
    ).images[0]


def assert_same(ours: Image.Image, theirs: Image.Image) -> None:
    """The last bit of a pixel may round either way."""
    first, second = (np.asarray(image).astype(np.int16) for image in (ours, theirs))
    np.testing.assert_allclose(first, second, atol=1)


@pytest.mark.parametrize("controlled", [False, True])
def test_it_generates_the_images_of_diffusers(
    controlled: bool, toy: "Toy", controlnet: Path
) -> None:
    folder = controlnet if controlled else None
    generator = ImageGenerator(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params, folder)
    inputs = given(REFERENCE, control=CONTROL if controlled else None)
    images = [replace(SETTINGS, method=method) for method in ("toy", TEXT_ONLY)]
    events = list(generator.generate(images, inputs))
    kinds = [type(event) for event in events]
    assert kinds == [Step, Step, Step, Finished] * 2
    assert isinstance(events[0], Step)
    assert events[0].preview is not None
    finished = [event for event in events if isinstance(event, Finished)]
    digests = [sha256(toy.adapter / WEIGHTS), None]
    assert [event.settings for event in finished] == [
        replace(image, weights=digest) for image, digest in zip(images, digests, strict=True)
    ]
    for event, prompt in zip(finished, ({"images": REFERENCE, "scale": 0.7}, None), strict=True):
        assert_same(event.image, with_diffusers(toy, folder, prompt))


LEFT = Image.new("L", (MASK_SIDE, MASK_SIDE))
LEFT.paste(255, (0, 0, MASK_SIDE // 2, MASK_SIDE))
WHITE = Image.new("L", (MASK_SIDE, MASK_SIDE), 255)
OTHER = toy_image("square", "blue")
TALL = OTHER.resize((32, 96))
TWO = (RING, replace(RING, scale=0.3))


@pytest.mark.parametrize(
    ("changes", "inputs", "prompt"),
    [
        (
            {"images": TWO},
            given(REFERENCE, OTHER),
            {"images": [REFERENCE, OTHER], "scale": [0.7, 0.3], "masks": [WHITE, WHITE]},
        ),
        (
            {"images": TWO},
            given(REFERENCE, OTHER, masks=[None, LEFT]),
            {"images": [REFERENCE, OTHER], "scale": [0.7, 0.3], "masks": [WHITE, LEFT]},
        ),
        (
            {"start": 0.3, "end": 0.7},
            given(REFERENCE),
            {"images": REFERENCE, "scale": 0.7, "start": 0.3, "end": 0.7},
        ),
        (
            {},
            given(REFERENCE, negative=OTHER),
            {"images": REFERENCE, "scale": 0.7, "negative": OTHER},
        ),
    ],
    ids=["two images", "a mask", "some steps", "a negative image"],
)
def test_options_are_those_of_the_library(
    changes: dict[str, Any],
    inputs: Inputs,
    prompt: dict[str, Any],
    generator: ImageGenerator,
    toy: "Toy",
) -> None:
    image = replace(SETTINGS, method="toy", **changes)
    *_, finished = generator.generate([image], inputs)
    assert isinstance(finished, Finished)
    assert_same(finished.image, with_diffusers(toy, None, prompt))


def test_an_image_that_is_not_square_is_read_as_the_library_does(
    generator: ImageGenerator, toy: "Toy"
) -> None:
    made = [
        list(generator.generate([replace(SETTINGS, method="toy", fit=fit)], given(TALL)))[-1]
        for fit in ("crop", "pad")
    ]
    crop, pad = (event.image for event in made if isinstance(event, Finished))
    assert_same(crop, with_diffusers(toy, None, {"images": TALL, "scale": 0.7}))
    padded = Image.new("RGB", (96, 96), "white")
    padded.paste(TALL, (32, 0))
    assert_same(pad, with_diffusers(toy, None, {"images": padded, "scale": 0.7}))


def test_a_preset_times_the_scale_of_each_image(generator: ImageGenerator, toy: "Toy") -> None:
    """The preset of `generator` is 0.5 in the first layer."""
    assert generator.presets == {"style": ["toy"]}
    image = replace(SETTINGS, method="toy", layers="style")
    prompt = load_adapter(generator.load("toy"), toy.adapter)
    first, *_ = prompt.adapter.layers
    prompt.detach()
    *_, one = generator.generate([image], given(REFERENCE))
    *_, two = generator.generate([replace(image, images=TWO)], given(REFERENCE, OTHER))
    assert isinstance(one, Finished)
    assert isinstance(two, Finished)
    expected = {"images": REFERENCE, "scale": {first: 0.35}}
    assert_same(one.image, with_diffusers(toy, None, expected))
    expected = {
        "images": [REFERENCE, OTHER],
        "scale": {first: [0.35, 0.15]},
        "masks": [WHITE, WHITE],
    }
    assert_same(two.image, with_diffusers(toy, None, expected))


def test_a_preset_that_was_not_measured(generator: ImageGenerator) -> None:
    image = replace(SETTINGS, method="toy", layers="layout")
    with pytest.raises(UserError, match="has no preset 'layout'"):
        list(generator.generate([image], given(REFERENCE)))
    assert generator.load("toy").unet.encoder_hid_proj is None


def test_an_adapter_is_read_once_for_all_its_images(
    generator: ImageGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counted(*arguments: Any, **options: Any) -> Any:
        read.append(arguments)
        return load_adapter(*arguments, **options)

    monkeypatch.setattr("adapterbench.demo.generator.load_adapter", counted)
    images = [replace(SETTINGS, method="toy", steps=1, seed=seed) for seed in (0, 1, 0)]
    made = [e for e in generator.generate(images, given(REFERENCE)) if isinstance(e, Finished)]
    assert len(read) == 1
    assert [event.number for event in made] == [0, 1, 2]
    assert made[0].image.tobytes() == made[2].image.tobytes() != made[1].image.tobytes()


@pytest.mark.parametrize("controlled", [False, True])
def test_the_page_asks_for_a_control_image_where_there_is_a_controlnet(
    controlled: bool, toy: "Toy", controlnet: Path, tmp_path: Path
) -> None:
    folder = controlnet if controlled else None
    generator = ImageGenerator(toy.adapter.parent, {"toy": toy.backbone}, toy.encode_params, folder)
    with temporary_workspace() as temporary:
        page = build(
            generator, [Reference(REFERENCE, "ring")], [], SAMPLE, tmp_path, temporary, Uploads()
        )
    labels = [getattr(component, "label", None) for component in page.blocks.values()]
    assert ("Outlines" in labels) == controlled


def test_stopping_half_way_leaves_the_base_model(generator: ImageGenerator) -> None:
    images = [replace(SETTINGS, method="toy")]
    events = generator.generate(images, given(REFERENCE))
    next(events)
    events.close()
    assert generator.load("toy").unet.encoder_hid_proj is None
    assert isinstance(list(generator.generate(images, given(REFERENCE)))[-1], Finished)


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
