"""Real images in place of generated ones: what each row of them shows."""

import numpy as np
import pytest
from PIL import Image
from toy_backbone import SIDE, Toy, toy_image

from adapterbench.frozen.load import load_part
from adapterbench.scoring.real import BATCH, blurred, real_images

REFERENCES = [
    toy_image(shape, colour) for shape in ("ring", "bar", "frame") for colour in ("red", "blue")
]


def test_each_row_has_an_image_an_item_in_their_order(toy: Toy) -> None:
    assert len(REFERENCES) > BATCH  # of two batches
    vae = load_part(toy.backbone, "vae")
    rows = real_images(REFERENCES, vae)
    assert rows["reference"] == REFERENCES
    assert rows["other_item"] == [*REFERENCES[1:], REFERENCES[0]]
    assert rows["reference_16px"] == [blurred(image) for image in REFERENCES]
    assert [image.size for image in rows["vae"]] == [(SIDE, SIDE)] * len(REFERENCES)
    last = np.asarray(real_images(REFERENCES[-1:], vae)["vae"][0], dtype=int)
    assert abs(np.asarray(rows["vae"][-1], dtype=int) - last).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (32, 64), (16, 16)])
def test_a_blurred_image_keeps_its_size_and_no_detail(size: tuple[int, int]) -> None:
    board = Image.fromarray((np.indices(size[::-1]).sum(axis=0) % 2 * 255).astype(np.uint8))
    small = blurred(board.convert("RGB"))
    assert small.size == size
    kept = np.ptp(np.asarray(small))
    assert kept == 255 if size == (16, 16) else kept < 255


def test_an_even_image_stays_as_it_is() -> None:
    even = Image.new("RGB", (50, 40), (9, 99, 199))
    assert blurred(even).tobytes() == even.tobytes()
