from typing import Any

import numpy as np
import pytest
import torch

from adapterbench.adapters.attention.dora import Dora, Params, build

from .reference import check_adapted, layer, numbers

RANK, ALPHA = 3, 6.0


@torch.no_grad()
def test_it_is_the_layer_with_magnitudes_and_directions() -> None:
    """`W' = m V / ||V||`, `V = W + (alpha / r) B A`, row by row."""
    torch.manual_seed(0)
    attn = layer()

    def decomposed(adapted: Any, weight: np.ndarray) -> np.ndarray:
        up, down = (numbers(side["default"]) for side in (adapted.lora_B, adapted.lora_A))
        moved = weight + ALPHA / RANK * up @ down
        magnitudes = numbers(adapted.lora_magnitude_vector["default"].weight)
        assert magnitudes.shape == (len(weight),)
        return magnitudes[:, None] * moved / np.sqrt((moved**2).sum(1, keepdims=True))

    check_adapted(Dora(attn, Params(rank=RANK, alpha=ALPHA)), attn, decomposed)


def test_the_gradient_takes_the_norms_as_constants() -> None:
    """Written out with autograd: those of A, B and m, of one layer."""
    torch.manual_seed(0)
    attn = layer()
    adapted: Any = Dora(attn, Params(rank=RANK, alpha=ALPHA)).to_k
    for weight in adapted.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    inputs = torch.randn(5, adapted.in_features)
    adapted(inputs).square().sum().backward()
    sides = [side["default"].weight for side in (adapted.lora_A, adapted.lora_B)]
    magnitude = adapted.lora_magnitude_vector["default"].weight
    down, up, m = (weight.detach().clone().requires_grad_() for weight in (*sides, magnitude))
    moved = attn.to_k.weight + ALPHA / RANK * up @ down
    merged = (m / moved.norm(dim=1).detach())[:, None] * moved
    (inputs @ merged.T).square().sum().backward()
    for ours, theirs in zip((*sides, magnitude), (down, up, m), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fresh_one_changes_nothing(dtype: torch.dtype) -> None:
    """To the last bit, also over a layer in half precision."""
    attn = layer().to(dtype)
    branch = Dora(attn, Params(rank=RANK, alpha=ALPHA)).float()
    for name in ("to_q", "to_k", "to_v", "to_out"):
        adapted = getattr(branch, name)
        inputs = torch.randn(5, adapted.in_features)
        assert torch.equal(adapted(inputs), adapted.base_layer(inputs))


def test_alpha_is_the_rank_when_left_out() -> None:
    attn = layer()
    assert build(Params(rank=4), attn).to_q.scaling == {"default": 1.0}
    assert build(Params(rank=4, alpha=2), attn).to_q.scaling == {"default": 0.5}
