"""The choice of items and their noise: fixed by keys and the seed, by nothing else."""

from collections import Counter
from typing import Any

import pytest
import torch

from adapterbench.core.errors import UserError
from adapterbench.sampling.items import choose_items, noise

SAMPLES = [
    {"key": f"{style}-{concept}", "concept": f"c{concept}"}
    for concept in range(10)
    for style in ("a", "b", "c")[: 1 + concept % 3]
]


def keys(samples: list[dict[str, Any]], count: int, seed: int = 0) -> list[str]:
    return [samples[number]["key"] for number in choose_items(samples, count, seed)]


@pytest.mark.parametrize("count", [1, 7, 10, 14, len(SAMPLES)])
def test_items_spread_over_the_concepts(count: int) -> None:
    chosen = choose_items(SAMPLES, count, 0)
    assert len(set(chosen)) == count
    uses = Counter(SAMPLES[number]["concept"] for number in chosen)
    has = Counter(sample["concept"] for sample in SAMPLES)
    # a concept is used again only when every other has been used as often, or has no more
    most = max(uses.values())
    assert all(uses[concept] >= min(has[concept], most - 1) for concept in has)


def test_the_choice_does_not_depend_on_the_order() -> None:
    assert keys(SAMPLES, 12) == keys(SAMPLES[::-1], 12)
    assert keys(SAMPLES, 12) == keys(SAMPLES, 12)


def test_more_items_keep_the_first_ones() -> None:
    assert keys(SAMPLES, 15)[:8] == keys(SAMPLES, 8)


def test_the_seed_chooses_others() -> None:
    assert len({tuple(keys(SAMPLES, 5, seed)) for seed in range(5)}) == 5


def test_too_many_items_are_one_line() -> None:
    with pytest.raises(UserError, match=r"sample\.items = 99, .* has 19: lower it"):
        choose_items(SAMPLES, 99, 0)


def test_noise_depends_on_key_number_and_seed_alone() -> None:
    shape = (4, 8, 8)
    first = noise("a", 0, 0, shape)
    torch.manual_seed(99)
    assert torch.equal(first, noise("a", 0, 0, shape))
    others = [noise("b", 0, 0, shape), noise("a", 1, 0, shape), noise("a", 0, 1, shape)]
    assert all(abs(torch.corrcoef(torch.stack([first.flatten(), o.flatten()]))[0, 1]) < 0.25
               for o in others)  # fmt: skip


def test_noise_is_standard_normal() -> None:
    many = torch.stack([noise(f"k{n}", n % 3, 0, (4, 8, 8)) for n in range(200)])
    assert many.mean().item() == pytest.approx(0, abs=0.02)
    assert many.std().item() == pytest.approx(1, abs=0.02)
