"""Text to image with a noise that belongs to the item, and sheets of what is drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from toy_backbone import SIDE, Toy

from adapterbench.pretraining.drawing import DrawParams, choose, draw, grid, load_pipeline, to_pil
from adapterbench.pretraining.images import CaptionedImages, load_images

PARAMS = DrawParams(items=3, steps=2, guidance_scale=3.0, batch_size=2, seed=0)


@pytest.fixture(scope="module")
def held_out(toy: Toy) -> CaptionedImages:
    return load_images(toy.shards, "validation")


@pytest.fixture(scope="module")
def pipe(toy: Toy) -> StableDiffusionPipeline:
    return load_pipeline(toy.backbone)


def test_every_concept_comes_once_before_any_comes_twice(held_out: CaptionedImages) -> None:
    chosen = choose(held_out, 2, seed=0)
    assert len({held_out.concepts[n] for n in chosen}) == 2
    assert sorted(choose(held_out, 6, seed=0)) == list(range(6))


def test_an_image_is_its_own_whatever_is_drawn_beside_it(
    pipe: StableDiffusionPipeline, held_out: CaptionedImages
) -> None:
    some = held_out.at([0, 3, 5])
    drawn = draw(pipe, some, PARAMS)
    assert drawn.shape == (3, 3, SIDE, SIDE)
    assert drawn.dtype == torch.uint8
    alone = draw(pipe, held_out.at([5]), PARAMS)
    assert (drawn[2].int() - alone[0].int()).abs().max() <= 1
    assert not drawn[0].equal(drawn[1])


def test_seed_and_caption_count(pipe: StableDiffusionPipeline, held_out: CaptionedImages) -> None:
    one = held_out.at([0])
    drawn = draw(pipe, one, PARAMS)
    assert not drawn.equal(draw(pipe, one, PARAMS.model_copy(update={"seed": 1})))
    assert not drawn.equal(draw(pipe, replace(one, captions=[("a green ring",)]), PARAMS))


def test_pixels_are_images() -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    for image, expected in zip(to_pil(pixels), pixels, strict=True):
        assert np.array_equal(np.asarray(image), expected.permute(1, 2, 0).numpy())


def test_a_sheet_has_its_layers_one_above_the_other_line_by_line() -> None:
    above = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2) * 10
    sheet = np.asarray(grid(above, above + 100, columns=2, zoom=1))[..., 0]
    assert sheet[::2, ::2].tolist() == [[0, 10], [100, 110], [20, 30], [120, 130]]
    assert grid(above, columns=2, zoom=3).size == (12, 12)


def test_the_last_line_of_a_grid_is_filled_with_white() -> None:
    images = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    sheet = np.asarray(grid(images, columns=2, zoom=1))
    assert sheet.shape == (4, 4, 3)
    assert (sheet[2:, 2:] == 255).all()
    assert (sheet[2:, :2] == 0).all()
    assert grid(images, columns=16, zoom=1).size == (6, 2)
