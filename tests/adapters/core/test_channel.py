"""An attached adapter beside the rest of diffusers: pipelines, LoRA, devices and dtypes."""

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
from peft import LoraConfig
from toy_adapters import VARIANTS, WIDTH, build, call, prompts, trained

PICTURE = torch.linspace(0, 1, 3 * 64).view(1, 3, 8, 8)
MASK = (torch.arange(64).view(1, 1, 8, 8) % 8 > 3).float()
PIPELINES: dict[str, tuple[type, dict[str, Any]]] = {
    "txt2img": (StableDiffusionPipeline, {}),
    "img2img": (StableDiffusionImg2ImgPipeline, {"image": PICTURE, "strength": 1.0}),
    "inpaint": (StableDiffusionInpaintPipeline, {"image": PICTURE, "mask_image": MASK}),
    "controlnet": (StableDiffusionControlNetPipeline, {"image": PICTURE}),
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
    pictures = generate(pipe, **inputs, ip_adapter_image_embeds=[zeros_first])
    assert pictures.shape == without.shape == (1, 3, 8, 8)
    assert not torch.equal(pictures, without)
    adapter.detach(unet)
    assert torch.equal(generate(pipe, **inputs), without)


def test_several_pictures_for_one_prompt(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    build(variant, unet).attach(unet)
    pipe = pipeline(StableDiffusionPipeline, unet)
    image_embeds = [torch.cat([torch.zeros_like(prompts(batch=1)), prompts(batch=1)])]
    pictures = generate(pipe, num_images_per_prompt=2, ip_adapter_image_embeds=image_embeds)
    assert pictures.shape == (2, 3, 8, 8)


def test_the_adapter_moves_with_the_unet(
    variant: dict[str, Any], unet: UNet2DConditionModel
) -> None:
    adapter = build(variant, unet)
    adapter.attach(unet)
    unet.to(torch.bfloat16)
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


def test_attention_without_a_break_for_the_compiler(unet: UNet2DConditionModel) -> None:
    for name in ("ip_adapter", "ip_adapter_lora", "uni_controlnet_global"):
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
