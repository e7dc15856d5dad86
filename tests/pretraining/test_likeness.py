"""The base's bars: likeness on unit vectors, retrieval across makers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adapterbench.pretraining.images import CaptionedImages
from adapterbench.pretraining.likeness import (
    across_makers,
    likeness,
    same_drawn_twice,
    thumbnails,
)


def described(*rows: tuple[str, str]) -> CaptionedImages:
    keys, concepts = [key for key, _ in rows], [concept for _, concept in rows]
    pixels = torch.zeros(len(rows), 3, 2, 2, dtype=torch.uint8)
    return CaptionedImages(pixels, [("a",)] * len(rows), keys, concepts)


def test_likeness_by_hand() -> None:
    real = torch.eye(4)
    made = real[[0, 1, 3, 2]]  # the second group is swapped
    measured = likeness(made, real, 2, seed=0)
    assert (measured.items, measured.cosine, measured.r_at_1, measured.among) == (4, 0.5, 0.5, 2)
    assert measured.low < 0.5 < measured.high


def test_what_is_left_of_a_group_counts_for_the_cosine_alone() -> None:
    real = torch.eye(5)
    made = real[[0, 1, 2, 3, 0]]
    measured = likeness(made, real, 2, seed=0)
    assert measured.r_at_1 == 1
    assert measured.cosine == pytest.approx(0.8)
    assert likeness(made, real, 64, seed=0).among == 5


def test_pairs_are_of_one_emoji_by_two_makers_once_a_concept() -> None:
    held_out = described(
        ("google-1f431", "cat"),
        ("google-1f408", "cat"),
        ("twitter-1f436", "dog"),
        ("fluent-2b50", "star"),
    )
    train = described(
        ("twitter-1f431", "cat"),
        ("fluent-1f408", "cat"),
        ("google-1f436", "dog"),
        ("google-1f98a", "fox"),
    )
    pairs = same_drawn_twice(held_out, train, seed=0)
    codes = [
        (held_out.keys[a].partition("-")[2], train.keys[b].partition("-")[2]) for a, b in pairs
    ]
    assert all(a == b for a, b in codes)
    assert sorted(held_out.concepts[a] for a, _ in pairs) == ["cat", "dog"]
    assert pairs == same_drawn_twice(held_out, train, seed=0)


def test_whole_concepts_that_are_held_out_give_no_pairs() -> None:
    assert same_drawn_twice(described(("google-1", "cat")), described(("google-2", "dog")), 0) == []


def test_thumbnails_find_an_image_whose_light_has_changed() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(40, 160, (6, 16, 16, 3))
    first = [Image.fromarray(each.astype(np.uint8)) for each in levels]
    second = [Image.fromarray((each + 30).astype(np.uint8)) for each in levels]
    assert across_makers(thumbnails, first, second) == 1
    assert across_makers(thumbnails, first, second[1:] + second[:1]) == 0

    def blind(images: list[Image.Image]) -> Tensor:
        return torch.ones(len(images), 1)

    assert across_makers(blind, first, second) == 0  # a tie is no find
