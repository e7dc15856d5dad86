"""Texts as token ids and as embeddings, each as the pipeline has them."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from toy_backbone import CLIP_PARAMS

from adapterbench.frozen.texts import as_embeddings, embeddings, token_ids

TEXTS = ["a red circle", "", "many words " * 50]
SHAPE = (len(TEXTS), CLIP_PARAMS.context_length)


def test_every_text_has_the_length_of_the_encoder(pipeline: StableDiffusionPipeline) -> None:
    ids = token_ids(TEXTS, pipeline.tokenizer)
    assert ids.shape == SHAPE
    assert ids.dtype == torch.int32
    assert ids.tolist() == [
        pipeline.tokenizer(text, padding="max_length", truncation=True).input_ids for text in TEXTS
    ]


def test_embeddings_are_the_pipelines(pipeline: StableDiffusionPipeline) -> None:
    made = embeddings(token_ids(TEXTS, pipeline.tokenizer), pipeline.text_encoder)
    expected, _ = pipeline.encode_prompt(TEXTS, "cpu", 1, False)
    assert made.shape == (*SHAPE, CLIP_PARAMS.text_width)
    torch.testing.assert_close(made, expected)
    assert not made.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_is_embedded_already_needs_no_encoder(dtype: torch.dtype) -> None:
    stored = torch.randn(2, 3, 4).to(dtype)
    assert as_embeddings(stored, None).equal(stored.float())


def test_ids_are_embedded(pipeline: StableDiffusionPipeline) -> None:
    ids = token_ids(TEXTS, pipeline.tokenizer)
    expected = embeddings(ids, pipeline.text_encoder)
    assert as_embeddings(ids, pipeline.text_encoder).equal(expected)
