"""Tokens and fit of an adapter, against plain computations."""

import pytest
import torch
from toy_backbone import Toy

from adapterbench.adapters.core.storage import load_adapter
from adapterbench.formats.encoded import EncodedSplit
from adapterbench.frozen.load import load_part
from adapterbench.study.runs.mechanism import effective_rank, measure_mechanism


def test_the_effective_rank_of_known_clouds() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.randn(5000, 4, generator=generator)
    assert effective_rank(cloud) == pytest.approx(4, abs=0.01)
    line = cloud[:, :1] * torch.tensor([[1.0, 2.0, 3.0]]) + 5
    assert effective_rank(line) == pytest.approx(1, abs=1e-3)
    # variances 4 : 1, entropy of 0.8 and 0.2
    uneven = cloud[:, :2] * torch.tensor([2.0, 1.0])
    assert effective_rank(uneven) == pytest.approx(0.8**-0.8 * 0.2**-0.2, abs=0.02)


@torch.no_grad()
def test_tokens_and_losses_of_the_toy_adapter(toy: Toy) -> None:
    found = measure_mechanism(toy.adapter, toy.encoded, toy.backbone, "validation")
    unet = load_part(toy.backbone, "unet")
    adapter = load_adapter(toy.adapter, unet)
    embeds = EncodedSplit(toy.encoded, "validation").gather(torch.arange(6), torch.zeros(6))
    tokens = adapter.projection(embeds.image_embeds)
    assert found.token_norm == pytest.approx(float(tokens.norm(dim=-1).mean()), rel=1e-5)
    assert 1 <= found.token_rank <= 5  # six images
    assert found.seen_loss > 0
    assert found.unseen_loss > 0
    again = measure_mechanism(toy.adapter, toy.encoded, toy.backbone, "train")
    assert again.unseen_loss == again.seen_loss == found.seen_loss
