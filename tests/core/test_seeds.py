"""Derived seeds: the values themselves, which every published number rests on."""

from adapterbench.core.seeds import image_seed, mixed, rank


def test_a_rank_is_a_digest_of_seed_and_name() -> None:
    assert rank("red circle", 0).hex()[:16] == "b1ef21d5392baba1"
    assert rank("red circle", 1) != rank("red circle", 0) != rank("red square", 0)


def test_the_noise_of_an_image_has_a_seed_of_its_own() -> None:
    assert image_seed("a", 0, 7) == 24352564329600542
    seeds = {image_seed(key, k, seed) for key in "ab" for k in (0, 1) for seed in (7, 8)}
    assert len(seeds) == 8
    assert max(seeds) < 2**56


def test_numbers_are_mixed_in_order() -> None:
    assert mixed(0, 1, 2) == 1995974887614534118
    assert mixed(1, 0) != mixed(0, 1)
    assert mixed(0) != mixed(0, 0)
    assert 0 <= mixed(2**62, 2**62) < 2**63
