"""How well images follow their edge maps, with drawings whose agreement is known."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image
from toy_backbone import SIDE, Toy

from adapterbench.frozen.load import load_part
from adapterbench.pretraining import edges
from adapterbench.pretraining.controlnet import edges as control_edges
from adapterbench.pretraining.drawing import DrawParams
from adapterbench.pretraining.images import CaptionedImages, load_images

PARAMS = DrawParams(items=4, steps=1, guidance_scale=3.0, batch_size=4, seed=0)


@pytest.fixture(scope="module")
def controlnet(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlnet")
    fresh = ControlNetModel.from_unet(
        load_part(toy.backbone, "unet"), conditioning_embedding_out_channels=(8, 8, 16, 16)
    )
    fresh.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("followed", [1, 2, 4])
def test_the_gain_is_the_share_that_follows_its_edges_under_control(
    followed: int,
    controlnet: Path,
    toy: Toy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(
        _pipe: object, held: CaptionedImages, _edges: object, scale: float, _: object
    ) -> torch.Tensor:
        """Under control the first images as they should be; white ones else."""
        made = torch.full_like(held.pixels, 255)
        made[: followed if scale else 0] = held.pixels[: followed if scale else 0]
        return made

    monkeypatch.setattr(edges, "draw", drawn)
    measured = edges.measure(PARAMS, toy.shards, toy.backbone, controlnet, tmp_path / "edges.png")
    share = followed / PARAMS.items
    found = measured["edges_alone"]
    assert found == measured["with_caption"]
    assert found["f1_control"] == pytest.approx(share)
    assert found["f1_no_control"] == 0
    low, high = (found[f"gain_{end}"] for end in ("low", "high"))
    if share == 1:  # all alike
        assert (low, high) == pytest.approx((1, 1))
    else:  # of 4 images drawn again: at worst none follows, at best more than the share
        assert low == pytest.approx(max(0, followed - 2) / 4)
        assert high > share
    with Image.open(tmp_path / "edges.png") as sheet:
        assert sheet.size == (2 * PARAMS.items * SIDE, 2 * 3 * SIDE)


def test_edges_of_what_is_drawn_are_those_of_the_control(toy: Toy) -> None:
    held = load_images(toy.shards, "validation")
    assert edges.drawn_edges(held.pixels).equal(control_edges(held))
