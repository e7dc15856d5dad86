"""Texts as token ids and as embeddings, each as the pipeline has them."""

from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from toy_backbone import CLIP_PARAMS

from adapterbench.core.errors import UserError
from adapterbench.frozen.texts import (
    TextEncoders,
    as_texts,
    check_stored_as,
    load_text_encoders,
    token_ids,
)

if TYPE_CHECKING:
    from toy_xl import ToyXL

TEXTS = ["a red circle", "", "many words " * 50]
SHAPE = (len(TEXTS), CLIP_PARAMS.context_length)


@pytest.fixture
def encoders(pipeline: StableDiffusionPipeline) -> TextEncoders:
    return TextEncoders([pipeline.text_encoder], [pipeline.tokenizer])


def test_every_text_has_the_length_of_the_encoder(pipeline: StableDiffusionPipeline) -> None:
    ids = token_ids(TEXTS, pipeline.tokenizer)
    assert ids.shape == SHAPE
    assert ids.dtype == torch.int32
    assert ids.tolist() == [
        pipeline.tokenizer(text, padding="max_length", truncation=True).input_ids for text in TEXTS
    ]


def test_embeddings_are_the_pipelines(
    pipeline: StableDiffusionPipeline, encoders: TextEncoders
) -> None:
    made = encoders.embed(encoders.token_ids(TEXTS))
    expected, _ = pipeline.encode_prompt(TEXTS, "cpu", 1, False)
    assert made.embeds.shape == (*SHAPE, CLIP_PARAMS.text_width)
    torch.testing.assert_close(made.embeds, expected, atol=0, rtol=0)
    assert not made.embeds.requires_grad
    assert made.pooled is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_embedded_already_needs_no_encoder(dtype: torch.dtype) -> None:
    stored = torch.randn(2, 3, 4).to(dtype)
    assert as_texts(stored, None).embeds.equal(stored.float())


def test_ids_are_embedded(encoders: TextEncoders) -> None:
    ids = encoders.token_ids(TEXTS)
    assert as_texts(ids, encoders).embeds.equal(encoders.embed(ids).embeds)


def test_of_two_encoders_they_are_the_pipelines(
    xl: "ToyXL", xl_pipeline: StableDiffusionXLPipeline
) -> None:
    encoders = load_text_encoders(xl.backbone)
    ids = encoders.token_ids(TEXTS)
    assert ids.shape == (len(TEXTS), 2 * CLIP_PARAMS.context_length)
    first, second = ids.chunk(2, dim=1)
    assert first.equal(token_ids(TEXTS, xl_pipeline.tokenizer))
    assert second.equal(token_ids(TEXTS, xl_pipeline.tokenizer_2))
    assert not first.equal(second)  # they pad with different tokens
    made = encoders.embed(ids)
    pipeline: Any = xl_pipeline  # its types know one text alone
    expected, _, pooled, _ = pipeline.encode_prompt(TEXTS, do_classifier_free_guidance=False)
    torch.testing.assert_close(made.embeds, expected, atol=0, rtol=0)
    torch.testing.assert_close(made.pooled, pooled, atol=0, rtol=0)


def test_two_encoders_are_never_stored() -> None:
    with pytest.raises(UserError, match=r"encode\.texts = stored keeps no pooled .* to live"):
        check_stored_as("stored", 2)
    check_stored_as("live", 2)
    check_stored_as("stored", 1)
