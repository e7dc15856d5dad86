"""Attention written out by hand, with numpy alone."""

from typing import Any

import numpy as np
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

HEADS, HEAD_DIM, QUERY, WIDTH = 2, 8, 20, 12


def layer(**changes: Any) -> Attention:
    """A frozen cross-attention layer of odd widths (features 20, tokens 12, inner 16)."""
    attn = Attention(QUERY, WIDTH, heads=HEADS, dim_head=HEAD_DIM, **changes)
    return attn.requires_grad_(False).eval()


def numbers(tensor: Tensor | nn.Module) -> np.ndarray:
    """In float64; of a linear layer its weight `(out, in)`."""
    values = tensor.weight if isinstance(tensor, nn.Linear) else tensor
    assert isinstance(values, Tensor)
    return values.detach().double().numpy()


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`softmax(Q K^T / sqrt(d)) V`, head after head: `(B, N, HEADS * HEAD_DIM)`."""
    out = []
    for head in range(HEADS):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        scores = query[..., part] @ key[..., part].swapaxes(1, 2) / np.sqrt(HEAD_DIM)
        weights = np.exp(scores)
        out.append(weights / weights.sum(-1, keepdims=True) @ value[..., part])
    return np.concatenate(out, -1)
