"""Random versions: what they may change, and what they keep."""

import random
from collections import Counter

import pytest
import torch
from torch import Tensor

from adapterbench.pretraining.augmentation import rearranged, thinned, warped

CAPTION = "cat face, animal, pet, whiskers, 3d style"


def numbered(count: int, side: int) -> Tensor:
    """Images whose every value says which channel, row and column it comes from."""
    values = torch.arange(3 * side * side, dtype=torch.int32).view(1, 3, side, side)
    return values.expand(count, -1, -1, -1)


def test_a_caption_keeps_its_first_part_and_the_order_of_the_others() -> None:
    rng = random.Random(0)
    parts = CAPTION.split(", ")
    left: Counter[str] = Counter()
    for _ in range(400):
        kept = thinned(CAPTION, 0.25, rng).split(", ")
        assert kept[0] == parts[0]
        assert kept == [part for part in parts if part in kept]
        left.update(kept)
    for part in parts[1:]:
        assert left[part] / 400 == pytest.approx(0.75, abs=0.07)


def test_the_ends_of_the_share() -> None:
    assert thinned(CAPTION, 0, random.Random(0)) == CAPTION
    assert thinned(CAPTION, 1, random.Random(0)) == "cat face"
    assert thinned("", 0.5, random.Random(0)) == ""


def test_no_pixel_of_a_rearranged_image_is_new() -> None:
    side = 8
    for image in rearranged(numbered(300, side), 2, torch.Generator().manual_seed(0)):
        channels = image // side**2
        assert all(len(channel.unique()) == 1 for channel in channels)  # one comes from one
        assert sorted(channels[:, 0, 0].tolist()) == [0, 1, 2]
        rows, columns = image[0] % side**2 // side, image[0] % side
        for place in (rows, columns):
            # along one axis constant, along the other the pixels in order: up to 2 are missing
            across, along = (place, place.T) if place[0].unique().numel() == 1 else (place.T, place)
            assert (across == across[:, :1]).all()
            line = along[0] if along[0, 0] <= along[0, -1] else along[0].flip(0)
            assert set(line.diff().tolist()) <= {0, 1}
            assert len(line.unique()) >= side - 2


def test_what_is_rearranged_how_often() -> None:
    side, count = 8, 2000
    images = rearranged(numbered(count, side), 0, torch.Generator().manual_seed(0))
    same = (images // side**2 == torch.arange(3)[:, None, None]).all(dim=(1, 2, 3))
    assert same.float().mean().item() == pytest.approx(0.5 + 0.5 / 6, abs=0.04)
    columns = images[:, 0] % side
    turned = columns[:, 0, 0] == columns[:, 0, -1]
    assert turned.float().mean().item() == pytest.approx(0.5, abs=0.04)
    lines = torch.where(turned[:, None], columns[:, :, 0], columns[:, 0])
    mirrored = (lines[:, 0] > lines[:, -1]).float()
    assert mirrored[~turned].mean().item() == pytest.approx(0.5, abs=0.05)
    assert mirrored[turned].mean().item() == pytest.approx(0.25, abs=0.05)


def test_a_warped_image_is_near_the_image_and_each_has_its_own() -> None:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    disc = torch.where(x**2 + (2 * y) ** 2 < 0.5, 1.0, -1.0).expand(16, 3, 32, 32)
    images = warped(disc, torch.Generator().manual_seed(0))
    assert images.shape == disc.shape
    assert images.min() >= -1
    assert images.max() <= 1
    moved = (images - disc).abs().mean(dim=(1, 2, 3))
    assert ((moved > 0.005) & (moved < 0.3)).all()
    assert len(moved.unique()) == 16
    again = warped(disc, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)
    white = torch.ones(2, 3, 32, 32)
    torch.testing.assert_close(warped(white, torch.Generator().manual_seed(1)), white)
