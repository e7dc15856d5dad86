"""Each projection against its equation, written out with the weights it holds."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapterbench.adapters.projections import feedforward, linear, low_rank, mlp, residual

C, K, D = 6, 3, 10
EMBEDS = torch.randn(5, C, generator=torch.Generator().manual_seed(0))


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def normed(tokens: Tensor) -> Tensor:
    """A fresh LayerNorm over D."""
    variance, mean = torch.var_mean(tokens, -1, correction=0, keepdim=True)
    return (tokens - mean) / (variance + 1e-5).sqrt()


@torch.no_grad()
def test_linear() -> None:
    projection = linear.build(linear.Params(tokens=K), C, D)
    (one,) = linears(projection)
    expected = normed(one(EMBEDS).view(5, K, D))
    torch.testing.assert_close(projection(EMBEDS), expected)


@torch.no_grad()
def test_mlp() -> None:
    projection = mlp.build(mlp.Params(tokens=K, hidden_layers=2, expansion=4), C, D)
    first, second, last = linears(projection)
    assert (first.out_features, second.out_features) == (4 * C, 4 * C)
    hidden = F.gelu(second(F.gelu(first(EMBEDS))))
    torch.testing.assert_close(projection(EMBEDS), normed(last(hidden).view(5, K, D)))

    bare = mlp.build(mlp.Params(tokens=K, hidden_layers=1, expansion=1, norm=False), C, D)
    first, last = linears(bare)
    torch.testing.assert_close(bare(EMBEDS), last(F.gelu(first(EMBEDS))).view(5, K, D))


@torch.no_grad()
def test_low_rank() -> None:
    projection = low_rank.build(low_rank.Params(tokens=K, projection_rank=2), C, D)
    down, up = linears(projection)
    assert (down.weight.shape, down.bias) == ((2, C), None)
    expected = EMBEDS @ (up.weight @ down.weight).T + up.bias
    torch.testing.assert_close(projection(EMBEDS), normed(expected.view(5, K, D)))


@torch.no_grad()
@pytest.mark.parametrize("zero_start", [False, True])
def test_residual(zero_start: bool) -> None:
    params = residual.Params(tokens=K, hidden_layers=2, expansion=3, zero_start=zero_start)
    projection = residual.build(params, C, D)
    straight, first, second, last = linears(projection)
    assert (first.out_features, second.out_features) == (3 * C, 3 * C)
    expected = straight(EMBEDS)
    if not zero_start:
        expected = expected + last(F.gelu(second(F.gelu(first(EMBEDS)))))
    torch.testing.assert_close(projection(EMBEDS), normed(expected.view(5, K, D)))


@torch.no_grad()
def test_feedforward() -> None:
    projection = feedforward.build(feedforward.Params(tokens=K, expansion=4), C, D)
    a, b, c, d = linears(projection)
    shapes = [(part.in_features, part.out_features) for part in (a, b, c, d)]
    assert shapes == [(C, C), (C, 4 * C), (4 * C, 4 * C), (4 * C, K * D)]
    middle = b(F.gelu(a(EMBEDS)))  # nothing between the blocks
    expected = d(F.gelu(c(middle))).view(5, K, D)
    torch.testing.assert_close(projection(EMBEDS), expected)
