"""Image prompts on SDXL's pipelines, and adapters over it in other people's formats."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from toy_adapters import EMBED_DIM, VARIANTS, build, toy_unet, trained
from toy_backbone import SIDE, toy_image
from toy_xl import WIDTHS, ToyXL, unet_xl
from transformers import AutoImageProcessor
from typer.testing import CliRunner, Result

from adapterbench import load_adapter
from adapterbench.adapters.core.adapter import Adapter, cross_attention_layers
from adapterbench.adapters.core.storage import save_adapter
from adapterbench.adapters.core.variant import parse_variant
from adapterbench.cli.main import COMMANDS, HELP
from adapterbench.core.errors import UserError
from adapterbench.exchange.ip_adapter import (
    attention_places,
    from_ip_adapter,
    save_ip_adapter,
    to_ip_adapter,
)
from adapterbench.runs.program import program

WEIGHTS = "ip_adapter.safetensors"
SCALE = 0.7
GUIDANCE = 4.0
EMBEDS = torch.randn(1, 1, EMBED_DIM, generator=torch.Generator().manual_seed(8))


@pytest.fixture
def adapter(xl_pipeline: StableDiffusionXLPipeline) -> Adapter:
    return trained(build(VARIANTS["ip_adapter"], xl_pipeline.unet))


def saved(adapter: Adapter, folder: Path, name: str = "ip_adapter") -> Path:
    """The folder of an adapter, as stage `train` leaves it."""
    save_adapter(adapter, folder / name, parse_variant(VARIANTS[name]), {})
    return folder / name


def latents(pipe: Any, **inputs: Any) -> Tensor:
    """What a pipeline makes in two steps, before the VAE."""
    made: Tensor = pipe(
        "a red bar",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(9),
        output_type="latent",
        **inputs,
    ).images
    return made


def by_diffusers(pipe: Any, weights: dict[str, Tensor], folder: Path, **inputs: Any) -> Tensor:
    """The same with the exported weights in diffusers' own loader."""
    save_ip_adapter(weights, folder / WEIGHTS)
    pipe.load_ip_adapter(folder, subfolder="", weight_name=WEIGHTS, image_encoder_folder=None)
    pipe.set_ip_adapter_scale(SCALE)
    both = torch.cat([torch.zeros_like(EMBEDS), EMBEDS])
    return latents(pipe, ip_adapter_image_embeds=[both], guidance_scale=GUIDANCE, **inputs)


SIZE = {"height": SIDE, "width": SIDE}
START = {"image": toy_image("ring", "red"), "strength": 1.0}
KINDS: dict[type, dict[str, Any]] = {
    StableDiffusionXLPipeline: SIZE,
    StableDiffusionXLImg2ImgPipeline: START,
    StableDiffusionXLInpaintPipeline: {**START, **SIZE, "mask_image": toy_image("frame", "blue")},
    StableDiffusionXLControlNetPipeline: {"image": toy_image("ring", "red"), **SIZE},
}
"""Pipelines of SDXL, and what else a call needs."""


