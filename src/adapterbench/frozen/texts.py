"""Token ids of texts, and their embeddings by a frozen text encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def token_ids(texts: Sequence[str], tokenizer: Any) -> Tensor:
    """Texts -> token ids int32 `(T, L)`, truncated and padded to the length L of the encoder."""
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
    """The texts of encoded shards as fp32 embeddings `(T, L, D)`.

    Args:
        texts: embeddings `(T, L, D)`, which are only cast, or token ids `(T, L)`.
        text_encoder: embeds token ids in its own precision; may be None for embeddings.
    """
    return (texts if texts.is_floating_point() else embeddings(texts, text_encoder)).float()
