"""What an image prompt takes beside images and a scale, one setting after the other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)
from PIL import Image
from toy_adapters import toy_unet
from toy_backbone import CLIP_PARAMS, SIDE, VARIANT, toy_image

from adapterbench import load_adapter, load_embeddings, save_embeddings
from adapterbench.adapters.core.build import build_adapter
from adapterbench.adapters.core.storage import save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.core.errors import UserError
from adapterbench.exchange.pipeline import ImagePrompt
from adapterbench.exchange.presets import PRESETS, places, save_presets
from adapterbench.exchange.schedule import Schedule, Steps

if TYPE_CHECKING:
    from toy_backbone import Toy

RING, BAR = toy_image("ring", "red"), toy_image("bar", "blue")
WIDE = Image.new("RGB", (3 * SIDE, SIDE), "white")
WIDE.paste(RING, (0, 0))
WIDE.paste(BAR, (2 * SIDE, 0))


@pytest.fixture
def image_prompt(pipeline: StableDiffusionPipeline, toy: "Toy") -> Any:
    loaded = load_adapter(pipeline, toy.adapter)
    yield loaded
    loaded.detach()


def embeds(inputs: dict[str, Any]) -> torch.Tensor:
    found: torch.Tensor = inputs["ip_adapter_image_embeds"][0]
    return found


def refused(message: str, image_prompt: Any, *images: Any, **options: Any) -> None:
    with pytest.raises(UserError, match=message) as error:
        image_prompt(*images, **options)
    assert "\n" not in str(error.value)


def test_a_schedule_is_that_of_controlnets() -> None:
    """`control_guidance_start` and `_end` of diffusers: whole steps within the shares."""
    for start, end, expected in [
        (0.0, 1.0, [1, 1, 1, 1]),
        (0.0, 0.5, [1, 1, 0, 0]),
        (0.5, 1.0, [0, 0, 1, 1]),
        (0.25, 0.75, [0, 1, 1, 0]),
        (0.1, 0.9, [0, 1, 1, 0]),
    ]:
        weights = [Schedule(start, end)(i, 4) for i in range(4)]
        keeps = [1.0 - float(i / 4 < start or (i + 1) / 4 > end) for i in range(4)]
        assert weights == keeps == expected


def test_a_curve_is_a_function_or_a_list() -> None:
    assert [Schedule(curve=lambda done: 1 - done)(i, 4) for i in range(4)] == [1, 0.75, 0.5, 0.25]
    assert [Schedule(curve=[1.0, 0.2])(i, 4) for i in range(4)] == [1, 1, 0.2, 0.2]
    assert [Schedule(curve=[1, 2, 3, 4])(i, 4) for i in range(4)] == [1, 2, 3, 4]
    assert [Schedule(end=0.5, curve=[1, 2, 3, 4])(i, 4) for i in range(4)] == [1, 2, 0, 0]
    with pytest.raises(UserError, match=r"curve\(0.5\) = nan"):
        Schedule(curve=lambda _: float("nan"))(2, 4)


class Scheduler:
    timesteps = torch.tensor([900, 600, 600, 300])


def test_steps_begin_with_the_first_timestep_of_a_run() -> None:
    """Image to image leaves some out; new timesteps are a new run; a solver may be twice at one."""
    scheduler = Scheduler()
    steps = Steps(lambda: scheduler)
    assert [steps(t) for t in torch.tensor([900, 600, 600, 300])] == [
        (0, 4),
        (1, 4),
        (1, 4),
        (3, 4),
    ]
    scheduler.timesteps = torch.tensor([900, 600, 300, 1])
    assert [steps(t) for t in torch.tensor([600, 300, 1])] == [(0, 3), (1, 3), (2, 3)]
    scheduler.timesteps = torch.tensor([900, 600, 300, 1])
    assert steps(torch.tensor(900)) == (0, 4)
    with pytest.raises(UserError, match="timestep 7 is not of the pipeline"):
        steps(torch.tensor(7))


SCHEDULERS = [
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_pipeline_runs_the_schedule(
    scheduler: Any,
    pipeline: StableDiffusionPipeline,
    image_prompt: ImagePrompt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Step by step, as often as it is called with the same arguments."""
    monkeypatch.setattr(pipeline, "scheduler", scheduler.from_config(pipeline.scheduler.config))
    seen: list[float] = []
    branch = next(iter(image_prompt.adapter.layers.values()))
    handle = pipeline.unet.register_forward_pre_hook(lambda *_: seen.append(branch.step_weight))
    inputs = image_prompt(RING, start=0.25, curve=lambda done: 1 + done)
    for _ in range(2):
        pipeline("", num_inference_steps=4, height=SIDE, width=SIDE, output_type="latent", **inputs)
    handle.remove()
    assert seen == [0, 1.25, 1.5, 1.75] * 2


