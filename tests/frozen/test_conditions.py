"""What a UNet reads besides latents and timestep, as the pipelines of diffusers give it."""

from typing import TYPE_CHECKING, Any

import pytest
import torch
from toy_xl import POOLED, WIDTHS, unet_xl

from adapterbench.frozen.conditions import Texts, blank_texts, image_size, time_ids, unet_inputs
from adapterbench.frozen.texts import load_text_encoders

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from toy_xl import ToyXL

LATENTS = torch.zeros(3, 4, 6, 4)
IMAGE = torch.ones(3, 1, 24)


def texts(pooled: bool) -> Texts:
    return Texts(torch.randn(3, 5, 8), torch.randn(3, 2) if pooled else None)


def given(pipeline: Any, **inputs: Any) -> dict[str, Any]:
    """What a pipeline gives its UNet."""
    seen: list[dict[str, Any]] = []
    hook = pipeline.unet.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    pipeline(num_inference_steps=1, guidance_scale=1.0, **inputs)
    hook.remove()
    return seen[0]


def test_of_sdxl_they_are_the_pipelines(
    xl: "ToyXL", xl_pipeline: "StableDiffusionXLPipeline"
) -> None:
    said = ["a red circle", ""]
    encoders = load_text_encoders(xl.backbone)
    found = unet_inputs(encoders.embed(encoders.token_ids(said)), torch.zeros(2, 4, 4, 4))
    expected = given(xl_pipeline, prompt=said, height=32, width=32)
    for name in ("text_embeds", "time_ids"):
        ours, theirs = (inputs["added_cond_kwargs"][name] for inputs in (found, expected))
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    assert found["added_cond_kwargs"].keys() == {"text_embeds", "time_ids"}
    name = "encoder_hidden_states"
    torch.testing.assert_close(found[name], expected[name], atol=0, rtol=0)


def test_of_stable_diffusion_they_are_the_text_alone(pipeline: "StableDiffusionPipeline") -> None:
    own = texts(pooled=False)
    found = unet_inputs(own, LATENTS)
    assert found.keys() == {"encoder_hidden_states"}
    assert found["encoder_hidden_states"] is own.embeds
    assert given(pipeline, prompt="a bar")["added_cond_kwargs"] is None


def test_image_prompts_stand_beside_them() -> None:
    for pooled in (False, True):
        added = unet_inputs(texts(pooled), LATENTS, IMAGE)["added_cond_kwargs"]
        assert added["image_embeds"] == [IMAGE]
        assert len(added) == (3 if pooled else 1)


def test_sizes_are_height_first() -> None:
    assert image_size(LATENTS.shape) == (48, 32)
    assert time_ids(LATENTS).tolist() == 3 * [[48, 32, 0, 0, 48, 32]]


@pytest.mark.parametrize("pooled", [False, True])
def test_texts_are_chosen_whole(pooled: bool) -> None:
    many, one = texts(pooled), texts(pooled)[:1]
    mixed = one.where(torch.tensor([True, False, True]), many)
    for number, source in enumerate([one[:1], many[1:2], one[:1]]):
        assert mixed[number : number + 1].embeds.equal(source.embeds)
        if pooled:
            assert mixed.pooled is not None
            assert source.pooled is not None
            assert mixed.pooled[number].equal(source.pooled[0])
    assert (mixed.pooled is None) != pooled


def test_arguments_of_a_pipeline() -> None:
    assert texts(False).arguments().keys() == {"prompt_embeds"}
    names = {"negative_prompt_embeds", "negative_pooled_prompt_embeds"}
    assert texts(True).arguments("negative_").keys() == names


def test_blank_texts_fit_the_unet() -> None:
    unet = unet_xl()
    blank = blank_texts(unet.config, 7, sum(WIDTHS))
    assert blank.embeds.shape == (1, 7, sum(WIDTHS))
    assert blank.pooled is not None
    assert blank.pooled.shape == (1, POOLED)
    latents = torch.zeros(1, 4, 4, 4)
    assert unet(latents, 1, **unet_inputs(blank, latents)).sample.shape == latents.shape
