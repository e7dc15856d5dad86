"""Attention written out by hand, with numpy alone, and what it is compared with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from adapterbench.adapters.core.branch import Branch
from adapterbench.adapters.core.channel import LayerProcessor

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


def frozen_weights(attn: Attention) -> dict[str, np.ndarray]:
    """`W_Q, W_K, W_V, W_O` of a layer, by the name that a branch gives them."""
    return {
        "to_q": numbers(attn.to_q),
        "to_k": numbers(attn.to_k),
        "to_v": numbers(attn.to_v),
        "to_out": numbers(attn.to_out[0]),
    }


def output(weights: dict[str, np.ndarray], features: Tensor, prompt: Tensor) -> np.ndarray:
    """`W_O Attn(Z W_Q, y W_K, y W_V)`, without the bias of `W_O`."""
    z, y = numbers(features), numbers(prompt)
    out = attend(z @ weights["to_q"].T, y @ weights["to_k"].T, y @ weights["to_v"].T)
    return out @ weights["to_out"].T


def check_adapted(
    branch: Branch, attn: Attention, adapted: Callable[[Any, np.ndarray], np.ndarray]
) -> None:
    """`W_O Attn(Q, K, V) + b_O + lambda W'_O Attn(Q', K', V')`, with other random weights.

    Args:
        branch: has layers `to_q`, `to_k`, `to_v` and `to_out`.
        attn: its layer.
        adapted: such a layer and the frozen weight W, to W'.
    """
    branch.scale = 0.7
    for weight in branch.parameters():
        nn.init.normal_(weight, std=0.3)
    features, text = torch.randn(3, 10, QUERY), torch.randn(3, 7, WIDTH)
    tokens = torch.randn(3, 4, WIDTH)
    attn.set_processor(LayerProcessor([branch], attn.processor))  # type: ignore[arg-type]
    ours = attn(features, encoder_hidden_states=(text, [tokens]))
    frozen = frozen_weights(attn)
    changed = {name: adapted(getattr(branch, name), weight) for name, weight in frozen.items()}
    expected = output(frozen, features, text) + numbers(attn.to_out[0].bias)
    expected += 0.7 * output(changed, features, tokens)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)
