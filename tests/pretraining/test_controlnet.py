"""The ControlNet for edge maps: what it learns from, what is trained, how it is judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from toy_backbone import FIT, Toy, toy_samples

from adapterbench.formats.edges import edge_map
from adapterbench.formats.image import to_array
from adapterbench.frozen.load import load_part
from adapterbench.pretraining import controlnet, unet
from adapterbench.pretraining.drawing import DrawParams
from adapterbench.pretraining.edges import measure
from adapterbench.pretraining.images import load_images

PARAMS = controlnet.ControlNetParams(
    **FIT | {"steps": 12, "batch_size": 6, "learning_rate": 5e-3, "log_every": 3},
    conditioning_channels=(8, 8, 16, 16),
    drop_text=0.5,
)


@pytest.fixture(scope="module")
def trained(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a ControlNet and how its loss went."""
    images = load_images(toy.shards, "train")
    parts = [load_part(toy.backbone, part) for part in ("vae", "text_encoder", "tokenizer")]
    one = replace(images, captions=[texts[:1] for texts in images.captions])
    data, controls = unet.encode(one, *parts), controlnet.edges(images)
    folder = tmp_path_factory.mktemp("controlnet")
    model, fitted = controlnet.train(
        PARAMS, toy.backbone, data, controls, folder / "state", lambda *_: None
    )
    controlnet.save(model, folder / "it")
    return folder / "it", fitted


def test_the_controls_are_the_edges_of_the_images(toy: Toy) -> None:
    images = load_images(toy.shards, "train")
    controls = controlnet.edges(images)
    samples = {sample.key: sample.image for sample in toy_samples()}
    for key, control in zip(images.keys, controls, strict=True):
        lines = edge_map(samples[key], images.pixels.shape[-1])
        assert torch.equal(control, torch.from_numpy(to_array(lines)))


def test_it_learns_and_starts_as_a_copy_that_says_nothing(
    trained: tuple[Path, Any], toy: Toy
) -> None:
    folder, fitted = trained
    assert fitted.losses[-1][1] < fitted.losses[0][1]
    model = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32)
    assert all(layer.weight.abs().max() > 0 for layer in model.controlnet_down_blocks)

    base = load_part(toy.backbone, "unet")
    fresh = ControlNetModel.from_unet(base, conditioning_embedding_out_channels=(8, 8, 16, 16))
    both = controlnet.Controlled(base, fresh)
    torch.manual_seed(0)
    config = base.config
    noise = torch.randn(2, config.in_channels, config.sample_size, config.sample_size)
    text, t = torch.randn(2, 5, config.cross_attention_dim), torch.tensor([10, 700])
    edges = torch.rand(2, 3, 8 * config.sample_size, 8 * config.sample_size)
    with torch.no_grad():
        assert torch.equal(both(noise, t, text, edges).sample, base(noise, t, text).sample)
        both.controlnet = model
        assert not torch.equal(both(noise, t, text, edges).sample, base(noise, t, text).sample)
    both(noise, t, text, edges).sample.sum().backward()
    assert all(weight.grad is None for weight in base.parameters())


def test_it_is_judged_on_held_out_images(
    trained: tuple[Path, Any], toy: Toy, tmp_path: Path
) -> None:
    params = DrawParams(items=3, steps=2, guidance_scale=3.0, batch_size=2, seed=0)
    found = measure(params, toy.shards, toy.backbone, trained[0], tmp_path / "edges.png")
    assert found["images"] == 3
    assert found["edges_alone"] != found["with_caption"]
    assert (tmp_path / "edges.png").is_file()
