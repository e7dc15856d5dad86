"""`load_adapter` on the pipelines of diffusers, over the toy backbone and its image encoder."""

import math
import re
import subprocess
import sys
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from peft import LoraConfig
from PIL import Image
from toy_backbone import CLIP_PARAMS, SIDE, VARIANT, toy_image

from adapterbench import load_adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import WEIGHTS, save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError
from adapterbench.exchange.pipeline import ImagePrompt
from adapterbench.formats.edges import edge_map
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.load import load_clip

if TYPE_CHECKING:
    from toy_backbone import Toy

REFERENCE = toy_image("ring", "red")
OTHER = toy_image("bar", "blue")
MASK = Image.new("L", (SIDE, SIDE), 255)
PIPELINES: dict[type[DiffusionPipeline], dict[str, Any]] = {
    StableDiffusionPipeline: {},
    StableDiffusionImg2ImgPipeline: {"image": OTHER, "strength": 1.0},
    StableDiffusionInpaintPipeline: {"image": OTHER, "mask_image": MASK},
    StableDiffusionControlNetPipeline: {"image": OTHER},
}


def of_kind(kind: type[DiffusionPipeline], folder: Path) -> Any:
    """A pipeline of diffusers as its users load it."""
    parts = {}
    if kind is StableDiffusionControlNetPipeline:
        torch.manual_seed(0)
        unet = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None).unet
        parts["controlnet"] = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=(8, 8, 16, 16)
        )
    pipe = kind.from_pretrained(folder, safety_checker=None, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(torch.float32)


def generated(pipe: Any, inputs: dict[str, Any], prompt: Any = "a red ring") -> torch.Tensor:
    """What the pipeline makes from a fixed seed."""
    size = {} if "image" in inputs else {"height": SIDE, "width": SIDE}
    seed = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": 2, "guidance_scale": 7.5, "output_type": "pt"}
    return pipe(prompt, **{**options, **size, **inputs}, generator=seed).images


@pytest.mark.parametrize("kind", PIPELINES)
def test_every_pipeline_takes_it_and_gets_itself_back(
    kind: type[DiffusionPipeline], toy: "Toy"
) -> None:
    pipe, inputs = of_kind(kind, toy.backbone), PIPELINES[kind]
    base = generated(pipe, inputs)
    image_prompt = load_adapter(pipe, toy.adapter)
    one = generated(pipe, inputs | image_prompt(REFERENCE))
    assert (one - base).abs().max() > 1e-3
    assert not torch.equal(one, generated(pipe, inputs | image_prompt([REFERENCE, OTHER])))
    assert not torch.equal(one, generated(pipe, inputs | image_prompt(REFERENCE, scale=0.3)))
    assert torch.equal(base, generated(pipe, inputs | image_prompt(REFERENCE, scale=0)))
    assert torch.equal(one, generated(pipe, inputs | image_prompt(REFERENCE)))
    image_prompt.detach()
    assert torch.equal(base, generated(pipe, inputs))


def test_image_prompt_text_and_control_each_count(toy: "Toy") -> None:
    pipe = of_kind(StableDiffusionControlNetPipeline, toy.backbone)
    torch.manual_seed(0)
    with torch.no_grad():  # a fresh ControlNet says nothing
        for weight in pipe.controlnet.parameters():
            weight += 0.05 * torch.randn_like(weight)
    image_prompt = load_adapter(pipe, toy.adapter)
    edges = [edge_map(image, SIDE) for image in (REFERENCE, OTHER)]
    made = [
        generated(pipe, {"image": control} | image_prompt(prompt), text)
        for control in edges
        for prompt in (REFERENCE, OTHER)
        for text in ("", "a red ring")
    ]
    assert all((a - b).abs().max() > 1e-4 for a, b in combinations(made, 2))


def test_the_mask_of_inpainting_bounds_the_image_prompt(toy: "Toy") -> None:
    pipe = of_kind(StableDiffusionInpaintPipeline, toy.backbone)
    image_prompt = load_adapter(pipe, toy.adapter)
    right = Image.new("L", (SIDE, SIDE))
    right.paste(255, (SIDE // 2, 0, SIDE, SIDE))
    inputs = {"image": OTHER, "mask_image": right, "output_type": "latent", "strength": 1.0}
    one, two = (generated(pipe, inputs | image_prompt(image)) for image in (REFERENCE, OTHER))
    half = one.shape[-1] // 2
    assert torch.equal(one[..., :half], two[..., :half])
    assert not torch.equal(one[..., half:], two[..., half:])


@pytest.fixture
def pipe(toy: "Toy") -> Any:
    return of_kind(StableDiffusionPipeline, toy.backbone)


@pytest.fixture
def image_prompt(pipe: Any, toy: "Toy") -> ImagePrompt:
    return load_adapter(pipe, toy.adapter)


def test_a_image_is_its_embedding(pipe: Any, image_prompt: ImagePrompt, toy: "Toy") -> None:
    embedding = image_prompt.encode(REFERENCE)[0]
    expected = generated(pipe, image_prompt(REFERENCE))
    for same in ([REFERENCE], embedding, embedding[None]):
        assert torch.equal(expected, generated(pipe, image_prompt(same)))
    glass = REFERENCE.convert("RGBA")
    glass.putalpha(REFERENCE.convert("L").point(lambda grey: 0 if grey == 255 else 255))
    assert torch.equal(image_prompt.encode(glass)[0], embedding)
    # the embedding that the stages train with
    encoded = EncodedSplit(toy.encoded, "validation")
    key = encoded.samples[0]["key"]
    colour, shape = key.split("-")
    ours = image_prompt.encode(toy_image(shape, colour))[0]
    torch.testing.assert_close(ours, encoded.row(0)[1].float(), atol=2e-3, rtol=2e-3)


def test_an_image_is_read_as_in_training(image_prompt: ImagePrompt) -> None:
    """Upright as its camera says; 16-bit grey keeps its shades, where Pillow has it white."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by a quarter
    marked = REFERENCE.copy()
    marked.paste("black", (0, 0, SIDE // 4, SIDE // 8))  # no two turns of it are alike
    file = BytesIO()
    marked.rotate(90).save(file, "PNG", exif=exif)
    upright = image_prompt.encode(marked)
    assert torch.equal(image_prompt.encode(Image.open(file)), upright)
    grey = REFERENCE.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert torch.equal(image_prompt.encode(deep), image_prompt.encode(grey))
    with pytest.raises(UserError, match=r"cannot be used .pixel values of unknown range"):
        image_prompt.encode(Image.new("I", (8, 8), 99_999))
    with pytest.raises(UserError, match=r"cannot be used .not a readable image"):
        image_prompt.encode(Image.open(BytesIO(file.getvalue()[:-60])))


def test_scale_by_layer(pipe: Any, image_prompt: ImagePrompt) -> None:
    first, *rest = image_prompt.adapter.layers
    one_layer = generated(pipe, image_prompt(REFERENCE, scale={first: 1.0}))
    assert image_prompt.adapter.scale == {first: 1.0, **dict.fromkeys(rest, 0.0)}
    assert not torch.equal(one_layer, generated(pipe, image_prompt(REFERENCE)))
    with pytest.raises(UserError, match="no layer 'nowhere'"):
        image_prompt(REFERENCE, scale={"nowhere": 1.0})


def test_without_guidance_and_for_a_batch(pipe: Any, image_prompt: ImagePrompt) -> None:
    assert generated(pipe, image_prompt(REFERENCE, guidance_scale=1.0)).shape[0] == 1
    several = {**image_prompt(REFERENCE), "num_images_per_prompt": 2}
    assert generated(pipe, several).shape[0] == 2
    texts = generated(pipe, image_prompt(REFERENCE), ["", "a red ring"])
    assert texts.shape[0] == 2


def test_it_goes_where_the_pipeline_goes(pipe: Any, image_prompt: ImagePrompt) -> None:
    pipe.to(torch.bfloat16)
    assert generated(pipe, image_prompt(REFERENCE)).isfinite().all()


def test_a_pipeline_saved_with_an_adapter_loads_without(
    pipe: Any, toy: "Toy", tmp_path: Path
) -> None:
    base = generated(pipe, {})
    load_adapter(pipe, toy.adapter)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(generated(of_kind(StableDiffusionPipeline, tmp_path), {}), base)


@pytest.mark.parametrize("attached", ["first", "last"])
@pytest.mark.parametrize("attention", ["decoupled", "lora"])
def test_a_fused_lora_changes_no_image(
    attention: str, attached: str, pipe: Any, tmp_path: Path
) -> None:
    row = {**VARIANT, "attention": attention, **({"rank": 4} if attention == "lora" else {})}
    torch.manual_seed(2)
    adapter = build_adapter(parse_variant(row), pipe.unet, CLIP_PARAMS.embed_dim)
    with torch.no_grad():
        for weight in adapter.trainable_parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    save_adapter(adapter, tmp_path / "it", parse_variant(row), {})
    embedding = torch.randn(CLIP_PARAMS.embed_dim)

    def add_style() -> None:
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        style = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        pipe.unet.add_adapter(style, "style")

    if attached == "last":
        add_style()
    image_prompt = load_adapter(pipe, tmp_path / "it")
    if attached == "first":
        add_style()
    expected = generated(pipe, image_prompt(embedding))
    for merge in (pipe.fuse_lora, pipe.unload_lora_weights):
        merge()
        assert (generated(pipe, image_prompt(embedding)) - expected).abs().mean() < 1e-5


@pytest.mark.slow
def test_a_compiled_unet_takes_it(
    pipe: Any, image_prompt: ImagePrompt, toy: "Toy", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # no part of what is compiled
    compiled = of_kind(StableDiffusionPipeline, toy.backbone)
    compiled.unet = torch.compile(compiled.unet, backend="eager")
    prompt = load_adapter(compiled, toy.adapter)
    for scale in (1.0, 0.0):
        expected = generated(pipe, image_prompt(REFERENCE, scale=scale))
        assert torch.equal(generated(compiled, prompt(REFERENCE, scale=scale)), expected)
    prompt.detach()
    assert torch.equal(generated(compiled, {}), expected)


def test_the_image_encoder_is_a_name_or_a_folder(pipe: Any, toy: "Toy") -> None:
    folder = toy.backbone / "evaluator"
    expected = load_clip(f"local-dir:{folder}", None).image_embeds([REFERENCE])
    for name in (folder, f"local-dir:{folder}"):
        image_prompt = load_adapter(pipe, toy.adapter, image_encoder=name)
        assert torch.equal(image_prompt.encode(REFERENCE), expected)
        image_prompt.detach()


def test_what_is_no_adapter_is_refused_in_one_line(pipe: Any, toy: "Toy", tmp_path: Path) -> None:
    def refused(message: str, pipeline: Any, folder: Any) -> None:
        with pytest.raises(UserError, match=message) as error:
            load_adapter(pipeline, folder)
        assert "\n" not in str(error.value)

    refused(r"adapter_config.json is missing", pipe, tmp_path)
    for folder in (toy.adapter / WEIGHTS, "nowhere", tmp_path / "nowhere", None, 3):
        refused("no folder of an adapter on this machine", pipe, folder)
    for pipeline in (DiffusionPipeline(), None, pipe.vae):
        refused("no Stable Diffusion UNet", pipeline, toy.adapter)
    load_adapter(pipe, str(toy.adapter))
    refused("already has an adapter", pipe, toy.adapter)


NO_IMAGES = [[], "a.png", ["a.png"], Path("a.png"), None, 3, [REFERENCE, None], [torch.zeros(24)]]
NO_NUMBERS = [math.nan, math.inf, None, "much", [0.7, 0.3], REFERENCE]


def test_misuse_is_explained_in_one_line(pipe: Any, image_prompt: ImagePrompt) -> None:
    def refused(message: str, images: Any, **options: Any) -> None:
        with pytest.raises(UserError, match=message) as error:
            image_prompt(images, **options)
        assert "\n" not in str(error.value)

    before = image_prompt.adapter.scale
    for images in NO_IMAGES:
        refused("a PIL image, a list of them, or an embedding", images)
    for shape in ((5,), (), (2, 1, 24)):
        refused(r"takes \(24,\) or \(n, 24\)", torch.zeros(shape))
    refused("not finite in torch.float32", torch.full((24,), math.nan))
    for number in NO_NUMBERS:
        refused(f"scale = {re.escape(repr(number))}: give a finite number", REFERENCE, scale=number)
        refused("guidance_scale = .*: give a finite", REFERENCE, guidance_scale=number)
    first, last, *_ = before
    refused("scale = nan", REFERENCE, scale={first: 0.5, last: math.nan})
    refused("no layer '3'", REFERENCE, scale={3: 1.0})
    assert image_prompt.adapter.scale == before
    pipe.to(torch.float16)
    refused("not finite in torch.float16", torch.full((24,), 1e6))


@pytest.mark.parametrize("leave", ["detach", "unload_ip_adapter"])
def test_without_the_adapter_there_is_no_image_prompt(
    leave: str, pipe: Any, image_prompt: ImagePrompt, toy: "Toy"
) -> None:
    expected = generated(pipe, image_prompt(REFERENCE))
    getattr(image_prompt if leave == "detach" else pipe, leave)()
    with pytest.raises(UserError, match="no longer on the pipeline"):
        image_prompt(REFERENCE)
    with pytest.raises(UserError, match="not attached"):
        image_prompt.detach()
    assert torch.equal(generated(pipe, load_adapter(pipe, toy.adapter)(REFERENCE)), expected)


def test_an_unknown_image_encoder_is_asked_for(pipe: Any, toy: "Toy", tmp_path: Path) -> None:
    pipe.register_to_config(_name_or_path=str(tmp_path))
    with pytest.raises(UserError, match="which image encoder"):
        load_adapter(pipe, toy.adapter)(REFERENCE)


def test_the_import_is_light() -> None:
    code = "import adapterbench, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="nothing"):
        from adapterbench import nothing  # noqa: F401
