"""Weight of an image prompt in each step of sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapterbench.adapters.core.adapter import finite
from adapterbench.core.errors import UserError

Curve = Callable[[float], float] | Sequence[float]
"""Weight by the fraction of steps done, or by step."""


@dataclass(frozen=True)
class Schedule:
    """Factor of lambda in step i of n."""

    start: float = 0.0
    """Fraction of the steps before the image prompt acts."""
    end: float = 1.0
    """Fraction of the steps after which it no longer acts, as `control_guidance_end`."""
    curve: Curve | None = None
    """A function of `i / n`, or weights that are spread over the steps; None: always 1."""

    def __post_init__(self) -> None:
        start, end = finite(self.start, "start"), finite(self.end, "end")
        if not 0 <= start < end <= 1:
            raise UserError(
                f"start = {self.start!r}, end = {self.end!r}: give shares of the steps from 0 to "
                "1, start before end"
            )
        if self.curve is None or callable(self.curve):
            return
        if isinstance(self.curve, str) or not isinstance(self.curve, Sequence) or not self.curve:
            raise UserError(
                f"curve = {self.curve!r}: give a function of the share of steps done, or a list of "
                "weights"
            )
        for weight in self.curve:
            not_negative(weight, "curve")

    @property
    def varies(self) -> bool:
        """Whether it differs from the constant 1."""
        return self != Schedule()

    def __call__(self, step: int, steps: int) -> float:
        """The weight of step `step` (from 0) of `steps`.

        Raises:
            UserError: the curve does not return a finite number of at least 0.
        """
        if step / steps < self.start or (step + 1) / steps > self.end:
            return 0.0
        if self.curve is None:
            return 1.0
        if callable(self.curve):
            return not_negative(self.curve(step / steps), f"curve({step / steps:g})")
        return float(self.curve[step * len(self.curve) // steps])


def not_negative(value: object, name: str) -> float:
    """A weight of a curve.

    Raises:
        UserError: it is not a finite number of at least 0.
    """
    weight = finite(value, name)
    if weight < 0:
        raise UserError(f"{name} = {value!r}: give weights from 0 on")
    return weight


class Steps:
    """Maps timesteps to the steps of a run, by the scheduler of the pipeline."""

    def __init__(self, scheduler: Callable[[], Any]) -> None:
        """`scheduler` returns the current one, which the user may replace."""
        self.scheduler = scheduler
        self.timesteps: Tensor | None = None
        self.first = 0

    def __call__(self, timestep: Tensor | float) -> tuple[int, int]:
        """Index of the step, from 0, and number of steps of the run.

        A run starts when the pipeline has set new timesteps, at the first one that the UNet gets:
        image to image skips some. If a solver repeats a timestep, both calls are the same step.

        Raises:
            UserError: the scheduler has no such timestep.
        """
        timesteps = self.scheduler().timesteps
        places = (timesteps == timestep).nonzero()
        if not len(places):
            raise UserError(
                f"timestep {float(timestep):g} is not of the pipeline that the adapter was loaded "
                "on: load_adapter it on the one that runs, or leave out start, end and curve"
            )
        place = int(places[0])
        if timesteps is not self.timesteps:
            self.timesteps, self.first = timesteps, place
        return place - self.first, len(timesteps) - self.first


@torch.compiler.disable
def weight_at(schedule: Schedule, steps: Steps, timestep: Tensor | float) -> float:
    """Factor of lambda at a timestep."""
    return schedule(*steps(timestep))
