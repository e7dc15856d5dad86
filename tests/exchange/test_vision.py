"""The image encoder in the hands of `transformers`, against open_clip itself."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from toy_backbone import SIDE, picture
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from adapterbench.core.errors import UserError
from adapterbench.exchange.vision import save_vision, vision_model
from adapterbench.frozen.load import load_clip

if TYPE_CHECKING:
    from toy_backbone import Toy


# of another size, the two scale alike but for a level of 255 here and there
@pytest.mark.parametrize(("side", "tolerance"), [(SIDE, 1e-5), (3 * SIDE, 2e-2)])
@torch.no_grad()
def test_it_embeds_as_open_clip_does(
    side: int, tolerance: float, toy: "Toy", tmp_path: Path
) -> None:
    clip = load_clip(toy.encode_params.image_encoder, None)
    save_vision(clip, tmp_path)
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    image = picture("ring", "red").resize((side, side))
    pixels = CLIPImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt").pixel_values
    theirs, ours = model(pixels).image_embeds, clip.image_embeds([image])
    torch.testing.assert_close(theirs, ours, atol=tolerance, rtol=0)


def test_another_kind_of_encoder_is_refused() -> None:
    with pytest.raises(UserError, match=r"\(Linear\) has no counterpart"):
        vision_model(torch.nn.Linear(1, 1))
