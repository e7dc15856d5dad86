"""Each projection against its equation, written out with the weights it holds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapterbench.adapters.projections import feedforward, linear, mlp

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


@torch.no_grad()
def test_feedforward() -> None:
    projection = feedforward.build(feedforward.Params(tokens=K, expansion=4), C, D)
    a, b, c, d = linears(projection)
    shapes = [(part.in_features, part.out_features) for part in (a, b, c, d)]
    assert shapes == [(C, C), (C, 4 * C), (4 * C, 4 * C), (4 * C, K * D)]
    middle = b(F.gelu(a(EMBEDS)))  # nothing between the blocks
    expected = d(F.gelu(c(middle))).view(5, K, D)
    torch.testing.assert_close(projection(EMBEDS), expected)
