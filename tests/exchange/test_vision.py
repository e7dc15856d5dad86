"""The image encoder in the hands of `transformers`, against open_clip itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from open_clip.transform import image_transform
from open_clip.transformer import LayerScale
from torch import nn
from toy_backbone import SIDE, toy_image
from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

from adapterbench.core.errors import UserError
from adapterbench.exchange.vision import save_vision
from adapterbench.frozen.load import Clip, load_clip

if TYPE_CHECKING:
    from toy_backbone import Toy


@pytest.fixture
def clip(toy: "Toy") -> Clip:
    return load_clip(toy.image_encoder, None)


@torch.no_grad()
@pytest.mark.parametrize("size", [(SIDE, SIDE), (3 * SIDE, 2 * SIDE), (47, 80)])
def test_it_reads_images_as_open_clip_does(
    size: tuple[int, int], clip: Clip, tmp_path: Path
) -> None:
    save_vision(clip, tmp_path)
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    prepare = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = toy_image("ring", "red").resize(size)
    pixels = prepare(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(pixels[0], clip.preprocess(image), atol=1e-6, rtol=0)
    theirs, ours = model(pixels).image_embeds, clip.image_embeds([image])
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def of_another_kind(clip: Clip) -> Clip:
    return replace(clip, model=SimpleNamespace(visual=nn.Linear(1, 1)))


def with_another_activation(clip: Clip) -> Clip:
    clip.model.visual.transformer.resblocks[0].mlp.gelu = nn.SiLU()
    return clip


def with_a_scale_of_layers(clip: Clip) -> Clip:
    clip.model.visual.transformer.resblocks[0].ls_1 = LayerScale(32, 0.5)
    return clip


def scaling_otherwise(clip: Clip) -> Clip:
    mean = std = (0.5, 0.5, 0.5)
    other = image_transform(SIDE, False, mean, std, interpolation="bilinear")
    return replace(clip, preprocess=other)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (of_another_kind, r"\(Linear\) has no counterpart"),
        (with_another_activation, "no counterpart .*SiLU"),
        (with_a_scale_of_layers, "its output differs by"),
        (scaling_otherwise, "its output differs by"),
    ],
)
def test_what_transformers_does_not_do_is_refused(
    change: Callable[[Clip], Clip], cause: str, clip: Clip, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=cause):
        save_vision(change(clip), tmp_path / "it")
    assert not (tmp_path / "it").exists()
