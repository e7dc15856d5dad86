import re
from typing import Any

import numpy as np
import pytest
import torch

from adapterbench.adapters.attention.oft import Oft, Params, build
from adapterbench.core.errors import UserError

from .reference import check_adapted, layer, numbers

BLOCK = 4


def rotation(adapted: Any) -> np.ndarray:
    """`R (in, in)`, block by block: `(I + Q) (I - Q)^-1` of the numbers above Q's diagonal."""
    rotated = np.zeros((adapted.in_features, adapted.in_features))
    for number, above in enumerate(numbers(adapted.oft_R["default"].weight)):
        skew = np.zeros((BLOCK, BLOCK))
        skew[np.triu_indices(BLOCK, 1)] = above
        skew -= skew.T
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        rotated[part, part] = (np.eye(BLOCK) + skew) @ np.linalg.inv(np.eye(BLOCK) - skew)
    return rotated


@torch.no_grad()
def test_it_is_the_layer_with_rotated_weights() -> None:
    """`W' = W R` by hand; rows keep their norms and the angles between them."""
    torch.manual_seed(0)
    attn = layer()

    def rotated(adapted: Any, weight: np.ndarray) -> np.ndarray:
        moved = weight @ rotation(adapted)
        assert np.abs(moved - weight).max() > 0.1
        np.testing.assert_allclose(moved @ moved.T, weight @ weight.T, atol=1e-12)
        return moved

    check_adapted(Oft(attn, BLOCK), attn, rotated)


@torch.no_grad()
def test_a_large_rotation_is_one() -> None:
    """The outputs of whole rotated inputs keep their length; a truncated series does not."""
    adapted: Any = Oft(layer(), BLOCK).to_q
    torch.nn.init.normal_(adapted.oft_R["default"].weight, std=3)
    inputs = torch.randn(5, adapted.in_features)
    turned = adapted.oft_R["default"](inputs)
    torch.testing.assert_close(turned.norm(dim=1), inputs.norm(dim=1))
    assert (turned - inputs).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_fresh_one_changes_nothing(dtype: torch.dtype) -> None:
    """To the last bit, also over a layer in half precision."""
    attn = layer().to(dtype)
    branch = Oft(attn, BLOCK).float()
    for name in ("to_q", "to_k", "to_v", "to_out"):
        adapted = getattr(branch, name)
        inputs = torch.randn(5, adapted.in_features).to(dtype)
        assert torch.equal(adapted(inputs), adapted.base_layer(inputs))


@pytest.mark.parametrize("block_size", [3, 8, 20, 32])
def test_blocks_that_do_not_divide_a_width_are_refused_in_one_line(block_size: int) -> None:
    message = (
        f"block_size = {block_size} does not divide the widths of a cross-attention layer "
        "(12, 16, 20): choose a divisor of 4"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build(Params(block_size=block_size), layer())
