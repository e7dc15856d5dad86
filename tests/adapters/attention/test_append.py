import numpy as np
import pytest
import torch

from adapterbench.adapters.attention.append import Append
from adapterbench.adapters.core.channel import LayerProcessor

from .reference import QUERY, WIDTH, attend, layer, numbers


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("kept", [7, 5])
def test_it_attends_to_text_and_scaled_image_tokens(scale: float, kept: int) -> None:
    """By hand; a mask keeps `kept` of 7 text tokens. At scale 0 the image tokens count as zeros."""
    torch.manual_seed(0)
    attn = layer()
    branch = Append()
    branch.scale = scale
    features, text = torch.randn(3, 10, QUERY), torch.randn(3, 7, WIDTH)
    tokens = torch.randn(3, 4, WIDTH)
    mask = None if kept == 7 else torch.where(torch.arange(7) < kept, 0.0, -1e4).expand(3, 1, 7)
    attn.set_processor(LayerProcessor([branch], attn.processor))  # type: ignore[arg-type]
    ours = attn(features, encoder_hidden_states=(text, [tokens]), attention_mask=mask)

    z = numbers(features)
    y = np.concatenate([numbers(text)[:, :kept], scale * numbers(tokens)], axis=1)
    to_q, to_k, to_v = (numbers(part) for part in (attn.to_q, attn.to_k, attn.to_v))
    expected = attend(z @ to_q.T, y @ to_k.T, y @ to_v.T) @ numbers(attn.to_out[0]).T
    np.testing.assert_allclose(ours.numpy(), expected + numbers(attn.to_out[0].bias), atol=2e-6)


def test_it_trains_nothing() -> None:
    assert list(Append().parameters()) == []
