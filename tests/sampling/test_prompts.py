"""Image prompts of items: those that stage `encode` made, and those of another encoder."""

from typing import TYPE_CHECKING, Any

import pytest
import torch
from toy_backbone import PLUS, VARIANT

from adapterbench.adapters.core.variant import Variant, parse_variant
from adapterbench.core.errors import UserError
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.formats.shards import read_split
from adapterbench.frozen.load import load_clip
from adapterbench.frozen.prompts import image_prompts
from adapterbench.sampling.prompts import OwnPrompts, encoded_prompts

if TYPE_CHECKING:
    from toy_backbone import Toy


def named(row: dict[str, Any], encoder: str) -> Variant:
    return parse_variant({**row, "image_encoder": encoder})


@pytest.fixture
def data(toy: "Toy") -> EncodedSplit:
    return EncodedSplit(toy.encoded, "validation")


@pytest.mark.parametrize("row", [VARIANT, PLUS], ids=["embeddings", "patches"])
def test_the_same_encoder_gives_what_encode_wrote(patches: "Toy", row: dict[str, Any]) -> None:
    variant = named(row, patches.image_encoder)
    data = EncodedSplit(patches.encoded, "validation", variant.reads_patches)
    own = OwnPrompts(data, variant, patches.shards, 2, "validation")
    expected, nothing = encoded_prompts(data)([4, 0, 0])
    found, none = own([4, 0, 0])
    half: dict[str, Any] = {"atol": 2e-3, "rtol": 2e-3}  # the rounding of fp16
    torch.testing.assert_close(found, expected, **half)
    torch.testing.assert_close(none, nothing, **half)


def test_another_encoder_reads_the_images(toy: "Toy", data: EncodedSplit) -> None:
    own = OwnPrompts(data, named(PLUS, toy.evaluator), toy.shards, 2, "validation")
    images = {s.key: s.image for s in read_split(toy.shards, "validation")}
    keys = [data.samples[number]["key"] for number in (1, 5, 3)]
    clip = load_clip(toy.evaluator, None)
    expected, nothing = image_prompts(clip, [images[key] for key in keys], patches=True)
    own([5])
    found, none = own([1, 5, 3])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(none, nothing)


def test_it_needs_the_images(toy: "Toy", data: EncodedSplit) -> None:
    with pytest.raises(UserError, match="--shards"):
        OwnPrompts(data, named(PLUS, toy.evaluator), None, 2, "validation")
