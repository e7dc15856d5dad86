"""An attached adapter beside the rest of diffusers: pipelines, LoRA, devices and dtypes."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from toy_adapters import VARIANTS, WIDTH, build, call, prompts, toy_unet, trained

from adapterbench.adapters.core.channel import ImageChannel
from adapterbench.core.errors import UserError
from adapterbench.exchange.ip_adapter import grouped, to_ip_adapter

IMAGE = torch.linspace(0, 1, 3 * 64).view(1, 3, 8, 8)
MASK = (torch.arange(64).view(1, 1, 8, 8) % 8 > 3).float()
PIPELINES: dict[str, tuple[type, dict[str, Any]]] = {
    "txt2img": (StableDiffusionPipeline, {}),
    "img2img": (StableDiffusionImg2ImgPipeline, {"image": IMAGE, "strength": 1.0}),
    "inpaint": (StableDiffusionInpaintPipeline, {"image": IMAGE, "mask_image": MASK}),
    "controlnet": (StableDiffusionControlNetPipeline, {"image": IMAGE}),
}


def pipeline(kind: type, unet: UNet2DConditionModel) -> Any:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
        "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
        "unet": unet,
    }
    if kind is StableDiffusionControlNetPipeline:
        control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8,))
        for zero in control.controlnet_down_blocks:
            torch.nn.init.normal_(zero.weight, std=0.1)
        parts["controlnet"] = control
    absent = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
    pipe = kind(**parts, **dict.fromkeys(absent), requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe: Any, **more: Any) -> torch.Tensor:
    text = torch.randn(2, 1, 7, WIDTH, generator=torch.Generator().manual_seed(5))
    return pipe(
        prompt_embeds=text[0],
        negative_prompt_embeds=text[1],
        num_inference_steps=2,
        guidance_scale=3.0,
        height=8,
        width=8,
        generator=torch.Generator().manual_seed(6),
        output_type="pt",
        **more,
    ).images


@pytest.mark.parametrize("variant", ["ip_adapter", "ip_adapter_lora", "uni_controlnet_global"])
@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_takes_the_image_prompt(
    name: str, variant: str, unet: UNet2DConditionModel
) -> None:
    kind, inputs = PIPELINES[name]
    pipe = pipeline(kind, unet)
    without = generate(pipe, **inputs)
    adapter = trained(build(VARIANTS[variant], unet))
    adapter.attach(unet)
    zeros_first = torch.cat([torch.zeros_like(prompts(batch=1)), prompts(batch=1)])
    images = generate(pipe, **inputs, ip_adapter_image_embeds=[zeros_first])
    assert images.shape == without.shape == (1, 3, 8, 8)
    assert not torch.equal(images, without)
    adapter.detach(unet)
    assert torch.equal(generate(pipe, **inputs), without)


def test_several_images_for_one_prompt(variant: dict[str, Any], unet: UNet2DConditionModel) -> None:
    build(variant, unet).attach(unet)
    pipe = pipeline(StableDiffusionPipeline, unet)
    image_embeds = [torch.cat([torch.zeros_like(prompts(batch=1)), prompts(batch=1)])]
    images = generate(pipe, num_images_per_prompt=2, ip_adapter_image_embeds=image_embeds)
    assert images.shape == (2, 3, 8, 8)


def test_the_adapter_moves_with_the_unet(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    adapter = build(variant, unet)
    adapter.attach(unet)
    unet.to(torch.bfloat16)  # type: ignore[arg-type]  # diffusers' types lose self
    assert {weight.dtype for weight in adapter.trainable_parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert call(unet, prompts()).isfinite().all()


def test_freezing_or_saving_the_unet_leaves_the_adapter_alone(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    names = list(unet.state_dict())
    adapter = build(variant, unet)
    adapter.attach(unet)
    unet.requires_grad_(False)
    assert all(weight.requires_grad for weight in adapter.trainable_parameters())
    assert list(unet.state_dict()) == names


@torch.no_grad()
@pytest.mark.parametrize("variant", ["ip_adapter", "ip_adapter_lora", "uni_controlnet_global"])
def test_style_loras_on_the_unet_leave_the_adapter_alone(
    variant: str, unet: UNet2DConditionModel
) -> None:
    adapter = trained(build(VARIANTS[variant], unet))
    adapter.attach(unet)
    expected = call(unet, prompts())
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=2, target_modules=targets), "style")  # B = 0: changes nothing
    for use in (lambda: unet.set_adapters("style", 0.5), unet.disable_adapters, unet.fuse_lora):
        use()
        torch.testing.assert_close(call(unet, prompts()), expected, atol=1e-6, rtol=0)
    adapter.detach(unet)
    adapter.attach(unet)
    torch.testing.assert_close(call(unet, prompts()), expected, atol=1e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("fused", ["before", "after"])
@pytest.mark.parametrize(
    "variant",
    [
        "ip_adapter",
        "ip_adapter_lora",
        "ip_adapter_dora",
        "ip_adapter_oft",
        "uni_controlnet_global",
    ],
)
def test_a_fused_lora_does_what_it_did_before(
    variant: str, fused: str, unet: UNet2DConditionModel
) -> None:
    """Merged into the frozen weights, it does not reach the image prompt through them."""
    adapter = trained(build(VARIANTS[variant], unet))
    adapter.attach(unet)
    alone = call(unet, prompts())
    style = LoraConfig(
        r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False
    )
    torch.manual_seed(0)
    unet.add_adapter(style, "style")
    expected = call(unet, prompts())
    assert (expected - alone).abs().max() > 0.01
    if fused == "before":
        adapter.detach(unet)
        unet.fuse_lora()
        adapter.attach(unet)
    adapter.keep_weights()
    if fused == "after":
        unet.fuse_lora()
    torch.testing.assert_close(call(unet, prompts()), expected, atol=1e-5, rtol=0)
    unet.unload_lora()
    torch.testing.assert_close(call(unet, prompts()), expected, atol=1e-5, rtol=0)


REPLACERS: dict[str, Callable[[UNet2DConditionModel], Any]] = {
    "slicing": lambda unet: unet.set_attention_slice("max"),
    "no slicing": lambda unet: unet.set_attention_slice(unet.config["attention_head_dim"]),
    "fused": lambda unet: unet.fuse_qkv_projections(),
    "default": lambda unet: unet.set_default_attn_processor(),
    "no xformers": lambda unet: unet.disable_xformers_memory_efficient_attention(),
    "one": lambda unet: unet.set_attn_processor(AttnProcessor()),
    "those it has": lambda unet: unet.set_attn_processor(unet.attn_processors),
}


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.7])
@pytest.mark.parametrize("variant", ["ip_adapter", "ip_adapter_lora", "uni_controlnet_global"])
@pytest.mark.parametrize("name", REPLACERS)
def test_what_replaces_processors_leaves_the_adapter(
    name: str, variant: str, scale: float, unet: UNet2DConditionModel
) -> None:
    base = call(unet)
    adapter = trained(build(VARIANTS[variant], unet))
    adapter.attach(unet)
    adapter.scale = scale
    expected = call(unet, prompts())
    REPLACERS[name](unet)
    torch.testing.assert_close(call(unet, prompts()), expected, atol=2e-6, rtol=0)
    adapter.detach(unet)
    torch.testing.assert_close(call(unet), base, atol=2e-6, rtol=0)
    layers = [unet.get_submodule(path) for path in adapter.layers]
    fresh = toy_unet()
    REPLACERS[name](fresh)  # the adapter gives back what stands there without it
    kinds = {name: type(processor) for name, processor in fresh.attn_processors.items()}
    assert {name: type(processor) for name, processor in unet.attn_processors.items()} == kinds
    assert not any({"set_processor", "get_processor"} & vars(layer).keys() for layer in layers)


@torch.no_grad()
@pytest.mark.parametrize("detached", [False, True])
def test_unfused_projections_are_as_before(detached: bool, unet: UNet2DConditionModel) -> None:
    """What diffusers kept for then is put back, while the adapter is there or afterwards."""
    base = call(unet)
    adapter = trained(build(VARIANTS["ip_adapter"], unet))
    adapter.attach(unet)
    expected = call(unet, prompts())
    unet.fuse_qkv_projections()
    if detached:
        adapter.detach(unet)
    unet.unfuse_qkv_projections()
    for _ in range(2):
        if detached:
            assert torch.equal(call(unet), base)
            adapter.attach(unet)
        assert torch.equal(call(unet, prompts()), expected)
        adapter.detach(unet)
        detached = True


@torch.no_grad()
def test_unload_ip_adapter_is_a_detach(variant: dict[str, Any], unet: UNet2DConditionModel) -> None:
    base = call(unet)
    adapter = trained(build(variant, unet))
    adapter.attach(unet)
    expected = call(unet, prompts())
    for _ in range(2):
        pipeline(StableDiffusionPipeline, unet).unload_ip_adapter()
        assert not adapter.is_attached(unet)
        assert torch.equal(call(unet), base)
        with pytest.raises(UserError, match="not attached"):
            adapter.detach(unet)
        adapter.attach(unet)
        assert torch.equal(call(unet, prompts()), expected)


@torch.no_grad()
def test_an_unload_that_breaks_off_can_be_mended(unet: UNet2DConditionModel) -> None:
    """diffusers makes anew the processors of self-attention, which for sliced ones it cannot."""
    base = call(unet)
    adapter = trained(build(VARIANTS["ip_adapter"], unet))
    for mend in (lambda: adapter.detach(unet), lambda: adapter.attach(unet)):
        adapter.attach(unet)
        expected = call(unet, prompts())
        unet.set_attention_slice("max")
        with pytest.raises(TypeError, match="slice_size"):
            pipeline(StableDiffusionPipeline, unet).unload_ip_adapter()
        assert not adapter.is_attached(unet)
        torch.testing.assert_close(call(unet), base, atol=2e-6, rtol=0)
        mend()
        unet.set_attention_slice(None)  # type: ignore[arg-type]
    assert torch.equal(call(unet, prompts()), expected)
    adapter.detach(unet)
    assert torch.equal(call(unet), base)


@torch.no_grad()
def test_diffusers_own_adapter_takes_its_place(unet: UNet2DConditionModel) -> None:
    adapter = trained(build(VARIANTS["ip_adapter"], unet))
    theirs = to_ip_adapter(adapter, unet, "linear")
    adapter.attach(unet)
    expected = call(unet, prompts())
    pipe = pipeline(StableDiffusionPipeline, unet)
    pipe.load_ip_adapter([grouped(theirs)], subfolder="", weight_name="", image_encoder_folder=None)
    assert not adapter.is_attached(unet)
    torch.testing.assert_close(call(unet, prompts()), expected, atol=1e-6, rtol=0)
    pipe.set_ip_adapter_scale(0.3)
    assert (call(unet, prompts()) - expected).abs().max() > 1e-3
    pipe.unload_ip_adapter()
    adapter.attach(unet)
    assert torch.equal(call(unet, prompts()), expected)


@torch.no_grad()
def test_saved_while_attached_it_loads_as_the_base(
    unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    base, config = call(unet), dict(unet.config)
    build(VARIANTS["ip_adapter"], unet).attach(unet)
    assert dict(unet.config) == config
    unet.save_pretrained(tmp_path)
    loaded = UNet2DConditionModel.from_pretrained(tmp_path)
    assert torch.equal(call(loaded), base)
    UNet2DConditionModel.from_config(unet.config)


@torch.no_grad()
def test_a_copy_has_an_adapter_of_its_own(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    adapter = trained(build(variant, unet))
    adapter.attach(unet)
    expected = call(unet, prompts())
    other = copy.deepcopy(unet)
    other.set_attention_slice(None)  # type: ignore[arg-type]
    adapter.scale = 0.1
    assert torch.equal(call(other, prompts()), expected)
    channel = other.encoder_hid_proj
    assert isinstance(channel, ImageChannel)
    channel.adapters[0].detach(other)
    assert adapter.is_attached(unet)
    assert not torch.equal(call(unet, prompts()), expected)


def test_what_it_does_not_do_is_told_in_one_line(unet: UNet2DConditionModel) -> None:
    """Of diffusers' own IP-Adapter, and of a call without an image prompt."""
    adapter = build(VARIANTS["ip_adapter"], unet)
    adapter.attach(unet)
    pipe, other = (pipeline(StableDiffusionPipeline, unet) for _ in range(2))
    for scale in (0.5, [0.5], {"up": {"block_0": [0.0, 1.0]}}):
        with pytest.raises(UserError, match=r"image_prompt\(image, scale=...\)"):
            other.set_ip_adapter_scale(scale)
    with pytest.raises(UserError, match=r"\*\*image_prompt\(image\)"):
        generate(pipe, ip_adapter_image=IMAGE)
    with pytest.raises(UserError, match="got no image prompt"):
        generate(pipe)
    with pytest.raises(UserError, match=r"has 1 adapter\(s\) and got image prompts for 2"):
        generate(pipe, ip_adapter_image_embeds=[prompts(), prompts()])
    adapter.detach(unet)
    generate(pipe)


COMPILED = """
import torch
from toy_adapters import VARIANTS, WIDTH, build, prompts, toy_unet, trained

unet = toy_unet()
for name in ("ip_adapter", "ip_adapter_lora", "ip_adapter_oft", "uni_controlnet_global"):
    adapter = trained(build(VARIANTS[name], unet))
    adapter.attach(unet)
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    path = next(path for path, _ in unet.named_modules() if unet.get_submodule(path) is layer)
    assert path in adapter.layers
    features, text = torch.randn(2, 16, 64), torch.randn(2, 7, WIDTH)
    tokens = adapter(prompts())
    expected = layer(features, encoder_hidden_states=(text, [tokens]))
    compiled = torch.compile(layer.processor, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(layer, features, (text, [tokens])), expected)
    adapter.detach(unet)
"""


@pytest.mark.slow
def test_attention_without_a_break_for_the_compiler() -> None:
    """In a process of its own: what checks types here is a break."""
    tests = str(Path(__file__).parents[2])
    paths = os.pathsep.join([tests, *sys.path])
    subprocess.run(
        [sys.executable, "-c", COMPILED], check=True, env={**os.environ, "PYTHONPATH": paths}
    )
