"""Everything that is derived from a seed, as pure functions of names and numbers.

An edit here changes the split, the selected items, the noise and every draw in training.
"""

from hashlib import sha256


def rank(name: str, seed: int) -> bytes:
    """Sort key of a name in a pseudo-random order; independent of the other names."""
    return sha256(f"{seed}:{name}".encode()).digest()


def image_seed(key: str, k: int, seed: int) -> int:
    """Seed of the initial noise of generated image `k` of the item `key`, below 2^56."""
    return int.from_bytes(sha256(f"{seed}:{key}:{k}".encode()).digest()[:7], "big")


def mixed(*numbers: int) -> int:
    """A seed below 2^63 that depends on all `numbers` and their order, such as (seed, step)."""
    seed = 0
    for number in numbers:
        seed = (seed * 0x9E3779B97F4A7C15 + number + 1) % 2**63
    return seed
