"""A descendant: only its LoRA learns, and what is saved turns the backbone into it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from toy_backbone import CLIP_PARAMS, FIT, SIDE, VAE_PARAMS, Toy

from adapterbench.frozen.load import load_part
from adapterbench.pretraining import descendant
from adapterbench.pretraining.images import load_images
from adapterbench.training.loop import FitResult

PARAMS = descendant.DescendantParams(
    **FIT | {"steps": 12, "batch_size": 6, "learning_rate": 5e-3, "log_every": 3},
    style="color",
    rank=2,
    drop_text=0.1,
)


@pytest.fixture(scope="module")
def trained(
    toy: Toy, tmp_path_factory: pytest.TempPathFactory
) -> tuple[UNet2DConditionModel, FitResult]:
    read = load_images(toy.shards, "train")
    one = replace(read, captions=[texts[:1] for texts in read.captions])
    state = tmp_path_factory.mktemp("descendant") / "state"
    return descendant.train(PARAMS, one, toy.backbone, state, lambda *_: None)


def predicted(unet: UNet2DConditionModel) -> torch.Tensor:
    """What a UNet says of a fixed input."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, VAE_PARAMS.latent_channels, SIDE // 8, SIDE // 8, generator=generator)
    text = torch.randn(2, 5, CLIP_PARAMS.text_width, generator=generator)
    with torch.no_grad():
        return unet(noisy, torch.tensor([10, 700]), text).sample


def test_a_fresh_one_says_what_the_backbone_says(toy: Toy) -> None:
    unet = descendant.adapted(load_part(toy.backbone, "unet"), rank=2)
    assert torch.equal(predicted(unet), predicted(load_part(toy.backbone, "unet")))


def test_the_lora_alone_learns(trained: tuple[UNet2DConditionModel, FitResult], toy: Toy) -> None:
    unet, fitted = trained
    assert fitted.losses[-1][1] < fitted.losses[0][1]
    before = load_part(toy.backbone, "unet").state_dict()
    after = {name.replace(".base_layer", ""): w for name, w in unet.state_dict().items()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    learnt = {name: w for name, w in after.items() if name not in before}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in learnt} == {
        *("to_q", "to_k", "to_v", "0", "proj_in", "proj_out", "conv1", "conv2")
    }
    assert {PARAMS.rank} == {
        w.shape[0 if "lora_A" in name else 1] for name, w in learnt.items() if "lora" in name
    }
    assert all(w.abs().max() > 0 for name, w in learnt.items() if "lora_B" in name)


def test_the_saved_lora_makes_the_backbone_the_descendant(
    trained: tuple[UNet2DConditionModel, FitResult], toy: Toy, tmp_path: Path
) -> None:
    descendant.save(trained[0], tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(toy.backbone, safety_checker=None)
    base = predicted(pipe.unet)
    pipe.load_lora_weights(tmp_path)
    again, expected = predicted(pipe.unet), predicted(trained[0])
    torch.testing.assert_close(again, expected, atol=5e-3, rtol=5e-3)  # of fp16
    assert (expected - base).abs().max() > 10 * (expected - again).abs().max()
