"""How much an image prompt counts in each step of sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapterbench.adapters.core.adapter import finite
from adapterbench.core.errors import UserError

Curve = Callable[[float], float] | Sequence[float]
"""Weight by the share of the steps that are done, or by step."""


@dataclass(frozen=True)
class Schedule:
    """What lambda is multiplied by in step i of n."""

    start: float = 0.0
    """Share of the steps before the image prompt counts."""
    end: float = 1.0
    """Share of the steps after which it no longer counts, as `control_guidance_end`."""
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
        """Whether it is other than 1 in every step."""
        return self != Schedule()

    def __call__(self, step: int, steps: int) -> float:
        """The weight of a step, from 0, of so many.

        Raises:
            UserError: the curve gives no finite number from 0 on.
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
        UserError: it is no finite number from 0 on.
    """
    weight = finite(value, name)
    if weight < 0:
        raise UserError(f"{name} = {value!r}: give weights from 0 on")
    return weight


class Steps:
    """Which step of a run a timestep is, from the scheduler of the pipeline that runs."""

    def __init__(self, scheduler: Callable[[], Any]) -> None:
        """`scheduler` gives that of the moment: people exchange it."""
        self.scheduler = scheduler
        self.timesteps: Tensor | None = None
        self.first = 0

    def __call__(self, timestep: Tensor | float) -> tuple[int, int]:
        """Number of the step, from 0, and how many the run has.

        A run begins with new timesteps, which every pipeline sets, at the first of them that the
        UNet sees: image to image leaves some out. Where a solver is twice at a timestep, both
        count as the first.

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
    """What lambda is multiplied by at a timestep."""
    return schedule(*steps(timestep))
