from dataclasses import replace
from typing import Any

import pytest

from adapterbench.core.errors import UserError
from adapterbench.demo.generator import TEXT_ONLY
from adapterbench.demo.grid import numbers, plan
from adapterbench.demo.settings import ImagePrompt, Settings

RING = ImagePrompt(caption="ring", sha256="0" * 64, scale=0.5)
SETTINGS = Settings(
    method="",
    base="toy",
    images=(RING, replace(RING, scale=0.3)),
    text="",
    negative_text="",
    guidance_scale=3,
    steps=20,
    seed=7,
)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", []),
        (" , ", []),
        ("0.4", [0.4]),
        ("0.4, 0.8,1.2", [0.4, 0.8, 1.2]),
        ("1;0 .5", [1, 0, 0.5]),
        ("1, 1.0, 0", [1, 0]),
    ],
)
def test_numbers(typed: str, expected: list[float]) -> None:
    assert numbers(typed, "Scales", float) == expected


@pytest.mark.parametrize(
    ("typed", "kind", "told"),
    [
        ("x", float, "Scales is 'x': write numbers with commas, such as 0.4, 0.8, 1.2"),
        ("0.5", int, "such as 0, 1, 2"),
        ("1e5", int, "write numbers"),
        ("1 2 3 4 5 6 7", int, "Scales has 7 numbers: write up to 6"),
        ("9" * 121, int, "write up to 6 numbers"),
        (["1"], int, "write up to 6 numbers"),
        ({}, float, "write up to 6 numbers"),
    ],
)
def test_what_are_no_numbers(typed: object, kind: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        numbers(typed, "Scales", kind)
    assert len(str(error.value)) < 150


def cells(*arguments: Any) -> list[tuple[str, float, int]]:
    """Method, scale of the first image and seed."""
    return [(s.method, s.images[0].scale, s.seed) for s in plan(SETTINGS, *arguments)]


def test_without_axes_the_settings_are_those_above() -> None:
    assert cells(["a", TEXT_ONLY], [], []) == [("a", 0.5, 7), (TEXT_ONLY, 0.5, 7)]


def test_scales_are_columns_and_seeds_rows() -> None:
    expected = [("a", 0, 1), ("a", 1, 1), ("a", 0, 2), ("a", 1, 2)]
    expected += [(TEXT_ONLY, 0, 1), (TEXT_ONLY, 0, 2)]  # the base model alone has no scale
    assert cells(["a", TEXT_ONLY], [0, 1], [1, 2]) == expected


def test_other_images_keep_their_scale() -> None:
    assert {image.images[1].scale for image in plan(SETTINGS, ["a"], [0, 1], [])} == {0.3}


@pytest.mark.parametrize(
    ("scales", "seeds", "told"),
    [
        ([float("nan")], [], "Scale is nan: "),
        ([float("inf")], [], "Scale is inf: "),
        ([0.5, 1.6], [], "Scale is 1.6: "),
        ([], [-1], "Seed is -1: "),
        ([], [2**32], "Seed is 4294967296: "),
        ([0, 1, 0.5], [0, 1, 2, 3, 4], r"30 images with 600 steps in all are too many: up to 24"),
        ([0, 1, 0.5], [0, 1, 2, 3], r""),
    ],
)
def test_limits(scales: list[float], seeds: list[int], told: str) -> None:
    if not told:
        assert len(plan(SETTINGS, ["a", "b"], scales, seeds)) == 24
        return
    with pytest.raises(UserError, match=told):
        plan(SETTINGS, ["a", "b"], scales, seeds)


def test_steps_in_all_are_limited() -> None:
    long = replace(SETTINGS, steps=50)
    assert len(plan(long, ["a"], [], list(range(12)))) == 12
    with pytest.raises(UserError, match="13 images with 650 steps in all are too many"):
        plan(long, ["a"], [], list(range(13)))