def of_kind(kind: Any, plain: StableDiffusionXLPipeline) -> Any:
    """Another pipeline of the same parts."""
    parts = {**plain.components, "add_watermarker": False}
    if kind is StableDiffusionXLControlNetPipeline:
        torch.manual_seed(10)
        channels = (8, 8, 16, 16)
        parts["controlnet"] = ControlNetModel.from_unet(
            plain.unet, conditioning_embedding_out_channels=channels
        )
    pipe = kind(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@torch.no_grad()
def test_load_adapter_gives_what_diffusers_own_loader_gives(
    kind: type, xl_pipeline: StableDiffusionXLPipeline, adapter: Adapter, tmp_path: Path
) -> None:
    """To 1e-5, with the same embeddings and noise."""
    pipe, inputs = of_kind(kind, xl_pipeline), KINDS[kind]
    base = latents(pipe, guidance_scale=GUIDANCE, **inputs)
    weights = to_ip_adapter(adapter, xl_pipeline.unet, "linear")
    image_prompt = load_adapter(pipe, saved(adapter, tmp_path))
    ours = latents(pipe, **image_prompt(EMBEDS[0], SCALE, GUIDANCE), **inputs)
    image_prompt.detach()
    assert latents(pipe, guidance_scale=GUIDANCE, **inputs).equal(base)
    theirs = by_diffusers(pipe, weights, tmp_path, **inputs)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - base).abs().max() > 0.01


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_every_variant_acts_and_leaves(
    name: str, xl_pipeline: StableDiffusionXLPipeline, tmp_path: Path
) -> None:
    own = trained(build(VARIANTS[name], xl_pipeline.unet))
    base = latents(xl_pipeline, guidance_scale=GUIDANCE, **SIZE)
    image_prompt = load_adapter(xl_pipeline, saved(own, tmp_path, name))
    made = latents(xl_pipeline, **image_prompt(EMBEDS[0], 1.0, GUIDANCE), **SIZE)
    assert (made - base).abs().max() > 0.01
    image_prompt.detach()
    assert latents(xl_pipeline, guidance_scale=GUIDANCE, **SIZE).equal(base)


@torch.no_grad()
def test_images_and_diffusers_blocks(
    xl_pipeline: StableDiffusionXLPipeline, adapter: Adapter, tmp_path: Path
) -> None:
    """The encoder beside the model reads the image; a list has one number an attention."""
    image_prompt = load_adapter(xl_pipeline, saved(adapter, tmp_path))
    up = {"up": {"block_0": [0.0, 1.0]}}
    inputs = image_prompt(toy_image("bar", "blue"), up, GUIDANCE)
    on = {path for path, scale in image_prompt.adapter.scale.items() if scale}
    prefix = "up_blocks.0.attentions.1.transformer_blocks"
    assert on == {f"{prefix}.{depth}.attn2" for depth in range(2)}
    assert latents(xl_pipeline, **inputs, **SIZE).isfinite().all()


def published_sdxl() -> dict[str, tuple[int, ...]]:
    """Names and shapes of ip-adapter_sdxl: cross-attentions are the odd of 140 attentions.

    Two blocks going down have 2 x 2 and 2 x 10 layers, two going up 3 x 10 and 3 x 2, the middle,
    which comes last, 10; keys and values of tokens 2048 wide, made of bigG's embeddings (1280).
    """
    widths = 4 * [640] + 20 * [1280] + 30 * [1280] + 6 * [640] + 10 * [1280]
    layers = {
        f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight": (width, 2048)
        for number, width in enumerate(widths)
        for part in "kv"
    }
    projection = {
        "image_proj.proj.weight": (4 * 2048, 1280),
        "image_proj.proj.bias": (4 * 2048,),
        "image_proj.norm.weight": (2048,),
        "image_proj.norm.bias": (2048,),
    }
    return {**projection, **layers}


