"""Two adapters with masks, blocks, a schedule and a negative image, beside all else of diffusers.

A row is a combination: a pipeline, and what its users do to it. Whatever that is, the images are
those of the untouched pipeline, and `detach` gives it back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import pytest
import torch
from accelerate import cpu_offload
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
from toy_backbone import CLIP_PARAMS, SIDE, VARIANT, Toy, toy_image

from adapterbench import load_adapter
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.frozen.load import load_part

if TYPE_CHECKING:
    from adapterbench.exchange.pipeline import ImagePrompts

OTHER = toy_image("bar", "blue")
LEFT = Image.new("L", (SIDE, SIDE))
LEFT.paste(255, (0, 0, SIDE // 2, SIDE))
RIGHT = LEFT.point(lambda grey: 255 - grey)
KINDS: dict[type[DiffusionPipeline], dict[str, Any]] = {
    StableDiffusionPipeline: {"height": SIDE, "width": SIDE},
    StableDiffusionImg2ImgPipeline: {"image": OTHER, "strength": 0.75},
    StableDiffusionInpaintPipeline: {"image": OTHER, "mask_image": RIGHT},
    StableDiffusionControlNetPipeline: {"image": OTHER},
}
ROWS: dict[str, dict[str, Any]] = {
    "decoupled": VARIANT,
    "lora": {**VARIANT, "attention": "lora", "rank": 4},
    "append": {**VARIANT, "attention": "append"},
}


def style(unet: Any, weights: bool = False) -> None:
    """A LoRA beside the adapters: one that changes nothing yet, or does."""
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    torch.manual_seed(0)
    unet.add_adapter(
        LoraConfig(r=2, target_modules=targets, init_lora_weights=not weights), "style"
    )
    unet.set_adapters("style", 0.1)


def compiled(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


@dataclass
class Combination:
    """What is done to a pipeline that has the adapters."""

    change: Callable[[Any], Any]
    before: Callable[[Any], Any] = field(default=lambda _pipe: None)
    """Done before the images that it is compared with."""


COMBINATIONS = {
    "attention slicing": Combination(lambda pipe: pipe.enable_attention_slicing("max")),
    "fused projections": Combination(lambda pipe: pipe.fuse_qkv_projections(vae=False)),
    "offload": Combination(lambda pipe: cpu_offload(pipe.unet, torch.device("cpu"))),
    "LoRA": Combination(lambda pipe: style(pipe.unet)),
    "fused LoRA": Combination(
        lambda pipe: pipe.fuse_lora(), before=lambda pipe: style(pipe.unet, weights=True)
    ),
}


@pytest.fixture(scope="module")
def folders(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each kind, moved away from where it started."""
    root, unet = tmp_path_factory.mktemp("adapters"), load_part(toy.backbone, "unet")
    torch.manual_seed(6)
    for name, row in ROWS.items():
        variant = parse_variant(row)
        adapter = build_adapter(variant, unet, CLIP_PARAMS.embed_dim)
        with torch.no_grad():
            for weight in adapter.trainable_parameters():
                weight.add_(0.2 * torch.randn_like(weight))
        save_adapter(adapter, root / name, variant, {})
    return {name: root / name for name in ROWS}


@pytest.fixture(scope="module")
def parts(toy: Toy) -> dict[str, Any]:
    """Of every pipeline; a ControlNet that says something."""
    pipe = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    found = dict(pipe.to(torch.float32).components)
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(
        found["unet"], conditioning_embedding_out_channels=(8, 8, 16, 16)
    )
    with torch.no_grad():
        for weight in control.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return {**found, "controlnet": control}


