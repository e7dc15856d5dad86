"""Image to image, against diffusers' own pipeline."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from toy_backbone import SAMPLE, Toy

from adapterbench.core.config import SampleParams
from adapterbench.core.errors import UserError
from adapterbench.formats.shards import read_split
from adapterbench.sampling.items import generator, noise
from adapterbench.sampling.methods import training_free_method
from adapterbench.sampling.sampler import Sampler

STEPS = 4


def sampler(toy: Toy, strength: float, **changes: Any) -> Sampler:
    """Three items, one image each, from the noised references."""
    values = {**SAMPLE.model_dump(), "items": 3, "steps": STEPS, "batch_size": 3, **changes}
    made = Sampler(SampleParams(**values), toy.encoded, toy.backbone, None)
    method = training_free_method("img2img", {"strength": strength})
    made.generate = method.build(method.params, made)
    return made


@pytest.fixture(scope="module")
def theirs(pipeline: StableDiffusionPipeline) -> StableDiffusionImg2ImgPipeline:
    """diffusers' own with the solver."""
    solver = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    parts = {**pipeline.components, "scheduler": solver}
    made = StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(("strength", "with_text"), [(0.34, False), (0.7, True), (1.0, True)])
def test_it_is_the_pipeline_of_diffusers(
    toy: Toy, theirs: StableDiffusionImg2ImgPipeline, strength: float, with_text: bool
) -> None:
    ours = sampler(toy, strength)
    image_ids = ours.image_ids()
    empty = ours.empty[[0] * 3]
    texts = ours.captions(image_ids) if with_text else empty
    conditions = {
        **texts.arguments(),
        **empty.arguments("negative_"),
        "num_inference_steps": STEPS,
        "guidance_scale": 3.0,
    }
    with torch.no_grad():
        found = ours.generate(image_ids, {**conditions, "output_type": "np"}).images
    expected = theirs(
        image=ours.references(image_ids),  # four channels: taken for latents
        strength=strength,
        generator=[generator(p.key, p.k, 0) for p in image_ids],
        output_type="np",
        **conditions,
    ).images
    np.testing.assert_allclose(found, expected, atol=1e-4)
    drawn = np.stack([np.asarray(image, dtype=int) for image in ours.make(image_ids, with_text)])
    assert np.abs(drawn - expected * 255).max() <= 1


@torch.no_grad()
def test_the_start_is_the_image_itself(toy: Toy) -> None:
    """SDEdit by hand from pixels: encoded, noised to the last of four steps."""
    ours = sampler(toy, 0.34, guidance_scale=1.0)
    [image_id] = ours.image_ids()[:1]
    images = {sample.key: sample.image for sample in read_split(toy.shards, "validation")}
    pixels = torch.from_numpy(np.asarray(images[image_id.key]).copy()).permute(2, 0, 1)[None]
    vae: Any = ours.pipeline.vae
    z = vae.encode(pixels / 127.5 - 1).latent_dist.mode() * vae.config.scaling_factor
    solver = DPMSolverMultistepScheduler.from_config(ours.pipeline.scheduler.config)
    solver.set_timesteps(STEPS)
    solver.set_begin_index(3)
    start, *_ = steps = solver.timesteps[3:]
    z = solver.add_noise(z, noise(image_id.key, 0, 0, (4, 4, 4))[None], start[None])
    for t in steps:
        z = solver.step(ours.unet(z, t, ours.empty.embeds).sample, t, z).prev_sample
    decoded = vae.decode(z / vae.config.scaling_factor).sample[0]
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    [found] = ours.make([image_id], False)
    assert np.abs(np.asarray(found, dtype=int) - expected).max() <= 1  # latents are stored as fp16


def test_less_than_a_step_is_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"strength = 0\.1 of sample\.steps = 4 .*: raise one"):
        sampler(toy, 0.1)
