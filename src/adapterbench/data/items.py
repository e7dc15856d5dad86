"""Which validation items are sampled, and the noise of each of their pictures."""

from collections import defaultdict
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from adapterbench.core.errors import UserError


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
    for number in sorted(range(len(samples)), key=lambda n: order(samples[n]["key"], seed)):
        concepts[samples[number]["concept"]].append(number)
    turns = [(turn, number) for queue in concepts.values() for turn, number in enumerate(queue)]
    return [number for _, number in sorted(turns, key=lambda pair: pair[0])][:count]


def order(key: str, seed: int) -> bytes:
    """A pseudo-random rank of a key."""
    return sha256(f"{seed}:{key}".encode()).digest()


def noise(key: str, k: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise of picture `k` of an item: the same for every method and batch size."""
    digest = sha256(f"{seed}:{key}:{k}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator)