@pytest.fixture(params=KINDS)
def pipe(request: pytest.FixtureRequest, parts: dict[str, Any], toy: Toy) -> Iterator[Any]:
    """Each with a UNet of its own, which combinations change."""
    kind = request.param
    own = {**parts, "unet": load_part(toy.backbone, "unet")}
    if kind is not StableDiffusionControlNetPipeline:
        del own["controlnet"]
    made = kind(**own, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def images(pipe: Any, inputs: dict[str, Any], steps: int = 4) -> torch.Tensor:
    seed = torch.Generator().manual_seed(1)
    options = {"num_inference_steps": steps, "output_type": "pt", "generator": seed}
    found: torch.Tensor = pipe("a red ring", **options, **KINDS[type(pipe)], **inputs).images
    return found


def settings(image_prompts: "ImagePrompts", **more: Any) -> dict[str, Any]:
    """All at once, for the kinds of `folders` in their order."""
    ring, bar = toy_image("ring", "red"), toy_image("bar", "green")
    options: dict[str, Any] = {
        "scale": [{"up": {"block_0": [0.5, 1.0]}, "mid": 1.0}, 0.6, 1.0],
        "masks": [[LEFT, RIGHT], None, RIGHT],
        "negative": [OTHER, None, OTHER],
        "end": [0.75, 1.0, 0.5],
        "curve": [None, lambda done: 1 - done / 2, None],
    }
    return image_prompts([[ring, bar], ring, bar], **options | more)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_a_combination_changes_nothing(
    combination: str, pipe: Any, folders: dict[str, Path], toy: Toy
) -> None:
    row = COMBINATIONS[combination]
    image_prompts = load_adapter(pipe, list(folders.values()), toy.backbone / "image_encoder")
    row.before(pipe)
    inputs = settings(image_prompts)
    expected = images(pipe, inputs)
    row.change(pipe)
    torch.testing.assert_close(images(pipe, inputs), expected, atol=2e-4, rtol=0)


def test_every_pipeline_takes_them_and_gets_itself_back(
    pipe: Any, folders: dict[str, Path], toy: Toy
) -> None:
    base = images(pipe, {})
    image_prompts = load_adapter(pipe, list(folders.values()), toy.backbone / "image_encoder")
    made = images(pipe, settings(image_prompts))
    assert made.shape == base.shape
    assert (made - base).abs().max() > 1e-3
    image_prompts.detach()
    assert torch.equal(images(pipe, {}), base)


OTHERS: list[dict[str, Any]] = [
    {"scale": 0.5},
    {"masks": None},
    {"negative": None},
    {"end": 1.0},
    {"curve": None},
    {"start": [0.3, 0.0, 0.0]},
    {"noise": [0.0, 0.4, 0.0]},
]


@pytest.mark.parametrize("pipe", [StableDiffusionPipeline], indirect=True)
def test_every_setting_counts(pipe: Any, folders: dict[str, Path], toy: Toy) -> None:
    image_prompts = load_adapter(pipe, list(folders.values()), toy.backbone / "image_encoder")
    made = images(pipe, settings(image_prompts))
    for other in OTHERS:
        changed = images(pipe, settings(image_prompts, **other))
        assert (changed - made).abs().max() > 1e-5, other
    assert torch.equal(images(pipe, settings(image_prompts)), made)
    several = {**settings(image_prompts), "num_images_per_prompt": 2}
    assert images(pipe, several).shape == (2, *made.shape[1:])


LARGE = 4 * SIDE
"""Of an image that is many latent pixels wide."""
SHARE = 0.75
"""What pixels outside the mask may change of what those inside do, on average, over random weights:
in the layers nothing leaks (tests/adapters/core/test_masks.py), the rest of the UNet spreads it."""


@pytest.mark.parametrize("kind", ["decoupled", "lora"])
@pytest.mark.parametrize("pipe", [StableDiffusionPipeline], indirect=True)
def test_pixels_outside_the_mask_change_less(
    kind: str, pipe: Any, folders: dict[str, Path], toy: Toy
) -> None:
    size = {"height": LARGE, "width": LARGE, "num_inference_steps": 2}
    image_prompt = load_adapter(pipe, folders[kind], toy.backbone / "image_encoder")

    def made(image: Image.Image) -> torch.Tensor:
        mask = LEFT.resize((LARGE, LARGE), Image.Resampling.NEAREST)
        inputs = image_prompt(image, masks=mask)
        seed = torch.Generator().manual_seed(1)
        found: torch.Tensor = pipe("", output_type="pt", generator=seed, **size, **inputs).images
        return found

    change = (made(toy_image("ring", "red")) - made(OTHER)).abs()
    inside, outside = change[..., : LARGE // 2].mean(), change[..., LARGE // 2 :].mean()
    assert inside > 1e-3
    assert outside < SHARE * inside


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipe", [StableDiffusionPipeline, StableDiffusionControlNetPipeline], indirect=True
)
def test_a_compiled_unet_takes_the_settings(
    pipe: Any, folders: dict[str, Path], toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # no part of what is compiled
    image_prompts = load_adapter(pipe, list(folders.values()), toy.backbone / "image_encoder")
    expected = images(pipe, settings(image_prompts))
    compiled(pipe)
    inputs = settings(image_prompts)
    torch.testing.assert_close(images(pipe, inputs), expected, atol=2e-4, rtol=0)