def test_a_negative_image_stands_for_no_image(image_prompt: ImagePrompt) -> None:
    """As diffusers takes it: the first half of `ip_adapter_image_embeds`."""
    ring, bar = image_prompt.encode([RING, BAR])
    same = torch.testing.assert_close  # threads share the work otherwise in batches of one and two
    same(embeds(image_prompt(RING)), torch.stack([0 * ring, ring])[:, None])
    for negative in (BAR, [BAR], bar):
        given = embeds(image_prompt(RING, negative=negative))
        same(given, torch.stack([bar, ring])[:, None])
    both = embeds(image_prompt([RING, BAR], negative=BAR))
    same(both, torch.stack([torch.stack([bar, bar]), torch.stack([ring, bar])]))
    refused("2 negative images for 1 image", image_prompt, RING, negative=[RING, BAR])
    refused("guidance_scale above 1", image_prompt, RING, negative=BAR, guidance_scale=1)


def test_an_average_is_one_image_prompt(image_prompt: ImagePrompt) -> None:
    ring, bar = image_prompt.encode([RING, BAR])
    mean = embeds(image_prompt([RING, BAR], average=True))[1]
    torch.testing.assert_close(mean, ((ring + bar) / 2)[None])
    weighted = embeds(image_prompt([RING, BAR], average=True, weights=[3, 1]))[1]
    torch.testing.assert_close(weighted, (0.75 * ring + 0.25 * bar)[None])
    assert image_prompt.adapter.prompt_weights is None
    image_prompt([RING, BAR], weights=[3, 1])
    assert image_prompt.adapter.prompt_weights == [3, 1]
    for average in (True, False):
        for weights in ([1.0], [-1.0, 2.0], [0.0, 0.0], [], ["much", 1.0]):
            refused("weights", image_prompt, [RING, BAR], weights=weights, average=average)


def test_noise_is_seeded_and_keeps_the_size(image_prompt: ImagePrompt) -> None:
    clean = embeds(image_prompt(RING))
    assert torch.equal(embeds(image_prompt(RING, noise=0.0, noise_seed=3)), clean)
    one = embeds(image_prompt(RING, noise=0.5, noise_seed=3))[1]
    assert torch.equal(embeds(image_prompt(RING, noise=0.5, noise_seed=3))[1], one)
    assert not torch.equal(embeds(image_prompt(RING, noise=0.5, noise_seed=4))[1], one)
    wide = torch.randn(50, CLIP_PARAMS.embed_dim)
    noisy = embeds(image_prompt(wide, noise=0.6))[1]
    correlation = torch.nn.functional.cosine_similarity(noisy.flatten(), wide.flatten(), dim=0)
    assert correlation == pytest.approx(0.8, abs=0.03)  # sqrt(1 - 0.6^2)
    assert noisy.norm() / wide.norm() == pytest.approx(1, abs=0.05)
    for noise in (-0.1, 1.1, float("nan"), "much"):
        refused("noise = ", image_prompt, RING, noise=noise)
    refused("noise_seed = 0.5", image_prompt, RING, noise=0.5, noise_seed=0.5)


