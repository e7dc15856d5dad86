"""Which images a request asks for: by method, seed and scale of the first reference image."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from adapterbench.core.errors import UserError
from adapterbench.demo.generator import TEXT_ONLY
from adapterbench.demo.settings import Settings, short, user_errors

MAX_AXIS = 6
"""Most values on an axis."""
MAX_IMAGES = 24
"""Most images of a request."""
MAX_TOTAL_STEPS = 600
"""Most denoising steps of a request, of all its images: others are waiting."""
MAX_TYPED = 120
"""Most characters of a list of numbers."""

Number = TypeVar("Number", int, float)


def numbers(typed: object, name: str, kind: Callable[[str], Number]) -> list[Number]:
    """Numbers of a list such as "0.4, 0.8", each once, in the given order.

    Raises:
        UserError: it is something else, or too long.
    """
    if not isinstance(typed, str) or len(typed) > MAX_TYPED:
        raise UserError(f"{name} is {short(typed)}: write up to {MAX_AXIS} numbers, with commas")
    try:
        values = [kind(number) for number in re.split(r"[,;\s]+", typed.strip(" ,;")) if number]
    except ValueError as error:
        example = "0, 1, 2" if kind is int else "0.4, 0.8, 1.2"
        raise UserError(
            f"{name} is {short(typed)}: write numbers with commas, such as {example}"
        ) from error
    if len(values) > MAX_AXIS:
        raise UserError(f"{name} has {len(values)} numbers: write up to {MAX_AXIS}")
    return list(dict.fromkeys(values))


def plan(
    common: Settings, methods: Sequence[str], scales: Sequence[float], seeds: Sequence[int]
) -> list[Settings]:
    """Settings of each image: by method, then seed, then scale.

    Args:
        common: `method` is replaced, and the others where an axis has values.
        methods: to compare.
        scales: of the first reference image; the base model alone has one image for all.
        seeds: of the noise.

    Raises:
        UserError: a value is out of range, or the images take too long.
    """
    columns = [common.with_scale(scale) for scale in scales] or [common]
    with user_errors():
        images = [
            replace(column, method=method, seed=seed)
            for method in methods
            for seed in seeds or [common.seed]
            for column in (columns[:1] if method == TEXT_ONLY else columns)
        ]
    steps = common.steps * len(images)
    if len(images) > MAX_IMAGES or steps > MAX_TOTAL_STEPS:
        raise UserError(
            f"{len(images)} images with {steps} steps in all are too many: up to {MAX_IMAGES} "
            f"images and {MAX_TOTAL_STEPS} steps; take fewer adapters, scales, seeds or steps"
        )
    return images
