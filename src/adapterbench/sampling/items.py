"""Which validation items are sampled, and the noise of each of their pictures."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.core.seeds import image_seed, rank


def choose_items(samples: list[dict[str, Any]], count: int, seed: int) -> list[int]:
    """Numbers of `count` samples, drawn by hash, every concept once before any twice.

    Items of different concepts are independent, as the intervals over items assume.

    Raises:
        UserError: there are fewer samples than `count`.
    """
    if count > len(samples):
        raise UserError(
            f"sample.items = {count}, but the validation split has {len(samples)}: lower it"
        )
    concepts: dict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(samples)), key=lambda n: rank(samples[n]["key"], seed)):
        concepts[samples[number]["concept"]].append(number)
    turns = [(turn, number) for queue in concepts.values() for turn, number in enumerate(queue)]
    return [number for _, number in sorted(turns, key=lambda pair: pair[0])][:count]


def noise(key: str, k: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise of picture `k` of an item: the same for every method and batch size."""
    generator = torch.Generator().manual_seed(image_seed(key, k, seed))
    return torch.randn(shape, generator=generator)
