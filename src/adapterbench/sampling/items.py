"""Choice of the validation items to sample, and the initial noise of each image."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.core.seeds import image_seed, rank


def choose_items(samples: list[dict[str, Any]], count: int, seed: int) -> list[int]:
    """Choose `count` samples by hashed key; every concept occurs once before any occurs twice.

    Items of different concepts are independent, as the confidence intervals over items assume.

    Args:
        samples: records with `key` and `concept`.

    Returns:
        Indices into `samples`.

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
    rounds = [(n, number) for numbers in concepts.values() for n, number in enumerate(numbers)]
    return [number for _, number in sorted(rounds, key=lambda pair: pair[0])][:count]


def noise(key: str, k: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise (of `shape`) of image `k` of an item; independent of method and batch size."""
    return torch.randn(shape, generator=generator(key, k, seed))


def generator(key: str, k: int, seed: int) -> torch.Generator:
    """The generator whose first draw is the initial noise of image `k` of an item."""
    return torch.Generator().manual_seed(image_seed(key, k, seed))