def shrunk(shapes: dict[str, tuple[int, ...]], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """A checkpoint of that layout for a smaller UNet: bigG's width, as many layers as it has."""
    width = sum(WIDTHS)
    layers = list(cross_attention_layers(unet).values())
    names = [name for name in shapes if name.startswith("ip_adapter")][: 2 * len(layers)]
    order = [path for path in attention_places(unet) if path in cross_attention_layers(unet)]
    queries = [cross_attention_layers(unet)[path].query_dim for path in order]
    torch.manual_seed(11)
    weights = {
        "image_proj.proj.weight": torch.randn(4 * width, 1280) / 30,
        "image_proj.proj.bias": torch.randn(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    assert weights.keys() == {name for name in shapes if name.startswith("image_proj")}
    return weights | {name: torch.randn(queries[n // 2], width) for n, name in enumerate(names)}


def test_the_layout_of_the_published_file_is_that_of_the_full_unet() -> None:
    config = files("adapterbench") / "backbone/configs/sdxl_unet.json"
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads(config.read_text()))
    places, shapes = attention_places(unet), published_sdxl()
    assert len(places) == 140
    layers = cross_attention_layers(unet)
    assert len(layers) == 70
    found = {
        f"ip_adapter.{places[path]}.to_{part}_ip.weight": tuple(
            getattr(attn, f"to_{part}").weight.shape
        )
        for path, attn in layers.items()
        for part in "kv"
    }
    assert found == {n: shape for n, shape in shapes.items() if n.startswith("ip_adapter")}


@torch.no_grad()
def test_a_checkpoint_of_that_layout_is_read(tmp_path: Path) -> None:
    unet = unet_xl()
    weights = shrunk(published_sdxl(), unet)
    save_file(weights, tmp_path / WEIGHTS)
    variant, adapter = from_ip_adapter(tmp_path / WEIGHTS, unet)
    assert variant.row() == VARIANTS["ip_adapter"]
    assert adapter.embed_dim == 1280
    again = to_ip_adapter(adapter, unet, "linear")
    assert again.keys() == weights.keys()
    assert all(again[name].equal(weight) for name, weight in weights.items())
    with pytest.raises(UserError, match="does not fit"):
        from_ip_adapter(tmp_path / WEIGHTS, toy_unet())


@pytest.mark.usefixtures("workplace")
def test_adopt_takes_it_with_its_encoder(xl: ToyXL) -> None:
    save_file(shrunk(published_sdxl(), unet_xl()), WEIGHTS)

    def adopt(encoder: str) -> Result:
        encoders = ["--image-encoder", encoder, "--pretrained", "laion2b_s39b_b160k"]
        return command("adopt", WEIGHTS, "theirs", "--backbone", str(xl.backbone), *encoders)

    [line] = adopt("ViT-H-14").stderr.splitlines()
    assert re.search("width 1280, those of .*ViT-H-14.* have width 1024", line)
    assert not Path("models").exists()
    adopted = adopt("ViT-bigG-14")
    assert "image_encoder: ViT-bigG-14" in adopted.stdout, adopted.output
    assert Path("models/theirs").is_dir()


def command(*arguments: str) -> Result:
    """Run `adapterbench ARGUMENTS`."""
    return CliRunner().invoke(program(*COMMANDS, help=HELP), arguments)


@torch.no_grad()
@pytest.mark.usefixtures("workplace")
def test_an_export_is_exact_and_its_card_names_the_pipeline(
    xl: ToyXL, xl_pipeline: StableDiffusionXLPipeline, adapter: Adapter
) -> None:
    """From an image, by the exported encoder and preprocessing, to the same latents."""
    folder, image = saved(adapter, Path()), toy_image("bar", "blue")
    image_prompt = load_adapter(xl_pipeline, folder)
    ours = latents(xl_pipeline, **image_prompt(image, SCALE, GUIDANCE), **SIZE)
    image_prompt.detach()
    over = ("--backbone", str(xl.backbone))
    exported = command("export", str(folder), "out", *over)
    assert "out: exact" in exported.stdout, exported.output
    encoder = "out/image_encoder"
    xl_pipeline.feature_extractor = AutoImageProcessor.from_pretrained(encoder, backend="pil")
    xl_pipeline.load_ip_adapter("out", subfolder="", weight_name=WEIGHTS)
    xl_pipeline.set_ip_adapter_scale(SCALE)
    theirs = latents(xl_pipeline, ip_adapter_image=image, guidance_scale=GUIDANCE, **SIZE)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)

    assert command("export", str(folder), "hub", "--format", "hub", *over).exit_code == 0
    card = Path("hub/README.md").read_text()
    assert "import StableDiffusionXLPipeline" in card
    assert "StableDiffusionPipeline" not in card