def test_embeddings_travel_in_a_file(image_prompt: ImagePrompt, tmp_path: Path) -> None:
    found = image_prompt.encode([RING, BAR])
    save_embeddings(found, tmp_path / "it.safetensors")
    read = load_embeddings(tmp_path / "it.safetensors")
    assert torch.equal(read, found)
    assert torch.equal(embeds(image_prompt(read)), embeds(image_prompt([RING, BAR])))

    def fails(message: str, use: Any, *inputs: Any) -> None:
        with pytest.raises(UserError, match=message) as error:
            use(*inputs)
        assert "\n" not in str(error.value)

    fails("ends in .safetensors", save_embeddings, found, tmp_path / "it.pt")
    fails("a tensor of floats", save_embeddings, [RING], tmp_path / "two.safetensors")
    fails("a tensor of floats", save_embeddings, found.int(), tmp_path / "two.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["it.safetensors"]
    fails("is missing", load_embeddings, tmp_path / "nowhere.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    fails("is damaged", load_embeddings, tmp_path / "bad.safetensors")


def test_an_image_that_is_not_square(
    pipeline: StableDiffusionPipeline, image_prompt: ImagePrompt, toy: "Toy"
) -> None:
    square = Image.new("RGB", (3 * SIDE, 3 * SIDE), "white")
    square.paste(WIDE, (0, SIDE))
    plain = image_prompt.encode(WIDE)
    assert torch.equal(image_prompt.encode(WIDE, fit="crop"), plain)
    assert torch.equal(image_prompt.encode(WIDE, fit="pad"), image_prompt.encode(square))
    parts = [RING, Image.new("RGB", (SIDE, SIDE), "white"), BAR]
    mean = image_prompt.encode(parts).mean(dim=0, keepdim=True)
    torch.testing.assert_close(image_prompt.encode(WIDE, fit="tiles"), mean)
    tall = image_prompt.encode([WIDE.transpose(Image.Transpose.ROTATE_90), RING], fit="tiles")
    assert tall.shape == (2, CLIP_PARAMS.embed_dim)
    for fit in ("crop", "pad", "tiles"):
        torch.testing.assert_close(image_prompt.encode(RING, fit), image_prompt.encode(RING))
    image_prompt.detach()
    padding = load_adapter(pipeline, toy.adapter, fit="pad")
    assert torch.equal(padding.encode(WIDE), image_prompt.encode(square))
    with pytest.raises(UserError, match="fit = 'stretch': choose one of crop, pad, tiles"):
        padding.encode(WIDE, fit="stretch")
    with pytest.raises(UserError, match="gives 40 tiles, more than 16"):
        padding.encode(Image.new("RGB", (400, 10)), fit="tiles")
    padding.detach()
    with pytest.raises(UserError, match="fit = None"):
        load_adapter(pipeline, toy.adapter, fit=None)  # type: ignore[call-overload]
    image_prompt.adapter.attach(image_prompt.unet)  # for the fixture


def test_masks_are_drawn(image_prompt: ImagePrompt) -> None:
    """Black and white at 128, of diffusers' own processor."""
    grey = Image.new("L", (SIDE, SIDE), 100)
    grey.paste(200, (0, 0, SIDE // 2, SIDE))
    [mask] = image_prompt(RING, masks=grey)["cross_attention_kwargs"]["ip_adapter_masks"]
    assert mask.shape == (1, 1, SIDE, SIDE)
    assert mask[..., : SIDE // 2].eq(1).all()
    assert mask[..., SIDE // 2 :].eq(0).all()
    two = image_prompt([RING, BAR], masks=[grey, grey.convert("RGB")], scale=[0.7, 0.2])
    assert two["cross_attention_kwargs"]["ip_adapter_masks"][0].shape == (1, 2, SIDE, SIDE)
    assert "cross_attention_kwargs" not in image_prompt(RING)
    other = Image.new("L", (SIDE, 2 * SIDE))
    refused("masks are of 2 sizes", image_prompt, [RING, BAR], masks=[grey, other])
    for masks in ([], ["mask.png"], 3, Path("mask.png")):
        refused("masks: give a PIL image", image_prompt, RING, masks=masks)
    refused("2 image.*give", image_prompt, [RING, BAR], masks=[grey, grey], scale=[0.7])
    refused("omit weights", image_prompt, [RING, BAR], masks=[grey] * 2, weights=[1, 2])


def test_masks_of_another_count_or_shape_are_refused(
    pipeline: StableDiffusionPipeline, image_prompt: ImagePrompt
) -> None:
    white, tall = Image.new("L", (SIDE, SIDE), 255), Image.new("L", (SIDE, 2 * SIDE), 255)
    rows: list[tuple[str, Any, Image.Image]] = [
        ("has 1 mask.s. for 2 image prompt", [RING, BAR], white),
        ("is 64 x 32 pixels, the image 32 x 32", RING, tall),
    ]
    for message, images, masks in rows:
        with pytest.raises(UserError, match=message) as error:
            pipeline("", height=SIDE, width=SIDE, **image_prompt(images, masks=masks))
        assert "\n" not in str(error.value)


def test_presets_are_measured(
    pipeline: StableDiffusionPipeline, toy: "Toy", tmp_path: Path
) -> None:
    folder = tmp_path / "it"
    torch.manual_seed(0)
    variant = parse_variant(VARIANT)
    save_adapter(build_adapter(variant, pipeline.unet, CLIP_PARAMS.embed_dim), folder, variant, {})
    image_prompt = load_adapter(pipeline, folder, toy.backbone / "image_encoder")
    refused("scale = 'style': .* has no measured presets", image_prompt, RING, scale="style")
    first, *rest = image_prompt.adapter.layers
    for path in places(folder):
        save_presets(path, folder, "lambda 0 in all layers but one", {"style": {first: 0.8}})
        image_prompt(RING, scale="style")
        assert image_prompt.adapter.scale == {first: 0.8, **dict.fromkeys(rest, 0.0)}
        refused("no preset 'layout' .there are style", image_prompt, RING, scale="layout")
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document | {"sha256": "0" * 64}))
        refused("measured on other weights", image_prompt, RING, scale="style")
        path.write_text(json.dumps(document | {"presets": {}}))
        refused(
            "no preset 'style' .there are none.. .*in all layers", image_prompt, RING, scale="style"
        )
        path.write_text(json.dumps(document | {"presets": {"style": {first: "much"}}}))
        refused(f"{PRESETS} is not presets of an adapter", image_prompt, RING, scale="style")
        path.unlink()
    image_prompt.detach()


def test_shares_of_the_steps_are_in_order(image_prompt: ImagePrompt) -> None:
    for shares in ({"start": 0.6, "end": 0.3}, {"start": 0.5, "end": 0.5}, {"start": -0.1}):
        refused("start before end", image_prompt, RING, **shares)
    refused("start before end", image_prompt, RING, end=1.5)
    refused("start = 'soon'", image_prompt, RING, start="soon")
    curves: tuple[Any, ...] = ([], "linear", 0.5, {})
    for curve in curves:
        refused("curve = .*: give a function", image_prompt, RING, curve=curve)
    refused("curve = -0.5: give weights from 0 on", image_prompt, RING, curve=[1.0, -0.5])
    refused("curve = nan", image_prompt, RING, curve=[1.0, float("nan")])
    refused("no block 'up.block_7'", image_prompt, RING, scale={"up": {"block_7": 1.0}})


def test_several_adapters_take_lists(
    pipeline: StableDiffusionPipeline, toy: "Toy", tmp_path: Path
) -> None:
    both = load_adapter(pipeline, [toy.adapter, str(toy.adapter)])
    inputs = both([RING, [RING, BAR]], scale=[0.7, {"mid": 0.5}], guidance_scale=3)
    assert [tuple(e.shape) for e in inputs["ip_adapter_image_embeds"]] == [(2, 1, 24), (2, 2, 24)]
    assert inputs["guidance_scale"] == 3
    assert set(both[0].adapter.scale.values()) == {0.7}
    assert set(both[1].adapter.scale.values()) == {0.5, 0.0}
    both([RING, BAR], scale=0.4)
    assert [set(both[i].adapter.scale.values()) for i in (0, 1)] == [{0.4}, {0.4}]
    refused("images: give a list", both, RING)
    refused(r"images: got a list of 1 for 2 adapter\(s\)", both, [RING])
    refused(r"scale: got a list of 3 for 2 adapter\(s\)", both, [RING, BAR], scale=[1, 2, 3])
    with pytest.raises(UserError, match="already has an adapter"):
        load_adapter(pipeline, toy.adapter)
    both.detach()
    wider = toy_unet(cross_attention_dim=48, block_out_channels=(32, 64))
    variant = parse_variant(VARIANT)
    save_adapter(build_adapter(variant, wider, CLIP_PARAMS.embed_dim), tmp_path / "w", variant, {})
    for folders, message in {
        (): "no adapter is named",
        (toy.adapter, tmp_path / "w"): "w/adapter.safetensors does not fit .* another base",
        (toy.adapter, "nowhere"): "'nowhere' is no folder of an adapter",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            load_adapter(pipeline, list(folders))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="image_encoder: got a list of 1 for 2"):
        load_adapter(pipeline, [toy.adapter] * 2, image_encoder=["ViT-B-32"])
    load_adapter(pipeline, toy.adapter).detach()  # nothing is left attached
