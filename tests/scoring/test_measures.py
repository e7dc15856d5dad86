"""Scores of vectors whose answer is known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adapterbench.core.errors import UserError
from adapterbench.scoring.measures import cosine, distribution, diversity, finds


def unit(*rows: tuple[float, ...]) -> Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=-1)


def cloud(count: int, seed: int, at: float = 0.0) -> Tensor:
    """Unit vectors about a direction that `at` turns."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.tensor([1.0, at, *[0.0] * 6])
    return F.normalize(centre + 0.15 * torch.randn(count, 8, generator=generator), dim=-1)


def test_cosine_is_row_by_row() -> None:
    assert cosine(unit((1, 0), (1, 1)), unit((0, 1), (1, 0))).tolist() == pytest.approx(
        [0, math.sqrt(0.5)]
    )


@pytest.mark.parametrize("part", [1, 2, 100])
def test_an_image_finds_the_reference_that_is_nearest(part: int) -> None:
    references = unit((1, 0), (0, 1), (-1, 0))
    images = unit((3, 1), (3, 1), (-1, 2), (-3, 1))
    assert finds(images, references, torch.tensor([0, 1, 1, 2]), part).tolist() == [1, 0, 1, 1]


def test_a_second_reference_as_near_is_not_found() -> None:
    twins = unit((1, 0), (1, 0), (0, 1))
    assert finds(unit((1, 0), (0, 1)), twins, torch.tensor([0, 2])).tolist() == [0, 1]


def test_diversity_is_the_mean_distance_of_an_items_pairs() -> None:
    images = unit((1, 0), (0, 1), (1, 1), (5, 1), (5, 1))
    found = diversity(images, torch.tensor([1, 1, 1, 0, 0]))
    pairs = [1 - 0, 1 - math.sqrt(0.5), 1 - math.sqrt(0.5)]
    assert found[:3].mean().item() == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found[2].item() == pytest.approx(1 - math.sqrt(0.5), abs=1e-6)
    assert found[3:].tolist() == pytest.approx([0, 0], abs=1e-6)


def test_an_image_alone_has_no_diversity() -> None:
    found = diversity(unit((1, 0), (0, 1), (0, 1)), torch.tensor([0, 1, 1]))
    assert math.isnan(found[0])
    assert found[1:].tolist() == [0, 0]


def test_kid_is_the_distance_of_the_sets_with_the_cubic_kernel() -> None:
    images, references = cloud(30, 0), cloud(30, 1, at=1.0)
    found = distribution(images, references, subset=30)  # every subset is the whole

    def kernel(a: Tensor, b: Tensor) -> np.ndarray:
        return ((a.double() @ b.double().T + 1) ** 3).numpy()

    within = [
        (k.sum() - np.trace(k)) / (30 * 29) for k in (kernel(x, x) for x in (images, references))
    ]
    assert found["kid"] == pytest.approx(sum(within) - 2 * kernel(images, references).mean())
    assert found["kid"] > 0.1


def test_equal_sets_have_no_distance_and_far_ones_no_precision() -> None:
    same = distribution(cloud(200, 0), cloud(200, 1), subset=100)
    assert abs(same["kid"]) < 0.02
    assert min(same["precision"], same["recall"]) > 0.8
    far = distribution(cloud(200, 0), -cloud(200, 1), subset=100)
    assert (far["precision"], far["recall"]) == (0, 0)


def test_precision_and_recall_are_not_swapped() -> None:
    """One image over and over is precise; it recalls nothing of the others."""
    references = cloud(100, 0)
    found = distribution(references[:1].repeat(50, 1), references, subset=20)
    assert (found["precision"], found["recall"]) == (1, pytest.approx(0.01))


def test_small_sets_have_no_distribution() -> None:
    assert all(math.isnan(value) for value in distribution(cloud(3, 0), cloud(3, 1), None).values())


def test_a_subset_larger_than_the_set_is_one_line() -> None:
    with pytest.raises(
        UserError, match=r"kid_subset_size = 50, but there are 60 images and 40 ref"
    ):
        distribution(cloud(60, 0), cloud(40, 1), subset=50)
