"""Generated images as an evaluator gets them: a batch at a time, and as many of each item."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.formats.generated import Generated
from adapterbench.scoring.evaluator import Evaluator
from adapterbench.scoring.samples import check_counts, embed

PATH = Path("samples/mine/image.tar")


def generated(key: str, k: int, level: int = 0) -> Generated:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (level, 255, 0)).save(file, "PNG")
    return Generated(key, k, file.getvalue())


def level(images: list[Image.Image]) -> Tensor:
    return torch.tensor([image.getpixel((1, 1)) for image in images], dtype=torch.float32)


def test_as_many_images_of_each_item_pass() -> None:
    check_counts(PATH, [generated(key, k) for key in "abc" for k in range(2)])
    check_counts(PATH, [])


def test_an_item_that_lacks_an_image_is_one_line() -> None:
    images = [generated(key, k) for key in "abc" for k in range(2)]
    with pytest.raises(UserError, match=r"image.tar.*c has 1 images, others 2"):
        check_counts(PATH, images[:-1])


def test_images_are_decoded_for_the_network_in_their_order() -> None:
    images = [generated("a", k, level=60 * k) for k in range(4)]
    made = embed(PATH, images, Evaluator(level, None, 3))
    expected = torch.tensor([[60.0 * k, 255.0, 0.0] for k in range(4)])
    torch.testing.assert_close(made, expected / expected.norm(dim=1, keepdim=True))


def test_a_damaged_image_is_one_line() -> None:
    whole = generated("a", 1)
    broken = Generated("a", 0, whole.png[: len(whole.png) // 2])
    with pytest.raises(UserError, match=r"image.tar"):
        embed(PATH, [whole, broken], Evaluator(level, None, 2))
