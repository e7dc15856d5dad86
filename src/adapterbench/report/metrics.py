"""Every number of the tables: label, unit, direction and format."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One column of the comparison."""

    key: str
    """Column name in the files."""
    label: str
    """Column heading."""
    unit: str
    better: Literal["higher", "lower"]
    decimals: int
    """Decimals in tables and pages."""
    precision: int
    """Decimals in the csv files: equal scores give equal bytes."""

    @property
    def sign(self) -> int:
        """+1 if higher is better, -1 if lower is."""
        return 1 if self.better == "higher" else -1

    @property
    def heading(self) -> str:
        """Label with its unit, for a cost column or an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """`value` as text; empty if it is NaN (not measured)."""
        return "" if math.isnan(value) else f"{value:,.{self.decimals}f}"

    def signed(self, value: float) -> str:
        """A difference as text, always with its sign."""
        return f"{value:+.{self.decimals}f}"


def _score(key: str, label: str, unit: str = "cosine") -> Metric:
    return Metric(key=key, label=label, unit=unit, better="higher", decimals=3, precision=6)


CLIP_T = _score("clip_t", "CLIP-T")
"""Cosine of the generated image and the caption, mean over N items and K images."""

CLIP_I = _score("clip_i", "CLIP-I")
"""Cosine of the generated image and the reference image, mean over N items and K images."""

NEUTRAL = _score("neutral", "Neutral-I")
"""Cosine of the generated image and the reference image, by the neutral evaluator."""

R_AT_1 = _score("r_at_1", "R@1", unit="share")
"""Share of generated images that are nearer to their reference than to the other N - 1."""

SCORES = (CLIP_T, CLIP_I, NEUTRAL, R_AT_1)
"""Scores per item, which have a confidence interval."""

SIMILARITIES = (CLIP_I, NEUTRAL)
"""Similarity to the reference by two evaluators; a claim must hold under both."""

DIVERSITY = _score("diversity", "Diversity", unit="cosine distance")
"""Mean distance between the K images of an item, by the neutral evaluator."""

SETS = (
    DIVERSITY,
    Metric(key="kid", label="KID", unit="", better="lower", decimals=4, precision=6),
    _score("precision", "Precision", unit="share"),
    _score("recall", "Recall", unit="share"),
)
"""Scores of sets of images by the neutral evaluator; no interval."""

GOAL = _score("goal", "To the goal")
"""Cosine of the generated image and the goal (the right answer), by the neutral evaluator."""

COPY = _score("copy", "To the image prompt")
"""Cosine of the generated image and the image prompt; 1 for a copy."""

ANSWERS = (GOAL, COPY, R_AT_1)
"""Scores of prompts with a right answer; R@1 is of the goal among all goals."""

LEADS = (
    _score("over_text_only", "Over text only"),
    _score("over_image_only", "Over image only"),
    _score("over_shuffled_image", "Over another image"),
)
"""Paired differences in the cosine to the goal: image and text minus another row."""

COLOUR = Metric(
    key="colour", label="Colour", unit="Delta E", better="higher", decimals=1, precision=6
)
"""Distance of the generated image's colours to the reference's, negated: higher is nearer."""

SHAPE = _score("shape", "Shape", unit="edge F1")
"""F1 of the edges of the generated image and the reference."""

CONCEPT = _score("concept", "Concept")
"""Cosine of the generated image and the reference, by the neutral evaluator."""

ASPECTS = (COLOUR, SHAPE, CONCEPT)
"""What a layer may carry of the image prompt."""

TRAINABLE = Metric(
    key="trainable_params",
    label="Trainable parameters",
    unit="",
    better="lower",
    decimals=0,
    precision=0,
)

COSTS = (
    Metric(
        key="train_seconds",
        label="Training time",
        unit="s",
        better="lower",
        decimals=0,
        precision=2,
    ),
    Metric(
        key="images_per_second",
        label="Training speed",
        unit="images/s",
        better="higher",
        decimals=1,
        precision=3,
    ),
    Metric(
        key="peak_memory_mb",
        label="Peak memory",
        unit="MB",
        better="lower",
        decimals=0,
        precision=2,
    ),
    Metric(
        key="host_memory_mb",
        label="Peak host memory",
        unit="MB",
        better="lower",
        decimals=0,
        precision=2,
    ),
    Metric(
        key="checkpoint_mb",
        label="Checkpoint",
        unit="MB",
        better="lower",
        decimals=2,
        precision=3,
    ),
)


def count_text(parameters: int) -> str:
    """A parameter count: in millions (`11.80 M`), below 100,000 in full (`34,560`)."""
    return f"{parameters / 1e6:.2f} M" if parameters >= 100_000 else f"{parameters:,}"


def clip_score(clip_t: float) -> float:
    """CLIPScore of a mean cosine: `2.5 * max(cos, 0)` (Hessel et al. 2021, arXiv 2104.08718)."""
    return 2.5 * max(clip_t, 0.0)
