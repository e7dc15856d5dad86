"""What adapters read of images, against `transformers`' image encoder with the same weights."""

from typing import TYPE_CHECKING, get_args

import pytest
import torch
from toy_backbone import toy_image

from adapterbench.core.config import Fit
from adapterbench.core.errors import UserError
from adapterbench.exchange.vision import vision_model
from adapterbench.frozen.load import Clip, load_clip
from adapterbench.frozen.prompts import FITS, averaged, image_prompts

if TYPE_CHECKING:
    from toy_backbone import Toy

IMAGES = [toy_image("ring", "red"), toy_image("bar", "blue")]


@pytest.fixture
def clip(toy: "Toy") -> Clip:
    return load_clip(toy.image_encoder, None)


@torch.no_grad()
def test_as_diffusers_encodes_images(clip: Clip) -> None:
    """`StableDiffusionPipeline.encode_image`: embeddings and zeros, or hidden states of both."""
    encoder = vision_model(clip.model.visual)
    pixels = torch.stack([clip.preprocess(image) for image in IMAGES])

    embeds, nothing = image_prompts(clip, IMAGES, patches=False)
    torch.testing.assert_close(embeds, encoder(pixels).image_embeds, atol=1e-5, rtol=0)
    assert torch.equal(nothing, torch.zeros(1, embeds.shape[1]))

    patches, nothing = image_prompts(clip, IMAGES, patches=True)
    both = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    expected = encoder(both, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(torch.cat([patches, nothing]), expected, atol=1e-5, rtol=0)


def test_an_encoder_without_patches_is_refused(clip: Clip) -> None:
    other = Clip(torch.nn.Module(), clip.preprocess, clip.tokenize, clip.embed_dim)
    other.model.visual = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"\(Linear\) has no patch features"):
        image_prompts(other, IMAGES, patches=True)


def test_the_parameter_has_the_names_of_the_fits() -> None:
    assert get_args(Fit) == tuple(FITS)


def test_views_are_averaged_by_image() -> None:
    embeds = torch.arange(12.0).reshape(6, 2)
    found = averaged(embeds, [1, 3, 2])
    assert torch.equal(found, torch.tensor([[0.0, 1.0], [4.0, 5.0], [9.0, 10.0]]))
    assert averaged(embeds, [1] * 6) is embeds
