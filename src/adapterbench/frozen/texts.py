"""Token ids of texts, and their embeddings by the frozen text encoders of a base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.frozen.conditions import Texts
from adapterbench.frozen.load import has_part, load_part

SECOND = "_2"
"""Ending of the names of SDXL's second text encoder and its tokenizer."""


@dataclass(frozen=True)
class TextEncoders:
    """The text encoders of a base model, one or SDXL's two, with their tokenizers."""

    models: list[Any]
    tokenizers: list[Any]

    def to(self, *where: Any) -> "TextEncoders":
        """Move the networks to a device or a dtype, as `torch.nn.Module.to`."""
        for model in self.models:
            model.to(*where)
        return self

    def token_ids(self, texts: Sequence[str]) -> Tensor:
        """Texts -> token ids int32 `(T, E L)` for E encoders, one after the other.

        They are truncated and padded to the length L of an encoder.
        """
        return torch.cat([token_ids(texts, each) for each in self.tokenizers], dim=1)

    @torch.no_grad()
    def embed(self, ids: Tensor) -> Texts:
        """Token ids `(T, E L)` -> the texts, as the base model's pipeline computes them.

        One encoder: its last hidden states. Two: their last but one, side by side, and the pooled
        embedding of the second.
        """
        parts = ids.to(self.models[0].device).chunk(len(self.models), dim=1)
        if len(parts) == 1:
            return Texts(self.models[0](parts[0]).last_hidden_state)
        outputs = [
            model(part, output_hidden_states=True)
            for model, part in zip(self.models, parts, strict=True)
        ]
        states = [output.hidden_states[-2] for output in outputs]
        return Texts(torch.cat(states, dim=-1), outputs[-1].text_embeds)


def load_text_encoders(backbone: Path) -> TextEncoders:
    """Load the text encoders of a base model, frozen, in fp32.

    Raises:
        UserError: a part is missing, damaged or unusable.
    """
    endings = ["", SECOND] if has_part(backbone, f"text_encoder{SECOND}") else [""]
    models, tokenizers = (
        [load_part(backbone, f"{part}{ending}") for ending in endings]
        for part in ("text_encoder", "tokenizer")
    )
    return TextEncoders(models, tokenizers)


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


def as_texts(texts: Tensor, encoders: TextEncoders | None) -> Texts:
    """The texts of encoded shards, in fp32.

    Args:
        texts: embeddings `(T, L, D)`, which are only cast, or token ids `(T, E L)`.
        encoders: embed token ids in their own precision; may be None for embeddings.
    """
    if texts.is_floating_point():
        return Texts(texts.float())
    assert encoders is not None
    return encoders.embed(texts).map(Tensor.float)


def check_stored_as(texts: str, encoders: int) -> None:
    """Check that `encode.texts` is possible for a base model with this number of text encoders.

    Raises:
        UserError: embeddings alone would be stored, and the base reads pooled ones, too.
    """
    if texts == "stored" and encoders > 1:
        raise UserError(
            f"encode.texts = {texts} keeps no pooled embeddings, which a base model with "
            f"{encoders} text encoders reads: set it to live"
        )
