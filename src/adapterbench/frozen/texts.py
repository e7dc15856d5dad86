"""Texts as a frozen text encoder reads them: token ids, and embeddings of those."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def token_ids(texts: Sequence[str], tokenizer: Any) -> Tensor:
    """Texts -> token ids int32 `(T, L)`, cut and padded to the L that the encoder takes."""
    ids: Tensor = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        return_tensors="pt",
        max_length=tokenizer.model_max_length,
    ).input_ids
    return ids.int()


@torch.no_grad()
def embeddings(ids: Tensor, text_encoder: Any) -> Tensor:
    """Token ids `(T, L)` -> last hidden states `(T, L, D)`, as the pipeline computes them."""
    states: Tensor = text_encoder(ids.to(text_encoder.device)).last_hidden_state
    return states


def as_embeddings(texts: Tensor, text_encoder: Any) -> Tensor:
    """What encoded shards hold of texts, as fp32 embeddings `(T, L, D)`.

    Args:
        texts: embeddings, which stay as they are, or token ids `(T, L)`.
        text_encoder: reads the ids, in its own precision; None will do where there are none.
    """
    return (texts if texts.is_floating_point() else embeddings(texts, text_encoder)).float()
